"""launch/tpu_vm.sh and launch/slurm.sh: what they would call, and what they do with stand-ins for it."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / 'launch' / 'tpu_vm.sh'
WHERE = ('--name=seg', '--zone=us-central2-b')
PROGRAM = (
  'python',
  'launch/train.py',
  '--config.augment.crop.size=(360, 480)',
  "--workdir=gs://b/it's $HOME",
)


def call(*words: str, **environment: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [str(SCRIPT), *words],
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    timeout=60,
    stdin=subprocess.DEVNULL,
  )


def printed(*words: str) -> list[list[str]]:
  """Returns the words of every call that a dry run prints, as a shell would read them."""
  done = call(*words, '--dry-run') if '--' not in words else call(words[0], '--dry-run', *words[1:])
  assert done.returncode == 0, done.stderr
  calls = [shlex.split(line) for line in done.stdout.splitlines()]
  assert all(c[:4] == ['gcloud', 'compute', 'tpus', 'tpu-vm'] for c in calls)
  assert all(c[-1] == '--zone=us-central2-b' for c in calls)
  return [c[4:-1] for c in calls]


@pytest.mark.parametrize(
  'type_, accelerator, runtime',
  [
    ('v4-8', 'v4-8', 'tpu-ubuntu2204-base'),
    ('v5e-8', 'v5litepod-8', 'v2-alpha-tpuv5-lite'),
    ('v5e-256', 'v5litepod-256', 'v2-alpha-tpuv5-lite'),
    ('v6e-8', 'v6e-8', 'v2-alpha-tpuv6e'),
  ],
)
def test_create_names_accelerator_and_runtime(type_, accelerator, runtime):
  flags = [f'--accelerator-type={accelerator}', f'--version={runtime}']
  assert printed('create', *WHERE, f'--type={type_}') == [['create', 'seg', *flags]]
  assert printed('create', *WHERE, f'--type={type_}', '--spot') == [
    ['create', 'seg', *flags, '--spot']
  ]


def test_create_takes_another_runtime_and_project():
  (call_,) = printed('create', '--project=p', *WHERE, '--type=v9-8', '--version=next')
  assert call_ == ['create', 'seg', '--accelerator-type=v9-8', '--version=next', '--project=p']


def test_install_copies_and_installs_on_all_workers():
  copy, install = printed('install', *WHERE)
  assert copy[:1] + copy[2:] == ['scp', 'seg:jaxseg.tar.gz', '--worker=all']
  assert install[:3] == ['ssh', 'seg', '--worker=all']
  assert 'pip install' in install[3] and 'jaxseg[tpu' in install[3]


def test_run_and_logs():
  ((*start, command),) = printed('run', *WHERE, '--', *PROGRAM)
  assert start == ['ssh', 'seg', '--worker=all'] and command.startswith('--command=cd jaxseg && ')
  assert printed('logs', *WHERE, '--worker=3') == [
    ['ssh', 'seg', '--worker=3', '--command=tail -n 100 -F jaxseg/run.log']
  ]


def test_resume_makes_the_vm_again_and_runs_the_same_command():
  calls = printed('resume', *WHERE, '--type=v4-8', '--spot', '--', *PROGRAM)
  assert [c[0] for c in calls] == ['describe', 'delete', 'create', 'scp', 'ssh', 'ssh']
  assert '--spot' in calls[2] and calls[-1:] == printed('run', *WHERE, '--', *PROGRAM)


def test_delete_asks_nothing():
  assert printed('delete', *WHERE) == [['delete', 'seg', '--quiet']]


@pytest.mark.parametrize(
  'words, says',
  [
    ([], 'no command'),
    (['start'], "no command 'start'"),
    (['create', '--zone=z', '--type=v4-8'], '--name=NAME'),
    (['delete', '--name=seg'], '--zone=ZONE'),
    (['create', *WHERE], '--type=TYPE'),
    (['create', *WHERE, '--type=v9-8', '--dry-run'], '--version=RUNTIME'),
    (['run', *WHERE], 'a command after --'),
    (['run', *WHERE, 'python', 'launch/train.py'], "no flag 'python'"),
    (['resume', *WHERE, '--type=v4-8', '--every=soon', '--', 'x'], '--every=soon'),
  ],
)
def test_a_mistake_is_one_line(words, says):
  done = call(*words)
  assert done.returncode == 2 and not done.stdout
  (line,) = done.stderr.splitlines()
  assert line.startswith('error: ') and says in line


def test_help_and_a_missing_gcloud(tmp_path):
  done = call('--help')
  assert done.returncode == 0 and 'resume' in done.stdout
  for word in ('bash', 'sed'):
    (tmp_path / word).symlink_to(shutil.which(word))
  done = call('delete', *WHERE, PATH=str(tmp_path))
  assert done.returncode == 2 and 'gcloud is not installed' in done.stderr


GCLOUD = """#!/bin/bash
echo "$4" >> "$HOME/calls"
case $4 in
  describe) cat "$HOME/state" 2> /dev/null ;;
  create) echo READY > "$HOME/state" ;;
  delete) rm "$HOME/state" ;;
  ssh)
    for word; do case $word in --command=*) command=${word#*=} ;; esac; done
    case $command in tar*) mkdir -p "$HOME/jaxseg" ;; *) cd "$HOME" && bash -c "$command" ;; esac ;;
