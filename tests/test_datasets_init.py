"""Every module of jaxseg.datasets is a dataset, and none needs JAX."""

import inspect
import subprocess
import sys

import pytest

from jaxseg.config import parts
from jaxseg.types import UserError


@pytest.mark.parametrize('name', parts.names('datasets'))
def test_a_dataset_keeps_the_contract(name):
  module = parts.load('datasets', name)
  assert len(module.CLASS_NAMES) == len(module.PALETTE) == (module.NUM_CLASSES or 0)
  assert set(module.SPLITS) & {'train', 'val', 'test'}
  split, *rest = inspect.signature(module.source).parameters.values()
  assert split.name == 'split' and {'data_dir', 'cache_dir'} <= {p.name for p in rest}
  assert all(p.kind == p.KEYWORD_ONLY and p.default is not p.empty for p in rest)
  with pytest.raises(
    UserError, match=f"^{name} has no split 'none': use one of {module.SPLITS[0]}"
  ):
    module.source('none')


def test_a_wrong_name_lists_the_right_ones():
  with pytest.raises(UserError, match="no dataset 'camvit': .*camvid.*did you mean 'camvid'"):
    parts.load('datasets', 'camvit')


def test_no_dataset_imports_jax():
  code = (
    'import sys; from jaxseg.config import parts; '
    "[parts.load('datasets', n) for n in parts.names('datasets')];"
    "print([m for m in ('jax', 'flax', 'tensorflow', 'torch') if m in sys.modules])"
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == '[]'
