"""Sheets: rows of titled pictures, or a grid of samples, with captions and a legend."""

import functools
import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxseg.draw import labels
from jaxseg.draw.labels import Color, Palette
from jaxseg.types import UserError

Legend = Sequence[tuple[str, Color]]

_INK, _PAPER, _FRAME = (30, 30, 30), (255, 255, 255), (120, 120, 120)
_GAP, _TEXT, _FONT = 8, 20, 13  # pixels: between cells; height of a line of text; size of its font
_LETTER, _NARROWEST = 8, 320  # pixels: approximate width of a letter; of a sheet that fits a legend


def panel(
  rows: Sequence[Mapping[str, np.ndarray]],
  *,
  captions: Sequence[str] = (),
  legend: Legend = (),
  titled: bool = True,
  columns: int = 1,
  cell_size: int = 320,
) -> np.ndarray:
  """Draws one example per row, its pictures side by side.

  Args:
    rows: title -> uint8 [h, w, 3], as a task draws them; all of a row have the same size. A row
      without some title has an empty cell.
    captions: a line below each row, such as the file's name.
    legend: see labels.legend.
    titled: draws the titles at the top.
    columns: number of rows side by side.
    cell_size: longer side of a drawn picture, in pixels; small ones are enlarged by an integer factor.

  Returns:
    uint8 [height, width, 3].
  """
  if not rows:
    raise UserError('panel needs at least one row')
  titles = list(dict.fromkeys(title for row in rows for title in row))
  drawn = [_at_cell_size(row, cell_size) for row in rows]
  sizes = [cell.size for cells in drawn for cell in cells.values()]
  cell_width, cell_height = (max(sides) for sides in zip(*sizes, strict=True))
  row_width = len(titles) * (cell_width + _GAP) + _GAP
  row_height = cell_height + _GAP + (_TEXT if captions else 0)
  columns = min(columns, len(rows))
  width, top = max(columns * row_width, _NARROWEST), _GAP + (_TEXT if titled else 0)
  bottom = top + -(-len(rows) // columns) * row_height
  below = _draw_legend(legend, width) if legend else Image.new('RGB', (width, 0))
  sheet = Image.new('RGB', (width, bottom + below.height), _PAPER)
  sheet.paste(below, (0, bottom))
  write = functools.partial(ImageDraw.Draw(sheet).text, fill=_INK, font=load_font(_FONT))
  for number, cells in enumerate(drawn):
    line, column = divmod(number, columns)
    x, y = _GAP + column * row_width, top + line * row_height
    for k, title in enumerate(titles):
      left = x + k * (cell_width + _GAP)
      if title in cells:
        sheet.paste(cells[title], (left, y))
      if titled and not line:
        write((left, _GAP // 2), title)
    if captions:
      write((x, y + cell_height + 2), captions[number][: row_width // _LETTER])
  return np.asarray(sheet)


def contact_sheet(
  examples: Sequence[Mapping[str, np.ndarray]],
  palette: Palette,
  class_names: Sequence[str],
  captions: Sequence[str],
  *,
  columns: int = 2,
  cell_size: int = 230,
) -> np.ndarray:
  """Draws a grid of examples: image, label and, if present, weight map; see `panel`."""
  return panel(
    [_sample(example, palette) for example in examples],
    captions=captions,
    legend=labels.legend(palette, class_names, [example['label'] for example in examples]),
    titled=False,
    columns=columns,
    cell_size=cell_size,
  )


def pick_samples(counts: np.ndarray, number: int) -> list[int]:
  """Chooses examples that show every class: for each, rarest first, the one with most of its pixels.

  Args:
    counts: integer [n, c], pixels of each class in each example.
    number: of examples; those not needed for classes are spread evenly over the set.
  """
  chosen: list[int] = []
  totals = counts.sum(axis=0)
  for k in np.argsort(totals, kind='stable'):
    if len(chosen) < number and totals[k] and not counts[chosen, k].any():
      chosen.append(int(np.argmax(counts[:, k])))
  spread = np.linspace(0, len(counts) - 1, min(number, len(counts))).round().astype(int).tolist()
  return sorted([*dict.fromkeys((*chosen, *spread, *range(len(counts))))][:number])


@functools.cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
  """Returns matplotlib's DejaVu Sans, which, unlike Pillow's default, has Greek and Cyrillic."""
  import matplotlib

  fonts = os.path.join(matplotlib.get_data_path(), 'fonts/ttf')
  return ImageFont.truetype(os.path.join(fonts, 'DejaVuSans.ttf'), size)


def _sample(example: Mapping[str, np.ndarray], palette: Palette) -> dict[str, np.ndarray]:
  truth = labels.colorize(example['label'], palette)
  row = {'image': labels.as_rgb(example['image']), 'truth': truth}
  weight = example.get('weight')
  return row if weight is None else {**row, 'weight': _heat(weight)}


def _heat(weight: np.ndarray) -> np.ndarray:
  """Maps weights to black (0), red and yellow (the map's maximum)."""
  intensity = np.sqrt(weight / max(float(weight.max()), 1e-6))  # makes small weights visible
  channels = [np.clip(3 * intensity - k, 0, 1) for k in range(3)]
  return np.rint(255 * np.stack(channels, axis=-1)).astype(np.uint8)


def _at_cell_size(row: Mapping[str, np.ndarray], cell_size: int) -> dict[str, Image.Image]:
  """Resizes a row's pictures to the cell size, smoothly for an image that shrinks."""
  sides = row['image'].shape
  scale = cell_size / max(sides[:2])
  scale = round(scale) if scale > 1 else scale  # whole pixels stay square
  size = tuple(max(round(side * scale), 1) for side in sides[1::-1])
  smooth = Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.NEAREST
  return {
    name: Image.fromarray(np.ascontiguousarray(picture, np.uint8)).resize(
      size, smooth if name == 'image' else Image.Resampling.NEAREST
    )
    for name, picture in row.items()
  }


def _draw_legend(legend: Legend, width: int) -> Image.Image:
  """Draws coloured squares with names, in as many columns as fit."""
  font = load_font(_FONT)
  column = int(max(font.getlength(name) for name, _ in legend)) + 22 + 2 * _GAP
  per_line = max(1, (width - _GAP) // column)
  lines = -(-len(legend) // per_line)
  picture = Image.new('RGB', (width, lines * _TEXT + 2 * _GAP), _PAPER)
  draw = ImageDraw.Draw(picture)
  for number, (name, color) in enumerate(legend):
    line, position = divmod(number, per_line)
    x, y = _GAP + position * column, _GAP + line * _TEXT
    draw.rectangle((x, y + 1, x + 14, y + 15), fill=tuple(color), outline=_FRAME)
    draw.text((x + 20, y), name, fill=_INK, font=font)
  return picture
