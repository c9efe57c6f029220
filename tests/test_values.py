"""Every key of a config and every flag, with values that nobody means: it works, or it is one line.

    VALUES_TABLE=docs/reliability.md pytest -n0 tests/test_values.py

renews the table of the counts. Keys and flags are found here by themselves.
"""

import argparse
import copy
import functools
import importlib
import math
import os

import jax
import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg import console
from jaxseg.config import parts
from jaxseg.data import augment
from jaxseg.predict.options import Options
from jaxseg.train import build
from jaxseg.train.devices import parallel
from jaxseg.train.evaluator import make_scores
from jaxseg.train.state import make_init
from jaxseg.train.variables import load_variables
from jaxseg.types import UserError
from tests import documents, tiny_runs
from tests.test_configs import load

TABLE = 'VALUES_TABLE'
ODD = {
  '0': 0,
  '-1': -1,
  'nan': math.nan,
  'inf': math.inf,
  '2^31': 2**31,
  '10^21': 10**21,
  "''": '',
  'a word': 'word(',
  'a list': [0, -1],
  'of words': ['word('],
  'of nothing': [],
  'of NaN': [math.nan, math.nan],
}
TYPED = [str(value) for value in ODD.values() if not isinstance(value, list)]
TYPED += ['0,-1', '1e-9', '1e9', '100000,100000', '1,2,3', '²', '9' * 5000, '\x00']
COUNTS: dict[str, list[int]] = {}  # what was walked -> keys, refused, accepted


class Walk:
  """Tries values and counts what comes of them.

  Attributes:
    wrong: what was neither refused in one line nor works.
  """

  def __init__(self, name: str):
    self._name, self.wrong = name, []
    COUNTS[name] = [0, 0, 0]

  def key(self) -> None:
    COUNTS[self._name][0] += 1

  def attempt(self, what: str, call) -> None:
    try:
      call()
      COUNTS[self._name][2] += 1
    except UserError as error:
      COUNTS[self._name][1] += 1
      if '\n' in str(error):
        self.wrong.append(f'{what}: {error}')
    except Exception as error:
      self.wrong.append(f'{what}: {type(error).__name__}: {error}')


def leaves(config, path=()):
  """Yields the path of every key that is no group; of transforms their place and the argument."""
  for key, value in config.items():
    if key == 'augment':
      for i, (_, options) in enumerate(value):
        yield from leaves(options, (*path, key, i, 1))
    elif isinstance(value, dict) and value:
      yield from leaves(value, (*path, key))
    else:
      yield (*path, key)


def with_value(config, path, value):
  """Returns a copy; its transforms are lists, as JSON would have them."""
  changed = {**copy.deepcopy(config), 'augment': [[n, dict(o)] for n, o in config['augment']]}
  functools.reduce(lambda part, key: part[key], path[:-1], changed)[path[-1]] = value
  return changed


