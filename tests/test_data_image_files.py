"""Images and masks of every mode, as people store them."""

import functools
import io
import os
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from jaxseg.data import image_files, pages, raw_files
from jaxseg.types import UserError

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def _save(path, array, mode=None, **options):
  image = Image.fromarray(array)
  (image.convert(mode) if mode else image).save(path, **options)
  return path


def _pixels(encoded):
  pixels = np.asarray(Image.open(io.BytesIO(encoded.data)))
  assert pixels.shape[:2] == (encoded.height, encoded.width)
  return pixels


@pytest.mark.parametrize(('array', 'name'), [(RGB, 'a.png'), (RGB, 'a.jpg'), (GREY, 'a.png')])
def test_eight_bit_images_are_kept_byte_for_byte(tmp_path, array, name):
  path = _save(tmp_path / name, array)
  assert image_files.encode_image(path).data == path.read_bytes()


def test_palette_image_becomes_rgb(tmp_path):
  image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
  image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
  image.save(tmp_path / 'p.png')
  expected = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [40, 50, 60]]]
  np.testing.assert_array_equal(_pixels(image_files.encode_image(tmp_path / 'p.png')), expected)


def test_alpha_is_dropped(tmp_path):
  rgba = np.dstack([RGB, np.full(GREY.shape, 7, np.uint8)])
  path = _save(tmp_path / 'a.png', rgba)
  np.testing.assert_array_equal(_pixels(image_files.encode_image(path)), RGB)


def test_cmyk_jpeg_becomes_rgb(tmp_path):
  flat = np.full((8, 8, 3), (200, 100, 50), np.uint8)
  path = _save(tmp_path / 'c.jpg', flat, mode='CMYK', quality=100)
  pixels = _pixels(image_files.encode_image(path))
  assert pixels.shape == (8, 8, 3) and np.abs(pixels.astype(int) - flat).max() <= 3


def test_one_bit_image_is_black_and_white(tmp_path):
  path = _save(tmp_path / 'a.png', np.array([[0, 255], [255, 0]], np.uint8), mode='1')
  np.testing.assert_array_equal(_pixels(image_files.encode_image(path)), [[0, 255], [255, 0]])


def test_exif_rotation_is_applied(tmp_path):
  image = Image.fromarray(RGB)
  exif = image.getexif()
  exif[0x0112] = 6  # "turn by 90 degrees clockwise to show"
  image.save(tmp_path / 'a.png', exif=exif)
  pixels = _pixels(image_files.encode_image(tmp_path / 'a.png'))
  np.testing.assert_array_equal(pixels, np.rot90(RGB, -1))


def test_colour_to_grey(tmp_path):
  path = _save(tmp_path / 'a.png', np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))
  grey = _pixels(image_files.encode_image(path, channels=1))
  np.testing.assert_array_equal(grey, [[76, 150, 29]])  # .299, .587, .114 of 255


def test_pictures_of_many_frames_are_refused_but_a_phones_second_view(tmp_path):
  frames = [Image.fromarray(np.roll(RGB, i, 0)) for i in range(2)]
  for name in ('a.png', 'a.tif'):
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match='holds 2 pictures'):
      image_files.encode_image(tmp_path / name)
  frames[0].save(tmp_path / 'a.jpg', 'MPO', save_all=True, append_images=frames[1:])
  assert image_files.encode_image(tmp_path / 'a.jpg').height == 6


def test_a_large_image_is_no_bomb(tmp_path, monkeypatch, recwarn):
  path = _save(tmp_path / 'a.png', RGB)
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 30)  # 48 pixels: more, and less than twice as many
  assert image_files.encode_image(path).width == 8
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 20)
  with pytest.raises(UserError, match='claims more than 40 pixels'):
    image_files.encode_image(path)


def test_text_may_begin_with_the_mark_of_windows(tmp_path):
  (tmp_path / 'a.txt').write_bytes(b'\xef\xbb\xbfsky\r\n')
  assert raw_files.read_text(tmp_path / 'a.txt').split() == ['sky']


