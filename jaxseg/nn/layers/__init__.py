"""Layers shared by the networks; each equals its lax or flax namesake, but is faster on a CPU."""

from jaxseg.nn.layers.bilinear import bilinear_kernel, resize_bilinear, upsample_bilinear
from jaxseg.nn.layers.convolution import Conv, conv_general_dilated
from jaxseg.nn.layers.layout import laid_out_by_class
from jaxseg.nn.layers.norm import BatchNorm, local_contrast_norm, local_response_norm
from jaxseg.nn.layers.pairs import concatenate, single_columns
from jaxseg.nn.layers.pooling import adaptive_average_pool, max_pool, max_pool_argmax, max_unpool
from jaxseg.nn.layers.transposed import ConvTranspose, conv_transpose

__all__ = [
  'BatchNorm',
  'Conv',
  'ConvTranspose',
  'adaptive_average_pool',
  'bilinear_kernel',
  'concatenate',
  'laid_out_by_class',
  'conv_general_dilated',
  'conv_transpose',
  'local_contrast_norm',
  'local_response_norm',
  'max_pool',
  'max_pool_argmax',
  'max_unpool',
  'resize_bilinear',
  'single_columns',
  'upsample_bilinear',
]
