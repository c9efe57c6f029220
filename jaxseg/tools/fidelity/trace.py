"""Records a network's actual layers while tracing the model itself.

Nothing is computed and no weights are created (`jax.eval_shape`). Convolutions, dense layers, batch norm
and dropout are intercepted as Flax modules, pooling and upsampling as function calls; crops, skips,
scales and RoIAlign are measured by running the model's own function on an image of positions;
initialisations are measured on samples. So a table can only state what the code does.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxseg.nn import layers
from jaxseg.nn.backbones.fpn import FPN
from jaxseg.nn.layers import BatchNorm, Conv, ConvTranspose
from jaxseg.tools.fidelity import probes
from jaxseg.tools.fidelity.calls import DESCRIPTIONS
from jaxseg.tools.fidelity.papers import Layer
from jaxseg.tools.fidelity.probes import describe_initializer
from jaxseg.tools.stand_ins import stand_ins


def trace(
  model: nn.Module,
  input_shape: Sequence[int],
  *,
  inputs: Mapping[str, Any],
  multiplier: Callable[[str, int], float],
  is_loaded: Callable[[str], bool] = lambda name: False,
) -> list[Layer]:
  """Returns the layers of a model, in the order in which it runs them in training.

  Args:
    model: a jaxseg model.
    input_shape: [b, h, w, c].
    inputs: the model's training inputs other than the image: arrays, whose values do not matter.
    multiplier: (parameter's name 'conv1_1/bias', 1 | 2) -> its rate or decay multiplier.
    is_loaded: whether the parameter of that name is initialised from other weights.
  """
  if hasattr(model, 'remat'):  # the same network, without copies that hide its data flow
    model = model.clone(remat=False)
  recorder = Recorder(multiplier, is_loaded)
  keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1), 'sample': jax.random.key(2)}

  def run(image, inputs):
    variables = model.init(keys, image, train=False)
    recorder.parameters = variables['params']
    mutable = ['batch_stats', 'intermediates']
    with nn.intercept_methods(recorder.intercept), stand_ins(recorder.stand_ins()):
      _, state = model.apply(variables, image, train=True, mutable=mutable, rngs=keys, **inputs)
    recorder.name_by(state.get('intermediates', {}))

  jax.eval_shape(run, jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32), dict(inputs))
  recorder.measure()
  return recorder.layers


class Recorder:
  """Collects layers and their outputs, from which the data flow is known."""

  def __init__(self, multiplier: Callable[[str, int], float], is_loaded: Callable[[str], bool]):
    self.layers: list[Layer] = []
    self.parameters: Any = {}
    self._values: list[Any] = []
    self._initial: dict[str, list] = {}
    self._multiplier, self._is_loaded = multiplier, is_loaded

  def add(self, layer: Layer, value: Any) -> None:
    """Records a layer and its output: an array, or a tuple that starts with it."""
    kind = layer.name.removesuffix('#')
    if kind != layer.name:
      layer.name = f'{kind}{1 + sum(other.name.startswith(kind) for other in self.layers)}'
    first = value[0] if isinstance(value, tuple) else value
    layer.output = 'x'.join(map(str, first.shape[1:]))
    self.layers.append(layer)
    self._values.append(value)

  def _maker_of(self, value: Any) -> Layer | None:
    for layer, made in zip(self.layers, self._values, strict=True):
      if any(value is one for one in (made if isinstance(made, tuple) else (made,))):
        return layer
    return None

  def measure(self) -> None:
    """Runs probes and samples initialisers, after tracing, where nothing has values."""
    for layer in self.layers:
      if callable(layer.kernel):
        layer.kernel = layer.kernel()
      if layer.name in self._initial:
        layer.initial = ', '.join(
          'loaded' if self._is_loaded(name) else describe_initializer(initializer, shape)
          for name, initializer, shape in self._initial[layer.name]
        )

  def stand_ins(self) -> dict[Callable, Callable]:
    """Returns {function: a replacement that also records a layer}."""

    def recorded(function, description, *args, **kwargs):
      value = function(*args, **kwargs)
      self.add(description(value, *args, **kwargs), value)
      return value

    def max_unpool(x, index, size):
      value, pool = layers.max_unpool(x, index, size), self._maker_of(index)
      name = pool.name if pool else 'unknown'
      self.add(Layer(f'un{name}', f'places of {name}', '2'), value)
      return value

    def relu(x):
      value, layer = jax.nn.relu(x), self._maker_of(x)
      if layer:
        layer.after = 'relu'
        self._values[self.layers.index(layer)] = value
      return value

    plain = {f: functools.partial(recorded, f, words) for f, words in DESCRIPTIONS.items()}
    return {**plain, layers.max_unpool: max_unpool, nn.relu: relu}

  def name_by(self, intermediates: Mapping[str, Any]) -> None:
    """Names upsamplings without parameters as the model names their intermediates."""
    for name, values in intermediates.items():
      layer = self._maker_of(values[0]) if isinstance(values, tuple) else None
      if layer and layer.name.startswith(('upsampling', 'resize')):
        old, layer.name = layer.name, name
        for other in self.layers:
          other.name = other.name.replace(old + ' ', name + ' ')

  def intercept(self, next_function, args, kwargs, context):
    """Flax's interceptor, called for every method of every module."""
    value, method = next_function(*args, **kwargs), context.method_name
    if method == '__call__':
      self._record_module(context.module, args, kwargs, value)
    elif method in probes.METHODS and value is not args[0]:
      kernel, maker = probes.METHODS[method](next_function, *args), self._maker_of(args[0])
      self.add(Layer(f'{maker.name if maker else "input"} {kernel.split()[0]}', kernel), value)
    return value

  def _record_module(self, module: nn.Module, args, kwargs, value: Any) -> None:
    name = '/'.join(module.scope.path)
    if name in self._initial:  # shared between levels: listed once, at the first
      return
    if isinstance(module, (nn.Conv, ConvTranspose)):
      self.add(self._convolution(name, module, args[0]), value)
    elif isinstance(module, BatchNorm):
      frozen = ', frozen' if kwargs['use_running_average'] else ''
      layer = Layer(name, f'batch norm {module.epsilon:g}{frozen}')
      initial = {'scale': module.scale_init, 'bias': module.bias_init}
      self.add(self._with_parameters(layer, initial), value)
    elif isinstance(module, nn.Dense):
      self.add(self._with_parameters(Layer(name, 'dense'), _weights(module)), value)
    elif isinstance(module, FPN):
      for finer, level in itertools.pairwise(value[len(args[0]) - 1 :]):
        stride = -(-finer.shape[1] // level.shape[1])
        self.add(Layer(f'{name}/extra', 'further level', str(stride)), level)
    elif isinstance(module, nn.Dropout):
      shared = ' of channels' if module.broadcast_dims else ''
      self.add(Layer(name, f'dropout {module.rate:g}{shared}'), value)

  def _convolution(self, name: str, module: nn.Module, x: Any) -> Layer:
    kernel, strides = tuple(module.kernel_size), _both(module.strides)
    dilation = _both(getattr(module, 'kernel_dilation', 1))
    if isinstance(module, Conv):
      pads = nn.linear.canonicalize_padding(module.padding, 2)
      if isinstance(pads, str):
        extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        pads = lax.padtype_to_pads(x.shape[1:3], extent, strides, pads)
      padding = probes.pair([probes.pair(p) for p in pads])
    else:
      padding = {'VALID': '0', 'SAME': 'same'}.get(module.padding, str(module.padding))
    words = 'x'.join(map(str, kernel)) + (f' dilated {dilation[0]}' if max(dilation) > 1 else '')
    layer = Layer(name, words, probes.pair(strides), padding)
    return self._with_parameters(layer, _weights(module))

  def _with_parameters(self, layer: Layer, initializers: Mapping[str, Any]) -> Layer:
    """Fills in the fields that depend on the layer's parameters."""
    held = functools.reduce(lambda tree, part: tree[part], layer.name.split('/'), self.parameters)
    own = [
      (f'{layer.name}/{n}', init, held[n].shape) for n, init in initializers.items() if n in held
    ]
    layer.parameters = sum(int(leaf.size) for leaf in jax.tree.leaves(held))
    self._initial[layer.name] = own
    layer.rate, layer.decay = (
      ', '.join(f'{self._multiplier(name, which):g}' for name, _, _ in own) for which in (1, 2)
    )
    return layer


def _weights(module: nn.Module) -> dict[str, Any]:
  return {'kernel': module.kernel_init, 'bias': module.bias_init}


def _both(value: Any) -> tuple[int, ...]:
  """Expands None or one number, which Flax allows too, to two."""
  return (value or 1,) * 2 if value is None or isinstance(value, int) else tuple(value)
