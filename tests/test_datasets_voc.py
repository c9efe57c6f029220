"""VOC and SBD in the published layout, and the rules of the two combined splits."""

import tarfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

from jaxseg.datasets import voc
from jaxseg.types import VOID, UserError

LISTS = {
  2011: {'train': ['2007_01', '2008_01'], 'val': ['2007_03', '2008_02', '2009_01']},
  2012: {'train': ['2008_01', '2007_01', '2011_01'], 'val': ['2007_03', '2008_02', '2009_01']},
}
SBD = {'train': ['2008_02', '2008_01', '2010_02', '2010_01'], 'val': ['2009_09', '2007_03']}


def _label(name, seed):
  rng = np.random.default_rng([seed, sum(name.encode())])
  return rng.integers(0, 21, (9, 12), dtype=np.uint8)


def _image(path, name):
  pixels = np.random.default_rng(sum(name.encode())).integers(0, 256, (9, 12, 3), dtype=np.uint8)
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)


def _voc_label(name, year):
  label = _label(name, year)
  label[:, 6] = VOID  # the ring around objects
  return label


def _write_voc(base, year):
  lists = LISTS[year]
  (base / 'ImageSets' / 'Segmentation').mkdir(parents=True)
  (base / 'SegmentationClass').mkdir()
  for split, names in {**lists, 'trainval': sum(lists.values(), [])}.items():
    text = '\n'.join(names) + '\n'
    (base / 'ImageSets' / 'Segmentation' / f'{split}.txt').write_text(text)
    for name in names:
      _image(base / 'JPEGImages' / f'{name}.jpg', name)
      mask = Image.fromarray(_voc_label(name, year))
      mask.putpalette([v for c in voc.PALETTE for v in c] + [0] * (255 * 3 - 63) + [224, 224, 192])
      mask.save(base / 'SegmentationClass' / f'{name}.png')


def _write_sbd(base):
  (base / 'cls').mkdir(parents=True)
  for split, names in SBD.items():
    (base / f'{split}.txt').write_text('\n'.join(names) + '\n')
    for name in names:
      _image(base / 'img' / f'{name}.jpg', name)
      content = {'Boundaries': np.zeros((20, 1)), 'Segmentation': _label(name, 0)}
      content['CategoriesPresent'] = np.array([[1.0, 15.0]])
      scipy.io.savemat(base / 'cls' / f'{name}.mat', {'GTcls': content}, do_compression=True)


@pytest.fixture
def root(tmp_path):
  _write_voc(tmp_path / 'voc' / 'TrainVal' / 'VOCdevkit' / 'VOC2011', 2011)
  _write_voc(tmp_path / 'voc' / 'VOCdevkit' / 'VOC2012', 2012)
  _write_sbd(tmp_path / 'voc' / 'benchmark_RELEASE' / 'dataset')
  return tmp_path


def _source(root, split, **options):
  return voc.source(split, data_dir=root, cache_dir=root / 'cache', **options)


def _names(source):
  return [source.file_name(i).removesuffix('.jpg') for i in range(len(source))]


def test_vocs_own_splits(root):
  for year in voc.YEARS:
    source = _source(root, 'val', year=year)
    assert _names(source) == LISTS[year]['val'] and source.split == 'val'
    np.testing.assert_array_equal(source[1]['label'], _voc_label('2008_02', year))
  assert source.num_classes == 21 and (source[0]['label'] == VOID).sum() >= 9
  assert _names(_source(root, 'trainval')) == LISTS[2012]['train'] + LISTS[2012]['val']


def test_sbd_train_in_its_own_order_with_its_own_labels(root):
  source = _source(root, 'sbd_train')
  assert _names(source) == SBD['train']
  for i, name in enumerate(SBD['train']):
    np.testing.assert_array_equal(source[i]['label'], _label(name, 0), err_msg=name)


def test_seg11valid_leaves_out_what_sbd_trains_on(root):
  source = _source(root, 'seg11valid')  # whatever the year
  assert _names(source) == ['2007_03', '2009_01'] and source.split == 'seg11valid'
  np.testing.assert_array_equal(source[0]['label'], _voc_label('2007_03', 2011))


def test_trainaug_takes_vocs_labels_where_there_are_some(root):
  source = _source(root, 'trainaug')
  # 2008_02 and 2007_03 are in val of VOC 2012; 2008_01 has a label of VOC
  assert _names(source) == ['2008_01', '2007_01', '2011_01', '2009_09', '2010_01', '2010_02']
  np.testing.assert_array_equal(source[0]['label'], _voc_label('2008_01', 2012))
  np.testing.assert_array_equal(source[3]['label'], _label('2009_09', 0))


def test_the_archives_themselves(root):
  packed = root / 'packed'
  packed.mkdir()
  with tarfile.open(packed / 'VOCtrainval_25-May-2011.tar', 'w') as file:
    file.add(root / 'voc' / 'TrainVal', 'TrainVal')
  with tarfile.open(packed / 'benchmark.tgz', 'w:gz') as file:
    file.add(root / 'voc' / 'benchmark_RELEASE', 'benchmark_RELEASE')
  source = voc.source('seg11valid', data_dir=packed, cache_dir=root / 'cache2')
  assert _names(source) == ['2007_03', '2009_01']


def test_errors(root):
  with pytest.raises(UserError, match="no split 'test': use one of train, val"):
    _source(root, 'test')
  with pytest.raises(UserError, match='no year 2010: use one of 2011, 2012'):
    _source(root, 'val', year=2010)
  base = root / 'voc' / 'benchmark_RELEASE' / 'dataset'
  (base / 'cls' / '2010_01.mat').write_bytes(b'no matlab')
  with pytest.raises(UserError, match=r"cannot read .*2010_01\.mat as SBD's GTcls"):
    _source(root, 'sbd_train')
  (base / 'train.txt').unlink()
  with pytest.raises(UserError, match=r'missing file: .*train\.txt'):
    _source(root, 'seg11valid')
  with pytest.raises(UserError, match='none of VOCdevkit/VOC2012/'):
    voc.source('val', data_dir=base, cache_dir=root / 'cache')


def test_palette():
  assert len(voc.CLASS_NAMES) == len(voc.PALETTE) == 21
  assert voc.PALETTE[1] == (128, 0, 0) and voc.PALETTE[15] == (192, 128, 128)
  assert voc.PALETTE[20] == (0, 64, 128) and voc.CLASS_NAMES[20] == 'tvmonitor'


def test_masks_saved_as_rgb_are_read_by_vocs_colours(root):
  truth = [_source(root, 'train')[i]['label'] for i in range(3)]
  for path in (root / 'voc/VOCdevkit/VOC2012/SegmentationClass').iterdir():
    Image.open(path).convert('RGB').save(path)
  again = _source(root, 'train')
  for i in range(3):
    np.testing.assert_array_equal(again[i]['label'], truth[i])
