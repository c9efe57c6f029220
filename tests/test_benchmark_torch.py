"""PyTorch's side has the same networks and steps as ours."""

import pytest

pytest.importorskip('torch', reason='parity compares with PyTorch: pip install jaxseg[parity]')

import importlib.util

import numpy as np
import torch

from jaxseg.tools.benchmark import detection, ours, torch_detection, torch_side
from jaxseg.tools.benchmark.process import Process
from jaxseg.types import UserError
from tests.test_configs import build
from tests.tiny_runs import make_experiment

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(
  'spec', ['unet_isbi2012.py', 'unet_camvid.py', 'segnet_camvid.py', 'segnet_camvid.py:basic', 'fcn_camvid.py', 'pspnet_camvid.py']
)  # fmt: skip
def test_the_same_parameters_and_steps(spec):
  sizes = {'unet_isbi2012.py': (188, 188), 'pspnet_camvid.py': (33, 33)}
  running = ('model.frozen_norm=False',) * (spec == 'unet_camvid.py')  # PyTorch's has no other
  experiment = build(spec, 'model.width=2', 'batch_size=1', 'loss.name=softmax', *running)
  workload = ours.Workload(experiment, sizes.get(spec, (64, 64)))
  theirs = torch_side.make(experiment.config, workload.batch)
  assert theirs.parameters == workload.parameters
  if spec != 'pspnet_camvid.py':  # batch norm of one value
    theirs.train()
  theirs.infer()


@pytest.mark.parametrize('frozen', [False, True])
def test_torchvision_has_the_same_detector_and_steps(frozen):
  if importlib.util.find_spec('torchvision') is None:
    pytest.skip('torchvision is not installed')
  options = [f'model.frozen_norm={frozen}', 'loss.max_instances=3', 'batch_size=2']
  experiment = build('mask_rcnn_dsb2018.py:smoke', *options)
  workload = ours.Workload(experiment, (64, 64))
  theirs = torch_side.make(experiment.config, workload.batch)
  background = 4 * (32 + 1) + (8 + 1)  # a box and a mask that nothing trains
  assert theirs.parameters == workload.parameters + background
  scores = theirs._net.heads.box_predictor.cls_score.weight
  before = scores.detach().clone()
  theirs.train()
  assert scores.isfinite().all() and (scores != before).any()
  theirs.infer()


def test_it_runs_in_a_process_of_its_own():
  experiment = build('segnet_camvid.py', 'model.width=2', 'batch_size=1')
  batch = ours.Workload(experiment, (32, 32)).batch
  with Process('torch_side.make', experiment.config, batch) as theirs:
    assert theirs.call('train') > 0 and theirs.program('infer')() > 0  # CPU seconds


def test_what_is_not_written_in_torch():
  with pytest.raises(
    UserError, match=r'no unet\(up=bilinear\) in PyTorch: it has unet\(backbone, batch_n'
  ):
    torch_side.build_network(make_experiment('model.up=bilinear'))
  with pytest.raises(UserError, match="has loss='softmax' only"):
    torch_side.build_network(make_experiment(loss=dict(name='softmax_dice')))
  with pytest.raises(UserError, match='no mine in PyTorch: it has fcn, segnet'):
    torch_side.import_module('mine')


def test_the_detection_operations_of_both_sides_agree():
  experiment = build('mask_rcnn_dsb2018.py:smoke', 'model.features=4', 'model.roi_samples=12')
  arrays = detection.example(experiment, (96, 128))
  ours, theirs = detection.Operations(arrays), torch_detection.TorchOperations(arrays)
  value, (gradients,) = ours._align(ours._maps, ours._weight)
  theirs.roi_align()
  other = torch_detection.roi_align(
    theirs._maps, arrays['strides'], theirs._boxes, theirs._levels, arrays['size']
  )
  np.testing.assert_allclose(value, other.detach().permute(0, 2, 3, 1), atol=1e-5)
  for mine, features in zip(gradients, theirs._maps, strict=True):
    gradient = torch.zeros_like(features) if features.grad is None else features.grad
    np.testing.assert_allclose(mine, gradient[0].permute(1, 2, 0), atol=1e-4)
  kept = torch_detection.suppress(theirs._sorted, arrays['threshold'])
  np.testing.assert_array_equal(ours._suppress(arrays['candidates']), kept)
  assert 0 < kept.sum() < len(kept)
