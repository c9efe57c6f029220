"""Further kinds of images and labels: those that went wrong, or that a reader might get wrong; see own_cases.py."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image

from tests.object_layouts import Writer
from tests.own_cases import (
  CASES,
  CODES,
  HEIGHT,
  IMAGES,
  TWO,
  WIDTH,
  Case,
  binary,
  case,
  indexed,
  save,
  scene,
  tagged,
  write_all,
  write_coco,
)

NAMES = ('ground', 'cat', 'dog')


def each(root: Path, pattern: str, change: Callable[[Path, np.ndarray], Any]) -> None:
  """Calls a function of each file of a pattern and the ids of its scene."""
  for file in sorted(root.glob(pattern)):
    change(file, scene(int(file.stem))[1])


# Masks --------------------------------------------------------------------------------------------


def png(pixels: np.ndarray, bits: int, palette: np.ndarray | None = None) -> bytes:
  """Encodes uint8 [h, w] with few bits a pixel, which no library writes."""
  height, width = pixels.shape
  spread = np.unpackbits(pixels[..., None], axis=-1)[..., 8 - bits :].reshape(height, -1)
  rows = b''.join(b'\0' + row.tobytes() for row in np.packbits(spread, axis=1))
  header = struct.pack('>IIBBBBB', width, height, bits, 0 if palette is None else 3, 0, 0, 0)
  chunks = [(b'IHDR', header)]
  chunks += [] if palette is None else [(b'PLTE', palette.tobytes())]
  chunks += [(b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(d)) + k + d + struct.pack('>I', zlib.crc32(k + d)) for k, d in chunks
  )


def _few_bits(
  title: str,
  right: str,
  bits: int,
  levels: tuple[int, ...] = (0, 1, 2),
  palette=None,
  classes='',
  **more,
) -> None:
  def write(root):
    table = np.array(levels, np.uint8)
    write_all(root, classes=classes)
    each(root, '*/masks/*.png', lambda file, ids: file.write_bytes(png(table[ids], bits, palette)))

  CASES.append(Case(title, write, right, **more))


_few_bits('grey masks of 2 bits', 'the ids', 2)
_few_bits('palette masks of 4 bits', 'the ids', 4, palette=CODES)
_few_bits('grey masks of 4 bits, whose colours are listed', 'by colour', 4, (15, 0, 4), names=NAMES,
          classes='ground 255 255 255\ncat 0 0 0\ndog 68 68 68\n')  # fmt: skip
_few_bits('grey masks of 4 bits, black and white', 'two classes', 4, (0, 15, 15), pixels=TWO)


@case('16-bit masks of 0 and 65535', 'two classes', pixels=TWO)
def _(root):
  write_all(root, lambda i, ids: 257 * binary(i, ids).astype(np.uint16))


@case('1-bit TIFF masks in which 0 is white', 'asked', pixels=TWO,
      asks='6 of 6 masks, .* show with 0 as white: .*white_is_zero=stored .*white_is_zero=shown',
      answer={'white_is_zero': 'stored'})  # fmt: skip
def _(root):
  tags = ({}, {'photometric': 'miniswhite'})
  write_all(root, lambda i, ids: ids > 0, masks='{split}/masks/{i}.tif', tags=tags)


@case('TIFF masks of which some show 0 as white', 'asked', pixels=TWO, asks='3 of 6 masks, .* as white',
      answer={'white_is_zero': 'shown'})  # fmt: skip
def _(root):
  write_all(root, binary, masks='{split}/masks/{i}.tif')

  def invert(file, ids):
    if int(file.stem) % 2:
      tifffile.imwrite(file, 255 - binary(0, ids), photometric='miniswhite')

  each(root, '*/masks/*.tif', invert)


@case('GIF masks beside JPEG photographs', 'the ids', pixels=TWO)
def _(root):
  write_all(root, binary, images='images/{i}.jpg', masks='masks/{i}_mask.gif')


def _no_data(number: int, classes: str) -> Callable[[Path], None]:
  tag = {'extratags': [(42113, 's', 0, str(number), True)]}
  return lambda root: write_all(
    root, masks='{split}/masks/{i}.tif', tags=({}, tag), classes=classes
  )


CASES.append(Case('GeoTIFF masks with a class that is no data by their tag', _no_data(2, ''), 'refused', refused=True,
                  asks=r"holds 2, which by its tag is no data: list the classes .*'2,void' to ignore"))  # fmt: skip
CASES.append(
  Case('the same, listed', _no_data(0, '0,ground\n1,cat\n2,dog\n'), 'as listed', names=NAMES)
)


@case('planar RGB TIFF masks, colours listed', 'by colour', names=NAMES)
def _(root):
  listed = ''.join(f'{n} {r} {g} {b}\n' for n, (r, g, b) in zip(NAMES, CODES, strict=True))
  tags = ({}, {'photometric': 'rgb', 'planarconfig': 'separate'})
  write_all(
    root,
    lambda i, ids: np.moveaxis(CODES[ids], -1, 0).copy(),
    masks='{split}/masks/{i}.tif',
    tags=tags,
    classes=listed,
  )


@case('colours with soft edges that nothing lists', 'refused', refused=True,
      asks='10 of 13 colours of the masks, .* never fill 3 x 3 pixels, as at soft edges')  # fmt: skip
def _(root):
  write_all(root, lambda i, ids: cv2.GaussianBlur(CODES[ids], (3, 3), 1))


# EXIF ---------------------------------------------------------------------------------------------


def _tag_masks(root: Path, orientation: int) -> None:
  each(root, '*/masks/*.png', lambda f, ids: Image.fromarray(ids).save(f, **tagged(orientation)))


@case('masks upside down by EXIF, photographs without a tag', 'asked',
      asks='orientation 1, .* has 3: add .*exif=upright .*exif=stored', answer={'exif': 'stored'})  # fmt: skip
def _(root):
  write_all(root)
  _tag_masks(root, 3)


@case('masks on their side by EXIF, photographs without a tag', 'sizes tell: as stored')
def _(root):
  write_all(root)
  _tag_masks(root, 6)


@case('photographs turned by EXIF, palette masks as stored', 'masks are turned too')
def _(root):
  write_all(root, lambda i, ids: indexed(ids, CODES), tags=(tagged(6), {}))


# Images -------------------------------------------------------------------------------------------


@case('CMYK JPEG among RGB', 'RGB')
def _(root):
  write_all(root, images='{split}/images/{i}.jpg')
  pixels = lambda file: Image.fromarray(scene(int(file.stem))[0]).convert('CMYK')  # noqa: E731
  each(root, 'train/images/*.jpg', lambda file, ids: pixels(file).save(file, quality=97))


@case('RGBA photographs among grey ones', 'RGB')
def _(root):
  opaque = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
  write_all(root, image=lambda i, p: p[..., 0] if i % 2 else np.dstack([p, opaque]))


@case('GeoTIFF of floats with pixels of no data', 'refused', refused=True,
      asks='0.tif holds the value -9999, which by its tag is no data: give these pixels one')  # fmt: skip
def _(root):
  def image(i, pixels):
    values = pixels.astype(np.float32)
    values[:, :3] = -9999
    return values

  tag = {'photometric': 'rgb', 'extratags': [(42113, 's', 0, '-9999', True)]}
  write_all(root, image=image, images='{split}/images/{i}.tif', tags=(tag, {}))


@case('8 and 16 bits in one set', 'refused', asks='1 channels of uint16, .*1 channels of uint8: save all', refused=True)  # fmt: skip
def _(root):
  write_all(root, image=lambda i, p: p[..., 0].astype(np.uint16) * (100 if i % 2 else 1) if i % 2 else p[..., 0])  # fmt: skip


# Layouts ------------------------------------------------------------------------------------------


@case('.JPG and .PNG, folders in capitals', 'paired')
def _(root):
  write_all(root, images='{split}/Images/{i}.JPG', masks='{split}/MASKS/{i}.PNG')


@case('.DS_Store, Thumbs.db, __MACOSX and checkpoints of notebooks', 'not looked at')
def _(root):
  write_all(root)
  for name in (
    '.DS_Store',
    'Thumbs.db',
    '._0.png',
    '.ipynb_checkpoints/0.png',
    '../../__MACOSX/._0.png',
  ):
    for folder in root.glob('*/*'):
      (folder / name).parent.mkdir(exist_ok=True, parents=True)
      (folder / name).write_bytes(b'junk')


@case(
  'VOC, with lists of splits and masks of objects',
  'splits by the lists',
  names=('background', 'cat', 'dog'),
)
def _(root):
  write_all(
    root,
    lambda i, ids: indexed(ids, CODES),
    images='JPEGImages/{i}.png',
    masks='SegmentationClass/{i}.png',
  )
  each(root, 'JPEGImages/*', lambda file, ids: save(root / 'SegmentationObject' / file.name, ids))
  rows = zip(('background', 'cat', 'dog'), CODES, strict=True)
  (root / 'labelmap.txt').write_text(''.join(f'{n}:{r},{g},{b}::\n' for n, (r, g, b) in rows))
  for split, numbers in (('train', '0123'), ('val', '45')):
    file = root / 'ImageSets' / 'Segmentation' / f'{split}.txt'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('\n'.join(numbers))


@case("a list with Windows' paths", 'paired', listed='pairs.csv')
def _(root):
  write_all(root, images='images/{i}.png', masks='masks/{i}.png')
  rows = ''.join(f'{i},images\\{i}.png,masks\\{i}.png\r\n' for i in range(IMAGES))
  (root / 'pairs.csv').write_bytes(f'\ufeffid,Image_Name,Mask Path\r\n{rows}'.encode())


@case('images/train2017 and images/val2017', 'splits')
def _(root):
  write_all(root, images='images/{split}2017/{i}.png', masks='annotations/{split}2017/{i}.png')


@case('a TIFF stack a split, x/train.tif and y/train.tif', 'pages are images')
def _(root):
  for split, numbers in (('train', range(4)), ('val', range(4, IMAGES))):
    image, ids = (np.stack(found) for found in zip(*map(scene, numbers), strict=True))
    for folder, pixels in (('x', image[..., 0]), ('y', ids)):
      (root / folder).mkdir(exist_ok=True, parents=True)
      tifffile.imwrite(root / folder / f'{split}.tif', pixels, photometric='minisblack')


@case('a folder an example, image.png and label.png', 'paired')
def _(root):
  write_all(root, images='{split}/2024-05-0{i}/image.png', masks='{split}/2024-05-0{i}/label.png')


@case('a.image.png and a.mask.png', 'paired')
def _(root):
  write_all(root, images='{split}/{i}.image.png', masks='{split}/{i}.mask.png')


@case('a_mask_1.png beside a_mask.png', 'refused', refused=True,
      asks='3_mask_1.png looks like a further mask of .*3.png, which has one: join both')  # fmt: skip
def _(root):
  write_all(root, lambda i, ids: binary(i, ids == 1), images='{i}.png', masks='{i}_mask.png')
  save(root / '3_mask_1.png', binary(3, scene(3)[1] == 2))


@case('masks as .npy', 'refused', refused=True,
      asks='no masks were found .*; its 6 .npy files are no images that are read')  # fmt: skip
def _(root):
  write_all(root)

  def convert(file, ids):
    file.unlink()
    np.save(file.with_suffix('.npy'), ids)

  each(root, '*/masks/*', convert)


# Lists of classes ---------------------------------------------------------------------------------


@case('YAML with names', 'names by id', names=NAMES)
def _(root):
  write_all(root, classes='names:\n  0: ground\n  1: cat\n  2: dog\n')


@case('id,name,r,g,b, masks of ids with gaps', 'by id', names=NAMES)
def _(root):
  rows = zip((0, 5, 10), NAMES, CODES, strict=True)
  listed = ''.join(f'{i},{name},{r},{g},{b}\n' for i, name, (r, g, b) in rows)
  write_all(root, lambda i, ids: 5 * ids, classes=listed)


@case('name r g b 255 under a comment', 'by colour', names=NAMES)
def _(root):
  rows = ''.join(f'{n}\t{r} {g} {b} 255\r\n' for n, (r, g, b) in zip(NAMES, CODES, strict=True))
  write_all(root, lambda i, ids: CODES[ids], classes=f'// classes\r\n{rows}')


@case('id name r g b and an opacity', 'by id', names=NAMES)
def _(root):
  rows = zip((0, 5, 10), NAMES, CODES, strict=True)
  write_all(root, lambda i, ids: 5 * ids,
            classes=''.join(f'{i} {n} {r} {g} {b} {min(i, 1) * 255}\n' for i, n, (r, g, b) in rows))  # fmt: skip


@case("ITK-SnAP's label descriptions", 'by id', names=NAMES)
def _(root):
  rows = zip((0, 5, 10), NAMES, CODES, strict=True)
  lines = ''.join(f'    {i}    {r}  {g}  {b}  1  1  1    "{n}"\n' for i, n, (r, g, b) in rows)
  write_all(root, lambda i, ids: 5 * ids, classes=f'########\n# IDX  -R-  -G-  -B-\n{lines}')


@case("names with remarks, under a line 'Klasse', in Classes.TXT", 'names', names=NAMES)
def _(root):
  write_all(root)
  text = '\ufeffKlasse\r\nground  # all else\r\ncat  // Felis catus\r\ndog,\r\n'
  (root / 'Classes.TXT').write_text(text, newline='')


@case("names under a line 'name'", 'the line is no class', names=NAMES)
def _(root):
  write_all(root, classes='name\nground\ncat\ndog\n')


# Objects ------------------------------------------------------------------------------------------


def _coco(title: str, right: str, change: Callable[[dict], Any], **more: Any) -> None:
  CASES.append(Case(title, lambda root: write_coco(root, change), right, refused=True, **more))


def _dogs(**parts: Any) -> Callable[[dict], None]:
  return lambda content: [a.update(parts) for a in content['annotations'] if a['category_id'] == 7]


def _in_shares(content: dict) -> None:
  for one in content['annotations']:
    [corners] = one['segmentation']
    one['segmentation'] = [[v / (HEIGHT if i % 2 else WIDTH) for i, v in enumerate(corners)]]


def _corner_boxes(content: dict) -> None:
  for one in (a for a in content['annotations'] if a['category_id'] == 0):
    x, y, width, height = one['bbox']
    one['bbox'] = [x, y, x + width, y + height]


def _of_another_machine(content: dict) -> None:
  for image in content['images']:
    image['file_name'] = f'D:\\shots\\{image["file_name"]}'


def _listed_twice(content: dict) -> None:
  content['images'] += [image | {'id': image['id'] + 100} for image in content['images']]
  for one in content['annotations']:
    one['image_id'] += 100 * (one['category_id'] == 7)


_coco('COCO, polygons of two corners', 'refused', _dogs(segmentation=[[1.0, 1.0, 5.0, 5.0]]),
      asks='annotation 2 of 0.png: its outline has fewer than three corners')  # fmt: skip
_coco(
  'COCO, polygons in shares of the image', 'refused', _in_shares, asks='between 0 and 1, as shares'
)
_coco('COCO, areas of 0', 'refused', _dogs(area=0), asks='its area is 0, its outline has 72 pixels')
_coco('COCO, boxes of two corners', 'refused', _corner_boxes,
      asks=r'its bbox .* should be about \[5, 3, 10, 12\]')  # fmt: skip
_coco('COCO, an image listed twice, each with half of its objects', 'refused', _listed_twice,
      asks='lists 0.png 2 times: give the image one entry')  # fmt: skip


CASES.append(Case("COCO with another machine's paths", lambda root: write_coco(root, _of_another_machine),
                  'by the names of the images', names=('background', *NAMES[1:])))  # fmt: skip


def _tool(
  title: str, right: str, tool: str, change: Callable[[Path], Any] = lambda root: None, **more: Any
) -> None:
  """Adds a case of an annotation tool's files, which a function changes."""

  def write(root):
    images = [
      (str(i), image, [(kind, ids == kind) for kind in (1, 2)])
      for i, (image, ids) in ((i, scene(i)) for i in range(IMAGES))
    ]
    for split, part in (('train', images[:4]), ('val', images[4:])):
      getattr(Writer(root, NAMES[1:]), tool)(split, part)
    change(root)

  names = ('background', *NAMES[1:])
  CASES.append(Case(title, write, right, **{'names': names} | more))


