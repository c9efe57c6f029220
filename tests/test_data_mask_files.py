"""Masks as people store them: their numbers, colours and opacity, and what one file says of itself."""

import dataclasses
import json
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxseg.data import classlist, mask_files
from jaxseg.types import VOID, UserError
from tests import documents

IDS = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def _save(path, array, mode=None, **options):
  image = Image.fromarray(array)
  (image.convert(mode) if mode else image).save(path, **options)
  return path


def _palette(path, ids, colors, **options):
  image = Image.fromarray(ids)
  image.putpalette([v for color in colors for v in color])
  image.save(path, **options)
  return path


def test_masks_of_all_modes_give_their_indices(tmp_path):
  _palette(tmp_path / 'p.png', IDS, [(255 - i, i, 9) for i in range(256)])
  _save(tmp_path / 'l.png', IDS)
  _save(tmp_path / 'w.png', IDS.astype(np.uint16))
  _save(tmp_path / 't.tif', IDS)
  _save(tmp_path / 'b.bmp', IDS)
  tifffile.imwrite(tmp_path / 'i.tif', IDS.astype(np.int32))
  tifffile.imwrite(tmp_path / 'f.tif', IDS.astype(np.float32))
  for name in ('p.png', 'l.png', 'w.png', 't.tif', 'b.bmp', 'i.tif', 'f.tif'):
    np.testing.assert_array_equal(mask_files.read_ids(tmp_path / name), IDS, err_msg=name)
  _save(tmp_path / '1.png', np.array([[0, 255]], np.uint8), mode='1')
  assert mask_files.read_ids(tmp_path / '1.png').tolist() == [[0, 1]]


def test_masks_that_are_no_indices_are_refused(tmp_path):
  with pytest.raises(UserError, match=r'c\.png is a mask of colours.*classes\.txt'):
    mask_files.read_ids(_save(tmp_path / 'c.png', RGB))
  tifffile.imwrite(tmp_path / 'f.tif', np.array([[0.5, 1]], np.float32))
  with pytest.raises(UserError, match=r'f\.tif is a mask of 1 x float32'):
    mask_files.read_ids(tmp_path / 'f.tif')


CONTAINERS = {  # a mask in it -> the name, how it is written, what is said ('' where it is read)
  'JPEG under .png': ('a.png', dict(format='JPEG'), 'is a JPEG: its compression changes labels'),
  'WebP under .png': ('b.png', dict(format='WEBP'), 'is a WebP: its compression changes labels'),
  'JPEG in TIFF': ('c.tif', 'jpeg', 'is a JPEG inside of TIFF: its compression changes labels'),
  'JPEG 2000 in TIFF': ('d.tif', 'jpeg2000', 'its compression .* is not read'),
  'WebP in TIFF': ('e.tif', 'webp', 'its compression .* is not read'),
  'AVIF under .png': ('f.png', dict(format='AVIF'), 'a AVIF file'),
  'JPEG 2000 under .png': ('g.png', dict(format='JPEG2000'), 'a JPEG 2000 file'),
  'lossless WebP': ('h.webp', dict(format='WEBP', lossless=True), ''),
  'deflate in TIFF': ('i.tif', 'deflate', ''),
  'LZW in TIFF': ('j.tif', 'lzw', ''),
}
SAID: dict[str, str] = {}


@pytest.mark.parametrize('container', CONTAINERS)
def test_what_a_lossy_container_holds_is_no_mask_whatever_its_name(container, tmp_path):
  name, written, says = CONTAINERS[container]
  ids = np.tile(IDS, (16, 16))
  if isinstance(written, str):
    rgb = np.repeat(ids[..., None], 3, axis=-1)
    tifffile.imwrite(tmp_path / name, rgb, photometric='rgb', compression=written)
  else:
    _save(tmp_path / name, ids, mode='RGB', **written)
  if not says:
    assert mask_files.read(tmp_path / name).ids.tolist() == ids.tolist()
    SAID[container] = 'read, every value as it is'
    return
  with pytest.raises(UserError, match=says) as refused:
    mask_files.read(tmp_path / name)
  SAID[container] = str(refused.value).replace(f'{tmp_path}/', '')


def test_the_table_shows_every_container():
  if os.environ.get('LOSSY_TABLE'):
    rows = [f'| {container} | {SAID[container]} |' for container in CONTAINERS]
    about = f'{len(rows)} containers; `LOSSY_TABLE=docs/reliability.md pytest -n0 tests/test_data_mask_files.py`.'
    table = '\n'.join([about, '', '| a mask in | what follows |', '|---|---|', *rows])
    documents.renew('LOSSY_TABLE', 'Lossy masks', 'lossy', table)
  assert all(f'| {container} |' in documents.section('lossy') for container in CONTAINERS)


