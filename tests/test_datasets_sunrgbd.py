"""SUN RGB-D's export: labels numbered through, test first; 0 is void."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from jaxseg.datasets import sunrgbd
from jaxseg.types import VOID, UserError

COUNTS = {'test': 3, 'train': 2}


def _label(number):
  return np.random.default_rng(number).permutation(38).astype(np.uint8)[:35].reshape(5, 7)


def _files():
  """Returns archive -> [(name, content)], as if NUM_TEST were the number of test images."""
  numbers = range(1, sum(COUNTS.values()) + 1)
  files = {'sunrgbd_train_test_labels': [(f'img-{n:06d}.png', _label(n)) for n in numbers]}
  for split, count in COUNTS.items():
    rng = np.random.default_rng(count)
    files[f'SUNRGBD-{split}_images'] = [
      (f'img-{n:06d}.jpg', rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
      for n in range(1, count + 1)
    ]
  return files


def _encoded(name, pixels):
  stream = io.BytesIO()
  Image.fromarray(pixels).save(stream, 'PNG' if name.endswith('png') else 'JPEG')
  return stream.getvalue()


def _write(root):
  for folder, files in _files().items():
    (root / folder).mkdir(parents=True)
    for name, pixels in files:
      (root / folder / name).write_bytes(_encoded(name, pixels))


@pytest.fixture(autouse=True)
def three_test_images(monkeypatch):
  assert sunrgbd.NUM_TEST == 5050
  monkeypatch.setattr(sunrgbd, 'NUM_TEST', COUNTS['test'])


def _source(root, split):
  return sunrgbd.source(split, data_dir=root, cache_dir=root / 'cache')


def test_published_layout(tmp_path):
  _write(tmp_path / 'sunrgbd')
  for split, first in (('test', 1), ('train', 4)):
    source = _source(tmp_path, split)
    assert len(source) == COUNTS[split] and source.num_classes == 37
    for i in range(len(source)):
      raw = _label(first + i)
      expected = np.where(raw == 0, VOID, raw - 1)
      np.testing.assert_array_equal(source[i]['label'], expected, err_msg=f'{split} {i}')


@pytest.mark.parametrize('flat', [False, True])
def test_the_archives_themselves(tmp_path, flat):
  (tmp_path / 'sunrgbd').mkdir()
  for folder, files in _files().items():
    suffix = '.tar.gz' if folder.endswith('labels') else '.tgz'
    with tarfile.open(tmp_path / 'sunrgbd' / f'{folder}{suffix}', 'w:gz') as file:
      for name, pixels in files:
        data = _encoded(name, pixels)
        entry = tarfile.TarInfo(name if flat else f'{folder}/{name}')
        entry.size = len(data)
        file.addfile(entry, io.BytesIO(data))
  np.testing.assert_array_equal(_source(tmp_path, 'train').label(1), np.uint8(_label(5) - 1))


def test_errors(tmp_path):
  _write(tmp_path / 'sunrgbd')
  with pytest.raises(UserError, match="no split 'val': use one of train, test"):
    _source(tmp_path, 'val')
  labels = tmp_path / 'sunrgbd' / 'sunrgbd_train_test_labels'
  (labels / 'img-000005.png').unlink()
  with pytest.raises(UserError, match=r'missing file: .*img-000005\.png'):
    _source(tmp_path, 'train')
  images = tmp_path / 'sunrgbd' / 'SUNRGBD-test_images'
  (images / 'img-000001.jpg').rename(images / 'photo.jpg')
  with pytest.raises(UserError, match=r'photo\.jpg is not named img-NUMBER\.jpg'):
    _source(tmp_path, 'test')


def test_names():
  assert len(set(sunrgbd.CLASS_NAMES)) == len(set(sunrgbd.PALETTE)) == 37
  places = {0: 'wall', 18: 'mirror', 21: 'ceiling', 30: 'person', 36: 'bag'}
  for i, name in places.items():
    assert sunrgbd.CLASS_NAMES[i] == name