@pytest.mark.parametrize('suffix', ['png', 'jpg'])
def test_damaged_files_are_named(tmp_path, suffix):
  path = _save(tmp_path / f'a.{suffix}', np.tile(RGB, (20, 20, 1)))
  data = path.read_bytes()
  path.write_bytes(data[: len(data) * 2 // 3])
  with pytest.raises(UserError, match=rf'cannot decode .*a\.{suffix}: '):
    image_files.encode_image(path)
  path.write_bytes(b'')
  with pytest.raises(UserError, match=rf'a\.{suffix} is empty'):
    image_files.encode_image(path)
  path.write_bytes(b'hello world' * 9)
  with pytest.raises(UserError, match='not an image'):
    image_files.encode_image(path)
  with pytest.raises(UserError, match=r'missing file: .*b\.png'):
    image_files.encode_image(tmp_path / 'b.png')


def test_list_images_leaves_out_what_is_hidden_or_no_image(tmp_path):
  for name in ('b.PNG', 'a.jpg', '._a.jpg', '.DS_Store', 'notes.txt'):
    (tmp_path / name).write_bytes(b'x')
  assert [p.name for p in raw_files.list_images(tmp_path, ('.png', '.jpg'))] == ['a.jpg', 'b.PNG']
  with pytest.raises(UserError, match='no such folder'):
    raw_files.list_images(tmp_path / 'none', ('.png',))


FULL = {'uint8': (0, 256), 'uint16': (0, 65536), 'int16': (-32768, 32768), 'float32': (-1e6, 1e6)}


def _typed(dtype, channels, seed=0):
  rng, (low, high) = np.random.default_rng(seed), FULL[dtype]
  if dtype == 'float32':
    return rng.uniform(low, high, (6, 8, channels)).astype(dtype)
  return rng.integers(low, high, (6, 8, channels)).astype(dtype)


@pytest.mark.parametrize('dtype', image_files.TYPES)
@pytest.mark.parametrize('channels', [1, 3, 4, 8])
@pytest.mark.parametrize('planar', ['contig', 'separate'])
def test_every_type_and_number_of_bands_comes_back_as_it_is(tmp_path, dtype, channels, planar):
  values = _typed(dtype, channels)
  stored = np.moveaxis(values, -1, 0) if planar == 'separate' and channels > 1 else values
  options = {'planarconfig': planar} if channels > 1 else {}
  for number, compression in enumerate((None, 'lzw', 'deflate', 'zstd')):
    path = tmp_path / f'{number}.tif'
    data = stored if channels > 1 else values[..., 0]
    tifffile.imwrite(path, data, photometric='minisblack', compression=compression, **options)
    read = image_files.read_image(path, channels=channels, dtype=dtype)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, values)
    encoded = image_files.encode_image(path, channels=channels, dtype=dtype)
    decoded = image_files.decode(encoded.data, channels=channels, dtype=dtype)
    assert decoded.dtype == dtype and (encoded.height, encoded.width) == (6, 8)
    np.testing.assert_array_equal(decoded, values)
    assert image_files.kind(pages.read_header(path)) == (channels, dtype)


def test_sixteen_bit_pngs_keep_their_values(tmp_path):
  deep = _typed('uint16', 4)
  cv2.imwrite(str(tmp_path / 'rgb.png'), deep[..., 2::-1])
  cv2.imwrite(str(tmp_path / 'rgba.png'), deep[..., [2, 1, 0, 3]])
  cv2.imwrite(str(tmp_path / 'grey.png'), deep[..., 0])
  read = image_files.read_image
  np.testing.assert_array_equal(read(tmp_path / 'rgb.png', dtype='uint16'), deep[..., :3])
  np.testing.assert_array_equal(read(tmp_path / 'rgba.png', dtype='uint16'), deep[..., :3])
  np.testing.assert_array_equal(read(tmp_path / 'rgba.png', channels=4, dtype='uint16'), deep)
  grey = read(tmp_path / 'grey.png', channels=1, dtype='uint16')
  np.testing.assert_array_equal(grey, deep[..., :1])


def test_other_types_are_widened_where_nothing_is_lost(tmp_path):
  def written(values):
    tifffile.imwrite(tmp_path / 'a.tif', values)
    return tmp_path / 'a.tif'

  read = functools.partial(image_files.read_image, channels=1, dtype='float32')
  for values in (
    np.array([[0, 2**24]], np.uint32),
    np.array([[-(2**24), 5]], np.int32),
    np.array([[-3, 60000]], np.int64),
    np.array([[0.1, -1e9]], np.float64),
    np.array([[0.5, 7]], np.float16),
    np.array([[3, 60000]], np.uint16),
  ):
    np.testing.assert_array_equal(read(written(values))[..., 0], values.astype(np.float32))
  tifffile.imwrite(tmp_path / 'i8.tif', np.array([[-128, 127]], np.int8))
  small = image_files.read_image(tmp_path / 'i8.tif', channels=1, dtype='int16')
  assert small.dtype == np.int16 and small.ravel().tolist() == [-128, 127]
  with pytest.raises(UserError, match=r'a\.tif is uint32 with values above 2\*\*24'):
    read(written(np.array([[2**24 + 1]], np.uint32)))
  with pytest.raises(UserError, match=r'a\.tif holds 2 values that are no numbers'):
    read(written(np.array([[np.nan, np.inf, 1]], np.float32)))
  with pytest.raises(
    UserError, match=r'a\.tif is uint16, and uint8 is expected: .*config.data.dtype'
  ):
    image_files.read_image(written(np.zeros((2, 2), np.uint16)), channels=1)


def test_bands_that_do_not_fit_are_one_line(tmp_path):
  tifffile.imwrite(
    tmp_path / 'a.tif', np.zeros((4, 4, 5), np.uint8), photometric='rgb', planarconfig='contig'
  )
  with pytest.raises(UserError, match=r'a\.tif has 5 channels, and 3 are expected: .*mean and std'):
    image_files.read_image(tmp_path / 'a.tif')


def test_pages_are_no_bands_and_copies_no_pages(tmp_path):
  stack = _typed('uint16', 4).transpose(2, 0, 1)
  tifffile.imwrite(tmp_path / 'stack.tif', stack, photometric='minisblack')
  tifffile.imwrite(tmp_path / 'imagej.tif', stack, imagej=True)
  for name in ('stack.tif', 'imagej.tif'):
    read = functools.partial(image_files.read_image, tmp_path / name, channels=1, dtype='uint16')
    with pytest.raises(UserError, match=rf'{name} holds 4 pictures \(pages are no bands\)'):
      read()
    for number, values in enumerate(stack):
      np.testing.assert_array_equal(read(page=number)[..., 0], values)
    with pytest.raises(UserError, match=r'there is no page 4'):
      read(page=4)
  with tifffile.TiffWriter(tmp_path / 'pyramid.tif') as writer:
    writer.write(RGB, photometric='rgb', subifds=0)
    writer.write(RGB[::2, ::2], photometric='rgb', subfiletype=1)
  np.testing.assert_array_equal(image_files.read_image(tmp_path / 'pyramid.tif'), RGB)


def test_an_image_is_what_viewers_show(tmp_path):
  deep = _typed('uint16', 1)[..., 0]
  tifffile.imwrite(tmp_path / 'white.tif', GREY, photometric='miniswhite')
  tifffile.imwrite(tmp_path / 'deep.tif', deep, photometric='miniswhite')
  colours = (np.arange(768).reshape(3, 256) * 85).astype(np.uint16)
  tifffile.imwrite(tmp_path / 'palette.tif', GREY, photometric='palette', colormap=colours)
  read = functools.partial(image_files.read_image, channels=1)
  np.testing.assert_array_equal(read(tmp_path / 'white.tif')[..., 0], 255 - GREY)
  np.testing.assert_array_equal(read(tmp_path / 'deep.tif', dtype='uint16')[..., 0], 65535 - deep)
  shown = image_files.read_image(tmp_path / 'palette.tif')
  np.testing.assert_array_equal(shown, (colours >> 8).T.astype(np.uint8)[GREY])


@pytest.mark.parametrize('orientation', range(1, 9))
def test_every_orientation_is_turned_as_pillow_does(tmp_path, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(RGB).save(tmp_path / 'a.png', exif=exif)
  with Image.open(tmp_path / 'a.png') as image:
    upright = np.asarray(ImageOps.exif_transpose(image))
  np.testing.assert_array_equal(image_files.read_image(tmp_path / 'a.png'), upright)
  tags = [(274, 'H', 1, orientation, True)]
  tifffile.imwrite(tmp_path / 'a.tif', RGB, photometric='rgb', extratags=tags)
  np.testing.assert_array_equal(image_files.read_image(tmp_path / 'a.tif'), upright)
  assert pages.read_header(tmp_path / 'a.tif').upright_size == upright.shape[:2]
  for name in ('a.png', 'a.tif'):  # a picture that a program opened itself
    page = pages.of_picture(Image.open(tmp_path / name))
    np.testing.assert_array_equal(image_files.as_image(page, channels=3, dtype='uint8'), upright)


def test_a_damaged_tiff_is_named(tmp_path):
  path = tmp_path / 'a.tif'
  for compression in (None, 'lzw', 'deflate'):
    tifffile.imwrite(path, np.tile(RGB, (20, 20, 1)), photometric='rgb', compression=compression)
    data = path.read_bytes()
    for cut in (len(data) * 2 // 3, len(data) - 9, 40, 9):
      path.write_bytes(data[:cut])
      with pytest.raises(UserError, match=r'cannot decode .*a\.tif: '):
        image_files.encode_image(path)


def test_a_stack_is_as_long_as_its_file(tmp_path):
  path = tmp_path / 'a.tif'
  tifffile.imwrite(path, np.stack([GREY] * 9), imagej=True, truncate=True)
  assert pages.read_header(path).pages == 9
  np.testing.assert_array_equal(pages.read(path, page=8).values[..., 0], GREY)
  data = path.read_bytes()
  assert b'images=9\n' in data
  path.write_bytes(data.replace(b'images=9\n', b'images=7\n'))
  assert pages.read_header(path).pages == 7
  path.write_bytes(data.replace(b'images=9\nchannels=9\n', b'images=999999999\nx=9\n'))
  with pytest.raises(UserError, match='claims 999,999,999 pages, and is too short for them'):
    pages.read_header(path)


@pytest.mark.parametrize('large', [False, True])
@pytest.mark.parametrize('order', ['<', '>'])
def test_pages_in_a_circle_are_refused(tmp_path, order, large):
  path = tmp_path / 'a.tif'
  with tifffile.TiffWriter(path, byteorder=order, bigtiff=large) as file:
    for _ in range(3):
      file.write(RGB, photometric='rgb', metadata=None)
  with tifffile.TiffFile(path) as file:
    first, last = file.pages[0].offset, file.pages[2]
    wide, counts, entry = (8, 8, 20) if large else (4, 2, 12)
    at = last.offset + counts + entry * len(last.tags)
  data = bytearray(path.read_bytes())
  assert data[at : at + wide] == bytes(wide)
  assert pages.read_header(path).pages == 3
  data[at : at + wide] = first.to_bytes(wide, {'<': 'little', '>': 'big'}[order])
  path.write_bytes(data)
  for read in (image_files.read_image, pages.read_header):
    with pytest.raises(UserError, match='its pages follow each other in a circle'):
      read(path)


def test_an_image_has_pixels_and_a_png_its_header_first(tmp_path):
  path = tmp_path / 'a.tif'
  tifffile.imwrite(path, RGB[..., 0], photometric='minisblack')
  with tifffile.TiffFile(path) as file:
    at = file.pages[0].tags[256].valueoffset
  data = bytearray(path.read_bytes())
  data[at : at + 4] = bytes(4)
  path.write_bytes(data)
  with pytest.raises(UserError, match='pixels; restore the file'):
    image_files.encode_image(path)
  data = _save(tmp_path / 'b.png', RGB).read_bytes()
  chunk = bytes(3) + b'\4CgBI' + bytes(4) + zlib.crc32(b'CgBI' + bytes(4)).to_bytes(4, 'big')
  (tmp_path / 'b.png').write_bytes(data[:8] + chunk + data[8:])
  for read in (image_files.encode_image, pages.read_header):
    with pytest.raises(UserError, match='its PNG does not begin with its header'):
      read(tmp_path / 'b.png')


def test_only_listed_formats_reach_a_decoder(tmp_path, monkeypatch):
  (tmp_path / 'gs').write_text(f'#!/bin/sh\ntouch {tmp_path / "ran"}\n')
  (tmp_path / 'gs').chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
  Image.fromarray(RGB).save(tmp_path / 'a.png', 'EPS')
  Image.fromarray(RGB).save(tmp_path / 'b.png', 'JPEG2000')
  Image.fromarray(RGB).save(tmp_path / 'c.png', 'PPM')
  for name, kind in (('a', 'a PostScript file'), ('b', 'a JPEG 2000 file'), ('c', 'not an image')):
    for read in (image_files.encode_image, pages.read_header):
      with pytest.raises(UserError, match=f'cannot decode .*{name}.png: {kind}; .*PNG, JPEG, TIFF'):
        read(tmp_path / f'{name}.png')
  assert not (tmp_path / 'ran').exists()


def test_pipes_and_devices_are_refused(tmp_path):
  os.mkfifo(tmp_path / 'a.tif')
  (tmp_path / 'b.png').symlink_to('/dev/zero')
  for name in ('a.tif', 'b.png'):
    for read in (image_files.read_image, pages.read_header):
      with pytest.raises(UserError, match=rf'cannot read .*{name}: it is a'):
        read(tmp_path / name)


def test_a_header_that_claims_more_than_memory_is_refused(tmp_path, monkeypatch):
  path = _save(tmp_path / 'a.png', RGB)
  monkeypatch.setattr(pages, '_MOST_BYTES', RGB.nbytes - 1)
  with pytest.raises(UserError, match=r'a\.png claims .* more than half of this memory'):
    image_files.read_image(path)


@pytest.mark.parametrize('compression', ['raw', 'tiff_lzw', 'tiff_adobe_deflate'])
def test_luminance_and_chrominance_in_a_tiff_are_not_taken_for_rgb(tmp_path, compression):
  Image.fromarray(RGB).convert('YCbCr').save(tmp_path / 'a.tif', compression=compression)
  with pytest.raises(
    UserError, match='pixels of its kind .*YCBCR.* are not read: save them as RGB'
  ):
    image_files.read_image(tmp_path / 'a.tif')


def test_what_pillow_changes_is_asked_for_by_its_path(tmp_path):
  deep = RGB.astype(np.uint16) * 257
  cv2.imwrite(str(tmp_path / 'a.png'), deep)
  tifffile.imwrite(tmp_path / 'a.tif', deep[..., 0], photometric='miniswhite')
  for name in ('a.png', 'a.tif'):
    with pytest.raises(UserError, match='Pillow changes its values .*: give its path'):
      pages.of_picture(Image.open(tmp_path / name))
  cv2.imwrite(str(tmp_path / 'grey.png'), deep[..., 0])
  page = pages.of_picture(Image.open(tmp_path / 'grey.png'))
  np.testing.assert_array_equal(page.values[..., 0], deep[..., 0])
