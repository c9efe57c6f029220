"""Caffe models: VGG_ILSVRC_16_layers, fcn{32s,16s,8s}-heavy-pascal, fcn8s-atonce, SegNet."""

from __future__ import annotations

import numpy as np

from jaxseg.pretrained.names import layouts
from jaxseg.pretrained.names.sources import (
  CAFFE,
  FCN,
  FULLY_CONNECTED,
  SEGNET,
  Naming,
  Tensors,
  has,
)
from jaxseg.types import UserError

_RENAMED = {'dense_softmax_inner_prod': 'conv_classifier'}  # Bayesian SegNet-Basic's
_AT_ONCE_SCALES = {'scale_pool4/0': 1e-2, 'scale_pool3/0': 1e-4}


def _translate(tensors: Tensors) -> dict[str, np.ndarray]:
  """'<layer>/0' is the weight, '<layer>/1' the bias; blobs in old files always have four axes."""
  out = {}
  for name, blob in tensors.items():
    layer, number = name.rsplit('/', 1)
    if number not in ('0', '1'):
      raise UserError(
        f'{name} is the blob number {number} of its layer: jaxseg knows weight (0) and bias (1), of batch '
        'norm scale and shift; compute the statistics into these two (compute_bn_statistics.py)'
      )
    layer = _RENAMED.get(layer, layer)
    if name in _AT_ONCE_SCALES:  # constants of the network, not parameters
      if not np.allclose(blob, _AT_ONCE_SCALES[name], rtol=1e-3):
        raise UserError(f'{name} is {blob.ravel()}, but FCN-8s at once has {_AT_ONCE_SCALES[name]}')
      continue
    if layer.endswith('_bn'):  # SegNet after its pass over the training set: statistics folded in
      values = blob.ravel()
      out[f'params/{layer}/{"scale" if number == "0" else "bias"}'] = values
      out[f'batch_stats/{layer}/mean'] = np.zeros_like(values)
      out[f'batch_stats/{layer}/var'] = np.ones_like(values)
    elif number != '0':
      out[f'params/{layer}/bias'] = blob.ravel()
    elif layer.startswith('upscore'):
      out[f'params/{layer}/kernel'] = layouts.conv_transpose(blob)
    elif layer in FULLY_CONNECTED and (blob.ndim == 2 or blob.shape[:2] == (1, 1)):
      weight = blob.reshape(blob.shape[-2:])
      out[f'params/{layer}/kernel'] = layouts.dense_as_conv(weight, FULLY_CONNECTED[layer])
    else:
      out[f'params/{layer}/kernel'] = layouts.conv(blob)
  return out


SOURCES = (
  Naming('Caffe SegNet', has('conv1_1/0', 'conv1_1_bn/0', 'conv1_1_D/0'), _translate, SEGNET),
  Naming(
    'Caffe SegNet-Basic', has('conv1/0', 'conv1_bn/0', 'conv_classifier/0'), _translate, SEGNET
  ),
  Naming(
    'Caffe Bayesian SegNet-Basic',
    has('conv1/0', 'conv1_bn/0', 'dense_softmax_inner_prod/0'),
    _translate,
    SEGNET,
  ),
  Naming(
    'Caffe FCN-8s at once',
    has('conv1_1/0', 'score_fr/0', 'scale_pool3/0'),
    _translate,
    FCN,
    needs={'at_once': True},
  ),
  Naming('Caffe FCN-32s, 16s or 8s', has('conv1_1/0', 'score_fr/0'), _translate, FCN),
  Naming(
    'Caffe VGG_ILSVRC_16_layers',
    has('conv1_1/0', 'conv5_3/0'),
    _translate,
    CAFFE,
    classifier=('fc6', 'fc7', 'fc8'),
  ),
)
