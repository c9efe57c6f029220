"""Infers the layout of a folder's images and masks from names alone, as two patterns of pairing.py.

Folders are recognised by words for masks, images and splits; file names by affixes that distinguish an
image from its mask, such as `_mask`. Of all candidate pairs of patterns the one that matches the most
pairs wins. A tie between different results is an error.
"""

from __future__ import annotations

import bisect
import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from jaxseg.data.pages import SUFFIXES
from jaxseg.data.pairing import WORDS, Layout, list_files, match_path
from jaxseg.data.problems import abbreviate, warn_once
from jaxseg.types import UserError

_MASK_WORDS = ('mask', 'label', 'annot', 'segm', 'truth', 'target', 'matte')  # anywhere in a name
_MASK_TOKENS = ('gt', 'seg', 'anno', 'y', 'manual', 'lbl', 'semseg')  # a whole word
_IMAGE_WORDS = ('image', 'img', 'photo', 'picture', 'input', 'leftimg')
_IMAGE_TOKENS = ('im', 'rgb', 'sat', 'x', 'raw', 'original', 'orig', 'pre', 'frame', 'frames')
_OBJECT_WORDS = ('object', 'instanc')
_OTHER_WORDS = ('color', 'colour', 'overlay', 'preview', 'vis', 'polygon')
_MOST = 24  # folder patterns to try, of images and of masks
_SAMPLES, _NEAR, _AFFIXES = 40, 4, 6  # names to compare, neighbours of each, affixes to try
_SPLIT_PART = re.compile(
  rf'^(?:(.*)[_\-. ])?({WORDS})'
  rf'(?:([_\-. ].*|\d+)|((?:annot|mask|label|image|img|gt|seg|set|data)\w*))?$',
  re.IGNORECASE,
)
REMEDY = (
  "lay them as DIR/images and DIR/masks with the same names, or say where they are: --images='GLOB' "
  "--masks='GLOB', or --list=FILE.csv with the columns image,mask"
)


Keyed = list[tuple[tuple[str, ...], str]]  # split, sub-folders and stem of each file, and its path


def find(root: Path, *, objects: bool = False) -> Layout:
  """Returns the layout of a folder; between masks of classes and of objects, `objects` chooses.

  Raises:
    UserError: no images, no masks for them, or a tie of two layouts.
  """
  paths = [p for p in list_files(root) if PurePosixPath(p).suffix.lower() in SUFFIXES]
  if not paths:
    raise UserError(f'{root} holds no image; allowed are {", ".join(SUFFIXES)}')
  keys = {folder: _keys(paths, folder) for folder in _folder_patterns(paths)}
  tried = [
    ((len(pairs), _likeness(layout, objects)), layout, pairs)
    for images, masks in itertools.product(keys, repeat=2)
    if _may_pair(images, masks)
    for layout, pairs in _layouts(images, masks, keys[images], keys[masks])
    if pairs
  ]
  if not tried:
    raise UserError(
      f'{root}: no masks were found for images such as {abbreviate(paths, 2)}: {REMEDY}'
    )
  best = max(score for score, *_ in tried)
  (layout, pairs), *further = [(layout, pairs) for score, layout, pairs in tried if score == best]
  for other, others in further:
    if others != pairs:
      raise UserError(
        f"{root} can be read in two ways: images '{layout.images}' with masks '{layout.masks}', or "
        f"images '{other.images}' with masks '{other.masks}'; choose with --images and --masks"
      )
  _tell_of_splits(root, layout, pairs)
  return layout


def _tell_of_splits(root: Path, layout: Layout, images: Iterable[str]) -> None:
  """Reports folders named after splits that are not treated as such, since there are others beside them."""
  folders = {part for path in images for part in PurePosixPath(path).parts[:-1]}
  named = sorted(part for part in folders if '{split}' in _with_split(part))
  if named and '{split}' not in layout.images:
    warn_once(
      [
        f'{root}: {abbreviate(named)} are taken for no splits, for images lie in other folders beside them'
      ]
    )


