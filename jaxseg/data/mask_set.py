"""Decides how all masks of a set are read: by ids, colours or alpha.

A single mask does not show whether 255 is void or an object, or whether its palette is also that of the
others. So all masks of all splits are inspected first (mask_files.MaskSummary), and one reading is chosen for
the set. If several readings with different results are possible, a UserError lists them with the option
that chooses.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Literal

from jaxseg.data import cache, classlist, fingerprint, mask_colors, mask_files
from jaxseg.data.classlist import ClassList
from jaxseg.data.mask_colors import KEY
from jaxseg.data.mask_files import MaskSummary
from jaxseg.data.pages import read_header
from jaxseg.data.problems import abbreviate, read_all, warn_once
from jaxseg.types import VOID, UserError

By = Literal['ids', 'colors', 'alpha']
Seen = Literal['stored', 'shown']
_MANY = 32  # inferred classes; of more ids most must be used, more colours are rejected
_FEW = 4  # values of two-class masks, 1 and void among them


@dataclasses.dataclass(frozen=True)
class Choice:
  """The user's choices; None infers from the masks.

  Attributes:
    binary: in two-class masks, whether 255 is the second class (True) or void (False).
    threshold: makes two classes: values from it on are the second.
    read_by: what encodes the classes.
    white_is_zero: for TIFF masks in which viewers show 0 as white, 'stored' takes the file's values,
      'shown' inverts them.
  """

  binary: bool | None = None
  threshold: int | None = None
  read_by: By | None = None
  white_is_zero: Seen | None = None

  def __post_init__(self):
    if self.threshold is not None and not 1 <= self.threshold <= 65535:
      raise UserError(f'{KEY}threshold={self.threshold}: from 1 to 65535 are allowed')


def inspect(
  paths: Iterable[Path], cache_dir: str | os.PathLike | None = None, *, pages: bool = False
) -> dict[Path, MaskSummary]:
  """Returns the facts of every mask by its file, from the cache if possible. With `pages` files are stacks.

  Raises:
    BadFiles: masks that cannot be read.
  """

  def facts_of(path: Path) -> dict:
    numbers = range(read_header(path).pages) if pages else (None,)
    return dataclasses.asdict(mask_files.summarize(path, numbers))

  paths = list(dict.fromkeys(paths))
  code = fingerprint.of_code(mask_files.summarize)
  memory = (
    cache.cache_root(cache_dir)
    / 'folder'
    / f'masks-{fingerprint.of_files(paths, [code, pages], cache_dir)}.json'
  )
  found = cache.cached(memory, lambda: list(read_all(facts_of, paths, str, 'reading masks')))
  return dict(zip(paths, map(MaskSummary.of_json, found), strict=True))


def choose_reading(
  facts: Mapping[Path, MaskSummary],
  listed: ClassList | None,
  choice: Choice = Choice(),
  num_classes: int | None = None,
) -> ClassList:
  """Returns the classes of a set and how its masks are read.

  Args:
    facts: of every mask of all splits.
    listed: the classes, if listed; None: those in the masks.
    choice: the user's.
    num_classes: how many there are; if they are not listed, larger ids are no classes.

  Raises:
    UserError: readings with different results, or none.
  """
  if choice.white_is_zero is None:
    _refuse_inverted(facts)
  known = _decided(facts, listed, choice, num_classes)
  return dataclasses.replace(known, shown=choice.white_is_zero == 'shown')


def _decided(
  facts: Mapping[Path, MaskSummary],
  listed: ClassList | None,
  choice: Choice,
  num_classes: int | None,
) -> ClassList:
  by = choice.read_by or _reading(facts, listed)
  if choice.threshold:
    names = ('background', 'foreground') if listed is None else listed.names
    if len(names) != 2:
      raise UserError(f'{KEY}threshold makes two classes, but {len(names)} are listed')
    two = listed or classlist.from_names(names)
    return dataclasses.replace(two, by=by, threshold=choice.threshold)
  if by == 'colors':
    return _by_colors(facts, listed, choice)
  if listed is None and by == 'ids':
    _refuse_nodata(facts)
  ids_of = {path: one.alpha if by == 'alpha' else one.ids for path, one in facts.items()}
  whites = {one.highest for one in facts.values() if by == 'ids'}
  known = _by_ids(ids_of, listed, choice, num_classes, whites)
  return dataclasses.replace(known, by=by)


def _refuse_inverted(facts: Mapping[Path, MaskSummary]) -> None:
  """Rejects masks with 0 as white where inversion may be intended: 1-bit ones, or only some of a set."""
  by_sign = {path: one for path, one in facts.items() if one.kind == 'grey'}
  inverted = [path for path, one in by_sign.items() if one.white_is_zero]
  if inverted and (len(inverted) < len(by_sign) or by_sign[inverted[0]].highest == 1):
    raise UserError(
      f'{len(inverted)} of {len(by_sign)} masks, such as {inverted[0]}, are TIFF that viewers show with 0 '
      f'as white: {KEY}white_is_zero=stored takes the numbers in the files, white_is_zero=shown what '
      'viewers show'
    )


def _refuse_nodata(facts: Mapping[Path, MaskSummary]) -> None:
  """Rejects a GeoTIFF's no-data values unless they are 255, which is void; for unlisted classes."""
  for path, one in facts.items():
    if one.nodata in one.ids and one.nodata != VOID:
      number = int(one.nodata)
      raise UserError(
        f'{path} holds {number}, which by its tag is no data: list the classes in classes.txt as id,name, with '
        f"'{number},void' to ignore it"
      )


