"""Datasets are found by name, and the data folder by three rules."""

import subprocess
import sys

import pytest

from jaxseg import datasets
from jaxseg.types import UserError

NAMES = 'ade20k, camvid, cityscapes, coco, ctc, dsb2018, folder, isbi2012, lyft, pet, shapes, sunrgbd, voc'


def test_names_are_exactly_the_modules_with_a_source():
  assert datasets.names() == NAMES.split(', ')
  for name in datasets.names():
    module = datasets.load(name)
    for constant in ('NUM_CLASSES', 'CLASS_NAMES', 'PALETTE', 'SPLITS', 'CHANNELS'):
      assert hasattr(module, constant), (name, constant)
    assert len(module.CLASS_NAMES) == len(module.PALETTE) == (module.NUM_CLASSES or 0)
    assert callable(module.source)


def test_wrong_name_lists_the_right_ones():
  with pytest.raises(UserError, match="no dataset 'camvit', did you mean 'camvid'.* shapes"):
    datasets.load('camvit')
  with pytest.raises(UserError, match=NAMES):
    datasets.load('records')


def test_data_root(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXSEG_DATA', str(tmp_path))
  assert datasets.data_root() == tmp_path
  assert datasets.data_root(tmp_path.parent) == tmp_path.parent
  monkeypatch.delenv('JAXSEG_DATA')
  monkeypatch.setenv('HOME', str(tmp_path))
  with pytest.raises(UserError, match=r'no data folder .*jaxseg_data.*JAXSEG_DATA'):
    datasets.data_root()
  (tmp_path / 'jaxseg_data').mkdir()
  assert datasets.data_root() == tmp_path / 'jaxseg_data'


def test_no_dataset_imports_jax():
  code = (
    'import sys; from jaxseg import datasets; [datasets.load(n) for n in datasets.names()];'
    "print([m for m in ('jax', 'flax', 'tensorflow', 'torch') if m in sys.modules])"
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == '[]'
