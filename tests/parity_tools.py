"""What the parity tests share: the same weights and input in PyTorch and here, compared."""

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from jaxseg import pretrained
from jaxseg.pretrained.names.layouts import from_torch

FORWARD, GRADIENT = 1e-4, 1e-3  # allowed relative differences
CLOSEST_CHOICE = 1e-4  # in standard deviations of the map: single precision errs by a tenth of it


def by_our_names(tensors):
  """Arrays of a torch net whose modules carry our layers' names -> ours."""
  return from_torch(tensors, transposed=lambda name: name.endswith('_up'))


def compare(
  model, net, convert, shape, *, train, ours, theirs=lambda outputs: outputs, dtype=jnp.float64
):
  """Asserts that our model and the torch net agree in value and in parameter gradient.

  The net runs in double precision. Our values are single precision; our gradients double unless
  `dtype` says otherwise: ReLU and pooling choose, and one choice that falls otherwise by a rounding
  error moves a gradient by a percent or more, PyTorch's own in single precision too. Which choices
  fall otherwise differs from processor to processor, so in single precision none may be close.

  Args:
    model: flax module, called with (image, train=...) and, where it has it, dropout=False.
    net: torch module with random weights; its dropout is switched off here.
    convert: arrays under the net's names -> ours; linear, so it maps gradients as well.
    shape: [b,h,w,c] of the random image.
    train: compare with the batch's statistics; False: with running statistics.
    ours, theirs: our and their outputs -> the array to compare, [b,h,w,c] and [b,c,h,w].
    dtype: of our computation of gradients.
  """
  for module in net.modules():
    if isinstance(module, torch.nn.Dropout):
      module.p = 0.0
  random = np.random.default_rng(0)
  image = random.normal(size=shape).astype(np.float32)
  net = net.double().train(train)
  variables = _our_variables(model, convert(_arrays(net.state_dict())), shape)
  got, got_statistics = _our_values(model, variables, image, train, ours)
  weight = random.normal(size=got.shape)
  with _Choices() as choices:
    expected, gradient, statistics = _their_values(net, image, weight, theirs, convert)
  assert dtype == jnp.float64 or choices.closest > CLOSEST_CHOICE, 'take another seed or shape'
  got_gradient = _our_gradients(model, variables, image, weight, train, ours, dtype)

  assert got.shape == expected.shape and got_gradient.keys() == gradient.keys()
  value = np.abs(got - expected).max() / np.abs(expected).max()
  place, distance = _worst(got_gradient, gradient)
  print(
    f'{type(net).__name__} {image.shape} train={train}: value {value:.1e}, '
    f'gradient {distance:.1e} ({place})'
  )
  assert value < FORWARD and distance < GRADIENT
  for name, values in got_statistics.items():  # PyTorch's running variance is the unbiased one
    if name.endswith('/mean'):
      np.testing.assert_allclose(values, statistics[name], rtol=1e-3, atol=1e-4, err_msg=name)


class _Choices(TorchFunctionMode):
  """Watches a net's ReLUs and 2x2 poolings: how close the closest of their choices is.

  `closest` is a distance in standard deviations of the map that is chosen from.
  """

  def __init__(self):
    super().__init__()
    self.closest = float('inf')

  def __torch_function__(self, function, types, arguments=(), options=None):
    if function in (F.relu, F.max_pool2d):
      x = arguments[0].detach()
      distances = x.abs() if function is F.relu else _gaps(x)
      self.closest = min(self.closest, float(distances.min() / x.std()))
    return function(*arguments, **(options or {}))


def _gaps(x):
  """How far the largest of each 2x2 window is above the next, where it is above zero."""
  rest, largest = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2).sort().values[..., 2:].unbind(-1)
  return (largest - rest)[largest > 0]


def _our_variables(model, tensors, shape):
  image = jnp.zeros(shape)
  options = _options(model)
  keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
  abstract = jax.eval_shape(lambda: model.init(keys, image, train=False, **options))
  abstract = {k: v for k, v in abstract.items() if k != 'intermediates'}
  variables, report = pretrained.load_into(abstract, tensors)
  assert not report.new and not report.unused
  return variables


def _options(model):
  signature = inspect.signature(type(model).__call__)
  return {'dropout': False} if 'dropout' in signature.parameters else {}


def _their_values(net, image, weight, pick, convert):
  """Returns the output [b,...,c], and gradients and new statistics by our names."""
  result = pick(net(torch.from_numpy(np.moveaxis(image, -1, 1).copy()).double()))
  (result * torch.from_numpy(np.moveaxis(weight, -1, 1).copy())).sum().backward()
  gradient = {name: p.grad for name, p in net.named_parameters()}
  output = np.moveaxis(result.detach().numpy(), 1, -1)
  return output, convert(_arrays(gradient)), convert(_arrays(net.state_dict()))


def _our_values(model, variables, image, train, pick):
  @jax.jit
  def run(variables):
    arguments = dict(train=train, mutable=['batch_stats'], **_options(model))
    outputs, new = model.apply(variables, image, **arguments)
    return pick(outputs), new

  output, new = run(variables)
  return np.asarray(output), pretrained.flatten(new)


def _our_gradients(model, variables, image, weight, train, pick, dtype):
  """Gradients of (output * weight).sum(), with batch norm of that precision (ours has float32)."""
  if dtype == jnp.float64:
    norm = functools.partial(nn.BatchNorm, momentum=0.9, use_fast_variance=False)
    model = model.clone(norm=norm, dtype=dtype)
  with jax.enable_x64(dtype == jnp.float64):
    rest = {k: v for k, v in variables.items() if k != 'params'}

    @jax.jit
    @jax.grad
    def gradients(params):
      arguments = dict(train=train, mutable=['batch_stats'], **_options(model))
      outputs, _ = model.apply({'params': params, **rest}, image.astype(dtype), **arguments)
      return (pick(outputs) * weight.astype(dtype)).sum()

    made = gradients(jax.tree.map(lambda p: jnp.asarray(p, dtype), variables['params']))
    return jax.tree.map(np.asarray, pretrained.flatten({'params': made}))


def _arrays(tensors):
  return {name: t.detach().numpy() for name, t in tensors.items()}


def _worst(got, expected):
  """Name and size of the largest difference, relative to each tensor's largest value."""
  # A bias in front of a batch norm has gradient zero and rounding noise: hence the floor.
  floor = 1e-3 * max(np.abs(g).max() for g in expected.values())
  differences = {
    name: np.abs(np.asarray(got[name]) - g).max() / max(np.abs(g).max(), floor)
    for name, g in expected.items()
  }
  name = max(differences, key=differences.get)
  return name, differences[name]
