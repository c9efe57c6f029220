"""Images: from a page of a file to the network's input, and to the encoded form in records.

An image is what viewers show, in its own values: upright, palette indices and CMYK (not in TIFF, whose bands stay) as RGB, fewer
than 8 bits scaled to 0..255, inverted if the file says that 0 is white, and otherwise as stored in
the file. It keeps its dtype, one of TYPES; nothing is ever scaled to 8 bits.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from jaxseg.data import pages, raw_files
from jaxseg.data.pages import Header, Page
from jaxseg.types import UserError

TYPES = ('uint8', 'uint16', 'int16', 'float32')  # of images, in records and on the device
_EXACT = 1 << 24  # integers up to it are exact in float32
_LUMA = (19595, 38470, 7471)  # of red, green, blue in units of 1/65536 (ITU-R BT.601), as in Pillow
_MOST_PIXELS, _MOST_ROWS = 1 << 30, 1 << 20  # that OpenCV decodes


@dataclasses.dataclass(frozen=True)
class EncodedImage:
  """An image as PNG or JPEG bytes for `decode`, with its size in pixels."""

  data: bytes
  height: int
  width: int


def kind(header: Header) -> tuple[int, str]:
  """Returns an image's own channels and dtype.

  A declared alpha channel does not count, except in TIFF, where writers declare any fourth band so.
  """
  if header.space == 'palette':
    return 3, 'uint8'
  channels = header.channels - (header.alpha and header.format != 'TIFF')
  sign, bytes_ = header.dtype.kind, header.dtype.itemsize
  if sign == 'f' or bytes_ > 2:
    return channels, 'float32'
  return channels, 'int16' if sign == 'i' else f'uint{8 * bytes_}'


def read_image(
  path: Path, *, channels: int = 3, dtype: str = 'uint8', page: int | None = None
) -> np.ndarray:
  """Reads an image [h, w, channels] from a file's page `number`, None: its only one; see `as_image`."""
  return as_image(_page(path, None, page), channels=channels, dtype=dtype)


def encode_image(
  path: Path, *, channels: int = 3, dtype: str = 'uint8', number: int | None = None
) -> EncodedImage:
  """Reads a file's page `number`, None: its only one, for the records; see `as_image`.

  A PNG or JPEG of 8-bit RGB (or grey) that needs no rotation is stored byte for byte.
  """
  data = raw_files.read_bytes(path)
  page = _page(path, data, number)
  header = page.header
  as_it_is = header.format in ('PNG', 'JPEG') and header.bits == 8 and header.orientation == 1
  plain = header.space == 'grey' or header.space == 'rgb' and channels == 3
  if as_it_is and plain and not header.alpha and channels in (1, 3) and dtype == 'uint8':
    return EncodedImage(data, *header.size)
  if header.space == 'grey' and channels == 3 and dtype == 'uint8':
    channels = 1  # decoding repeats it
  return encode_pixels(as_image(page, channels=channels, dtype=dtype))


def _page(path: Path, data: bytes | None, number: int | None = None) -> Page:
  page = pages.read(path, data, number or 0)
  if number is None and page.header.pages > 1:
    raise UserError(
      f'{path} holds {page.header.pages} pictures (pages are no bands): save each as a file of its own'
    )
  return page


