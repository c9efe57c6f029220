"""Reads TIFF by tifffile: any dtype and bands, chunky or planar. A stack's pages are not bands."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

# Supported compressions, by the value of TIFF 6.0's tag.
_COMPRESSIONS = {
  1: 'none',
  2: 'CCITT',
  3: 'CCITT',
  4: 'CCITT',
  5: 'LZW',
  7: 'JPEG',
  8: 'deflate',
  32773: 'PackBits',
  32946: 'deflate',
  34925: 'LZMA',
  50000: 'Zstandard',
}
_GREYS, _RGB, _PALETTE, _YCBCR, _LAB = (0, 1), 2, 3, 6, (8, 9, 10)
_FURTHEST = 1 << 62
_NODATA = 42113  # GDAL's tag, a number in ASCII
_ALPHAS = (1, 2)  # of ExtraSamples: premultiplied or not

logging.getLogger('tifffile').setLevel(logging.CRITICAL)  # what matters raises an error


def open_page(file: BinaryIO, number: int) -> tuple[dict[str, Any], Callable[[], np.ndarray]]:
  """Returns the fields of a page's pages.Header, and a function that decodes its values [h, w, channels].

  Reduced copies of a page (pyramids) and transparency masks do not count as pages.

  Raises:
    ValueError: no such page, or an unsupported kind; tifffile raises others on damaged files.
  """
  import tifffile  # slow, and only needed for TIFF

  _check_chain(file)
  tiff = tifffile.TiffFile(file, name='file.tif')  # a descriptor's file has no name
  pages = [page for page in tiff.pages if not page.subfiletype & 5]
  stack = (tiff.imagej_metadata or {}).get('images', 1) if len(pages) == 1 else 1
  if not 0 <= number < max(len(pages), stack):
    raise ValueError(f'there is no page {number}')
  page = pages[0] if stack > 1 else pages[number].aspage()
  facts = _facts(page) | {'pages': max(len(pages), stack)}
  if stack > 1 and stack * page.nbytes > file.seek(0, os.SEEK_END):
    raise ValueError(f'it claims {stack:,} pages, and is too short for them')

  def decode() -> np.ndarray:
    values = tiff.series[0].asarray() if stack > 1 else page.asarray()
    if stack > 1:  # ImageJ describes only the first page; the others follow it
      values = values.reshape(stack, *facts['size'], -1)[number]
    if page.planarconfig == 2 and page.samplesperpixel > 1:
      values = np.moveaxis(values, 0, -1)
    return values.astype(facts['dtype'], copy=False).reshape(*facts['size'], facts['channels'])

  return facts, decode


def pages_are_channels(file: BinaryIO) -> bool:
  """Whether a TIFF's own metadata (ImageJ's, OME's) say that its pages are the channels of one image."""
  import tifffile  # slow, and only needed for TIFF

  _check_chain(file)
  tiff = tifffile.TiffFile(file, name='file.tif')
  if not (tiff.is_imagej or tiff.is_ome):
    return False
  sides = dict(zip(tiff.series[0].axes, tiff.series[0].shape, strict=True))
  return sides.get('C', 1) > 1 and {sides.get(axis, 1) for axis in 'ZTQI'} == {1}


def _check_chain(file: BinaryIO) -> None:
  """Raises ValueError for a cycle of pages, in which tifffile would loop for ever."""
  order, version = {b'II': 'little', b'MM': 'big'}[file.read(2)], file.read(2)
  large = 43 in version  # BigTIFF, with counts and offsets of 8 bytes
  wide, counts, entry = (8, 8, 20) if large else (4, 2, 12)
  number = lambda size: int.from_bytes(file.read(size), order)  # noqa: E731
  file.seek(8 if large else 4)
  seen, place = set(), number(wide)
  while place and place not in seen and place < _FURTHEST:
    seen.add(place)
    file.seek(place)
    count = number(counts)
    file.seek(min(place + counts + entry * count, _FURTHEST))
    place = number(wide)
  file.seek(0)
  if place in seen:
    raise ValueError('its pages follow each other in a circle')


def _facts(page: Any) -> dict[str, Any]:
  compression, kind = int(page.compression), int(page.photometric)
  if compression not in _COMPRESSIONS:
    raise ValueError(
      f'its compression {_name(page.compression)} is not read: save it with LZW or deflate'
    )
  stored = (
    kind == _YCBCR and _COMPRESSIONS[compression] != 'JPEG'
  )  # only there tifffile converts to RGB
  if page.dtype is None or kind in _LAB or stored or page.imagedepth > 1:
    raise ValueError(
      f'pixels of its kind ({_name(page.photometric)}) are not read: save them as RGB or grey'
    )
  channels = page.samplesperpixel
  alpha = len(page.extrasamples) == 1 and int(page.extrasamples[0]) in _ALPHAS
  colours = channels - len(page.extrasamples)
  space = 'bands'
  if kind == _PALETTE and channels == 1 and page.colormap is not None:
    space = 'palette'
  elif channels - alpha == 1 and kind in _GREYS:
    space = 'grey'
  elif channels - alpha == 3 == colours and kind in (_RGB, _YCBCR):
    space = 'rgb'
  orientation = page.tags.get(274)
  orientation = int(orientation.value) if orientation else 1
  return {
    'size': (page.imagelength, page.imagewidth),
    'channels': channels,
    'dtype': np.dtype(np.uint8 if page.dtype == bool else page.dtype).newbyteorder('='),
    'bits': int(np.max(page.bitspersample)),
    'space': space,
    'alpha': alpha,
    'palette': _palette(page.colormap) if space == 'palette' else None,
    'white_is_zero': kind == 0,
    'orientation': orientation if orientation in range(1, 9) else 1,
    'lossy': 'JPEG' if compression == 7 else '',
    'nodata': _nodata(page.tags.get(_NODATA)),
  }


def _name(value: Any) -> str:
  """Returns a member of tifffile's enumerations by its name, as LZW, or an unknown number."""
  return str(getattr(value, 'name', value))


def _nodata(tag: Any) -> float | None:
  try:
    value = float(tag.value) if tag else math.nan
  except (TypeError, ValueError):
    return None
  return value if math.isfinite(value) else None


def _palette(colormap: np.ndarray) -> np.ndarray:
  """Converts TIFF's uint16 [3, n] to uint8 [n, 3]; some programs use only the lower 8 bits."""
  return (colormap.T >> (8 if colormap.max() > 255 else 0)).astype(np.uint8)
