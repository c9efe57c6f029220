"""Random access to stored records as examples: what a dataset's `source(split)` returns."""

import dataclasses
import json
import operator
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from jaxseg.data import image_files
from jaxseg.types import UserError, as_seen, is_word

cv2.setNumThreads(0)  # the loader's threads parallelise; OpenCV's own would compete with them

SPLIT = 'examples'  # the only split of stored records, as TFDS names it
OBJECTS = {  # tables with a row per object, by their keys in an example
  'instance_classes': np.uint8,  # [n], 1..c-1
  'crowd': np.bool_,  # [n], a region of objects that were not separated
  'area': np.float32,  # [n], pixels, as annotated
  'instance_boxes': np.float32,  # [n, 4], annotated x0, y0, x1, y1 in pixels
}
_PNG_SIZE = 16  # bytes before width and height in a PNG
_NOT_PICTURES = ('file_name', 'weight_unit', 'objects')


def file_name(source: Any, index: int) -> str:
  """Returns an example's file name, if possible without reading the example."""
  read = getattr(source, 'file_name', None)
  return str(read(index) if read else source[index]['file_name'])


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
  """A dataset's properties, known without opening a file.

  Attributes:
    name: of the dataset.
    class_names, palette: of each class, colours in uint8 RGB.
    channels: of the images.
    entries: of an example besides image and label: 'weight', 'instances', and 'objects', tables of
      the instances, which then are in layers.
    dtype: of the images, one of image_files.TYPES.
    category_ids: the data's own class ids, () if they are 0..c-1.
  """

  name: str
  class_names: tuple[str, ...]
  palette: tuple[tuple[int, int, int], ...]
  channels: int = 3
  entries: tuple[str, ...] = ()
  dtype: str = 'uint8'
  category_ids: tuple[int | str, ...] = ()

  def __post_init__(self):
    for name in self.class_names:
      if not is_word(name):
        raise UserError(
          f'{self.name}: the class name {name!r} is empty or holds control characters: correct the list'
        )
    seen = Counter(map(as_seen, self.class_names))
    if twice := [name for name in self.class_names if seen[as_seen(name)] > 1]:
      raise UserError(
        f'{self.name}: {len(twice)} classes are named {twice[0]}, as people see it: give each a name of its own'
      )


class Source:
  """Random access to the decoded examples of one split; safe to share between threads, pickles.

  `source[i]` is a dict of image [h, w, c] of `dtype`, label uint8 [h, w] (VOID = 255), file_name, and
  if the dataset has them, weight float32 [h, w], instances uint16 [h, w] and instance_classes
  uint8 [n], the class of id i at index i - 1 (1 if not given). Where objects may overlap, instances
  are [h, w, layers], with the other tables of OBJECTS too.

  Attributes:
    name, split: the dataset's name and this split's.
    class_names, palette, num_classes, channels, dtype, category_ids: see DatasetInfo.
    path: folder of the records (a TFDS dataset folder).
    digests: the file name of each example with a digest of its raw files' names and content.
  """

  def __init__(
    self,
    path: Path,
    facts: DatasetInfo,
    split: str,
    indices: Sequence[int] | None = None,
    digests: Sequence[tuple[str, str]] = (),
  ):
    self.path, self.split, self.name = path, split, facts.name
    self.class_names, self.palette, self.channels = facts.class_names, facts.palette, facts.channels
    self.num_classes, self.category_ids = len(facts.class_names), facts.category_ids
    self.dtype = facts.dtype
    self._lock, self._records = threading.Lock(), None
    self._indices = list(range(len(self._reader())) if indices is None else indices)
    self.digests = tuple(digests[i] for i in self._indices) if digests else ()

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index: int) -> dict[str, np.ndarray | str]:
    return self._read(index, self._example)

  def _read(self, index: int, read: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Returns `read` of a record."""
    record = self._record(index)
    try:
      return read(record)
    except (ValueError, LookupError, TypeError, AttributeError, struct.error, cv2.error) as error:
      if isinstance(error, UserError):
        raise
      raise self._damaged() from error

  def _example(self, record: Mapping[str, Any]) -> dict[str, np.ndarray | str]:
    image = image_files.decode(record['image'], channels=self.channels, dtype=self.dtype)
    if image is None:
      raise self._damaged()
    label = self._decode(record['label'], cv2.IMREAD_GRAYSCALE)
    if image.shape[:2] != label.shape:
      raise self._damaged()
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
    stored = json.loads(record['objects'])
    tables = {key: np.array(stored[key], dtype) for key, dtype in OBJECTS.items()}
    tables['instance_boxes'] = tables['instance_boxes'].reshape(-1, 4)
    return {'instances': np.moveaxis(instances.reshape(-1, *size), 0, -1), **tables}

  def label(self, index: int) -> np.ndarray:
    """Returns only the label, without decoding the image."""
    return self._read(index, lambda record: self._decode(record['label'], cv2.IMREAD_GRAYSCALE))

  def size(self, index: int) -> tuple[int, int]:
    """Returns height and width from the header of the label's PNG, without decoding it."""
    sides = self._read(index, lambda record: struct.unpack_from('>II', record['label'], _PNG_SIZE))
    return sides[1], sides[0]

  def file_name(self, index: int) -> str:
    """Returns only the file name."""
    return self._read(index, lambda record: record['file_name'].decode())

  @property
  def identity(self) -> str:
    """A string that is equal only for the same examples in the same order."""
    return f'{self.path}|{",".join(map(str, self._indices))}'

  def _decode(self, data: bytes, flag: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if pixels is None:
      raise self._damaged()
    return pixels

  def _record(self, index: int) -> dict[str, Any]:
    stored = self._indices[operator.index(index)]
    try:
      record = self._reader()[stored]
    except Exception as error:  # array_record raises many types on damaged files
      raise self._damaged() from error
    if any(value is None for value in record.values()):
      raise self._damaged()
    return record

  def _damaged(self) -> UserError:
    return UserError(f'the records in {self.path} are damaged: delete this folder and run again')

  def _reader(self) -> Any:
    with self._lock:
      if self._records is None:
        self._records = self._open()
      return self._records

  def _open(self) -> Any:
    try:
      builder = tfds.builder_from_directory(self.path)
      pictures = [k for k in builder.info.features if k not in _NOT_PICTURES]
      as_stored = dict.fromkeys(pictures, tfds.decode.SkipDecoding())
      return builder.as_data_source(split=SPLIT, decoders=as_stored)
    except Exception as error:  # TFDS raises many types on damaged files
      raise self._damaged() from error

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, '_lock': None, '_records': None}

  def __setstate__(self, state: Mapping[str, Any]) -> None:
    self.__dict__.update(state, _lock=threading.Lock())