def as_image(page: Page, *, channels: int, dtype: str) -> np.ndarray:
  """Converts a page to an image [h, w, channels] of one of TYPES.

  Alpha is dropped unless requested as a channel, grey is repeated for three channels, and RGB
  converted to grey for one. A float32 set accepts all dtypes, unscaled.

  Raises:
    UserError: damaged, other bands or another dtype, NaN or inf, or integers not exact in float32 (above
      2**24).
  """
  header, values = page.header, page.values
  if header.nodata and values.dtype.kind in 'if' and (values == header.nodata).any():
    raise UserError(
      f'{page.path} holds the value {header.nodata:g}, which by its tag is no data: give these pixels one, and '
      'the mask void (255) there'
    )
  if header.space == 'palette':
    table = np.zeros((1 << max(header.bits, 8), 3), np.uint8)
    table[: len(header.palette)] = header.palette
    values = table[values[..., 0]]
  elif header.bits < 8:
    values = values * np.uint8(255 // (2**header.bits - 1))
  if header.white_is_zero and values.dtype.kind == 'u':
    values = values.dtype.type(2 ** max(header.bits, 8) - 1) - values
  values = pages.turned(values, header.orientation)
  colour = header.space in ('rgb', 'cmyk', 'palette')
  return fitted(
    values, channels=channels, dtype=dtype, name=page.path, alpha=header.alpha, colour=colour
  )


def fitted(
  values: np.ndarray,
  *,
  channels: int,
  dtype: str,
  name: Path | str = 'image',
  alpha: bool = False,
  colour: bool = True,
) -> np.ndarray:
  """Returns [h, w] or [h, w, c] as [h, w, channels] of `dtype`; see `as_image`.

  Args:
    values: of any dtype.
    channels, dtype: of the result.
    name: for messages.
    alpha: whether the last channel is alpha.
    colour: whether three channels are red, green and blue.
  """
  values = values[..., None] if values.ndim == 2 else values
  have = values.shape[-1]
  if alpha and have == channels + 1 or alpha and have in (2, 4) and channels in (1, 3):
    values, have = values[..., :-1], have - 1
  if have == 1 and channels == 3:
    values = np.repeat(values, 3, axis=-1)
  elif have == 3 and channels == 1 and colour:
    values = _luma(values)
  elif have != channels:
    raise UserError(
      f'{name} has {have} channels, and {channels} are expected: config.data.mean and std have a value '
      'for each channel of the images'
    )
  return np.ascontiguousarray(_typed(values, dtype, name))


def _luma(values: np.ndarray) -> np.ndarray:
  if values.dtype.kind == 'f':
    return (values @ (np.array(_LUMA) / 65536))[..., None].astype(values.dtype)
  return ((values.astype(np.int64) @ np.array(_LUMA) + 32768) >> 16)[..., None].astype(values.dtype)


def _typed(values: np.ndarray, dtype: str, name: Path | str) -> np.ndarray:
  if values.dtype == np.int8:
    values = values.astype(np.int16)
  if values.dtype != dtype and dtype != 'float32':
    raise UserError(
      f'{name} is {values.dtype}, and {dtype} is expected: set config.data.dtype to the type of all '
      'images (and mean and std to its units), or to float32, which takes every type by its values'
    )
  if values.dtype.kind in 'iu' and dtype == 'float32':
    if max(abs(int(values.max(initial=0))), abs(int(values.min(initial=0)))) > _EXACT:
      raise UserError(
        f'{name} is {values.dtype} with values above 2**24, which float32 does not hold exactly: '
        'save it as uint16 or float32'
      )
  if values.dtype.kind not in 'iuf':
    raise UserError(f'{name} is {values.dtype}; allowed are {", ".join(TYPES)}')
  values = values.astype(dtype, copy=False)
  if dtype == 'float32' and not np.isfinite(values).all():
    count = int((~np.isfinite(values)).sum())
    raise UserError(f'{name} holds {count} values that are no numbers (nan, inf): give them one')
  return values


def encode_pixels(pixels: np.ndarray) -> EncodedImage:
  """Encodes [h, w] or [h, w, c] of one of TYPES losslessly.

  uint8 of one or three channels is an ordinary PNG. Otherwise channels are stacked vertically, and
  float32 as the two halves of its bits, in a grey PNG of 8 or 16 bits.
  """
  height, width = pixels.shape[:2]
  if pixels.dtype == np.uint8 and (pixels.ndim == 2 or pixels.shape[2] in (1, 3)):
    return EncodedImage(encode_png(pixels), height, width)
  if pixels.dtype != np.uint8:
    pixels = np.ascontiguousarray(pixels).reshape(height, width, -1).view(np.uint16)
  planes = np.moveaxis(pixels, -1, 0).reshape(-1, width)
  if planes.size > _MOST_PIXELS or len(planes) > _MOST_ROWS:
    raise UserError(
      f'an image of {pixels.shape} values is too large to be stored: cut it into tiles'
    )
  return EncodedImage(encode_png(planes), height, width)


def encode_png(pixels: np.ndarray) -> bytes:
  """Encodes uint8 or uint16 [h, w], or RGB uint8 [h, w, 3], losslessly."""
  if pixels.ndim == 3 and pixels.shape[2] == 3:
    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
  ok, data = cv2.imencode('.png', pixels, (cv2.IMWRITE_PNG_COMPRESSION, 3))
  if not ok:
    raise ValueError(f'OpenCV could not encode {pixels.dtype} {pixels.shape} as PNG')
  return data.tobytes()


def decode(data: bytes, *, channels: int, dtype: str) -> np.ndarray | None:
  """Returns the image [h, w, channels] of an EncodedImage's data, None if it is damaged."""
  plain = dtype == 'uint8' and channels in (1, 3)
  flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
  flag = flag | cv2.IMREAD_IGNORE_ORIENTATION if plain else cv2.IMREAD_UNCHANGED
  pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
  if pixels is None:
    return None
  if plain:
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if channels == 3 else pixels[..., None]
  planes = channels * (2 if dtype == 'float32' else 1)
  planes = pixels.reshape(planes, -1, pixels.shape[-1])
  return np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view(dtype)
