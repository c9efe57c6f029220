"""Pages: the only reader of picture files, for images and masks alike; lossless, without guesses.

A page is what a file stores: values in their own dtype, palette indices as indices, and its metadata.
image_files.py makes images of pages, mask_files.py masks. Pillow reads, not OpenCV: only Pillow
preserves palette indices and 1-bit masks, and rejects a truncated JPEG. TIFF, with any dtype and
number of bands, is read by tifffile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from jaxseg import files
from jaxseg.data import raw_files, tiff_pages
from jaxseg.data.geometry import exif_turn
from jaxseg.types import UserError

# Formats to decode, whatever a file's name; Pillow's others are disabled, as some start programs.
FORMATS = ('PNG', 'JPEG', 'TIFF', 'BMP', 'WebP', 'GIF')
SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.webp', '.gif')
UNREAD = (  # of other pictures
  *('.jp2', '.j2k', '.jpx', '.jxl', '.jpe', '.jfif', '.heic', '.heif', '.avif', '.apng', '.dib'),
  *('.ppm', '.pgm', '.pbm', '.pnm', '.pam', '.tga', '.pcx', '.exr', '.dcm', '.npy', '.npz'),
)
_PILLOWS = [name.upper() for name in FORMATS if name != 'TIFF']
_OTHERS = {  # in the first bytes -> name of the format
  b'jP  ': 'JPEG 2000',
  b'\xff\x4f\xff\x51': 'JPEG 2000',
  b'ftypavi': 'AVIF',
  b'ftyphei': 'HEIC',
  b'ftypmif': 'HEIC',
  b'%!PS': 'PostScript',
  b'%PDF': 'PDF',
  b'8BPS': 'Photoshop',
}
_MOST_BYTES = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2  # of decoded pixels
_START = 32  # bytes that identify a format
_PNG = b'\x89PNG\r\n\x1a\n'
_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_ORIENTATION = 0x0112  # the EXIF tag for how viewers orient the image
_KIND = 262  # TIFF's tag, 0 where 0 is white
_MODES = {  # Pillow's -> space, channels, alpha
  '1': ('grey', 1, False),
  'L': ('grey', 1, False),
  'I': ('grey', 1, False),
  'I;16': ('grey', 1, False),
  'F': ('grey', 1, False),
  'LA': ('grey', 2, True),
  'P': ('palette', 1, False),
  'PA': ('palette', 2, True),
  'RGB': ('rgb', 3, False),
  'CMYK': ('cmyk', 3, False),  # converted to RGB by Pillow
  'RGBA': ('rgb', 4, True),
}
_TYPES = {'I': np.int32, 'I;16': np.uint16, 'F': np.float32}  # uint8 otherwise
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type in its header
# Sizes are checked here, and damaged tags do not affect the pixels.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)
warnings.filterwarnings('ignore', category=UserWarning, module=r'PIL\.')


@dataclasses.dataclass(frozen=True)
class Header:
  """A page's metadata.

  Attributes:
    format: one of FORMATS, or 'array' for an image in memory.
    size: (height, width) as stored, in pixels.
    channels: including alpha.
    dtype: of the values; uint8 for fewer than 8 bits.
    bits: per value.
    space: 'grey', 'rgb', 'cmyk' (converted to RGB), 'palette', or 'bands' without a declared meaning.
    alpha: whether the last channel is declared as alpha.
    palette: uint8 [n, 3], the colours of indices.
    white_is_zero: whether viewers show 0 as white (TIFF's photometric interpretation 0).
    orientation: EXIF's, 1 to 8.
    lossy: the lossy compression; '' for none.
    pages: number of pages in the file.
    nodata: the value that means no data, in GeoTIFF.
  """

  format: str
  size: tuple[int, int]
  channels: int
  dtype: np.dtype
  bits: int = 8
  space: str = 'grey'
  alpha: bool = False
  palette: np.ndarray | None = None
  white_is_zero: bool = False
  orientation: int = 1
  lossy: str = ''
  pages: int = 1
  nodata: float | None = None

  @property
  def upright_size(self) -> tuple[int, int]:
    """(height, width) with `orientation` applied."""
    return self.size[::-1] if self.orientation > 4 else self.size


@dataclasses.dataclass(frozen=True)
class Page:
  """A page of a file: `header`, and `decode`, whose result `values` caches."""

  path: Path
  header: Header
  decode: Callable[[], np.ndarray]

  @functools.cached_property
  def values(self) -> np.ndarray:
    """The values [h, w, channels] as stored: not rotated, scaled, inverted or converted."""
    with _naming(self.path):
      return self.decode()


def read(path: Path, data: bytes | None = None, page: int = 0) -> Page:
  """Returns a page of a picture file; `data` is its content, if already read.

  Raises:
    UserError: no file, none of FORMATS, damaged, no such page, or larger than memory.
  """
  data = raw_files.read_bytes(path) if data is None else data
  with _naming(path):
    _check_png(data)
    if data.startswith(_TIFF):
      facts, decode = tiff_pages.open_page(io.BytesIO(data), page)
      header = Header('TIFF', **facts)
      _check_size(path, *header.size, header.channels * header.dtype.itemsize)
      return Page(path, header, decode)
    image = _opened(path, io.BytesIO(data), data[:_START])
    _check_size(path, image.height, image.width, len(image.getbands()))
    image.seek(page)
    image.load()  # rejects damaged files, which reading the tags first would tolerate
    header = _header(image, data[:_START])
  # OpenCV, for JPEG as records are decoded, and for 16-bit colour. Only one of the two stays in memory.
  by_opencv = header.bits == 16 or header.format == 'JPEG' and image.mode in ('L', 'RGB')
  return Page(path, header, functools.partial(_values, data if by_opencv else image, header))


def read_header(path: Path, page: int = 0) -> Header:
  """Returns a page's metadata without decoding the page; errors as `read`."""
  with _naming(path), files.opened(path) as file:
    start = file.read(_START)
    file.seek(0)
    if start.startswith(_TIFF):
      return Header('TIFF', **tiff_pages.open_page(file, page)[0])
    image = _opened(path, file, start)
    if image.format == 'PNG' and not _has_late_tags(file):
      image.info.setdefault('exif', b'')  # else Pillow decodes everything to look for it
    return _header(image, start)


def are_channels(path: Path) -> bool:
  """Whether a file's own metadata say that its pages are the channels of one image; errors as `read`."""
  with _naming(path), files.opened(path) as file:
    start = file.read(_START)
    file.seek(0)
    return start.startswith(_TIFF) and tiff_pages.pages_are_channels(file)


def of_picture(image: Image.Image) -> Page:
  """Returns the page of a Pillow image, opened from a file or made in memory.

  Raises:
    UserError: a file of which not all can be decoded.
  """
  with _naming(Path('image')):
    if _is_changed_by_pillow(image):
      raise ValueError(
        'Pillow changes its values (16 bits of colour, or 0 shown as white): give its path'
      )
    image.load()  # in which Pillow turns a TIFF and drops the tag that asks for it
  header = dataclasses.replace(_header(image, b''), format='array', lossy='')
  return Page(Path('image'), header, functools.partial(_values, image, header))


def _is_changed_by_pillow(image: Image.Image) -> bool:
  """Whether an unread file's colours of 16 bits become 8, or its deep greys stay inverted."""
  deep = image.mode.startswith(('I', 'F'))
  colours = not deep and any(';16' in str(tile[-1]) for tile in getattr(image, 'tile', ()))
  return colours or deep and getattr(image, 'tag_v2', {}).get(_KIND) == 0


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
  """Applies EXIF's `orientation`, 1 to 8, to [h, w, ...]."""
  swap, flip_rows, flip_columns = exif_turn(orientation)
  values = values.swapaxes(0, 1) if swap else values
  return values[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _check_size(path: Path, height: int, width: int, depth: int) -> None:
  """Rejects empty images, and those beyond Pillow's limit or, with `depth` bytes per pixel, the memory."""
  limit = Image.MAX_IMAGE_PIXELS
  if not height * width:
    raise ValueError(f'it has {height} x {width} pixels')
  if limit and height * width > 2 * limit:
    raise Image.DecompressionBombError
  if height * width * depth > _MOST_BYTES:
    raise UserError(
      f'{path} claims {height * width * depth / 1e9:.1f} GB of pixels, more than half of this memory: '
      'cut it into tiles'
    )


def _check_png(data: bytes) -> None:
  """Rejects a PNG with a flipped bit in what makes the pixels, which Pillow would decode to other ones."""
  view, kind, place = memoryview(data), b'', len(_PNG) if data.startswith(_PNG) else len(data)
  while kind != b'IEND' and place + 12 <= len(data):
    end = place + 8 + int.from_bytes(view[place : place + 4])
    kind = data[place + 4 : place + 8]
    wrong = zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4])
    if wrong and kind[:1].isupper() and end + 4 <= len(data):
      raise ValueError('its checksum is wrong')
    place = end + 4


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
  """Converts the many exceptions of readers on damaged files to UserError."""
  try:
    yield
  except (UserError, MemoryError):
    raise
  except FileNotFoundError:
    raise UserError(f'missing file: {path}') from None
  except Image.DecompressionBombError:
    raise UserError(
      f'{path} claims more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels and is not decoded: cut it '
      'into tiles, or remove it'
    ) from None
  except Exception as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(f'cannot decode {path}: {reason}; restore the file') from None


