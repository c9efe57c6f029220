"""Good files of every kind that a stranger may have written, and what reads them; for tests/fuzz.py."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxseg import files
from jaxseg.data import records, unpacking
from jaxseg.data.source import DatasetInfo
from jaxseg.pretrained import convert, readers
from jaxseg.report import runs
from jaxseg.train.build import load_experiment
from jaxseg.train.run_folder import load_classes
from jaxseg.train.writer import read_log
from jaxseg.types import UserError
from tests import test_data_unpacking as packed
from tests import test_pretrained_caffe_file as caffe
from tests import test_pretrained_torch_file as torch
from tests.tiny_runs import CLASSES, make_experiment

Made = tuple[list[Path], Callable[[], Any]]
RNG = np.random.default_rng(0)
TENSORS = {
  f'layer{i}.0.{name}': RNG.normal(size=shape).astype(np.float32)
  for i in range(1, 4)
  for name, shape in {'weight': (4, 3, 3, 3), 'bias': (4,), 'running_mean': (4,)}.items()
}


def _weights(path: Path) -> Made:
  def read() -> Mapping[str, np.ndarray]:
    tensors = readers.read(path)
    with contextlib.suppress(UserError):  # names of no known network
      convert(tensors)
    return tensors

  return [path], read


def _torch_tree() -> Any:
  return torch.ordered_dict(
    {
      name: torch.tensor(
        torch.storage('FloatStorage', name, value.size),
        0,
        value.shape,
        tuple(stride // 4 for stride in value.strides),
      )
      for name, value in TENSORS.items()
    }
  )


def _torch_zip(folder: Path) -> Made:
  storages = {name: value.tobytes() for name, value in TENSORS.items()}
  return _weights(torch.write_zip(folder / 'w.pth', _torch_tree(), storages))


def _torch_legacy(folder: Path) -> Made:
  storages = {name: (value.size, value.tobytes()) for name, value in TENSORS.items()}
  return _weights(torch.write_legacy(folder / 'w.pth', _torch_tree(), storages))


def _safetensors(folder: Path) -> Made:
  from safetensors.numpy import save_file

  save_file(TENSORS, folder / 'w.safetensors')
  return _weights(folder / 'w.safetensors')


def _keras(folder: Path) -> Made:
  import h5py

  with h5py.File(folder / 'w.h5', 'w') as file:
    file.attrs['layer_names'] = [f'conv{i}'.encode() for i in range(3)]
    for i in range(3):
      group = file.create_group(f'conv{i}')
      group.attrs['weight_names'] = [f'conv{i}/kernel:0'.encode()]
      options = dict(chunks=True, compression='gzip') if i else {}
      group.create_dataset(f'conv{i}/kernel:0', data=RNG.normal(size=(3, 3, 4, 4)), **options)
  return _weights(folder / 'w.h5')


def _caffe(folder: Path) -> Made:
  layers = {f'conv{i}': [RNG.normal(size=(4, 3, 3, 3)), RNG.normal(size=4)] for i in range(3)}
  layers = {
    name: [caffe.blob(v, packed=bool(i)) for i, v in enumerate(b)] for name, b in layers.items()
  }
  (folder / 'w.caffemodel').write_bytes(caffe.net(layers, v1=False))
  return _weights(folder / 'w.caffemodel')


def _run(folder: Path) -> Made:
  """Every text file of a workdir: what evaluation, prediction and reports read of it."""
  experiment = make_experiment('augment.flip=True', 'augment.crop.size=16,16')
  result = {
    'split': 'val',
    'step': 2,
    'images': 3,
    'mode': '',
    'mean_iou': 0.5,
    'pixel_accuracy': 0.7,
  }
  result |= {'per_class_iou': dict.fromkeys(CLASSES.names, 0.5), 'confusion': [[5, 1, 0, 2]] * 4}
  facts = {'started': 'x', 'git': 'abc', 'versions': {'jax': '1'}, 'sessions': [{'git': 'abc'}]}
  lines = [{'step': i, 'train/loss': 1 / (i + 1), 'eval/mean_iou': 0.1 * i} for i in range(5)]
  (folder / 'eval').mkdir()
  texts = {
    'config.json': json.dumps(experiment.config),
    'classes.json': json.dumps({'names': CLASSES.names, 'palette': CLASSES.palette}),
    'run.json': json.dumps(facts),
    'eval/val.json': json.dumps(result),
    'metrics.jsonl': '\n'.join(map(json.dumps, lines)),
  }
  for name, text in texts.items():
    files.write_text(folder / name, text)

  def read() -> None:
    load_classes(folder)
    read_log(folder)
    load_experiment(folder)
    run = runs.collect(folder)
    assert run.seconds >= 0 and isinstance(run.headline, dict) and run.environment

  return [folder / name for name in texts], read


def _records(folder: Path) -> Made:
  raw = folder / 'raw'
  raw.mkdir()
  for name in ('a', 'b'):
    Image.fromarray(RNG.integers(0, 256, (9, 8, 3), np.uint8)).save(raw / f'{name}.png')
    Image.fromarray(RNG.integers(0, 3, (9, 8), np.uint8)).save(raw / f'{name}_mask.png')
  raws = [records.Raw(raw / f'{n}.png', raw / f'{n}_mask.png', n) for n in ('a', 'b')]
  facts = DatasetInfo('tiny', ('a', 'b', 'c'), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
  table = {i: i for i in range(3)}
  read_one = partial(records.read_ids, table=table)
  path = records.open_source(facts, 'train', raws, read_one, cache_dir=folder / 'cache').path

  def read() -> None:
    source = records.open_source(facts, 'train', raws, read_one, cache_dir=folder / 'cache')
    for index in range(len(source)):
      example = source[index]
      assert example['image'].ndim == 3 and source.size(index) == source.label(index).shape
      assert isinstance(source.file_name(index), str)

  return sorted(p for p in path.iterdir() if p.is_file()), read


def _archive(name: str, folder: Path) -> Made:
  path = packed.good(folder / name)

  def read() -> None:
    shutil.rmtree(folder / 'new', ignore_errors=True)
    (folder / 'new').mkdir()
    unpacking.unpack(path, folder / 'new')

  return [path], read


KINDS: dict[str, Callable[[Path], Made]] = {
  'PyTorch zip': _torch_zip,
  'PyTorch legacy': _torch_legacy,
  'safetensors': _safetensors,
  'Keras HDF5': _keras,
  'Caffe': _caffe,
  'run folder (JSON)': _run,
  'records': _records,
  'tar.gz': partial(_archive, 'a.tar.gz'),
  'tar.xz': partial(_archive, 'a.tar.xz'),
  'tar': partial(_archive, 'a.tar'),
  'zip': partial(_archive, 'a.zip'),
}
