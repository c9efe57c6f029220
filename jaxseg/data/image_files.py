"""Raw images and masks as people store them, read once at build time and made uniform.

Pillow reads here, not OpenCV: only Pillow keeps palette indices, 1-bit masks and 16-bit depth
apart, and only Pillow refuses a truncated JPEG.
"""

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from jaxseg import files
from jaxseg.data.problems import some
from jaxseg.types import VOID, UserError

_ORIENTATION = 0x0112  # the EXIF tag that asks viewers to turn the image
# What can be decoded is no bomb, and damaged tags are none of the pixels' business.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)
warnings.filterwarnings('ignore', category=UserWarning, module=r'PIL\.')
_VERBATIM = {1: ('L',), 3: ('RGB', 'L')}


@dataclasses.dataclass(frozen=True)
class EncodedImage:
  """An 8-bit RGB or grey image as PNG or JPEG bytes, with its size in pixels."""

  data: bytes
  height: int
  width: int


def list_images(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
  """Returns the files of `folder` with one of the suffixes, by name; hidden files are left out."""
  try:
    if not folder.is_dir():
      raise UserError(f'no such folder: {folder}')
    paths = [p for p in folder.iterdir() if not p.name.startswith('.')]
    for path in paths:
      if files.is_remote(folder):
        break  # it holds no links
      if path.suffix.lower() in suffixes and path.is_symlink() and not path.exists():
        raise UserError(f'{path} is a link that leads nowhere: mend or remove it')
    return sorted(p for p in paths if p.suffix.lower() in suffixes and p.is_file())
  except OSError as error:
    raise UserError(f'cannot read {folder}: {error.strerror or error}') from None


def read_bytes(path: Path) -> bytes:
  """Returns the content of a file that must exist and hold something."""
  return _needed(path, files.read_bytes)


def read_text(path: Path) -> str:
  """Returns the text of a UTF-8 file that must exist and hold something."""
  return _needed(path, files.read_text)


def _needed(path: Path, read: Callable[[Path], Any]) -> Any:
  try:
    content = read(path)
  except FileNotFoundError:
    raise UserError(f'missing file: {path}') from None
  if not content:
    raise UserError(f'{path} is empty (0 bytes): restore it or take it out of the dataset')
  return content


def open_image(path: Path, data: bytes | None = None, page: int = 0) -> Image.Image:
  """Returns one fully decoded page of an image file; a damaged one is a UserError."""
  data = read_bytes(path) if data is None else data
  try:
    image = Image.open(io.BytesIO(data))
    if page:
      image.seek(page)
    image.load()
  except Image.DecompressionBombError:
    raise UserError(
      f'{path} claims more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels, and its {len(data):,} bytes '
      'are not decoded: cut it into tiles, or remove it'
    ) from None
  except Exception as error:  # Pillow's readers raise many types on damaged files
    reason = 'not an image' if isinstance(error, Image.UnidentifiedImageError) else error
    raise UserError(f'cannot decode {path}: {reason}; restore the file') from None
  return image


@contextlib.contextmanager
def header(path: Path) -> Iterator[Image.Image]:
  """Gives an image that is not decoded yet, so that little more than its first bytes are read."""
  if not files.is_remote(path):
    with Image.open(path) as image:
      yield image
    return
  with path.open('rb') as file, Image.open(file) as image:
    yield image


def mode(path: Path) -> str:
  """Returns Pillow's name for the kind of an image's pixels, from its first bytes alone."""
  try:
    with header(path) as image:
      return image.mode
  except Exception as error:  # Pillow's readers raise many types on damaged files
    raise UserError(f'cannot decode {path}: {error}; restore the file') from None


def encode_image(path: Path, *, channels: int = 3, white: int = 65535) -> EncodedImage:
  """Reads an image and returns it as 8-bit RGB or grey, upright.

  A PNG or JPEG that already is 8-bit RGB (or grey) and carries no EXIF rotation is kept byte for
  byte. Everything else (palette, alpha, CMYK, 1-bit, 16-bit, TIFF, rotated) becomes a PNG: alpha is
  dropped, EXIF rotation applied, and 16-bit greys scaled so that `white` becomes 255.

  Args:
    path: the image file.
    channels: 3, or 1 to turn colour into grey (ITU-R 601 luma).
    white: the value of a 16-bit grey image that becomes 255; larger ones clip.
  """
  data = read_bytes(path)
  image = open_image(path, data)
  frames = getattr(image, 'n_frames', 1)
  if frames > 1 and image.format != 'MPO':  # phones keep a second view behind the photograph
    raise UserError(f'{path} holds {frames} pictures: save each as a file of its own')
  upright = _orientation(image) in (0, 1)
  eight_bit = image.format == 'JPEG' or (image.format == 'PNG' and data[24] == 8)
  if upright and eight_bit and image.mode in _VERBATIM[channels]:
    return EncodedImage(data, image.height, image.width)
  try:
    return encode_pixels(to_eight_bit(image, channels=channels, white=white))
  except ValueError as error:  # Pillow has no way from this mode to RGB
    raise UserError(f'{path}: {error}; save it as 8-bit RGB or grey') from None


def _orientation(image: Image.Image) -> int:
  try:
    return image.getexif().get(_ORIENTATION, 1)
  except Exception:  # Pillow's readers raise many types on damaged tags
    return 1


def to_eight_bit(image: Image.Image, *, channels: int, white: int = 65535) -> np.ndarray:
  """Returns uint8 [h, w] (grey) or [h, w, 3] (RGB), upright; see encode_image."""
  if _orientation(image) not in (0, 1):
    image = ImageOps.exif_transpose(image)
  if image.mode == 'F':
    raise ValueError('its pixels are floating-point numbers of an unknown range')
  if image.mode.startswith('I'):
    grey = np.asarray(image).astype(np.float32) * np.float32(255 / white)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
  grey = channels == 1 or image.mode in ('1', 'L', 'LA')
  return np.asarray(image.convert('L' if grey else 'RGB'))


def encode_pixels(pixels: np.ndarray) -> EncodedImage:
  """Encodes uint8 [h, w] or RGB uint8 [h, w, 3] as PNG."""
  return EncodedImage(encode_png(pixels), *pixels.shape[:2])


def encode_png(pixels: np.ndarray) -> bytes:
  """Encodes uint8 or uint16 [h, w], or RGB uint8 [h, w, 3], losslessly."""
  if pixels.ndim == 3:
    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
  ok, data = cv2.imencode('.png', pixels, (cv2.IMWRITE_PNG_COMPRESSION, 3))
  if not ok:
    raise ValueError(f'OpenCV could not encode {pixels.dtype} {pixels.shape} as PNG')
  return data.tobytes()


def read_mask(path: Path, page: int = 0) -> np.ndarray:
  """Reads a mask of indices: uint8, uint16 or int32 [h, w].

  Palette masks give their indices (not their colours), 1-bit masks 0 and 1, grey masks of 8 and 16
  bits their values, and so do RGB masks that are grey at every pixel.

  Raises:
    UserError: a JPEG (its compression invents labels), or a mask of colours.
  """
  return mask_ids(open_image(path, page=page), path)


def mask_ids(image: Image.Image, path: Path) -> np.ndarray:
  """Returns the indices of an opened mask; see read_mask."""
  if image.format == 'JPEG':
    raise UserError(f'{path} is a JPEG: its compression changes labels; save masks as PNG')
  if image.mode == '1':
    return np.asarray(image).astype(np.uint8)
  if image.mode in ('L', 'P', 'I') or image.mode.startswith('I;16'):
    return np.asarray(image)
  if image.mode in ('RGB', 'RGBA', 'LA'):
    pixels = np.asarray(image)[..., : 1 if image.mode == 'LA' else 3]
    if (pixels == pixels[..., :1]).all():
      return pixels[..., 0]
  raise UserError(
    f'{path} is a mask of mode {image.mode}, not of class indices: save it as an 8-bit grey or '
    "palette PNG, or give each class its colour ('name r g b' in classes.txt)"
  )


def unique_ids(mask: np.ndarray) -> list[int]:
  """Returns the sorted distinct values of an integer mask."""
  if mask.dtype == np.uint8:
    return np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
  return np.unique(mask).tolist()


def map_ids(mask: np.ndarray, table: Mapping[int, int], path: Path) -> np.ndarray:
  """Returns uint8 [h, w]: each id replaced by table[id]; an id without an entry is a UserError."""
  ids = unique_ids(mask)
  unknown = [i for i in ids if i not in table]
  if unknown:
    raise UserError(
      f'{path}: label ids {some(unknown)} are not among the allowed ids {describe_ids(table)}; '
      'correct the mask or the class list'
    )
  if mask.dtype == np.uint8:
    lookup = np.zeros(256, np.uint8)
    lookup[ids] = [table[i] for i in ids]
    return lookup[mask]
  return np.array([table[i] for i in ids], np.uint8)[np.searchsorted(ids, mask)]


def describe_ids(table: Mapping[int, int]) -> str:
  """Returns text such as '0..10, 255 (void)' for the keys of an id table."""
  classes = sorted(i for i, c in table.items() if c != VOID)
  void = sorted(i for i, c in table.items() if c == VOID)
  runs = f'{classes[0]}..{classes[-1]}'
  if len(classes) != classes[-1] - classes[0] + 1 or len(classes) < 3:
    runs = ', '.join(map(str, classes))
  return ', '.join([runs, *(f'{i} (void)' for i in void)])
