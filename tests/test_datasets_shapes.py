"""Generated shapes: seeded, fast, not to be told by colour."""

import pickle

import numpy as np
import pytest

from jaxseg.datasets import shapes
from jaxseg.types import VOID, UserError


def _mean_iou_of_best_colour_classifier(train, val, classes, bits):
  """Fits quantised colour -> majority class on train and scores it on val."""

  def code(image):
    return ((image >> (8 - bits)).astype(np.int64) @ (1 << bits * np.arange(3))).ravel()

  table = np.zeros((1 << 3 * bits, classes))
  for example in train:
    label = example['label'].ravel()
    np.add.at(table, (code(example['image'])[label != VOID], label[label != VOID]), 1)
  matrix = np.zeros((classes, classes))
  for example in val:
    label = example['label'].ravel()
    guess = table.argmax(1)[code(example['image'])]
    np.add.at(matrix, (label[label != VOID], guess[label != VOID]), 1)
  hit = np.diag(matrix)
  return np.mean(hit / (matrix.sum(0) + matrix.sum(1) - hit))


@pytest.mark.parametrize('num_classes', [2, 4, 6])
def test_colour_alone_does_not_tell_the_class(num_classes):
  train = shapes.source('train', count=200, num_classes=num_classes)
  val = shapes.source('val', count=50, num_classes=num_classes)
  train, val = ([s[i] for i in range(len(s))] for s in (train, val))
  for bits in (3, 4):
    assert _mean_iou_of_best_colour_classifier(train, val, num_classes, bits) < 0.6


def test_example_depends_on_seed_split_and_index_only():
  small, large = shapes.source('train', count=5, seed=3), shapes.source('train', count=50, seed=3)
  for key in ('image', 'label', 'instances'):
    np.testing.assert_array_equal(small[4][key], large[4][key])
  others = [
    small[3],
    shapes.source('val', seed=3)[4],
    shapes.source('train', seed=4)[4],
  ]
  for other in others:
    assert (other['image'] != small[4]['image']).any()


def test_shapes_and_types():
  example = shapes.source('train', size=(20, 24))[0]
  assert example['image'].shape == (20, 24, 3) and example['file_name'] == 'train_000000.png'
  assert example['label'].shape == example['instances'].shape == (20, 24)
  assert example['image'].dtype == example['label'].dtype == np.uint8
  assert example['instances'].dtype == np.uint16


def test_the_first_example_is_the_one_that_it_was():
  """Numbers written down once: a change of the drawing changes what old results mean."""
  example = shapes.source('train')[0]
  counts = np.bincount(example['label'].ravel(), minlength=256)[[0, 1, 2, 3, VOID]]
  np.testing.assert_allclose(counts, [2584, 66, 76, 906, 464], atol=4)  # rounding may move pixels
  np.testing.assert_allclose(example['image'].mean((0, 1)), [114.94, 128.55, 112.82], atol=0.3)


def test_every_class_occurs_and_void_is_a_thin_ring():
  source = shapes.source('train', count=40)
  labels = np.stack([source[i]['label'] for i in range(40)])
  share = np.bincount(labels.ravel(), minlength=256) / labels.size
  assert (share[:4] > 0.04).all() and 0.02 < share[VOID] < 0.25
  assert share[4:VOID].sum() == 0
  for example in (source[i] for i in range(40)):
    instances, void = example['instances'], example['label'] == VOID
    sides = (instances[:, 1:] != instances[:, :-1]) & (instances[:, 1:] > 0)
    assert void[:, 1:][sides].all()  # both pixels of a pair of owners are void
    assert void[:, :-1][sides].all()


def test_instances_are_numbered_without_holes_and_have_one_class_each():
  for i in range(30):
    example = shapes.source('train')[i]
    ids = np.unique(example['instances'])
    np.testing.assert_array_equal(ids, np.arange(len(ids)))
    for instance in ids[1:]:
      inside = example['label'][example['instances'] == instance]
      assert len(set(inside[inside != VOID].tolist())) == 1 and 0 not in inside
    outside = example['label'][example['instances'] == 0]
    assert set(np.unique(outside)) <= {0, VOID}


def test_options():
  grey = shapes.source('val', channels=1, border_weight=True, num_classes=2, count=3)
  assert len(grey) == 3 and grey.num_classes == 2 and grey.class_names == ('background', 'disc')
  example = grey[-1]
  assert example['image'].shape == (64, 64, 1) and example['weight'].dtype == np.float32
  assert pickle.loads(pickle.dumps(grey)) == grey
  assert shapes.source('val', data_dir='x', cache_dir='y').channels == 3
  assert len(shapes.source('val').palette) == shapes.NUM_CLASSES == len(shapes.CLASS_NAMES)
  with pytest.raises(IndexError):
    grey[3]


@pytest.mark.parametrize(
  'options',
  [
    {'split': 'trian'},
    {'size': 8},
    {'size': 'large'},
    {'num_classes': 7},
    {'num_classes': 1},
    {'channels': 4},
    {'count': 0},
    {'seed': -1},
  ],
)
def test_wrong_options_are_named(options):
  split = options.pop('split', 'train')
  with pytest.raises(UserError) as error:
    shapes.source(split, **options)
  assert '\n' not in str(error.value) and 'shapes' in str(error.value)
