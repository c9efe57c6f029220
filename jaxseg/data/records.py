"""Records: raw files written once as a TFDS dataset of array records, with random access.

TensorFlow is never needed. A build goes to a cache folder whose key has the raw files' names and content,
the options and the reader's code: a changed file or reader makes a new folder. It is made under a
temporary name and renamed when complete, so that a killed build leaves nothing that looks usable and two
processes may build at once (the first to finish wins, the other uses its result).
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_info import DatasetIdentity

from jaxseg.data import cache, fingerprint, image_files, mask_files
from jaxseg.data.problems import read_all
from jaxseg.data.source import OBJECTS, SPLIT, DatasetInfo, Source
from jaxseg.types import VOID, UserError

_VERSION = '1.0.0'  # of the records' format, required by TFDS
_IN_A_FILE, _AT_ONCE = 1 << 14, 64  # records per file; records passed to TFDS at once
_MAX_WEIGHT_CODE = 65535


@dataclasses.dataclass(frozen=True)
class Raw:
  """An example's files. `extra` is for the dataset's own use (a page, mask files, ...)."""

  image: Path
  label: Path
  file_name: str
  extra: Any = None

  @property
  def files(self) -> list[Path]:
    """All files that the example is read from."""
    extra = self.extra if isinstance(self.extra, tuple) else ()
    return [self.image, self.label, *(p for p in extra if isinstance(p, Path))]


@dataclasses.dataclass(frozen=True)
class Example:
  """An example to store; has image, label and the entries that its dataset's facts declare.

  Attributes:
    image: encoded image.
    label: uint8 [h, w], classes 0..c-1 and VOID.
    weight: float32 [h, w], not negative; quantised to 65535 steps of its maximum.
    instances: uint16 [h, w], 0 for none; with `objects` [h, w, layers], every object in one layer.
    objects: tables of the n objects, id i at index i - 1; see source.OBJECTS.
  """

  image: image_files.EncodedImage
  label: np.ndarray
  weight: np.ndarray | None = None
  instances: np.ndarray | None = None
  objects: Mapping[str, np.ndarray] | None = None


def read_ids(raw: Raw, *, table: Mapping[int, int]) -> Example:
  """Reads an RGB image and a mask of ids, which `table` maps to classes."""
  label = mask_files.map_ids(mask_files.read_ids(raw.label), table, raw.label)
  return Example(image_files.encode_image(raw.image), label)


def open_source(
  facts: DatasetInfo,
  split: str,
  raws: Sequence[Raw],
  read: Callable[..., Example],
  cache_dir: str | os.PathLike | None = None,
  *,
  options: Mapping[str, Any] | None = None,
  indices: Sequence[int] | None = None,
) -> Source:
  """Returns the source of one split, building its records first if they are not cached.

  Args:
    facts: of the dataset.
    split: the source's name.
    raws: all examples to store, in order; splits with the same ones share their records.
    read: reads one as `read(raw, **options)`; called from several threads.
    cache_dir: default $JAXSEG_CACHE, else ~/.cache/jaxseg.
    options: all that affects what is stored.
    indices: the split's examples, in order; None: all.

  Raises:
    UserError: a raw file is missing, damaged or has labels outside the classes; nothing of the build
      is then cached.
    StuckError: reading a raw file timed out, likewise.
  """
  if not raws:
    raise UserError(f"{facts.name}: the split '{split}' has no examples")
  options = dict(options or {})
  paths = [file for raw in raws for file in raw.files]
  contents = fingerprint.contents(paths, cache_dir)
  code = fingerprint.of_code(functools.partial(read, _build, **options))
  key = fingerprint.of_contents(paths, contents, [code, dataclasses.astuple(facts), options])
  folder = cache.cache_root(cache_dir) / facts.name / f'records-{key}'
  if not folder.is_dir():
    build = functools.partial(_build, facts, raws, functools.partial(read, **options))
    cache.publish(folder, build)
  info = next(folder.glob('*/*/dataset_info.json'), None)
  if info is None:
    raise UserError(f'the cache folder {folder} is damaged: delete it and run again')
  how = json.dumps([facts.class_names, options], sort_keys=True, default=str)
  digests = [(raw.file_name, d) for raw, d in zip(raws, _digests(raws, contents, how), strict=True)]
  return Source(info.parent, facts, split, indices, digests)


def _digests(raws: Sequence[Raw], contents: Sequence[str], how: str) -> Iterator[str]:
  """Yields a digest of each example's file names and content, and of how they are read."""
  content = iter(contents)
  for raw in raws:
    digest = hashlib.blake2b(how.encode(), digest_size=8)
    for path in raw.files:
      digest.update(os.fsencode(f'|{path.name}={next(content)}'))
    yield digest.hexdigest()


