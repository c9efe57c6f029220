"""Every layer of ours beside Flax's or lax's own: a CPU by the clock, a TPU by its compiler's estimate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import SingleDeviceSharding

from jaxseg import losses
from jaxseg.console import say
from jaxseg.nn import layers as fast
from jaxseg.tools.benchmark import stock, timing
from jaxseg.tools.compile import account, topology
from jaxseg.tools.slices import Slice
from jaxseg.types import Array


class Case(NamedTuple):
  """A layer between two convolutions, as in a network, and its namesake.

  Attributes:
    name: with the map's size.
    side, channels: of the square map that comes in.
    ours, stock: functions of the map.
  """

  name: str
  side: int
  channels: int
  ours: Callable[[Array], Array]
  stock: Callable[[Array], Array]


def cases() -> Iterator[Case]:
  """Yields the layers of the five networks, at sizes that they have there."""
  yield Case('2x2 max pooling, 128x128x64', 128, 64, fast.max_pool, stock.max_pool)
  overlapping = (3, 2, ((1, 1), (1, 1)))
  yield Case(
    '3x3 max pooling of step 2, 128x128x64',
    128,
    64,
    lambda x: fast.max_pool(x, *overlapping),
    lambda x: stock.max_pool(x, *overlapping),
  )
  yield Case(
    'pooling and unpooling, 128x128x64', 128, 64, _there_and_back(fast), _there_and_back(stock)
  )
  yield Case('batch norm, 128x128x64', 128, 64, _norm(fast.BatchNorm), _norm(nn.BatchNorm))
  yield Case(
    '2x2 transposed convolution, 64x64x128',
    64,
    128,
    lambda x: fast.conv_transpose(x, _kernel(x, 2), (2, 2), 'VALID'),
    lambda x: lax.conv_transpose(x, _kernel(x, 2), (2, 2), 'VALID'),
  )
  yield Case(
    "FCN's upsampling by 8, 32x32x21",
    32,
    21,
    lambda x: fast.upsample_bilinear(x, 8),
    lambda x: stock.upsample_bilinear(x, 8),
  )
  yield Case(
    'resizing 30x30x64 to 237x237',
    30,
    64,
    lambda x: fast.resize_bilinear(x, (237, 237)),
    lambda x: jax.image.resize(x, (x.shape[0], 237, 237, 64), 'linear', antialias=False),
  )
  yield Case(
    '3x3 convolution, 128x128x64',
    128,
    64,
    lambda x: _convolve(fast.conv_general_dilated, x),
    lambda x: _convolve(lax.conv_general_dilated, x),
  )
  yield Case(
    'score and loss of 12 classes, 128x128x64',
    128,
    64,
    lambda x: _scored(fast.conv_general_dilated, fast.laid_out_by_class, x),
    lambda x: _scored(lax.conv_general_dilated, lambda logits: logits, x),
  )


def table(rented: Slice, batch: int, dtype: Any, trials: int = 5) -> list[dict[str, Any]]:
  """Prints ours over stock, value and gradient, of each layer, as a table in Markdown.

  Args:
    rented: whose chip is compiled for.
    batch: images on it.
    dtype: of maps and kernels.
    trials: rounds on this machine, of which medians are taken.

  Returns:
    A dict for each layer: name, cpu_ratio (wall time), tpu_cycles of 'ours' and 'stock' and tpu_ratio
    (both estimated).
  """
  say(
    f'{batch} images, {jnp.dtype(dtype).name}, value and gradient; of {rented.kind} the estimate',
    '',
    f'| layer | CPU, ours / stock | M cycles, ours | stock | {rented.kind}, ours / stock |',
    '|---|---|---|---|---|',
  )
  chip, rows = topology.devices(rented)[0], []
  for case in cases():
    shape = (batch, case.side, case.side, case.channels)
    programs = {'ours': _block(case.ours), 'stock': _block(case.stock)}
    cycles = {
      side: _cycles(program, shape, dtype, chip, rented) for side, program in programs.items()
    }
    seconds = _times(programs, shape, dtype, trials)
    row = {'name': case.name, 'cpu_ratio': seconds['ours'] / seconds['stock'], 'tpu_cycles': cycles}
    rows.append(row | {'tpu_ratio': cycles['ours'] / cycles['stock']})
    say(
      f'| {case.name} | {row["cpu_ratio"]:.2f} | {cycles["ours"] / 1e6:.2f} '
      f'| {cycles["stock"] / 1e6:.2f} | {rows[-1]["tpu_ratio"]:.2f} |'
    )
  return rows


def _block(layer: Callable[[Array], Array]) -> Callable[[Array, Array], Any]:
  """The gradient of a convolution, ReLU and the layer: alone it would be laid out as nowhere else."""

  def loss(x, kernel):
    y = lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return jnp.square(layer(nn.relu(y)).astype(jnp.float32)).sum()

  return jax.grad(loss, (0, 1))


def _shapes(shape: Sequence[int], dtype: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
  return tuple(jax.ShapeDtypeStruct(s, dtype) for s in (shape, (3, 3, shape[-1], shape[-1])))


def _cycles(program, shape, dtype, chip, rented: Slice) -> float:
  there = SingleDeviceSharding(chip)
  shapes = (jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=there) for s in _shapes(shape, dtype))
  text = jax.jit(program).lower(*shapes).compile().as_text()
  return sum(operation.estimate(rented.chip) for operation in account.operations(text))


def _times(programs, shape, dtype, trials: int) -> dict[str, float]:
  random = np.random.default_rng(0)
  arrays = [jnp.asarray(random.standard_normal(s.shape), dtype) for s in _shapes(shape, dtype)]

  def call(program):
    compiled = jax.jit(program).lower(*arrays).compile()
    return lambda: jax.block_until_ready(compiled(*arrays)) and None

  times = timing.alternate({side: call(program) for side, program in programs.items()}, trials)
  return {side: measured.wall for side, measured in times.items()}


def _there_and_back(layers: Any) -> Callable[[Array], Array]:
  def both(x):
    pooled, index = layers.max_pool_argmax(x)
    return layers.max_unpool(pooled, index, x.shape[1:3])

  return both


def _norm(layer: type[nn.Module]) -> Callable[[Array], Array]:
  def normalize(x):
    norm = layer(use_running_average=False) if layer is nn.BatchNorm else layer()
    call = functools.partial(norm.apply, mutable=['batch_stats'])
    if layer is not nn.BatchNorm:
      call = functools.partial(call, use_running_average=False)
    features = jnp.linspace(0.5, 1, x.shape[-1])
    params, stats = {'scale': features, 'bias': features}, {'mean': features, 'var': features}
    return call({'params': params, 'batch_stats': stats}, x)[0]

  return normalize


def _kernel(x: Array, side: int) -> Array:
  features = x.shape[-1] // 2
  return jnp.linspace(-1, 1, side**2 * 2 * features**2, dtype=x.dtype).reshape(
    side, side, -1, features
  )


def _convolve(convolution: Callable, x: Array) -> Array:
  kernel = jnp.linspace(-1, 1, 9 * x.shape[-1] ** 2, dtype=x.dtype).reshape(3, 3, -1, x.shape[-1])
  return convolution(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _scored(convolution: Callable, lay_out: Callable, x: Array) -> Array:
  kernel = _kernel(x, 1)[..., :12]
  logits = convolution(x, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  label = lax.broadcasted_iota(jnp.uint8, x.shape[:3], 2) % 12
  return losses.softmax_cross_entropy(lay_out(logits), label)[0]
