"""What all networks have in common: found by name, options checked, bfloat16, blocks computed again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import models
from jaxseg.models import fcn, mask_rcnn, pspnet, segnet, unet
from jaxseg.types import UserError
from tests.networks import abstract, draw, image_of

TINY = dict(width=2, stage_sizes=(1, 1, 1, 1))


@pytest.mark.parametrize('module', [fcn, mask_rcnn, pspnet, segnet, unet])
def test_found_by_name(module):
  assert models.load(module.__name__.rsplit('.', 1)[1]) is module.Model
  assert models.load(module.__name__) is module.Model  # as a user's own would be


def test_a_wrong_name_lists_the_right_ones():
  with pytest.raises(UserError, match="no model 'u_net': .*fcn, mask_rcnn, pspnet, segnet, unet"):
    models.load('u_net')


@pytest.mark.parametrize(
  'model, message',
  [
    (unet.Model(2, variant='kears'), "variant='kears': choose one of paper, release, keras"),
    (unet.Model(2, padding='reflect'), "padding='reflect': expected one of valid, same or None"),
    (unet.Model(2, up='nearest'), "up='nearest': choose one of deconv, bilinear"),
    (segnet.Model(2, variant='bayesian'), "variant='bayesian': choose one of vgg16, basic"),
    (fcn.Model(2, stride=4), 'stride=4: choose one of 32, 16, 8'),
    (fcn.Model(2, backbone='vgg19'), "backbone='vgg19': choose one of vgg16, resnet50, "),
    (fcn.Model(2, head='heavy'), "head='heavy': choose one of paper, light, torchvision"),
    (fcn.Model(2, learn_upsampling='last'), "learn_upsampling='last': .*intermediate"),
    (pspnet.Model(2, backbone='vgg16'), "backbone='vgg16': choose one of resnet50, resnet101"),
    (mask_rcnn.Model(2, backbone='vgg16'), "backbone='vgg16': choose one of resnet50, resnet101"),
  ],
)
def test_an_option_that_is_no_choice(model, message):
  with pytest.raises(UserError, match=message):
    abstract(model, (1, 572, 572, 3))


@pytest.mark.parametrize(
  'model, side',
  [
    (unet.Model(2, padding='same'), 32),
    (unet.Model(2, variant='keras'), 32),
    (unet.Model(2, padding='same', batch_norm=True, up='bilinear'), 32),
    (fcn.Model(2), 32),
    (fcn.Model(2, learn_upsampling=True, at_once=True), 32),
    (fcn.Model(2, head='light', backbone='mobilenet_v2'), 32),
    (fcn.Model(2, head='torchvision', backbone='resnet50', aux=True), 32),
    (segnet.Model(2), 32),
    (segnet.Model(2, variant='basic'), 32),
    (pspnet.Model(2), 33),
  ],
)
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters(model, side):
  outputs, variables = abstract(model.clone(dtype=jnp.bfloat16), (1, side, side, 3))
  assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype('bfloat16')}
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.parametrize(
  'plain, side',
  [
    (unet.Model(2, width=2, depth=1, padding='same', batch_norm=True), 8),
    pytest.param(
      segnet.Model(2, variant='basic', width=2, bayesian=True), 9, marks=pytest.mark.slow
    ),
    (fcn.Model(2, width=1, aligned=True), 32),
    (pspnet.Model(2, **TINY), 9),
  ],
)
def test_remat_changes_no_gradient_and_no_name(plain, side):
  image = image_of((1, side, side, 3))
  variables = draw(plain, image.shape)

  def gradient(model):
    def loss(params):
      rngs = {'dropout': jax.random.key(5)}
      given = {**variables, 'params': params}
      outputs, _ = model.apply(given, image, train=True, rngs=rngs, mutable=['batch_stats'])
      return jnp.mean(outputs['logits'] ** 2)

    return jax.grad(loss)

  again = plain.clone(remat=True)
  both = jax.jit(lambda p: (gradient(plain)(p), gradient(again)(p)))(variables['params'])
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
  jax.tree.map(close, *both)
  shapes = lambda model: jax.tree.map(jnp.shape, abstract(model, image.shape)[1])  # noqa: E731
  assert shapes(plain) == shapes(again)
