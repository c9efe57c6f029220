"""The look at every label before the first step: what is counted, kept, said and refused."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.data import label_check
from jaxseg.datasets import folder
from jaxseg.types import VOID, UserError


class Listed:
  """A source over labels in memory that counts its reads; with `identity` its scan is kept."""

  split, num_classes, class_names, name = 'train', 3, ('a', 'b', 'c'), 'listed'

  def __init__(self, labels, identity=None):
    self.labels, self.reads = np.array(labels, np.uint8), 0
    if identity:
      self.identity = identity

  def __len__(self):
    return len(self.labels)

  def __getitem__(self, i):
    self.reads += 1
    return {'label': self.labels[i], 'file_name': f'{i}.png'}


def test_label_scan_is_kept_for_the_same_records_only(tmp_path):
  labels = [[[0, 1], [VOID, 5]], [[0, 0], [0, 0]]]
  for identity, reads in (('a', 2), ('a', 0), ('b', 2), (None, 2), (None, 2)):
    source = Listed(labels, identity=identity)
    histogram = label_check.scan(source, cache_dir=tmp_path)
    assert source.reads == reads
    assert histogram.counts.tolist() == [5, 1, 0] and histogram.counts.dtype == np.int64
    assert histogram.invalid == {0: (5,)} and histogram.void == 1 and histogram.num_images == 2
  assert len(list((tmp_path / 'label_scans').iterdir())) == 2


def test_label_scan_survives_a_damaged_cache(tmp_path):
  source = Listed([[[0, 1], [2, 0]]], identity='a')
  label_check.scan(source, cache_dir=tmp_path)
  (file,) = (tmp_path / 'label_scans').iterdir()
  file.write_text('{"counts"')
  assert label_check.scan(source, cache_dir=tmp_path).counts.tolist() == [2, 1, 1]


def test_label_check_says_what_is_there_and_stops_what_cannot_train(tmp_path):
  good = Listed([[[0, 0], [VOID, 0]]])
  assert label_check.check(good) == ['train: 25.0% void, never present: b, c']
  with pytest.raises(UserError, match=r'train: 0\.png: label ids 7 are not among the 3 classes'):
    label_check.check(good, Listed([[[7, 0], [0, 0]]]))
  with pytest.raises(UserError, match='all labels of train are void'):
    label_check.check(Listed([[[VOID, VOID]]]))


def test_records_keep_their_scan_and_new_ones_are_scanned(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))
  own = tmp_path / 'own'
  for kind in ('images', 'masks'):
    (own / 'train' / kind).mkdir(parents=True)
  masks = np.zeros((3, 16, 20), np.uint8)
  masks[0, :, 10:], masks[1, :4] = 1, VOID
  for i, mask in enumerate(masks):
    Image.fromarray(mask).convert('RGB').save(own / 'train' / 'images' / f'{i}.png')
    Image.fromarray(mask).save(own / 'train' / 'masks' / f'{i}.png')
  (own / 'classes.txt').write_text('ground\nroad\n')
  source = folder.source('train', data_dir=own, binary=False)
  first = label_check.scan(source)
  assert first.counts.tolist() == [720, 160] and first.void == 80
  monkeypatch.setattr(type(source), 'label', lambda self, i: pytest.fail('read again'))
  assert label_check.scan(folder.source('train', data_dir=own, binary=False)).counts.tolist() == [
    720,
    160,
  ]
  monkeypatch.undo()
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))
  masks[0, :, 11:] = 0
  Image.fromarray(masks[0]).save(own / 'train' / 'masks' / '0.png')
  assert label_check.scan(folder.source('train', data_dir=own, binary=False)).counts.tolist() == [
    864,
    16,
  ]