def settle(config, before: set[str]) -> None:
  """Builds what training builds without data and without computing; shapes of each network once."""
  experiment = build.experiment(config)
  settings, model = experiment.settings, experiment.model()
  parallel.build(settings.parallel, settings.mesh, settings.batch_size // settings.accumulate)
  schedule = experiment.optim.make_schedule(settings.num_steps)
  assert all(math.isfinite(schedule(step)) for step in (0, settings.num_steps - 1))
  make_scores(experiment, ('ground', 'disc', 'square', 'triangle')[: settings.num_classes])
  frame = experiment.frame(model)
  assert min(frame.canvas((48, 64))) > 0 and min(frame.factor((48, 64))) > 0
  for split in (experiment.data.train_split, settings.eval_split):
    assert len(experiment.source(split)) > 0
  network = repr(
    (experiment.config['model'], experiment.optim, settings.num_classes, settings.seed)
  )
  if network not in before:
    side = model.size_rule.at_least(max(32, model.size_rule.minimum))
    tx = experiment.optim.make_optimizer(schedule)
    init = make_init(model, tx, (1, side, side, experiment.channels))
    jax.eval_shape(init, jax.random.key(settings.seed))
  before.add(network)


NETWORKS = ('unet_shapes', 'fcn_camvid', 'segnet_camvid', 'pspnet_camvid', 'mask_rcnn_dsb2018')


@pytest.mark.parametrize('name', NETWORKS)
def test_every_key_of_a_config(name):
  """Of the first all groups, of the others those that are theirs."""
  config = dict(build.experiment(load(f'{name}.py:smoke')).config)
  source = importlib.import_module(f'jaxseg.datasets.{config["data"]["name"]}').source
  config['data']['options'] = (
    parts.defaults(source, ('data_dir', 'cache_dir')) | config['data']['options']
  )
  walk, before = Walk(f'{name}.py'), set()
  walk.attempt('as it is', lambda: settle(config, before))
  assert not walk.wrong and COUNTS[f'{name}.py'][2] == 1
  for path in leaves(config):
    if name != NETWORKS[0] and path[0] not in ('model', 'loss', 'eval', 'augment'):
      continue
    walk.key()
    for word, value in ODD.items():
      changed = with_value(config, path, value)
      walk.attempt(f'{".".join(map(str, path))}={word}', lambda c=changed: settle(c, before))
  assert not walk.wrong, '\n'.join(walk.wrong)


SURE = {
  'side': 8,
  'size': (24, 32),
  'sides': (32,),
  'degrees': 9.0,
  'pixels': 3,
  'amount': 0.1,
  'share': 0.5,
}


def transforms_by_name():
  return sorted(augment.known().items())


@pytest.mark.parametrize(('name', 'kind'), transforms_by_name())
def test_every_argument_of_a_transform(name, kind):
  options = parts.parameters(kind)
  needed = [k for k, p in options.items() if p.default is p.empty]
  sure = {k: SURE[k] for k in (needed or [k for k in options if name == 'resize' and k in SURE])}
  rng, walk = np.random.default_rng(0), Walk(f'augment.{name}')
  example = {'image': np.zeros((20, 28, 3), np.uint8), 'label': np.zeros((20, 28), np.uint8)}
  example |= {'instances': np.ones((20, 28), np.uint16), 'instance_classes': np.ones(1, np.uint8)}

  def attempt(values):
    (transform,) = augment.make_transforms([(name, values)])
    if max(np.ravel([v for v in values.values() if isinstance(v, (int, float))]), default=0) < 500:
      augment.augmented(example, [transform], rng)

  for option in options:
    walk.key()
    for word, value in ODD.items():
      given = configs.plain({**sure, option: value})
      walk.attempt(f'{option}={word}', lambda g=given: attempt(g))
  assert not walk.wrong, '\n'.join(walk.wrong)


@pytest.mark.parametrize('name', parts.names('datasets'))
def test_every_option_of_a_dataset(name, tmp_path):
  """Where there are no data; tests/test_datasets_*.py have the rest."""
  source = importlib.import_module(f'jaxseg.datasets.{name}').source
  folders = dict(data_dir=str(tmp_path), cache_dir=str(tmp_path / 'cache'))
  walk = Walk(f'data.options of {name}')
  for option in parts.parameters(source).keys() - {'split', *folders}:
    walk.key()
    for word, value in ODD.items():
      values = {option: configs.plain(value)}
      walk.attempt(
        f'{option}={word}',
        lambda v=values: source('train', **folders, **parts.arguments(source, v, 'it', ('split',))),
      )
  assert not walk.wrong, '\n'.join(walk.wrong)


def test_every_option_of_a_prediction():
  walk = Walk('jaxseg.load(WORKDIR, ...)')
  for option in parts.parameters(Options):
    walk.key()
    for word, value in ODD.items():
      values = {option: configs.plain(value)}
      walk.attempt(
        f'{option}={word}',
        lambda v=values: Options(**parts.arguments(Options, v, 'prediction')).describe(),
      )
  assert not walk.wrong, '\n'.join(walk.wrong)


class Parsed(Exception):
  """The flags of a command are read; nothing is done with them."""


class Parser(console.Parser):
  def parse(self, **options):
    super().parse(**options)
    raise Parsed


def parser_of(name, *argv):
  """Returns the parser of a command once it has read its flags. Raises UserError where it refuses."""
  module = importlib.import_module(f'jaxseg.commands.{name}')
  parser = Parser(module.__doc__, name, list(argv))
  try:
    module.main(parser)
  except Parsed:
    return parser
  raise AssertionError(f'{name} never read its flags')


@pytest.mark.parametrize('name', parts.names('commands'))
def test_every_flag_of_a_command(name):
  """What a flag lets through is within its range: tests of what takes it have the rest."""
  needed = {'data': ['check'], 'report': ['x'], 'results': []}.get(name, [])
  module = importlib.import_module(f'jaxseg.commands.{name}')
  collecting = Parser(module.__doc__, name, [*needed])
  with pytest.raises((Parsed, UserError)):
    module.main(collecting)
  flags = [a for a in collecting._actions if a.option_strings and a.nargs != 0]
  needed += [f'{a.option_strings[0]}=x' for a in flags if a.required]
  walk = Walk(f'jaxseg {name}')
  for flag in flags:
    walk.key()
    for text in TYPED:
      argv = (*needed, f'{flag.option_strings[0]}={text}')
      walk.attempt(f'{argv[-1]!r}', lambda a=argv: parser_of(name, *a))
  assert not walk.wrong, '\n'.join(walk.wrong)


@pytest.mark.parametrize(
  ('kind', 'right', 'wrong'),
  [
    (
      console.integer(1),
      {'1': 1, '2147483647': 2**31 - 1},
      ['0', '-1', '1.5', '²', 'x', '', '2147483648'],
    ),
    (console.integer(0, 9), {'0': 0, '9': 9}, ['-1', '10', 'nan', '9' * 5000]),
    (console.number(0.01, 16), {'.5': 0.5, '16': 16.0}, ['0', 'nan', 'inf', '1e-9', '17', '']),
    (
      console.list_of(console.integer(1)),
      {'1,2': (1, 2), '3': (3,)},
      ['', '1,', '0,1', '1;2'],
    ),
    (console.size, {'8': (8, 8), '8,9': (8, 9)}, ['0', '8,0', '1,2,3', '', '100000,100000', 'a,b']),
  ],
)
def test_what_a_flag_takes(kind, right, wrong):
  assert {text: kind(text) for text in right} == right
  for text in wrong:
    with pytest.raises(argparse.ArgumentTypeError, match='give '):
      kind(text)


@pytest.mark.parametrize('step', ['²', '01', '', '-1', '9' * 5000, 'Best', '2'])
def test_a_step_that_is_not_there(step, tmp_path):
  workdir = tiny_runs.make_workdir(tmp_path, tiny_runs.make_experiment())
  with pytest.raises(UserError, match='choose best, latest or one of the steps 1$'):
    load_variables(workdir, step)


def table() -> str:
  rows = [f'| {what} | {keys} | {no} | {yes} |' for what, (keys, no, yes) in COUNTS.items()]
  values = ', '.join(f'`{word}`' if word[0] in "'0-ni21" else word for word in ODD)
  return '\n'.join(
    [
      f'Each key with {values},',
      'in turn, as far as a training goes without data; each flag of every command with such texts, `²` and',
      '5,000 digits. It is refused in one line, or it works. Written by',
      f'`{TABLE}=docs/reliability.md pytest -n0 tests/test_values.py`.',
      '',
      '| walked | keys | values refused | values that work |',
      '|---|---|---|---|',
      *rows,
    ]
  )


def test_the_table_is_in_the_documents():
  """Last in this file: by now every row is there, where all of it was run."""
  if os.environ.get(TABLE):
    documents.renew(TABLE, 'Odd values', 'odd values', table())
  text = documents.section('odd values')
  assert all(f'| {name}.py | ' in text for name in NETWORKS), f'renew it: see {__name__}'
