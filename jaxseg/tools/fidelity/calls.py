"""Stand-ins for the functions that models call: each does the same, and records a layer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxseg.nn import layers
from jaxseg.nn.backbones import fpn
from jaxseg.nn.layers.roi_align import roi_align
from jaxseg.tools.fidelity import probes
from jaxseg.tools.fidelity.layer import Layer


class Calls:
  """Methods take the function, then its own arguments.

  Args:
    recorder: gets a layer and its output, see trace.Recorder.
  """

  def __init__(self, recorder: Any):
    self._recorder = recorder
    self._indices: list[tuple[Any, str]] = []  # of poolings, with their names

  def stand_ins(self) -> dict[Callable, Callable]:
    """Returns {function: its recording stand-in}."""
    methods = {
      layers.adaptive_average_pool: self.average,
      layers.max_pool: self.pool,
      layers.max_pool_argmax: self.pool_argmax,
      layers.max_unpool: self.unpool,
      layers.upsample_bilinear: self.upsample,
      layers.resize_bilinear: self.resize,
      layers.local_response_norm: self.response_norm,
      fpn.double: self.double,
      roi_align: self.align,
      nn.relu: self.relu,
    }
    return {function: functools.partial(method, function) for function, method in methods.items()}

  def _numbered(self, kind: str) -> str:
    return f'{kind}{1 + sum(layer.name.startswith(kind) for layer in self._recorder.layers)}'

  def _add(self, value: Any, *fields: str, probe: Callable[[], str] | None = None) -> Any:
    self._recorder.add(Layer(*fields), value, probe)
    return value

  def pool(self, function, x, window=2, stride=2, padding='VALID', **options):
    if isinstance(padding, str):
      pads = probes.rounding(lambda x: function(x, window, stride, padding, **options))
    else:
      pads = probes.pair([probes.pair(pad) for pad in padding])
    value = function(x, window, stride, padding, **options)
    return self._add(value, self._numbered('pool'), f'max {window}x{window}', str(stride), pads)

  def pool_argmax(self, function, x):
    (value, index), name = function(x), self._numbered('pool')
    self._add(value, name, 'max 2x2', '2', probes.rounding(function))
    self._indices.append((index, name))
    return value, index

  def unpool(self, function, x, index, size):
    pool = next((name for known, name in self._indices if known is index), 'unknown')
    return self._add(function(x, index, size), f'un{pool}', f'places of {pool}', '2')

  def average(self, function, x, bins):
    return self._add(function(x, bins), f'bins{bins}', f'average {bins}x{bins}')

  def upsample(self, function, x, factor, **options):
    value = function(x, factor, **options)
    side = value.shape[1] - (x.shape[1] - 1) * factor  # of a transposed convolution, unpadded
    name = f'upsampling{len(self._recorder.layers)}'
    layer = Layer(name, f'{side}x{side}', str(factor), '0', initial='bilinear', rate='0', decay='0')
    self._recorder.add(layer, value)
    return value

  def resize(self, function, x, size, **options):
    value = function(x, size, **options)
    aligned = ', corners aligned' if options.get('align_corners') else ''
    return self._add(value, f'resize{len(self._recorder.layers)}', 'bilinear' + aligned)

  def double(self, function, x):
    value, name = function(x), self._numbered('doubling')
    factor = str(value.shape[1] // x.shape[1])
    return self._add(value, name, '', factor, probe=lambda: probes.double(function))

  def align(self, function, maps, strides, boxes, levels, size, **options):
    value = function(maps, strides, boxes, levels, size, **options)
    return self._add(value, f'align{size}', probe=lambda: probes.align(function, size, options))

  def response_norm(self, function, x, size=5, alpha=1e-4, beta=0.75, k=1.0):
    value = function(x, size, alpha, beta, k)
    return self._add(value, 'norm', f'lrn {size}, {alpha:g}, {beta:g}, {k:g}')

  def relu(self, function, x):
    value = function(x)
    self._recorder.follow(x, value, 'relu')
    return value