def _text(pattern: str, *pairs: tuple[str, str]) -> Callable[[Path], None]:
  """Returns what replaces texts in the files of a pattern; each must be there."""

  def change(root):
    for file in root.glob(pattern):
      text = file.read_text()
      for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
      file.write_text(text)

  return change


def _json(change: Callable[[Path, dict], Any]) -> Callable[[Path], None]:
  def change_all(root):
    for file in root.glob('*/*.json'):
      content = json.loads(file.read_text())
      change(file, content)
      file.write_text(json.dumps(content))

  return change_all


_tool('YOLO, names numbered by text', 'by number', 'yolo',
      _text('data.yaml', ("['cat', 'dog']", "{'0': cat, '1': dog}")))  # fmt: skip


def _in_capitals(root):
  for folder in [*root.glob('*/images'), *root.glob('*/labels')]:
    folder.rename(folder.with_name(folder.name.title()))
  for file in root.glob('*/Images/*.png'):
    file.rename(file.with_suffix('.PNG'))


def _turned(root):
  each(root, '*/images/*.png', lambda file, ids: save(file, scene(int(file.stem))[0], **tagged(6)))


_tool('YOLO, Images/0.PNG and Labels', 'found', 'yolo', _in_capitals)
_tool('YOLO on photographs turned by EXIF', 'asked', 'yolo', _turned, answer={'exif': 'stored'},
      asks='orientation 6, and its annotations do not tell .*exif=upright .*exif=stored')  # fmt: skip
