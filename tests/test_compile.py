"""Programs for TPU slices that are not there: what is read from the compiler's text, and one real compilation."""

import contextlib
import dataclasses
import importlib.util
import json
import re
import shutil
import types

import jax
import pytest

from jaxseg import config
from jaxseg.config.config_files import baselines
from jaxseg.tools import examples, slices
from jaxseg.tools.benchmark import ours
from jaxseg.tools.compile import account, program, session, table, unfinished
from jaxseg.train import build
from jaxseg.types import UserError
from tests.test_launch import ROOT, launch

TEXT = """\
HloModule jit_step

%fused (p: bf16[8,16,16,64]) -> bf16[8,16,16,64] {
  %p = bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)} parameter(0)
  ROOT %relu = bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)} maximum(%p, %p)
}

ENTRY %main (x: bf16[8,16,16,64]) -> bf16[8,16,16,64] {
  %x = bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)} parameter(0)
  %a = bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/jvp(Model)/down_0/conv_general_dilated"}, backend_config={"estimated_cycles":"1000"}
  %y = (bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)S(1)}, u32[]) copy-start(%a)
  %z = bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)S(1)} copy-done(%y)
  ROOT %b = bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)} select-and-scatter(%a, %z), metadata={op_name="jit(step)/transpose(jvp(Model))/cond/branch_1_fun/select_and_scatter"}
}
"""


def test_an_account_of_a_program_by_hand():
  conv, pool = account.operations(TEXT)  # neither what a fusion holds nor what runs beside it
  assert (conv.kind, conv.layer, conv.cycles) == ('fusion', 'down_0 conv_general_dilated', 1000)
  # 64 channels fill half of a tile of 8 x 128; of the operands one lies in the core's own memory.
  assert (pool.kind, pool.cycles) == ('select-and-scatter', None)
  assert pool.bytes == 2 * 8 * 16 * 16 * 128 * 2
  assert pool.layer == 'select_and_scatter, backward'
  chip = slices.Chip(flops=1e12, memory=1, bandwidth=1e6, clock=1e3)
  assert (conv.estimate(chip), pool.estimate(chip)) == (1000, pool.bytes / 1000)


def test_slices_by_name():
  names = ('v5e-1', 'v5e-8', 'v4-8', 'v5e-256')
  found = [slices.slice_of(name) for name in names]
  assert [(s.chips, s.hosts, s.shape) for s in found] == [
    (1, 1, '1x1'),
    (8, 1, '2x4'),
    (4, 1, '2x2x1'),
    (256, 64, '16x16'),
  ]
  assert slices.slice_of('v5e-8').busy(12) == 6
  # 4 images keep 4 of 8 chips busy, as a v5e-4 has; 6 chips are no slice, nor half a v4-8.
  parts = [slices.slice_of('v5e-8').part(4), slices.slice_of('v5e-8').part(6)]
  parts.append(slices.slice_of('v4-8').part(2))
  assert [part.name for part in parts] == ['v5e-4', 'v5e-8', 'v4-8']
  with pytest.raises(UserError, match=r'--topology=v5e-7: choose one of v4-8, '):
    slices.slice_of('v5e-7')


def result(**changes) -> program.Result:
  values = dict(
    slice='v5e-8',
    mode='train',
    batch=8,
    chips=8,
    size=(32, 48),
    needed_bytes=3 << 30,
    flops=197e9,
    cycles=3e6,
    unestimated_cycles=3e5,
    layers={'conv': 2e6},
    exchanged={'all-reduce': 1 << 20},
    compile_seconds=5.0,
    num_steps=900_000,
  )
  return program.Result(**values | changes)


