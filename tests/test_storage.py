"""A run whose data and workdir are in a bucket: trained, resumed, evaluated, predicted, reported.

The bucket is a stand-in: epath reaches it through fsspec as it reaches gs://, and where Orbax would
call Google's libraries it is led to the same files.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry
from orbax.checkpoint._src.path import gcs_utils
from PIL import Image

from jaxseg import console, files
from jaxseg.fetch import get, manifest
from jaxseg.types import UserError
from tests.bad_inputs import ROOT, good_folder
from tests.test_launch import launch

CONFIG = """
from jaxseg.config import base


def get_config(variant=None):
  config = base()
  config.data.name = 'folder'
  config.num_classes = 3
  config.model = dict(name='unet', width=2, depth=1, padding='same')
  config.num_steps = 4
  config.batch_size = 2
  config.log = dict(every=1, checkpoint_every=2, figures=1)
  config.eval.every = 2
  config.cpu_devices = 1
  config.compile_cache = 'XLA'
  return config
"""


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Path:
  """The folder that stands in for gs://bucket."""
  root = tmp_path / 'buckets'
  (root / 'bucket').mkdir(parents=True)

  class Buckets(DirFileSystem):
    protocol = ('gcs', 'gs')
    cachable = False

    def __init__(self, **_):
      super().__init__(path=str(root), fs=LocalFileSystem(auto_mkdir=True))

    def open(self, path, mode='rb', **options):
      assert 'a' not in mode and '+' not in mode, 'a file in a bucket cannot be appended to'
      return super().open(path, mode, **options)

  monkeypatch.setitem(_registry, 'gcs', Buckets)
  backend.fsspec_backend._get_filesystem.cache_clear()

  def local(path) -> Path:
    return root / str(path).removeprefix('gs://')

  def kvstore(path):
    return {'driver': 'file', 'path': f'{local(path)}/'}

  monkeypatch.setattr(gcs_utils, 'get_kvstore_for_gcs', kvstore)
  monkeypatch.setattr(gcs_utils, 'rmtree', lambda path: shutil.rmtree(local(path)))
  monkeypatch.setattr(gcs_utils, 'is_hierarchical_namespace_enabled', lambda path: False)
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))
  monkeypatch.chdir(tmp_path)
  yield root / 'bucket'
  backend.fsspec_backend._get_filesystem.cache_clear()


def scalars(workdir: Path) -> list[dict[str, float]]:
  records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [{k: v for k, v in r.items() if not k.startswith('time/')} for r in records]


def test_a_run_in_a_bucket(bucket, tmp_path, capsys):
  good_folder(bucket / 'own')
  (tmp_path / 'config.py').write_text(CONFIG.replace('XLA', str(tmp_path / 'xla')))
  train = ('train', '--config=config.py', '--config.data_dir=gs://bucket/own')
  launch(*train, '--workdir=gs://bucket/run', '--stop_at=2')
  launch(*train, '--workdir=gs://bucket/run')
  assert 'resumed at step 2' in capsys.readouterr().out
  launch(*train, f'--workdir={tmp_path}/local')
  run = bucket / 'run'
  assert scalars(run) == scalars(tmp_path / 'local')
  assert {p.name for p in (run / 'checkpoints').iterdir()} == {'2', '4'}
  assert (run / 'report.html').stat().st_size > 1000
  with Image.open(run / 'figures' / 'predictions.png') as picture:
    assert picture.width > 100
  assert any(p.name.startswith('events.') and p.stat().st_size > 1000 for p in run.iterdir())

  launch('evaluate', '--workdir=gs://bucket/run', '--step=4')
  launch('evaluate', f'--workdir={tmp_path}/local', '--step=4')
  numbers = [json.loads((f / 'eval' / 'val.json').read_text()) for f in (run, tmp_path / 'local')]
  assert numbers[0] == numbers[1] and numbers[0]['images'] > 0

  flags = ('--overlay', '--probabilities', '--uncertainty')
  images = '--input=gs://bucket/own/val/images'
  launch('predict', '--workdir=gs://bucket/run', images, '--output=gs://bucket/out', *flags)
  names = [p.stem for p in (bucket / 'own' / 'val' / 'images').iterdir()]
  for name in names:
    with Image.open(bucket / 'out' / f'{name}.png') as mask:
      label = np.asarray(mask)
    probabilities = np.load(bucket / 'out' / f'{name}_probabilities.npy')
    assert probabilities.shape == (*label.shape, 3)
  assert len(list((bucket / 'out').iterdir())) == 5 * len(names)


def test_what_grows_is_uploaded_whole(bucket):
  path = files.to_path('gs://bucket/log')
  assert str(path) == 'gs://bucket/log'
  file = files.Appended(path)
  file.write(b'one')
  assert not (bucket / 'log').exists()
  file.sync()
  assert (bucket / 'log').read_bytes() == b'one'
  again = files.Appended(path)
  again.write(b' two')
  again.close()
  assert (bucket / 'log').read_bytes() == b'one two'


def test_a_local_path_stays_pathlibs(tmp_path):
  assert type(files.to_path(tmp_path)) is type(tmp_path)
  assert files.to_path('~/x') == Path.home() / 'x'
  file = files.Appended(tmp_path / 'log')
  file.write(b'one')
  assert (tmp_path / 'log').read_bytes() == b'one'
  file.close()


def test_half_a_file_is_never_seen(tmp_path):
  path = tmp_path / 'x.txt'
  path.write_text('before')
  with pytest.raises(RuntimeError), files.whole_file(path) as part:
    part.write_text('half')
    raise RuntimeError
  assert path.read_text() == 'before' and [p.name for p in tmp_path.iterdir()] == ['x.txt']


def test_what_a_bucket_needs_is_told(capsys):
  """Without the stand-in, fsspec has no library that reaches gs://."""
  with pytest.raises(SystemExit) as stop:
    launch('train', f'--config={ROOT}/configs/unet_shapes.py:smoke', '--workdir=gs://nobody/run')
  assert stop.value.code == 2
  told = capsys.readouterr().err
  assert told == f"error: gs:// needs Google's libraries: {console.install_hint('gcs')}\n"


def test_the_cache_must_be_local():
  from jaxseg.data import cache

  with pytest.raises(UserError, match=r'gs://bucket/c must be on this machine'):
    cache.cache_root('gs://bucket/c')


def test_data_are_got_into_a_bucket_from_a_mirror_in_one(bucket, tmp_path):
  item = manifest.RemoteFile('f.tar', bytes=5)
  entry = manifest.Dataset('voc', 'CC BY 4.0', 'https://example.org', (item,))
  there = bucket / 'mirror' / 'voc' / 'f.tar'
  there.parent.mkdir(parents=True)
  there.write_bytes(b'bytes')
  way = get.FetchOptions('gs://bucket/mirror', yes=True, cache_dir=tmp_path / 'cache')
  for _ in range(2):  # the second time it is there
    get.dataset(entry, files.to_path('gs://bucket/data'), way)
  assert (bucket / 'data' / 'voc' / 'f.tar').read_bytes() == b'bytes'
  assert not list((tmp_path / 'cache' / 'staged').glob('f.tar'))