def _opened(path: Path, file: BinaryIO, start: bytes) -> Image.Image:
  """Opens a file of FORMATS except TIFF with Pillow, without decoding it."""
  if start.startswith(b'\x89PNG') and start[12:16] != b'IHDR':
    raise ValueError('its PNG does not begin with its header')
  try:
    return Image.open(file, formats=_PILLOWS)
  except Image.UnidentifiedImageError:
    kind = next(
      (f'a {kind} file' for word, kind in _OTHERS.items() if word in start), 'not an image'
    )
    raise UserError(
      f'cannot decode {path}: {kind}; restore it, or save it as one of {", ".join(FORMATS)}'
    ) from None


def _header(image: Image.Image, start: bytes) -> Header:
  if image.mode not in _MODES:
    raise ValueError(f'pixels of mode {image.mode} are not read')
  space, channels, alpha = _MODES[image.mode]
  bits, dtype = 1 if image.mode == '1' else 8, np.dtype(_TYPES.get(image.mode, np.uint8))
  if start.startswith(b'\x89PNG'):  # Pillow expands 2 and 4 bits, and reduces 16-bit colour
    bits, dtype = start[24], np.dtype(np.uint16 if start[24] == 16 else np.uint8)
    channels = _PNG_CHANNELS[start[25]]
  lossy = {'JPEG': 'JPEG', 'MPO': 'JPEG', 'WEBP': 'WebP'}.get(image.format, '')
  phone = image.format == 'MPO'  # it has a second view after the photograph
  return Header(
    {'MPO': 'JPEG', 'WEBP': 'WebP'}.get(image.format, image.format),
    (image.height, image.width),
    channels,
    dtype,
    bits=bits,
    space=space,
    alpha=alpha,
    palette=_palette(image) if space == 'palette' else None,
    orientation=_orientation(image),
    lossy='' if start[12:16] == b'VP8L' else lossy,
    pages=1 if phone else getattr(image, 'n_frames', 1),
  )


