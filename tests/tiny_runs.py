"""Trained-looking workdirs without training: tiny networks with random parameters."""

from __future__ import annotations

import jax
import numpy as np

from jaxseg import config as configs
from jaxseg.train import build, machine
from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.run_folder import Classes, RunFolder
from jaxseg.train.state import make_init

PALETTE = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
CLASSES = Classes(('ground', 'disc', 'square', 'triangle'), PALETTE)


def make_experiment(*overrides, **groups):
  """Returns an experiment: a same-padding U-Net of two levels, four classes, unless changed.

  Args:
    *overrides: 'key=value', as on the command line.
    **groups: keys on top, or whole groups, which replace those here.
  """
  config = configs.base()
  config.num_classes = 4
  config.data = dict(name='shapes', options=dict(size=32, count=8))
  config.model = dict(name='unet', width=4, depth=2, padding='same', batch_norm=True)
  config.compile_cache = ''
  for key, value in groups.items():
    config[key] = value
  for assignment in overrides:
    configs.override(config, assignment)
  return build.experiment(config)


def make_state(experiment):
  """Returns a state of random parameters without compiling an initialisation; BatchNorm is neutral."""
  model, optim = experiment.model(), experiment.optim
  tx = optim.make_optimizer(experiment.schedule)
  side = model.size_rule.at_least(max(64, model.size_rule.minimum))
  init = make_init(model, tx, (1, side, side, experiment.channels))
  shapes, rng = jax.eval_shape(init, jax.random.key(0)), np.random.default_rng(3)

  def values(path, shape):
    name = path[-1].key
    if name == 'kernel':  # keeps the size of the signal
      spread = (2 / np.prod(shape.shape[:-1])) ** 0.5
      return rng.normal(0, spread, shape.shape).astype(np.float32)
    one = name in ('scale', 'var')
    return (one + rng.normal(0, 0.05, shape.shape) ** (2 if one else 1)).astype(np.float32)

  zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
  tree = jax.tree_util.tree_map_with_path
  return zeros.replace(
    step=np.int32(1),
    params=tree(values, shapes.params),
    batch_stats=tree(values, shapes.batch_stats),
  )


def make_workdir(path, experiment, classes=CLASSES):
  """Writes config, classes and a checkpoint at step 1; returns the path."""
  folder = RunFolder(path, experiment.config)
  folder.write_facts(classes, 'no device')
  machine.save(path, experiment.config)
  score = experiment.task.headline
  checkpoints = Checkpoints(path / 'checkpoints', metric=score)
  checkpoints.save(1, make_state(experiment), {score: 0.5})
  checkpoints.wait()
  checkpoints.close()
  folder.close()
  return path


def random_image(height, width, channels=3, seed=0):
  """Returns uint8 [h, w, c], smooth enough that a resize keeps most of it."""
  rng = np.random.default_rng(seed)
  small = rng.integers(0, 256, (-(-height // 4), -(-width // 4), channels), dtype=np.uint8)
  return np.repeat(np.repeat(small, 4, axis=0), 4, axis=1)[:height, :width]
