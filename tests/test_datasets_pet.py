"""Oxford-IIIT Pet in the published layout: trimaps, lists with remarks, odd images."""

import tarfile

import numpy as np
import pytest
from PIL import Image

from jaxseg.datasets import pet
from jaxseg.types import VOID, UserError

TRAINVAL = [f'Abyssinian_{i}' for i in range(1, 13)]
TEST = ['beagle_1', 'american_bulldog_2']


def _trimap(name):
  rng = np.random.default_rng(sum(name.encode()))
  return rng.integers(1, 4, (8, 11), dtype=np.uint8)


def _write(root):
  (root / 'images').mkdir(parents=True)
  (root / 'annotations' / 'trimaps').mkdir(parents=True)
  (root / 'annotations' / 'xmls').mkdir()
  for name in TRAINVAL + TEST:
    rng = np.random.default_rng(sum(name.encode()))
    image = Image.fromarray(rng.integers(0, 256, (8, 11, 3), dtype=np.uint8))
    # some of the published .jpg files are PNGs with alpha, GIFs or grey
    if name == 'Abyssinian_2':
      image.convert('RGBA').save(root / 'images' / f'{name}.jpg', 'PNG')
    elif name == 'Abyssinian_3':
      image.save(root / 'images' / f'{name}.jpg', 'GIF')
    else:
      image.convert('L' if name == TEST[0] else 'RGB').save(root / 'images' / f'{name}.jpg')
    Image.fromarray(_trimap(name)).save(root / 'annotations' / 'trimaps' / f'{name}.png')
    (root / 'annotations' / 'trimaps' / f'._{name}.png').write_bytes(b'Mac OS X')
  head = '#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n'
  lines = {'list': TRAINVAL + TEST, 'trainval': TRAINVAL, 'test': TEST}
  for split, names in lines.items():
    text = ''.join(f'{name} 1 1 1\n' for name in names)
    (root / 'annotations' / f'{split}.txt').write_text((head if split == 'list' else '') + text)


def _source(root, split, **options):
  return pet.source(split, data_dir=root, cache_dir=root / 'cache', **options)


def _names(source):
  return [source.file_name(i).removesuffix('.jpg') for i in range(len(source))]


def test_published_layout(tmp_path):
  _write(tmp_path / 'pet')
  source = _source(tmp_path, 'trainval')
  assert _names(source) == TRAINVAL and source.class_names == ('pet', 'background', 'border')
  for i, name in enumerate(TRAINVAL):
    np.testing.assert_array_equal(source[i]['label'], _trimap(name) - 1, err_msg=name)
    assert source[i]['image'].shape == (8, 11, 3)
  test = _source(tmp_path, 'test')
  assert _names(test) == TEST and test[0]['image'].shape == (8, 11, 3)


def test_every_tenth_is_held_out(tmp_path):
  _write(tmp_path / 'pet')
  train, val = _source(tmp_path, 'train'), _source(tmp_path, 'val')
  assert _names(val) == ['Abyssinian_10'] and len(train) == 11
  assert set(_names(train)) == set(TRAINVAL) - {'Abyssinian_10'}
  assert train.path == val.path


def test_border_as_void(tmp_path):
  _write(tmp_path / 'pet')
  source = _source(tmp_path, 'test', border='void')
  assert source.num_classes == 2 and source.palette == pet.PALETTE[:2]
  raw = _trimap(TEST[1])
  np.testing.assert_array_equal(source[1]['label'], np.where(raw == 3, VOID, raw - 1))


@pytest.mark.parametrize('mode', ['w', 'w:gz'])  # published as .tar.gz, once plain tar
def test_the_archives_themselves(tmp_path, mode):
  _write(tmp_path / 'raw')
  (tmp_path / 'pet').mkdir()
  for folder in ('images', 'annotations'):
    with tarfile.open(tmp_path / 'pet' / f'{folder}.tar.gz', mode) as file:
      file.add(tmp_path / 'raw' / folder, folder)
  assert _names(_source(tmp_path, 'test')) == TEST


def test_lists_may_have_remarks(tmp_path):
  (tmp_path / 'list.txt').write_text('#Image CLASS-ID\n\nBombay_1 8 1 7\n')
  assert pet._read_names(tmp_path / 'list.txt') == ['Bombay_1']


def test_errors(tmp_path):
  with pytest.raises(UserError, match=r'none of images/, images\.tar\.gz in .*pet'):
    _source(tmp_path, 'test')
  _write(tmp_path / 'pet')
  with pytest.raises(UserError, match="no split 'training': use one of train, val, trainval, test"):
    _source(tmp_path, 'training')
  with pytest.raises(UserError, match="no border 'drop': use one of class, void"):
    _source(tmp_path, 'test', border='drop')
  path = tmp_path / 'pet' / 'annotations' / 'trimaps' / f'{TEST[0]}.png'
  Image.fromarray(np.zeros((8, 11), np.uint8)).save(path)
  with pytest.raises(UserError, match=r'beagle_1\.png: label ids 0 .* 1\.\.3'):
    _source(tmp_path, 'test')