def _reading(facts: Mapping[Path, MaskSummary], listed: ClassList | None) -> By:
  """Infers what encodes the classes."""
  if _only_alpha(facts):
    warn_once(['masks: only their opacity (alpha) differs, so it is read as the classes'])
    return 'alpha'
  mask_colors.refuse_hidden(facts)
  if listed is not None and listed.colors:
    return 'colors'
  if listed is None and not all(one.ids for one in facts.values()):
    return 'colors'
  mask_colors.refuse_palettes(facts, listed)
  return 'ids'


def _only_alpha(facts: Mapping[Path, MaskSummary]) -> bool:
  """Returns whether only the masks' alpha varies between pixels."""
  opaque = [path for path, one in facts.items() if one.alpha and len(one.colors) <= 1]
  colors = {color for one in facts.values() for color in one.colors}
  if opaque and len(colors) > 1:
    raise UserError(
      f'in {len(opaque)} masks, such as {opaque[0]}, only the opacity (alpha) differs, and colours differ '
      f'between files: {KEY}read_by=alpha takes the opacity, read_by=colors the colours'
    )
  return bool(opaque)


def _by_colors(
  facts: Mapping[Path, MaskSummary], listed: ClassList | None, choice: Choice
) -> ClassList:
  if choice.binary:
    raise UserError(f'{KEY}binary=True needs masks of 0 and 255, but these are read by colour')
  if listed is not None and listed.colors:
    if choice.read_by is None:
      mask_colors.refuse_equal_colors(facts)
    greys = {path: one.ids for path, one in facts.items() if one.kind == 'grey'}
    _refuse_soft(greys, sorted(set().union(*greys.values())), listed)
    return dataclasses.replace(listed, by=_of_greys(facts.values(), listed))
  if listed is not None:
    raise UserError(f'{KEY}read_by=colors needs the colour of each class: list them as name r g b')
  colors = {
    color
    for one in facts.values()
    for i, color in enumerate(one.colors)
    if not (one.kind == 'index' and one.ids[i] == VOID)
  }
  if len(colors) > _MANY:
    path = next(p for p, one in facts.items() if len(one.colors) > 1)
    raise UserError(
      f'{path} is a mask of colours, and the set has {len(colors)}{"+" * (len(colors) > 1000)} of '
      "them: give each class its colour ('name r g b' in classes.txt), or save class indices"
    )
  if choice.read_by is None:
    mask_colors.refuse_greys(facts)
  mask_colors.refuse_edges(facts)
  order = {color: i for i, color in enumerate(classlist.voc_palette(256))}
  if not colors <= order.keys():
    order = {color: i for i, color in enumerate(sorted(colors))}
  void = classlist.VOC_VOID if colors <= {*classlist.voc_palette(255), classlist.VOC_VOID} else None
  chosen = sorted(colors - {void}, key=order.__getitem__)
  warn_once(
    [
      f'masks: {len(chosen)} colours are {len(chosen)} classes; list them as name r g b to name them'
    ]
  )
  return classlist.from_colors([f'color {r},{g},{b}' for r, g, b in chosen], chosen, void=void)


