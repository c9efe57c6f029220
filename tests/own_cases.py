"""Images and labels as people really have them: each kind made anew, with the right answer.

A case writes a folder of six images, two of them for validation, that all show the same: object 1, 12 x 10
pixels, and object 2, 9 x 8, on a ground of 1848. `tests/test_cases.py` reads it as `plan` does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from tests.object_layouts import outline

IMAGES = 6
HEIGHT, WIDTH = 34, 60
PIXELS = (1848, 120, 72)
TWO = (1848, 192)  # ground, and both objects
COLORS = np.array([(70, 100, 70), (200, 60, 60), (150, 60, 220)], np.uint8)  # in the images
CODES = np.array([(0, 0, 0), (90, 20, 160), (10, 200, 90)], np.uint8)  # in masks of colours


@dataclasses.dataclass(frozen=True)
class Case:
  """One kind.

  Attributes:
    title: of the situation.
    write: makes the folder.
    right: the answer, in words.
    pixels: of each class in every image, all of them on objects.
    some_empty: whether some of the images have no objects.
    refused: whether it cannot be read at all.
    names: of the classes, where the folder tells them.
    asks: what the one line must hold, where the reading is not clear; then `answer` chooses.
    answer: options of the dataset.
    listed: a file of pairs in the folder.
    shared: names of folders of ../shared/cases that are of this kind.
  """

  title: str
  write: Callable[[Path], None]
  right: str
  pixels: tuple[int, ...] = PIXELS
  some_empty: bool = False
  refused: bool = False
  names: tuple[str, ...] = ()
  asks: str = ''
  answer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  listed: str = ''
  shared: tuple[str, ...] = ()


CASES: list[Case] = []


def case(title: str, right: str, *shared: str, **more: Any):
  def add(write):
    CASES.append(Case(title, write, right, shared=shared, **more))
    return write

  return add


def scene(i: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns an image and its ids."""
  ids = np.zeros((HEIGHT, WIDTH), np.uint8)
  ids[3 + i : 15 + i, 5:15] = 1
  ids[20:29, 30 + i : 38 + i] = 2
  noise = np.random.default_rng(i).integers(0, 8, (HEIGHT, WIDTH, 3), np.uint8)
  return COLORS[ids] + noise, ids


def save(file: Path, pixels: np.ndarray, **options: Any) -> None:
  file.parent.mkdir(parents=True, exist_ok=True)
  if file.suffix == '.tif':
    tifffile.imwrite(file, pixels, **options)
  else:
    Image.fromarray(pixels).save(file, **options)


def write_all(
  root: Path,
  mask: Callable[[int, np.ndarray], Any] = lambda i, ids: ids,
  image: Callable[[int, np.ndarray], Any] = lambda i, pixels: pixels,
  *,
  classes: str = '',
  images: str = '{split}/images/{i}.png',
  masks: str = '{split}/masks/{i}.png',
  splits: tuple[str, str] = ('train', 'val'),
  tags: tuple[dict, dict] = ({}, {}),
) -> None:
  """Writes the six images and masks, each changed by a function of its number and pixels."""
  root.mkdir(parents=True, exist_ok=True)
  for i in range(IMAGES):
    pixels, ids = scene(i)
    place = {'split': splits[i >= 4], 'i': i}
    save(root / images.format(**place), image(i, pixels), **tags[0])
    held = mask(i, ids)
    file = root / masks.format(**place)
    if isinstance(held, Image.Image):
      file.parent.mkdir(parents=True, exist_ok=True)
      held.save(file)
    else:
      save(file, held, **tags[1])
  if classes:
    (root / 'classes.txt').write_text(classes)


def binary(i, ids):
  return np.where(ids > 0, 255, 0).astype(np.uint8)


def indexed(ids: np.ndarray, colors: np.ndarray) -> Image.Image:
  image = Image.fromarray(ids.astype(np.uint8))
  image.putpalette(colors.astype(np.uint8).ravel().tolist())
  return image


# Masks --------------------------------------------------------------------------------------------


@case(
  'grey masks of 0 and 255, whose colours are listed',
  'two classes',
  'binary_grey_with_colours',
  pixels=TWO,
  names=('ground', 'crack'),
)
def _(root):
  write_all(root, binary, classes='ground 0 0 0\ncrack 255 255 255\n')


@case('1-bit masks, white listed first', 'two classes, black is the second', pixels=TWO[::-1])
def _(root):
  write_all(
    root,
    lambda i, ids: Image.fromarray(binary(i, ids)).convert('1'),
    classes='cell 255 255 255\nmembrane 0 0 0\n',
  )


