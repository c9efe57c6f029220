"""A trained network as one pure function of weights and a uint8 image of any size, for export.

The geometry is that of `pipeline.loader.eval_batches`, written once more in JAX because it has to be
inside the program: the image is padded below and to the right up to a size that the network takes
(mirrored where the network eats a margin, with the mean colour elsewhere), normalised, run at every
evaluation scale, and the probabilities are cut back to the image's own size. A height or width may
be a dimension variable of `jax.export`; every length below is then an expression in it, written so
that export can divide it by the network's strides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
from flax import traverse_util

from jaxseg.nn.layers import resize_bilinear
from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.types import Array, SizeRule, UserError

Length = Any  # an int, or a dimension expression of jax.export


def make_program(
  model, task, preprocess: Preprocessing, scales: Sequence[float]
) -> Callable[[dict[str, Array], Array], dict[str, Array]]:
  """Makes program(weights, image) -> {'classes', 'probabilities'}.

  Args:
    model: of experiment.model_from.
    task: turns logits into probabilities.
    preprocess: normalises, and knows the colour of padding.
    scales: of config.eval_scales; the probabilities of several are averaged.

  Returns:
    A pure function of weights, 'params/conv1/kernel' -> array and so on, and image uint8 [b,h,w,c].
    'classes' uint8 [b,h,w] is the likeliest class, 'probabilities' float32 [b,h,w,k] sum to 1.
  """
  factors = [Fraction(scale).limit_denominator(1000) for scale in scales]

  def program(weights: dict[str, Array], image: Array) -> dict[str, Array]:
    variables = traverse_util.unflatten_dict(weights, sep='/')
    outputs = [_outputs(model, preprocess, factor, variables, image) for factor in factors]
    probabilities = sum(task.probabilities(o) for o in outputs) / len(outputs)
    if len(outputs) == 1:  # as evaluation has them: float32 probabilities may tie
      classes = task.predictions(outputs[0])
    else:
      classes = jnp.argmax(probabilities, axis=-1)
    return {'classes': classes.astype(jnp.uint8), 'probabilities': probabilities}

  return program


def make_instance_program(
  model, preprocess: Preprocessing, scale: float
) -> Callable[[dict[str, Array], Array], dict[str, Array]]:
  """Makes program(weights, image) -> the detections of each image.

  Args:
    model: of experiment.model_from.
    preprocess: as in make_program.
    scale: of config.eval_scales.

  Returns:
    A pure function as that of make_program. 'boxes' float32 [b,d,4], x0, y0, x1, y1 in pixels of the
    image (they may reach beyond it: masks are pasted first, boxes clipped then); 'scores' float32 [b,d], falling, 0 unused; 'classes' uint8 [b,d]; 'masks'
    float32 [b,d,28,28], probabilities inside of the box.
  """
  factor = Fraction(scale).limit_denominator(1000)

  def program(weights: dict[str, Array], image: Array) -> dict[str, Array]:
    variables = traverse_util.unflatten_dict(weights, sep='/')
    image, canvas = _seen(model.size_rule, preprocess, factor, image)
    found = model.apply(variables, preprocess(image), train=False)
    longer = [
      jnp.float32(a) / jnp.float32(b) for a, b in zip(canvas, image.shape[1:3], strict=True)
    ]
    sides = jnp.stack([longer[axis] for axis in (1, 0, 1, 0)])[None, None]
    return {
      **found,
      'boxes': found['boxes'] * sides,
      'classes': found['classes'].astype(jnp.uint8),
    }

  return program


def _seen(
  rule: SizeRule, preprocess: Preprocessing, factor: Fraction, image: Array
) -> tuple[Array, tuple[Length, Length]]:
  """Returns what the network sees of an image [b,h,w,c], and the size of the canvas it stands for."""
  lengths = [_lengths(n, factor, rule) for n in image.shape[1:3]]
  output, canvas, scaled = zip(*lengths, strict=True)
  border = Border(rule.margin > 0, preprocess.fill)
  if factor != 1:
    image = resize_image(border.pad(image, canvas), output)[:, : scaled[0], : scaled[1]]
  return border.pad(image, output, rule.margin), canvas


def _outputs(model, preprocess, factor: Fraction, variables, image: Array) -> dict[str, Array]:
  """Runs the network at one scale; {'logits': [b,h,w,k]} for an image [b,h,w,c]."""
  height, width = image.shape[1:3]
  image, canvas = _seen(model.size_rule, preprocess, factor, image)
  logits = model.apply(variables, preprocess(image), train=False)['logits']
  if factor != 1:
    logits = resize_bilinear(logits, canvas)
  return {'logits': logits[:, :height, :width]}


def _lengths(n: Length, factor: Fraction, rule: SizeRule) -> tuple[Length, Length, Length]:
  """Lengths of the network's output, of the canvas that it stands for, and of the scaled image.

  Raises:
    UserError: n is a dimension variable and the lengths are no whole expression in it.
  """
  shrink, grow = factor.denominator, factor.numerator
  scaled = -(-n * grow // shrink) if isinstance(n, int) else (n * grow + shrink - 1) // shrink
  # The smallest output that is a pixel or more; with it `rule.minimum` is kept as well.
  first = rule.at_least(1 + 2 * rule.margin) - 2 * rule.margin
  if isinstance(n, int):
    output = rule.at_least(scaled + 2 * rule.margin) - 2 * rule.margin
    return output, round(Fraction(output) / factor), min(scaled, output)
  if first > rule.multiple:
    raise UserError(f'no expression for sizes of {rule.multiple} n + {rule.offset}')
  rest = first % rule.multiple
  output = rest + rule.multiple * ((scaled - rest + rule.multiple - 1) // rule.multiple)
  if grow > 1 and (rest or rule.multiple % grow):
    raise UserError(f'at scale {factor} the size of the result is no whole expression')
  return output, output // grow * shrink, scaled


class Border:
  """Pads images [b,h,w,c], mirrored outwards or with one colour."""

  def __init__(self, mirrored: bool, fill: Sequence[int]):
    self._mirrored, self._fill = mirrored, fill

  def pad(self, image: Array, size: tuple[Length, Length], margin: int = 0) -> Array:
    """Pads below and right to `size`, then by `margin` on all four sides."""
    for axis, length in zip((1, 2), size, strict=True):
      image = self._line(image, axis, length, margin)
    return image

  def _line(self, image: Array, axis: int, length: Length, margin: int) -> Array:
    n = image.shape[axis]
    if self._mirrored:
      place = jnp.arange(length + 2 * margin) - margin
      period = jnp.maximum(2 * (n - 1), 1)
      place = jnp.mod(place, period)
      return jnp.take(image, jnp.minimum(place, period - place), axis=axis)
    parts = [image]
    for where, count in ((0, margin), (2, length - n + margin)):
      if isinstance(count, int) and count == 0:
        continue
      shape = [*image.shape]
      shape[axis] = count
      colour = jnp.asarray(self._fill, image.dtype).reshape(1, 1, 1, -1)
      parts.insert(where, jnp.broadcast_to(colour, shape))
    return jnp.concatenate(parts, axis=axis)


def resize_image(image: Array, size: tuple[Length, Length]) -> Array:
  """`pipeline.geometry.resize_image` of uint8 [b,h,w,c]: bilinear, areas below half; rounded.

  OpenCV's bilinear weights have 11 bits: a value may come out one grey level different, except at
  half and double size.
  """
  wide = image.astype(jnp.float32)
  if all(_shrinks(n, m) for n, m in zip(image.shape[1:3], size, strict=True)):
    for axis, length in zip((1, 2), size, strict=True):
      weight = _overlaps(image.shape[axis], length)
      wide = jnp.moveaxis(jnp.tensordot(wide, weight, ((axis,), (1,))), -1, axis)
    wide = jnp.round(wide)
  else:
    wide = jnp.floor(resize_bilinear(wide, size) + 0.5)
  return jnp.clip(wide, 0, 255).astype(jnp.uint8)


def _shrinks(n: Length, length: Length) -> bool:
  if isinstance(n, int):
    return n > 2 * length
  return n // length > 2  # symbolic: a whole multiple, which divides to an int


def _overlaps(n: Length, length: Length) -> Array:
  """Share [length,n] of each of n pixels in each of `length` wider ones."""
  ratio = jnp.float32(n) / jnp.float32(length)
  begin = (jnp.arange(length, dtype=jnp.float32) * ratio)[:, None]
  pixel = jnp.arange(n, dtype=jnp.float32)[None]
  overlap = jnp.minimum(begin + ratio, pixel + 1) - jnp.maximum(begin, pixel)
  return jnp.maximum(overlap, 0) / ratio
