"""Loaders: the same batches for any threads and hosts, exact resume, each image once, no hang."""

import itertools
import threading

import numpy as np
import pytest

from jaxseg.data import loader, transforms
from jaxseg.data.copy_paste import CopyPaste
from jaxseg.data.frame import Frame
from jaxseg.data.objects import Objects
from jaxseg.data.views import Cached
from jaxseg.types import SizeRule, UserError

BY_FOUR = Frame(SizeRule(multiple=4))


class Images(list):
  """An in-memory source that counts how often each example is read."""

  num_classes = 5

  def __init__(self, examples):
    super().__init__(examples)
    self.reads = [0] * len(self)

  def __getitem__(self, index):
    self.reads[index] += 1
    return super().__getitem__(index)


def images(count, sizes=((20, 30),), weight=False, seed=0):
  rng = np.random.default_rng(seed)
  examples = []
  for i in range(count):
    size = sizes[i % len(sizes)]
    example = {
      'image': rng.integers(0, 256, (*size, 3), dtype=np.uint8),
      'label': rng.integers(0, 5, size, dtype=np.uint8),
      'file_name': f'{i}.png',
    }
    if weight:
      example['weight'] = rng.random(size, dtype=np.float32)
    examples.append(example)
  return Images(examples)


def augment():
  return (
    transforms.Rotate(10.0),
    transforms.Crop((16, 24), (0.5, 2.0)),
    transforms.Flip(),
    transforms.Photometric(brightness=0.2, saturation=0.3),
  )


def take(count, source, steps=None, **options):
  options = {'seed': 1, 'batch_size': 4, **options}
  batches = loader.train_batches(source, augment() if steps is None else steps, **options)
  taken = list(itertools.islice(batches, count))
  batches.close()
  return taken


def assert_same(got, want):
  assert len(got) == len(want)
  for one, other in zip(got, want, strict=True):
    assert one.keys() == other.keys()
    for key in one:
      assert one[key].dtype == other[key].dtype
      np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_batch_layout():
  batch = take(1, images(5, weight=True))[0]
  assert set(batch) == {'image', 'label', 'weight', 'index'}
  assert batch['image'].shape == (4, 16, 24, 3) and batch['image'].dtype == np.uint8
  assert batch['label'].shape == (4, 16, 24) and batch['label'].dtype == np.uint8
  assert batch['weight'].shape == (4, 16, 24) and batch['weight'].dtype == np.float32
  assert batch['index'].shape == (4,) and batch['index'].dtype == np.int64


def test_index_names_the_example():
  source = images(7)
  for batch in take(4, source, steps=()):
    for i, index in enumerate(batch['index']):
      np.testing.assert_array_equal(batch['image'][i], source[index]['image'])
      np.testing.assert_array_equal(batch['label'][i], source[index]['label'])


@pytest.mark.parametrize('replacement', [False, True])
def test_same_batches_for_any_number_of_threads(replacement):
  runs = [
    take(8, images(7, weight=True), num_threads=n, replacement=replacement) for n in (0, 2, 16)
  ]
  assert_same(runs[1], runs[0])
  assert_same(runs[2], runs[0])


@pytest.mark.parametrize('shard_count', [2, 4])
@pytest.mark.parametrize('replacement', [False, True])
def test_hosts_together_make_the_same_global_batch(shard_count, replacement):
  whole = take(6, images(7), replacement=replacement)
  parts = [
    take(6, images(7), replacement=replacement, shard_index=i, shard_count=shard_count)
    for i in range(shard_count)
  ]
  joined = [
    {k: np.concatenate([p[k] for p in step]) for k in step[0]} for step in zip(*parts, strict=True)
  ]
  assert_same(joined, whole)


@pytest.mark.parametrize('start', [1, 3, 7])
@pytest.mark.parametrize('replacement', [False, True])
def test_resume_is_the_straight_run(start, replacement):
  straight = take(9, images(7), replacement=replacement)
  resumed = take(9 - start, images(7), replacement=replacement, start_step=start, num_threads=3)
  assert_same(resumed, straight[start:])


def test_each_index_once_an_epoch_in_a_new_order():
  stream = np.concatenate([b['index'] for b in take(21, images(7), batch_size=2, steps=())])
  epochs = stream.reshape(6, 7).tolist()
  assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) > 3


def test_seeds_and_epochs_differ_in_order_and_augmentation():
  assert take(1, images(50), seed=1)[0]['index'].tolist() != (
    take(1, images(50), seed=2)[0]['index'].tolist()
  )
  twice = take(2, images(1), batch_size=1)  # the same example in two epochs
  assert (twice[0]['image'] != twice[1]['image']).any()


