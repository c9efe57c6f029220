"""Shapes: textured, overlapping objects drawn from a seed; no download, for smoke runs and tests.

An object's class determines its outline and texture, never its colour: all objects and backgrounds draw
their colours from the same distribution, so that a network has to use context. Every visible outline is
void, one pixel to each side.
"""

from __future__ import annotations

import dataclasses
import operator

import numpy as np

from jaxseg.data.border_weight import border_weight as weight_map
from jaxseg.data.geometry import edges
from jaxseg.data.problems import check_choice, check_split
from jaxseg.types import LARGEST, LONGEST, VOID, UserError

SPLITS = ('train', 'val', 'test')
_ALL_CLASSES = {
  'background': (0, 0, 0),
  'disc': (230, 60, 60),
  'square': (60, 140, 230),
  'triangle': (250, 200, 50),
  'cross': (80, 190, 90),
  'ring': (170, 90, 210),
}
ALL_CLASS_NAMES, ALL_COLORS = tuple(_ALL_CLASSES), tuple(_ALL_CLASSES.values())
NUM_CLASSES = 4
CLASS_NAMES, PALETTE = ALL_CLASS_NAMES[:NUM_CLASSES], ALL_COLORS[:NUM_CLASSES]
COUNTS = {'train': 512, 'val': 64, 'test': 64}

_MIN_SIZE = 16
_COVER = 1.41  # largest distance of an outline from its centre, in radii


def source(
  split: str,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
  size: int | tuple[int, int] = 64,
  count: int | None = None,
  seed: int = 0,
  num_classes: int = NUM_CLASSES,
  channels: int = 3,
  border_weight: bool = False,
) -> ShapesSource:
  """Returns a random-access source of generated examples.

  Args:
    split: 'train', 'val' or 'test', whose examples all differ.
    size: side, or (height, width), of the images in pixels; at least 16.
    count: number of examples, by default 512 for 'train' and 64 for 'val' and 'test'.
    seed: example i depends on (seed, split, i) and on the options, never on count.
    num_classes: 2 to 6, background included.
    channels: 3 (colour) or 1 (grey).
    border_weight: adds the U-Net weight map of the instances as 'weight' (slower).

  Raises:
    UserError: an option out of range.
  """
  del data_dir, cache_dir
  check_split('shapes', split, SPLITS)
  check_choice('shapes', 'channels', channels, (1, 3))
  count = COUNTS[split] if count is None else count
  try:
    height, width = (size, size) if isinstance(size, int) else (operator.index(s) for s in size)
  except (TypeError, ValueError):
    raise UserError(f'shapes: size is a side or (height, width), got {size!r}') from None
  if not _MIN_SIZE <= min(height, width) <= max(height, width) <= LONGEST:
    raise UserError(
      f'shapes: got size {height} x {width}; each side must be {_MIN_SIZE} or more, at most {LONGEST}'
    )
  if not 2 <= num_classes <= len(ALL_CLASS_NAMES):
    raise UserError(f'shapes: got num_classes {num_classes}; 2 to {len(ALL_CLASS_NAMES)} exist')
  if not (1 <= count <= LARGEST and 0 <= seed <= LARGEST):
    raise UserError(
      f'shapes: got count {count}, seed {seed}; count starts at 1 and seed at 0, none is above {LARGEST}'
    )
  return ShapesSource(split, height, width, count, seed, num_classes, channels, border_weight)


@dataclasses.dataclass(frozen=True)
class ShapesSource:
  """Random access to generated examples; immutable, picklable and comparable."""

  split: str
  height: int
  width: int
  count: int
  seed: int
  num_classes: int
  channels: int
  border_weight: bool

  @property
  def class_names(self) -> tuple[str, ...]:
    return ALL_CLASS_NAMES[: self.num_classes]

  @property
  def palette(self) -> tuple[tuple[int, int, int], ...]:
    return ALL_COLORS[: self.num_classes]

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> dict[str, np.ndarray | str]:
    """Returns image uint8 [h, w, c], label uint8 [h, w], instances uint16 [h, w], file_name, and
    instance_classes uint8 [n], the class of object i at index i - 1."""
    index = range(self.count)[index]
    rng = np.random.default_rng((self.seed, SPLITS.index(self.split), index))
    image, label, instances = draw(rng, self.height, self.width, self.num_classes, self.channels)
    example = {'image': image, 'label': label, 'instances': instances}
    example['instance_classes'] = _classes_of(instances, label)
    if self.border_weight:
      example['weight'] = weight_map(instances)
    return {**example, 'file_name': f'{self.split}_{index:06d}.png'}


