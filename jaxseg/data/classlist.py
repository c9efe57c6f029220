"""A user's classes: the list file, the meaning of a mask's ids or colours, and generated palettes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from jaxseg.data import class_files, mask_files, pages
from jaxseg.data.class_files import Color, Entry
from jaxseg.data.problems import abbreviate
from jaxseg.types import VOID, UserError, as_seen

_MAX_CLASSES = 255
VOC_VOID = (224, 224, 192)  # as PASCAL VOC's palette shows 255
_UNNUMBERED = '__ignore__'  # labelme gives it 255, on whatever line it is
_VOID_NAMES = ('void', _UNNUMBERED)


_BY_COLOR = {  # kinds of masks, by ClassList.by
  'ids': (),
  'colors': ('colour', 'index', 'grey'),
  'mixed': ('colour', 'index'),
  'indices': ('colour',),
}


@dataclasses.dataclass(frozen=True)
class ClassList:
  """Names of the classes and how masks encode them.

  Attributes:
    names: one per class.
    ids: (mask id, class or VOID) pairs; 255 is void unless the masks are binary.
    colors: (colour, class or VOID) pairs of colour masks; empty if only ids are supported.
    by: what encodes the classes: 'ids', 'colors', 'mixed' (ids of grey masks, colours of others),
      'indices' (colours of RGB masks, ids of others), or 'alpha' (`ids` are values of the opacity).
    threshold: values from it on are class 1, others 0; 0: `ids` count.
    shown: whether to invert masks in which viewers show 0 as white.
  """

  names: tuple[str, ...]
  ids: tuple[tuple[int, int], ...]
  colors: tuple[tuple[Color, int], ...] = ()
  by: Literal['ids', 'colors', 'mixed', 'indices', 'alpha'] = 'ids'
  threshold: int = 0
  shown: bool = False

  @property
  def own_ids(self) -> tuple[int, ...]:
    """The masks' id of each class; () where these are 0..c-1, or not one for each class."""
    of_class = {label: own for own, label in self.ids if label != VOID}
    one_each = sum(label != VOID for _, label in self.ids) == len(of_class) == len(self.names)
    if self.by != 'ids' or self.threshold or not one_each:
      return ()
    own = tuple(of_class[i] for i in range(len(self.names)))
    return own if own != tuple(range(len(own))) else ()

  @property
  def palette(self) -> tuple[Color, ...]:
    """The classes' own colours if given, else VOC's."""
    own = {c: color for color, c in self.colors if c != VOID}
    return tuple(own[i] for i in range(len(self.names))) if own else voc_palette(len(self.names))

  def as_binary(self, whites: Iterable[int] = ()) -> ClassList:
    """Returns the same two classes with 1, 255, 65535 and `whites` as ids of the second."""
    if len(self.names) != 2:
      raise UserError(f'binary masks have two classes, but {len(self.names)} are listed')
    ids = {0: 0} | dict.fromkeys(sorted({1, 255, 65535, *whites}), 1)
    return dataclasses.replace(self, ids=tuple(ids.items()))


def from_names(names: Sequence[str]) -> ClassList:
  """Returns the list in which mask id i is names[i]; the name 'void' makes an id void."""
  return _class_list([Entry(name) for name in names], 'classes')


def from_colors(
  names: Sequence[str], colors: Sequence[Color], void: Color | None = None
) -> ClassList:
  """Returns the list of classes with these colours; the colour `void` is void."""
  entries = [Entry(name, tuple(color)) for name, color in zip(names, colors, strict=True)]
  entries += [Entry('void', void)] if void is not None else []
  return dataclasses.replace(_class_list(entries, 'colors'), by='colors')


def read_file(path: Path) -> ClassList:
  """Reads a list of classes in any of the forms of class_files.

  Without ids, the first class is mask id 0. An entry named void makes its id (and its colour) void
  and is no class; labelme's `__ignore__` is always id 255. Either all classes have a colour or none.
  """
  return _class_list(class_files.read(path), str(path))