def test_grey_masks_saved_in_colour_give_their_values(tmp_path):
  for mode in ('RGB', 'RGBA', 'LA'):
    path = _save(tmp_path / f'{mode}.png', IDS, mode=mode)
    np.testing.assert_array_equal(mask_files.read_ids(path), IDS)


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_few_bits_are_the_numbers_that_stand_there(tmp_path, bits):
  ids = np.arange(2**bits, dtype=np.uint8)[None]
  tifffile.imwrite(tmp_path / 'a.tif', ids if bits > 1 else ids.astype(bool), **_bits(bits))
  assert mask_files.read_ids(tmp_path / 'a.tif').tolist() == ids.tolist()
  (tmp_path / 'a.png').write_bytes(_png(ids, bits))
  assert mask_files.read_ids(tmp_path / 'a.png').tolist() == ids.tolist()


def _bits(bits):
  return {'bitspersample': bits} if bits > 1 else {}


def _png(ids, bits):
  """A grey PNG of so many bits, by hand: Pillow and OpenCV write none."""
  import struct
  import zlib

  def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

  rows = b''
  for row in ids:
    digits = ''.join(f'{v:0{bits}b}' for v in row)
    digits += '0' * (-len(digits) % 8)
    rows += b'\0' + bytes(int(digits[i : i + 8], 2) for i in range(0, len(digits), 8))
  head = struct.pack('>IIBBBBB', ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
  parts = chunk(b'IHDR', head), chunk(b'IDAT', zlib.compress(rows)), chunk(b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def test_an_inverted_table_changes_no_number(tmp_path):
  for ids in (IDS, IDS.astype(np.uint16)):
    tifffile.imwrite(tmp_path / 'a.tif', ids, photometric='miniswhite')
    np.testing.assert_array_equal(mask_files.read_ids(tmp_path / 'a.tif'), ids)


def test_colours_are_those_that_are_shown(tmp_path):
  red, green = (255, 0, 0), (0, 255, 0)
  ids = np.array([[0, 1, 2]], np.uint8)
  indexed = mask_files.read(_palette(tmp_path / 'p.png', ids, [(0, 0, 0), red, green]))
  assert indexed.kind == 'index' and indexed.colors().tolist() == [[[0, 0, 0], [*red], [*green]]]
  grey = mask_files.read(_save(tmp_path / 'g.png', np.array([[0, 127, 255]], np.uint8)))
  assert grey.colors().tolist() == [[[0] * 3, [127] * 3, [255] * 3]]
  bit = mask_files.read(_save(tmp_path / 'b.png', np.array([[0, 255]], np.uint8), mode='1'))
  assert (bit.kind, bit.highest) == ('grey', 1) and bit.colors().tolist() == [[[0] * 3, [255] * 3]]
  deep = mask_files.read(_save(tmp_path / 'd.png', np.array([[0, 300]], np.uint16)))
  with pytest.raises(UserError, match=r'd\.png has values beyond 0\.\.255'):
    deep.colors()


def test_a_flipped_bit_in_a_png_is_told_and_what_follows_it_is_nothing(tmp_path):
  """Stored uncompressed, each byte of the pixels is a value of the mask."""
  path = _save(tmp_path / 'm.png', IDS, compress_level=0)
  good, told = path.read_bytes(), 0
  start = good.index(b'IDAT') - 4
  for place in range(start, len(good) - 12):
    path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    try:
      np.testing.assert_array_equal(mask_files.read_ids(path), IDS)
    except UserError:
      told += 1
  assert told > IDS.size
  path.write_bytes(good + good[8:])
  np.testing.assert_array_equal(mask_files.read_ids(path), IDS)


def test_opacity_of_16_bits(tmp_path):
  values = np.dstack([np.full((2, 3), 700), [[0, 65535, 9], [0, 0, 1]]]).astype('>u2')
  header = struct.pack('>IIBBBBB', 3, 2, 16, 4, 0, 0, 0)
  rows = b''.join(b'\0' + row.tobytes() for row in values)
  png = b'\x89PNG\r\n\x1a\n'
  for kind, data in ((b'IHDR', header), (b'IDAT', zlib.compress(rows)), (b'IEND', b'')):
    check = zlib.crc32(kind + data)
    png += struct.pack('>I', len(data)) + kind + data + struct.pack('>I', check)
  (tmp_path / 'a.png').write_bytes(png)
  mask = mask_files.read(tmp_path / 'a.png')
  np.testing.assert_array_equal(mask.ids, np.full((2, 3), 700))
  np.testing.assert_array_equal(mask.alpha, values[..., 1])


def test_an_index_beyond_the_palette_has_no_colour(tmp_path):
  black, red = (0, 0, 0), (255, 0, 0)
  classes = classlist.from_colors(('ground', 'thing'), (black, red))
  colors = [black, red, *((9, 9, i) for i in range(15))]  # of 16 Pillow would write 4 bits
  path = _palette(tmp_path / 'p.png', np.array([[0, 1, 255]], np.uint8), colors)
  assert classlist.read_label(path, classes).tolist() == [[0, 1, 255]]
  _palette(path, np.array([[0, 1, 17]], np.uint8), colors)
  with pytest.raises(UserError, match='p.png holds the index 17, and its palette has 17 colours'):
    classlist.read_label(path, classes)
  assert mask_files.read_ids(path).tolist() == [[0, 1, 17]]


def test_facts_say_what_a_mask_holds_and_keep_in_json(tmp_path):
  red, green = (255, 0, 0), (0, 255, 0)
  ids = np.array([[0, 2, 2]], np.uint8)
  exif = Image.Exif()
  exif[0x0112] = 6
  _palette(tmp_path / 'p.png', ids, [(0, 0, 0), red, green], exif=exif)
  facts = mask_files.summarize(tmp_path / 'p.png')
  assert facts == mask_files.MaskSummary('index', (0, 2), ((0, 0, 0), green), (), 6, (1, 3))
  assert mask_files.MaskSummary.of_json(json.loads(json.dumps(dataclasses.asdict(facts)))) == facts
  rgba = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 255]]], np.uint8)
  facts = mask_files.summarize(_save(tmp_path / 'a.png', rgba))
  assert (facts.kind, facts.ids, facts.colors) == ('colour', (0,), ((0, 0, 0),))
  assert facts.alpha == (0, 255)  # here the object is
  assert facts.hidden == ((0, 0, 0),)
  rgba = np.array([[[9, 0, 0, 0], [9, 0, 0, 99], [0, 0, 0, 0], [0, 5, 0, 255]]], np.uint8)
  assert mask_files.summarize(_save(tmp_path / 'b.png', rgba)).hidden == ()
  rgba[0, 2] = (0, 5, 0, 0)
  facts = mask_files.summarize(_save(tmp_path / 'b.png', rgba))
  assert facts.hidden == ((0, 5, 0),)
  assert mask_files.MaskSummary.of_json(json.loads(json.dumps(dataclasses.asdict(facts)))) == facts
  grey = np.array([[[1, 0], [1, 255], [2, 255]]], np.uint8)
  assert mask_files.summarize(_save(tmp_path / 'l.png', grey)).hidden == ((1, 1, 1),)
  opaque = _save(tmp_path / 'o.png', np.dstack([RGB, np.full((6, 8), 255, np.uint8)]))
  assert mask_files.summarize(opaque).alpha == () and mask_files.read(opaque).alpha is None
  assert len(mask_files.summarize(opaque).colors) == 48 and mask_files.read(opaque).ids is None


