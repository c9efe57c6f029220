"""What is multiplied in which precision, read from the programs of all networks: nothing is compiled."""

from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import config
from jaxseg.nn.layers import Conv
from jaxseg.nn.precision import at_precision
from jaxseg.tools.benchmark import ours
from jaxseg.train import build
from tests.tiny_runs import make_experiment

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = {
  'fcn_voc2011.py:smoke': (64, 64),
  'segnet_camvid.py:smoke': (64, 64),
  'unet_shapes.py:smoke': (32, 32),
  'pspnet_cityscapes.py:smoke': (65, 65),
  'mask_rcnn_coco.py:smoke': (64, 64),
}
DEFAULT = ('matmul_precision=default', 'parallel=mesh')
CONVOLUTIONS = tuple(f'nn/layers/{name}.py' for name in ('convolution', 'products', 'transposed'))
CONVOLUTIONS += ('flax/linen/linear.py',)


def equations(jaxpr):
  """Yields all equations of a program, those of branches, loops and calls too."""
  for equation in jaxpr.eqns:
    yield equation
    for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, 'eqns')):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from equations(inner)


def products(jaxpr):
  """Yields (is a convolution of the network, operand type, precision) of all products."""
  for equation in equations(jaxpr):
    if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
      files = [frame.file_name for frame in equation.source_info.traceback.frames]
      given = equation.params['precision'] or (jax.lax.Precision.DEFAULT,) * 2
      precision = max(np.ravel(given), key=lambda p: getattr(p, 'value', p))
      inner = any(name.endswith(CONVOLUTIONS) for name in files)
      yield inner, equation.invars[0].aval.dtype, precision, files


def programs(spec, size, *overrides):
  """Yields the training step and the prediction of a config, as traced."""
  experiment = build.experiment(config.load(f'{ROOT}/configs/{spec}', overrides))
  workload = ours.Workload(ours.changed(experiment, batch_size=1), size)
  variables = workload._shapes.variables
  with jax.numpy_rank_promotion('allow'):
    for step, arguments in (
      (workload._step, (workload._shapes, workload.batch, jax.random.key(0))),
      (workload.predict_step(maps=True), (variables, {'image': workload.batch['image']})),
    ):
      yield jax.make_jaxpr(step)(*arguments).jaxpr


@pytest.mark.parametrize('spec', NETWORKS)
def test_all_but_convolutions_multiplies_float32_exactly(spec):
  """With matmul_precision=default: what a device rounds most. Gradients are products as well."""
  precision = jax.lax.Precision
  for program in programs(spec, NETWORKS[spec], *DEFAULT):
    found = list(products(program))
    assert sum(inner for inner, *_ in found) > 5
    for inner, dtype, given, files in found:
      if dtype == jnp.float32:
        assert given == (precision.DEFAULT if inner else precision.HIGHEST), files[:6]


def net(features=(4, 2)):
  return nn.Sequential([Conv(n, (3, 3)) for n in features])


@pytest.mark.parametrize('given', ['highest', 'high', 'default'])
def test_value_and_gradients_multiply_as_the_network_says(given):
  model, image = at_precision(net(), given), jnp.ones((1, 8, 8, 3))
  variables = model.init(jax.random.key(0), image)
  program = jax.make_jaxpr(jax.grad(lambda v: model.apply(v, image).sum()))(variables).jaxpr
  found = [precision for _, _, precision, _ in products(program)]
  assert len(found) > 4 and set(found) == {jax.lax.Precision[given.upper()]}


def test_a_network_stays_what_it_is_but_for_its_precision():
  image = jnp.ones((1, 8, 8, 3))
  plain, exact = net(), at_precision(net(), 'highest')
  assert exact == at_precision(net(), 'highest') != at_precision(net(), 'default')
  assert type(exact).__name__ == type(plain).__name__
  a, b = (jax.eval_shape(m.init, jax.random.key(0), image) for m in (plain, exact))
  assert jax.tree.map(lambda x: x.shape, a) == jax.tree.map(lambda x: x.shape, b)


def test_the_configs_float32_is_float32_and_bfloat16_is_left_alone():
  image = jnp.ones((1, 32, 32, 3))
  for dtype, expected in (('float32', {jax.lax.Precision.HIGHEST}), ('bfloat16', {None})):
    model = make_experiment(f'dtype={dtype}').model()
    program = jax.make_jaxpr(partial(model.init, train=False))(jax.random.key(0), image).jaxpr
    convolutions = [
      e.params for e in equations(program) if e.primitive.name == 'conv_general_dilated'
    ]
    assert convolutions
    assert {p['precision'] and p['precision'][0] for p in convolutions} == expected