def test_a_set_smaller_than_a_batch_works():
  batch = take(2, images(3), batch_size=8)[0]
  assert sorted(batch['index'][:3]) == [0, 1, 2] and sorted(batch['index'][3:6]) == [0, 1, 2]


def test_replacement_draws_uniformly_and_repeats():
  stream = np.concatenate(
    [b['index'] for b in take(150, images(5), batch_size=4, steps=(), replacement=True)]
  )
  counts = np.bincount(stream, minlength=5)
  assert counts.min() > 90 and counts.max() < 150  # 120 expected, 3 sigma are 29
  assert any(len(set(stream[i : i + 5])) < 5 for i in range(0, 100, 5))


@pytest.mark.parametrize('num_threads', [0, 2])
def test_errors_of_a_worker_surface_as_themselves(num_threads):
  class Broken(Images):
    def __getitem__(self, index):
      if index == 3:
        raise UserError('cannot read 3.png: write it again')
      return super().__getitem__(index)

  with pytest.raises(UserError, match='^cannot read 3.png: write it again$') as error:
    take(5, Broken(images(7)), num_threads=num_threads)
  assert error.type is UserError and error.value.__cause__ is None

  class Failing:
    def __call__(self, example, rng):
      raise ZeroDivisionError('in a transform')

  with pytest.raises(ZeroDivisionError, match='in a transform'):
    take(1, images(7), steps=(Failing(),), num_threads=num_threads)


def test_mistakes_are_named_in_one_line():
  with pytest.raises(UserError, match=r'\(20, 30, 3\) and \(21, 30, 3\).*crop'):
    take(1, images(4, sizes=((20, 30), (21, 30))), steps=())
  with pytest.raises(UserError, match='no image'):
    take(1, images(0))
  with pytest.raises(UserError, match='batch_size is 5.*multiple of the 2'):
    take(1, images(4), batch_size=5, shard_count=2)
  bad = images(1)
  bad.append({'image': np.zeros((4, 4, 3), np.float64), 'label': np.zeros((4, 4), np.uint8)})
  bad.reads.append(0)
  with pytest.raises(UserError, match=r'example 1: image float64 \(4, 4, 3\)'):
    take(1, bad)


def test_waiting_is_measured_and_close_ends_the_threads():
  def slow(example, rng):
    threading.Event().wait(0.02)
    return example

  before = set(threading.enumerate())
  batches = loader.train_batches(images(3), (slow,), seed=0, batch_size=2, num_threads=2)
  next(batches)
  assert 0.03 < batches.waited_seconds < 5
  batches.close()
  batches.close()
  assert list(batches) == []
  assert_threads_end(before)


def test_an_exhausted_or_failed_loader_ends_its_threads():
  before = set(threading.enumerate())
  batches = loader.eval_batches(images(3), Frame(SizeRule()), batch_size=2, num_threads=2)
  assert len(list(batches)) == 2 and list(batches) == []
  failing = loader.train_batches(images(3), (1,), seed=0, batch_size=2, num_threads=2)
  with pytest.raises(TypeError, match='not callable'):
    next(failing)
  assert_threads_end(before)


def assert_threads_end(before):
  for thread in set(threading.enumerate()) - before:
    thread.join(5)
    assert not thread.is_alive(), thread.name


def evaluate(source, frame=BY_FOUR, **options):
  return list(loader.eval_batches(source, frame, **{'batch_size': 2, **options}))


def indices(batches):
  return [[example['index'] for example in batch['examples']] for batch in batches]


@pytest.mark.parametrize('batch_size', [1, 2, 3, 4, 8, 16])
def test_every_image_once_for_any_batch_size(batch_size):
  source = images(11, sizes=((9, 7), (8, 12), (5, 5)))
  batches = evaluate(source, batch_size=batch_size)
  assert sorted(sum(indices(batches), [])) == list(range(11))
  for batch in batches:
    assert len(batch['image']) == batch_size >= len(batch['examples']) > 0
    assert not batch['image'][len(batch['examples']) :].any()
    for image, example in zip(batch['image'], batch['examples'], strict=False):
      assert example['file_name'] == f'{example["index"]}.png'
      np.testing.assert_array_equal(example['label'], source[example['index']]['label'])
      np.testing.assert_array_equal(image, BY_FOUR.place(example['image']))


