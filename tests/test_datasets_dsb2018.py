"""DSB 2018: both layouts, instances, separated labels and the weight map."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxseg.datasets import dsb2018
from jaxseg.types import UserError

VAL, TRAIN = '00000005' + 'a' * 56, '00000006' + 'b' * 56  # 5 % 5 == 0, 6 % 5 == 1


def _instances():
  instances = np.zeros((24, 30), np.uint16)
  instances[4:12, 3:10] = 1
  instances[4:12, 10:18] = 2  # touches the first
  instances[15:20, 20:26] = 3
  return instances


def _rgba(seed):
  rgb = np.random.default_rng(seed).integers(0, 256, (24, 30, 3), dtype=np.uint8)
  return np.dstack([rgb, np.full((24, 30), 255, np.uint8)])


def _shared_layout(root):
  base = root / 'dsb2018'
  (base / 'images').mkdir(parents=True)
  (base / 'labels').mkdir()
  lines = ['id,split,width']
  for name, split in ((TRAIN, 'train'), (VAL, 'val')):
    Image.fromarray(_rgba(1)[..., 0]).save(base / 'images' / f'{name}.png')  # grey
    Image.fromarray(_instances()).save(base / 'labels' / f'{name}.png')
    lines.append(f'{name},{split},30')
  (base / 'index.csv').write_text('\n'.join(lines) + '\n')
  return base


def _published_layout(root):
  for name in (TRAIN, VAL):
    base = root / 'dsb2018' / 'stage1_train' / name
    (base / 'images').mkdir(parents=True)
    (base / 'masks').mkdir()
    Image.fromarray(_rgba(1)).save(base / 'images' / f'{name}.png')
    for i in (1, 2, 3):
      mask = np.where(_instances() == i, np.uint8(255), np.uint8(0))
      Image.fromarray(mask).save(base / 'masks' / f'{i}{"c" * 63}.png')
  return root / 'dsb2018' / 'stage1_train'


@pytest.mark.parametrize('write', [_shared_layout, _published_layout])
def test_layouts(tmp_path, write):
  write(tmp_path)
  options = dict(data_dir=tmp_path, cache_dir=tmp_path / 'cache')
  for split, name in (('train', TRAIN), ('val', VAL)):
    source = dsb2018.source(split, **options)
    assert len(source) == 1 and source.file_name(0) == f'{name}.png'
    example = source[0]
    rgb = _rgba(1)[..., :3] if write is _published_layout else _rgba(1)[..., [0, 0, 0]]
    np.testing.assert_array_equal(example['image'], rgb)
    np.testing.assert_array_equal(example['instances'], _instances())
    expected = (_instances() > 0).astype(np.uint8)
    if split == 'train':  # a gap of two pixels where nuclei touched
      expected[4:12, 9:11] = 0
    np.testing.assert_array_equal(example['label'], expected)


def test_weight_map(tmp_path):
  _shared_layout(tmp_path)
  weight = dsb2018.source('train', data_dir=tmp_path, cache_dir=tmp_path / 'c')[0]['weight']
  background, nucleus = dsb2018.CLASS_WEIGHTS
  gap = background + 10 * np.exp(-((1 + 2) ** 2) / 50)
  assert weight.dtype == np.float32
  np.testing.assert_allclose(weight[8, 8:12], [nucleus, gap, gap, nucleus], atol=3e-4)
  np.testing.assert_allclose(weight[23, 0], background, atol=1e-2)


def test_options(tmp_path):
  _published_layout(tmp_path)
  options = dict(data_dir=tmp_path, cache_dir=tmp_path / 'cache')
  plain = dsb2018.source('train', border_weight=False, separate=False, channels=1, **options)
  example = plain[0]
  assert 'weight' not in example and example['image'].shape == (24, 30, 1)
  np.testing.assert_array_equal(example['label'], _instances() > 0)


def test_overlaps_go_to_the_smaller_mask(tmp_path):
  large, small = np.zeros((2, 6, 6), np.uint8)
  large[:4], small[3:5, :2] = 255, 255
  for name, mask in (('a.png', small), ('b.png', large)):
    Image.fromarray(mask).save(tmp_path / name)
  instances = dsb2018.join_masks((tmp_path / 'a.png', tmp_path / 'b.png'), (6, 6))
  assert instances[3].tolist() == [1, 1, 2, 2, 2, 2] and instances[2].tolist() == [2] * 6


def test_an_empty_folder_of_masks_is_an_image_without_nuclei(tmp_path):
  base = _published_layout(tmp_path)
  for path in (base / TRAIN / 'masks').iterdir():
    path.unlink()
  [example] = dsb2018.source('train', data_dir=tmp_path, cache_dir=tmp_path / 'cache')
  assert not example['instances'].any() and example['instance_classes'].shape == (0,)
  assert not example['label'].any() and np.isfinite(example['weight']).all()


def test_errors(tmp_path):
  options = dict(data_dir=tmp_path, cache_dir=tmp_path / 'cache')
  with pytest.raises(
    UserError, match=r'none of stage1_train/, stage1_train\.zip in .*data\.py get dsb2018'
  ):
    dsb2018.source('train', **options)
  base = _published_layout(tmp_path)
  with pytest.raises(UserError, match="no split 'test'"):
    dsb2018.source('test', **options)
  mask = next((base / VAL / 'masks').iterdir())
  Image.fromarray(np.zeros((5, 5), np.uint8)).save(mask)
  with pytest.raises(UserError, match='5 x 5 pixels, its image 30 x 24: they must have one size'):
    dsb2018.source('val', **options)
  with pytest.raises(UserError, match='no such folder: .*masks'):
    (base / TRAIN / 'masks').rename(base / TRAIN / 'gone')
    dsb2018.source('train', **options)
  with pytest.raises(UserError, match="'notes' is no image id"):
    dsb2018.split_of('notes')


def test_real_validation_split(shared_data, tmp_path):
  source = dsb2018.source('val', data_dir=shared_data, cache_dir=tmp_path, border_weight=False)
  assert len(source) == 110
  nuclei = sum(len(np.unique(source[i]['instances'])) - 1 for i in range(110))
  assert nuclei == 3915
  assert all(dsb2018.split_of(source.file_name(i)) == 'val' for i in range(110))


def test_the_fluorescence_split_is_written_down(tmp_path):
  ids = {i + 'a' * 56: 'train' for i in _listed()}
  train, val = (dsb2018._of(f'fluorescence_{part}', ids) for part in ('train', 'val'))
  assert (len(train), len(val)) == (380, 67)
  assert set(train) | set(val) == set(ids) and val[0].startswith('06350c7c')
  ids.pop(val[3])
  with pytest.raises(
    UserError, match=r'^dsb2018: 1 of the 67 images of fluorescence_val are missing'
  ):
    dsb2018._of('fluorescence_val', ids)


def _listed():
  text = Path(dsb2018.__file__).with_name('dsb2018_fluorescence.txt').read_text()
  return re.findall(r'\b[0-9a-f]{8}\b', text)
