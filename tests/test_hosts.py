"""Several processes over loopback train as one does; the quick part here, the rest with -m slow.

    HOSTS_TABLE=docs/reliability.md pytest -m "slow or not slow" -n0 tests/test_hosts.py

renews the table of topologies in that file.
"""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg import console
from jaxseg.train import train
from jaxseg.train.devices import hosts, parallel
from jaxseg.types import UserError
from tests import documents
from tests.test_resume import saved

ROOT = Path(__file__).resolve().parent.parent
TINY = (
  'model.width=2',
  'model.depth=2',
  'model.batch_norm=True',
  'data.options.size=16',
  'data.options.count=6',  # a batch crosses the end of an epoch, an evaluation ends half full
  'augment.photometric.brightness=0.3',
  'augment.flip=True',
  'optim.name=sgd',  # Adam would make much of a rounding error in a gradient near 0
  'optim.learning_rate=0.1',
  'optim.warmup_steps=0',
  'optim.schedule=constant',
  'num_steps=3',
  'batch_size=4',
  'eval.every=3',
  'log.checkpoint_every=2',
  'log.every=1',
  'log.figures=0',
  'compile_cache=',
)


@dataclasses.dataclass(frozen=True)
class Topology:
  """So many processes with so many CPU devices each."""

  processes: int
  devices: int
  parallel: str
  mesh: str = ''

  def __str__(self) -> str:
    return f'{self.processes} x {self.devices}, {self.parallel}{self.mesh and f" {self.mesh}"}'


QUICK = Topology(2, 1, 'pmap')
SLOW = (
  Topology(2, 2, 'pmap'),
  Topology(2, 2, 'mesh'),
  Topology(4, 1, 'pmap'),
  Topology(4, 1, 'mesh'),
  Topology(2, 2, 'mesh', 'data:2,spatial:2'),
)
TABLE = 'HOSTS_TABLE'
ROWS: dict[str, str] = {}  # what was done -> what came of it


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return listener.getsockname()[1]


