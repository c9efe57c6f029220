"""Describes layers that are function calls.

A description takes the function's result, then its arguments. A name that ends with '#' is numbered by
kind; a kernel that is a function is measured after tracing.
"""

from __future__ import annotations

from jaxseg.nn import layers
from jaxseg.nn.backbones import fpn
from jaxseg.nn.layers.roi_align import roi_align
from jaxseg.tools.fidelity import probes
from jaxseg.tools.fidelity.papers import Layer


def _average(value, x, bins) -> Layer:
  return Layer(f'bins{bins}', f'average {bins}x{bins}')


def _pool(value, x, window=2, stride=2, padding='VALID', **options) -> Layer:
  if isinstance(padding, str):
    pads = probes.rounding(lambda x: layers.max_pool(x, window, stride, padding, **options))
  else:
    pads = probes.pair([probes.pair(pad) for pad in padding])
  return Layer('pool#', f'max {window}x{window}', str(stride), pads)


def _pool_argmax(value, x) -> Layer:
  return Layer('pool#', 'max 2x2', '2', probes.rounding(layers.max_pool_argmax))


def _upsample(value, x, factor, **options) -> Layer:
  side = value.shape[1] - (x.shape[1] - 1) * factor  # of a transposed convolution, unpadded
  fixed = dict(initial='bilinear', rate='0', decay='0')  # not a parameter
  return Layer('upsampling#', f'{side}x{side}', str(factor), '0', **fixed)


def _resize(value, x, size, *, align_corners=False, **options) -> Layer:
  return Layer('resize#', 'bilinear, corners aligned' if align_corners else 'bilinear')


def _response_norm(value, x, size=5, alpha=1e-4, beta=0.75, k=1.0) -> Layer:
  return Layer('norm', f'lrn {size}, {alpha:g}, {beta:g}, {k:g}')


def _contrast_norm(value, x, size=9) -> Layer:
  return Layer('norm', f'lcn {size}x{size}')


def _double(value, x) -> Layer:
  return Layer('doubling#', lambda: probes.double(fpn.double), str(value.shape[1] // x.shape[1]))


def _align(value, maps, strides, boxes, levels, size, **options) -> Layer:
  return Layer(f'align{size}', lambda: probes.align(roi_align, size, options))


DESCRIPTIONS = {
  layers.adaptive_average_pool: _average,
  layers.max_pool: _pool,
  layers.max_pool_argmax: _pool_argmax,
  layers.upsample_bilinear: _upsample,
  layers.resize_bilinear: _resize,
  layers.local_contrast_norm: _contrast_norm,
  layers.local_response_norm: _response_norm,
  fpn.double: _double,
  roi_align: _align,
}
