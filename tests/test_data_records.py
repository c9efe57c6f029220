"""Records: what goes in comes out, without TensorFlow, whole or not at all."""

import dataclasses
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxseg.data import image_files, mask_files, records
from jaxseg.data.source import OBJECTS, DatasetInfo
from jaxseg.types import VOID, UserError

NAMES, PALETTE = ('a', 'b', 'c'), ((0, 0, 0), (1, 1, 1), (2, 2, 2))
FACTS = DatasetInfo('tiny', NAMES, PALETTE, entries=('weight', 'instances'))


def _read(raw):
  label = mask_files.read_ids(raw.label)
  weight = label.astype(np.float32) / 3 + np.float32(0.1)
  instances = label.astype(np.uint16) * 300
  return records.Example(image_files.encode_image(raw.image), label, weight, instances)


def _write(folder, count=5, suffix='png'):
  rng = np.random.default_rng(0)
  raws = []
  for i in range(count):
    size = (6 + i, 9)
    image, label = folder / f'{i}.{suffix}', folder / f'{i}_mask.png'
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(image)
    mask = rng.choice(np.array([0, 1, 2, VOID], np.uint8), size)
    Image.fromarray(mask).save(label)
    raws.append(records.Raw(image, label, image.name))
  return raws


def _open(raws, cache_dir, **options):
  return records.open_source(FACTS, 'train', raws, _read, cache_dir=cache_dir, **options)


@pytest.fixture
def raws(tmp_path):
  folder = tmp_path / 'raw'
  folder.mkdir()
  return _write(folder)


def test_round_trip(raws, tmp_path):
  source = _open(raws, tmp_path / 'cache')
  assert len(source) == 5
  assert (source.name, source.split, source.num_classes, source.channels) == ('tiny', 'train', 3, 3)
  for i, raw in enumerate(raws):
    example = source[i]
    assert source.size(i) == example['image'].shape[:2] == (6 + i, 9)
    label = np.asarray(Image.open(raw.label))
    np.testing.assert_array_equal(example['image'], np.asarray(Image.open(raw.image)))
    np.testing.assert_array_equal(example['label'], label)
    np.testing.assert_array_equal(source.label(i), label)
    np.testing.assert_array_equal(example['instances'], label.astype(np.uint16) * 300)
    np.testing.assert_allclose(example['weight'], label / 3 + 0.1, atol=85.1 / 65535)
    types = {k: v.dtype for k, v in example.items() if k != 'file_name'}
    kinds = {'image': 'u1', 'label': 'u1', 'weight': 'f4', 'instances': 'u2'}
    assert types == {**kinds, 'instance_classes': 'u1'}
    assert example['instance_classes'].tolist() == [1] * int(example['instances'].max())
    assert example['file_name'] == source.file_name(i) == raw.file_name
  np.testing.assert_array_equal(source[-1]['image'], source[4]['image'])
  with pytest.raises(IndexError):
    source[5]


def _read_objects(raw):
  """Objects in as many layers as the file's number, none in the first."""
  label, count = mask_files.read_ids(raw.label), int(raw.image.stem)
  image, instances = image_files.encode_image(raw.image), _layers(label, count)
  return records.Example(image, label, instances=instances, objects=_tables(count))


def _layers(label, count):
  ids = np.arange(1, count + 1, dtype=np.uint16)
  return (
    np.where(label[..., None] == 1, ids, np.uint16(0))
    if count
    else np.zeros(label.shape, np.uint16)
  )


def _tables(count):
  return {
    'instance_classes': np.arange(count) % 2 + 1,
    'crowd': np.arange(count) == 2,
    'area': np.arange(count) + 0.1,
    'instance_boxes': np.arange(4 * count).reshape(-1, 4) / 8,
  }


def test_objects_in_layers_and_their_tables(raws, tmp_path):
  facts = DatasetInfo('tiny', NAMES, PALETTE, entries=('instances', 'objects'))
  source = records.open_source(facts, 'train', raws, _read_objects, cache_dir=tmp_path)
  for count in range(5):
    example, label = source[count], source.label(count)
    layers = _layers(label, count).reshape(*label.shape, -1)
    assert example['instances'].dtype == np.uint16
    np.testing.assert_array_equal(example['instances'], layers)
    for key, values in _tables(count).items():
      assert example[key].dtype == OBJECTS[key]
      np.testing.assert_array_equal(example[key], values.astype(OBJECTS[key]))


def test_jpeg_bytes_are_stored_as_they_are(tmp_path):
  raws = _write(tmp_path, count=1, suffix='jpg')
  source = _open(raws, tmp_path / 'cache')
  stored = tfds.builder_from_directory(source.path).as_data_source(
    split='examples', decoders={k: tfds.decode.SkipDecoding() for k in ('image', 'label')}
  )
  assert stored[0]['image'] == raws[0].image.read_bytes()


def test_tfds_itself_reads_the_records(raws, tmp_path):
  path = _open(raws, tmp_path / 'cache').path
  example = tfds.builder_from_directory(path).as_data_source(split='examples')[2]
  np.testing.assert_array_equal(example['image'], np.asarray(Image.open(raws[2].image)))
  np.testing.assert_array_equal(example['label'][..., 0], np.asarray(Image.open(raws[2].label)))


