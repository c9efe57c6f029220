"""PSPNet's PyTorch release, hszhao/semseg: pspnet50 and pspnet101.

Its ImageNet weights with the deep stem have torchvision's names.
"""

from __future__ import annotations

import numpy as np

from jaxseg.pretrained.names import layouts
from jaxseg.pretrained.names.sources import TORCHVISION, Source, Tensors, has

# Its stem is one sequence, in which ReLU and pooling have numbers too.
_STEM = {'0': 'conv1', '1': 'bn1', '3': 'conv2', '4': 'bn2', '6': 'conv3', '7': 'bn3'}


def _rename(module: str) -> str:
  part, _, rest = module.partition('.')
  if part == 'layer0':
    return f'backbone/{_STEM[rest]}'
  return ('backbone/' if part.startswith('layer') else '') + module.replace('.', '_')


def _translate(tensors: Tensors) -> dict[str, np.ndarray]:
  return layouts.from_torch(tensors, _rename)


SOURCES = (
  Source(
    'semseg pspnet50 or 101',
    has('layer0.0.weight', 'ppm.features.0.1.weight', 'cls.4.weight'),
    _translate,
    TORCHVISION,
    optional=('aux_.*',),
  ),
)
