"""Statistics of a split's images and labels, in one pass."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxseg.data import statistics, threads
from jaxseg.data.objects import measure
from jaxseg.data.progress import with_progress

Objects = tuple[np.ndarray, np.ndarray]  # of an image: pixels int64 [n] and crowd bool [n]

_WEIGHT_LIMITS = (0.1, 10.0)


@dataclasses.dataclass(frozen=True)
class Survey:
  """Statistics of a split.

  Attributes:
    histogram: of the labels.
    counts: int64 [n, c], pixels of each class in each example.
    sizes: (height, width) -> number of images.
    channels: mean, standard deviation and range of each channel.
    digests: hash of the decoded pixels -> names of the files with these.
    objects: of each image; empty if the data do not number them.
  """

  histogram: statistics.LabelHistogram
  counts: np.ndarray
  sizes: Counter
  channels: statistics.Moments
  digests: Mapping[bytes, Sequence[str]]
  objects: Sequence[Objects] = ()

  @property
  def class_weights(self) -> tuple[float, ...]:
    """Square roots of median frequency weights, clipped to 0.1 .. 10; 0 for absent classes.

    With few images the full weights drown out the common classes (20 CamVid frames, 200 steps: mean IoU
    0.25 with them, 0.30 with their roots).
    """
    weights = np.sqrt(statistics.median_frequency_weights(self.histogram))
    weights = np.where(weights > 0, np.clip(weights, *_WEIGHT_LIMITS), 0.0)
    return tuple(round(float(weight), 4) for weight in weights)

  def facts(self, class_names: Sequence[str]) -> dict[str, Any]:
    """Returns the split's entry of data.json."""
    channels, histogram = self.channels, self.histogram
    return {
      'images': histogram.num_images,
      'sizes': {f'{h}x{w}': n for (h, w), n in self.sizes.most_common()},
      'pixels': dict(zip(class_names, histogram.counts.tolist(), strict=True)),
      'images_with': dict(zip(class_names, histogram.images.tolist(), strict=True)),
      'void': histogram.void_share,
      'mean': [float(f'{v:.6g}') for v in channels.mean],
      'std': [float(f'{v:.6g}') for v in channels.std],
    } | ({'objects': object_facts(self.objects)} if self.objects else {})

  def sizes_text(self) -> str:
    """Returns text such as '480x360' or '256x256 (30), 520x696 (7), 3 more sizes' (height x width)."""
    shown = [(f'{h}x{w}', n) for (h, w), n in self.sizes.most_common(3)]
    if len(self.sizes) == 1:
      return shown[0][0]
    more = [f'{len(self.sizes) - 3} more sizes'] if len(self.sizes) > 3 else []
    return ', '.join([f'{size} ({n})' for size, n in shown] + more)


def survey(source: Any, title: str) -> Survey:
  """Reads every example once, in a few threads, with a progress line titled `title`."""

  def read(i: int) -> tuple[Any, ...]:
    example = source[i]
    image = np.ascontiguousarray(example['image'])
    digest = hashlib.blake2b(image, digest_size=16, person=f'{image.shape}'[:16].encode()).digest()
    labels, values = statistics.label_bins(example['label']), statistics.Moments.of(image)
    return labels, image.shape[:2], values, digest, str(example['file_name']), _objects(example)

  histogram = statistics.LabelHistogram.empty(source.num_classes)
  counts, sizes, digests, objects = [], Counter(), {}, []
  channels = statistics.Moments.empty(source.channels)
  examples = threads.results(read, range(len(source)), name=getattr(source, 'file_name', None))
  for labels, size, values, digest, name, those in with_progress(title, examples, len(source)):
    histogram.add(labels)
    counts.append(labels[: source.num_classes].copy())  # a view would keep all 256 alive
    sizes[size] += 1
    channels += values
    digests.setdefault(digest, []).append(name)
    objects += those
  return Survey(histogram, np.array(counts), sizes, channels, digests, objects)


def _objects(example: Mapping[str, Any]) -> list[Objects]:
  """Returns the objects of an example; [] if the data do not number them."""
  if 'instances' not in example:
    return []
  _, pixels = measure(example['instances'], len(example['instance_classes']))
  crowd = np.asarray(example.get('crowd', np.zeros(len(pixels), bool)))
  return [(pixels[pixels > 0], crowd[pixels > 0])]


def object_facts(objects: Sequence[Objects]) -> dict[str, Any]:
  """Counts objects per image and by COCO's area ranges, without crowds.

  Returns:
    objects, crowds; least, median and most per image; small (below 32 x 32 pixels), medium and large
    (from 96 x 96); sides: the 5th, 50th and 95th percentile of the square roots of areas.
  """
  counts = [int((~crowd).sum()) for _, crowd in objects]
  areas = np.concatenate([pixels[~crowd] for pixels, crowd in objects])
  small, medium = int((areas < 32**2).sum()), int((areas < 96**2).sum())
  sides = np.percentile(np.sqrt(areas), (5, 50, 95)) if areas.size else np.zeros(3)
  return {
    'objects': len(areas),
    'crowds': int(sum(crowd.sum() for _, crowd in objects)),
    'least': min(counts),
    'median': float(np.median(counts)),
    'most': max(counts),
    'small': small,
    'medium': medium - small,
    'large': len(areas) - medium,
    'sides': [round(float(side), 1) for side in sides],
  }
