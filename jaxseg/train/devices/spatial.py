"""Checks, before training with split rows, that the image height can be split and gradients are right.

XLA partitions the program, and sometimes does so silently wrongly (see nn/layers/split_rows.py). So the
real step on the real mesh is compared with a single device on a random batch of the real image height,
hence with as few rows per shard at every depth, but few columns. It costs two compilations.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxseg.nn.layers.split_rows import Level, recorded_levels
from jaxseg.train.devices.parallel import OnMesh, Wrapper
from jaxseg.train.state import State, make_init
from jaxseg.train.step import make_train_step
from jaxseg.types import Array, Batch, UserError

_COLUMNS = 64
_TOLERANCE = 1e-2  # of a leaf's norm; rounding gave 1e-7 to 4e-5, the few wrong splits about 1
_SMALL = 1e-3  # of the largest norm: smaller leaves may be all rounding (a bias before batch norm)


def check(
  wrapper: Wrapper,
  model,
  task,
  preprocess: Callable[[Array], Array],
  shape: tuple[int, ...],
  *,
  accumulate: int = 1,
) -> str:
  """Checks height and gradients if `wrapper` splits rows, else does nothing.

  Args:
    wrapper: of the training step.
    model, task, preprocess: see make_train_step.
    shape: (1, h, w, c) of the training images.
    accumulate: micro-batches of a step.

  Returns:
    A line for the user, '' if rows are not split.

  Raises:
    UserError: the rows cannot be split, or loss or gradients differ from a single device's.
  """
  if not isinstance(wrapper, OnMesh) or wrapper.shards == 1:
    return ''
  check_height(model, shape, wrapper.shards)
  local_devices = [d for d in wrapper.devices if d.process_index == jax.process_index()]
  local_wrapper = OnMesh(
    Mesh(np.array(local_devices).reshape(-1, wrapper.shards), ('data', 'spatial'))
  )
  worst = check_gradients(local_wrapper, model, task, preprocess, shape, accumulate=accumulate)
  return f"rows      on {wrapper.shards} devices; gradients equal one device's to {worst:.0e}"


def check_height(model, shape: tuple[int, ...], shards: int) -> None:
  """Refuses a height at which some level is not aligned with the image, or has too few rows per shard.

  FCN's image padding of 100 pixels and unpadded convolutions shift every level against the image, so
  that rows would have to move between shards: these are refused too.

  Args:
    shape: (1, h, w, c) of the images.
    shards: number of devices that the rows are split over.

  Raises:
    UserError: naming the nearest heights that can be split.
  """
  wrong = _unsplittable(model, shape, shards)
  if not wrong:
    return
  height, worst = shape[1], max(wrong, key=lambda level: (level.least, -level.rows))
  stride = max(1, height // min(level.rows for level in _levels(model, shape)))
  unit = shards * 2 ** round(math.log2(stride))
  first = height // unit
  below = [unit * n for n in (first, first - 1) if 0 < unit * n < height]
  above = [unit * n for n in range(first + 1, first + 5)]
  near = [_first_splittable(model, shape, shards, heights) for heights in (below, above)]
  advice = (
    f'the nearest heights that can: {" or ".join(str(h) for h in near if h)} (config.augment.crop.size)'
    if any(near)
    else 'nor can a height near it: take padding that keeps sizes (U-Net: '
    'config.model.padding=same, FCN: aligned=True, PSPNet: align_corners=False) or fewer devices'
  )
  raise UserError(
    f'config.mesh: images of {height} rows cannot be split over {shards} devices, because a level of the '
    f'network has {worst.rows} rows (each device needs {worst.least} or more, as many as the others, in '
    f'step with the image); {advice}'
  )


def _first_splittable(model, shape, shards: int, heights: list[int]) -> int | None:
  fit = (h for h in heights if model.size_rule.allows(h))
  return next((h for h in fit if not _unsplittable(model, (shape[0], h, *shape[2:]), shards)), None)


def _unsplittable(model, shape: tuple[int, ...], shards: int) -> list[Level]:
  levels = _levels(model, shape)
  return [level for level in levels if shape[1] % level.rows or not level.splits(shards)]


def _levels(model, shape: tuple[int, ...]) -> list[Level]:
  """Returns the feature maps of all layers, by tracing the network without running it."""

  def forward(key, image):
    return model.init({'params': key, 'dropout': key}, image, train=True)

  with recorded_levels() as levels:
    jax.eval_shape(forward, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
  return levels


def check_gradients(
  wrapper: OnMesh,
  model,
  task,
  preprocess: Callable[[Array], Array],
  shape: tuple[int, ...],
  *,
  accumulate: int = 1,
) -> float:
  """Compares the wrapped step with a single device, in float32, on random parameters and images.

  Args:
    wrapper: on devices of this host.
    shape: (1, h, w, c) of the training images; the check uses a smaller w.

  Returns:
    The largest difference of any leaf, relative to its norm.

  Raises:
    UserError: naming the leaf that differs most.
  """
  columns = min(shape[2], model.size_rule.at_least(_COLUMNS))
  shape = (wrapper.mesh.shape['data'] * accumulate, shape[1], columns, shape[3])
  model = model.clone(dtype=jnp.float32)
  step = make_train_step(model, task, keep_gradients(), preprocess, accumulate=accumulate)
  init = make_init(model, keep_gradients(), (1, *shape[1:]))
  state = random_state(jax.eval_shape(init, jax.random.key(0)))
  batch, key = _random_batch(shape, task.num_classes), jax.random.key(1)
  single = OnMesh(Mesh(np.array(wrapper.devices[:1]), ('data',)))
  results = []
  with jax.default_matmul_precision('highest'):
    for each in (single, wrapper):
      train_step = each.wrap_train(step)
      results.append(
        jax.device_get(train_step(each.place_state(state), each.place_batch(batch), key))
      )
  (expected, terms), (got, other_terms) = results
  expected_values = {
    'gradient': expected.opt_state,
    'statistics': expected.batch_stats,
    'loss': terms['loss'],
  }
  actual_values = {
    'gradient': got.opt_state,
    'statistics': got.batch_stats,
    'loss': other_terms['loss'],
  }
  differences = _differences(expected_values, actual_values)
  name, (difference, ratio) = max(differences.items(), key=lambda item: item[1][0])
  if not difference <= _TOLERANCE:  # nan too
    raise UserError(
      f'{wrapper.describe()}: the {name} of a test batch is {ratio:.3g} times that of one device (difference '
      f'{difference:.1e} of its norm, allowed {_TOLERANCE:.0e}): this compiler splits the network wrongly; '
      'take fewer devices for the rows, taller images, or config.parallel=pmap'
    )
  return difference


def keep_gradients() -> optax.GradientTransformation:
  """An optimiser that updates nothing; its state is the last gradient."""

  def zeros(params):
    return jax.tree.map(jnp.zeros_like, params)

  return optax.GradientTransformation(zeros, lambda grads, _, params=None: (zeros(params), grads))


def random_state(shapes: State) -> State:
  """Returns a state with random variables, kernels by He initialisation, and zeros elsewhere.

  A layer initialised to zero, as FCN's scores are, would hide the gradients below it. Batch norm's bias
  is three standard deviations, to keep values away from a ReLU's kink: in a deep ResNet the few that
  rounding carries across it change gradients by up to a half.
  """
  rng = np.random.default_rng(0)

  def drawn(tree, name='', normalises=False):
    if isinstance(tree, Mapping):
      return {key: drawn(part, key, 'scale' in tree) for key, part in tree.items()}
    if tree.ndim > 1:
      spread = (2 / math.prod(tree.shape[:-1])) ** 0.5
      return spread * rng.standard_normal(tree.shape, np.float32)
    centre = 1 if name in ('scale', 'var') else 3 if normalises else 0
    return np.float32(centre) + 0.1 * rng.random(tree.shape, np.float32)

  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  return zeros.replace(params=drawn(shapes.params), batch_stats=drawn(shapes.batch_stats))


def _random_batch(shape: tuple[int, ...], num_classes: int) -> Batch:
  rng = np.random.default_rng(0)
  return {
    'image': rng.integers(0, 256, shape, dtype=np.uint8),
    'label': rng.integers(0, num_classes, shape[:3], dtype=np.uint8),
    'weight': rng.random(shape[:3], np.float32),
  }


def _differences(expected_values: Any, actual_values: Any) -> dict[str, tuple[float, float]]:
  """Returns by leaf: norm of the difference relative to the leaf's norm, and the ratio of the norms."""
  norm = np.linalg.norm
  leaves = [
    (' '.join(str(part.key) for part in path), np.ravel(a), np.ravel(b))
    for (path, a), b in zip(
      jax.tree_util.tree_leaves_with_path(expected_values),
      jax.tree.leaves(actual_values),
      strict=True,
    )
  ]
  least = _SMALL * max(norm(a) for name, a, _ in leaves if name.startswith('gradient'))
  return {
    name: (
      float(norm(a - b) / max(norm(a), least * name.startswith('gradient'), 1e-30)),
      float(norm(b) / max(norm(a), 1e-30)),
    )
    for name, a, b in leaves
  }
