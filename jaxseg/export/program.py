"""A trained network as one pure function of weights and an image of any size, for export.

The geometry is that of `data.frame.Frame`, reimplemented in JAX because it has to be part of the
program. A height or width may be a dimension variable of `jax.export`; every length below is then an
expression in it, in a form that export can divide by the network's strides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
from flax import traverse_util
from jax import lax

from jaxseg.data.frame import Frame
from jaxseg.metrics.temperature import tempered
from jaxseg.nn.layers import resize_bilinear
from jaxseg.train.build import Experiment
from jaxseg.train.step import make_predict_step, predict_batch
from jaxseg.types import Array, UserError

Length = Any  # an int, or a dimension expression of jax.export
Size = tuple[Length, Length]


def make_program(
  experiment: Experiment, temperature: float = 1.0
) -> Callable[[dict[str, Array], Array], dict[str, Array]]:
  """Makes program(weights, image), pure, of 'params/conv1/kernel' -> array and the run's images [b,h,w,c].

  It returns the task's predictions, uint8 and float32. For a task with maps: 'classes' [b,h,w], the most
  probable class, and 'probabilities' [b,h,w,k], which sum to 1, averaged over the scales and then
  calibrated by `temperature`. For objects: 'boxes' [b,d,4] in pixels of the image (they may extend beyond
  it, as masks are pasted before boxes are clipped), 'scores' [b,d] in descending order, 0 if unused,
  'classes' [b,d] and 'masks' [b,d,28,28]. If the run resizes images to a size or a shorter side, the
  caller has to do that.
  """
  model, task = experiment.model(), experiment.task
  scales = experiment.eval.scales if task.maps else experiment.eval.scales[:1]
  frames = [experiment.frame(model, scale=scale, multiple=1) for scale in scales]

  def predict(variables: dict[str, Any], image: Array, frame: Frame) -> dict[str, Array]:
    pixels, output, canvas = network_input(frame, image)
    step = make_predict_step(model, task, experiment.preprocess, size=canvas, maps=task.maps)
    size = image.shape[1:3]
    sides = zip(size, output, canvas, strict=True)
    height, width = (jnp.float32(n) * jnp.float32(o) / jnp.float32(c) for n, o, c in sides)
    extent = jnp.stack([jnp.zeros_like(width), jnp.zeros_like(width), width, height])
    extent = jnp.broadcast_to(extent[None], (image.shape[0], 4))
    return in_image(step(variables, predict_batch(task, pixels, extent)), size, canvas, output)

  def program(weights: dict[str, Array], image: Array) -> dict[str, Array]:
    variables = traverse_util.unflatten_dict(weights, sep='/')
    views = [predict(variables, image, frame) for frame in frames]
    if not task.maps:
      return views[0]
    probabilities = sum(view['probabilities'] for view in views) / len(views)
    classes = views[0]['classes']  # with a single view from the logits, as probabilities may tie
    if len(views) > 1:
      classes = jnp.argmax(probabilities, axis=-1).astype(jnp.uint8)
    return {'classes': classes, 'probabilities': tempered(probabilities, temperature)}

  return program


def in_image(rows: Mapping[str, Array], size: Size, canvas: Size, output: Size) -> dict[str, Array]:
  """Returns a task's rows [b, ...] for images of `size`: maps cropped to it, boxes in its pixels."""
  y, x = (jnp.float32(a) / jnp.float32(b) for a, b in zip(canvas, output, strict=True))
  outputs = {}
  for name, row in rows.items():
    if row.shape[1:3] == tuple(canvas):
      row = row[:, : size[0], : size[1]]
    if name == 'boxes':
      row = row * jnp.stack([x, y, x, y])[None, None]
    if name in ('mask', 'classes'):
      name, row = 'classes', row.astype(jnp.uint8)
    outputs[name] = row
  return outputs


def network_input(frame: Frame, image: Array) -> tuple[Array, Size, Size]:
  """Returns the network's input for an image [b,h,w,c], and the sizes of its output and canvas."""
  output, canvas, scaled = lengths(frame, image.shape[1:3])
  if frame.scale != 1:
    image = resize_image(pad(frame, image, canvas), output)[:, : scaled[0], : scaled[1]]
  return pad(frame, image, output, frame.rule.margin), output, canvas