@case(
  'masks of palettes and greys in one set, colours listed',
  'all by colour',
  names=('ground', 'cup', 'disc'),
)
def _(root):
  table = np.array([0, 200, 90], np.uint8)
  write_all(
    root,
    lambda i, ids: indexed(ids, np.repeat(table[:, None], 3, 1)) if i % 2 else table[ids],
    classes='ground 0 0 0\ncup 200 200 200\ndisc 90 90 90\n',
  )


@case('some masks of 0 and 1, some of 0 and 255', 'asked', 'mixed_binary', pixels=TWO,
      asks='4 masks hold 0 and 1 .*2 hold 0 and 255 .*binary=True', answer={'binary': True})  # fmt: skip
def _(root):
  write_all(root, lambda i, ids: binary(i, ids) if i % 3 == 2 else np.minimum(ids, 1))


@case(
  'soft-edged masks of two classes',
  'asked; two classes at 128',
  'antialiased_grey',
  'antialiased_listed',
  pixels=TWO,
  asks='values from 0 to 255, as soft edges .*threshold=128',
  answer={'threshold': 128},
)
def _(root):
  def soft(i, ids):
    noise = np.random.default_rng(i).integers(0, 90, ids.shape)
    return np.where(ids > 0, 255 - noise, noise).astype(np.uint8)

  write_all(root, soft)


@case(
  'grey levels listed as colours',
  'by the listed greys',
  'grey_levels_listed',
  names=('ground', 'cup', 'disc'),
)
def _(root):
  levels = np.array([10, 100, 255], np.uint8)
  write_all(
    root,
    lambda i, ids: levels[ids],
    classes='ground,10,10,10\ncup,100,100,100\ndisc,255,255,255\n',
  )


@case(
  'the object is in the alpha channel, the colour one',
  'by opacity',
  'alpha_mask_rgba',
  'alpha_mask_colours',
  pixels=TWO,
)
def _(root):
  write_all(
    root,
    lambda i, ids: np.dstack([np.full((HEIGHT, WIDTH, 3), 40, np.uint8), binary(i, ids)]),
    classes='ground\nthing\n',
  )


@case(
  'indexed masks that number the same colours differently',
  'asked; by colour',
  'palette_per_file',
  asks=r'palettes of the masks differ: 1 is \(90, 20, 160\) in .*read_by=ids .*read_by=colors',
  answer={
    'classes': ('ground', 'cat', 'dog'),
    'colors': tuple(tuple(map(int, color)) for color in CODES),
    'read_by': 'colors',
  },
)
def _(root):
  orders = (np.array([0, 1, 2]), np.array([0, 2, 1]))
  write_all(root, lambda i, ids: indexed(orders[i % 2][ids], CODES[orders[i % 2]]))


@case('TIFF masks in which 0 is white', 'the values in the file', 'imagej_inverted_lut', pixels=TWO)
def _(root):
  white_is_zero = ({}, {'photometric': 'miniswhite'})
  write_all(root, binary, masks='{split}/masks/{i}.tif', tags=white_is_zero)


@case('16-bit and RGB masks of class ids', 'the ids')
def _(root):
  write_all(
    root,
    lambda i, ids: ids.astype(np.uint16) if i % 2 else np.repeat(ids[..., None], 3, axis=-1),
  )


@case('a class listed with the id 255', 'a class, not void', pixels=TWO, names=('ground', 'crack'))
def _(root):
  write_all(root, binary, classes='0,ground\n255,crack\n')


@case('masks of colours that nothing lists', 'a class for each colour')
def _(root):
  write_all(root, lambda i, ids: np.sort(CODES, axis=0)[ids])


# EXIF ---------------------------------------------------------------------------------------------


def tagged(orientation: int) -> dict:
  exif = Image.Exif()
  exif[0x0112] = orientation
  return {'exif': exif}


@case('photographs turned by EXIF, masks as stored', 'masks are turned too', 'exif_90')
def _(root):
  write_all(root, tags=(tagged(8), {}))


@case('photographs turned by EXIF, masks upright', 'masks stay')
def _(root):
  write_all(root, lambda i, ids: np.rot90(ids).copy(), tags=(tagged(8), {}))


@case('both turned by EXIF', 'both are turned', 'exif_both_png')
def _(root):
  write_all(root, tags=(tagged(5), tagged(5)))