def test_what_is_said_of_a_program_by_hand():
  assert list(program.report(result(), 1.5)) == [  # 3 M cycles at 1.5 GHz are 2 ms
    'train: 8 x 32x48 on 8 of the chips of v5e-8 (compiled in 5 s)',
    'memory    3.00 of 16 GiB a chip: fits',
    "time      2.00 ms, 3.00 M cycles (the compiler's estimate; 10% of it bounded by bytes)",
    'work      197.0 GFLOP a chip, 50.0% of its peak in bfloat16 (estimated)',
    'training  900,000 steps: 0.5 hours (estimated), 6.00 for all chips',
    'exchanged all-reduce 1.00 MiB',
    'dearest layers, in M cycles (estimated):',
    '      2.00   67%  conv',
  ]
  quick = list(program.report(result(cycles=None, unestimated_cycles=None, layers={}), 1.5))
  assert quick[2:] == ['work      197.0 GFLOP a chip', 'exchanged all-reduce 1.00 MiB']
  said = list(program.report(result(mode='eval', num_steps=None, needed_bytes=17 << 30)))
  assert said[1].endswith('GiB a chip: does not fit') and not any('hours' in line for line in said)


def test_sizes_of_the_baselines_need_no_data(monkeypatch, tmp_path):
  monkeypatch.setenv('JAXSEG_DATA', str(tmp_path))
  sizes = {
    spec: examples.training_size(build.experiment(config.load(spec))) for spec, _ in baselines()
  }
  assert sizes['configs/fcn_voc2011.py:8s'] == (500, 500)  # whole images: the largest
  assert sizes['configs/segnet_camvid.py'] == (360, 480)
  assert sizes['configs/unet_isbi2012.py'] == (572, 572)
  assert sizes['configs/mask_rcnn_coco.py'] == (800, 1344)


SPECS = ['configs/unet_shapes.py:smoke', 'configs/unet_shapes.py', 'configs/fcn_camvid.py:smoke']


@pytest.fixture
def compiler(monkeypatch):
  """A compiler that keeps what it is asked for; v6e's chips are too small for everything."""
  asked = []

  class Lowered:
    num_steps = 900_000

    def __init__(self, experiment, rented, mode, size, *, memory_only, flops):
      self.memory_only = memory_only
      self.about = (experiment.name, rented.name, mode)
      self.rented, self.mode, self.size = rented, mode, size
      self.digest, self.taken = f'of {experiment.name}', rented

    def compile(self):
      asked.append(self.about)
      if self.rented.kind == 'v6e':
        raise program.OutOfMemory('it needs 40G')
      changes = {} if self.mode == 'train' else {'num_steps': None, 'needed_bytes': 17 << 30}
      if self.memory_only:
        changes |= dict(cycles=None, unestimated_cycles=None, layers={})
      figures = result(slice=self.rented.name, mode=self.mode, size=self.size, **changes)
      return program.Compiled(figures, '')

  def traced(*target, **options):
    return contextlib.nullcontext(Lowered(*target, **options))

  monkeypatch.setattr(table, 'traced', traced)
  monkeypatch.setattr(table, '_compiler', lambda: 'jax 1, libtpu 2')
  monkeypatch.setattr(table.topology, 'prepare', lambda: None)
  monkeypatch.setattr(table, 'baselines', lambda: [(SPECS[0], '')])
  return asked


def wanted(*names, modes=('train',)):
  return table.Scope([slices.slice_of(name) for name in names], modes, size=(32, 48))


def keep(shown):
  return lambda name, head, rows: shown.append([list(row) for row in rows])


def test_a_table_goes_on_where_it_ended(tmp_path, compiler):
  some, shown = wanted('v5e-8', 'v6e-8', 'v5e-256'), []
  for _ in range(2):
    table.fill(some, str(tmp_path / 'rows.json'), None, keep(shown))
  # 256 chips have 64 hosts, which cannot share 8 images
  assert [name for _, name, _ in compiler] == ['v5e-8', 'v6e-8']
  empty = [[['`unet_shapes:smoke`', 'train', 'not run', *[''] * 7]]] * 3
  numbers = ['8 x 32x48', '8', '3.00 of 16', 'yes', '197', '2.0', '50%', '0.5']
  told = ['it needs 40G', 'refused: 64 hosts cannot share 8 images']
  full = [[['`unet_shapes:smoke`', 'train', *numbers]]]
  full += [[['`unet_shapes:smoke`', 'train', words, *[''] * 7]] for words in told]
  assert shown == empty + full + full  # the second call compiles nothing and shows it once