def draw(
  rng: np.random.Generator, height: int, width: int, num_classes: int, channels: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws one scene.

  Returns:
    image uint8 [h, w, channels]; label uint8 [h, w] with VOID on outlines; instances uint16 [h, w],
    0 the background and 1..n the visible part of each object, including its part of the void outline.
  """
  side = min(height, width)
  image = _background(rng, height, width, channels)
  owner = np.zeros((height, width), np.uint16)
  number = int(rng.integers(3, 6) * max(height, width) / side)
  kinds = rng.integers(1, num_classes, size=number)
  for i, kind in enumerate(kinds, start=1):
    radius = side * rng.uniform(0.16, 0.26)
    y, x = rng.uniform(0.1, 0.9) * height, rng.uniform(0.1, 0.9) * width
    rows, columns = _window(y, radius, height), _window(x, radius, width)
    u, v = _object_frame(rng, rows, columns, y, x, radius)
    inside = _outline(kind, u, v)
    light, dark = _tones(rng, channels)
    texture = _texture(kind, u * radius, v * radius)[..., None]
    window = np.s_[rows.start : rows.stop, columns.start : columns.stop]
    np.copyto(image[window], np.where(texture, light, dark), where=inside[..., None])
    owner[window][inside] = i
  image += rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(6)
  label = np.concatenate(([0], kinds)).astype(np.uint8)[owner]
  label[edges(owner)] = VOID
  return np.clip(image, 0, 255).astype(np.uint8), label, _renumber(owner, label)


def _window(centre: float, radius: float, length: int) -> range:
  reach = _COVER * radius
  return range(max(0, int(centre - reach)), min(length, int(centre + reach) + 2))


def _object_frame(rng, rows, columns, y, x, radius):
  """Coordinates in a frame rotated by a random angle, in units of the radius."""
  angle = rng.uniform(0, 2 * np.pi)
  cos, sin = np.float32(np.cos(angle) / radius), np.float32(np.sin(angle) / radius)
  dy = (np.arange(rows.start, rows.stop, dtype=np.float32) - np.float32(y))[:, None]
  dx = (np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(x))[None, :]
  return cos * dx + sin * dy, cos * dy - sin * dx


def _outline(kind: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
  match ALL_CLASS_NAMES[kind]:
    case 'disc':
      return u * u + v * v <= 1
    case 'square':
      return np.maximum(np.abs(u), np.abs(v)) <= 0.85
    case 'triangle':
      return (v >= -0.7) & (v + 1.732 * np.abs(u) <= 1.4)
    case 'cross':
      near, far = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
      return (near <= 0.38) & (far <= 1.1)
    case 'ring':
      return np.abs(np.sqrt(u * u + v * v) - 0.75) <= 0.32


def _texture(kind: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
  """Marks the lighter of the two tones; u and v in pixels of the object's frame."""
  match ALL_CLASS_NAMES[kind]:
    case 'disc':  # plain, with sparse spots
      return (np.mod(u, 7) < 2.5) & (np.mod(v, 7) < 2.5)
    case 'square':  # chequered
      return (np.mod(u, 8) < 4) ^ (np.mod(v, 8) < 4)
    case 'triangle':  # striped
      return np.mod(v, 4) < 2
    case 'cross':  # broad stripes
      return np.mod(u, 10) < 5
    case 'ring':  # concentric lines
      return np.mod(np.sqrt(u * u + v * v), 5) < 2.5


def _tones(rng: np.random.Generator, channels: int) -> tuple[np.ndarray, np.ndarray]:
  """Two colours, a fixed distance apart in a random direction around a random mean."""
  middle = rng.uniform(70, 185, size=channels)
  step = rng.uniform(40, 70) * rng.choice((-1, 1), size=channels)
  return (middle + step).astype(np.float32), (middle - step).astype(np.float32)


def _background(rng, height: int, width: int, channels: int) -> np.ndarray:
  """A smooth blend of two tones drawn like an object's."""
  first, second = _tones(rng, channels)
  (fy, fx), phase = rng.uniform(-5, 5, size=2), rng.uniform(0, 2 * np.pi)
  y = np.arange(height, dtype=np.float32)[:, None] * np.float32(fy / height)
  x = np.arange(width, dtype=np.float32)[None, :] * np.float32(fx / width)
  blend = 0.5 + 0.5 * np.sin(y + x + np.float32(phase), dtype=np.float32)
  return first + blend[..., None] * (second - first)


def _classes_of(instances: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Returns the class of every object, uint8 [n]; each has a pixel with it."""
  classes, shown = np.zeros(int(instances.max()) + 1, np.uint8), label != VOID
  classes[instances[shown]] = label[shown]
  return classes[1:]


def _renumber(owner: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Numbers the objects that still have a pixel with a class 1..n; others join the background."""
  visible = np.bincount(owner[label != VOID].ravel(), minlength=int(owner.max()) + 1) > 0
  visible[0] = False
  return np.where(visible, np.cumsum(visible), 0).astype(np.uint16)[owner]