_tool('YOLO, 0.png and 0.jpg for one label file', 'refused', 'yolo', refused=True, asks='several images of one name: 0.jpg, 0.png',
      change=lambda root: save(root / 'train/images/0.jpg', scene(0)[0]))  # fmt: skip


def _darknet(root):
  for file in [*root.glob('*/images/*'), *root.glob('*/labels/*')]:
    (root / 'obj_train_data').mkdir(exist_ok=True)
    file.rename(root / 'obj_train_data' / file.name)
  (root / 'data.yaml').unlink()
  (root / 'obj.names').write_text('cat\ndog\n')
  for split, numbers in (('train', range(4)), ('valid', range(4, IMAGES))):
    lines = ''.join(f'data/obj_train_data/{i}.png\n' for i in numbers)
    (root / f'{split}.txt').write_text(lines)


_tool(
  "darknet's: text beside images, obj.names, train.txt", 'splits by the lists', 'yolo', _darknet
)


def _four_corners(file, content):
  for shape in content['shapes']:
    shape['shape_type'] = 'rotation' if shape['label'] == 'cat' else 'rectangle'


def _blanks(file, content):
  for shape in content['shapes']:
    shape['label'] += ' ' * (int(file.stem) % 2)


def _elsewhere(file, content):
  content['imagePath'] = f'..\\photos\\IMG_{file.stem}.png'
  image = file.with_suffix('.png')
  image.rename(image.with_stem(f'IMG_{file.stem}'))


