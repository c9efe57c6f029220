"""What a run folder says of its run: every start is recorded, older folders are read."""

import json
import re
import sys

from jaxseg.train import run_folder
from jaxseg.train.run_folder import RunFolder, load_run
from tests.tiny_runs import CLASSES, make_experiment


def test_the_run_is_recorded_once_more_at_every_start(tmp_path, monkeypatch):
  for command in (
    ['launch/train.py', '--config=a b'],
    ['/v/bin/jaxseg', 'train'],
    ['/v/jaxseg/__main__.py', 'train'],
    ['launch/train.py', '--resumed'],
  ):
    monkeypatch.setattr(sys, 'argv', command)
    folder = RunFolder(tmp_path, make_experiment().config)
    folder.write_facts(CLASSES, 'pmap over 8 cpu device(s)')
    folder.close()
  told = json.loads((tmp_path / 'run.json').read_text())
  assert told['command'] == 'python launch/train.py --resumed'
  assert [s['command'] for s in told['sessions']] == [
    "python launch/train.py '--config=a b'",
    'jaxseg train',
    'python -m jaxseg train',
    'python launch/train.py --resumed',
  ]
  assert told['started'] == told['sessions'][0]['started']
  assert told['devices'] in told['hardware'] and 'cores' in told['hardware']
  assert {'python', 'jax', 'flax', 'numpy'} <= set(told['versions'])
  assert re.fullmatch(r'([0-9a-f]{40}\+?)?', told['git'])


def test_older_runs_without_a_record_are_read(tmp_path):
  assert load_run(tmp_path) == {}
  (tmp_path / 'run.json').write_text('{"comm')
  assert load_run(tmp_path) == {}


def test_where_the_weights_come_from_belongs_to_a_run():
  """A resume reads none: other weights in its command would be ignored."""
  config = make_experiment().config
  changed = run_folder.differences(config, {**config, 'init_from': 'other.pth'})
  assert changed == {'init_from': ('', 'other.pth')}
