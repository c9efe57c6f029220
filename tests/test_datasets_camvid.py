"""CamVid in both layouts."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.datasets import camvid
from jaxseg.types import VOID, UserError

NAMES = ('0001TP_006690', '0001TP_006720', 'Seq05VD_f00000')


def _write(root, folder='CamVid', *, prefix='/SegNet/CamVid/', suffix='png'):
  base = root / folder
  rng = np.random.default_rng(1)
  for split in camvid.SPLITS:
    (base / split).mkdir(parents=True)
    (base / f'{split}annot').mkdir()
    lines = []
    for name in NAMES:
      image = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
      label = rng.integers(0, 12, (9, 12), dtype=np.uint8)
      Image.fromarray(image).save(base / split / f'{name}.{suffix}')
      Image.fromarray(label).save(base / f'{split}annot' / f'{name}.png')
      lines.append(f'{prefix}{split}/{name}.{suffix} {prefix}{split}annot/{name}.png')
    (base / f'{split}.txt').write_text('\n'.join(lines) + '\n')
  return base


@pytest.mark.parametrize('folder', ['CamVid', 'camvid'])
def test_published_layout(tmp_path, folder):
  base = _write(tmp_path, folder)
  source = camvid.source('val', data_dir=tmp_path, cache_dir=tmp_path / 'cache')
  assert [source.file_name(i) for i in range(len(source))] == [f'{n}.png' for n in NAMES]
  assert source.num_classes == 11 and source.class_names == camvid.CLASS_NAMES
  raw = np.asarray(Image.open(base / 'valannot' / f'{NAMES[1]}.png'))
  assert (raw == 11).any()
  np.testing.assert_array_equal(source[1]['label'], np.where(raw == 11, VOID, raw))
  image = np.asarray(Image.open(base / 'val' / f'{NAMES[1]}.png'))
  np.testing.assert_array_equal(source[1]['image'], image)


def test_relative_lists_and_jpeg(tmp_path):
  base = _write(tmp_path, 'camvid_q90', prefix='', suffix='jpg')
  options = dict(data_dir=tmp_path, cache_dir=tmp_path / 'cache')
  source = camvid.source('test', copy='camvid_q90', **options)
  image = np.asarray(Image.open(base / 'test' / f'{NAMES[0]}.jpg')).astype(int)
  assert np.abs(source[0]['image'] - image).max() <= 2  # two JPEG decoders
  with pytest.raises(UserError, match=r'no camvid/train\.txt or CamVid/train\.txt'):
    camvid.source('test', **options)


def test_errors(tmp_path):
  base = _write(tmp_path)
  options = dict(data_dir=tmp_path, cache_dir=tmp_path / 'cache')
  with pytest.raises(UserError, match="no split 'valid': use one of train, val, test"):
    camvid.source('valid', **options)
  with pytest.raises(UserError, match="no copy 'q90'"):
    camvid.source('val', copy='q90', **options)
  Image.fromarray(np.full((9, 12), 12, np.uint8)).save(base / 'trainannot' / f'{NAMES[0]}.png')
  with pytest.raises(UserError, match=rf'{NAMES[0]}\.png: label ids 12 .* 0\.\.10, 11 \(void\)'):
    camvid.source('train', **options)
  (base / 'train' / f'{NAMES[2]}.png').unlink()
  with pytest.raises(UserError, match=rf'missing file: .*{NAMES[2]}\.png'):
    camvid.source('train', **options)
  (base / 'test.txt').write_text('only_one_word\n')
  with pytest.raises(UserError, match=r"test\.txt, line 1: expected 'image label'"):
    camvid.source('test', **options)
  (base / 'val.txt').unlink()
  with pytest.raises(UserError, match=r'missing file: .*val\.txt'):
    camvid.source('val', **options)


def test_palette():
  assert camvid.PALETTE[0] == (128, 128, 128) and camvid.PALETTE[10] == (0, 128, 192)


def test_real_validation_split(shared_data, tmp_path):
  source = camvid.source('val', data_dir=shared_data, cache_dir=tmp_path)
  assert len(source) == 101
  example = source[0]
  assert example['image'].shape == (360, 480, 3) and example['label'].shape == (360, 480)
  raw = shared_data / 'camvid' / 'val' / example['file_name']
  image = np.asarray(Image.open(raw)).astype(int)
  assert np.abs(example['image'] - image).max() <= 2
  assert set(np.unique(example['label'])) <= {*range(11), VOID}
