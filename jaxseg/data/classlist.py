"""A user's classes: the list file, what a mask's ids or colours mean, and generated palettes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jaxseg.data import image_files
from jaxseg.data.problems import some
from jaxseg.types import VOID, UserError

_MAX_CLASSES = 255
_VOID_NAME = 'void'

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ClassList:
  """Names of the classes and how a mask says which is which.

  Attributes:
    names: one a class.
    ids: (mask id, class or VOID) pairs; 255 is void unless the masks are binary.
    colors: (colour, class or VOID) pairs of colour masks; empty where ids are the only way.
  """

  names: tuple[str, ...]
  ids: tuple[tuple[int, int], ...]
  colors: tuple[tuple[Color, int], ...] = ()

  @property
  def palette(self) -> tuple[Color, ...]:
    """The classes' own colours where they have them, else VOC's."""
    own = {c: color for color, c in self.colors if c != VOID}
    return tuple(own[i] for i in range(len(self.names))) if own else voc_palette(len(self.names))

  def as_binary(self) -> ClassList:
    """Returns the same two classes for masks whose 255 (or 1) is the second class."""
    if len(self.names) != 2:
      raise UserError(f'binary masks have two classes, but {len(self.names)} are listed')
    return dataclasses.replace(self, ids=((0, 0), (1, 1), (255, 1)))


def from_names(names: Sequence[str]) -> ClassList:
  """Returns the list in which mask id i is names[i]; the name 'void' makes an id void."""
  return _class_list([(name, None) for name in names], 'classes')


def read_file(path: Path) -> ClassList:
  """Reads a file of lines 'name' or 'name r g b'; the first line is mask id 0.

  A line named void makes its id (and its colour) void and is no class. Blank lines and lines that
  start with # are left out. Either every class has a colour, or none.
  """
  entries = []
  for number, line in enumerate(image_files.read_text(path).splitlines(), start=1):
    words = line.split()
    if not words or words[0].startswith('#'):
      continue
    color = None
    if len(words) > 3 and all(w.isdigit() for w in words[-3:]):
      color = tuple(int(w) for w in words[-3:])
      if max(color) > 255:
        raise UserError(f'{path}, line {number}: colour {color} is outside of 0..255')
      words = words[:-3]
    entries.append((' '.join(words), color))
  return _class_list(entries, str(path))


def _class_list(entries: list[tuple[str, Color | None]], where: str) -> ClassList:
  names = tuple(name for name, _ in entries if name.lower() != _VOID_NAME)
  if not 2 <= len(names) <= _MAX_CLASSES:
    raise UserError(
      f'{where}: got {len(names)} classes; 2 to {_MAX_CLASSES} are allowed (the background is one)'
    )
  if len(set(names)) != len(names):
    raise UserError(f'{where}: the class names must differ, got {", ".join(names)}')
  colored = [color is not None for name, color in entries if name.lower() != _VOID_NAME]
  if any(colored) and not all(colored):
    raise UserError(f"{where}: give every class a colour ('name r g b') or none")
  classes = [names.index(n) if n.lower() != _VOID_NAME else VOID for n, _ in entries]
  ids = {**dict(enumerate(classes)), 255: VOID}
  colors = {color: c for (_, color), c in zip(entries, classes, strict=True) if color is not None}
  if len(colors) != sum(color is not None for _, color in entries):
    raise UserError(f'{where}: two classes have one colour')
  return ClassList(names, tuple(ids.items()), tuple(colors.items()) if any(colored) else ())


def read_label(path: Path, classes: ClassList) -> np.ndarray:
  """Reads a mask as classes: uint8 [h, w] of 0..c-1 and VOID.

  Where the classes have colours, RGB and palette masks are read by colour (palette index 255 is
  void unless its colour is a class's); all other masks are read by id.
  """
  image = image_files.open_image(path)
  if classes.colors and image.mode in ('RGB', 'RGBA', 'P') and image.format != 'JPEG':
    return _label_of_colors(image, dict(classes.colors), path)
  return image_files.map_ids(image_files.mask_ids(image, path), dict(classes.ids), path)


def _label_of_colors(image: Image.Image, colors: dict[Color, int], path: Path) -> np.ndarray:
  rgb = np.asarray(image.convert('RGB')).astype(np.int32)
  codes = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
  table = {(r << 16) | (g << 8) | b: c for (r, g, b), c in colors.items()}
  if image.mode == 'P':
    unlisted = ~np.isin(codes, list(table))
    codes[unlisted & (np.asarray(image) == 255)] = -1
    table[-1] = VOID
  present, inverse = np.unique(codes, return_inverse=True)
  unknown = [(c >> 16, c >> 8 & 255, c & 255) for c in present.tolist() if c not in table]
  if unknown:
    raise UserError(
      f'{path}: colours {some(unknown, 4)} are not in the class list, which '
      f"has {', '.join(map(str, colors))}; correct the mask, or add 'void r g b' to the list"
    )
  return np.array([table[c] for c in present.tolist()], np.uint8)[inverse.reshape(codes.shape)]


def voc_palette(count: int) -> tuple[Color, ...]:
  """Returns PASCAL VOC's colours: each 3 bits of the index go to r, g and b, high bits first."""

  def channel(index: int, first: int) -> int:
    return sum((index >> (3 * bit + first) & 1) << (7 - bit) for bit in range(8))

  return tuple(tuple(channel(index, first) for first in range(3)) for index in range(count))
