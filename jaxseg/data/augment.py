"""Builds and applies the transforms of the config's group `augment`.

A name is a class of transforms.py or copy_paste.py in snake_case, or the dotted path of your own class.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.config import parts
from jaxseg.data import copy_paste, transforms
from jaxseg.data.geometry import Example, Fill
from jaxseg.types import UserError

DERIVED = {'fill', 'black', 'white'}  # fields whose defaults depend on the data


def make_transforms(
  steps: Iterable[tuple[str, Mapping[str, Any]]],
  fill: Fill = (0,),
  span: tuple[Fill, Fill] = ((0.0,), (255.0,)),
  dtype: str = 'uint8',
) -> tuple:
  """Builds the transforms that a config names, in its order.

  Args:
    steps: (name, arguments) of each.
    fill: colour outside the image, one value or one per channel; default of fields of this name.
    span: black and white, likewise; defaults of fields of these names.
    dtype: of the images; given colours must be in its range.

  Raises:
    UserError: no such transform or argument, or a value of the wrong type or out of range.
  """
  made = []
  for name, options in steps:
    transform, where = _find(name), f'config.augment.{name}'
    values = parts.arguments(transform, options, where)
    _check_colours(values, dtype, where)
    derived = {'fill': fill, 'black': span[0], 'white': span[1]}
    taken = parts.parameters(transform)
    made.append(transform(**{k: v for k, v in derived.items() if k in taken} | values))
  _check_quarter_turns(made)
  return tuple(made)


def augmented(
  example: Example,
  steps: Sequence,
  rng: np.random.Generator,
  another: Callable[[], Example] | None = None,
) -> Example:
  """Applies all transforms in order.

  Args:
    example: raw; not modified.
    steps: the transforms. One with `takes_another` gets, as a third argument, a function that returns a
      second example, to which the preceding steps were applied.
    rng: the only source of randomness.
    another: returns another raw example; None: the same one.
  """
  raw = another or (lambda example=example: example)
  for i, step in enumerate(steps):
    second = ()
    if getattr(step, 'takes_another', False):
      second = (lambda i=i: augmented(raw(), steps[:i], rng, raw),)
    example = step(example, rng, *second)
  return example


def known() -> dict[str, type]:
  """Returns the built-in transforms by their names in a config."""
  here = [*vars(transforms).values(), *vars(copy_paste).values()]
  kinds = {c for c in here if dataclasses.is_dataclass(c) and isinstance(c, type)}
  return {transforms.name_of(c): c for c in kinds - {transforms.Transform}}


def _check_colours(values: Mapping[str, Any], dtype: str, where: str) -> None:
  """Raises UserError for a colour outside the dtype's range."""
  if dtype == 'float32':
    return
  least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
  for name in DERIVED & values.keys():
    if not all(least <= n <= most for n in values[name] or ()):
      raise UserError(
        f'{where}.{name}={values[name]}: each value between {least} and {most}, as images are {dtype}'
      )


def _find(name: str) -> type:
  """Returns a class by its name in a config. Raises UserError if there is none."""
  if '.' in name:
    return parts.own_class(name, 'transform')
  if name not in (kinds := known()):
    hint = parts.did_you_mean(name, kinds)
    raise UserError(
      f'config.augment.{name}: no such transform; there are {", ".join(sorted(kinds))}{hint}'
    )
  return kinds[name]


def _check_quarter_turns(made: list[Any]) -> None:
  """Rejects quarter turns of images that are not square: they would not batch, unless cropped again."""
  turned, size = False, None
  for transform in made:
    own = getattr(transform, 'size', None)
    turned, size = isinstance(transform, transforms.Rotate90) or (turned and not own), own or size
  if turned and (size is None or size[0] != size[1]):
    raise UserError(
      f'config.augment.rotate90 needs images of one square size, got {size}: set '
      'config.augment.crop.size=(n, n) before it'
    )