def _build(
  facts: DatasetInfo, raws: Sequence[Raw], read: Callable[[Raw], Example], folder: Path
) -> None:
  """Writes the records in order while they are read: memory holds only a few."""
  place = folder / 'records' / _VERSION
  place.mkdir(parents=True)
  identity = DatasetIdentity('records', tfds.core.Version(_VERSION), str(place), __name__)
  info = tfds.core.DatasetInfo(
    builder=identity,
    description=f'{facts.name}: {", ".join(facts.class_names)}',
    features=_features(facts),
    disable_shuffling=True,
  )
  writer = tfds.core.SequentialWriter(info, _IN_A_FILE, file_format='array_record')
  writer.initialize_splits([SPLIT])
  record = functools.partial(_record, facts, read)
  records = read_all(record, raws, lambda raw: str(raw.image), f'preparing {facts.name}')
  while some := list(itertools.islice(records, _AT_ONCE)):
    writer.add_examples({SPLIT: some})
  writer.close_all()


def _features(facts: DatasetInfo) -> tfds.features.FeaturesDict:
  def plane(dtype: Any) -> tfds.features.Image:
    return tfds.features.Image(shape=(None, None, 1), dtype=dtype, encoding_format='png')

  features = {
    'image': tfds.features.Image(shape=(None, None, facts.channels)),
    'label': plane(np.uint8),
    'file_name': tfds.features.Text(),
  }
  if 'weight' in facts.entries:
    features |= {'weight': plane(np.uint16), 'weight_unit': tfds.features.Scalar(np.float32)}
  if 'instances' in facts.entries:
    features['instances'] = plane(np.uint16)
  if 'objects' in facts.entries:
    features['objects'] = tfds.features.Text()
  return tfds.features.FeaturesDict(features)


def _record(facts: DatasetInfo, read: Callable[[Raw], Example], raw: Raw) -> dict[str, Any]:
  """Reads, checks and encodes one example."""
  example, entries = read(raw), facts.entries
  label, size = example.label, (example.image.height, example.image.width)
  if label.shape != size:
    raise UserError(
      f'{raw.label} is {label.shape[1]} x {label.shape[0]} pixels, but its image {raw.image} is '
      f'{size[1]} x {size[0]}: image and mask must have one size'
    )
  classes = {i: i for i in (*range(len(facts.class_names)), VOID)}
  mask_files.check_ids(label, classes, raw.label)
  record = {'image': example.image.data, 'label': image_files.encode_png(label)}
  record['file_name'] = os.fsencode(raw.file_name).decode('utf-8', 'replace')
  if 'weight' in entries:
    unit = np.float32(max(float(example.weight.max()), 1e-6) / _MAX_WEIGHT_CODE)
    codes = np.rint(example.weight / unit).astype(np.uint16)
    record |= {'weight': image_files.encode_png(codes), 'weight_unit': unit}
  if 'instances' in entries:
    layers = np.moveaxis(np.atleast_3d(example.instances), -1, 0)  # stacked vertically
    record['instances'] = image_files.encode_png(layers.reshape(-1, layers.shape[2]))
  if 'objects' in entries:
    tables = {key: np.asarray(example.objects[key]).tolist() for key in OBJECTS}
    record['objects'] = json.dumps(tables)
  return record
