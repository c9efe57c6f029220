"""PyTorch's side: the same network, shape, loss and optimiser, as a PyTorch user would run it.

CPU: eager, channels_last, all cores. GPU: channels_last, bfloat16 autocast, torch.compile. PyTorch is
imported only when a side is created, as it is not a requirement.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from jaxseg import models
from jaxseg.config import parts
from jaxseg.train.build import Experiment
from jaxseg.train.build import experiment as build
from jaxseg.types import VOID, Batch, UserError

# Modules with a function of the model's name: (classes, channels, **options) -> module.
_MODULES = {
  'fcn': 'torch_models',
  'segnet': 'torch_models',
  'unet': 'torch_lite',
  'pspnet': 'torch_pspnet',
  'mask_rcnn': 'torch_mask_rcnn',
}


def check_installed() -> None:
  """Raises UserError if PyTorch is not installed; does not import it."""
  if importlib.util.find_spec('torch') is None:
    raise UserError('--compare=torch needs PyTorch: pip install torch')


def make(config: Mapping[str, Any], batch: Batch) -> TorchSide:
  """Builds a config's side, for `Process`. Raises UserError as `build_network` does."""
  experiment = build(config)
  module = import_module(experiment.config['model']['name'])
  return getattr(module, 'SIDE', TorchSide)(experiment, batch)


def import_module(name: str) -> ModuleType:
  """Imports PyTorch and a model's module. Raises UserError if either is missing."""
  check_installed()
  if name not in _MODULES:
    raise UserError(f'--compare=torch has no {name} in PyTorch: it has {", ".join(_MODULES)}')
  return importlib.import_module(f'{__package__}.{_MODULES[name]}')


def build_network(experiment: Experiment) -> Any:
  """Builds the PyTorch module of a config's model.

  Raises:
    UserError: no PyTorch, or a model, option or loss that is not implemented in PyTorch here.
  """
  options = dict(experiment.config['model'])
  name, loss = options.pop('name'), experiment.config['loss']
  builder = getattr(import_module(name), name)
  parameters = inspect.signature(builder).parameters.values()
  takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
  covered = options if takes_all else [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
  others = {k: v for k, v in options.items() if k not in (*covered, 'remat')}
  standard = parts.defaults(models.load(name))
  unknown = [f'{k}={v}' for k, v in others.items() if v != standard.get(k)]
  if unknown:
    raise UserError(
      f'--compare=torch has no {name}({", ".join(unknown)}) in PyTorch: it has '
      f'{name}({", ".join(sorted(covered))})'
    )
  if (kind := loss.get('name', 'softmax')) != 'softmax':
    raise UserError(f"--compare=torch has loss='softmax' only, not {kind!r}")
  options = {k: v for k, v in options.items() if k in covered}
  return builder(experiment.task.num_outputs, experiment.channels, **options)


class TorchSide:
  """The PyTorch network of an experiment, on a GPU if there is one.

  Raises:
    UserError: as `build_network`.
  """

  compiled = True  # on a GPU

  def __init__(self, experiment: Experiment, batch: Batch):
    net = build_network(experiment)
    import torch

    self._torch, self._optim, settings = torch, experiment.optim, experiment.settings
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(settings.seed)
    self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    net = net.to(self.device, memory_format=torch.channels_last)
    self.parameters = sum(p.numel() for p in net.parameters())
    self._optimizer = self._make_optimizer(net.parameters())
    self._net = torch.compile(net) if self.compiled and self.device.type == 'cuda' else net
    self._image = torch.from_numpy(np.array(batch['image'])).to(self.device)
    self._label = torch.from_numpy(np.array(batch['label'])).to(self.device).long()
    self._mean, self._std = (
      torch.tensor(values, device=self.device)
      for values in (experiment.data.mean, experiment.data.std)
    )
    self._half = settings.dtype != 'float32'
    loss = experiment.config['loss']
    weights, self._aux_weight = loss.get('class_weights'), loss.get('aux_weight')
    is_given = weights and not isinstance(weights, str)
    self._weights = torch.tensor(weights, device=self.device) if is_given else None

  def train(self) -> None:
    """Runs one step (preprocessing, forward, backward, update) and waits for it."""
    self._net.train()
    self._optimizer.zero_grad(set_to_none=True)
    self._step_loss().backward()
    if self._optim.clip_norm:
      self._torch.nn.utils.clip_grad_norm_(self._net.parameters(), self._optim.clip_norm)
    self._optimizer.step()
    self._wait()

  def infer(self) -> None:
    """Computes the batch's logits with running statistics, and waits for them."""
    self._net.eval()
    with self._torch.inference_mode(), self._precision():
      self._net(self._images())
    self._wait()

  def peak_bytes(self) -> int:
    """The GPU allocator's peak."""
    return self._torch.cuda.max_memory_allocated()

  def _step_loss(self) -> Any:
    with self._precision():
      outputs = self._net(self._images())
    first, *auxiliary = outputs if isinstance(outputs, list) else [outputs]
    return self._loss(first) + sum(self._aux_weight * self._loss(logits) for logits in auxiliary)

  def _loss(self, logits: Any) -> Any:
    label = self._label
    top, left = ((a - b) // 2 for a, b in zip(label.shape[1:], logits.shape[2:], strict=True))
    label = label[:, top : top + logits.shape[2], left : left + logits.shape[3]]
    return self._torch.nn.functional.cross_entropy(
      logits.float(), label, weight=self._weights, ignore_index=VOID
    )

  def _images(self) -> Any:
    """[b,h,w,c] uint8 is channels_last already: permuting the axes copies nothing."""
    image = (self._image.float() - self._mean) / self._std
    return image.permute(0, 3, 1, 2)

  def _precision(self) -> contextlib.AbstractContextManager:
    if not self._half:
      return contextlib.nullcontext()
    return self._torch.autocast(self.device.type, self._torch.bfloat16)

  def _wait(self) -> None:
    if self.device.type == 'cuda':
      self._torch.cuda.synchronize()

  def _make_optimizer(self, parameters: Any) -> Any:
    options, optim = self._optim, self._torch.optim
    rate, decay = options.learning_rate, options.weight_decay
    if options.name in ('sgd', 'caffe_sgd'):
      return optim.SGD(parameters, rate, momentum=options.momentum, weight_decay=decay)
    kind = optim.Adam if options.name == 'adam' else optim.AdamW
    return kind(parameters, rate, weight_decay=decay)
