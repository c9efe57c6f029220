"""JAX primitives in ONNX: rule(graph, equation, *inputs) returns the result, or a list of results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxseg.export.to_onnx import windows
from jaxseg.export.to_onnx.graph import Graph, Value

_NARROW = (
  'uint8',
  'int8',
  'uint16',
  'int16',
  'bool',
)  # computed as int32: many runtimes support nothing narrower


def _in_wide(kind: str, **attributes: Any) -> Callable:
  """The ONNX operator `kind`; narrow integers are computed in int32 and wrap around."""

  def rule(graph: Graph, eqn: Any, *inputs: Value) -> Value:
    narrow = eqn.invars[-1].aval.dtype.name in _NARROW
    if narrow:
      inputs = [graph.cast(value, np.int32) for value in inputs]
    result, dtype = graph.op(kind, *inputs, **attributes), eqn.outvars[0].aval.dtype
    return graph.cast(result, dtype) if narrow and dtype != np.bool_ else result

  return rule


def _plain(kind: str, **attributes: Any) -> Callable:
  return lambda graph, eqn, *inputs: graph.op(kind, *inputs, **attributes)


def _same(graph: Graph, eqn: Any, x: Value) -> Value:
  return x


def _not_equal(graph: Graph, eqn: Any, a: Value, b: Value) -> Value:
  return graph.op('Not', RULES['eq'](graph, eqn, a, b))


def _rsqrt(graph: Graph, eqn: Any, x: Value) -> Value:
  return graph.op('Reciprocal', graph.op('Sqrt', x))


def _log2(graph: Graph, eqn: Any, x: Value) -> Value:
  return graph.op('Div', graph.op('Log', x), np.log(np.float32(2)).reshape(()))


def _square(graph: Graph, eqn: Any, x: Value) -> Value:
  return graph.op('Mul', x, x)


def _integer_power(graph: Graph, eqn: Any, x: Value) -> Value:
  return graph.op('Pow', x, np.array(eqn.params['y'], eqn.invars[0].aval.dtype))


def _convert(graph: Graph, eqn: Any, x: Value) -> Value:
  return graph.cast(x, eqn.params['new_dtype'])


def _select(graph: Graph, eqn: Any, which: Value, *cases: Value) -> Value:
  """Selects the second of two cases where `which` is true; one of several by index."""
  dtype = eqn.outvars[0].aval.dtype
  narrow = dtype.name in _NARROW
  if narrow:
    cases = [graph.cast(case, np.int32) for case in cases]
  if eqn.invars[0].aval.dtype == np.bool_:
    result = graph.op('Where', which, cases[1], cases[0])
  else:
    result = cases[0]
    for i, case in enumerate(cases[1:], 1):
      result = graph.op('Where', graph.op('Equal', which, np.array(i, np.int32)), case, result)
  return graph.cast(result, dtype) if narrow else result


def _clamp(graph: Graph, eqn: Any, low: Value, x: Value, high: Value) -> Value:
  least = RULES['max'](graph, eqn, x, low)
  return RULES['min'](graph, eqn, least, high)


# Shapes.


def _reshape(graph: Graph, eqn: Any, x: Value) -> Value:
  return graph.reshape(x, eqn.outvars[0].aval.shape)


def _broadcast(graph: Graph, eqn: Any, x: Value) -> Value:
  shape, axes = eqn.params['shape'], eqn.params['broadcast_dimensions']
  sizes = [1] * len(shape)
  for axis, size in zip(axes, eqn.invars[0].aval.shape, strict=True):
    sizes[axis] = size
  x = graph.reshape(x, sizes)
  return x if tuple(sizes) == tuple(shape) else graph.op('Expand', x, graph.shape(shape))


def _transpose(graph: Graph, eqn: Any, x: Value) -> Value:
  return graph.transpose(x, eqn.params['permutation'])


def _concatenate(graph: Graph, eqn: Any, *inputs: Value) -> Value:
  axis = eqn.params['dimension']  # drop empty parts: a 0 in an ONNX shape has a special meaning
  parts = [x for x, v in zip(inputs, eqn.invars, strict=True) if v.aval.shape[axis] != 0]
  return graph.op('Concat', *parts, axis=axis)


def _stack(graph: Graph, eqn: Any, *inputs: Value) -> Value:
  axis = np.array([eqn.params['axis']], np.int64)
  parts = [graph.op('Unsqueeze', value, axis) for value in inputs]
  return graph.op('Concat', *parts, axis=eqn.params['axis'])


def _unstack(graph: Graph, eqn: Any, x: Value) -> list[Value]:
  axis = eqn.params['axis']
  return [graph.op('Gather', x, np.array(i, np.int64), axis=axis) for i in range(len(eqn.outvars))]


def _split(graph: Graph, eqn: Any, x: Value) -> list[Value]:
  sizes = graph.shape(eqn.params['sizes'])
  parts = graph.op('Split', x, sizes, count=len(eqn.outvars), axis=eqn.params['axis'])
  return parts if len(eqn.outvars) > 1 else [parts]


def _iota(graph: Graph, eqn: Any) -> Value:
  shape, axis = eqn.params['shape'], eqn.params['dimension']
  end = graph.op('Squeeze', graph.side(shape[axis]))
  line = graph.op('Range', np.array(0, np.int64), end, np.array(1, np.int64))
  line = graph.reshape(line, [n if i == axis else 1 for i, n in enumerate(shape)])
  line = graph.cast(line, eqn.params['dtype'])
  return line if len(shape) == 1 else graph.op('Expand', line, graph.shape(shape))


# Reductions and products.


def _reduce(kind: str) -> Callable:
  def rule(graph: Graph, eqn: Any, x: Value) -> Value:
    dtype = eqn.invars[0].aval.dtype
    narrow = dtype.name in _NARROW
    x = graph.cast(x, np.int32) if narrow else x
    result = graph.op(kind, x, np.array(eqn.params['axes'], np.int64), keepdims=0)
    return graph.cast(result, dtype) if narrow else result

  return rule


def _argument(kind: str) -> Callable:
  def rule(graph: Graph, eqn: Any, x: Value) -> Value:
    (axis,) = eqn.params['axes']
    index = graph.op(kind, x, axis=int(axis), keepdims=0)  # the first of equal values
    return graph.cast(index, eqn.params['index_dtype'])

  return rule


def _top_k(graph: Graph, eqn: Any, x: Value) -> list[Value]:
  axis, k = eqn.params.get('axis', -1), np.array([eqn.params['k']], np.int64)
  values, index = graph.op('TopK', x, k, count=2, axis=axis)
  return [values, graph.cast(index, eqn.outvars[1].aval.dtype)]


def _dot(graph: Graph, eqn: Any, a: Value, b: Value) -> Value:
  (of_a, of_b), (batch_a, batch_b) = eqn.params['dimension_numbers']
  ranks = [v.aval.ndim for v in eqn.invars]
  if not batch_a and tuple(of_a) == (ranks[0] - 1,) and tuple(of_b) == (0,) and ranks[1] == 2:
    return graph.op('MatMul', a, b)
  letters = iter('abcdefghijklmnopqrstuvwxyz')
  left = [next(letters) for _ in range(ranks[0])]
  right = [next(letters) for _ in range(ranks[1])]
  for i, j in zip((*of_a, *batch_a), (*of_b, *batch_b), strict=True):
    right[j] = left[i]
  shared = [left[i] for i in batch_a]
  summed = {left[i] for i in of_a}
  result = shared + [x for x in (*left, *right) if x not in summed and x not in shared]
  equation = f'{"".join(left)},{"".join(right)}->{"".join(result)}'
  return graph.op('Einsum', a, b, equation=equation)


RULES: dict[str, Callable] = {
  **{
    name: _in_wide(name.title())
    for name in ('add', 'sub', 'mul', 'div', 'max', 'min', 'abs', 'sign')
  },
  'eq': _in_wide('Equal'),
  'lt': _in_wide('Less'),
  'le': _in_wide('LessOrEqual'),
  'gt': _in_wide('Greater'),
  'ge': _in_wide('GreaterOrEqual'),
  'rem': _in_wide('Mod', fmod=1),
  'ne': _not_equal,
  **{
    name: _plain(name.title())
    for name in ('exp', 'log', 'tanh', 'sqrt', 'floor', 'ceil', 'round', 'erf')
  },
  **{name: _plain(name.title()) for name in ('neg', 'pow', 'and', 'or', 'not', 'xor')},
  'logistic': _plain('Sigmoid'),
  'rsqrt': _rsqrt,
  'log2': _log2,
  'square': _square,
  'integer_pow': _integer_power,
  'convert_element_type': _convert,
  'select_n': _select,
  'clamp': _clamp,
  **{name: _same for name in ('copy', 'copy_p', 'stop_gradient', 'optimization_barrier')},
  **{name: _reshape for name in ('reshape', 'squeeze', 'expand_dims')},
  'broadcast_in_dim': _broadcast,
  'transpose': _transpose,
  'concatenate': _concatenate,
  'stack': _stack,
  'unstack': _unstack,
  'split': _split,
  'iota': _iota,
  'reduce_sum': _reduce('ReduceSum'),
  'reduce_max': _reduce('ReduceMax'),
  'reduce_min': _reduce('ReduceMin'),
  'reduce_prod': _reduce('ReduceProd'),
  'reduce_or': _reduce('ReduceMax'),
  'reduce_and': _reduce('ReduceMin'),
  'argmax': _argument('ArgMax'),
  'argmin': _argument('ArgMin'),
  'top_k': _top_k,
  'dot_general': _dot,
  **windows.RULES,
}
