"""The cost of reading untrusted files safely: each reader alternates with a plain one of the same file.

The plain ones are the usual way to read trusted files: json.loads, Pillow, tarfile, safetensors.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image

from jaxseg import files
from jaxseg.console import say
from jaxseg.data import image_files, unpacking
from jaxseg.pretrained import readers
from jaxseg.tools import figures
from jaxseg.tools.benchmark import timing
from jaxseg.train import writer

_LINES, _OBJECTS, _SMALL, _IMAGES = 20_000, 20_000, 500, 20
_SIDE, _TENSORS = 480, 16  # pixels; arrays of 4 MiB
_FILES = ('metrics.jsonl', 'coco.json', 'a.txt', 'a.png', 'a.tar.gz', 'a.safetensors')

Pair = tuple[Callable[[], Any], Callable[[], Any]]


def run(trials: int = 5, json_file: str | None = None) -> dict[str, Any]:
  """Times all of `pairs`, and prints our time relative to the plain reader's.

  Args:
    trials: rounds, of which the median is taken.
    json_file: to write the result to.

  Returns:
    kind of file -> {'seconds': {'ours': ..., 'plain': ...}, 'ratio': ..., 'ratio_cpu': ...}.
  """
  figures.check_is_new(json_file)
  result = {}
  with tempfile.TemporaryDirectory() as folder:
    say('| read | plain, ms | ours / plain | in CPU time |', '|---' * 4 + '|')
    for name, (ours, plain) in pairs(Path(folder)).items():
      sides = {'ours': partial(_read, ours), 'plain': partial(_read, plain)}
      times = timing.alternate(sides, trials)
      wall, cpu = times['ours'].share_of(times['plain'])
      say(f'| {name} | {1000 * times["plain"].wall:.4g} | {wall:.2f} | {cpu:.2f} |')
      result[name] = timing.record(times, ('ours', 'plain'))
  figures.write(json_file, result)
  return result


def _read(reader: Callable[[], Any]) -> None:
  reader()


def pairs(folder: Path) -> dict[str, Pair]:
  """Creates files in a folder, and returns our and the plain reader of each, by kind."""
  log, outlines, small, image, packed, weights = (folder / name for name in _FILES)
  _make(folder)

  def unpacked(unpack: Callable[[Path], Any]) -> Callable[[], None]:
    def once() -> None:
      (folder / 'new').mkdir()
      unpack(folder / 'new')
      shutil.rmtree(folder / 'new')

    return once

  def plainly(target: Path) -> None:
    with tarfile.open(packed) as archive:
      archive.extractall(target, filter='data')

  return {
    f'a log of {_LINES:,} lines': (
      lambda: writer.read_records(folder),
      lambda: [json.loads(line) for line in log.read_text().splitlines()],
    ),
    f'JSON of {outlines.stat().st_size >> 20} MiB, as of COCO': (
      lambda: files.read_json(outlines),
      lambda: json.loads(outlines.read_text()),
    ),
    f'{_SMALL} small files': (
      lambda: [files.read_text(small) for _ in range(_SMALL)],
      lambda: [small.read_text() for _ in range(_SMALL)],
    ),
    f'a PNG of {_SIDE} x {_SIDE}': (
      lambda: image_files.read_image(image),
      lambda: np.asarray(Image.open(image).convert('RGB')),
    ),
    f'a .tar.gz of {_IMAGES} images': (
      unpacked(lambda target: unpacking.unpack(packed, target)),
      unpacked(plainly),
    ),
    f'{_TENSORS * 4} MiB of safetensors': (
      lambda: readers.read(weights),
      lambda: safetensors.numpy.load_file(weights),
    ),
  }


def _make(folder: Path) -> None:
  rng = np.random.default_rng(0)
  log, outlines, small, image, packed, weights = (folder / name for name in _FILES)
  names = ('train/loss', 'train/accuracy', 'learning_rate', 'eval/mean_iou', 'seconds')
  rows = (
    {'step': i, **dict(zip(names, rng.random(5).tolist(), strict=True))} for i in range(_LINES)
  )
  files.write_text(log, ''.join(json.dumps(row) + '\n' for row in rows))
  objects = [
    {'id': i, 'file_name': f'frame{i:06d}.png', 'segmentation': [(480 * rng.random(24)).tolist()]}
    for i in range(_OBJECTS)
  ]
  files.write_text(outlines, json.dumps({'annotations': objects}))
  files.write_text(small, 'a' * 1000)
  Image.fromarray(rng.integers(0, 32, (_SIDE, _SIDE, 3), np.uint8)).save(image)
  with tarfile.open(packed, 'w:gz', compresslevel=1) as archive:
    for i in range(_IMAGES):
      archive.add(image, f'images/{i}.png')
  tensors = {f'layer{i}.weight': rng.random((1024, 1024), np.float32) for i in range(_TENSORS)}
  safetensors.numpy.save_file(tensors, weights)