def _keys(paths: Iterable[str], folder: str) -> Keyed:
  pattern = f'{folder}*'
  found = (match_path(pattern, path) for path in paths)
  return [((f.split, *f.key), f.path) for f in found if f]


def _may_pair(images: str, masks: str) -> bool:
  kinds = _folder_role(images), _folder_role(masks)
  return images == masks or kinds in (('', 'mask'), ('image', 'mask'), ('image', ''))


def _layouts(
  images: str, masks: str, image_keys: Keyed, mask_keys: Keyed
) -> Iterator[tuple[Layout, dict[str, str]]]:
  """Yields the layouts of two folders with the pairs that they match, image to mask."""
  if images == masks:
    yield from _by_suffix(images, image_keys)
    yield from _by_stem(images, image_keys)
  else:
    of_masks = {path for _, path in mask_keys}
    image_keys = [(key, path) for key, path in image_keys if path not in of_masks]
    yield Layout(f'{images}*', f'{masks}*'), _joined(image_keys, mask_keys)
  for at_end, a, b in _affixes(image_keys, mask_keys):
    if images == masks and _role(b) != 'mask' and _role(a) != 'image':
      continue
    cut = [
      [((*key[:-1], stem), path) for key, path in keys if (stem := _cut(key[-1], affix, at_end))]
      for keys, affix in ((image_keys, a), (mask_keys, b))
    ]
    names = (f'*{glob.escape(x)}' if at_end else f'{glob.escape(x)}*' for x in (a, b))
    yield Layout(*map(''.join, zip((images, masks), names, strict=True))), _joined(*cut)


def _joined(images: Keyed, masks: Keyed) -> dict[str, str]:
  mask_of = dict(masks)
  return {path: mask_of[k] for k, path in images if mask_of.get(k, path) != path}


def _cut(stem: str, affix: str, at_end: bool) -> str:
  """Returns a stem without its affix, '' if it lacks it."""
  if not (stem.endswith(affix) if at_end else stem.startswith(affix)):
    return ''
  return stem[: len(stem) - len(affix)] if at_end else stem[len(affix) :]


def _by_suffix(folder: str, keys: Keyed) -> Iterator[tuple[Layout, dict[str, str]]]:
  """Yields layouts of one folder whose images have one file format and masks another."""
  by_suffix: dict[str, Keyed] = {}
  for key, path in keys:
    by_suffix.setdefault(PurePosixPath(path).suffix, []).append((key, path))
  for first, second in itertools.permutations(by_suffix, 2):
    if second.lower() not in ('.jpg', '.jpeg'):
      pairs = _joined(by_suffix[first], by_suffix[second])
      yield Layout(f'{folder}*{first}', f'{folder}*{second}'), pairs


def _by_stem(folder: str, keys: Keyed) -> Iterator[tuple[Layout, dict[str, str]]]:
  """Yields layouts of folders that each hold one example, such as case7/image.png and case7/mask.png."""
  by_stem: dict[str, Keyed] = {}
  for key, path in keys:
    by_stem.setdefault(key[-1], []).append((key[:-1], path))
  common = [stem for stem in by_stem if len(by_stem[stem]) > 1]
  for first, second in itertools.permutations(common if len(common) <= _AFFIXES else (), 2):
    if _role(second) == 'mask' and _role(first) != 'mask':
      pairs = _joined(by_stem[first], by_stem[second])
      yield Layout(*(f'{folder}{glob.escape(stem)}' for stem in (first, second))), pairs


