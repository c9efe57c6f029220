"""Who may import whom, read from the syntax trees: every module stands on one floor, and nothing points back."""

import ast
import functools
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Floors from the ground up. A room may import rooms on floors below its own, and itself; a name with
# a dot is a room of its own inside a package. CONTRIBUTING.md shows the same table in words.
FLOORS = (
  ('types', 'files'),
  ('console', 'config'),
  ('losses', 'nn', 'data', 'draw'),
  ('metrics', 'models', 'datasets', 'fetch'),
  ('tasks', 'pretrained'),
  ('train.state', 'train.accumulate', 'train.step', 'train.devices', 'train'),
  ('predict', 'prepare'),
  ('report', 'export', 'tools'),
  ('commands', '__init__', '__main__'),
)
# On one floor, but one above the other.
_STEP = ('train.state', 'train.accumulate')
ALSO = {
  'files': ('types',),
  'train.step': _STEP,
  'train.devices': (*_STEP, 'train.step'),
  'train': (*_STEP, 'train.step', 'train.devices'),
  'prepare': ('predict',),
  '__main__': ('commands',),
}
WITHOUT_JAX = ('types', 'files', 'console', 'config', 'data', 'draw', 'datasets', 'fetch')
JAX = {'jax', 'flax', 'optax', 'orbax'}
MAX_LINES, MAX_FUNCTION, MAX_LOOSE, MAX_FLOORS = 350, 60, 6, 9


def module_name(path: Path) -> str:
  parts = path.relative_to(ROOT / 'jaxseg').with_suffix('').parts
  return '.'.join(p for p in parts if p != '__init__') or '__init__'


MODULES = {module_name(p): p for p in sorted((ROOT / 'jaxseg').rglob('*.py'))}
TREES = {name: ast.parse(path.read_text(encoding='utf-8')) for name, path in MODULES.items()}


@functools.cache
def imports(tree: ast.AST) -> set[str]:
  """Returns the full names of everything that is imported, at the top or lazily."""
  names = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def inside(module: str) -> set[str]:
  """Returns the modules of jaxseg that a module imports."""
  names = (i.removeprefix('jaxseg.') for i in imports(TREES[module]) if i.startswith('jaxseg.'))
  targets = {n if n in MODULES else n.rpartition('.')[0] or '__init__' for n in names}
  return targets - {module}


def room_of(module: str) -> str | None:
  rooms = [r for floor in FLOORS for r in floor if module == r or module.startswith(f'{r}.')]
  return max(rooms, key=len, default=None)


def floor_of(room: str) -> int:
  return next(i for i, floor in enumerate(FLOORS) if room in floor)


def test_every_module_has_a_floor_and_imports_only_from_below():
  for module in MODULES:
    room = room_of(module)
    assert room, f'jaxseg/{module}: say on which floor it stands'
    for other in inside(module):
      theirs = room_of(other)
      allowed = theirs == room or theirs in ALSO.get(room, ()) or floor_of(theirs) < floor_of(room)
      allowed |= other == '__init__'  # jaxseg.__version__
      assert allowed, f'jaxseg/{module} may not import jaxseg.{other}'


@functools.cache
def defined(tree: ast.Module) -> set[str]:
  """Returns every name that a module has at its top."""
  names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
  for node in tree.body:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
      names.add(node.name)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
      names |= {alias.asname or alias.name.split('.')[0] for alias in node.names}
  return names


def test_what_is_imported_is_there_lazily_too():
  for module, tree in TREES.items():
    for name in (n.removeprefix('jaxseg.') for n in imports(tree) if n.startswith('jaxseg.')):
      home, _, last = name.rpartition('.')
      there = name in MODULES or last in defined(TREES[home or '__init__'])
      assert there, f'jaxseg/{module}: {name}'


def test_no_module_imports_in_a_circle():
  graph = {m: {i for i in inside(m) if i != '__init__'} for m in MODULES if m != '__init__'}
  try:
    tuple(TopologicalSorter(graph).static_order())
  except CycleError as error:
    pytest.fail(' -> '.join(error.args[1]))


