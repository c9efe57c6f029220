"""What the parity tests share: the same weights and input in PyTorch and here, compared."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import pretrained
from jaxseg.pretrained.layouts import from_torch

FORWARD, GRADIENT = 1e-4, 1e-3  # allowed relative differences


def upsamplers(name):
  return name.endswith('_up')


def by_our_names(tensors, rename=None):
  """A dict of torch tensors with our layers' names (or a rule) -> ours, float32."""
  arrays = {name: t.detach().numpy().astype(np.float32) for name, t in tensors.items()}
  return from_torch(arrays, rename, transposed=upsamplers)


def difference(got, expected, floor=0.0):
  """Largest difference relative to the largest expected value."""
  got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
  assert got.shape == expected.shape, (got.shape, expected.shape)
  return np.abs(got - expected).max() / max(np.abs(expected).max(), floor, 1e-30)


def to_torch(image, torch):
  return torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2))).double()


def compare(model, net, convert, shape, *, output='logits', pick=lambda y: y, record=print):
  """Asserts that our model and the torch net agree in value and in parameter gradient.

  Args:
    model: flax module; its `__call__` takes (image, train, ...).
    net: torch module of double precision with random weights, dropout off.
    convert: state_dict of arrays -> our flat names; linear, so it maps gradients as well.
    shape: [b,h,w,c] of the random image.
    output: key of our output.
    pick: the torch output of the same meaning.
    record: called with a line of figures.

  Values are compared with running statistics, values and gradients once more with the batch's.
  """
  import torch

  random = np.random.default_rng(0)
  image = random.normal(size=shape).astype(np.float32)
  options = {'dropout': False} if 'dropout' in _arguments(model) else {}
  abstract = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False, **options)
  )
  variables, report = pretrained.load_into(abstract, convert(net.state_dict()))
  assert not report.new and not report.unused

  net.eval()
  with torch.no_grad():
    expected = _nhwc(pick(net(to_torch(image, torch))))
  got = jax.jit(lambda v, x: model.apply(v, x, train=False, **options)[output])(variables, image)
  inference = difference(got, expected)

  net.train()
  for module in net.modules():
    if isinstance(module, torch.nn.Dropout):
      module.p = 0.0
  result = pick(net(to_torch(image, torch)))
  target = random.normal(size=_nhwc(result).shape).astype(np.float32)
  weight = torch.from_numpy(target).double()
  weight = weight.permute(0, 3, 1, 2) if weight.ndim == 4 else weight
  (result * weight).sum().backward()
  used = {name: p for name, p in net.named_parameters() if p.grad is not None}
  gradient = convert({name: p.grad for name, p in used.items()})

  def loss(params, rest):
    outputs, new = model.apply(
      {'params': params, **rest}, image, train=True, **options, mutable=['batch_stats']
    )
    return (outputs[output] * target).sum(), (outputs[output], new)

  rest = {k: v for k, v in variables.items() if k != 'params'}
  gradients, (got, new) = jax.jit(jax.grad(loss, has_aux=True))(variables['params'], rest)
  training = difference(got, _nhwc(result))
  gradients = pretrained.flatten({'params': gradients})
  assert gradients.keys() == gradient.keys()
  # A bias in front of a batch norm has gradient zero and rounding noise: hence the floor.
  floor = 1e-3 * max(np.abs(g).max() for g in gradient.values())
  worst = {name: difference(gradients[name], gradient[name], floor) for name in gradient}
  name = max(worst, key=worst.get)
  record(
    f'{type(net).__name__} {shape}: inference {inference:.1e}, training {training:.1e}, '
    f'gradient {worst[name]:.1e} ({name})'
  )
  assert inference < FORWARD and training < FORWARD and worst[name] < GRADIENT
  _check_statistics(pretrained.flatten(new), convert(net.state_dict()))


def _check_statistics(new, expected):
  """Running means move alike; PyTorch's running variance is the unbiased one, ours is not."""
  for name, values in new.items():
    if name.endswith('/mean'):
      np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)


def _nhwc(tensor):
  array = tensor.detach().numpy()
  return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _arguments(model):
  import inspect

  return inspect.signature(type(model).__call__).parameters