def test_rows_are_a_line_each_and_of_one_set_of_flags(tmp_path, compiler):
  file, shown = tmp_path / 'rows.json', []
  table.fill(wanted('v5e-8', modes=('train', 'eval')), str(file), None, keep(shown))
  lines = file.read_text().splitlines()
  assert (lines[0], lines[-1]) == ('[', ']') and len(lines) == 4
  rows = json.loads(file.read_text())
  assert [row['mode'] for row in rows] == ['eval', 'train']  # sorted, whatever came first
  assert {row['changes'] for row in rows} == {'--crop=32,48'}
  assert shown[-1][1][4:6] == ['17.00 of 16', 'no'] and shown[-1][1][-1] == '-'
  others = table.Scope([slices.slice_of('v5e-8')], ('train',), ('dtype=bfloat16',), (32, 48))
  table.fill(others, str(file), 0, keep(shown))
  assert shown[-1] == [['`unet_shapes:smoke`', 'train', 'not run', *[''] * 7]]


def test_no_time_compiles_nothing_and_needs_no_compiler(monkeypatch, compiler):
  def absent():
    raise UserError('no compiler')

  monkeypatch.setattr(table.topology, 'prepare', absent)
  shown = []
  table.fill(wanted('v5e-8'), None, 0, keep(shown))
  assert len(shown) == 1 and not compiler


def test_a_config_with_the_program_of_another_takes_its_figures(tmp_path, compiler):
  file, shown = tmp_path / 'rows.json', []
  table.fill(wanted('v5e-8'), str(file), None, keep(shown))
  rows = json.loads(file.read_text())
  rows[0]['config'] = 'configs/unet_shapes.py:other'
  file.write_text(json.dumps(rows))
  table.fill(wanted('v5e-8'), str(file), None, keep(shown))
  assert len(compiler) == 1  # the same digest: not compiled again
  first, second = json.loads(file.read_text())
  assert first == second | {'config': 'configs/unet_shapes.py:other'}


def test_rows_without_estimates_are_made_whole_by_a_call_that_estimates(tmp_path, compiler):
  file, shown = str(tmp_path / 'rows.json'), []
  some = wanted('v5e-8', modes=('train', 'eval'))
  quick = dataclasses.replace(some, memory_only=True)
  for _ in range(2):  # the second finds nothing missing
    table.fill(quick, file, None, keep(shown))
  assert len(compiler) == 2
  assert [row[4:] for row in shown[-1]] == [
    ['3.00 of 16', 'yes', '197', '-', '-', '-'],
    ['17.00 of 16', 'no', '197', '-', '-', '-'],
  ]
  table.fill(some, file, None, keep(shown))
  assert len(compiler) == 4 and shown[-1][0][4:] == [
    '3.00 of 16',
    'yes',
    '197',
    '2.0',
    '50%',
    '0.5',
  ]
  table.fill(quick, file, None, keep(shown))  # what is known stays known
  assert len(compiler) == 4 and shown[-1] == shown[-2]


def test_operations_are_counted_once_for_all_slices(tmp_path, compiler, monkeypatch):
  found, traced = [], table.traced
  count = lambda *target, flops, **how: found.append(flops) or traced(*target, flops=flops, **how)  # noqa: E731
  monkeypatch.setattr(table, 'traced', count)
  table.fill(wanted('v5e-8', 'v4-8', modes=('train', 'eval')), None, None, keep([]))
  assert found == [None, None, 8 * 197e9, 8 * 197e9]  # of the same mode, on all eight chips


def test_every_file_has_its_turn_before_any_has_a_second():
  assert table.interleave(['a.py:x', 'a.py', 'a.py:y', 'b.py', 'c.py', 'c.py:z']) == [
    'a.py:x',
    'b.py',
    'c.py',
    'a.py',
    'c.py:z',
    'a.py:y',
  ]


def test_configs_with_the_same_in_all_columns_share_a_row(compiler, monkeypatch):
  monkeypatch.setattr(table, 'baselines', lambda: [(spec, '') for spec in SPECS])
  shown = []
  table.fill(wanted('v5e-8', modes=('train', 'eval')), None, 0, keep(shown))
  configs = '`unet_shapes:smoke`, `unet_shapes`, `fcn_camvid:smoke`'
  assert shown == [[[configs, 'train, eval', 'not run', *[''] * 7]]]


