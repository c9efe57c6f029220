"""Primitives on windows and parts of an array: convolution, pooling, padding, slices, indexing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from jaxseg.export.to_onnx.graph import Graph, Length, Value
from jaxseg.types import UserError


def _inverse(permutation: Sequence[int]) -> list[int]:
  return [int(i) for i in np.argsort(permutation)]


def _convolution(graph: Graph, eqn: Any, x: Value, kernel: Value) -> Value:
  """Conv, or ConvTranspose if the input is dilated; both are NCHW, with a kernel OIHW or IOHW."""
  p = eqn.params
  lhs, rhs, out = p['dimension_numbers']  # axes of batch, features, rows and columns in each
  x, kernel = graph.transpose(x, lhs), graph.transpose(kernel, rhs)
  options = dict(dilations=list(p['rhs_dilation']), group=p['feature_group_count'])
  low, high = zip(*p['padding'], strict=True)
  if all(n == 1 for n in p['lhs_dilation']):
    if min(*low, *high) < 0:
      x = _padded(graph, x, [0, 0, *low], [0, 0, *high])
      low, high = (0,) * len(low), (0,) * len(high)
    options |= dict(strides=list(p['window_strides']), pads=[*low, *high])
    return graph.transpose(graph.op('Conv', x, kernel, **options), _inverse(out))
  if options['group'] != 1 or any(n != 1 for n in p['window_strides']):
    raise UserError('no ONNX form of a transposed convolution with strides or groups is known')
  sides = [eqn.invars[1].aval.shape[axis] for axis in rhs[2:]]
  reach = [d * (n - 1) for d, n in zip(p['rhs_dilation'], sides, strict=True)]
  low, high = ([r - pad for r, pad in zip(reach, pads, strict=True)] for pads in (low, high))
  kernel = _reversed(graph, kernel, range(2, len(rhs)))
  kernel = graph.transpose(kernel, [1, 0, *range(2, len(rhs))])
  cut = [max(0, n) for n in (*low, *high)]
  y = graph.op('ConvTranspose', x, kernel, strides=list(p['lhs_dilation']), pads=cut, **options)
  if min(*low, *high) < 0:  # zeros beyond the kernel's reach
    y = _padded(graph, y, [0, 0, *(max(0, -n) for n in low)], [0, 0, *(max(0, -n) for n in high)])
  return graph.transpose(y, _inverse(out))


def _pool(kind: str) -> Callable:
  """Windows over up to two axes, which are moved to the end."""

  def rule(graph: Graph, eqn: Any, x: Value) -> Value:
    p = eqn.params
    window = p['window_dimensions']
    order = sorted(range(len(window)), key=lambda axis: window[axis] > 1)
    if (
      len(window) != 4 or max(window[axis] for axis in order[:2]) > 1 or max(p['base_dilation']) > 1
    ):
      raise UserError(f'no ONNX form of windows {window} is known')
    pairs = [p['padding'][axis] for axis in order[2:]]
    options = dict(
      kernel_shape=[window[axis] for axis in order[2:]],
      strides=[p['window_strides'][axis] for axis in order[2:]],
      pads=[side for pair in zip(*pairs, strict=True) for side in pair],
    )
    if any(p['window_dilation'][axis] > 1 for axis in order):
      raise UserError('no ONNX form of windows with holes is known')
    options |= {} if kind == 'MaxPool' else dict(count_include_pad=1)
    y = graph.transpose(graph.op(kind, graph.transpose(x, order), **options), _inverse(order))
    return y if kind == 'MaxPool' else graph.op('Mul', y, np.float32(math.prod(window)).reshape(()))

  return rule


def _pad(graph: Graph, eqn: Any, x: Value, fill: Value) -> Value:
  low, high, interior = zip(*eqn.params['padding_config'], strict=True)
  sizes = list(eqn.invars[0].aval.shape)
  dtype = eqn.invars[0].aval.dtype
  if dtype.name != 'float32':  # not every runtime pads other dtypes
    x, fill = graph.cast(x, np.int32), graph.cast(fill, np.int32)
  for axis, gap in enumerate(interior):
    if gap:  # each value becomes an axis, padded at its end
      shape = [*sizes[: axis + 1], 1, *sizes[axis + 1 :]]
      after = [gap if i == axis + 1 else 0 for i in range(len(shape))]
      x = _padded(graph, graph.reshape(x, shape), [0] * len(shape), after, fill)
      sizes[axis] = sizes[axis] * (gap + 1)
      x = graph.reshape(x, sizes)
      high = [n - gap if i == axis else n for i, n in enumerate(high)]
  x = _padded(graph, x, low, high, fill)
  return x if dtype.name == 'float32' else graph.cast(x, dtype)


def _padded(
  graph: Graph, x: Value, low: Sequence[Length], high: Sequence[Length], *fill: Value
) -> Value:
  """Pads both ends of each axis; negative numbers crop."""
  if all(isinstance(n, int) and n == 0 for n in (*low, *high)):
    return x
  return graph.op('Pad', x, graph.shape([*low, *high]), *fill)


def _reversed(graph: Graph, x: Value, axes: Sequence[int]) -> Value:
  if isinstance(x, np.ndarray):
    return np.flip(x, tuple(axes))
  minus = np.full(len(axes), -1, np.int64)
  return graph.op('Slice', x, minus, np.full(len(axes), -(2**62)), np.array(axes, np.int64), minus)


def _reverse(graph: Graph, eqn: Any, x: Value) -> Value:
  return _reversed(graph, x, eqn.params['dimensions'])


def _slice(graph: Graph, eqn: Any, x: Value) -> Value:
  p, axes = eqn.params, np.arange(eqn.invars[0].aval.ndim)
  steps = np.array(p['strides'] or np.ones_like(axes), np.int64)
  return graph.op(
    'Slice', x, graph.shape(p['start_indices']), graph.shape(p['limit_indices']), axes, steps
  )


def _dynamic_slice(graph: Graph, eqn: Any, x: Value, *starts: Value) -> Value:
  axis = np.zeros(1, np.int64)
  starts = [graph.op('Unsqueeze', graph.cast(start, np.int64), axis) for start in starts]
  axes = np.arange(len(starts))
  return _cut(graph, eqn, x, graph.op('Concat', *starts, axis=0), axes)


def _cut(graph: Graph, eqn: Any, x: Value, start: Value, axes: np.ndarray) -> Value:
  """Slices of fixed sizes along some axes, clamped to lie inside."""
  shape, sizes = eqn.invars[0].aval.shape, eqn.params['slice_sizes']
  last = graph.shape([shape[axis] - sizes[axis] for axis in axes])
  start = graph.op('Min', graph.op('Max', start, np.zeros(1, np.int64)), last)
  end = graph.op('Add', start, graph.shape([sizes[axis] for axis in axes]))
  return graph.op('Slice', x, start, end, axes)


def _gather(graph: Graph, eqn: Any, x: Value, index: Value) -> Value:
  """Indexing of whole rows, or of one slice. Indices outside are clamped."""
  numbers, mode = eqn.params['dimension_numbers'], GatherScatterMode.from_any(eqn.params['mode'])
  shape, sizes = eqn.invars[0].aval.shape, eqn.params['slice_sizes']
  axes, batched = [
    list(map(int, a)) for a in (numbers.start_index_map, numbers.operand_batching_dims)
  ]
  if mode == GatherScatterMode.FILL_OR_DROP:
    raise UserError('no ONNX form of indices that are filled outside is known')
  index = graph.cast(index, np.int64)
  if eqn.invars[1].aval.ndim == 1 and not numbers.collapsed_slice_dims:
    return _cut(graph, eqn, x, index, np.array(axes))
  rest = [axis for axis in range(len(shape)) if axis not in axes and axis not in batched]
  if set(axes) != set(map(int, numbers.collapsed_slice_dims)) or any(
    sizes[a] != shape[a] for a in rest
  ):
    raise UserError('no ONNX form of indices that pick parts of rows is known')
  last = graph.shape([shape[axis] - 1 for axis in axes])
  index = graph.op('Min', graph.op('Max', index, np.zeros(1, np.int64)), last)
  count = eqn.invars[1].aval.ndim - 1  # batch axes of the indices
  first = list(map(int, numbers.start_indices_batching_dims))
  order = first + [axis for axis in range(count) if axis not in first]
  if len(axes) == 1 and not batched:
    picked = graph.op('Gather', x, graph.op('Squeeze', index, np.array([-1])), axis=axes[0])
    before = sum(axis < axes[0] for axis in rest)
  else:
    x, index = graph.transpose(x, batched + axes + rest), graph.transpose(index, [*order, count])
    picked, before = graph.op('GatherND', x, index, batch_dims=len(batched)), 0
  # Positions of the gathered axes in the result.
  offsets = sorted(map(int, numbers.offset_dims))
  others = [axis for axis in range(count + len(rest)) if axis not in offsets]
  belongs = offsets[:before] + [others[axis] for axis in order] + offsets[before:]
  return graph.transpose(picked, _inverse(belongs))


RULES: dict[str, Callable] = {
  'conv_general_dilated': _convolution,
  'reduce_window_max': _pool('MaxPool'),
  'reduce_window_sum': _pool('AveragePool'),
  'pad': _pad,
  'rev': _reverse,
  'slice': _slice,
  'dynamic_slice': _dynamic_slice,
  'gather': _gather,
}
