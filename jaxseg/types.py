"""Names shared by all parts: arrays, batches, void, sizes, and errors for users."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

VOID = 255  # label of pixels that losses and metrics ignore
LARGEST = 2**31 - 1  # limit of counts, which are int32 on the devices
LONGEST = 1 << 14  # limit of a network's input, side in pixels
SCALES = (0.01, 16)  # limits of factors to resize images by

Array = Any  # a jax.Array or a numpy array
Batch = Mapping[
  str, Array
]  # 'image' [b,h,w,c] of the data's type, 'label' uint8 [b,h,w]; 'weight' float32 [b,h,w]
Outputs = Mapping[str, Array]  # 'logits' [b,h,w,k], 'aux_logits', named intermediates
Losses = Mapping[str, tuple[Array, Array]]  # name -> (sum, weight), both scalars


class UserError(ValueError):
  """A user's mistake: one line saying what was got, what is allowed and what to do."""


def is_word(name: str) -> bool:
  """Whether a name is printable: not blank, without control characters such as NUL or a newline."""
  return bool(name.strip()) and not any(unicodedata.category(c) in ('Cc', 'Cs') for c in name)


def as_seen(name: str) -> str:
  """Normalises a name to what is visible: composed accents, no zero-width characters."""
  name = unicodedata.normalize('NFC', name)
  return ''.join(c for c in name if unicodedata.category(c) != 'Cf').strip()


class StuckError(UserError):
  """Timed out waiting for data; the thread that reads it may never end."""


@dataclasses.dataclass(frozen=True)
class SizeRule:
  """A network's allowed input heights (and widths): offset + multiple * n, at least `minimum`.

  Attributes:
    multiple: step between allowed sizes, in pixels.
    offset: smallest member of the arithmetic progression (0 for "a multiple of").
    minimum: smallest allowed size.
    margin: pixels that the network crops at each side; its output is 2 * margin smaller.
  """

  multiple: int = 1
  offset: int = 0
  minimum: int = 1
  margin: int = 0

  def allows(self, size: int) -> bool:
    return size >= self.minimum and (size - self.offset) % self.multiple == 0

  def at_least(self, size: int) -> int:
    """Returns the smallest allowed size that is not below `size`."""
    size = max(size, self.minimum)
    return size + (self.offset - size) % self.multiple

  def nearest(self, size: int) -> str:
    """Names the allowed sizes around one that is not, for messages: '96 or 112'."""
    above = self.at_least(size)
    below = above - self.multiple
    return f'{below} or {above}' if below >= self.minimum else f'{above}'


@dataclasses.dataclass(frozen=True)
class Detections:
  """The detected objects of one image [h, w], sorted by decreasing score.

  Attributes:
    boxes: float32 [n, 4], x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
    scores: float32 [n].
    classes: int32 [n], 1..c-1.
    masks: bool [n, h, w], an array or data.outlines.Masks, which behaves like one.
  """

  boxes: np.ndarray
  scores: np.ndarray
  classes: np.ndarray
  masks: Any

  def __len__(self) -> int:
    return len(self.scores)

  def __getitem__(self, chosen: Any) -> Detections:
    """Selects objects by a slice or an array of bools."""
    return Detections(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))
