"""What a network really does, layer by layer: recorded while the model itself is traced.

Nothing is computed and no weights are made (`jax.eval_shape`). Convolutions, dense layers, batch norm
and dropout are caught as Flax modules, pooling and upsampling as calls of functions; crops, skips,
scales and RoIAlign are measured by running the model's own function on an image of positions;
initialisations are measured on samples of the initialiser. So a table can only say what the code does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxseg.nn import layers
from jaxseg.nn.backbones import fpn
from jaxseg.nn.layers import BatchNorm, Conv, ConvTranspose
from jaxseg.nn.layers.roi_align import roi_align
from jaxseg.tools.fidelity.initial import describe_initializer


@dataclasses.dataclass
class Row:
  """One layer; every field as the table prints it.

  Attributes:
    name: the parameters' path, or what the layer works on: 'pool3', 'unpool3', 'upscore8 crop'.
    kernel: '3x3', '3x3 dilated 2'; of other layers what they are: 'dense', 'dropout 0.5', 'crop at 19',
      'batch norm 1e-09', and 'batch norm 1e-05, frozen' where training keeps the loaded statistics.
    stride: '2', '' where there is none.
    padding: pixels on every side, 'ceil' or 'floor' of a pooling.
    output: 'HxWxC'; 'NxC' of a dense layer.
    parameters: number of trained values.
    initial: of weights and bias, 'normal 2/in, 0'; see `describe_initializer`.
    rate: learning-rate multipliers of weights and bias, '1, 2'.
    decay: weight-decay multipliers, '1, 0'.
    after: 'relu' where one follows.
  """

  name: str
  kernel: str = ''
  stride: str = ''
  padding: str = ''
  output: str = ''
  parameters: int = 0
  initial: str = ''
  rate: str = ''
  decay: str = ''
  after: str = ''


FIELDS = tuple(f.name for f in dataclasses.fields(Row))


def trace(
  model: nn.Module,
  input_shape: Sequence[int],
  *,
  inputs: Mapping[str, Any],
  multiplier: Callable[[str, int], float],
  is_loaded: Callable[[str], bool] = lambda name: False,
) -> list[Row]:
  """Returns the layers of a model, in the order in which it runs them in training.

  Args:
    model: a jaxseg model.
    input_shape: [b, h, w, c].
    inputs: what the model takes in training beside the image: arrays, whose values nobody looks at.
    multiplier: (parameter's name 'conv1_1/bias', 1 | 2) -> its rate or decay multiplier.
    is_loaded: tells of a parameter's name whether its first value comes from other weights.
  """
  if hasattr(model, 'remat'):
    model = model.clone(
      remat=False
    )  # the same network, without the copies that hide who feeds whom
  recorder = _Recorder(multiplier, is_loaded)
  keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1), 'sample': jax.random.key(2)}

  def run(image, inputs):
    variables = model.init(keys, image, train=False)
    recorder.parameters = variables['params']
    with nn.intercept_methods(recorder.intercept), _replaced(recorder.functions()):
      _, state = model.apply(
        variables,
        image,
        train=True,
        mutable=['batch_stats', 'intermediates'],
        rngs=keys,
        **inputs,
      )
    recorder.name_by(state.get('intermediates', {}))

  jax.eval_shape(run, jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32), dict(inputs))
  recorder.measure()
  return recorder.rows


class _Recorder:
  """Collects rows; `_values` holds each row's output, so that who feeds whom is known."""

  def __init__(self, multiplier, is_loaded):
    self.rows: list[Row] = []
    self.parameters: Any = {}
    self._values: list[Any] = []
    self._indices: list[tuple[Any, str]] = []  # of poolings
    self._initial: dict[str, list] = {}
    self._unmeasured: list[tuple[Row, Callable[[], str]]] = []  # returns the row's kernel
    self._multiplier, self._is_loaded = multiplier, is_loaded

  def measure(self) -> None:
    """Draws from initialisers and runs probes; after the tracing, in which nothing has values."""
    for row, kernel in self._unmeasured:
      row.kernel = kernel()
    for row in self.rows:
      if row.name in self._initial:
        row.initial = ', '.join(
          'loaded' if self._is_loaded(name) else describe_initializer(initializer, shape)
          for name, initializer, shape in self._initial[row.name]
        )

  def _add(self, row: Row, value: Any) -> None:
    row.output = 'x'.join(map(str, value.shape[1:]))
    self.rows.append(row)
    self._values.append(value)

  def _maker_of(self, value: Any) -> Row | None:
    return next((r for r, v in zip(self.rows, self._values, strict=True) if v is value), None)

  def _name_of(self, value: Any) -> str:
    row = self._maker_of(value)
    return row.name if row else 'input'

  def name_by(self, intermediates: Any) -> None:
    """Gives upsamplings without parameters the names under which the model notes their results."""
    for name, values in intermediates.items():
      row = self._maker_of(values[0]) if isinstance(values, tuple) else None
      if row and row.name.startswith(('upsampling', 'resize')):
        old, row.name = row.name, name
        for other in self.rows:
          other.name = other.name.replace(old + ' ', name + ' ')

  def intercept(self, next_function, args, kwargs, context):
    """Flax calls this for every method of every module."""
    module, value = context.module, next_function(*args, **kwargs)
    if context.method_name == '__call__':
      name = '/'.join(module.scope.path)
      if name in self._initial:  # shared by levels: it has the row of the first
        return value
      if isinstance(module, (nn.Conv, ConvTranspose)):
        self._add(self._convolution(name, module, args[0]), value)
      elif isinstance(module, BatchNorm):
        initial = (module.scale_init, module.bias_init)
        frozen = ', frozen' if kwargs['use_running_average'] else ''
        row = Row(name, kernel=f'batch norm {module.epsilon:g}{frozen}')
        self._add(self._parameters(row, ('scale', 'bias'), initial), value)
      elif isinstance(module, nn.Dense):
        initial = (module.kernel_init, module.bias_init)
        self._add(self._parameters(Row(name, 'dense'), ('kernel', 'bias'), initial), value)
      elif isinstance(module, fpn.FPN):
        for finer, level in itertools.pairwise(value[len(args[0]) - 1 :]):
          stride = -(-finer.shape[1] // level.shape[1])
          self._add(Row(f'{name}/extra', 'further level', str(stride)), level)
      elif isinstance(module, nn.Dropout):
        shared = ' of channels' if module.broadcast_dims else ''
        self._add(Row(name, kernel=f'dropout {module.rate:g}{shared}'), value)
    elif context.method_name in _PROBES and value is not args[0]:
      kernel = _PROBES[context.method_name](next_function, *args)
      self._add(Row(f'{self._name_of(args[0])} {kernel.split()[0]}', kernel=kernel), value)
    return value

  def _convolution(self, name: str, module: nn.Module, x: Any) -> Row:
    kernel, strides = tuple(module.kernel_size), _pair(module.strides)
    dilation = _pair(getattr(module, 'kernel_dilation', 1))
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    if isinstance(module, Conv):
      pads = module.padding
      if isinstance(pads, str):
        pads = lax.padtype_to_pads(x.shape[1:3], extent, strides, pads)
      padding = _together([_together(p) for p in pads])
    else:
      padding = {'VALID': '0', 'SAME': 'same'}.get(module.padding, str(module.padding))
    row = Row(
      name,
      kernel='x'.join(map(str, kernel)) + (f' dilated {dilation[0]}' if max(dilation) > 1 else ''),
      stride=_together(strides),
      padding=padding,
    )
    return self._parameters(row, ('kernel', 'bias'), (module.kernel_init, module.bias_init))

  def _parameters(self, row: Row, names: Sequence[str], initializers: Sequence[Any]) -> Row:
    """Fills in what belongs to the parameters that the layer has in the model's variables."""
    held = functools.reduce(lambda tree, part: tree[part], row.name.split('/'), self.parameters)
    own = [(n, i, f'{row.name}/{n}') for n, i in zip(names, initializers, strict=True) if n in held]
    row.parameters = sum(int(leaf.size) for leaf in jax.tree.leaves(held))
    self._initial[row.name] = [(full, init, held[name].shape) for name, init, full in own]
    row.rate, row.decay = (
      ', '.join(f'{self._multiplier(full, which):g}' for _, _, full in own) for which in (1, 2)
    )
    return row

  def functions(self) -> dict[Callable, Callable]:
    """Returns {function: its recording stand-in}."""

    def pool(function, x, window=2, stride=2, padding='VALID', **options):
      value = function(x, window, stride, padding, **options)
      odd = jax.eval_shape(
        lambda: function(jnp.zeros((1, 5, 5, 1)), window, stride, padding, **options)
      )
      row = Row(f'pool{self._count("pool") + 1}', f'max {window}x{window}', str(stride))
      if isinstance(padding, str):
        row.padding = 'ceil' if odd.shape[1] == 3 else 'floor'
      else:
        row.padding = _together([_together(pad) for pad in padding])
      self._add(row, value)
      return value

    def average(function, x, bins):
      value = function(x, bins)
      self._add(Row(f'bins{bins}', f'average {bins}x{bins}'), value)
      return value

    def pool_argmax(function, x):
      value, index = function(x)
      name = f'pool{self._count("pool") + 1}'
      odd = jax.eval_shape(lambda: function(jnp.zeros((1, 5, 5, 1)))[0])
      padding = 'ceil' if odd.shape[1] == 3 else 'floor'
      self._add(Row(name, 'max 2x2', '2', padding), value)
      self._indices.append((index, name))
      return value, index

    def unpool(function, x, index, size):
      value = function(x, index, size)
      places = next((name for known, name in self._indices if known is index), 'unknown')
      self._add(Row(f'un{places}', f'places of {places}', '2'), value)
      return value

    def upsample(function, x, factor, **options):
      value = function(x, factor, **options)
      side = value.shape[1] - (x.shape[1] - 1) * factor  # of a transposed convolution, unpadded
      row = Row(f'upsampling{len(self.rows)}', f'{side}x{side}', str(factor), '0')
      row.initial, row.rate, row.decay = 'bilinear', '0', '0'  # it is no parameter
      self._add(row, value)
      return value

    def resize(function, x, size, **options):
      value = function(x, size, **options)
      aligned = ', corners aligned' if options.get('align_corners') else ''
      self._add(Row(f'resize{len(self.rows)}', 'bilinear' + aligned), value)
      return value

    def double(function, x):
      value = function(x)
      factor = value.shape[1] // x.shape[1]
      row = Row(f'doubling{self._count("doubling") + 1}', stride=str(factor))
      self._unmeasured.append((row, lambda: _probe_double(function)))
      self._add(row, value)
      return value

    def align(function, maps, strides, boxes, levels, size, **options):
      value = function(maps, strides, boxes, levels, size, **options)
      row = Row(f'align{size}')
      self._unmeasured.append((row, lambda: _probe_align(function, size, options)))
      self._add(row, value)
      return value

    def response_norm(function, x, size=5, alpha=1e-4, beta=0.75, k=1.0):
      value = function(x, size, alpha, beta, k)
      self._add(Row('norm', f'lrn {size}, {alpha:g}, {beta:g}, {k:g}'), value)
      return value

    def relu(function, x):
      value = function(x)
      row = self._maker_of(x)
      if row:
        row.after = 'relu'
        self._values[self.rows.index(row)] = value
      return value

    return {
      layers.adaptive_average_pool: average,
      layers.max_pool: pool,
      layers.max_pool_argmax: pool_argmax,
      layers.max_unpool: unpool,
      layers.upsample_bilinear: upsample,
      layers.resize_bilinear: resize,
      layers.local_response_norm: response_norm,
      fpn._double: double,
      roi_align: align,
      nn.relu: relu,
    }

  def _count(self, kind: str) -> int:
    return sum(row.name.startswith(kind) for row in self.rows)


def _pair(value: Any) -> tuple[int, ...]:
  """Flax takes None, one number or two."""
  return (value or 1,) * 2 if value is None or isinstance(value, int) else tuple(value)


def _together(values: Sequence[Any]) -> str:
  """One number where all are the same."""
  return str(values[0]) if len(set(values)) == 1 else str(tuple(values))


@contextlib.contextmanager
def _replaced(stand_ins: dict[Callable, Callable]) -> Iterator[None]:
  """Lets models and backbones find a stand-in wherever they hold one of the functions."""
  places = []
  for name, module in list(sys.modules.items()):
    if name.startswith(('jaxseg.models', 'jaxseg.nn.backbones')) or module is nn:
      for attribute, value in list(vars(module).items()):
        if callable(value) and value in stand_ins:
          places.append((module, attribute, value))
  try:
    for module, attribute, value in places:
      setattr(module, attribute, functools.partial(stand_ins[value], value))
    yield
  finally:
    for module, attribute, value in places:
      setattr(module, attribute, value)


def _positions(shape: Sequence[int]) -> np.ndarray:
  """An image [1, h, w, c] whose values say where they stand, channel 0 first."""
  return np.arange(np.prod(shape[1:]), dtype=np.float64).reshape(1, *shape[1:])


def _probe_crop(crop: Callable, x: Any, *args) -> str:
  first = int(crop(_positions(x.shape), *args).flat[0]) // x.shape[-1]
  return 'crop at ' + _together(divmod(first, x.shape[2]))


def _probe_scale(scale: Callable, x: Any, *args) -> str:
  return f'times {float(scale(np.ones((1, 1, 1, 1)), *args).item()):g}'


def _probe_join(join: Callable, x: Any, skip: Any) -> str:
  """Joins an image of -1 with one of positions: order and margin can be read off the result."""
  below = np.full((1, *x.shape[1:]), -1, np.float32)
  with jax.ensure_compile_time_eval():
    corner = np.asarray(join(below, _positions(skip.shape).astype(np.float32)))[0, 0, 0]
  order = 'skip, up' if corner[0] >= 0 else 'up, skip'
  first = int(corner[corner >= 0].min()) // skip.shape[-1]
  return f'join {order}; skip from {_together(divmod(first, skip.shape[2]))}'


def _probe_double(double: Callable) -> str:
  """Doubles 0, 1: are there values between?"""
  step = np.asarray(double(jnp.arange(2.0).reshape(1, 1, 2, 1)))
  return 'nearest' if set(step.flat) == {0, 1} else 'blended'


def _probe_align(align: Callable, size: int, options: Mapping[str, Any], side: int = 32) -> str:
  """Cuts a whole map as one bin; its channels are its columns, so that each one's weight comes out."""
  columns = jnp.broadcast_to(jnp.eye(side), (side, side, side))
  box = jnp.array([[0.0, 0.0, side, side]])
  weights = np.asarray(align([columns], [1], box, jnp.zeros(1, int), 1, **options)).ravel()
  points = np.count_nonzero(np.diff(weights > 0, prepend=False, append=False)) // 2
  shift = side / 2 - weights @ np.arange(side)
  return f'align {size}x{size}, {points}x{points} points, shift {shift:g}'


_PROBES = {'_crop': _probe_crop, '_scale': _probe_scale, '_join': _probe_join}