def test_one_baseline_alone_is_compiled(compiler, monkeypatch):
  monkeypatch.setattr(table, 'baselines', lambda: [(spec, '') for spec in SPECS])
  one, shown = dataclasses.replace(wanted('v5e-8'), only=SPECS[1]), []
  table.fill(one, None, None, keep(shown))
  assert len(compiler) == 1
  assert [row[0] for row in shown[-1]] == [
    '`unet_shapes`',
    '`unet_shapes:smoke`, `fcn_camvid:smoke`',
  ]
  with pytest.raises(UserError, match='--config=other.py is none of --all: choose one of configs/'):
    table.fill(dataclasses.replace(one, only='other.py'), None, None, keep(shown))


@pytest.mark.parametrize(('busy', 'kind'), [(6, UserError), (8, jax.errors.JaxRuntimeError)])
def test_what_the_compiler_refuses_of_a_part_of_a_slice_is_one_line(busy, kind):
  def refuse(compiler_options):
    raise jax.errors.JaxRuntimeError('INTERNAL: RET_CHECK failure')

  rented = slices.slice_of('v5e-8')
  wrapper = types.SimpleNamespace(devices=range(busy), options={})
  workload = types.SimpleNamespace(wrapper=wrapper)
  asked = types.SimpleNamespace(compile=refuse)
  words = 'net: the compiler refuses 6 of 8 chips: take a --batch' if busy < 8 else 'RET_CHECK'
  with pytest.raises(kind, match=words):
    program.Lowered('net:', workload, asked, rented, rented, 'train').compile()


@pytest.mark.parametrize(
  ('name', 'mode', 'given'),
  [('v5e-8', 'train', True), ('v5e-8', 'eval', True), ('v5e-8', 'predict', False)]
  + [('v5e-256', 'train', False)],  # pmap over several hosts takes none
)
def test_a_program_gets_the_options_that_it_is_run_with(name, mode, given):
  found, rented = {}, slices.slice_of(name)
  workload = types.SimpleNamespace(
    wrapper=types.SimpleNamespace(devices=range(8), options={'a': 1})
  )

  def compiled(compiler_options):
    found.update(compiler_options)
    raise jax.errors.JaxRuntimeError('INTERNAL')

  asked = types.SimpleNamespace(compile=compiled)
  lowered = program.Lowered('net:', workload, asked, rented, rented.part(8), mode)
  with pytest.raises((UserError, jax.errors.JaxRuntimeError)):
    lowered.compile()
  assert found.pop('xla_dump_to')
  assert found == ({'a': 1} if given else {})


def test_another_json_file_is_not_taken_for_a_table(tmp_path, compiler):
  (tmp_path / 'one.json').write_text('{"slice": "v5e-8"}')
  with pytest.raises(UserError, match=r'one.json is no table of --all: name another file'):
    table.fill(wanted('v5e-8'), str(tmp_path / 'one.json'), None, keep([]))


def test_the_tables_in_the_docs_are_those_of_the_committed_rows(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  page = tmp_path / 'tpu.md'
  shutil.copy('docs/tpu.md', page)
  written = page.read_text()
  command = next(line for line in written.splitlines() if 'docs/compiled.json' in line)
  flags = command.replace('--minutes=60', '--minutes=0').replace('docs/tpu.md', str(page)).split()
  launch('compile', *flags[2:])
  assert page.read_text() == written


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(spec=None), 'give --config=FILE, or --all'),
    (
      dict(spec=None, layers='each', memory_only=True),
      '--memory-only --layers=each: choose of ours, stock',
    ),
    (dict(spec='configs/unet_shapes.py', modes=('fly',)), '--mode=fly: choose of train, eval, '),
    (dict(spec='configs/unet_shapes.py', slices=('v4-8', 'v5e-8')), 'several of --topology'),
    (
      dict(spec='configs/unet_shapes.py', layers='thick'),
      '--layers=thick: choose of ours, stock, each',
    ),
  ],
)
def test_odd_options_are_one_line(options, message, monkeypatch):
  monkeypatch.setattr(session.topology, 'prepare', lambda: None)
  with pytest.raises(UserError, match=message):
    session.run(**{'slices': ('v5e-8',)} | options)


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr(session.topology.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"pip install 'jaxseg\[compile\]'"):
    session.run('configs/unet_shapes.py', slices=('v5e-8',))


