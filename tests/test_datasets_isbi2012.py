"""ISBI 2012: both layouts, the contiguous split, NVIDIA's folds, the weight map."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.datasets import isbi2012
from jaxseg.types import UserError

COUNT = 10


def _sections():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (COUNT, 16, 16), dtype=np.uint8)
  labels = np.full((COUNT, 16, 16), 255, np.uint8)
  labels[:, :, 7:9] = 0  # a membrane two pixels wide between two cells
  labels[:, 0, :5] = 0
  return images, labels


def _pngs(root):
  images, labels = _sections()
  for kind, arrays in (('image', images), ('label', labels)):
    folder = root / 'isbi2012' / 'train' / kind
    folder.mkdir(parents=True)
    for i, array in enumerate(arrays):
      Image.fromarray(array).save(folder / f'{i:02d}.png')


def _volumes(root):
  (root / 'isbi2012').mkdir()
  for name, arrays in zip(('train-volume.tif', 'train-labels.tif'), _sections(), strict=True):
    first, *rest = [Image.fromarray(a) for a in arrays]
    first.save(root / 'isbi2012' / name, save_all=True, append_images=rest)


@pytest.mark.parametrize('write', [_pngs, _volumes])
def test_layouts(tmp_path, write):
  write(tmp_path)
  options = dict(data_dir=tmp_path, cache_dir=tmp_path / 'cache')
  images, labels = _sections()
  source = isbi2012.source('all', **options)
  assert len(source) == COUNT and source.channels == 1
  for i in range(COUNT):
    np.testing.assert_array_equal(source[i]['image'], images[i][..., None])
    np.testing.assert_array_equal(source[i]['label'], labels[i] // 255)
    assert source.file_name(i) == f'{i:02d}.png'
  train, val = isbi2012.source('train', **options), isbi2012.source('val', **options)
  assert [train.file_name(i) for i in range(len(train))] == [f'{i:02d}.png' for i in range(8)]
  assert [val.file_name(i) for i in range(len(val))] == ['08.png', '09.png']
  assert train.path == source.path  # one build serves all splits
  assert 'weight' not in train[0]


def test_weight_map_between_the_two_cells(tmp_path):
  _pngs(tmp_path)
  source = isbi2012.source(
    'val', data_dir=tmp_path, cache_dir=tmp_path / 'cache', border_weight=True
  )
  weight = source[0]['weight']
  membrane, cell = isbi2012.CLASS_WEIGHTS
  assert membrane == pytest.approx(0.5 / 0.2196) and cell == pytest.approx(0.5 / 0.7804)
  expected = membrane + 10 * np.exp(-((1 + 2) ** 2) / 50)
  assert weight.shape == (16, 16) and weight.dtype == np.float32
  np.testing.assert_allclose(weight[8, 6:10], [cell, expected, expected, cell], atol=3e-4)


def test_contiguous_split_of_the_thirty():
  assert isbi2012.section_indices(30, 'train') == list(range(24))
  assert isbi2012.section_indices(30, 'val') == list(range(24, 30))


def test_folds_are_nvidias():
  """The legacy shuffle of 0..29 written out, rotated right by 5 a fold, the last 6 held out.

  The code as released rotates by int((1 - 0.8) * 30), which is 5 in floating point: neighbouring
  folds share a held-out section, and four sections are never held out.
  """
  shuffled = [2, 28, 13, 10, 26, 24, 27, 11, 17, 22, 5, 16, 8, 14, 23, 20, 1, 29, 6, 4, 18, 19, 9]
  shuffled += [7, 25, 3, 0, 21, 15, 12]
  assert isbi2012.section_indices(30, 'train', 0) == shuffled[:24]
  assert isbi2012.section_indices(30, 'val', 0) == shuffled[24:]
  held_out = [isbi2012.section_indices(30, 'val', fold) for fold in range(5)]
  assert held_out == [
    [25, 3, 0, 21, 15, 12],
    [4, 18, 19, 9, 7, 25],
    [23, 20, 1, 29, 6, 4],
    [22, 5, 16, 8, 14, 23],
    [26, 24, 27, 11, 17, 22],
  ]
  assert set(range(30)) - {i for fold in held_out for i in fold} == {2, 28, 13, 10}


def test_errors(tmp_path):
  options = dict(data_dir=tmp_path, cache_dir=tmp_path / 'cache')
  with pytest.raises(
    UserError, match=r'no train/image/, train-volume\.tif or ISBI-2012-challenge\.zip'
  ):
    isbi2012.source('train', **options)
  _volumes(tmp_path)
  with pytest.raises(UserError, match='test labels were never published'):
    isbi2012.source('test', **options)
  for wrong in ({'split': 'train', 'fold': 5}, {'split': 'all', 'fold': 0}):
    with pytest.raises(UserError, match=r'fold is 0\.\.4'):
      isbi2012.source(**wrong, **options)
  labels = tmp_path / 'isbi2012' / 'train-labels.tif'
  Image.fromarray(np.full((16, 16), 3, np.uint8)).save(labels)
  with pytest.raises(UserError, match='has 10 pages and .* 1'):
    isbi2012.source('train', **options)
  labels.unlink()
  with pytest.raises(UserError, match=r'missing file: .*train-labels\.tif'):
    isbi2012.source('train', **options)


def test_grey_label_is_refused(tmp_path):
  _pngs(tmp_path)
  bad = tmp_path / 'isbi2012' / 'train' / 'label' / '03.png'
  Image.fromarray(np.full((16, 16), 128, np.uint8)).save(bad)
  with pytest.raises(UserError, match=r'03\.png: label ids 128 .* 0, 1, 255'):
    isbi2012.source('train', data_dir=tmp_path, cache_dir=tmp_path / 'cache')


def test_real_sections(shared_data, tmp_path):
  source = isbi2012.source('all', data_dir=shared_data, cache_dir=tmp_path)
  assert len(source) == 30 and source[0]['image'].shape == (512, 512, 1)
  share = np.mean([(source.label(i) == 0).mean() for i in range(30)])
  assert share == pytest.approx(isbi2012.TRAIN_SHARES[0], abs=5e-5)
