"""Pictures of labels, predictions, confusion matrices and training curves.

Void (255) is drawn in VOC's light (224, 224, 192), in palette files too; overlays leave the image
there as it is. Names are drawn as they are: a $ begins no formula.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxseg.types import VOID, UserError

Palette = Sequence[tuple[int, int, int]]
Row = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]

VOID_COLOR = (224, 224, 192)
WRONG_COLOR = (230, 40, 40)
_INK, _PAPER, _FRAME = (30, 30, 30), (255, 255, 255), (120, 120, 120)
_GAP, _TEXT, _FONT = 8, 20, 13  # pixels: between cells; height of a line of text; size of its font


def default_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
  """Returns the VOC colours of classes 0 ... num_classes - 1 (at most 256).

  Bits 0, 1, 2 of the class number become the highest bits of red, green, blue, bits 3, 4, 5 the
  next ones, and so on.
  """
  colors = []
  for index in range(num_classes):
    color = [0, 0, 0]
    for bit in range(8):
      for channel in range(3):
        color[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    colors.append(tuple(color))
  return tuple(colors)


def colorize(label: np.ndarray, palette: Palette) -> np.ndarray:
  """Returns uint8 [h, w, 3]: each pixel of integer `label` [h, w] in its class's colour.

  Void and numbers outside the palette are drawn in VOID_COLOR.
  """
  table = np.array([*palette, VOID_COLOR], np.uint8)
  label = np.asarray(label).astype(np.int64)
  return table[np.where((label >= 0) & (label < len(palette)), label, len(palette))]


def save_palette_png(path: str | os.PathLike, label: np.ndarray, palette: Palette) -> None:
  """Writes `label` as a palette PNG: one byte a pixel, the class itself, void 255.

  Args:
    path: of the file.
    label: integers [h, w] in [0, 255].
    palette: colours of the classes; entry 255 of the file is VOID_COLOR, unused ones are black.
  """
  label = np.asarray(label)
  if label.ndim != 2 or label.min(initial=0) < 0 or label.max(initial=0) > 255:
    raise UserError(f'a palette PNG holds [h, w] classes from 0 to 255, got shape {label.shape}')
  table = np.zeros((256, 3), np.uint8)
  table[: len(palette)] = palette
  if len(palette) <= VOID:
    table[VOID] = VOID_COLOR
  picture = Image.fromarray(np.ascontiguousarray(label, np.uint8))
  picture.putpalette(table.tobytes())
  picture.save(path, format='PNG')


def overlay(
  image: np.ndarray, label: np.ndarray, palette: Palette, alpha: float = 0.5
) -> np.ndarray:
  """Blends the classes' colours into the image.

  Args:
    image: uint8 [h, w], [h, w, 1] or [h, w, 3].
    label: integers [h, w]; void pixels show the image alone.
    palette: colours of the classes.
    alpha: share of the colour, from 0 to 1.

  Returns:
    uint8 [h, w, 3].
  """
  image, label = _as_rgb(image), np.asarray(label)
  if image.shape[:2] != label.shape:
    raise UserError(f'image {image.shape[:2]} and label {label.shape} must be of one size')
  mixed = (1 - alpha) * image + alpha * colorize(label, palette)
  shown = (label >= 0) & (label < len(palette))
  return np.where(shown[..., None], np.rint(mixed).astype(np.uint8), image)


def error_map(image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
  """Returns uint8 [h, w, 3]: wrong pixels red on the faint gray image, void in VOID_COLOR."""
  gray = 50 + 0.5 * _as_rgb(image).mean(axis=-1, keepdims=True)
  shown = np.repeat(gray, 3, axis=-1).astype(np.uint8)
  shown[label != prediction] = WRONG_COLOR
  shown[label == VOID] = VOID_COLOR
  return shown


@functools.cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
  """Returns DejaVu Sans, which comes with matplotlib: Latin, Greek and Cyrillic, unlike Pillow's own."""
  import matplotlib

  return ImageFont.truetype(
    os.path.join(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf'), size
  )


def save(path: str | os.PathLike, picture: np.ndarray) -> None:
  """Writes uint8 [h, w, 3] as an image file; its folder is made if need be."""
  os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
  Image.fromarray(picture).save(path)


def panel(
  rows: Sequence[Row],
  palette: Palette,
  class_names: Sequence[str],
  *,
  captions: Sequence[str] | None = None,
  errors: bool = True,
  cell_size: int = 320,
) -> np.ndarray:
  """Draws image | truth | prediction | errors, a row an example, with titles and a legend.

  A column that no row has is left out, so the same picture serves as a contact sheet of labels.

  Args:
    rows: (image uint8 [h, w, c], label integers [h, w] or None, prediction [h', w'] or None). A
      smaller prediction or label is drawn at the image's centre.
    palette: colours of the classes.
    class_names: their names. With more than 24 only the classes that occur are in the legend.
    captions: a line under each row, such as the file's name and its mean IoU.
    errors: whether to draw where truth and prediction differ.
    cell_size: longer side of a drawn image, in pixels.

  Returns:
    uint8 [height, width, 3].
  """
  if not rows:
    raise UserError('panel needs at least one row')
  drawn = [_draw_row(row, palette, errors, cell_size) for row in rows]
  titles = [
    name for name in ('image', 'truth', 'prediction', 'errors') if any(name in d for d in drawn)
  ]

  def legend(width: int) -> Image.Image:
    shown = _legend_classes(rows, palette)
    return draw_legend(shown, palette, class_names, width, 'errors' in titles)

  return _sheet(drawn, titles, captions, legend)


def strips(
  rows: Sequence[Mapping[str, np.ndarray]],
  *,
  captions: Sequence[str] | None = None,
  cell_size: int = 320,
) -> np.ndarray:
  """Draws pictures that are ready, a row an example, under the titles of the first row.

  Args:
    rows: title -> uint8 [h, w, 3]; all of a row are of one size.
    captions: a line under each row.
    cell_size: longer side of a drawn picture, in pixels.

  Returns:
    uint8 [height, width, 3].
  """
  if not rows:
    raise UserError('strips needs at least one row')
  drawn = [_at_cell_size(row, cell_size) for row in rows]
  return _sheet(drawn, list(rows[0]), captions)


def _sheet(
  drawn: Sequence[Mapping[str, Image.Image]],
  titles: Sequence[str],
  captions: Sequence[str] | None,
  legend: Callable[[int], Image.Image] | None = None,
) -> np.ndarray:
  """Puts drawn rows under their titles, and below them the legend made for the sheet's width."""
  cell = tuple(max(size) for size in zip(*(d['image'].size for d in drawn), strict=True))
  step = (cell[0] + _GAP, cell[1] + _GAP + (_TEXT if captions else 0))
  width = max(_GAP + step[0] * len(titles), 2 * 160)
  below = legend(width) if legend else None
  top = _GAP + _TEXT
  height = top + step[1] * len(drawn) + (below.height if below else 0)
  sheet = Image.new('RGB', (width, height), _PAPER)
  draw, font = ImageDraw.Draw(sheet), load_font(_FONT)
  for column, title in enumerate(titles):
    draw.text((_GAP + column * step[0], _GAP // 2), title, fill=_INK, font=font)
  for line, cells in enumerate(drawn):
    y = top + line * step[1]
    for column, title in enumerate(titles):
      if title in cells:
        sheet.paste(cells[title], (_GAP + column * step[0], y))
    if captions:
      draw.text((_GAP, y + cell[1] + 2), captions[line], fill=_INK, font=font)
  if below:
    sheet.paste(below, (0, top + step[1] * len(drawn)))
  return np.asarray(sheet)


def save_confusion(
  path: str | os.PathLike, matrix: np.ndarray, class_names: Sequence[str], *, title: str = ''
) -> None:
  """Draws a confusion matrix: rows are true classes, each in per cent of its pixels.

  Args:
    path: of the PNG (or whatever matplotlib takes).
    matrix: integers [c, c], rows truth.
    class_names: c names.
    title: over the picture.
  """
  matrix = np.asarray(matrix, np.float64)
  total = matrix.sum(axis=1, keepdims=True)
  percent = 100 * np.divide(matrix, total, out=np.full_like(matrix, np.nan), where=total > 0)
  count = len(matrix)
  size = min(max(3.2, 1.6 + 0.42 * count), 24)
  figure = _new_figure((size + 1.0, size))
  axes = figure.add_subplot()
  axes.set_facecolor('0.85')  # seen where a class has no pixels
  shown = axes.imshow(percent, cmap='Blues', vmin=0, vmax=100)
  fontsize = 9 if count <= 40 else 5
  axes.set_xticks(range(count), class_names, rotation=90, fontsize=fontsize, parse_math=False)
  axes.set_yticks(range(count), class_names, fontsize=fontsize, parse_math=False)
  axes.set_xlabel('prediction')
  axes.set_ylabel('truth')
  axes.set_title(title, fontsize=10, parse_math=False)
  if count <= 40:
    for (row, column), value in np.ndenumerate(percent):
      if value >= 0.5:
        color = 'white' if value > 55 else 'black'
        axes.text(column, row, f'{value:.0f}', ha='center', va='center', color=color, fontsize=8)
  bar = figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.02)
  bar.set_label('% of the true class', fontsize=9)
  bar.ax.tick_params(labelsize=8)
  figure.savefig(path, dpi=120)


def save_class_bars(
  path: str | os.PathLike, values: np.ndarray, class_names: Sequence[str], *, title: str = ''
) -> None:
  """Draws a bar from 0 to 1 for every class, its number beside it; nan (absent) has none.

  Args:
    path: of the PNG.
    values: float [c].
    class_names: c names.
    title: over the picture.
  """
  values = np.asarray(values, np.float64)
  figure = _new_figure((5.2, min(0.9 + 0.26 * len(values), 40)))
  axes = figure.add_subplot()
  places = np.arange(len(values))
  axes.barh(places, np.nan_to_num(values), height=0.7)
  for place, value in zip(places, values, strict=True):
    words = '–' if np.isnan(value) else f'{value:.3f}'
    axes.text(np.nan_to_num(value) + 0.01, place, words, va='center', fontsize=8)
  axes.set_yticks(places, class_names, fontsize=9, parse_math=False)
  axes.set_xlim(0, 1.12)
  axes.set_xticks(np.linspace(0, 1, 6))
  axes.invert_yaxis()
  axes.grid(axis='x', alpha=0.3)
  axes.set_axisbelow(True)
  axes.set_title(title, fontsize=10, parse_math=False)
  figure.savefig(path, dpi=120)


def save_curves(path: str | os.PathLike, records: Sequence[Mapping[str, float]]) -> None:
  """Draws training curves: losses, scores, learning rate and speed against the step.

  Args:
    path: of the PNG.
    records: what metrics.jsonl holds: each has 'step' and any of 'train/loss/...', 'eval/...',
      'train/learning_rate', 'time/images_per_second'. What is not a finite number is left out.
  """
  groups = _group_curves(records)
  columns = min(max(len(groups), 1), 2)
  lines = max(-(-len(groups) // columns), 1)
  figure = _new_figure((5.2 * columns, 3.4 * lines))
  for position, (title, curves) in enumerate(groups.items()):
    axes = figure.add_subplot(lines, columns, position + 1)
    for name, points in sorted(curves.items()):
      steps, values = np.array(sorted(points)).T
      marker = '.' if len(steps) <= 40 else None
      axes.plot(steps, values, label=name, linewidth=1.3, marker=marker)
    lowest, highest = _range(curves)
    if title == 'loss' and lowest > 0 and highest > 30 * lowest:
      axes.set_yscale('log')
    if title == 'scores':
      axes.set_ylim(0, 1)
    if title == 'images per second':
      axes.set_ylim(0, 1.15 * highest)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel('step')
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
  figure.savefig(path, dpi=120)


def _new_figure(size: tuple[float, float]):
  """Returns a matplotlib figure on the Agg canvas, outside pyplot's global state."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=size, layout='constrained')
  FigureCanvasAgg(figure)
  return figure


def _group_curves(records) -> dict[str, dict[str, list[tuple[float, float]]]]:
  """Sorts the records' numbers into pictures: title -> name -> points."""
  groups: dict[str, dict] = {}
  for record in records:
    for key, value in record.items():
      title = _curve_title(key)
      if title and isinstance(value, (int, float)) and np.isfinite(value):
        points = groups.setdefault(title, {}).setdefault(key, [])
        points.append((float(record['step']), float(value)))
  losses = groups.get('loss', {})
  if len(losses) == 2 and 'train/loss' in losses:  # the one term is the total
    losses.pop(next(key for key in losses if key != 'train/loss'))
  order = ('loss', 'scores', 'learning rate', 'images per second')
  return {title: groups[title] for title in order if title in groups}


def _curve_title(key: str) -> str | None:
  words = key.split('/')
  if 'loss' in words[:-1] or words[-1] == 'loss':
    return 'loss'
  if words[-1] in ('learning_rate', 'lr'):
    return 'learning rate'
  if words[-1] == 'images_per_second':
    return 'images per second'
  if len(words) == 2 and words[-1].endswith(
    ('iou', 'accuracy', 'dice', 'f1', '_ap', '_ap50', '_ap75')
  ):
    return 'scores'
  return None


def _range(curves) -> tuple[float, float]:
  values = [value for points in curves.values() for _, value in points]
  return min(values), max(values)


def _as_rgb(image: np.ndarray) -> np.ndarray:
  image = np.asarray(image)
  if image.ndim == 2:
    image = image[..., None]
  if image.shape[-1] not in (1, 3):
    image = image[..., :1]
  return np.broadcast_to(image, (*image.shape[:2], 3))


def _centre(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Puts a smaller label in the middle of a void one of the given height and width."""
  label = np.asarray(label)
  if label.shape == size:
    return label
  top, left = (size[0] - label.shape[0]) // 2, (size[1] - label.shape[1]) // 2
  if top < 0 or left < 0:
    raise UserError(f'a label of {label.shape} does not fit its image of {size}')
  canvas = np.full(size, VOID, label.dtype)
  canvas[top : top + label.shape[0], left : left + label.shape[1]] = label
  return canvas


def _draw_row(row: Row, palette: Palette, errors: bool, cell_size: int) -> dict[str, Image.Image]:
  image, label, prediction = row
  image = _as_rgb(image)
  pictures = {'image': image}
  if label is not None:
    label = _centre(label, image.shape[:2])
    pictures['truth'] = colorize(label, palette)
  if prediction is not None:
    inside = np.zeros(prediction.shape, np.uint8)
    inside = _centre(inside, image.shape[:2]) == 0
    prediction = _centre(prediction, image.shape[:2])
    pictures['prediction'] = colorize(prediction, palette)
    if errors and label is not None:
      pictures['errors'] = error_map(image, np.where(inside, label, VOID), prediction)
  return _at_cell_size(pictures, cell_size)


def _at_cell_size(pictures: Mapping[str, np.ndarray], cell_size: int) -> dict[str, Image.Image]:
  """Brings the pictures of a row, all of one size, to that of a cell."""
  sides = pictures['image'].shape
  scale = cell_size / max(sides[:2])
  if scale > 1:
    scale = max(int(scale), 1)  # whole pixels stay square
  size = tuple(max(round(side * scale), 1) for side in sides[1::-1])
  smooth = Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.NEAREST
  return {
    name: Image.fromarray(np.ascontiguousarray(picture, np.uint8)).resize(
      size, smooth if name == 'image' else Image.Resampling.NEAREST
    )
    for name, picture in pictures.items()
  }


def _legend_classes(rows: Sequence[Row], palette: Palette) -> list[int]:
  if len(palette) <= 24:
    return list(range(len(palette)))
  found = [np.unique(label) for row in rows for label in row[1:] if label is not None]
  return [int(k) for k in np.unique(np.concatenate(found or [[]])) if k < len(palette)]


def draw_legend(classes, palette, class_names, width: int, errors: bool = False) -> Image.Image:
  """Draws coloured squares with the names of `classes`, in as many columns as the width takes."""
  entries = [(class_names[k], palette[k]) for k in classes] + [('void', VOID_COLOR)]
  if errors:
    entries.append(('wrong', WRONG_COLOR))
  font = load_font(_FONT)
  widest = max(font.getlength(name) for name, _ in entries)
  column = int(widest) + 22 + 2 * _GAP
  per_line = max(1, (width - _GAP) // column)
  lines = -(-len(entries) // per_line)
  legend = Image.new('RGB', (width, lines * _TEXT + 2 * _GAP), _PAPER)
  draw = ImageDraw.Draw(legend)
  for position, (name, color) in enumerate(entries):
    x = _GAP + position % per_line * column
    y = _GAP + position // per_line * _TEXT
    draw.rectangle((x, y + 1, x + 14, y + 15), fill=tuple(color), outline=_FRAME)
    draw.text((x + 20, y), name, fill=_INK, font=font)
  return legend