@case('photographs upside down by EXIF, masks without a tag', 'asked',
      asks='orientation 3, .* has 1: add .*exif=upright .*exif=stored', answer={'exif': 'stored'})  # fmt: skip
def _(root):
  write_all(root, tags=(tagged(3), {}))


# Lists of classes ---------------------------------------------------------------------------------

_ROWS = [
  (name, *map(int, color)) for name, color in zip(('ground', 'cat', 'dog'), CODES, strict=True)
]


@case("CVAT's labelmap", 'names and colours', 'cvat_labelmap', names=('ground', 'cat', 'dog'))
def _(root):
  lines = ''.join(f'{name}:{r},{g},{b}:part:\n' for name, r, g, b in _ROWS)
  write_all(root, lambda i, ids: CODES[ids], classes=f'# label:color_rgb:parts:actions\n{lines}')


@case(
  'name,r,g,b with a header', 'names and colours', 'class_dict_csv', names=('ground', 'cat', 'dog')
)
def _(root):
  write_all(root, lambda i, ids: CODES[ids])
  rows = ''.join(f'{b};{g};{r};{name}\n' for name, r, g, b in _ROWS)
  (root / 'class_dict.csv').write_text(f'B;G;R;Class\n{rows}')


@case(
  "labelme's labels", '__ignore__ is void', 'labelme_labels', names=('_background_', 'cat', 'dog')
)
def _(root):
  write_all(root, classes='__ignore__\n_background_\ncat\ndog\n')


@case("Roboflow's _classes.csv", 'names by id', 'roboflow_valid', names=('unlabeled', 'cat', 'dog'))
def _(root):
  masks = '{split}/{i}_mask.png'
  write_all(root, images='{split}/{i}.jpg', masks=masks, splits=('train', 'valid'))
  (root / 'train' / '_classes.csv').write_text('Pixel Value, Class\n0, unlabeled\n1, cat\n2, dog\n')


@case('JSON with names and colours', 'names and colours', names=('ground', 'cat', 'dog'))
def _(root):
  write_all(root, lambda i, ids: CODES[ids])
  listed = [{'name': name, 'color': rgb} for name, *rgb in _ROWS]
  (root / 'classes.json').write_text(json.dumps({'classes': listed}))


# Layouts ------------------------------------------------------------------------------------------


@case('X.jpg and X_segmentation.png', 'paired', 'isic_suffix')
def _(root):
  write_all(
    root, images='{split}/x/S_{i}.jpg', masks='{split}/x_GroundTruth/S_{i}_segmentation.png'
  )


@case('sub-folders', 'all images, named by them', 'nested_folders')
def _(root):
  write_all(root, images='images/{split}/site{i}/1.png', masks='labels/{split}/site{i}/1.png')


# Images -------------------------------------------------------------------------------------------


def bands(image: np.ndarray, count: int, dtype: Any, factor: float) -> np.ndarray:
  """Returns the red, green and blue again and again, in a type and range of their own."""
  return np.dstack([image[..., c % 3] for c in range(count)]).astype(dtype) * dtype(factor)


def _tiff(
  title: str,
  right: str,
  *shared: str,
  count: int,
  dtype: Any,
  factor: float,
  planes: str = 'contig',
):
  def write(root):
    def image(i, pixels):
      values = bands(pixels, count, dtype, factor)
      return values if planes == 'contig' else np.moveaxis(values, -1, 0)

    tags = {'photometric': 'rgb' if count == 3 else 'minisblack'}
    tags |= {'planarconfig': planes} if count > 1 else {}
    tags = (tags, {})
    write_all(root, image=image, images='{split}/images/{i}.tif', tags=tags)

  CASES.append(Case(title, write, right, shared=shared))


_tiff('TIFF of four bands', '4 channels', 'tiff_4_bands', count=4, dtype=np.uint8, factor=1)
_tiff('TIFF of five bands, planar', '5 channels', 'tiff_5_bands', count=5, dtype=np.uint8, factor=1,
      planes='separate')  # fmt: skip
_tiff('TIFF of four 16-bit bands', '4 channels of uint16', 'tiff_4_bands_16bit', count=4,
      dtype=np.uint16, factor=40)  # fmt: skip
_tiff('TIFF of 12 bits in 16', 'the values', 'tiff_11bit_rgb', count=3, dtype=np.uint16, factor=12)
_tiff('TIFF of 16-bit RGB', 'the values', 'tiff_16bit_rgb', count=3, dtype=np.uint16, factor=250)
_tiff('TIFF of 32-bit integers', 'the values, as float32', 'tiff_uint32_image', count=1,
      dtype=np.uint32, factor=60000)  # fmt: skip
