"""Options of a prediction and their command-line flags; without JAX."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Literal

from jaxseg import console
from jaxseg.config.fields import check_fields, within
from jaxseg.types import LONGEST, SCALES, UserError

MOST = 10_000  # rotations, or draws of dropout
HOTTEST = 1000.0  # temperature
MAX_PIXELS = 1 << 22  # of a network's input, 2048 x 2048: larger ones are tiled


@dataclasses.dataclass(frozen=True)
class Options:
  """Test-time averaging and tiling. The defaults are one plain pass.

  Attributes:
    scales: of the image; (): the config's eval.scales.
    flip: average with the horizontally mirrored image.
    flip_by: average the two 'probabilities', or add the 'logits' before the softmax (PSPNet's Caffe
      release).
    rotations: average over this many rotations, the original included (U-Net's 7); 1 is off.
    samples: passes with dropout on, 0 is off.
    tile: input size (height, width) of a tile; None: no tiles up to `max_pixels`.
    tile_step: distance between tiles; None: that of tiles.make_tiling.
    windows: weights of overlapping tiles: 'gaussian', highest in the centre, or 'even', which also
      centres images that are smaller than a tile.
    long_side: images are resized so that their longer side is this times the scale; 0: not resized.
    multiple: output sizes are rounded up to it, so that images of many sizes share few programs; 0
      leaves the choice to the config, see data.frame, and predictions equal those of evaluation. The
      padding is right and below. An unpadded network predicts the same within the image; a padded
      one sees the fill colour in place of its zero padding, and differs only where its receptive
      field reaches the border.
    max_pixels: larger network inputs are tiled.
    temperature: of the probabilities, see metrics.temperature; 0: the fitted one, filled in when runs
      are loaded.
    min_area: parts of a class with fewer pixels are removed from the mask, see specks; 1 keeps all. The
      probabilities stay.
    score: threshold of objects; None: all are listed, and the more certain ones drawn.
  """

  scales: tuple[float, ...] = within(*SCALES, default=())
  flip: bool = False
  flip_by: Literal['probabilities', 'logits'] = 'probabilities'
  rotations: int = within(1, MOST, default=1)
  samples: int = within(0, MOST, default=0)
  tile: tuple[int, int] | None = within(1, LONGEST, default=None)
  tile_step: tuple[int, int] | None = within(1, LONGEST, default=None)
  windows: Literal['gaussian', 'even'] = 'gaussian'
  long_side: int = within(0, LONGEST, default=0)
  multiple: int = within(0, LONGEST, default=0)
  max_pixels: int = within(1, sys.maxsize, default=MAX_PIXELS)
  temperature: float = within(0, HOTTEST, default=1.0)
  min_area: int = within(1, sys.maxsize, default=1)
  score: float | None = within(0, 1, default=None)

  def __post_init__(self):
    check_fields(self, 'prediction')
    if self.tile_step and not self.tile:
      raise UserError('tile_step needs a tile')
    if self.windows == 'even' and not self.tile:
      raise UserError('windows=even needs a tile')

  def beside(self, scales: Sequence[float]) -> Options:
    """Returns the options, without `scales` if they equal the config's."""
    return dataclasses.replace(self, scales=()) if tuple(self.scales) == tuple(scales) else self

  @property
  def is_one_pass(self) -> bool:
    """Whether nothing is averaged, and only images above `max_pixels` are tiled."""
    averaged = len(self.scales) > 1 or self.flip or self.rotations > 1 or self.samples
    return not (averaged or self.tile or self.long_side)

  def describe(self) -> str:
    """Describes the options that differ from one plain pass; '' if none does."""
    parts = [
      f'scales {", ".join(f"{s:g}" for s in self.scales)}' if len(self.scales) > 1 else '',
      f'scale {self.scales[0]:g}' if len(self.scales) == 1 and self.scales[0] != 1 else '',
      ('flip' + ' of logits' * (self.flip_by == 'logits')) if self.flip else '',
      f'{self.rotations} rotations' if self.rotations > 1 else '',
      f'{self.samples} samples' if self.samples else '',
      f'tiles of {self.tile[0]}x{self.tile[1]}' if self.tile else '',
      f'every {self.tile_step[0]}x{self.tile_step[1]}' if self.tile_step else '',
      'that count alike' if self.windows == 'even' else '',
      f'longer side {self.long_side}' if self.long_side else '',
      f'temperature {self.temperature:.4g}' if self.temperature != 1 else '',
      f'parts from {self.min_area} pixels' if self.min_area > 1 else '',
      f'objects from a score of {self.score:g}' if self.score is not None else '',
    ]
    return ', '.join(filter(None, parts))


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds the flags for averaging and tiling; their defaults are those of Options."""
  add, integer = parser.add_argument, console.integer
  scales, methods = console.list_of(console.number(*SCALES)), ('probabilities', 'logits')
  add('--scales', type=scales, help="average these; default: the config's")
  add('--flip', action='store_true', help='average with the image mirrored left to right')
  add('--flip_by', choices=methods, help='average these, or add logits')
  add('--rotations', type=integer(1, MOST), help='average this many rotations (U-Net: 7)')
  add('--samples', type=integer(0, MOST), help='Monte-Carlo dropout: average this many draws')
  add('--tile', type=console.size, help='input size of tiles; default: only beyond 4 megapixels')
  add_temperature(parser)
  add('--tile_step', type=console.size, help='distance of tiles; default: half, or what joins')
  add('--windows', choices=('gaussian', 'even'), help='what tiles count for')
  longer = 'resize so that the longer side is this times the scale'
  add('--long_side', type=integer(0, LONGEST), help=longer)
  specks = 'remove parts of a class with fewer pixels from the mask'
  add('--min_area', type=integer(1, sys.maxsize), help=specks)
  parser.set_defaults(**{f.name: f.default for f in dataclasses.fields(Options)})


def add_temperature(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--temperature',
    type=console.number(0, HOTTEST),
    nargs='?',
    const=0.0,
    default=1.0,
    help='of the probabilities; without a number the one that evaluate --fit_temperature found',
  )


def from_flags(flags: argparse.Namespace) -> Options:
  """Returns the options from the flags of the same names. Raises UserError for a wrong value."""
  names = (field.name for field in dataclasses.fields(Options))
  return Options(**{name: getattr(flags, name) for name in names if hasattr(flags, name)})
