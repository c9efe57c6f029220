"""Building blocks of backbones: convolution with batch norm, and rematerialised blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxseg.nn.layers import Conv
from jaxseg.types import Array


def conv_norm(
  net: nn.Module,
  x: Array,
  features: int,
  side: int,
  names: tuple[str, str],
  train: bool,
  *,
  stride: int = 1,
  dilation: int = 1,
  epsilon: float = 1e-5,
  norm: Callable[..., nn.Module] | None = None,
  **options: Any,
) -> Array:
  """A convolution without bias and its batch norm; call it in a compact method of `net`.

  Args:
    net: has `norm` and `dtype`.
    x: [b,h,w,c].
    features: channels of the result.
    side: of the kernel; symmetric padding, so that stride 1 keeps the size.
    names: of convolution and batch norm.
    train: normalise by the batch's statistics.
    norm: instead of the net's.
    options: further fields of Conv.

  Returns:
    [b,h/stride,w/stride,features]
  """
  options = dict(padding=dilation * (side - 1) // 2) | options
  x = Conv(
    features,
    (side, side),
    strides=stride,
    kernel_dilation=dilation,
    use_bias=False,
    dtype=net.dtype,
    name=names[0],
    **options,
  )(x)
  layer = (norm or net.norm)(epsilon=epsilon, dtype=net.dtype, name=names[1])
  return layer(x, use_running_average=not train)


def run_block(net: nn.Module, block: Callable[[nn.Module, Array], Any], x: Array) -> Any:
  """Returns block(net, x), recomputed in the backward pass if `net.remat`."""
  return nn.remat(block)(net, x) if net.remat else block(net, x)
