"""A received workdir is data: what it says of folders, processes and accounts is not obeyed."""

import dataclasses
import json

import pytest

from jaxseg import config as configs
from jaxseg.train import machine
from jaxseg.train.build import load_experiment
from jaxseg.train.evaluator import make_scores
from jaxseg.train.run_folder import load_classes, load_config, load_run
from jaxseg.types import UserError
from tests.tiny_runs import make_experiment

EVIL = {
  'data_dir': '/evil',
  'cache_dir': '/evil',
  'compile_cache': '/evil',
  'mirror': '/evil',
  'cpu_devices': 4096,
  'data.num_threads': 4096,
  'data.timeout': 0.0,
  'data.memory_mb': 1 << 30,
  'log.wandb': 'evil',
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))


def received(folder, **groups):
  """Writes a config.json that asks for everything of the machine."""
  config = json.loads(json.dumps(make_experiment().config))
  for key, value in EVIL.items():
    group, _, name = key.rpartition('.')
    (config[group] if group else config)[name] = value
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(config | groups))
  return folder


def machine_values(experiment):
  settings, data = experiment.settings, experiment.data
  return {
    'data_dir': settings.data_dir,
    'cache_dir': settings.cache_dir,
    'compile_cache': settings.compile_cache,
    'mirror': settings.mirror,
    'cpu_devices': settings.cpu_devices,
    'data.num_threads': data.num_threads,
    'data.timeout': data.timeout,
    'data.memory_mb': data.memory_mb,
    'log.wandb': experiment.log.wandb,
  }


DEFAULTS = {
  'data_dir': '',
  'cache_dir': '',
  'compile_cache': '~/.cache/jaxseg/xla',
  'mirror': '',
  'cpu_devices': 0,
  'data.num_threads': 2,
  'data.timeout': 60.0,
  'data.memory_mb': 4096,
  'log.wandb': '',
}


def test_a_received_run_has_the_defaults(tmp_path):
  experiment = load_experiment(received(tmp_path / 'run'))
  assert machine_values(experiment) == DEFAULTS and set(DEFAULTS) == set(machine.KEYS)
  assert experiment.config['compile_cache'] == DEFAULTS['compile_cache']
  assert load_config(tmp_path / 'run')['compile_cache'] == '/evil'  # what was saved can be shown


def test_a_run_that_was_trained_here_has_this_machines_values(tmp_path):
  folder = received(tmp_path / 'run')
  mine = DEFAULTS | {'data_dir': '/mine', 'compile_cache': '', 'data.timeout': 5.0}
  groups = {'data': {'timeout': 5.0, 'name': 'x'}, 'log': {'wandb': ''}, 'seed': 7, 'augment': ()}
  machine.save(folder, {'data_dir': '/mine', 'compile_cache': '', **groups})
  assert machine_values(load_experiment(folder)) == mine
  moved = folder.rename(tmp_path / 'moved')
  assert machine_values(load_experiment(moved)) == DEFAULTS


@pytest.mark.parametrize(
  'path', ['/etc/passwd', '~/x.csv', '../x.txt', 'a/../../x', '/proc/self/cwd/x']
)
def test_a_received_run_reads_nothing_outside_of_the_data(path, tmp_path):
  config = {'data': {'options': {'classes': ('a', {'list': path}), 'images': 'a/**/*'}}}
  assert machine.outside(tmp_path / 'run', config) == path
  assert machine.outside(tmp_path / 'run', {'data': {'options': {'images': 'a/..b/*'}}}) == ''
  experiment = dataclasses.replace(make_experiment(), outside=path)
  with pytest.raises(
    UserError, match='this run was not trained here, and its data are to be read by'
  ):
    experiment.source('val')
  machine.save(tmp_path / 'run', make_experiment().config)
  assert machine.outside(tmp_path / 'run', config) == ''


OWN = {
  'task': 'strange.task',
  'model': {'name': 'strange.net'},
  'data': {'name': 'strange.data'},
  'loss': {'name': 'strange.loss'},
  'augment': [['flip', {}], ['strange.Turn', {}]],
  'eval': {'scores': ['dice', 'strange.score']},
}


