"""Checks every label before the first step: invalid ids, void, classes that never occur.

JAX silently ignores labels outside the classes; a set of only void trains nothing at all. The counts
of stored records are cached by the source's identity, so that only a set's first run reads them.
"""

import hashlib
from typing import Any

import numpy as np

from jaxseg.data import cache
from jaxseg.data.problems import BadFiles, abbreviate
from jaxseg.data.source import file_name
from jaxseg.data.statistics import LabelHistogram, label_histogram
from jaxseg.types import UserError

_SHOWN = 6  # ids or classes in a line


def scan(source, *, cache_dir: str | None = None) -> LabelHistogram:
  """Returns a source's label histogram, from the cache if its records were counted before.

  Args:
    source: random access to examples; cached if it has `identity`.
    cache_dir: default $JAXSEG_CACHE, else ~/.cache/jaxseg.
  """
  identity = getattr(source, 'identity', None)
  if identity is None:
    return label_histogram(source)

  def count() -> dict[str, Any]:
    counts = vars(label_histogram(source, f'reading the labels of {source.name} {source.split}'))
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in counts.items()}

  key = hashlib.sha256(f'{identity}|{source.num_classes}'.encode()).hexdigest()[:16]
  fields = cache.cached(cache.cache_root(cache_dir) / 'label_scans' / f'{key}.json', count)
  invalid = {int(index): tuple(ids) for index, ids in fields.pop('invalid').items()}
  arrays = {k: np.asarray(v, np.int64) if isinstance(v, list) else v for k, v in fields.items()}
  return LabelHistogram(**arrays, invalid=invalid)


def check(*sources, cache_dir: str | None = None) -> list[str]:
  """Returns a line about each source's labels, to print at the start of training.

  Args:
    sources: random access to examples, with split, num_classes and class_names.
    cache_dir: see scan.

  Raises:
    UserError: ids outside the classes, naming the files, or only void.
  """
  lines = []
  for source in sources:
    histogram = scan(source, cache_dir=cache_dir)
    if histogram.invalid:
      raise BadFiles(invalid_files(source, histogram))
    if not histogram.counts.any():
      raise UserError(
        f'all labels of {source.split} are void (255): nothing can be learnt or scored; '
        'masks of 0 and 255 need two classes (see the folder dataset)'
      )
    absent = [n for n, count in zip(source.class_names, histogram.counts, strict=True) if not count]
    never = f', never present: {abbreviate(absent, _SHOWN)}' if absent else ''
    lines.append(f'{source.split}: {histogram.void_share:.1%} void{never}')
  return lines


def invalid_files(source, histogram: LabelHistogram) -> list[str]:
  """Returns a line for each file with ids that are neither a class nor void."""
  return [
    f'{source.split}: {file_name(source, i)}: label ids {abbreviate(ids, _SHOWN)} are not among the {source.num_classes} '
    f'classes (0..{source.num_classes - 1}, 255 is void)'
    for i, ids in histogram.invalid.items()
  ]