def _of_greys(facts: Sequence[MaskSummary], listed: ClassList) -> Literal['colors', 'mixed']:
  """Returns how to read grey masks among colour masks: by colour if all their greys are listed."""
  greys = {c for one in facts if one.kind == 'grey' for c in one.colors}
  known = {color for color, _ in listed.colors}
  listed_too = greys - known <= {(255, 255, 255)} and greys & known
  return 'colors' if listed_too or not greys else 'mixed'


def _by_ids(
  ids_of: Mapping[Path, Sequence[int]],
  listed: ClassList | None,
  choice: Choice,
  num_classes: int | None,
  whites: Set[int],
) -> ClassList:
  """Reads by ids; `whites` are the masks' highest possible values, empty for alpha."""
  ids = sorted(set().union(*ids_of.values()))
  if listed is not None and (choice.binary is not None or dict(listed.ids).get(255) != VOID):
    return listed.as_binary(whites) if choice.binary else listed
  two_valued = ids in ([0, 255], [0, 65535]) or not whites and ids == [255]
  two_valued |= len(whites) == 1 and ids == [0, *whites]
  if choice.binary is None and (listed is None or len(listed.names) == 2):
    _refuse_mixed(ids_of, ids, whites)
  _refuse_soft(ids_of, ids, listed)
  if listed is None:
    listed = _inferred(ids, two_valued and choice.binary is not False, num_classes)
  if two_valued and choice.binary is None and len(listed.names) > 2:
    raise UserError(
      f'the masks hold only 0 and 255, and with {len(listed.names)} classes 255 is void: '
      'nothing would be learnt; list two classes, or save masks with the ids of all'
    )
  binary = choice.binary or (choice.binary is None and two_valued)
  return listed.as_binary(whites) if binary else listed


def _refuse_mixed(
  ids_of: Mapping[Path, Sequence[int]], ids: Sequence[int], whites: Set[int]
) -> None:
  """Rejects sets in which some masks have 1 and others 255, possibly for the same class."""
  values = [i for i in ids if i]
  if len(values) < 2 or not set(values) <= {1, 255, *whites}:
    return
  holders = [[p for p, held in ids_of.items() if i in held] for i in values]
  if sum(map(len, holders)) == len(set().union(*holders)):
    first, *others = (
      f'{len(paths)} {{}}hold 0 and {i} (such as {paths[0]})'
      for i, paths in zip(values, holders, strict=True)
    )
    listed = ', '.join([first.format('masks '), *(other.format('') for other in others)])
    raise UserError(
      f'{listed}: {KEY}binary=True reads {" and ".join(map(str, values))} as the object, binary=False '
      '255 as void'
    )


def _refuse_soft(
  ids_of: Mapping[Path, Sequence[int]], ids: Sequence[int], listed: ClassList | None
) -> None:
  """Rejects many grey values in 0..255: probably two classes with soft edges."""
  if listed is not None and len(listed.names) > 2:
    return
  if (
    len(ids) > (_MANY if listed is None else _FEW)
    and any(191 < i < 255 for i in ids)
    and ids[-1] <= 255
  ):
    path = max(ids_of, key=lambda p: len(ids_of[p]))
    raise UserError(
      f'{path} holds {len(ids_of[path])} values from {ids[0]} to {ids[-1]}, as soft edges of two '
      f'classes do: {KEY}threshold=128 makes the values from 128 on the second class'
    )


def _inferred(ids: Sequence[int], two_valued: bool, num_classes: int | None) -> ClassList:
  if two_valued:
    return classlist.from_names(('background', 'foreground'))
  if num_classes is not None and any(num_classes <= i != 255 for i in ids):
    return classlist.from_names([f'class {i}' for i in range(num_classes)])
  classes = [i for i in ids if i != 255]
  count = max(classes, default=-1) + 1
  remedy = "list the classes in classes.txt, or give the option 'classes'"
  if not 2 <= count <= 255 or (count > _MANY and len(classes) < count / 2):
    raise UserError(
      f'cannot tell the classes from mask ids {abbreviate(ids)}; {remedy} (grey values as colours: '
      f"'name 127 127 127'), or, of soft edges, add {KEY}threshold=128, which makes two classes"
    )
  warn_once([f'masks: {count} classes, the highest mask id + 1; {remedy} to name them'])
  return classlist.from_names([f'class {i}' for i in range(count)])
