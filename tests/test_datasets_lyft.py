"""Lyft-Udacity: the class in the red channel, the hood, the lane lines, the held-out folder."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.datasets import lyft
from jaxseg.types import UserError

HEIGHT, WIDTH = 500, 8


def _label(seed):
  label = np.random.default_rng(seed).integers(0, 13, (HEIGHT, WIDTH), dtype=np.uint8)
  label[490:, :4] = lyft.VEHICLES
  return label


def _write(folder, names):
  for kind in ('CameraRGB', 'CameraSeg'):
    (folder / kind).mkdir(parents=True)
  for name in names:
    seed = sum(f'{folder.name}{name}'.encode())
    image = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(image).save(folder / 'CameraRGB' / name)
    label = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    label[..., 0] = _label(seed)
    label[..., 2] = 1  # what the other channels hold is no class
    Image.fromarray(label).save(folder / 'CameraSeg' / name)


def _kaggle(root):
  for letter, count in zip('ABCDE', (2, 1, 1, 1, 2), strict=True):
    folder = root / f'data{letter}' / f'data{letter}'
    _write(folder, [f'02_00_{i:03d}.png' for i in range(count)])


def _source(root, split, **options):
  return lyft.source(split, data_dir=root, cache_dir=root / 'cache', **options)


def _names(source):
  return [source.file_name(i) for i in range(len(source))]


def test_kaggles_layout(tmp_path):
  _kaggle(tmp_path / 'lyft-udacity-challenge')
  train, val = _source(tmp_path, 'train'), _source(tmp_path, 'val')
  assert _names(val) == ['dataE_02_00_000.png', 'dataE_02_00_001.png']
  assert _names(train)[:3] == ['dataA_02_00_000.png', 'dataA_02_00_001.png', 'dataB_02_00_000.png']
  assert _names(_source(tmp_path, 'all')) == _names(train) + _names(val)
  expected = _label(sum(b'dataE02_00_001.png'))
  np.testing.assert_array_equal(val[1]['label'], expected)
  assert val.num_classes == 13 and train.path == val.path


def test_the_challenges_own_layout_holds_out_the_last_fifth(tmp_path):
  _write(tmp_path / 'lyft' / 'Train', [f'{i}.png' for i in range(6)])
  assert _names(_source(tmp_path, 'val')) == ['Train_5.png']
  assert len(_source(tmp_path, 'train')) == 5


def test_options_by_hand(tmp_path):
  _write(tmp_path / 'lyft' / 'Train', ['1.png'])
  raw = _label(sum(b'Train1.png'))
  plain = _source(tmp_path, 'all')[0]['label']
  np.testing.assert_array_equal(plain, raw)
  both = _source(tmp_path, 'all', remove_hood=True, merge_lanes=True)[0]['label']
  assert not (both == 6).any() and (both[raw == 6] == 7).all()
  assert not (both[496:] == 10).any() and (both[496:][raw[496:] == 10] == 0).all()
  assert (both[:496][raw[:496] == 10] == 10).all() and (raw[490:496, :4] == 10).all()


def test_parts():
  assert lyft.part([3, 2, 4], 'val') == [5, 6, 7, 8]
  assert lyft.part([1000], 'train') == list(range(800))
  assert lyft.part([3, 2], 'all') == list(range(5))


def test_errors(tmp_path):
  base = tmp_path / 'lyft' / 'Train'
  _write(base, ['1.png', '2.png'])
  with pytest.raises(UserError, match="no split 'test': use one of train, val, all"):
    _source(tmp_path, 'test')
  bad = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
  bad[..., 0] = 13
  Image.fromarray(bad).save(base / 'CameraSeg' / '2.png')
  with pytest.raises(UserError, match=r'2\.png: label ids 13 .* 0\.\.12'):
    _source(tmp_path, 'all')
  Image.fromarray(bad[..., 0]).save(base / 'CameraSeg' / '2.png')
  with pytest.raises(UserError, match=r'2\.png is a mask of one channel: labels are colour PNGs'):
    _source(tmp_path, 'all')
  (base / 'CameraSeg' / '2.png').unlink()
  with pytest.raises(UserError, match=r'missing file: .*2\.png'):
    _source(tmp_path, 'all')


def test_names_and_palette():
  assert (lyft.NONE, lyft.ROAD_LINES, lyft.ROADS, lyft.VEHICLES) == (0, 6, 7, 10)
  assert len(lyft.CLASS_NAMES) == len(set(lyft.PALETTE)) == 13
  assert lyft.PALETTE[7] == (128, 64, 128) and lyft.PALETTE[3] == (72, 0, 90)