def test_a_slice_that_an_older_compiler_does_not_know_is_one_line(monkeypatch):
  def unknown(**options):
    raise jax.errors.JaxRuntimeError('INVALID_ARGUMENT: 1x1')

  monkeypatch.setattr('jax.experimental.topologies.get_topology_desc', unknown)
  with pytest.raises(UserError, match='--topology=v5e-1: the libtpu .*1x1.*libtpu==0.0.52'):
    session.topology.devices(slices.slice_of('v5e-1'))


@pytest.mark.parametrize(
  ('name', 'bounds'),
  [('v5e-8', [2, 4, 1]), ('v6e-1', [1, 1, 1]), ('v4-8', [2, 2, 1]), ('v5e-256', None)],
)
def test_a_slice_of_one_host_is_asked_for_as_one(name, bounds, monkeypatch):
  def described(**options):
    assert options.get('chips_per_host_bounds') == bounds
    return types.SimpleNamespace(devices=['chip'])

  monkeypatch.setattr('jax.experimental.topologies.get_topology_desc', described)
  assert session.topology.devices(slices.slice_of(name)) == ['chip']


def test_rows_that_training_does_not_split_are_refused():
  split = ('parallel=mesh', 'mesh=data:1,spatial:2', 'batch_size=1')
  experiment = build.experiment(config.load('configs/fcn_voc2011.py:8s', split))
  with pytest.raises(UserError, match='images of 512 rows cannot be split over 2 devices'):
    ours.Workload(experiment, (512, 512), devices=jax.devices()[:2])


@pytest.mark.tpu
@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason='needs the extra `compile`')
@pytest.mark.parametrize(
  ('options', 'chips', 'exchanged'),
  [
    (('--topology=v5e-8',), 8, {'all-reduce'}),
    (('--topology=v5e-256', '--batch=256'), 256, {'all-reduce'}),
    (
      ('--topology=v4-8', '--config.parallel=mesh', '--config.mesh=data:2,spatial:2'),
      4,
      {'all-reduce', 'collective-permute'},
    ),
    (('--topology=v6e-8', '--mode=predict'), 8, set()),
  ],
)
def test_a_tiny_network_is_compiled_for_chips_that_are_not_there(
  tmp_path, options, chips, exchanged, capsys
):
  tiny = ('--config.model.width=4', '--config.model.depth=1', '--batch=8', '--crop=32,32')
  spec = 'configs/unet_shapes.py:smoke'
  launch('compile', f'--config={spec}', *tiny, *options, f'--json={tmp_path}/figures.json')
  figures = json.loads((tmp_path / 'figures.json').read_text())
  assert figures['chips'] == chips and set(figures['exchanged']) == exchanged
  assert figures['estimated'] and figures['cycles'] > 1000
  said = capsys.readouterr().out
  assert 'GiB a chip: fits' in said and "(the compiler's estimate" in said


@pytest.mark.tpu
@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason='needs the extra `compile`')
def test_memory_alone_is_that_of_the_whole_compilation_and_images_stay_whole(tmp_path):
  figures, sizes = {}, ('--batch=4', '--crop=32,32', '--topology=v5e-1', '--config.dtype=bfloat16')
  tiny = ('--config=configs/unet_shapes.py:smoke', '--config.model.width=4', *sizes)
  for name, flag in (('whole', ()), ('memory', ('--memory-only',))):
    files = (f'--json={tmp_path}/{name}.json', f'--program={tmp_path}/{name}.txt')
    launch('compile', *tiny, *flag, *files)
    figures[name] = json.loads((tmp_path / f'{name}.json').read_text())
  whole, memory = figures['whole'], figures['memory']
  assert whole['cycles'] > 1000 and memory['cycles'] is memory['seconds'] is None
  known = ('needed_bytes', 'flops', 'exchanged', 'size', 'chips')
  assert [memory[key] for key in known] == [whole[key] for key in known]
  # cut into strips, four images are convolved as 16 or 32
  text = (tmp_path / 'whole.txt').read_text()
  assert re.search(r'= bf16\[4,32,32,4\]\S* convolution', text)
  assert not re.search(r'= bf16\[(16|32),\d+,\d+,\d+\]\S* convolution', text)


