"""From a jaxpr to an ONNX model: calls are inlined, loops become Loop and Scan, constants are folded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core
from onnx import helper

from jaxseg.export.to_onnx.graph import IR_VERSION, OPSET, Graph, Value, onnx_type
from jaxseg.export.to_onnx.operators import RULES
from jaxseg.types import Array, UserError

_LARGEST_FOLD = 2**16  # elements; larger results are folded only if an input is as large
_CALLS = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')  # parameters that hold the callee


def make_model(
  function: Callable[[Mapping[str, Array], Array], Mapping[str, Array]],
  weights: Mapping[str, np.ndarray],
  image: jax.ShapeDtypeStruct,
) -> onnx.ModelProto:
  """Returns function(weights, image) as a model from 'image' to outputs named like its results.

  Args:
    function: pure; returns arrays by name.
    weights: become constants.
    image: its sides may be dimension variables of `jax.export`, optionally times a number.

  Raises:
    UserError: an unsupported primitive or form of it.
  """
  shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in weights.items()}
  closed, results = jax.make_jaxpr(function, return_shape=True)(shapes, image)
  graph = Graph()
  graph.declare('image', image.shape)
  values = evaluate(graph, closed, [*(weights[k] for k in sorted(weights)), 'image'])
  infos = []
  for name, value in zip(sorted(results), values, strict=True):
    infos.append(_info(name, results[name]))
    graph.nodes.append(helper.make_node('Identity', [graph.named(value)], [name]))
  nodes = _used(graph.nodes, results)
  read = set().union(*map(_read, nodes))
  constants = [tensor for name, tensor in graph.constants.items() if name in read]
  body = helper.make_graph(nodes, 'program', [_info('image', image)], infos, constants)
  opset = helper.make_opsetid('', OPSET)
  model = helper.make_model(body, opset_imports=[opset], ir_version=IR_VERSION)
  model.producer_name = 'jaxseg'
  onnx.checker.check_model(model)
  return model


def _info(name: str, value: Any) -> onnx.ValueInfoProto:
  shape = [side if isinstance(side, int) else str(side) for side in value.shape]
  return helper.make_tensor_value_info(name, onnx_type(value.dtype), shape)


def _used(nodes: Sequence[onnx.NodeProto], names: Sequence[str]) -> list[onnx.NodeProto]:
  """Returns the nodes that the named values depend on; those inside loops all stay."""
  needed, kept = set(names), []
  for node in reversed(nodes):
    if needed.intersection(node.output):
      kept.append(node)
      needed.update(_read(node))
  return kept[::-1]


def _read(node: onnx.NodeProto) -> set[str]:
  inside = [inner for a in node.attribute for inner in a.g.node]
  outputs = [o.name for a in node.attribute for o in a.g.output]
  return {*node.input, *outputs}.union(*(_read(inner) for inner in inside))


def evaluate(graph: Graph, jaxpr: Any, arguments: Sequence[Value]) -> list[Value]:
  """Adds a jaxpr's computation, open or closed, on the arguments; returns its results."""
  known = {}
  consts, jaxpr = getattr(jaxpr, 'consts', ()), getattr(jaxpr, 'jaxpr', jaxpr)
  known.update(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
  known.update(zip(jaxpr.invars, arguments, strict=True))

  def read(variable):
    if isinstance(variable, core.Literal):
      return np.asarray(variable.val, variable.aval.dtype)
    return known[variable]

  for eqn in jaxpr.eqns:
    known.update(zip(eqn.outvars, _apply(graph, eqn, [read(v) for v in eqn.invars]), strict=True))
  return [read(v) for v in jaxpr.outvars]


def _apply(graph: Graph, eqn: Any, inputs: list[Value]) -> Sequence[Value]:
  name = eqn.primitive.name
  if name in _CONTROL:
    return _CONTROL[name](graph, eqn, inputs)
  call = next((eqn.params[key] for key in _CALLS if key in eqn.params), None)
  if call is not None:
    return evaluate(graph, call, inputs)
  if _is_known(eqn, inputs):
    results = eqn.primitive.bind(*inputs, **eqn.params)
    return [np.asarray(r) for r in (results if eqn.primitive.multiple_results else [results])]
  if name not in RULES:
    raise UserError(f'no ONNX form of the primitive {name} is known')
  results = RULES[name](graph, eqn, *inputs)
  return results if eqn.primitive.multiple_results else [results]


def _is_known(eqn: Any, inputs: Sequence[Value]) -> bool:
  """Whether an equation's results are constants, and not much larger than its inputs."""
  sides = [side for v in eqn.outvars for side in v.aval.shape]
  if not all(isinstance(value, np.ndarray) for value in inputs):
    return False
  if not all(isinstance(side, int) for side in sides):
    return False
  size = sum(math.prod(v.aval.shape) for v in eqn.outvars)
  return size <= max([_LARGEST_FOLD, *(value.size for value in inputs)])


# Control flow.


def _platform(graph: Graph, eqn: Any, inputs: list[Value]) -> list[Value]:
  """Selects the variant that is not specific to a platform."""
  platforms = eqn.params['platforms']
  return [np.int32(platforms.index(None) if None in platforms else 0).reshape(())]


def _branch(graph: Graph, eqn: Any, inputs: list[Value]) -> list[Value]:
  index, *arguments = inputs
  if isinstance(index, str):
    raise UserError('no ONNX form of a branch that depends on the image is known')
  return evaluate(graph, eqn.params['branches'][int(index)], arguments)


def _while(graph: Graph, eqn: Any, inputs: list[Value]) -> list[Value]:
  p = eqn.params
  first, second = p['cond_nconsts'], p['cond_nconsts'] + p['body_nconsts']
  of_cond, of_body, state = inputs[:first], inputs[first:second], inputs[second:]
  variables = [v.aval for v in p['body_jaxpr'].jaxpr.outvars]
  (going,) = evaluate(graph, p['cond_jaxpr'], [*of_cond, *state])
  names = [graph.new_name() for _ in range(len(state) + 2)]
  with graph.body() as nodes:
    new = evaluate(graph, p['body_jaxpr'], [*of_body, *names[2:]])
    (now,) = evaluate(graph, p['cond_jaxpr'], [*of_cond, *names[2:]])
    if p['cond_jaxpr'].out_avals[0].ndim:  # batched: a finished row is left unchanged
      new = [
        _where(graph, now, *pair, v) for *pair, v in zip(new, names[2:], variables, strict=True)
      ]
    (more,) = evaluate(graph, p['cond_jaxpr'], [*of_cond, *new])
    outputs = [graph.op('Identity', value) for value in (_any(graph, more), *new)]
  boolean, number = jax.ShapeDtypeStruct((), bool), jax.ShapeDtypeStruct((), np.int64)
  body = helper.make_graph(
    nodes,
    'body',
    [_info(n, a) for n, a in zip(names, [number, boolean, *variables], strict=True)],
    [_info(n, a) for n, a in zip(outputs, [boolean, *variables], strict=True)],
  )
  results = graph.op('Loop', '', _any(graph, going), *state, count=len(state), body=body)
  return results if len(state) > 1 else [results]


def _any(graph: Graph, flags: Value) -> Value:
  flags = graph.reshape(graph.cast(flags, np.int32), (-1,))
  return graph.cast(graph.op('ReduceMax', flags, keepdims=0), bool)


def _where(graph: Graph, rows: Value, new: Value, old: Value, aval: Any) -> Value:
  """Selects per row of a batch."""
  rows = graph.reshape(rows, (-1, *[1] * (aval.ndim - 1)))
  a, b = (graph.cast(value, np.int32) if aval.dtype == bool else value for value in (new, old))
  return graph.cast(graph.op('Where', rows, a, b), aval.dtype)


def _scan(graph: Graph, eqn: Any, inputs: list[Value]) -> list[Value]:
  """Scanned inputs and stacked outputs have one more axis outside than in the body."""
  inner, reverse = eqn.params['jaxpr'].jaxpr, int(eqn.params['reverse'])
  scanned, collected = (
    sum(a.aval.ndim > b.aval.ndim for a, b in zip(outside, inside, strict=True))
    for outside, inside in ((eqn.invars, inner.invars), (eqn.outvars, inner.outvars))
  )
  consts = len(inputs) - scanned - (len(eqn.outvars) - collected)
  names = [graph.new_name() for _ in inputs[consts:]]
  with graph.body() as nodes:
    new = evaluate(graph, eqn.params['jaxpr'], [*inputs[:consts], *names])
    outputs = [graph.op('Identity', value) for value in new]
  body = helper.make_graph(
    nodes,
    'body',
    [_info(n, v.aval) for n, v in zip(names, inner.invars[consts:], strict=True)],
    [_info(n, v.aval) for n, v in zip(outputs, inner.outvars, strict=True)],
  )
  results = graph.op(
    'Scan',
    *inputs[consts:],
    count=len(outputs),
    body=body,
    num_scan_inputs=scanned,
    scan_input_directions=[reverse] * scanned,
    scan_output_directions=[reverse] * collected,
  )
  return results if len(outputs) > 1 else [results]


def _length(graph: Graph, eqn: Any, inputs: list[Value]) -> list[Value]:
  scalar = graph.reshape(graph.side(eqn.params['dim']), ())
  return [graph.cast(scalar, eqn.outvars[0].aval.dtype)]


_CONTROL = {
  'platform_index': _platform,
  'cond': _branch,
  'while': _while,
  'scan': _scan,
  'dim_as_value': _length,
}
