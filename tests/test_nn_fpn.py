"""Feature pyramid: counts, sizes, and the top-down path by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.nn.backbones import ResNet
from jaxseg.nn.backbones.fpn import FPN


def maps_of(size, channels):
  shapes = [
    (1, size[0] // s, size[1] // s, c) for s, c in zip((4, 8, 16, 32), channels, strict=True)
  ]
  return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


@pytest.mark.parametrize('extra', [True, False])
def test_the_published_pyramid(extra):
  """Of ResNet-50's maps: 3,344,384 parameters, the fifth map without any."""
  run = lambda key, maps: FPN(extra=extra).init_with_output(key, maps)  # noqa: E731
  out, variables = jax.eval_shape(
    run, jax.random.key(0), maps_of((96, 160), (256, 512, 1024, 2048))
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 3_344_384
  sizes = [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
  assert [m.shape for m in out] == [(1, *size, 256) for size in sizes[: 4 + extra]]
  assert set(variables['params']) == {
    f'{n}_blocks_{i}' for n in ('inner', 'layer') for i in range(4)
  }


def test_the_way_down_by_hand():
  """Kernels that pass one channel on: each map is its own plus the coarser one's, doubled."""
  coarse, fine = np.array([[1.0, 2]]), np.arange(8.0).reshape(2, 4)
  maps = [jnp.array(m, jnp.float32)[None, ..., None] for m in (fine, coarse)]
  model = FPN(features=1, extra=True)
  params = model.init(jax.random.key(0), maps)['params']
  passing = {
    name: {
      'kernel': jnp.zeros_like(p['kernel']).at[tuple(n // 2 for n in p['kernel'].shape[:2])].set(1),
      'bias': jnp.zeros(1),
    }
    for name, p in params.items()
  }
  out = model.apply({'params': passing}, maps)
  np.testing.assert_array_equal(out[0][0, ..., 0], fine + [[1, 1, 2, 2], [1, 1, 2, 2]])
  np.testing.assert_array_equal(out[1][0, ..., 0], coarse)
  np.testing.assert_array_equal(out[2][0, ..., 0], [[1]])  # every second value


def test_frozen_stages_get_no_gradient():
  model = ResNet(stage_sizes=(1, 1, 1), width=2, frozen_stages=1)
  image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype('f')
  variables = model.init(jax.random.key(0), image, train=False)

  @jax.jit
  @jax.grad
  def gradient(params):
    return sum(
      jnp.abs(m).sum()
      for m in model.apply({**variables, 'params': params}, image, train=False).values()
    )

  for name, leaf in gradient(variables['params']).items():
    moved = max(np.abs(v).max() for v in leaf.values())
    assert (moved == 0) == (not name.startswith(('layer2', 'layer3'))), name