@pytest.mark.parametrize('shard_count', [2, 4])
@pytest.mark.parametrize('num_threads', [0, 3])
def test_hosts_share_the_batches_in_the_same_order(shard_count, num_threads):
  """Eleven images of two sizes: the last batch of each leaves some hosts without an image."""
  source = images(11, sizes=((9, 7), (8, 12)))
  options = {'batch_size': 4, 'num_threads': num_threads}
  parts = [
    evaluate(source, **options, shard_index=i, shard_count=shard_count) for i in range(shard_count)
  ]
  whole = evaluate(source, **options)
  for step, batch in zip(zip(*parts, strict=True), whole, strict=True):
    np.testing.assert_array_equal(np.concatenate([part['image'] for part in step]), batch['image'])
    assert sum(indices(step), []) == indices([batch])[0]


def test_batches_group_sizes_in_the_order_of_the_indices():
  source = images(9, sizes=((9, 7), (8, 12), (9, 7)))
  batches = evaluate(source, Frame(SizeRule()), batch_size=2, indices=[8, 1, 0, 2, 4])
  assert indices(batches) == [[8, 0], [1, 4], [2]]
  assert [b['image'].shape[1:3] for b in batches] == [(9, 7), (8, 12), (9, 7)]
  with pytest.raises(UserError, match='no image to evaluate'):
    evaluate(source, indices=[])


def test_a_source_that_knows_its_sizes_is_not_read_for_them():
  class Sized(Images):
    def size(self, index):
      return list.__getitem__(self, index)['image'].shape[:2]

  source = Sized(images(5, sizes=((9, 7), (8, 12))))
  evaluate(source, batch_size=3)
  assert source.reads == [1] * 5


def test_what_is_remembered_gives_the_same_batches_to_many_threads():
  kept = Cached(images(7))
  assert_same(take(12, kept, num_threads=8), take(12, images(7), num_threads=0))
  assert kept.held_bytes == 7 * 20 * 30 * 4


def test_wide_and_tall_images_make_batches_of_their_own():
  """Of 12 images four are tall: of three steps one is of tall ones, and each image comes once an epoch."""

  class Sizes(list):
    def size(self, index):
      return self[index]['image'].shape[:2]

  def example(i):
    size = (10, 6) if i % 3 == 0 else (6, 10)
    return {'image': np.full((*size, 3), i, np.uint8), 'label': np.zeros(size, np.uint8)}

  source = Sizes(map(example, range(12)))
  step = transforms.Crop((8, 12), turned=True)
  options = dict(seed=5, batch_size=2, num_threads=0)
  batches = [
    next(loader.train_batches(source, (step,), **options, start_step=start)) for start in range(12)
  ]
  shapes = [batch['image'].shape[1:3] for batch in batches]
  assert set(shapes) == {(8, 12), (12, 8)} and shapes.count((12, 8)) == 4
  for shape, expected in (((12, 8), [0, 3, 6, 9]), ((8, 12), [1, 2, 4, 5, 7, 8, 10, 11])):
    seen = [
      i for b, s in zip(batches, shapes, strict=True) if s == shape for i in b['index'].tolist()
    ]
    assert sorted(seen) == sorted(2 * expected)
    assert sorted(seen[: len(expected)]) == expected
  stream = loader.train_batches(source, (step,), **options)
  for batch in batches:  # one stream, or resumed at every step
    np.testing.assert_array_equal(next(stream)['index'], batch['index'])


def objects(count, size):
  source = images(count, sizes=(size,))
  for i, example in enumerate(list(source)):
    example['instances'] = np.zeros(example['label'].shape, np.uint16)
    example['instances'][i : i + 4, 2:9] = 1
    example['instance_classes'] = np.array([1 + i % 2], np.uint8)
  return source


def test_what_takes_another_example_is_the_same_for_threads_hosts_and_resumed():
  """Of wide and tall images, which make batches of their own and are pasted on their like."""
  source = Images([*objects(4, (20, 30)), *objects(3, (30, 20))])
  source.size = lambda i: source[i]['label'].shape
  crop = transforms.Crop((16, 24), (0.5, 2.0), turned=True)
  steps = (crop, transforms.Flip(), CopyPaste(), Objects(4))
  whole = take(6, source, steps)
  assert_same(take(6, source, steps, num_threads=0), whole)
  assert_same(take(3, source, steps, start_step=3), whole[3:])
  parts = [take(6, source, steps, shard_index=i, shard_count=2) for i in range(2)]
  for first, second, both in zip(*parts, whole, strict=True):
    assert_same([{k: np.concatenate([first[k], second[k]]) for k in both}], [both])
  counts = np.concatenate([(batch['classes'] > 0).sum(axis=1) for batch in whole])
  assert 2 in counts and max(counts) <= 2