_tool('labelme, rectangles of four corners', 'their outlines', 'labelme', _json(_four_corners))
_tool('labelme, blanks behind labels', 'the same classes', 'labelme', _json(_blanks))
_tool('labelme, images of other names than the files', 'by imagePath', 'labelme', _json(_elsewhere))
_tool('labelme, a line beside polygons', 'refused', 'labelme', refused=True, asks='shape 3: a line of 2 points is no object',
      change=_json(lambda file, content: content['shapes'].append(
        dict(label='cat', shape_type='line', points=[[1, 1], [3, 3]]))))  # fmt: skip


def _quarter_turns(root):
  """The boxes lie on their side and are turned by 90 degrees."""
  for file in root.glob('*/annotations.xml'):
    text = file.read_text()
    for i in range(IMAGES):
      for kind, name in ((1, 'cat'), (2, 'dog')):
        rows, columns = np.nonzero(scene(i)[1] == kind)
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        y, x, half, other = (
          (top + bottom) / 2,
          (left + right) / 2,
          (right - left) / 2,
          (bottom - top) / 2,
        )
        start = text.find('<polygon label="' + name, text.find(f'name="{i}.png"'))
        if f'name="{i}.png"' in text:
          box = f'<box label="{name}" xtl="{x - other}" ytl="{y - half}" xbr="{x + other}" ybr="{y + half}"'
          text = f'{text[:start]}{box} rotation="90.0"/>{text[text.find("/>", start) + 2 :]}'
    file.write_text(text)


