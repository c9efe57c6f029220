"""PSPNet against an independent PyTorch definition: values, and gradients through both heads."""

import pytest

pytest.importorskip('torch', reason='parity compares with PyTorch: pip install jaxseg[parity]')

import numpy as np
import torch
import torch.nn.functional as F

from jaxseg.models import pspnet
from jaxseg.nn.layers import adaptive_average_pool
from jaxseg.pretrained import names
from jaxseg.tasks.semantic import Task
from jaxseg.tools.benchmark.torch_pspnet import PSPNet
from tests import parity_tools, torch_models

pytestmark = pytest.mark.parity
CLASSES, AUX_WEIGHT = 5, 0.4


def compare(stage_sizes, width, deep_stem, shape, **options):
  net = PSPNet(CLASSES, stage_sizes, width, deep_stem, dropout=0.0, always_aux=True)
  torch_models.randomize(net, seed=1)
  (source,) = (s for s in names.SOURCES if s.matches(net.state_dict()))
  assert source.name == 'semseg pspnet50 or 101'
  model = pspnet.Model(CLASSES, stage_sizes=stage_sizes, width=width, deep_stem=deep_stem)
  parity_tools.compare(model, net, source.translate, shape, **options)


@pytest.mark.parametrize(
  'deep_stem, shape',
  [(True, (1, 65, 89, 3)), (False, (2, 33, 57, 3))],  # features 9x12, and 5x8 for six bins
)
def test_logits_with_running_statistics(deep_stem, shape):
  compare(
    (1, 1, 2, 2),
    8,
    deep_stem,
    shape,
    train=False,
    ours=lambda o: o['logits'] + AUX_WEIGHT * o['aux_logits'],
    theirs=lambda o: o[0] + AUX_WEIGHT * o[1],
  )


def test_both_losses_with_batch_statistics():
  """Cross-entropy of both heads, a third of the pixels void; the gradient of every parameter."""
  shape = (2, 73, 49, 3)
  random = np.random.default_rng(2)
  label = random.integers(0, CLASSES, shape[:3])
  label[random.random(shape[:3]) < 1 / 3] = 255
  task, target = Task(num_classes=CLASSES, aux_weight=AUX_WEIGHT), torch.from_numpy(label)

  def ours(outputs):
    terms = task.losses(outputs, {'label': label.astype(np.uint8)})
    return sum(total / weight for total, weight in terms.values()).reshape(1, 1, 1, 1)

  def theirs(outputs):
    main, aux = (F.cross_entropy(o, target, ignore_index=255) for o in outputs)
    return (main + AUX_WEIGHT * aux).reshape(1, 1, 1, 1)

  compare((2, 1, 2, 1), 8, True, shape, train=True, ours=ours, theirs=theirs)


@pytest.mark.parametrize('size', [(60, 60), (13, 8), (7, 5), (1, 2)])
@pytest.mark.parametrize('bins', [1, 2, 3, 6])
def test_adaptive_average_pool(size, bins):
  x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
  expected = F.adaptive_avg_pool2d(torch.from_numpy(np.moveaxis(x, -1, 1).copy()), bins)
  found = adaptive_average_pool(x, bins)
  np.testing.assert_allclose(found, np.moveaxis(expected.numpy(), 1, -1), rtol=1e-5, atol=1e-6)
