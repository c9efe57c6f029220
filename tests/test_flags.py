"""Every --config flag that documents, docstrings and messages write down exists."""

import re
from pathlib import Path

import pytest

from jaxseg import config as configs
from jaxseg.config import parts
from jaxseg.data import transforms
from jaxseg.data.options import Data
from jaxseg.train.optim import Optim
from jaxseg.train.options import EvalOptions, InitOptions, LogOptions

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ('docs', 'configs', 'examples', 'launch', 'jaxseg')
FILES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']
FILES += sorted(
  path for f in FOLDERS for path in (ROOT / f).rglob('*') if path.suffix in ('.py', '.md', '.sh')
)
FLAG = re.compile(r'--config\.([a-z_]\w*(?:\.[a-z_]\w*)*)')
PLACEHOLDERS = {'key', 'config'}  # --config.key=value
LEFT_OUT = {  # options of runs in docs/results.md that gave nothing and are gone
  *('loss.label_smoothing', 'loss.focal_gamma', 'loss.ohem', 'loss.tversky', 'loss.lovasz'),
  'augment.cutout.side',
}


def options_of(group):
  """Returns the names of a group's options, of all parts that may receive it."""
  one = {'data': Data, 'optim': Optim, 'eval': EvalOptions, 'init': InitOptions, 'log': LogOptions}
  if group in one:
    return set(parts.parameters(one[group]))
  every = {'model': ('models', 'Model'), 'loss': ('tasks', 'Task')}
  package, name = every[group]
  classes = [getattr(parts.load(package, part), name) for part in parts.names(package)]
  return {option for cls in classes for option in parts.parameters(cls)} | {'name'}


def exists(flag):
  first, *path = flag.split('.')
  if first == 'augment' and path:
    transform = getattr(transforms, path[0].title().replace('_', ''), None)
    return transform is not None and set(path[1:]) <= set(parts.parameters(transform))
  if first in configs.GROUPS:
    return not path or path[0] in options_of(first)
  return not path and first in vars(configs.Settings())


def flags_of(path):
  text = path.read_text(encoding='utf-8')
  return {flag.rstrip('.') for flag in FLAG.findall(text)} - PLACEHOLDERS


@pytest.mark.parametrize('path', [p for p in FILES if flags_of(p)], ids=lambda p: p.name)
def test_flags_exist(path):
  gone = LEFT_OUT if path.name == 'results.md' else set()
  assert [flag for flag in sorted(flags_of(path) - gone) if not exists(flag)] == []