_tool('CVAT, boxes turned by 90 degrees', 'turned', 'cvat', _quarter_turns)
_tool('CVAT, a skeleton beside polygons', 'refused', 'cvat', refused=True, asks='skeleton 3 of .*: a skeleton is no object',
      change=_text('*/annotations.xml', ('</image>', '<skeleton label="cat"/></image>')))  # fmt: skip
_tool('CVAT for videos', 'refused', 'cvat', refused=True, asks="is CVAT's for videos: export it",
      change=_text('*/annotations.xml', ('</annotations>', '<track id="0"/></annotations>')))  # fmt: skip


def _object_files(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
  def change_all(root):
    for file in root.glob('*/*/masks/*.png'):
      save(file, change(np.asarray(Image.open(file)) > 0))

  return change_all


def _soft(mask):
  return np.where(mask, 255, np.random.default_rng(0).integers(0, 30, mask.shape)).astype(np.uint8)


def _opacity(mask):
  return np.dstack([np.full((*mask.shape, 3), 40, np.uint8), 255 * mask.astype(np.uint8)])


_tool('a file an object, its opacity alone differs', 'by opacity', 'files', _object_files(_opacity))
_tool('a file an object, soft-edged', 'asked', 'files', _object_files(_soft), answer={'threshold': 128},
      asks='values from 0 to 255, and one object has one: .*threshold=128')  # fmt: skip
_tool('a file an object, black on white', 'refused', 'files', refused=True,
      change=_object_files(lambda mask: 255 * (~mask).astype(np.uint8)),
      asks='each of 2 objects covers more than half of the image')  # fmt: skip
