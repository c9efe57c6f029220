"""ADE20K in the published layout: label 0 is void, the others move down by one."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxseg.datasets import ade20k
from jaxseg.types import VOID, UserError


def _label(seed):
  return np.random.default_rng(seed).permutation(151)[:120].astype(np.uint8).reshape(10, 12)


def _write(base):
  for folder, stems in {
    'training': ['ADE_train_00000001', 'ADE_train_00000002'],
    'validation': ['ADE_val_00000001'],
  }.items():
    for kind in ('images', 'annotations'):
      (base / kind / folder).mkdir(parents=True)
    for seed, stem in enumerate(stems):
      image = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
      Image.fromarray(image[..., 0] if seed else image).save(
        base / 'images' / folder / f'{stem}.jpg'
      )
      Image.fromarray(_label(seed)).save(base / 'annotations' / folder / f'{stem}.png')
  (base / 'objectInfo150.txt').write_text('Idx\tRatio\n')
  (base / 'sceneCategories.txt').write_text('ADE_train_00000001 airport_terminal\n')


def _source(root, split):
  return ade20k.source(split, data_dir=root, cache_dir=root / 'cache')


def test_published_layout(tmp_path):
  _write(tmp_path / 'ade20k' / 'ADEChallengeData2016')
  source = _source(tmp_path, 'train')
  assert [source.file_name(i) for i in range(2)] == [
    'ADE_train_00000001.jpg',
    'ADE_train_00000002.jpg',
  ]
  raw = _label(1)
  np.testing.assert_array_equal(source[1]['label'], np.where(raw == 0, VOID, raw - 1))
  assert source[1]['image'].shape == (10, 12, 3)  # some images are grey
  assert source.num_classes == 150 and len(_source(tmp_path, 'val')) == 1


def test_the_archive_itself(tmp_path):
  _write(tmp_path / 'raw' / 'ADEChallengeData2016')
  with zipfile.ZipFile(tmp_path / 'ADEChallengeData2016.zip', 'w') as file:
    for path in sorted((tmp_path / 'raw').rglob('*.*')):
      file.write(path, path.relative_to(tmp_path / 'raw'))
  assert _source(tmp_path, 'val').file_name(0) == 'ADE_val_00000001.jpg'


def test_names_and_palette():
  assert len(set(ade20k.CLASS_NAMES)) == len(set(ade20k.PALETTE)) == 150
  places = {0: 'wall', 44: 'chest of drawers', 78: 'arcade machine', 149: 'flag'}
  places |= {2: 'sky', 20: 'car', 12: 'person', 127: 'bicycle'}
  for i, name in places.items():
    assert ade20k.CLASS_NAMES[i] == name
  assert ade20k.PALETTE[:5] == (
    (120, 120, 120),
    (180, 120, 120),
    (6, 230, 230),
    (80, 50, 50),
    (4, 200, 3),
  )


def test_errors(tmp_path):
  with pytest.raises(UserError, match=r'none of ADEChallengeData2016/, ADEChallengeData2016\.zip'):
    _source(tmp_path, 'train')
  base = tmp_path / 'ade20k' / 'ADEChallengeData2016'
  _write(base)
  with pytest.raises(UserError, match='test labels are hidden'):
    _source(tmp_path, 'test')
  with pytest.raises(UserError, match="no split 'validation': use one of train, val"):
    _source(tmp_path, 'validation')
  label = base / 'annotations' / 'validation' / 'ADE_val_00000001.png'
  Image.fromarray(np.full((10, 12), 151, np.uint8)).save(label)
  with pytest.raises(UserError, match=r'label ids 151 .* 1\.\.150, 0 \(void\)'):
    _source(tmp_path, 'val')
