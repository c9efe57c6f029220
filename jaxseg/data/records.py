"""Records: raw files written once as a TFDS dataset of array records, then read at random.

TensorFlow is never needed. A build goes to a cache folder named after the raw files' names, sizes
and times, the options and the builder's version: a changed raw file makes a new folder. It is made
under a temporary name and renamed when whole, so that a killed build leaves nothing that looks
usable and two processes may build at once (the first to finish wins, the other uses its result).
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import json
import operator
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from jaxseg.data import cache, image_files, threads
from jaxseg.data.cache import Progress
from jaxseg.datasets import BadFiles
from jaxseg.types import VOID, UserError

cv2.setNumThreads(0)  # the loader's threads are the parallelism; OpenCV's own would fight them
tfds.disable_progress_bar()

_FORMAT = 1  # raise it when what a record holds changes
_MAX_WEIGHT_CODE = 65535
OBJECTS = {  # tables with a row an object, by their keys in an example
  'instance_classes': np.uint8,  # [n], 1..c-1
  'crowd': np.bool_,  # [n], a region of objects that nobody told apart
  'area': np.float32,  # [n], pixels, as the annotators measured
  'instance_boxes': np.float32,  # [n, 4], their x0, y0, x1, y1 in pixels
}


@dataclasses.dataclass(frozen=True)
class Facts:
  """What is known of a dataset without opening a file."""

  name: str
  class_names: tuple[str, ...]
  palette: tuple[tuple[int, int, int], ...]
  channels: int = 3

  @property
  def num_classes(self) -> int:
    return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Raw:
  """One example's files. `extra` is for the dataset's own use (a page, mask files, ...)."""

  image: Path
  label: Path
  file_name: str
  extra: Any = None


@dataclasses.dataclass(frozen=True)
class Example:
  """One example ready to be stored.

  Attributes:
    image: encoded image.
    label: uint8 [h, w], classes 0..c-1 and VOID.
    weight: float32 [h, w], not negative; stored in 65535 steps of its largest value.
    instances: uint16 [h, w], 0 for none; from a builder with `has_objects` [h, w, layers], every
      object in one layer.
    objects: with `has_objects`, what is known of each of the n objects, id i at place i - 1; see
      OBJECTS.
  """

  image: image_files.EncodedImage
  label: np.ndarray
  weight: np.ndarray | None = None
  instances: np.ndarray | None = None
  objects: Mapping[str, np.ndarray] | None = None


class _Info(tfds.core.DatasetInfo):
  """TFDS would ask its bucket what is known of the dataset, and leave a temporary folder behind."""

  def initialize_from_bucket(self) -> None:
    pass


class Builder(tfds.core.GeneratorBasedBuilder, abc.ABC, skip_registration=True):
  """Base of the dataset builders: one split of raw examples -> array records.

  A dataset says how to read one example; order, checks, encoding and progress are here.
  """

  VERSION = tfds.core.Version('1.0.0')
  url_infos = None  # nothing is ever downloaded; TFDS need not look for checksums
  has_weight = False
  has_instances = False
  has_objects = False  # instances in layers, with tables of the objects

  def __init__(self, *, data_dir: Path, facts: Facts, split: str, raws: Sequence[Raw], options):
    self.facts, self.split, self.raws, self.options = facts, split, raws, dict(options)
    self.progress: Progress = lambda done, total: None
    self.error: Exception | None = None
    super().__init__(data_dir=data_dir, file_format='array_record')

  @abc.abstractmethod
  def read(self, raw: Raw) -> Example:
    """Reads one raw example; called from several threads."""

  def _info(self) -> tfds.core.DatasetInfo:
    feature = tfds.features.Image
    features = {
      'image': feature(shape=(None, None, self.facts.channels), dtype=np.uint8),
      'label': feature(shape=(None, None, 1), dtype=np.uint8, encoding_format='png'),
      'file_name': tfds.features.Text(),
    }
    if self.has_weight:
      features['weight'] = feature(shape=(None, None, 1), dtype=np.uint16, encoding_format='png')
      features['weight_unit'] = tfds.features.Scalar(np.float32)
    if self.has_instances:
      features['instances'] = feature(shape=(None, None, 1), dtype=np.uint16, encoding_format='png')
    if self.has_objects:
      features['objects'] = tfds.features.Text()
    return _Info(
      builder=self,
      description=' '.join((type(self).__doc__ or self.facts.name).split()),
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
    )

  def _log_download_bytes(self) -> None:
    pass  # TFDS would print that it downloads

  def _log_download_done(self) -> None:
    pass

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager
    return {self.split: self._generate_examples()}

  def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
    problems = []
    try:
      made = threads.results(self._encode_or_tell, self.raws, name=lambda raw: str(raw.image))
      for index, record in enumerate(made):
        if isinstance(record, str):
          problems.append(record)
        elif not problems:
          yield index, record
        self.progress(index + 1, len(self.raws))
      if problems:
        raise BadFiles(problems)
    except Exception as error:
      self.error = error  # TFDS may wrap it; open_source raises this one
      raise

  def _encode_or_tell(self, raw: Raw) -> dict[str, Any] | str:
    """Returns the record, or what is wrong: the user is to see all bad files at once."""
    try:
      return self._encode(raw)
    except UserError as error:
      return str(error)

  def _encode(self, raw: Raw) -> dict[str, Any]:
    example = self.read(raw)
    label, size = example.label, (example.image.height, example.image.width)
    if label.shape != size:
      raise UserError(
        f'{raw.label} is {label.shape[1]} x {label.shape[0]} pixels, but its image {raw.image} is '
        f'{size[1]} x {size[0]}: image and mask must have one size'
      )
    valid = {i: i for i in (*range(self.facts.num_classes), VOID)}
    image_files.map_ids(label, valid, raw.label)
    record = {'image': example.image.data, 'label': image_files.encode_png(label)}
    record['file_name'] = os.fsencode(raw.file_name).decode('utf-8', 'replace')
    if self.has_weight:
      codes, unit = _quantize(example.weight)
      record |= {'weight': image_files.encode_png(codes), 'weight_unit': unit}
    if self.has_instances:
      layers = np.moveaxis(np.atleast_3d(example.instances), -1, 0)  # one below the other
      record['instances'] = image_files.encode_png(layers.reshape(-1, layers.shape[2]))
    if self.has_objects:
      tables = {key: np.asarray(example.objects[key]).tolist() for key in OBJECTS}
      record['objects'] = json.dumps(tables)
    return record


def _quantize(weight: np.ndarray) -> tuple[np.ndarray, np.float32]:
  unit = np.float32(max(float(weight.max()), 1e-6) / _MAX_WEIGHT_CODE)
  return np.rint(weight / unit).astype(np.uint16), unit


class Source:
  """Random access to the decoded examples of one split; safe to share between threads, pickles.

  `source[i]` is a dict of image uint8 [h, w, c], label uint8 [h, w] (VOID = 255), file_name, and
  where the dataset has them weight float32 [h, w], instances uint16 [h, w] and instance_classes
  uint8 [n], the class of id i at place i - 1 (1 where the dataset does not say). Where objects
  overlap, instances are [h, w, layers] and the other tables of OBJECTS are there too.

  Attributes:
    name, split: the dataset's name and this split's.
    class_names, palette, num_classes, channels: facts of the dataset.
    path: folder of the records (a TFDS dataset folder).
  """

  def __init__(self, path: Path, facts: Facts, split: str, indices: Sequence[int] | None = None):
    self.path, self.facts, self.split = path, facts, split
    self._stored_split = json.loads((path / 'dataset_info.json').read_text())['splits'][0]['name']
    self._indices = None if indices is None else np.asarray(indices, np.int64)
    self._open_lock, self._records = threading.Lock(), None
    self._length = len(self._reader()) if indices is None else len(indices)

  name = property(lambda self: self.facts.name)
  class_names = property(lambda self: self.facts.class_names)
  palette = property(lambda self: self.facts.palette)
  num_classes = property(lambda self: self.facts.num_classes)
  channels = property(lambda self: self.facts.channels)

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> dict[str, np.ndarray | str]:
    record = self._record(index)
    flag = cv2.IMREAD_COLOR if self.channels == 3 else cv2.IMREAD_GRAYSCALE
    image = self._decode(record['image'], flag | cv2.IMREAD_IGNORE_ORIENTATION)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if self.channels == 3 else image[..., None]
    label = self._decode(record['label'], cv2.IMREAD_GRAYSCALE)
    example = {'image': image, 'label': label}
    if 'weight' in record:
      example['weight'] = self._decode(record['weight']) * np.float32(record['weight_unit'])
    if 'instances' in record:
      example |= self._objects(record, label.shape)
    return {**example, 'file_name': record['file_name'].decode()}

  def _objects(self, record: Mapping[str, Any], size: tuple[int, int]) -> dict[str, np.ndarray]:
    instances = self._decode(record['instances'])
    if 'objects' not in record:
      classes = np.ones(int(instances.max(initial=0)), np.uint8)
      return {'instances': instances, 'instance_classes': classes}
    tables = json.loads(record['objects'])
    found = {key: np.array(tables[key], dtype) for key, dtype in OBJECTS.items()}
    found['instance_boxes'] = found['instance_boxes'].reshape(-1, 4)
    return {'instances': np.moveaxis(instances.reshape(-1, *size), 0, -1), **found}

  def label(self, index: int) -> np.ndarray:
    """Returns only the label, without decoding the image."""
    return self._decode(self._record(index)['label'], cv2.IMREAD_GRAYSCALE)

  def file_name(self, index: int) -> str:
    """Returns only the file name."""
    return self._record(index)['file_name'].decode()

  @property
  def identity(self) -> str:
    """Text that is the same only for the same examples in the same order."""
    chosen = 'all' if self._indices is None else ','.join(map(str, self._indices.tolist()))
    return f'{self.path}|{chosen}'

  def _decode(self, data: bytes, flag: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if pixels is None:
      raise self._damaged()
    return pixels

  def _record(self, index: int) -> dict[str, Any]:
    index = operator.index(index)
    if not -self._length <= index < self._length:
      raise IndexError(f'index {index} is outside of {self._length} examples')
    index %= self._length
    index = index if self._indices is None else int(self._indices[index])
    try:
      record = self._reader()[index]
    except Exception as error:  # array_record raises many kinds on damaged files
      raise self._damaged() from error
    if any(value is None for value in record.values()):
      raise self._damaged()
    return record

  def _damaged(self) -> UserError:
    return UserError(f'the records in {self.path} are damaged: delete this folder and run again')

  def _reader(self):
    with self._open_lock:
      if self._records is None:
        builder = tfds.builder_from_directory(self.path)
        plain = ('file_name', 'weight_unit', 'objects')
        image_like = [k for k in builder.info.features if k not in plain]
        skip = dict.fromkeys(image_like, tfds.decode.SkipDecoding())
        self._records = builder.as_data_source(split=self._stored_split, decoders=skip)
      return self._records

  def __getstate__(self) -> dict[str, Any]:
    return {k: v for k, v in self.__dict__.items() if k not in ('_open_lock', '_records')}

  def __setstate__(self, state: Mapping[str, Any]) -> None:
    self.__dict__.update(state)
    self._open_lock, self._records = threading.Lock(), None


def open_source(
  builder: type[Builder],
  facts: Facts,
  split: str,
  raws: Sequence[Raw],
  *,
  cache_dir: str | os.PathLike | None = None,
  options: Mapping[str, Any] | None = None,
  indices: Sequence[int] | None = None,
  view: str | None = None,
  progress: Progress | None = None,
) -> Source:
  """Returns the source of one split, building its records first where the cache has none.

  Args:
    builder: how to read one raw example.
    facts: name, classes, palette and channels.
    split: the name of what is stored.
    raws: every example of the split, in order.
    cache_dir: default $JAXSEG_CACHE, else ~/.cache/jaxseg.
    options: whatever changes what is stored; part of the cache folder's name.
    indices: a subset of the stored examples, in the order wanted.
    view: the source's split name where it differs from the stored one.
    progress: called with (done, total); by default a line on a terminal, silence elsewhere.

  Raises:
    UserError: a raw file missing, damaged or with labels outside of the classes; the cache then
      keeps nothing of the build.
    StuckError: a raw file that cannot be read to its end, and the same.
  """
  if not raws:
    raise UserError(f"{facts.name}: the split '{split}' has no examples")
  options = dict(options or {})
  parent = cache.cache_root(cache_dir) / facts.name
  key = cache.fingerprint(
    [f for raw in raws for f in _files(raw)],
    [_FORMAT, str(builder.VERSION), dataclasses.astuple(facts), split, options],
  )
  folder = parent / f'{split}-{key}'
  if not folder.is_dir():
    cache.publish(folder, functools.partial(_build, builder, facts, split, raws, options, progress))
  info = next(folder.glob('*/*/dataset_info.json'), None)
  if info is None:
    raise UserError(f'the cache folder {folder} is damaged: delete it and run again')
  return Source(info.parent, facts, view or split, indices)


def _build(builder, facts, split, raws, options, progress: Progress | None, place: Path) -> None:
  made = builder(data_dir=place, facts=facts, split=split, raws=raws, options=options)
  with cache.progress_line(f'preparing {facts.name} {split}', progress) as made.progress:
    try:
      made.download_and_prepare(file_format='array_record')
    except Exception:
      if made.error is not None:
        raise made.error from None
      raise
  shutil.rmtree(place / 'downloads', ignore_errors=True)  # TFDS makes it, and leaves it empty


def _files(raw: Raw) -> list[Path]:
  """Returns every file that an example is read from."""
  extra = raw.extra if isinstance(raw.extra, tuple) else ()
  return [raw.image, raw.label, *(p for p in extra if isinstance(p, Path))]
