"""An ONNX graph under construction. A value is a NumPy array (a constant) or the name of a tensor."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = (
  18  # the first in which all reductions take axes as an input; onnxruntime 1.14, February 2023
)
IR_VERSION = 8

Value = np.ndarray | str
Length = Any  # an int, or a dimension expression of jax.export


def onnx_type(dtype: Any) -> int:
  """Returns ONNX's number of a dtype; bfloat16, which few runtimes support, becomes float32."""
  return helper.np_dtype_to_tensor_dtype(_kept(np.dtype(dtype)))


def _kept(dtype: np.dtype) -> np.dtype:
  return np.dtype(np.float32) if dtype.name == 'bfloat16' else dtype


class Graph:
  """Collects nodes and constants, and names them."""

  def __init__(self):
    self.nodes: list[onnx.NodeProto] = []
    self.constants: dict[str, onnx.TensorProto] = {}
    self._known: dict[tuple, tuple[str, np.ndarray]] = {}
    self._sides: dict[str, _Side] = {}
    self._variables: dict[str, _Side] = {}
    self._number = itertools.count()

  def new_name(self) -> str:
    return f'v{next(self._number)}'

  def op(self, kind: str, *inputs: Value, count: int = 1, **attributes: Any) -> Any:
    """Adds a node and returns the name of its output, or a list unless it has exactly one."""
    outputs = [self.new_name() for _ in range(count)]
    names = [self.named(value) for value in inputs]
    self.nodes.append(helper.make_node(kind, names, outputs, **attributes))
    return outputs[0] if count == 1 else outputs

  def named(self, value: Value) -> str:
    """Returns the name of a value; equal small constants are shared."""
    if isinstance(value, str):
      return value
    value = np.asarray(value, _kept(value.dtype))
    key = (value.dtype.str, value.shape, value.tobytes()) if value.size < 4096 else (id(value),)
    if key not in self._known:
      name = f'c{len(self.constants)}'
      self._known[key] = name, value  # keeps the value alive, so that its id is not reused
      self.constants[name] = numpy_helper.from_array(np.require(value, requirements='C'), name)
    return self._known[key][0]

  def cast(self, value: Value, dtype: Any) -> Value:
    if isinstance(value, str):
      return self.op('Cast', value, to=onnx_type(dtype))
    return value.astype(_kept(np.dtype(dtype)))

  def transpose(self, value: Value, permutation: Sequence[int]) -> Value:
    permutation = [int(axis) for axis in permutation]
    if permutation == sorted(permutation):
      return value
    if isinstance(value, str):
      return self.op('Transpose', value, perm=permutation)
    return value.transpose(permutation)

  def reshape(self, value: Value, sizes: Sequence[Length]) -> Value:
    free = [i for i, n in enumerate(sizes) if not isinstance(n, int)]
    if len(free) == 1 and 0 not in sizes:
      sizes = [-1 if i in free else n for i, n in enumerate(sizes)]
    return self.op('Reshape', value, self.shape(sizes))

  @contextlib.contextmanager
  def body(self) -> Iterator[list[onnx.NodeProto]]:
    """Nodes added inside go to a subgraph, which may use all earlier names."""
    outer, self.nodes = self.nodes, []
    sides, self._sides = self._sides, dict(self._sides)
    try:
      yield self.nodes
    finally:
      self.nodes, self._sides = outer, sides

  # Sizes that are known only when the model runs.

  def declare(self, name: str, shape: Sequence[Length]) -> None:
    """Takes the dimension variables from an input's shape: a side is a number, 'h' or '32*h'."""
    for axis, side in enumerate(shape):
      if not isinstance(side, int):
        factor, _, variable = str(side).rpartition('*')
        length = _Side(self, self.op('Shape', name, start=axis, end=axis + 1))
        self._variables[variable] = length // int(factor) if factor else length

  def shape(self, sizes: Sequence[Length]) -> Value:
    """Returns the sizes as a vector of int64."""
    if all(isinstance(n, int) for n in sizes):
      return np.array(sizes, np.int64)
    return self.op('Concat', *(self.side(n) for n in sizes), axis=0)

  def side(self, length: Length) -> Value:
    """Returns a length as a vector [1]. JAX prints dimension expressions in Python's syntax."""
    if isinstance(length, int | np.integer):
      return np.array([length], np.int64)
    text = str(length).replace('^', '**')
    if text not in self._sides:
      functions = {'floordiv': lambda a, b: a // b, 'mod': lambda a, b: a % b}
      functions |= {'max': self._choice('Max'), 'min': self._choice('Min')}
      self._sides[text] = eval(text, {'__builtins__': {}}, functions | self._variables)
    return self._sides[text].value

  def _choice(self, kind: str):
    def choose(*lengths):
      values = [n.value if isinstance(n, _Side) else self.side(n) for n in lengths]
      return _Side(self, self.op(kind, *values))

    return choose


class _Side:
  """A length whose arithmetic adds nodes. Division rounds down, as in Python."""

  def __init__(self, graph: Graph, value: Value):
    self.graph, self.value = graph, value

  def _with(self, kind: str, other: Any, *, swapped: bool = False) -> _Side:
    other = other.value if isinstance(other, _Side) else np.array([other], np.int64)
    pair = (other, self.value) if swapped else (self.value, other)
    return _Side(self.graph, self.graph.op(kind, *pair))

  def __add__(self, other):
    return self._with('Add', other)

  def __sub__(self, other):
    return self._with('Sub', other)

  def __rsub__(self, other):
    return self._with('Sub', other, swapped=True)

  def __mul__(self, other):
    return self._with('Mul', other)

  def __mod__(self, other):
    return self._with('Mod', other)

  def __floordiv__(self, other):
    return (self - self % other)._with('Div', other)

  def __pow__(self, exponent: int):
    return self if exponent == 1 else self * self ** (exponent - 1)

  def __neg__(self):
    return self * -1

  __radd__, __rmul__ = __add__, __mul__