class Hosts:
  """The processes of one launcher's run; `flags` may differ by host."""

  def __init__(self, count: int, launcher: str, flags, devices: int, folder: Path):
    port, environment = (
      free_port(),
      {**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    environment |= {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': str(devices)}
    self.outputs = [folder / f'{launcher}.{port}.{i}.txt' for i in range(count)]
    self.processes = []
    for i, output in enumerate(self.outputs):
      joining = [f'--coordinator=127.0.0.1:{port}', f'--processes={count}', f'--process={i}']
      line = [sys.executable, str(ROOT / 'launch' / f'{launcher}.py'), *flags(i), *joining]
      with output.open('w') as file:
        kwargs = dict(env=environment, stdout=file, stderr=subprocess.STDOUT)
        self.processes.append(subprocess.Popen(line, **kwargs))

  def said(self, host: int) -> str:
    return self.outputs[host].read_text(encoding='utf-8', errors='replace')

  def wait_for(self, text: str, host: int = 0, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while text not in self.said(host):
      assert time.monotonic() < end and self.processes[host].poll() is None, self.said(host)
      time.sleep(0.1)

  def statuses(self, seconds: float = 400) -> list[int]:
    """Waits for all; none is left behind."""
    end = time.monotonic() + seconds
    try:
      return [p.wait(max(end - time.monotonic(), 1)) for p in self.processes]
    finally:
      for process in self.processes:
        process.kill()


def training(workdir: Path, *overrides: str, topology: Topology = QUICK, **by_host) -> Hosts:
  """Starts a training; `by_host` maps a host's number ('host1') to one more override."""
  keys = (*TINY, f'parallel={topology.parallel}', f'mesh={topology.mesh}', *overrides)
  keys = (*keys, f'cpu_devices={topology.devices}')

  def flags(host: int) -> list[str]:
    own = [by_host[f'host{host}']] if f'host{host}' in by_host else []
    settings = [f'--config.{key}' for key in (*keys, *own)]
    return [f'--config={ROOT}/configs/unet_shapes.py:smoke', f'--workdir={workdir}', *settings]

  workdir.parent.mkdir(parents=True, exist_ok=True)
  return Hosts(topology.processes, 'train', flags, topology.devices, workdir.parent)


def tiny(*overrides: str):
  return configs.load(f'{ROOT}/configs/unet_shapes.py:smoke', (*TINY, *overrides))


@pytest.fixture(scope='module')
def alone(tmp_path_factory) -> Path:
  """The same training by one process."""
  workdir = tmp_path_factory.mktemp('alone') / 'run'
  train.train(tiny(), workdir)
  return workdir


def scores(workdir: Path) -> dict[str, float]:
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return {k: v for line in lines for k, v in line.items() if k.startswith('eval/')}


def distance(a: Path, b: Path, step: int = 3) -> float:
  """Returns the largest max|a-b| / max(0.01, max|a|) of a leaf; the bound is 1e-5."""
  ours, theirs = saved(a, step), saved(b, step)
  assert ours.keys() == theirs.keys() and len(ours) > 20
  worst = 0.0
  for name, x in ours.items():
    gap = np.abs(x.astype(float) - theirs[name]).max(initial=0)
    worst = max(worst, float(gap / max(0.01, np.abs(x).max(initial=0))))
  return worst


def assert_as_one(alone: Path, workdir: Path) -> float:
  found = distance(alone, workdir)
  assert found <= 1e-5
  assert scores(workdir) == pytest.approx(scores(alone), abs=1e-3) and scores(alone)
  return found


def test_two_processes_train_as_one(alone, tmp_path):
  run = training(tmp_path / 'run', topology=QUICK)
  assert run.statuses() == [0, 0], run.said(0) + run.said(1)
  found = assert_as_one(alone, tmp_path / 'run')
  ROWS[f'{QUICK}, 3 steps and an evaluation'] = (
    f'parameters differ by at most {found:.1e} (bound 1e-5)'
  )
  assert 'on 2 hosts' in run.said(0) and 'step 3/3' in run.said(0)
  lines = [line for line in run.said(1).splitlines() if 'Gloo' not in line]
  assert not [line for line in lines if 'step' in line or 'evaluated' in line], run.said(1)


@pytest.mark.slow
@pytest.mark.parametrize('topology', SLOW, ids=str)
def test_topologies_train_as_one(alone, tmp_path, topology):
  run = training(tmp_path / 'run', topology=topology)
  assert set(run.statuses()) == {0}, run.said(0)
  found = assert_as_one(alone, tmp_path / 'run')
  ROWS[f'{topology}, 3 steps and an evaluation'] = (
    f'parameters differ by at most {found:.1e} (bound 1e-5)'
  )


@pytest.mark.slow
def test_two_hosts_share_the_population_pass(tmp_path):
  keys = ('eval.population_pass=True', 'num_steps=2', 'eval.every=2', 'data.options.count=5')
  train.train(tiny(*keys), tmp_path / 'alone')
  run = training(tmp_path / 'run', *keys)
  assert run.statuses() == [0, 0], run.said(0) + run.said(1)
  found = distance(tmp_path / 'alone', tmp_path / 'run', step=2)
  assert found <= 1e-5
  ROWS[f"{QUICK}, with SegNet's pass over the training set"] = (
    f'parameters and statistics differ by at most {found:.1e} (bound 1e-5)'
  )


@pytest.mark.slow
def test_two_hosts_end_in_time_and_without_patience_together(tmp_path):
  """A budget that is over at once leaves one step; scores that hardly change end the other run."""
  run = training(tmp_path / 'run', 'max_minutes=0.001', 'num_steps=50', 'eval.every=1')
  assert run.statuses() == [0, 0], run.said(0) + run.said(1)
  assert 'budget    1 of 50 steps' in run.said(0) and 'step 1/1' in run.said(0)
  train.train(tiny('num_steps=1', 'eval.every=1'), tmp_path / 'alone')
  assert distance(tmp_path / 'alone', tmp_path / 'run', step=1) <= 1e-5
  keys = ('eval.patience=1', 'num_steps=30', 'eval.every=1', 'optim.learning_rate=0')
  run = training(tmp_path / 'other', *keys)
  assert run.statuses() == [0, 0], run.said(0) + run.said(1)
  assert 'finished at step' in run.said(0)


@pytest.mark.slow
def test_a_run_of_two_hosts_goes_on_with_one(alone, tmp_path):
  """The second host's workdir is another, empty one: only the first host's is read or written."""

  def flags(host: int) -> list[str]:
    settings = [f'--config.{key}' for key in TINY]
    config = f'--config={ROOT}/configs/unet_shapes.py:smoke'
    return [config, f'--workdir={tmp_path}/run{host}', '--stop_at=2', *settings]

  run = Hosts(2, 'train', flags, 1, tmp_path)
  assert run.statuses() == [0, 0], run.said(0) + run.said(1)
  assert not (tmp_path / 'run1').exists()
  train.train(tiny(), tmp_path / 'run0')
  found = assert_as_one(alone, tmp_path / 'run0')
  ROWS['2 hosts for 2 steps, then resumed by one'] = (
    f'parameters differ by at most {found:.1e} (bound 1e-5)'
  )


@pytest.mark.slow
@pytest.mark.parametrize('host', [0, 1])
def test_sigterm_on_one_host_stops_all_at_one_step(tmp_path, capsys, host):
  many = ('num_steps=100000', 'eval.every=100000', 'log.checkpoint_every=100000')
  run = training(tmp_path / 'run', *many)
  run.wait_for('step 3/')
  run.processes[host].send_signal(signal.SIGTERM)
  assert run.statuses() == [0, 0], run.said(0) + run.said(1)
  step = int(run.said(0).split('stopped and saved at step ')[1].split(';')[0])
  assert [int(p.name) for p in (tmp_path / 'run' / 'checkpoints').iterdir()] == [step]
  train.train(tiny(*many), tmp_path / 'run', stop_at=step + 1)
  assert f'resumed at step {step}\n' in capsys.readouterr().out
  ROWS[f'SIGTERM on host {host} of 2'] = (
    'both stopped at one step with status 0; resumed from there'
  )


@pytest.mark.slow
def test_a_host_that_dies_ends_the_others(tmp_path, capsys):
  run = training(
    tmp_path / 'run', 'num_steps=100000', 'eval.every=100000', 'log.checkpoint_every=2'
  )
  run.wait_for('step 5/')
  run.processes[1].kill()
  assert run.statuses()[0] != 0  # and not a hang, which would be killed
  train.train(tiny('num_steps=100000'), tmp_path / 'run', stop_at=2)
  out = capsys.readouterr().out
  assert 'resumed at step' in out and 'trying the one before' not in out
  ROWS['kill -9 on host 1 of 2'] = (
    'the other ended by itself with an error, the last checkpoint whole'
  )


@pytest.mark.slow
def test_a_mistake_on_one_host_ends_all_with_its_line(tmp_path):
  run = training(tmp_path / 'bad', host1='data.options.count=0')
  assert run.statuses() == [2, 2], run.said(0) + run.said(1)
  assert 'error: host 1: ' in run.said(0) and 'error' not in run.said(1)
  run = training(tmp_path / 'seeds', host1='seed=1')
  assert run.statuses() == [2, 2], run.said(0) + run.said(1)
  assert 'host 1 has another command than host 0' in run.said(0)
  ROWS['a mistake, or another command, on host 1 of 2'] = (
    'both ended with status 2, host 0 told why'
  )


@pytest.mark.slow
def test_hosts_of_different_numbers_of_devices(tmp_path):
  run = training(tmp_path / 'run', host1='cpu_devices=2')
  assert run.statuses() == [2, 2], run.said(0) + run.said(1)
  assert 'error: host 1 has 2 devices and host 0 has 1: give every host the same' in run.said(0)
  assert 'Traceback' not in run.said(0) + run.said(1) and not (tmp_path / 'run').exists()
  ROWS['1 device on host 0, 2 on host 1'] = 'both ended with status 2, host 0 told why'


@pytest.mark.slow
def test_ctrl_c_on_one_host_stops_all(tmp_path):
  many = ('num_steps=100000', 'eval.every=100000', 'log.checkpoint_every=100000')
  run = training(tmp_path / 'run', *many)
  run.wait_for('step 3/')
  run.processes[1].send_signal(signal.SIGINT)
  assert run.statuses() == [0, 130], run.said(0) + run.said(1)
  step = int(run.said(0).split('stopped and saved at step ')[1].split(';')[0])
  assert [int(p.name) for p in (tmp_path / 'run' / 'checkpoints').iterdir()] == [step]
  ROWS['Ctrl-C on host 1 of 2'] = 'both stopped at one step and saved, that host with status 130'


@pytest.mark.slow
def test_two_hosts_evaluate_every_image_once(alone, tmp_path):
  run = Hosts(2, 'evaluate', lambda host: [f'--workdir={alone}', '--split=test'], 1, tmp_path)
  assert run.statuses() == [0, 0], run.said(0) + run.said(1)
  file = alone / 'eval' / 'test.json'
  both = json.loads(file.read_text())
  from jaxseg.predict.evaluate import evaluate_workdir

  one = evaluate_workdir(alone, split='test')
  assert np.sum(both['confusion']) == np.sum(one['confusion']) > 0
  np.testing.assert_allclose(both['confusion'], one['confusion'], atol=2)
  ROWS['2 hosts, launch/evaluate.py'] = (
    'every image counted once: the confusion matrix of one process'
  )


def test_a_vote_reaches_every_device():
  def step(state, batch, key):
    return state, {'loss': jax.lax.psum(batch['x'].sum(), 'data')}

  wrapper = parallel.build('pmap', '', 8)
  voting = wrapper.wrap_train(hosts.make_voting_step(step, 'data'))
  for stop in (False, True):
    batch = hosts.vote({'x': np.ones(8, np.float32), 'image': np.zeros(8, np.uint8)}, stop)
    placed = wrapper.place_batch(batch)
    _, metrics = voting(wrapper.place_state(np.float32(0)), placed, jax.random.key(0))
    assert float(metrics['loss']) == 8 and float(metrics[hosts.STOP]) == 8 * stop


def test_every_host_gives_the_same_number_of_devices():
  def devices(*counts):
    return [SimpleNamespace(process_index=h, id=i) for h, n in enumerate(counts) for i in range(n)]

  def chosen(counts, batch_size, count=None):
    found = parallel._chosen_devices(devices(*counts), batch_size, count)
    return [(d.process_index, d.id) for d in found]

  assert chosen((4, 4), 6) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
  assert chosen((4, 2), 8) == [(0, 0), (0, 1), (1, 0), (1, 1)]
  assert chosen((2, 2), 2, 4) == [(0, 0), (0, 1), (1, 0), (1, 1)]
  for counts, batch_size, count in (((4, 4), 5, None), ((4, 4), 8, 3), ((4, 2), 8, 6)):
    with pytest.raises(UserError, match='hosts'):
      chosen(counts, batch_size, count)


def test_every_host_needs_as_many_devices_as_the_others():
  def devices(*counts):
    return [SimpleNamespace(process_index=h) for h, n in enumerate(counts) for _ in range(n)]

  hosts._check_devices(devices(2, 2, 2))
  with pytest.raises(
    hosts.SharedError, match=r'host 1 has 1 devices and host 0 has 4: .*devices=1'
  ):
    hosts._check_devices(devices(4, 1, 4))


@pytest.mark.parametrize(
  'given, says',
  [
    (dict(processes=2), '--coordinator=HOST:PORT'),
    (dict(process=1), '--coordinator=HOST:PORT'),
    (dict(coordinator='10.0.0.2', processes=2, process=0), 'give HOST:PORT'),
    (dict(coordinator='10.0.0.2:x', processes=2, process=0), 'give HOST:PORT'),
    (dict(coordinator='10.0.0.2:80'), '--processes=N and --process=I'),
    (dict(coordinator='10.0.0.2:80', processes=2, process=2), 'must be 0..processes-1'),
  ],
)
def test_flags_that_do_not_belong_together(given, says):
  with pytest.raises(UserError, match=says.replace('.', r'\.')), hosts.join(**given):
    pass


def test_a_host_whose_others_do_not_come():
  code = (
    'from jaxseg import console\n'
    'from jaxseg.train.devices import hosts\n'
    f'console.run(hosts.join("127.0.0.1:{free_port()}", 2, 0, timeout=1).__enter__)\n'
  )
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  done = subprocess.run(
    [sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 2
  last = done.stderr.splitlines()[-1]
  assert last.startswith('error: --coordinator=127.0.0.1:') and '2 processes have not met' in last


def test_what_a_host_says_at_its_end(capsys):
  assert console.report_error(UserError('two\nlines')) == 2
  assert capsys.readouterr().err == 'error: two lines\n'
  assert console.report_error(UserError('x'), quiet=True) == 2 and not capsys.readouterr().err
  assert (
    console.report_error(ValueError('a bug')) == 1
    and 'ValueError: a bug' in capsys.readouterr().err
  )
  lost = jax.errors.JaxRuntimeError('Gloo AllGather failed: Connection closed by peer [10.0.0.3]:5')
  assert hosts._tell(lost) == 1
  assert 'start the same command on all hosts again' in capsys.readouterr().err


def test_one_host_has_all_of_it():
  with hosts.join(), hosts.together() as same:
    same['x'] = 1
  tree = {'a': np.arange(3)}
  assert hosts.broadcast(tree) is tree and hosts.gather(tree['a']) is tree['a']
  assert hosts.share() == {'shard_index': 0, 'shard_count': 1} and hosts.is_first()


@pytest.mark.slow
def test_the_table_is_written():
  """Last in this file: by now every row is there, where all of it was run."""
  rows = [f'| {what} | {outcome} |' for what, outcome in ROWS.items()]
  if os.environ.get(TABLE):
    assert len(rows) == 15, 'the table needs all of this file, in one process'
  heading = (
    'Processes that talk over loopback, beside the same training by one process;\n'
    f'`{TABLE}=docs/reliability.md pytest -m "slow or not slow" -n0 tests/test_hosts.py`.\n'
  )
  head = '| processes x CPU devices | outcome |\n|---|---|'
  documents.renew(TABLE, 'Hosts', 'hosts', '\n'.join([heading, head, *rows]))


def test_the_table_is_in_the_documents():
  text = documents.section('hosts')
  assert all(f'| {topology}, ' in text for topology in (QUICK, *SLOW))