def _has_late_tags(file: BinaryIO) -> bool:
  """Whether a PNG has text or EXIF after its pixels."""
  behind = False
  file.seek(8)
  while len(start := file.read(8)) == 8:
    kind = start[4:]
    behind |= kind == b'IDAT'
    if behind and kind in (b'eXIf', b'iTXt', b'tEXt', b'zTXt'):
      return True
    file.seek(int.from_bytes(start[:4]) + 4, os.SEEK_CUR)
  return False


def _palette(image: Image.Image) -> np.ndarray:
  return np.array(image.getpalette('RGB'), np.uint8).reshape(-1, 3)


def _orientation(image: Image.Image) -> int:
  try:
    orientation = image.getexif().get(_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1
  except Exception:  # Pillow raises many types on damaged tags
    return 1


def _values(stored: Image.Image | bytes, header: Header) -> np.ndarray:
  if isinstance(stored, bytes):
    values = _opencv(stored)
    if header.channels == 2:
      values = values[..., ::3]  # OpenCV repeats grey before alpha
  else:
    values = np.asarray(stored.convert('RGB') if stored.mode == 'CMYK' else stored)
  values = values.astype(header.dtype, copy=False).reshape(*header.size, -1)[..., : header.channels]
  if header.space == 'grey' and 1 < header.bits < 8:
    return values // (255 // (2**header.bits - 1))
  return values


def _opencv(data: bytes) -> np.ndarray:
  values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
  if values is None:
    raise ValueError('OpenCV cannot read it')
  if values.ndim == 2:
    return values
  return cv2.cvtColor(values, cv2.COLOR_BGR2RGB if values.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