def test_a_mask_is_turned_as_its_own_tag_says_or_as_its_images(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  tagged = mask_files.read(_save(tmp_path / 'a.png', IDS, exif=exif))
  np.testing.assert_array_equal(tagged.ids, IDS)
  np.testing.assert_array_equal(tagged.upright().ids, np.rot90(IDS, -1))
  plain = mask_files.read(_save(tmp_path / 'b.png', IDS))
  np.testing.assert_array_equal(plain.turned(8).ids, np.rot90(IDS))
  np.testing.assert_array_equal(mask_files.read_ids(tmp_path / 'a.png'), np.rot90(IDS, -1))


def test_masks_of_several_pages_are_refused(tmp_path):
  tifffile.imwrite(tmp_path / 'a.tif', np.stack([IDS, IDS // 2]), photometric='minisblack')
  frames = [Image.fromarray(IDS), Image.fromarray(IDS // 2)]
  frames[0].save(tmp_path / 'a.gif', save_all=True, append_images=frames[1:])
  frames[0].save(tmp_path / 'a.png', save_all=True, append_images=frames[1:])
  for name in ('a.tif', 'a.gif', 'a.png'):
    with pytest.raises(UserError, match=rf'{name} holds 2 masks'):
      mask_files.read(tmp_path / name)
  assert mask_files.read_ids(tmp_path / 'a.tif', 1).tolist() == (IDS // 2).tolist()


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32])
def test_map_ids(tmp_path, dtype):
  mask = np.array([[0, 7], [11, 7]], dtype)
  mapped = mask_files.map_ids(mask, {0: 0, 7: 1, 11: VOID}, tmp_path)
  assert mapped.dtype == np.uint8 and mapped.tolist() == [[0, 1], [255, 1]]
  with pytest.raises(UserError, match=r'x\.png: label ids 7, 11 are not .* 0\.\.2, 255 \(void\)'):
    mask_files.map_ids(mask, {0: 0, 1: 1, 2: 2, 255: VOID}, tmp_path / 'x.png')
