"""Cell Tracking Challenge in the published layout: sparse gold masks, silver ones, erroneous ones."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxseg.datasets import ctc
from jaxseg.types import UserError

GOLD = {'01': (0, 3), '02': (1,)}
FRAMES = 4


def _instances(frame):
  ids = np.zeros((20, 26), np.uint16)
  ids[3:10, 2:9] = 300 + frame  # beyond 8 bits
  ids[3:10, 9:16] = 7  # touches the first
  return ids


def _image(sequence, frame):
  rng = np.random.default_rng([int(sequence), frame])
  return rng.integers(0, 256, (20, 26), dtype=np.uint8)


def _write(root, name='PhC-C2DH-U373'):
  base = root / name
  for sequence, gold in GOLD.items():
    folders = {'': '', '_GT/SEG': 'man_seg', '_GT/TRA': 'man_track', '_ST/SEG': 'man_seg'}
    for folder, prefix in {**folders, '_ERR_SEG': 'mask'}.items():
      (base / f'{sequence}{folder}').mkdir(parents=True)
      for frame in range(FRAMES):
        path = base / f'{sequence}{folder}' / f'{prefix or "t"}{frame:03d}.tif'
        if not prefix:
          Image.fromarray(_image(sequence, frame)).save(path)
        elif folder != '_GT/SEG' or frame in gold:
          Image.fromarray(_instances(frame)).save(path, compression='tiff_lzw')
    (base / f'{sequence}_GT' / 'TRA' / 'man_track.txt').write_text('7 0 3 0\n')
  return base


def _source(root, split, **options):
  return ctc.source(split, data_dir=root, cache_dir=root / 'cache', **options)


def _names(source):
  return [source.file_name(i) for i in range(len(source))]


def test_gold_masks_are_sparse(tmp_path):
  _write(tmp_path / 'ctc')
  train, val = _source(tmp_path, 'train'), _source(tmp_path, 'val')
  assert _names(train) == ['01_t000.tif', '01_t003.tif'] and _names(val) == ['02_t001.tif']
  assert _names(_source(tmp_path, 'all')) == _names(train) + _names(val)
  np.testing.assert_array_equal(train[1]['image'][..., 0], _image('01', 3))
  np.testing.assert_array_equal(train[1]['instances'], _instances(3))
  separated = (_instances(3) > 0).astype(np.uint8)
  np.testing.assert_array_equal(val[0]['label'], separated)  # scored on the published truth
  separated[3:10, 8:10] = 0
  np.testing.assert_array_equal(train[1]['label'], separated)


@pytest.mark.parametrize('annotation', ['ST', 'ERR_SEG'])
def test_other_annotations_cover_all_frames(tmp_path, annotation):
  _write(tmp_path / 'ctc')
  assert len(_source(tmp_path, 'train', annotation=annotation)) == FRAMES


def test_weight_map(tmp_path):
  _write(tmp_path / 'ctc')
  example = _source(tmp_path, 'val', border_weight=True)[0]
  cells = 7 * 12 / (20 * 26)  # two columns of the fourteen become the gap
  inside, outside = 0.5 / cells, 0.5 / (1 - cells)
  gap = outside + 10 * np.exp(-((1 + 2) ** 2) / 50)
  np.testing.assert_allclose(example['weight'][6, 7:11], [inside, gap, gap, inside], atol=3e-4)
  assert example['label'][6, 8] == 1  # the label is not separated in 'val'


def test_the_archive_itself(tmp_path):
  base = _write(tmp_path / 'raw', 'DIC-C2DH-HeLa')
  with zipfile.ZipFile(tmp_path / 'DIC-C2DH-HeLa.zip', 'w') as file:
    for path in sorted(base.rglob('*.*')):
      file.write(path, path.relative_to(tmp_path / 'raw'))
  assert _names(_source(tmp_path, 'val', cells='hela')) == ['02_t001.tif']


def test_errors(tmp_path):
  base = _write(tmp_path / 'ctc')
  for wrong, message in (
    (dict(split='test'), "no split 'test': use one of train, val, all"),
    (dict(split='val', cells='psc'), "no cells 'psc': use one of u373, hela"),
    (dict(split='val', annotation='SEG'), "no annotation 'SEG': use one of GT, ST, ERR_SEG"),
    (dict(split='val', cells='hela'), r'none of DIC-C2DH-HeLa/, DIC-C2DH-HeLa\.zip'),
  ):
    with pytest.raises(UserError, match=message):
      _source(tmp_path, **wrong)
  (base / '02' / 't001.tif').unlink()
  with pytest.raises(UserError, match=r'missing file: .*t001\.tif'):
    _source(tmp_path, 'val')
  (base / '02_GT' / 'SEG' / 'man_seg001.tif').unlink()
  with pytest.raises(UserError, match='no masks in .*02_GT/SEG'):
    _source(tmp_path, 'val')