@pytest.mark.parametrize('group', OWN)
def test_a_received_run_imports_nothing(group, tmp_path, monkeypatch):
  (tmp_path / 'strange.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
  monkeypatch.syspath_prepend(tmp_path)
  folder = received(tmp_path / 'run', **{group: OWN[group]})
  with pytest.raises(
    UserError, match=r'names code outside jaxseg \(strange\.\w+\) and was not trained'
  ):
    load_experiment(folder)
  assert not (tmp_path / 'ran').exists()
  saved = load_config(folder)
  monkeypatch.setenv('JAXSEG_IMPORTS', 'mine,strange')
  assert machine.apply(folder, saved)[group] == configs.plain(OWN[group])
  monkeypatch.delenv('JAXSEG_IMPORTS')
  machine.save(folder, saved)
  assert machine.apply(folder, saved)[group] == configs.plain(OWN[group])


def test_a_name_with_a_leading_dot_is_of_no_package(tmp_path):
  with pytest.raises(UserError, match=r'names code outside jaxseg \(\.os\)'):
    machine.apply(tmp_path, {'model': {'name': '.os'}})


def test_scores_in_one_word_are_imported_too(tmp_path):
  with pytest.raises(UserError, match=r'\(a\.b, c\.d\).*JAXSEG_IMPORTS=a,c'):
    machine.apply(tmp_path, {'eval': {'scores': 'dice,a.b, c.d'}})


def test_without_a_cache_nothing_is_remembered(tmp_path, monkeypatch):
  folder = received(tmp_path / 'run')
  (tmp_path / 'file').touch()
  for place in (str(tmp_path / 'file'), 'gs://b/c'):
    monkeypatch.setenv('JAXSEG_CACHE', place)
    machine.save(folder, make_experiment().config)
    assert machine_values(load_experiment(folder)) == DEFAULTS
  monkeypatch.delenv('JAXSEG_CACHE')
  monkeypatch.delenv('HOME')
  monkeypatch.setattr('pwd.getpwuid', {}.__getitem__)
  machine.save(folder, make_experiment().config)
  assert machine_values(load_experiment(folder)) == DEFAULTS


@pytest.mark.parametrize(
  'text',
  [
    '[]',
    'null',
    '3',
    '"x"',
    '{}',
    '{"model_options": 3}',
    '{"model_options": {}, "flip": {}, "short_side": 3, "task": "instance"}',
    '{"model": 1}',
    '{"seed": NaN}',
    '[' * 9999,
    '[' * 1000 + ']' * 1000,
    '{"augment": ' + '[' * 1000 + ']' * 1000 + '}',
    '\xff',
  ],
)
def test_what_is_no_config(text, tmp_path):
  (tmp_path / 'config.json').write_bytes(text.encode('latin1'))
  with pytest.raises(UserError, match=r'config\.json'):
    load_config(tmp_path)


@pytest.mark.parametrize(
  'groups',
  [
    {'augment': 3},
    {'augment': [3]},
    {'augment': [['flip', 3]]},
    {'augment': [[3, {}]]},
    {'model': {'name': 3}},
    {'model': {'name': 'unet', 'width': 'wide'}},
    {'model': {'name': 'os.path'}},
    {'model': {'name': 'antigravity.x'}},
    {'augment': [['os.system', {'command': 'false'}]]},
    {'augment': [['subprocess.Popen', {'args': ['false']}]]},
    {'eval': {'scores': ['idlelib.idle']}},
    {'data': {'name': 'shapes', 'options': 3}},
    {'data': {'mean': None}},
    {'task': 'this.s'},
    {'task': 3},
    {'eval': {'scales': []}},
    {'eval': {'score': {'x': 1}}},
    {'loss': []},
    {'paper': {'mean_iou': 0.5}},
    {'paper': {'source': 3}},
    {'paper': 7},
    {'num_classes': 1e9},
    {'seed': -1},
  ],
)
def test_a_config_of_wrong_types_is_one_line(groups, tmp_path):
  with pytest.raises(UserError):
    make_scores(load_experiment(received(tmp_path / 'run', **groups)), ['a', 'b'])


@pytest.mark.parametrize(
  'palette',
  [
    [['0)"/><meta http-equiv="refresh" content="0;url=http://evil"><x y="', 0, 0], [1, 1, 1]],
    [[0, 0, 256], [1, 1, 1]],
    [[0, 0, -1], [1, 1, 1]],
    [[0, 0], [1, 1, 1]],
    [[0, 0, 0.5], [1, 1, 1]],
    [[True, 0, 0], [1, 1, 1]],
    [[0, 0, 0]],
    [0, 1],
    None,
    '#fff',
  ],
)
def test_colours_are_three_bytes(palette, tmp_path):
  (tmp_path / 'classes.json').write_text(json.dumps({'names': ['a', 'b'], 'palette': palette}))
  with pytest.raises(UserError, match=r'classes\.json cannot be read'):
    load_classes(tmp_path)


@pytest.mark.parametrize(
  'names', [['a', 'a'], ['a\x1b[2J', 'b'], ['a\n', 'b'], [1, 2], [], None, 'ab\0']
)
def test_names_of_classes_are_words(names, tmp_path):
  palette = [[0, 0, 0]] * (len(names) if names else 2)
  (tmp_path / 'classes.json').write_text(json.dumps({'names': names, 'palette': palette}))
  with pytest.raises(UserError, match=r'classes\.json cannot be read'):
    load_classes(tmp_path)


@pytest.mark.parametrize('text', ['null', '[]', '3', '{"git": 3, "sessions": 4, "versions": []}'])
def test_facts_that_are_none_are_left_out(text, tmp_path):
  (tmp_path / 'run.json').write_text(text)
  assert load_run(tmp_path) == {}


def test_facts_are_words(tmp_path):
  saved = {
    'git': 'abc+',
    'command': ['rm'],
    'versions': {'jax': '1', 'numpy': 2},
    'sessions': [
      {'git': 'abc', 'x': 1},
      5,
      {'seconds': {'wall': 2.5, 'steps': 'x'}, 'steps': [0, 4]},
    ],
    'evil': '<script>',
  }
  (tmp_path / 'run.json').write_text(json.dumps(saved))
  assert load_run(tmp_path) == {
    'git': 'abc+',
    'versions': {'jax': '1'},
    'sessions': [{'git': 'abc'}, {'seconds': {'wall': 2.5}, 'steps': [0, 4]}],
  }