def test_a_start_waits_for_no_library_that_it_may_not_need():
  heavy = (
    'scipy.ndimage scipy.special scipy.optimize scipy.sparse tifffile matplotlib jinja2 pandas'
  )
  code = (
    'import sys, jaxseg.predict.evaluate, jaxseg.predict.job, jaxseg.report, jaxseg.train.train;'
    "from jaxseg.config import parts; parts.load('datasets', 'folder'); parts.load('datasets', 'shapes');"
    f'print([m for m in {heavy.split()} if m in sys.modules])'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == '[]'


def test_data_and_configs_do_not_know_jax():
  for module in (m for m in MODULES if m.split('.')[0] in WITHOUT_JAX):
    assert not {i.split('.')[0] for i in imports(TREES[module])} & JAX, module


def test_tensorflow_is_imported_nowhere():
  for folder in ('jaxseg', 'configs', 'launch', 'examples', 'tests'):
    for path in (ROOT / folder).rglob('*.py'):
      text = path.read_text(encoding='utf-8')
      names = imports(ast.parse(text)) if re.search(r'\b(tensorflow|clu)\b', text) else ()
      assert not {i.split('.')[0] for i in names} & {'tensorflow', 'clu'}, path


def test_a_file_and_a_function_are_short():
  for module, path in MODULES.items():
    length = len(path.read_text(encoding='utf-8').splitlines())
    assert length <= MAX_LINES, f'jaxseg/{module} has {length} lines: is it one idea?'
    for node in ast.walk(TREES[module]):
      if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        lines = node.end_lineno - node.lineno + 1
        assert lines <= MAX_FUNCTION, f'jaxseg/{module}: {node.name} has {lines} lines'


def test_few_modules_lie_loose_and_the_floors_are_few():
  assert len(list((ROOT / 'jaxseg').glob('*.py'))) <= MAX_LOOSE
  assert len(FLOORS) <= MAX_FLOORS


def mentions(module: str, *names: str) -> bool:
  """Whether a module imports one of these names, or asks for the task of this name."""
  return any(i.split('.')[-1] in names for i in imports(TREES[module])) or any(
    isinstance(node, ast.Constant) and node.value in names for node in ast.walk(TREES[module])
  )


def test_only_the_builder_sees_a_config():
  assert {m for m in MODULES if mentions(m, 'ConfigDict')} <= {'config', 'train.build'}


def test_a_task_is_named_by_itself_alone():
  """What differs between tasks is asked of the task, never by its name."""
  assert {m for m in MODULES if mentions(m, 'instance', 'semantic')} <= {
    'config',
    'config.flat',
    'tasks.instance',
    'tasks.semantic',
  }


def test_a_score_or_dataset_is_never_asked_for_its_name():
  """Nothing compares a headline or a dataset with a word."""
  for module, tree in TREES.items():
    for node in ast.walk(tree):
      if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute):
        words = isinstance(node.comparators[0], (ast.Constant, ast.Tuple, ast.List, ast.Set))
        asked = node.left.attr in ('headline', 'dataset', 'task') and words
        assert not asked, f'jaxseg/{module}:{node.lineno}'


def test_configs_import_configs_only():
  for path in (ROOT / 'configs').glob('*.py'):
    names = imports(ast.parse(path.read_text(encoding='utf-8')))
    assert {i.rsplit('.', 1)[0] for i in names} <= {'jaxseg.config', 'ml_collections'}, path


COMMANDS = sorted(m for m in MODULES if m.startswith('commands.'))


def test_commands_hold_no_logic():
  """Flags in, one call: main is short, and nothing branches or loops."""
  for module in COMMANDS:
    (main,) = (n for n in ast.walk(TREES[module]) if isinstance(n, ast.FunctionDef))
    assert main.name == 'main' and main.end_lineno - main.lineno < 45, module
    loops = [n for n in ast.walk(main) if isinstance(n, (ast.For, ast.While, ast.Try))]
    assert not loops, module


def test_every_command_has_a_launcher_that_is_nothing_else():
  launchers = {p.stem: ast.parse(p.read_text()) for p in (ROOT / 'launch').glob('*.py')}
  assert sorted(f'commands.{name}' for name in launchers) == COMMANDS
  for name, tree in launchers.items():
    about, importing, running = tree.body
    wanted = f"from jaxseg import commands\nif __name__ == '__main__':\n    commands.run({name!r})"
    assert '\n'.join(map(ast.unparse, (importing, running))) == wanted


# What else opens files for writing: records and programs of libraries, in folders that are published
# whole; the locks; and the kernel's own files.
WRITE_THEMSELVES = {
  'data.unpacking',
  'export.programs',
  'export.trial',
  'export.write',
  'train.claim',
  'tools.benchmark.footprint',
  'tools.benchmark.reading',
}


def writes_itself(node: ast.AST) -> bool:
  """Whether this is a call that opens or writes a file, and none of jaxseg.files."""
  if not isinstance(node, ast.Call):
    return False
  called = ast.unparse(node.func)
  if called.startswith('files.'):
    return False
  texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
  if called == 'open' or called.endswith('.open'):
    return any(set(text) <= set('rwxab+t') and set(text) & set('wxa+') for text in texts)
  return called.rpartition('.')[2] in (
    'write_text',
    'write_bytes',
    'open_memmap',
    'memmap',
    'tofile',
    'savez',
    'savez_compressed',
    'extractall',
    'imwrite',
    'mkstemp',
    'NamedTemporaryFile',
  )


def test_files_are_written_in_one_place():
  writers = {m for m, tree in TREES.items() if any(map(writes_itself, ast.walk(tree)))}
  assert {m for m in writers if m.split('.')[0] != 'files'} == WRITE_THEMSELVES


def test_nothing_is_unpickled_but_what_hosts_of_one_run_send():
  for module, tree in TREES.items():
    names = {i for i in imports(tree) if i.split('.')[0] in ('pickle', 'dill', 'joblib')}
    assert not names or module == 'train.devices.hosts', module


def test_what_a_terminal_shows_is_escaped_in_one_place():
  """Names that others gave must not command a terminal; export.check answers its parent in JSON."""
  for module in MODULES.keys() - {'console.speaking'}:
    called = {ast.unparse(n.func) for n in ast.walk(TREES[module]) if isinstance(n, ast.Call)}
    prints = called & {'print', 'sys.stdout.write', 'sys.stderr.write', 'traceback.print_exc'}
    assert not prints - ({'print'} if module == 'export.check' else set()), module
    assert not {i for i in imports(TREES[module]) if i.split('.')[0] == 'rich'}, module
