"""The few names that every part shares: arrays, batches, void, sizes, and errors meant for people."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

VOID = 255  # the label of a pixel that no loss and no metric counts
LARGEST = 2**31 - 1  # of a number that counts: an int32 on the devices
LONGEST = 1 << 14  # side of what a network sees, in pixels
SCALES = (0.01, 16)  # by which images are resized

Array = Any  # a jax.Array or a numpy array
Batch = Mapping[
  str, Array
]  # 'image' [b,h,w,c] of the data's type, 'label' uint8 [b,h,w]; 'weight' float32 [b,h,w]
Outputs = Mapping[str, Array]  # 'logits' [b,h,w,k], 'aux_logits', named intermediates
Losses = Mapping[str, tuple[Array, Array]]  # name -> (sum, weight), both scalars


class UserError(ValueError):
  """A mistake of the user's: one line saying what was got, what is allowed and what to do."""


def is_word(name: str) -> bool:
  """Whether a name can be shown: it is not blank and holds no control character, such as NUL or a newline."""
  return bool(name.strip()) and not any(unicodedata.category(c) in ('Cc', 'Cs') for c in name)


def as_seen(name: str) -> str:
  """Returns a name without what nobody sees: two ways to write an accent, signs of no width."""
  name = unicodedata.normalize('NFC', name)
  return ''.join(c for c in name if unicodedata.category(c) != 'Cf').strip()


class StuckError(UserError):
  """Timed out waiting for data; the thread that reads it may never end."""


@dataclasses.dataclass(frozen=True)
class SizeRule:
  """Which input heights (and widths) a network takes: offset + multiple * n, at least `minimum`.

  Attributes:
    multiple: distance between two allowed sizes, in pixels.
    offset: smallest member of the arithmetic progression (0 for "a multiple of").
    minimum: smallest allowed size.
    margin: pixels that the network eats at each side; its output is 2 * margin smaller.
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
  """The objects of one image [h, w], by falling score.

  Attributes:
    boxes: float32 [n, 4], x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
    scores: float32 [n].
    classes: int32 [n], 1..c-1.
    masks: bool [n, h, w], an array or data.outlines.Masks, which acts as one.
  """

  boxes: np.ndarray
  scores: np.ndarray
  classes: np.ndarray
  masks: Any

  def __len__(self) -> int:
    return len(self.scores)

  def __getitem__(self, chosen: Any) -> Detections:
    """Returns those that a slice or an array of bools chooses."""
    return Detections(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))