def _affixes(images: Keyed, masks: Keyed) -> list[tuple[bool, str, str]]:
  """Returns candidate affixes that distinguish images from masks: (is a suffix, image's, mask's)."""
  counts: Counter[tuple[bool, str, str]] = Counter()
  chosen = sorted(key for key, _ in images)[:: max(1, len(images) // _SAMPLES)]
  for at_end in (True, False):
    turned = [(*k[:-1], k[-1] if at_end else k[-1][::-1]) for k, _ in masks]
    near = sorted(turned)
    for *parents, stem in chosen:
      key = (*parents, stem if at_end else stem[::-1])
      place = bisect.bisect(near, key)
      found = set()
      for *others, other in near[max(0, place - _NEAR) : place + _NEAR]:
        if others == parents and (pair := _difference(key[-1], other, reverse=not at_end)):
          found.add((at_end, *pair))
      counts.update(found)
  return [affix for affix, _ in counts.most_common(_AFFIXES)]


def _difference(image: str, mask: str, *, reverse: bool) -> tuple[str, str] | None:
  """Returns the rests of two names after their common prefix; None if they differ only in numbers."""
  size = len(os.path.commonprefix((image, mask)))
  if size < len(image) and size < len(mask):  # a_image, a_img_mask: not within a word
    while size and image[size - 1].isalpha():
      size -= 1
    size -= size > 1 and image[size - 1] in '_-. '
  ends = image[size:], mask[size:]
  first, second = (re.sub(r'[\W\d_]', '', end) for end in ends)
  if not size or first == second:
    return None
  return tuple(end[::-1] for end in ends) if reverse else ends


def _folder_patterns(paths: Iterable[str]) -> list[str]:
  """Returns the files' folders as patterns that end in '**/', the most frequent first.

  Words for splits become {split}; folders without a role are kept or replaced by '**/'.
  """
  counts: Counter[str] = Counter()
  for path, number in Counter(str(PurePosixPath(p).parent) for p in paths).items():
    parts = [_with_split(part) for part in PurePosixPath(path).parts]
    telling = ['{split}' in part or bool(_role(part)) for part in parts]
    unknown = [i for i, told in enumerate(telling) if not told]
    for kept in range(min(len(unknown), 3) + 1):
      hidden = unknown[kept:]
      names = ['**' if i in hidden else part for i, part in enumerate(parts)] + ['**']
      counts[''.join(f'{name}/' for name, _ in itertools.groupby(names))] += number
  return [pattern for pattern, _ in counts.most_common(_MOST)]


def _with_split(part: str) -> str:
  """Returns a folder's name, escaped, with a word for a split replaced by {split}."""
  found = _SPLIT_PART.match(part)
  if not found:
    return glob.escape(part)
  before, word, after, joined = found.groups()
  head = glob.escape(part[: found.start(2)]) if before is not None else ''
  return f'{head}{{split}}{glob.escape(after or joined or "")}'


def _role(name: str) -> str:
  """Returns 'mask' or 'image' if a name says so, else ''."""
  name = name.replace('{split}', ' ').lower()
  tokens = set(re.split(r'[^a-z]+', name))
  if any(word in name for word in _MASK_WORDS) or tokens & set(_MASK_TOKENS):
    return 'mask'
  if any(word in name for word in _IMAGE_WORDS) or tokens & set(_IMAGE_TOKENS):
    return 'image'
  return ''


def _folder_role(pattern: str) -> str:
  """Returns the role of a pattern's last folder that has one."""
  roles = [role for part in pattern.split('/') if (role := _role(part))]
  return roles[-1] if roles else ''


def _likeness(layout: Layout, objects: bool) -> tuple:
  """Returns a sort key: larger if a layout's words are more typical of images and masks."""
  images, masks = layout.images, layout.masks
  strange = any(word in masks.lower() for word in _OTHER_WORDS)
  meant = any(word in masks.lower() for word in _OBJECT_WORDS) == objects
  stems = [PurePosixPath(pattern).name for pattern in (images, masks)]
  lossless = stems[1].lower().endswith('.png')
  plain = -len(''.join(stems))
  named = (_role(stems[1]) == 'mask') - (_role(stems[0]) == 'mask')
  general = -sum(part != '**' for part in PurePosixPath(images).parts)
  return not strange, meant, named, _folder_role(images) == 'image', general, lossless, plain