def test_a_compiler_that_writes_nothing_is_one_line_and_its_errors_are_raised(tmp_path):
  class Silent:
    error = None

    def compile_into(self, folder):
      if self.error:
        raise self.error

  with pytest.raises(UserError, match='this libtpu does not write what it knows'):
    unfinished._laid_out(Silent(), tmp_path)
  Silent.error = program.OutOfMemory('it needs 40G')
  with pytest.raises(program.OutOfMemory, match='40G'):
    unfinished._laid_out(Silent(), tmp_path)


def test_files_of_the_compiler_are_read_when_they_are_whole(tmp_path):
  report, text = (
    tmp_path / 'm.memory-usage-report.txt',
    'm.after_optimizations_after_buffer_assignment.txt',
  )
  assert program.needed_bytes(tmp_path) is None and unfinished._program(tmp_path) == ''
  report.write_text('Memory Space: default (color=0)\nTotal bytes: 7197184 (6.86MiB)\n')
  (tmp_path / text).write_text(TEXT[: -len('\n}\n')])
  assert program.needed_bytes(tmp_path) == 7197184 and unfinished._program(tmp_path) == ''
  (tmp_path / text).write_text(TEXT)
  assert unfinished._program(tmp_path) == TEXT


def test_a_compiler_that_died_leaves_no_row(tmp_path, compiler, monkeypatch):
  def died(*target, **how):
    raise unfinished.Died('the compiler ended without an answer')

  monkeypatch.setattr(table, 'traced', died)
  with pytest.raises(UserError, match='without an answer'):
    table.fill(wanted('v5e-8'), str(tmp_path / 'rows.json'), None, keep([]))
  assert not (tmp_path / 'rows.json').exists()


@pytest.mark.parametrize(
  'fits, advice',
  [
    (dict(remat=True, accumulate=1, batch_size=8), 'it fits with --config.model.remat=True'),
    (dict(remat=False, accumulate=4, batch_size=8), 'it fits with --config.accumulate=4'),
    (dict(remat=False, accumulate=1, batch_size=2), 'it fits with --batch=2'),
    (None, 'nothing tried fits: take a smaller --crop, or split rows'),
  ],
)
def test_the_advice_is_the_first_change_with_which_it_compiles(fits, advice, monkeypatch):
  def traced(experiment, rented, mode, size, **options):
    settings = experiment.settings
    remat = experiment.config['model']['remat']
    given = dict(remat=remat, accumulate=settings.accumulate, batch_size=settings.batch_size)
    if given != fits:
      raise program.OutOfMemory('it needs 40G')
    made = types.SimpleNamespace(compile=lambda: program.Compiled(result(), ''))
    return contextlib.nullcontext(made)

  monkeypatch.setattr(session, 'traced', traced)
  monkeypatch.setattr(session.topology, 'prepare', lambda: None)
  with pytest.raises(UserError, match=f'it needs 40G; {advice}'):
    session.run('configs/unet_shapes.py:smoke', batch=8, size=(32, 32), slices=('v5e-1',))


@pytest.mark.slow
@pytest.mark.tpu
@pytest.mark.skipif(not importlib.util.find_spec('libtpu'), reason='needs the extra `compile`')
def test_what_does_not_fit_says_what_does():
  tiny = ('model.width=4', 'model.depth=1', 'model.remat=True')
  large = dict(batch=8, size=(2048, 2048), slices=('v5e-1',))
  with pytest.raises(
    UserError, match=r'needs [\d.]+G of the .* on a chip; it fits with --config.accumulate='
  ):
    session.run('configs/unet_shapes.py:smoke', tiny, **large)