def test_source_pickles_and_serves_threads(raws, tmp_path):
  source = pickle.loads(pickle.dumps(_open(raws, tmp_path / 'cache')))
  expected = [source[i]['image'] for i in range(5)]
  source = pickle.loads(pickle.dumps(source))  # not yet open again
  with ThreadPoolExecutor(8) as pool:
    order = [i % 5 for i in range(200)]
    for i, example in zip(order, pool.map(source.__getitem__, order), strict=True):
      np.testing.assert_array_equal(example['image'], expected[i])


def test_indices_are_a_view_of_the_same_records(raws, tmp_path):
  whole = _open(raws, tmp_path / 'cache')
  part = records.open_source(
    FACTS, 'val', raws, _read, cache_dir=tmp_path / 'cache', indices=[3, 1]
  )
  assert part.path == whole.path and part.split == 'val' and len(part) == 2
  assert [part.file_name(i) for i in range(2)] == ['3.png', '1.png']
  assert part.identity != whole.identity


def test_built_once_and_again_after_a_change(raws, tmp_path):
  read = []

  def count(raw, x=0):
    read.append(raw.file_name)
    return _read(raw)

  def build(facts=FACTS, **options):
    options = {'cache_dir': tmp_path / 'cache', **options}
    return records.open_source(facts, 'train', raws, count, **options).path

  first = build()
  assert sorted(read) == [f'{i}.png' for i in range(5)]
  assert build() == first and len(read) == 5
  assert build(options={'x': 1}) != first and len(read) == 10
  assert build(dataclasses.replace(FACTS, name='other')) != first and len(read) == 15
  os.utime(raws[0].label, ns=(1, 1))
  assert build() == first and len(read) == 15  # touched, and the same
  mask = np.asarray(Image.open(raws[0].label)).copy()
  Image.fromarray(np.where(mask == 1, 2, mask)).save(raws[0].label)
  assert build() != first and len(read) == 20
  assert not list((tmp_path / 'raw').glob('*/'))  # nothing is written beside the raw data


def test_errors_name_the_file_and_leave_nothing(raws, tmp_path):
  folder = tmp_path / 'cache' / 'tiny'
  mask = np.asarray(Image.open(raws[3].label)).copy()
  mask[0, :2] = 3, 17
  Image.fromarray(mask).save(raws[3].label)
  with pytest.raises(UserError, match=r'3_mask\.png: label ids 3, 17 .* 0\.\.2, 255 \(void\)'):
    _open(raws, tmp_path / 'cache')
  assert list(folder.iterdir()) == []
  Image.fromarray(mask[:-1]).save(raws[3].label)
  with pytest.raises(UserError, match=r'3_mask\.png is 9 x 8 pixels, .*3\.png is 9 x 9'):
    _open(raws, tmp_path / 'cache')
  raws[3].image.write_bytes(raws[3].image.read_bytes()[:60])
  with pytest.raises(UserError, match=r'cannot decode .*3\.png'):
    _open(raws, tmp_path / 'cache')
  raws[3].label.unlink()
  with pytest.raises(UserError, match=r'missing file: .*3_mask\.png'):
    _open(raws, tmp_path / 'cache')
  with pytest.raises(UserError, match='no examples'):
    _open([], tmp_path / 'cache')
  assert list(folder.iterdir()) == []


BUILD = """
import importlib.machinery, os, sys
class Blocked:  # found, so that probes for TensorFlow see it, but any import of it fails
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in ('tensorflow', 'jax', 'flax'):
      return importlib.machinery.ModuleSpec(name, self)
  def create_module(self, spec):
    raise ModuleNotFoundError(spec.name)
  def exec_module(self, module):
    pass
sys.meta_path.insert(0, Blocked())
from jaxseg.data import image_files
from jaxseg.datasets import folder
encode = image_files.encode_image
def encode_or_die(path, **options):
  if 'die' in sys.argv and path.stem == '2':
    os._exit(9)
  return encode(path, **options)
image_files.encode_image = encode_or_die
source = folder.source('train', data_dir=sys.argv[1], cache_dir=sys.argv[2])
print(len(source), int(source[3]['label'].sum()), source[3]['image'].shape)
"""


def _user_folder(root):
  for kind in ('images', 'masks'):
    (root / 'train' / kind).mkdir(parents=True)
  for i in range(4):
    Image.fromarray(np.full((5, 7, 3), i, np.uint8)).save(root / f'train/images/{i}.png')
    Image.fromarray(np.eye(5, 7, dtype=np.uint8)).save(root / f'train/masks/{i}.png')
  (root / 'classes.txt').write_text('ground\nline\n')
  return root


def _start(root, cache_dir, *extra):
  command = [sys.executable, '-c', BUILD, root, cache_dir, *extra]
  return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_without_tensorflow_two_at_once_after_one_was_killed(tmp_path):
  root = _user_folder(tmp_path / 'mine')
  killed = _start(root, tmp_path / 'cache', 'die')
  _, err = killed.communicate()
  assert killed.returncode == 9, err
  left = list((tmp_path / 'cache' / 'folder').glob('records-*'))
  assert left == []
  both = [_start(root, tmp_path / 'cache') for _ in range(2)]
  for process in both:
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.strip() == '4 5 (5, 7, 3)' and err == ''
  assert len(list((tmp_path / 'cache' / 'folder').glob('records-*'))) == 1
