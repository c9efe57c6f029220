"""Images and masks of every mode, as people store them."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxseg.data import image_files
from jaxseg.types import VOID, UserError

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


def test_sixteen_bit_grey_is_scaled(tmp_path):
  path = _save(tmp_path / 'a.png', np.array([[0, 257, 4095], [65535, 32768, 100]], np.uint16))
  full = _pixels(image_files.encode_image(path))
  np.testing.assert_array_equal(full, [[0, 1, 16], [255, 128, 0]])
  twelve = _pixels(image_files.encode_image(path, white=4095))
  np.testing.assert_array_equal(twelve, [[0, 16, 255], [255, 255, 6]])


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


def test_masks_of_all_modes_give_their_indices(tmp_path):
  ids = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
  palette = Image.fromarray(ids, mode=None)
  palette.putpalette([v for i in range(256) for v in (255 - i, i, 9)])
  palette.save(tmp_path / 'p.png')
  _save(tmp_path / 'l.png', ids)
  _save(tmp_path / 'w.png', ids.astype(np.uint16))
  _save(tmp_path / 't.tif', ids)
  for name in ('p.png', 'l.png', 'w.png', 't.tif'):
    np.testing.assert_array_equal(image_files.read_mask(tmp_path / name), ids, err_msg=name)
  _save(tmp_path / '1.png', np.array([[0, 255]], np.uint8), mode='1')
  assert image_files.read_mask(tmp_path / '1.png').tolist() == [[0, 1]]


def test_masks_that_are_no_indices_are_refused(tmp_path):
  with pytest.raises(UserError, match=r'm\.jpg is a JPEG: .* PNG'):
    image_files.read_mask(_save(tmp_path / 'm.jpg', GREY))
  with pytest.raises(UserError, match=r'c\.png is a mask of mode RGB.*classes\.txt'):
    image_files.read_mask(_save(tmp_path / 'c.png', RGB))


def test_grey_masks_saved_in_colour_give_their_values(tmp_path):
  ids = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
  for mode in ('RGB', 'RGBA', 'LA'):
    path = _save(tmp_path / f'{mode}.png', ids, mode=mode)
    np.testing.assert_array_equal(image_files.read_mask(path), ids)


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
  assert image_files.read_text(tmp_path / 'a.txt').split() == ['sky']


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32])
def test_map_ids(tmp_path, dtype):
  mask = np.array([[0, 7], [11, 7]], dtype)
  mapped = image_files.map_ids(mask, {0: 0, 7: 1, 11: VOID}, tmp_path)
  assert mapped.dtype == np.uint8 and mapped.tolist() == [[0, 1], [255, 1]]
  with pytest.raises(UserError, match=r'x\.png: label ids 7, 11 are not .* 0\.\.2, 255 \(void\)'):
    image_files.map_ids(mask, {0: 0, 1: 1, 2: 2, 255: VOID}, tmp_path / 'x.png')


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
  assert [p.name for p in image_files.list_images(tmp_path, ('.png', '.jpg'))] == ['a.jpg', 'b.PNG']
  with pytest.raises(UserError, match='no such folder'):
    image_files.list_images(tmp_path / 'none', ('.png',))
