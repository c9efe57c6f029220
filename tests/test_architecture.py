"""Who may import whom, read from the syntax trees: the table of CONTRIBUTING.md."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# module -> what it may import inside jaxseg, besides itself; the longest prefix rules. A module that
# is not here is a job that a launcher calls: it may import everything, and nothing here imports it.
PARTS = ('types', 'config', 'layers', 'losses', 'metrics', 'datasets', 'pipeline', 'preprocessing')
STEPS = (
  'train.state',
  'train.step',
  'train.parallel',
  'train.optim',
  'train.checkpoint',
  'train.writer',
)
WRITERS = ('train.checkpoint', 'train.writer')
ALLOWED = {
  'types': (),
  'storage': (),
  'config': ('types',),
  'command': ('types',),
  'layers': ('types',),
  'losses': ('types',),
  'detection': ('types',),
  'metrics': ('types',),
  'preprocessing': ('types',),
  'datasets': ('types', 'storage', 'pipeline.ahead'),
  'pipeline': ('types',),
  'backbones': ('types', 'layers'),
  'models': ('types', 'backbones', 'layers', 'detection'),
  'tasks': ('types', 'losses', 'metrics'),
  'train.hosts': ('types', 'command'),
  'train.workdir': ('types', 'storage', 'config'),
  'train.step': ('types', 'layers', 'train.state'),
  'train.events': ('storage',),
  'train.spatial': ('types', 'layers', 'train.parallel', 'train.state', 'train.step'),
  **{step: ('types',) for step in STEPS if step not in ('train.step', *WRITERS)},
  'train.parallel': ('types', 'layers'),
  **{writer: ('types', 'storage', 'train.events') for writer in WRITERS},
  'pretrained': ('types', 'models', 'preprocessing'),
  'visualize': ('types', 'models'),
  'experiment': (
    'types',
    'datasets',
    'layers',
    'models',
    'pipeline',
    'preprocessing',
    'pretrained',
    'tasks',
    *STEPS,
  ),
  'testtime': ('types', 'pipeline', 'train.step'),
  'imagefiles': ('types', 'storage', 'datasets'),
}
WITHOUT_JAX = (
  'types',
  'storage',
  'config',
  'command',
  'datasets',
  'pipeline',
  'preprocessing',
  'imagefiles',
)


def module_name(path: Path) -> str:
  parts = path.relative_to(ROOT / 'jaxseg').with_suffix('').parts
  return '.'.join(p for p in parts if p != '__init__')


def imports(path: Path) -> set[str]:
  """Returns the full names of everything that a file imports."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def rule_of(module: str) -> str | None:
  rules = [k for k in ALLOWED if module == k or module.startswith(k + '.')]
  return max(rules, key=len, default=None)


MODULES = {module_name(p): p for p in sorted((ROOT / 'jaxseg').rglob('*.py'))}


@pytest.mark.parametrize('module', [m for m in MODULES if rule_of(m)])
def test_imports_follow_the_table(module):
  rule = rule_of(module)
  inside = {i.removeprefix('jaxseg.') for i in imports(MODULES[module]) if i.startswith('jaxseg.')}
  for name in inside:
    allowed = any(name == a or name.startswith(a + '.') for a in (*ALLOWED[rule], rule) if a)
    assert allowed, f'jaxseg/{module} may not import jaxseg.{name}'


@pytest.mark.parametrize('module', [m for m in MODULES if m.split('.')[0] in WITHOUT_JAX])
def test_data_and_configs_do_not_know_jax(module):
  foreign = {i.split('.')[0] for i in imports(MODULES[module])} & {
    'jax',
    'flax',
    'optax',
    'tensorflow',
  }
  assert not foreign, f'jaxseg/{module} imports {foreign}'


def test_tensorflow_is_imported_nowhere():
  for path in ROOT.rglob('*.py'):
    if not path.is_relative_to(ROOT / 'build'):
      assert not {i.split('.')[0] for i in imports(path)} & {'tensorflow', 'clu'}, path


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')), ids=lambda p: p.stem)
def test_configs_import_configs_only(path):
  assert {i.rsplit('.', 1)[0] for i in imports(path)} <= {'jaxseg.config', 'ml_collections'}


@pytest.mark.parametrize('path', sorted((ROOT / 'launch').glob('*.py')), ids=lambda p: p.stem)
def test_launchers_hold_no_logic(path):
  """Flags in, one call: main is short, and nothing branches or loops."""
  tree = ast.parse(path.read_text(encoding='utf-8'))
  functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
  assert [f.name for f in functions] == ['main']
  assert functions[0].end_lineno - functions[0].lineno < 45
  assert not [n for n in ast.walk(functions[0]) if isinstance(n, (ast.For, ast.While, ast.Try))]
