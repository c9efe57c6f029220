"""The table of bad inputs: each case spoils a good folder, list, run or config in one way.

`tests/test_bad_input.py` runs it through the launchers; docs/reliability.md shows what came out.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SIDE = 32


@dataclasses.dataclass(frozen=True)
class Place:
  """What a case may spoil, all of it fresh: `own` is a good folder of five images in three classes.

  Attributes:
    here: a folder for the case alone, with `own` and `config.py` in it.
    trained: makes a copy of a trained workdir there.
  """

  here: Path
  trained: Callable[[], Path]

  @property
  def own(self) -> Path:
    return self.here / 'own'

  @property
  def image(self) -> Path:
    return self.own / 'train' / 'images' / 'a.png'

  @property
  def mask(self) -> Path:
    return self.own / 'train' / 'masks' / 'a.png'


@dataclasses.dataclass(frozen=True)
class Case:
  """One bad input.

  Attributes:
    group, title: for the table; titles differ.
    job: 'train', 'check', 'evaluate' or 'predict'.
    spoil: does the damage; may return flags that come after the usual ones.
    says: what the one line, or where it `works` the output, must hold.
    works: a person would rather go on: the launcher ends well, or with the `status`.
    process: also run as a process of its own.
    as_nobody: run without the right of root to read everything.
  """

  group: str
  title: str
  job: str
  spoil: Callable[[Place], list[str] | None]
  says: str
  works: bool = False
  process: bool = False
  as_nobody: bool = False
  status: int = 0


CASES: list[Case] = []


def case(group: str, title: str, says: str, job: str = 'train', **more):
  """Adds the decorated function to the table."""

  def add(spoil):
    CASES.append(Case(group, title, job, spoil, says, **more))
    return spoil

  return add


def works(group: str, title: str, says: str = 'samples of train', job: str = 'check', status=0):
  return case(group, title, says, job, works=True, status=status)


def good_folder(root: Path) -> None:
  """Writes three training and two validation images with masks of three classes."""
  rng = np.random.default_rng(0)
  for split, stems in (('train', 'abc'), ('val', 'xy')):
    for kind in ('images', 'masks'):
      (root / split / kind).mkdir(parents=True)
    for stem in stems:
      pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
      mask = np.repeat(np.arange(SIDE, dtype=np.uint8)[:, None] // 11, SIDE, axis=1)
      Image.fromarray(pixels).save(root / split / 'images' / f'{stem}.png')
      Image.fromarray(mask).save(root / split / 'masks' / f'{stem}.png')
  (root / 'classes.txt').write_text('ground\nroad\ncar\n')


def pixels_of(path: Path) -> np.ndarray:
  return np.array(Image.open(path))


def resave(path: Path, array: np.ndarray, mode: str | None = None, name: str = '', **options):
  """Writes the array in place of the file, perhaps under another name."""
  image = Image.fromarray(array)
  path.unlink()
  (image.convert(mode) if mode else image).save(path.with_name(name or path.name), **options)


def remask(place: Place, value: int, dtype=np.uint8, where=np.s_[0, 0]) -> None:
  mask = pixels_of(place.mask).astype(dtype)
  mask[where] = value
  resave(place.mask, mask)


# Images -------------------------------------------------------------------------------------------


@case('image', 'of zero bytes', 'a.png is empty (0 bytes)', process=True)
def _(place):
  place.image.write_bytes(b'')


@case('image', 'truncated PNG', 'cannot decode', process=True)
def _(place):
  data = place.image.read_bytes()
  place.image.write_bytes(data[: len(data) // 2])


@case('image', 'truncated JPEG', 'cannot decode', job='check')
def _(place):
  resave(place.image, pixels_of(place.image), name='a.jpg')
  file = place.image.with_suffix('.jpg')
  file.write_bytes(file.read_bytes()[:-200])


@case('image', 'with a flipped byte', 'cannot decode')
def _(place):
  data = bytearray(place.image.read_bytes())
  data[len(data) // 2] ^= 255
  place.image.write_bytes(data)


@case('image', 'text named .png', 'a.png: not an image')
def _(place):
  place.image.write_text('<html>404</html>' * 9)


@case('image', 'decompression bomb (60000 x 60000)', 'a.png claims more than', process=True)
def _(place):
  def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  header = chunk(b'IHDR', struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0))
  body = chunk(b'IDAT', zlib.compress(b'\0' * 100_000))
  place.image.write_bytes(b'\x89PNG\r\n\x1a\n' + header + body + chunk(b'IEND', b''))


@case('image', 'animated PNG', 'a.png holds 3 pictures')
def _(place):
  frames = [Image.fromarray(np.full((SIDE, SIDE, 3), 80 * i, np.uint8)) for i in range(3)]
  frames[0].save(place.image, save_all=True, append_images=frames[1:])


@case('image', 'TIFF of several pages', 'a.tif holds 2 pictures')
def _(place):
  frames = [Image.fromarray(np.full((SIDE, SIDE), 80 * i, np.uint8)) for i in range(2)]
  place.image.unlink()
  frames[0].save(place.image.with_suffix('.tif'), save_all=True, append_images=frames[1:])


@case('image', 'PPM among the others', 'a.ppm would be left out', job='check')
def _(place):
  resave(place.image, pixels_of(place.image), name='a.ppm')


@case('image', 'floating-point TIFF', 'a.tif is float32, and uint8 is expected')
def _(place):
  resave(place.image, np.zeros((SIDE, SIDE), np.float32), name='a.tif')


@case('image', 'of another size than its mask', 'a.png is 32 x 32 pixels, but its image')
def _(place):
  resave(place.image, pixels_of(place.image)[:20])


@works('image', 'CMYK JPEG')
def _(place):
  resave(place.image, pixels_of(place.image), mode='CMYK', name='a.jpg')


@case('image', '16-bit grey', 'a.png is uint16, and uint8 is expected')
def _(place):
  resave(place.image, pixels_of(place.image)[..., 0].astype(np.uint16) * 257)


@works('image', 'palette')
def _(place):
  resave(place.image, pixels_of(place.image), mode='P')


@works('image', 'grey among colour images')
def _(place):
  resave(place.image, pixels_of(place.image), mode='L')


@works('image', 'RGBA')
def _(place):
  resave(place.image, pixels_of(place.image), mode='RGBA')


@works('image', '1-bit')
def _(place):
  resave(place.image, pixels_of(place.image), mode='1')


@works('image', 'JPEG with damaged EXIF')
def _(place):
  exif = b'Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01' + b'\xff' * 9
  resave(place.image, pixels_of(place.image), name='a.jpg', exif=exif)


# Masks --------------------------------------------------------------------------------------------


@case('mask', 'JPEG', 'a.jpg is a JPEG', process=True)
def _(place):
  resave(place.mask, pixels_of(place.mask), name='a.jpg')


@case('mask', 'with an id outside of the classes', 'masks/a.png: label ids 7', process=True)
def _(place):
  remask(place, 7)


@case('mask', 'with a stray id and no list of classes', 'add --config.num_classes=8')
def _(place):
  (place.own / 'classes.txt').unlink()
  remask(place, 7)


@case('mask', 'with ids outside in two files', '(and 1 more like it', job='check')
def _(place):
  remask(place, 7)
  resave(place.mask.with_name('b.png'), np.full((SIDE, SIDE), 4, np.uint8))


@case('mask', 'of 16 bits with the id 300', 'label ids 300')
def _(place):
  remask(place, 300, np.uint16)


@case('mask', 'of another size', 'a.png is 20 x 32 pixels')
def _(place):
  resave(place.mask, pixels_of(place.mask)[:, :20].copy())


@case('mask', 'truncated', 'cannot decode')
def _(place):
  data = place.mask.read_bytes()
  place.mask.write_bytes(data[: len(data) // 2])


@case('mask', 'all void in every file', 'all labels of train are void')
def _(place):
  for path in place.mask.parent.iterdir():
    resave(path, np.where(np.eye(SIDE), 255, 255).astype(np.uint8))
  return ['--config.data.options.binary=False']


@case('mask', '0 and 255 with three classes', 'the masks hold only 0 and 255', job='check')
def _(place):
  for path in place.own.glob('*/masks/*'):
    resave(path, np.where(pixels_of(path) == 1, 255, 0).astype(np.uint8))


@case('mask', 'of colours without a list of colours', 'a.png is a mask of colours')
def _(place):
  resave(place.mask, pixels_of(place.image))


@case('mask', 'of a colour that is not in the list', 'a.png: colours (9, 9, 9)')
def _(place):
  (place.own / 'classes.txt').write_text('ground 0 0 0\nroad 1 1 1\ncar 2 2 2\n')
  mask = np.repeat(pixels_of(place.mask)[..., None], 3, axis=-1)
  mask[0, 0] = 9
  resave(place.mask, mask)


@works('mask', 'all void in two of three files', 'note: 66.7% of the pixels of train are void')
def _(place):
  remask(place, 255, where=...)
  shutil.copy(place.mask, place.mask.with_name('b.png'))


@works('mask', 'grey, saved as RGB')
def _(place):
  resave(place.mask, pixels_of(place.mask), mode='RGB')


# Files and folders --------------------------------------------------------------------------------


@case('files', 'image without a mask', 'a.png has no mask')
def _(place):
  place.mask.unlink()


@case('files', 'mask without an image', 'a.png has no image')
def _(place):
  place.image.unlink()


@case('files', 'two images of one name', 'have one name')
def _(place):
  shutil.copy(place.image, place.image.with_suffix('.jpg'))


@case('files', 'empty split', "has no split 'train'; splits found: val")
def _(place):
  for path in place.own.glob('train/*/*'):
    path.unlink()


@case('files', 'no validation split', "has no split 'val'; splits found: train")
def _(place):
  shutil.rmtree(place.own / 'val')


@case('files', 'no folder of masks', 'train/images/a.png has no mask')
def _(place):
  shutil.rmtree(place.own / 'train' / 'masks')


@case('files', 'data folder that is not there', 'no data folder', process=True)
def _(place):
  return [f'--config.data_dir={place.here}/nothing']


@case('files', 'data folder that is a file', 'no data folder')
def _(place):
  return [f'--config.data_dir={place.image}']


@case('files', 'link that leads nowhere', 'a.png is a link that leads nowhere')
def _(place):
  place.image.unlink()
  place.image.symlink_to('gone.png')


@case('files', 'image that is a link to itself', 'a.png is a link that leads nowhere')
def _(place):
  place.image.unlink()
  place.image.symlink_to(place.image)


@case('files', 'folder that is a link to itself', 'a.png has no image', job='check')
def _(place):
  folder = place.own / 'train' / 'images'
  shutil.rmtree(folder)
  folder.symlink_to(folder)


@case('files', 'folder that may not be read', 'train/images: Permission denied', as_nobody=True)
def _(place):
  (place.own / 'train' / 'images').chmod(0)


@case('files', 'file that may not be read', 'cannot read', as_nobody=True)
def _(place):
  place.mask.chmod(0)


@case('files', 'records cut short in the cache', 'delete', job='check')
def _(place):
  from jaxseg.datasets import folder

  source = folder.source('train', data_dir=place.own)
  (file,) = source.path.glob('*array_record*')
  os.truncate(file, file.stat().st_size // 2)


@case('files', 'cache folder that is a file', 'cannot write to the cache folder')
def _(place):
  return [f'--config.cache_dir={place.image}']


@works('files', 'names with spaces and beyond ASCII')
def _(place):
  os.rename(place.image, place.image.with_name('α β é.png'))
  os.rename(place.mask, place.mask.with_name('α β e\u0301.png'))  # as macOS writes é


@works('files', 'name that is not valid Unicode')
def _(place):
  for path in (place.image, place.mask):
    os.rename(path, os.fsencode(path.parent) + b'/\xff.png')
