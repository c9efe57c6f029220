"""Every config and variant builds, has the paper's number of parameters, and says how to run it.

The files and their variants are found here by themselves; what papers say is in test_recipes.
"""

import functools
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxseg import config as configs
from jaxseg.train.build import experiment
from jaxseg.train.optim import path_name
from jaxseg.train.state import parameter_count

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / 'configs').glob('*.py'))


def variants_of(path):
  """Returns the variants that a file's get_config asks for, as one writes them after the colon."""
  asked = {}

  def variants(argument, **defaults):
    asked.update(defaults)
    return read(argument, **defaults)

  read, configs.variants = configs.variants, variants
  try:
    configs.load(str(path))
  finally:
    configs.variants = read
  return [name if isinstance(value, bool) else f'{name}=1' for name, value in asked.items()]


def baselines_of(path):
  """Returns the variants that are rows of docs/results.md."""
  return runpy.run_path(str(path)).get('BASELINES', ())


def specs_of(path):
  """Returns the bare config, every variant, every baseline, and each of these as smoke test."""
  chosen = dict.fromkeys(['', *variants_of(path), *baselines_of(path)])
  smoke = [v for v in chosen if not {'small', 'smoke'} & set(v.split(','))]
  return [*chosen, *(','.join(filter(None, (v, 'smoke'))) for v in smoke if v)]


SPECS = [f'{path.name}:{v}'.rstrip(':') for path in PATHS for v in specs_of(path)]
# One of each file, and those of another network or loss: what tests/test_launch.py trains.
SMOKE = [f'{path.name}:smoke' for path in PATHS]
SMOKE += ['segnet_camvid.py:basic,smoke', 'unet_isbi2012.py:nvidia,smoke']


def load(spec, *overrides):
  return configs.load(str(ROOT / 'configs' / spec), overrides)


def build(spec, *overrides):
  return experiment(load(spec, *overrides))


@functools.cache
def parameters_of(spec):
  """Returns the shapes of a network's parameters, at full width."""
  exp = build(spec)
  model = exp.model()
  rule = model.size_rule
  image = jnp.zeros((1, *[rule.at_least(max(64, rule.minimum))] * 2, exp.channels))
  init = lambda: model.init(jax.random.key(0), image, train=False)  # noqa: E731
  return jax.eval_shape(init)['params']


def parameter_names(spec):
  leaves = jax.tree_util.tree_leaves_with_path(parameters_of(spec))
  return [path_name(path) for path, _ in leaves]


@pytest.mark.parametrize('spec', [spec for spec in SPECS if 'smoke' not in spec])
def test_builds(spec):
  exp = build(spec)
  paper = exp.settings.paper
  outputs = exp.task.num_outputs if paper else 'any'  # which changes their number, but no name
  same = network_of.setdefault((repr(exp.config['model']), outputs), spec)
  names = parameter_names(same)
  if paper:
    assert parameter_count(parameters_of(same)) == paper['params']
  for pattern in [rule[0] for rule in exp.optim.multipliers] + list(exp.init.new):
    assert any(re.search(pattern, name) for name in names), pattern


network_of = {}  # options -> the first config that has them


@pytest.mark.parametrize('spec', [spec for spec in SPECS if 'smoke' in spec])
def test_smoke_is_short_and_needs_no_data(spec):
  """Networks are built in tests/test_launch.py, which trains them."""
  exp = build(spec)
  assert exp.data.name == 'shapes' and exp.settings.num_steps <= 10
  assert exp.source('train').num_classes == exp.settings.num_classes


@pytest.mark.parametrize('path', PATHS, ids=lambda p: p.stem)
def test_a_file_says_how_to_run_it_and_what_its_variants_are(path):
  docstring = path.read_text(encoding='utf-8').split('"""')[1]
  assert f'python launch/train.py --config=configs/{path.name}' in docstring
  names = [v.partition('=')[0] for v in variants_of(path)]
  assert 'smoke' in names and ('small' in names or path.stem == 'unet_shapes')
  unexplained = [name for name in names if not re.search(rf'[:, ]{name}\b', docstring)]
  assert not unexplained