esac
"""
PYTHON = """#!/bin/bash
printf '%s\\n' "$@" > args
test -f ended
"""


@pytest.fixture
def cloud(tmp_path) -> Path:
  """A folder that stands for the cloud: its only machine's home, and a gcloud that reaches it."""
  scripts = {'bin/gcloud': GCLOUD, 'jaxseg-venv/bin/python': PYTHON}
  for name, text in scripts.items():
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)
  return tmp_path


def on(cloud: Path, *words: str) -> subprocess.CompletedProcess:
  path = f'{cloud}/bin:{os.environ["PATH"]}'
  return call(*words, HOME=str(cloud), PATH=path, TMPDIR=str(cloud))


def wait_for(path: Path, seconds: float = 30) -> str:
  end = time.monotonic() + seconds
  while not path.exists() or not path.read_text():
    assert time.monotonic() < end, f'{path} does not come'
    time.sleep(0.05)
  return path.read_text()


def test_the_workers_get_the_words_as_they_were_given(cloud):
  (cloud / 'jaxseg').mkdir()
  done = on(cloud, 'run', *WHERE, '--', *PROGRAM)
  assert done.returncode == 0, done.stderr
  assert wait_for(cloud / 'jaxseg' / 'run.status') == '1\n'  # as the stand-in ended
  assert (cloud / 'jaxseg' / 'args').read_text().splitlines() == list(PROGRAM[1:])
  assert (cloud / 'jaxseg' / 'run.pid').exists() and (cloud / 'jaxseg' / 'run.log').exists()


def test_a_command_that_is_running_is_left_alone(cloud):
  (cloud / 'jaxseg').mkdir()
  (cloud / 'jaxseg' / 'run.pid').write_text(f'{os.getpid()}\n')
  done = on(cloud, 'run', *WHERE, '--', *PROGRAM)
  assert done.returncode == 0 and 'running already' in done.stdout
  assert not (cloud / 'jaxseg' / 'args').exists()


@pytest.mark.parametrize(
  'state, calls',
  [
    ('READY', 'describe ssh'),
    ('PREEMPTED', 'describe delete create scp ssh ssh'),
    (None, 'describe create scp ssh ssh'),
  ],
)
def test_resume_does_what_the_state_asks_for(cloud, state, calls):
  (cloud / 'jaxseg').mkdir()
  if state:
    (cloud / 'state').write_text(f'{state}\n')
  done = on(cloud, 'resume', *WHERE, '--type=v4-8', '--', *PROGRAM)
  assert done.returncode == 0, done.stderr
  assert (cloud / 'calls').read_text().split() == calls.split()
  wait_for(cloud / 'jaxseg' / 'run.status')


def test_resume_every_goes_on_until_the_run_has_finished(cloud):
  (cloud / 'jaxseg').mkdir()
  (cloud / 'state').write_text('READY\n')
  words = ('resume', *WHERE, '--type=v4-8', '--every=1', '--', *PROGRAM)
  (cloud / 'jaxseg' / 'ended').touch()
  done = on(cloud, *words)
  assert done.returncode == 0 and 'the run has finished' in done.stdout


SRUN = """#!/bin/bash
printf '%s\\n' "$@" > args
trap 'echo TERM > signal; exit 0' TERM
touch started
while true; do sleep 0.05; done
"""


@pytest.mark.parametrize('sent, queued', [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_slurm_forwards_the_signal_and_queues_the_job_again(tmp_path, sent, queued):
  stands = {'srun': SRUN, 'scontrol': '#!/bin/bash\necho "$@" > requeued\n'}
  for name, text in stands.items():
    (tmp_path / name).write_text(text)
    (tmp_path / name).chmod(0o755)
  environment = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'SLURM_JOB_ID': '77'}
  script = subprocess.Popen(
    ['bash', str(ROOT / 'launch' / 'slurm.sh'), '--config=c.py', '--workdir=a b'],
    env={**os.environ, **environment, 'SLURM_SUBMIT_DIR': str(tmp_path)},
  )
  try:
    end = time.monotonic() + 30
    while not (tmp_path / 'started').exists():
      assert time.monotonic() < end
      time.sleep(0.05)
    script.send_signal(sent)
    assert script.wait(30) == 0
  finally:
    script.kill()
  assert (tmp_path / 'signal').read_text() == 'TERM\n'
  assert (tmp_path / 'args').read_text().splitlines()[-3:] == [
    'launch/train.py', '--config=c.py', '--workdir=a b'
  ]  # fmt: skip
  assert (tmp_path / 'requeued').exists() == queued
  if queued:
    assert (tmp_path / 'requeued').read_text() == 'requeue 77\n'


def test_slurm_without_flags():
  done = subprocess.run(
    ['bash', str(ROOT / 'launch' / 'slurm.sh')], capture_output=True, text=True, timeout=30
  )
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
