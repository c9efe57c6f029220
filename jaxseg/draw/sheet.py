"""A sheet of samples, each as image and mask (and weight map, where there is one), with a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from jaxseg.draw import labels

_PAPER, _INK = (255, 255, 255), (30, 30, 30)
_GAP, _LINE = 8, 20  # pixels between pictures; height of a caption


def pick_samples(counts: np.ndarray, number: int) -> list[int]:
  """Chooses examples that show every class: for each, the rarest first, one that holds most of it.

  Args:
    counts: integer [n, c], pixels of each class in each example.
    number: of examples wanted; what the classes leave free is spread evenly over the set.
  """
  chosen: list[int] = []
  totals = counts.sum(axis=0)
  for k in np.argsort(totals, kind='stable'):
    if len(chosen) < number and totals[k] and not counts[chosen, k].any():
      chosen.append(int(np.argmax(counts[:, k])))
  spread = np.linspace(0, len(counts) - 1, min(number, len(counts))).round().astype(int).tolist()
  rest = [i for i in (*spread, *range(len(counts))) if i not in chosen]
  chosen += list(dict.fromkeys(rest))[: max(number - len(chosen), 0)]
  return sorted(chosen)


def contact_sheet(
  examples: Sequence[Mapping[str, np.ndarray]],
  palette: labels.Palette,
  class_names: Sequence[str],
  captions: Sequence[str],
  *,
  columns: int = 2,
  cell_size: int = 230,
) -> np.ndarray:
  """Draws the examples in a grid.

  Args:
    examples: each with image uint8 [h, w, c], label integers [h, w] and perhaps weight [h, w].
    palette: colours of the classes.
    class_names: their names.
    captions: a line under each example.
    columns: examples side by side.
    cell_size: longer side of each picture, in pixels; small ones come as near as whole pixels do.

  Returns:
    uint8 [height, width, 3].
  """
  drawn = [_pictures(example, palette, cell_size) for example in examples]
  across, height = len(drawn[0]), max(p.height for group in drawn for p in group)
  cell_size = max(p.width for group in drawn for p in group)
  group_width = across * (cell_size + _GAP) + _GAP
  columns = min(columns, len(drawn))
  width, step = columns * group_width + _GAP, height + _LINE + _GAP
  lines = -(-len(drawn) // columns)
  shown = range(len(palette))
  if len(palette) > 24:
    shown = sorted({int(k) for e in examples for k in np.unique(e['label']) if k < len(palette)})
  legend = labels.draw_legend(shown, palette, class_names, width)
  sheet = Image.new('RGB', (width, _GAP + lines * step + legend.height), _PAPER)
  draw, font = ImageDraw.Draw(sheet), labels.load_font(12)
  for place, (group, caption) in enumerate(zip(drawn, captions, strict=True)):
    x, y = _GAP + place % columns * group_width, _GAP + place // columns * step
    for number, picture in enumerate(group):
      sheet.paste(picture, (x + number * (cell_size + _GAP), y))
    draw.text((x, y + height + 1), caption[: group_width // 8], fill=_INK, font=font)
  sheet.paste(legend, (0, _GAP + lines * step))
  return np.asarray(sheet)


def _pictures(example, palette, cell_size: int) -> list[Image.Image]:
  """Returns image, mask and weight map, all at one scale."""
  image, label, weight = example['image'], example['label'], example.get('weight')
  scale = cell_size / max(label.shape)
  if scale > 1:
    scale = round(scale)  # whole pixels stay square
  size = tuple(max(round(side * scale), 1) for side in label.shape[::-1])
  smooth = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
  rgb = np.broadcast_to(image, (*label.shape, 3)) if image.shape[-1] == 1 else image
  pictures = [Image.fromarray(np.ascontiguousarray(rgb)).resize(size, smooth)]
  masks = [labels.colorize(label, palette)]
  if weight is not None:
    masks.append(_heat(weight))
  return pictures + [Image.fromarray(m).resize(size, Image.Resampling.NEAREST) for m in masks]


def _heat(weight: np.ndarray) -> np.ndarray:
  """Black (0) over red to yellow (the largest weight here)."""
  share = np.sqrt(weight / max(float(weight.max()), 1e-6))  # the square root shows small weights
  channels = [np.clip(3 * share - k, 0, 1) for k in range(3)]
  return np.rint(255 * np.stack(channels, axis=-1)).astype(np.uint8)