def _class_list(entries: Sequence[Entry], where: str) -> ClassList:
  if any(entry.id is not None for entry in entries):
    entries = sorted(entries, key=lambda entry: -1 if entry.id is None else entry.id)
  is_void = [entry.name.lower() in _VOID_NAMES for entry in entries]
  classes = [entry for entry, void in zip(entries, is_void, strict=True) if not void]
  names = tuple(entry.name for entry in classes)
  if not 2 <= len(names) <= _MAX_CLASSES:
    raise UserError(
      f'{where}: got {len(names)} classes; 2 to {_MAX_CLASSES} are allowed (the background is one)'
    )
  if len({*map(as_seen, names)}) != len(names):
    raise UserError(f'{where}: the class names must differ, got {", ".join(names)}')
  colored = [entry.color is not None for entry in classes]
  if any(colored) and not all(colored):
    raise UserError(f"{where}: give every class a colour ('name r g b') or none")
  given = [entry.id for entry in entries if entry.id is not None]
  if len(set(given)) != len(given):
    raise UserError(f'{where}: two classes have one id')
  labels = [VOID if void else names.index(e.name) for e, void in zip(entries, is_void, strict=True)]
  colors = {e.color: c for e, c in zip(entries, labels, strict=True) if e.color is not None}
  if len(colors) != sum(entry.color is not None for entry in entries):
    raise UserError(f'{where}: two classes have one colour')
  number = itertools.count()
  ids = {255: VOID}
  for entry, label in zip(entries, labels, strict=True):
    if entry.name.lower() != _UNNUMBERED:
      ids[next(number) if entry.id is None else entry.id] = label
  return ClassList(names, tuple(sorted(ids.items())), tuple(colors.items()) if any(colored) else ())


def read_label(path: Path, classes: ClassList) -> np.ndarray:
  """Reads a mask as classes, with its own EXIF orientation applied; see label_of."""
  return label_of(mask_files.read(path).upright(), classes)


def label_of(mask: mask_files.Mask, classes: ClassList) -> np.ndarray:
  """Returns a mask's classes: uint8 [h, w] of 0..c-1 and VOID.

  When reading by colour, palette index and grey value 255 are void unless their colour is a class's.
  """
  mask = mask.as_shown() if classes.shown else mask
  if classes.by == 'alpha':
    values = _opacity(mask)
  elif mask.kind in _BY_COLOR[classes.by] and not classes.threshold:
    return label_of_colors(mask, dict(classes.colors))
  else:
    values = mask.numbers()
  if classes.threshold:
    return (values >= classes.threshold).astype(np.uint8)
  return mask_files.map_ids(values, dict(classes.ids), mask.path)


def _opacity(mask: mask_files.Mask) -> np.ndarray:
  if mask.alpha is not None:
    return mask.alpha
  page = pages.read(mask.path)  # constant opacity: a mask without objects, or nothing but one
  if not page.header.alpha:
    raise UserError(f'{mask.path} has no opacity (alpha), which encodes the classes in other masks')
  return np.full(mask.size, page.values[0, 0, -1])


def label_of_colors(mask: mask_files.Mask, colors: Mapping[Color, int]) -> np.ndarray:
  """Returns the classes of a mask's colours, uint8 [h, w]; see label_of."""
  codes, path = mask_files.color_codes(mask.colors()), mask.path
  table = {(r << 16) | (g << 8) | b: c for (r, g, b), c in colors.items()}
  if mask.kind in ('index', 'grey'):
    unlisted = ~np.isin(codes, list(table))
    if mask.kind == 'index':
      unlisted |= mask.ids >= len(mask.palette)
    codes[unlisted & (mask.ids == 255)] = -1
    table[-1] = VOID
  present, inverse = np.unique(codes, return_inverse=True)
  unknown = [(c >> 16, c >> 8 & 255, c & 255) for c in present.tolist() if c not in table]
  if unknown:
    raise UserError(
      f'{path}: colours {abbreviate(unknown, 4)} are not in the class list, which '
      f"has {', '.join(map(str, colors))}; correct the mask, or add 'void r g b' to the list"
    )
  return np.array([table[c] for c in present.tolist()], np.uint8)[inverse.reshape(codes.shape)]


def voc_palette(count: int) -> tuple[Color, ...]:
  """Returns PASCAL VOC's colours: each 3 bits of the index go to r, g and b, high bits first."""

  def channel(index: int, first: int) -> int:
    return sum((index >> (3 * bit + first) & 1) << (7 - bit) for bit in range(8))

  return tuple(tuple(channel(index, first) for first in range(3)) for index in range(count))