def lengths(frame: Frame, size: Size) -> tuple[Size, Size, Size]:
  """Returns the sizes of the network's output, of its canvas, and of the scaled image.

  Raises:
    UserError: `size` has dimension variables and some length is not an integer expression in them.
  """
  if not all(isinstance(side, int) for side in size):
    return tuple(zip(*(_expressions(frame, side) for side in size), strict=True))
  output, canvas = frame.output(size), frame.canvas(size)
  sides = zip(size, output, canvas, strict=True)
  return output, canvas, tuple(min(out, -(-n * out // side)) for n, out, side in sides)


def _expressions(frame: Frame, n: Length) -> tuple[Length, Length, Length]:
  """The same three lengths for one dimension variable."""
  factor, rule = Fraction(frame.scale).limit_denominator(1000), frame.rule
  grow, shrink = factor.numerator, factor.denominator
  scaled = (n * grow + shrink - 1) // shrink
  # The smallest output of at least one pixel; it also satisfies `rule.minimum`.
  first = rule.at_least(1 + 2 * rule.margin) - 2 * rule.margin
  if first > rule.multiple:
    raise UserError(f'no expression for sizes of {rule.multiple} n + {rule.offset}')
  rest = first % rule.multiple
  output = rest + rule.multiple * ((scaled - rest + rule.multiple - 1) // rule.multiple)
  if grow > 1 and (rest or rule.multiple % grow):
    raise UserError(f'at scale {factor} the size of the result is no integer expression')
  return output, output // grow * shrink, scaled


def pad(frame: Frame, image: Array, size: Size, margin: int = 0) -> Array:
  """Pads [b,h,w,c] below and right to `size`, then by `margin` on all four sides."""
  mirrored = frame.rule.margin > 0 if frame.mirrored is None else frame.mirrored
  if not mirrored:
    below, right = (want - have for want, have in zip(size, image.shape[1:3], strict=True))
    sides = ((0, 0, 0), (margin, below + margin, 0), (margin, right + margin, 0), (0, 0, 0))
    zero, one = jnp.zeros((), image.dtype), jnp.ones((), image.dtype)
    outside = lax.pad(jnp.zeros((1, *image.shape[1:3], 1), image.dtype), one, sides)
    fill = jnp.asarray(frame.fill, image.dtype).reshape(1, 1, 1, -1)
    return lax.pad(image, zero, sides) + outside * fill  # exact: one of the two is zero
  for axis, length in zip((1, 2), size, strict=True):
    n = image.shape[axis]
    period = jnp.maximum(2 * (n - 1), 1)
    index = jnp.mod(jnp.arange(length + 2 * margin) - margin, period)
    image = jnp.take(image, jnp.minimum(index, period - index), axis=axis, mode='clip')
  return image


def resize_image(image: Array, size: Size) -> Array:
  """`data.geometry.resize_image` of [b,h,w,c]: bilinear, or area averaging below half size; integers are rounded.

  OpenCV's bilinear weights have 11 bits, so a value may differ by one grey level, except at half and
  double size.
  """
  whole = jnp.issubdtype(image.dtype, jnp.integer)
  # Via int32: IREE 3.13 treats uint8 as signed if a product follows immediately.
  values = (image.astype(jnp.int32) if whole else image).astype(jnp.float32)
  if all(_shrinks(n, m) for n, m in zip(image.shape[1:3], size, strict=True)):
    for axis, length in zip((1, 2), size, strict=True):
      shares = _overlaps(image.shape[axis], length)
      values = jnp.moveaxis(jnp.tensordot(values, shares, ((axis,), (1,))), -1, axis)
    values = jnp.round(values) if whole else values
  else:
    values = resize_bilinear(values, size)
    if whole:  # OpenCV uses fixed point for uint8, which rounds halves up
      values = jnp.floor(values + 0.5) if image.dtype == jnp.uint8 else jnp.round(values)
  if not whole:
    return values
  limits = jnp.iinfo(image.dtype)
  return jnp.clip(values, limits.min, limits.max).astype(jnp.int32).astype(image.dtype)


def _shrinks(n: Length, length: Length) -> bool:
  if isinstance(n, int):
    return n > 2 * length
  ratio = n // length  # symbolic: an int if one is a multiple of the other
  return isinstance(ratio, int) and ratio > 2


def _overlaps(n: Length, length: Length) -> Array:
  """Weight [length,n] of each of n pixels in each of `length` wider ones."""
  ratio = jnp.float32(n) / jnp.float32(length)
  begin = (jnp.arange(length, dtype=jnp.float32) * ratio)[:, None]
  pixel = jnp.arange(n, dtype=jnp.float32)[None]
  overlap = jnp.minimum(begin + ratio, pixel + 1) - jnp.maximum(begin, pixel)
  return jnp.maximum(overlap, 0) / ratio