_tiff('TIFF of signed 16 bits', 'the values', count=1, dtype=np.int16, factor=-4)


# Objects ------------------------------------------------------------------------------------------


def write_coco(
  root: Path, change: Callable[[dict], None] = lambda content: None, tag: int = 1
) -> None:
  """Writes the scenes with their objects outlined, in COCO's layout, after a change to the JSON."""
  for split, chosen in (('train', range(4)), ('val', range(4, IMAGES))):
    content = {
      'images': [],
      'annotations': [],
      'categories': [dict(id=0, name='cat'), dict(id=7, name='dog')],
    }
    for i in chosen:
      image, ids = scene(i)
      save(root / split / f'{i}.png', image, **(tagged(tag) if tag > 1 else {}))
      content['images'].append(dict(id=i, file_name=f'{i}.png', width=WIDTH, height=HEIGHT))
      for kind, category in ((1, 0), (2, 7)):
        shape = outline(ids == kind)
        named = dict(id=10 * i + kind, image_id=i, category_id=category, segmentation=shape)
        x, y, *_, right, bottom = shape[0][:2] + shape[0][4:6]
        box = [x, y, right - x, bottom - y]
        content['annotations'].append(named | dict(bbox=box, area=PIXELS[kind], iscrowd=0))
    change(content)
    (root / 'annotations').mkdir(exist_ok=True)
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def _coco(
  title: str, right: str, *shared: str, change=lambda content: None, tag: int = 1, **more: Any
):
  names = ('background', 'cat', 'dog')
  write = lambda root: write_coco(root, change, tag)  # noqa: E731
  CASES.append(Case(title, write, right, names=names, shared=shared, **more))


def _without(key: str):
  return lambda content: [a.pop(key) for a in content['annotations']]


def _all_crowds(content: dict) -> None:
  for annotation in content['annotations']:
    annotation['iscrowd'] = 1


def _text_ids(content: dict) -> None:
  for annotation in content['annotations']:
    annotation['image_id'] = str(annotation['image_id'])


def _some_empty(content: dict) -> None:
  content['annotations'] = [a for a in content['annotations'] if a['image_id'] % 2]


def _twice_as_large(content: dict) -> None:
  for image in content['images']:
    image.update(width=2 * WIDTH, height=2 * HEIGHT)


_coco("COCO's JSON, categories of one's own, one of id 0", 'names and order of the JSON',
      'coco_own_categories', 'coco_category_zero')  # fmt: skip
_coco('COCO without iscrowd', 'no crowds', 'coco_without_iscrowd', change=_without('iscrowd'))
_coco('COCO without area', "the outline's", 'coco_without_area', change=_without('area'))
_coco('COCO whose image ids are text', 'matched', 'coco_ids_as_text', change=_text_ids)
_coco('COCO, all single objects marked as crowds', 'told, and taken for objects', 'coco_cvat_brush_crowd',
      'coco_cvat_brush_half', change=_all_crowds)  # fmt: skip
_coco('COCO on photographs turned by EXIF, outlines as stored', 'turned with them', 'coco_exif_unturned',
      'coco_exif_upright', tag=6)  # fmt: skip
_coco('COCO whose images were shrunk', 'refused', 'coco_shrunk_images', refused=True,
      asks='60 x 34 pixels, but its annotations are of 120 x 68', change=_twice_as_large)  # fmt: skip


_coco(
  'COCO, images without objects', 'images', 'coco_empty_images', change=_some_empty, some_empty=True
)


@case('labelme, polygons beside the images', 'read as objects', 'labelme_json',
      names=('background', 'cat', 'dog'))  # fmt: skip
def _(root):
  for i in range(IMAGES):
    image, ids = scene(i)
    folder = root / ('train' if i < 4 else 'val') / 'images'
    save(folder / f'{i}.png', image)
    shapes = [
      dict(
        label=name,
        shape_type='polygon',
        points=np.reshape(outline(ids == kind)[0], (-1, 2)).tolist(),
      )
      for kind, name in ((1, 'cat'), (2, 'dog'))
    ]
    content = dict(shapes=shapes, imagePath=f'{i}.png', imageHeight=HEIGHT, imageWidth=WIDTH)
    (folder / f'{i}.json').write_text(json.dumps(content))
