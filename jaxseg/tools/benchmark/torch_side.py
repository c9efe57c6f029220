"""PyTorch's side: the same network, shape, loss and optimiser, as a PyTorch user would run it.

CPU: eager, channels_last, all cores. GPU: channels_last, bfloat16 autocast, torch.compile.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from types import ModuleType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxseg.types import VOID, Batch, UserError

_COVERED = {
  'unet': {'width', 'depth', 'padding', 'batch_norm', 'dropout_rate'},
  'segnet': {'width', 'variant'},
  'fcn': {'width', 'stride', 'at_once', 'dropout_rate', 'backbone'},
  'pspnet': {'width', 'backbone', 'stage_sizes', 'deep_stem', 'aux', 'dropout_rate'},
}


def check_installed() -> None:
  """Raises UserError where PyTorch is not installed; does not load it."""
  if importlib.util.find_spec('torch') is None:
    raise UserError('--compare=torch needs PyTorch: pip install torch')


def import_torch() -> ModuleType:
  """Raises UserError where PyTorch is not installed."""
  check_installed()
  import torch

  return torch


class Network:
  """The PyTorch network that a config's model corresponds to, on the GPU where there is one.

  Raises:
    UserError: no PyTorch, or the config asks for what is not written in PyTorch here.
  """

  compiled = True  # on a GPU

  def __init__(self, config: ConfigDict, batch: Batch):
    self._torch = torch = import_torch()
    self._config = config
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(config.seed)
    self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    net = self._build(config).to(self.device, memory_format=torch.channels_last)
    self.parameters = sum(p.numel() for p in net.parameters())
    self._optimizer = self._make_optimizer(net.parameters())
    self._net = torch.compile(net) if self.compiled and self.device.type == 'cuda' else net
    self._image = torch.from_numpy(np.array(batch['image'])).to(self.device)
    self._label = torch.from_numpy(np.array(batch['label'])).to(self.device).long()
    self._mean, self._std = (
      torch.tensor(tuple(values), device=self.device) for values in (config.mean, config.std)
    )
    weights = config.class_weights
    self._weights = (
      torch.tensor(tuple(weights), device=self.device)
      if weights and not isinstance(weights, str)
      else None
    )

  def train(self) -> None:
    """One step: images to the network's range, forward, backward, update; returns when done."""
    self._net.train()
    self._optimizer.zero_grad(set_to_none=True)
    self._step_loss().backward()
    if self._config.clip_norm:
      self._torch.nn.utils.clip_grad_norm_(self._net.parameters(), self._config.clip_norm)
    self._optimizer.step()
    self._wait()

  def infer(self) -> None:
    """Logits of the batch, with population statistics; returns when done."""
    self._net.eval()
    with self._torch.inference_mode(), self._precision():
      self._net(self._images())
    self._wait()

  def peak_bytes(self) -> int:
    """The GPU allocator's peak."""
    return self._torch.cuda.max_memory_allocated()

  def _build(self, config: ConfigDict) -> Any:
    return build(config)

  def _step_loss(self) -> Any:
    with self._precision():
      outputs = self._net(self._images())
    heads = outputs if isinstance(outputs, list) else [outputs]
    loss = self._loss(heads[0])
    for auxiliary in heads[1:]:
      loss = loss + self._config.aux_weight * self._loss(auxiliary)
    return loss

  def _loss(self, logits: Any) -> Any:
    label = self._label
    top, left = ((a - b) // 2 for a, b in zip(label.shape[1:], logits.shape[2:], strict=True))
    label = label[:, top : top + logits.shape[2], left : left + logits.shape[3]]
    return self._torch.nn.functional.cross_entropy(
      logits.float(), label, weight=self._weights, ignore_index=VOID
    )

  def _images(self) -> Any:
    """[b,h,w,c] uint8 is channels_last already: only the names of the axes change."""
    image = (self._image.float() - self._mean) / self._std
    return image.permute(0, 3, 1, 2)

  def _precision(self) -> contextlib.AbstractContextManager:
    if self._config.dtype == 'float32':
      return contextlib.nullcontext()
    return self._torch.autocast(self.device.type, self._torch.bfloat16)

  def _wait(self) -> None:
    if self.device.type == 'cuda':
      self._torch.cuda.synchronize()

  def _make_optimizer(self, parameters: Any) -> Any:
    config, optim = self._config, self._torch.optim
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer in ('sgd', 'caffe_sgd'):
      return optim.SGD(parameters, rate, momentum=config.momentum, weight_decay=decay)
    kind = optim.Adam if config.optimizer == 'adam' else optim.AdamW
    return kind(parameters, rate, weight_decay=decay)


def of(config: ConfigDict) -> type[Network]:
  """Returns the class for a config's task. Raises UserError where PyTorch is not installed."""
  import_torch()
  if config.task != 'instance':
    return Network
  from jaxseg.tools.benchmark import torch_mask_rcnn

  return torch_mask_rcnn.Network


def build(config: ConfigDict) -> Any:
  """Builds the module. Raises UserError for a model or an option that is not written here."""
  import_torch()
  from jaxseg.tools.benchmark import torch_models

  options = config.model_options.to_dict()
  unknown = sorted(set(options) - _COVERED.get(config.model, set()) - {'remat', 'bayesian'})
  if config.model not in _COVERED or unknown or options.get('bayesian'):
    raise UserError(
      f'--compare=torch has no {config.model}({", ".join(unknown)}) in PyTorch: it has '
      + '; '.join(f'{k}({", ".join(sorted(v))})' for k, v in _COVERED.items())
    )
  classes = 1 if config.loss == 'sigmoid' else config.num_classes
  width = options.get('width', 64)
  if config.loss != 'softmax':
    raise UserError(f"--compare=torch has loss='softmax' only, not {config.loss!r}")
  if config.model == 'unet':
    return torch_models.UNet(
      classes,
      config.channels,
      width,
      depth=options.get('depth', 4),
      padding=1 if options.get('padding') == 'same' else 0,
      batch_norm=options.get('batch_norm', False),
      dropout=options.get('dropout_rate', 0.5),
    )
  if config.model == 'segnet':
    basic = options.get('variant', 'vgg16') == 'basic'
    return (torch_models.SegNetBasic if basic else torch_models.SegNet)(classes, width)
  if config.model == 'pspnet':
    return _pspnet(classes, width, options)
  scales = (1e-2, 1e-4) if options.get('at_once') else (1.0, 1.0)
  rate = options.get('dropout_rate', 0.5)
  return torch_models.FCN(classes, width, options.get('stride', 8), scales, dropout=rate)


def _pspnet(classes: int, width: int, options: dict[str, Any]) -> Any:
  from jaxseg.nn.backbones import STAGE_SIZES
  from jaxseg.tools.benchmark import torch_pspnet

  stages = options.get('stage_sizes') or STAGE_SIZES[options.get('backbone', 'resnet50')]
  return torch_pspnet.PSPNet(
    classes,
    tuple(stages),
    width,
    options.get('deep_stem', True),
    aux=options.get('aux', True),
    dropout=options.get('dropout_rate', 0.1),
  )
