"""Cityscapes in the published layout, and the table of ids."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxseg.datasets import cityscapes
from jaxseg.types import VOID, UserError

# labelIds 0..33 in order; the 15 that are not scored are void
TRAIN_IDS = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12]
TRAIN_IDS += [13, 14, 15, 255, 255, 16, 17, 18]

FRAMES = {
  'train': ['aachen_000000_000019', 'aachen_000001_000019', 'zurich_000000_000019'],
  'val': ['frankfurt_000000_000294'],
}


def _ids(seed):
  ids = np.arange(40).reshape(4, 10) % 34
  return np.random.default_rng(seed).permuted(ids).astype(np.uint8)


def _write(root, *, kind='gtFine', frames=FRAMES):
  for split, stems in frames.items():
    for seed, stem in enumerate(stems):
      city = stem.split('_')[0]
      for folder in (f'leftImg8bit/{split}/{city}', f'{kind}/{split}/{city}'):
        (root / folder).mkdir(parents=True, exist_ok=True)
      image = np.random.default_rng(seed).integers(0, 256, (4, 10, 3), dtype=np.uint8)
      Image.fromarray(image).save(root / 'leftImg8bit' / split / city / f'{stem}_leftImg8bit.png')
      place = root / kind / split / city
      Image.fromarray(_ids(seed)).save(place / f'{stem}_{kind}_labelIds.png')
      Image.fromarray(_ids(seed)).save(place / f'{stem}_{kind}_instanceIds.png')
      (place / f'{stem}_{kind}_polygons.json').write_text('{}')


def _source(root, split, **options):
  return cityscapes.source(split, data_dir=root, cache_dir=root / 'cache', **options)


def test_the_table():
  assert [cityscapes.TRAIN_IDS[i] for i in range(34)] == TRAIN_IDS
  assert cityscapes.TRAIN_IDS[255] == VOID  # -1, the licence plate
  assert len(cityscapes.CLASS_NAMES) == len(set(cityscapes.PALETTE)) == 19
  assert cityscapes.CLASS_NAMES[10] == 'sky' and cityscapes.PALETTE[10] == (70, 130, 180)


def test_published_layout(tmp_path):
  _write(tmp_path / 'cityscapes')
  source = _source(tmp_path, 'train')
  names = [source.file_name(i) for i in range(len(source))]
  assert names == [f'{stem}_leftImg8bit.png' for stem in FRAMES['train']]
  expected = np.array(TRAIN_IDS, np.uint8)[_ids(1)]
  np.testing.assert_array_equal(source[1]['label'], expected)
  assert source[1]['image'].shape == (4, 10, 3) and source.num_classes == 19


def test_coarse(tmp_path):
  frames = {'train_extra': ['augsburg_000000_000000']}
  _write(tmp_path / 'cityscapes', kind='gtCoarse', frames=frames)
  source = _source(tmp_path, 'train_extra', coarse=True)
  assert len(source) == 1
  with pytest.raises(UserError, match="'train_extra' has coarse labels only: set coarse=True"):
    _source(tmp_path, 'train_extra')


def test_the_archives_themselves(tmp_path):
  _write(tmp_path / 'raw')
  (tmp_path / 'cityscapes').mkdir()
  for folder in ('leftImg8bit', 'gtFine'):
    packed = tmp_path / 'cityscapes' / f'{folder}_trainvaltest.zip'
    with zipfile.ZipFile(packed, 'w') as file:
      for path in sorted((tmp_path / 'raw' / folder).rglob('*.*')):
        file.write(path, path.relative_to(tmp_path / 'raw'))
  assert len(_source(tmp_path, 'val')) == 1


def test_errors(tmp_path):
  _write(tmp_path / 'cityscapes')
  with pytest.raises(UserError, match='test labels are hidden'):
    _source(tmp_path, 'test')
  with pytest.raises(UserError, match="no split 'valid'"):
    _source(tmp_path, 'valid')
  stem = FRAMES['val'][0]
  path = tmp_path / 'cityscapes' / 'gtFine' / 'val' / 'frankfurt' / f'{stem}_gtFine_labelIds.png'
  Image.fromarray(np.full((4, 10), 40, np.uint8)).save(path)
  with pytest.raises(UserError, match='label ids 40 are not among'):
    _source(tmp_path, 'val')
  path.unlink()
  with pytest.raises(UserError, match=r'missing file: .*_gtFine_labelIds\.png'):
    _source(tmp_path, 'val')
