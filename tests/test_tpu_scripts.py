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
  """Returns the words after `gcloud compute tpus` that a dry run prints, as a shell would read them."""
  done = call(*words, '--dry-run') if '--' not in words else call(words[0], '--dry-run', *words[1:])
  assert done.returncode == 0, done.stderr
  calls = [shlex.split(line) for line in done.stdout.splitlines()]
  assert all(c[:3] == ['gcloud', 'compute', 'tpus'] for c in calls if c[1] != 'alpha')
  assert all(c[-1] == '--zone=us-central2-b' for c in calls)
  return [c[1:-1] if c[1] == 'alpha' else c[3:-1] for c in calls]


LOOK = ['queued-resources', 'describe', 'seg', '--format=value(state.state)']


def verbs(calls: list[list[str]]) -> str:
  """Returns what is done, in a line: to the request in capitals, to the VM in small letters."""
  return ' '.join(c[1].upper() if c[0] == 'queued-resources' else c[1] for c in calls)


@pytest.mark.parametrize(
  'type_, accelerator, runtime',
  [
    ('v4-8', 'v4-8', 'tpu-ubuntu2204-base'),
    ('v5e-8', 'v5litepod-8', 'v2-alpha-tpuv5-lite'),
    ('v5e-256', 'v5litepod-256', 'v2-alpha-tpuv5-lite'),
    ('v6e-8', 'v6e-8', 'v2-alpha-tpuv6e'),
  ],
)
def test_create_asks_for_accelerator_and_runtime_and_waits(type_, accelerator, runtime):
  request = ['queued-resources', 'create', 'seg', '--node-id=seg']
  request += [f'--accelerator-type={accelerator}', f'--runtime-version={runtime}']
  assert printed('create', *WHERE, f'--type={type_}') == [[*request, '--async'], LOOK]
  flags = ['--spot', '--valid-until-duration=6h', '--async']
  assert printed('create', *WHERE, f'--type={type_}', '--spot', '--within=6') == [
    [*request, *flags],
    LOOK,
  ]


def test_create_takes_another_runtime_and_project():
  (request, _) = printed('create', '--project=p', *WHERE, '--type=v9-8', '--version=next')
  assert request[4:] == [
    '--accelerator-type=v9-8',
    '--runtime-version=next',
    '--async',
    '--project=p',
  ]


def test_flex_start_is_asked_of_the_preview_and_nothing_else_is():
  request, look = printed('create', *WHERE, '--type=v5e-8', '--flex=8')
  assert request[:5] == ['alpha', 'compute', 'tpus', 'queued-resources', 'create']
  assert request[-3:] == ['--provisioning-model=flex-start', '--max-run-duration=8h', '--async']
  assert look == LOOK


def test_install_copies_and_installs_on_all_workers():
  copy, install = printed('install', *WHERE)
  assert copy[:2] + copy[3:] == ['tpu-vm', 'scp', 'seg:jaxseg.tar.gz', '--worker=all']
  assert install[:4] == ['tpu-vm', 'ssh', 'seg', '--worker=all']
  assert 'pip install' in install[4] and 'jaxseg[tpu' in install[4]


def test_run_and_logs():
  ((*start, command),) = printed('run', *WHERE, '--', *PROGRAM)
  assert start == ['tpu-vm', 'ssh', 'seg', '--worker=all']
  assert command.startswith('--command=cd jaxseg && ')
  assert printed('logs', *WHERE, '--worker=3') == [
    ['tpu-vm', 'ssh', 'seg', '--worker=3', '--command=tail -n 100 -F jaxseg/run.log']
  ]


def test_resume_makes_the_vm_again_and_runs_the_same_command():
  calls = printed('resume', *WHERE, '--type=v4-8', '--spot', '--', *PROGRAM)
  assert verbs(calls) == 'DESCRIBE DELETE CREATE DESCRIBE scp ssh ssh'
  assert '--spot' in calls[2] and calls[-1:] == printed('run', *WHERE, '--', *PROGRAM)


def test_status_delete_and_stop():
  assert verbs(printed('status', *WHERE)) == 'DESCRIBE describe'
  assert printed('delete', *WHERE) == [
    ['queued-resources', 'delete', 'seg', '--force', '--quiet']
  ]  # the VM goes first; nothing is asked
  for flags, name in (([], 'TERM'), (['--kill'], 'KILL')):
    ((*_, command),) = printed('stop', *WHERE, *flags)
    assert command == f'--command=kill -{name} -- -$(cat jaxseg/run.pid)'


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
    (['create', *WHERE, '--type=v4-8', '--flex=long'], '--flex=long'),
    (['create', *WHERE, '--type=v4-8', '--flex=8', '--spot'], 'give one'),
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


# Each look at a request moves it one state on, up to what `becomes` says.
GCLOUD = """#!/bin/bash
cd "$HOME"
test "$3" = queued-resources && word=${4^^} || word=$4
echo "$word" >> calls
case $word in
  DESCRIBE)
    cat request 2> /dev/null
    case $(cat request 2> /dev/null) in
      WAITING_FOR_RESOURCES) cat becomes > request ;;
      PROVISIONING) echo ACTIVE > request; echo READY > node ;;
    esac ;;
  CREATE) echo WAITING_FOR_RESOURCES > request ;;
  DELETE) rm -f request node ;;
  describe) cat node ;;
  scp) if test -e refuses; then rm refuses; exit 1; fi ;;
  ssh)
    for word; do case $word in --command=*) command=${word#*=} ;; esac; done
    case $command in tar*) mkdir -p jaxseg; touch jaxseg.installed ;; *) bash -c "$command" ;; esac ;;
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
  (tmp_path / 'becomes').write_text('PROVISIONING\n')
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


def test_install_takes_no_file_of_another_and_leaves_none(cloud):
  (cloud / 'request').write_text('ACTIVE\n')
  (cloud / 'jaxseg.tar.gz').write_text('mine')
  before = {path.name for path in cloud.iterdir()}
  done = on(cloud, 'install', *WHERE)
  assert done.returncode == 0, done.stderr
  assert (cloud / 'jaxseg.tar.gz').read_text() == 'mine'
  assert not [path.name for path in cloud.iterdir() if path.name.startswith('tmp.')], before


MADE = 'CREATE DESCRIBE DESCRIBE DESCRIBE scp ssh ssh'  # waiting, provisioning, active


@pytest.mark.parametrize(
  'request_, node, calls',
  [
    ('ACTIVE', 'READY', 'DESCRIBE describe ssh ssh'),
    ('ACTIVE', 'PREEMPTED', f'DESCRIBE describe DELETE {MADE}'),
    ('SUSPENDED', None, f'DESCRIBE DELETE {MADE}'),
    (None, None, f'DESCRIBE {MADE}'),
  ],
)
def test_resume_does_what_the_states_ask_for(cloud, request_, node, calls):
  (cloud / 'jaxseg').mkdir()
  (cloud / 'jaxseg' / 'ended').touch()
  (cloud / 'jaxseg.installed').touch()
  for name, state in (('request', request_), ('node', node)):
    if state:
      (cloud / name).write_text(f'{state}\n')
  done = on(cloud, 'resume', *WHERE, '--type=v4-8', '--every=1', '--', *PROGRAM)
  assert done.returncode == 0, done.stderr
  assert (cloud / 'calls').read_text().split()[: len(calls.split())] == calls.split()


def test_a_vm_without_the_program_gets_it_before_the_run(cloud):
  for name, state in (('request', 'ACTIVE'), ('node', 'READY')):
    (cloud / name).write_text(f'{state}\n')
  done = on(cloud, 'resume', *WHERE, '--type=v4-8', '--', *PROGRAM)
  assert done.returncode == 0, done.stderr
  assert (cloud / 'calls').read_text().split() == 'DESCRIBE describe ssh scp ssh ssh'.split()


def test_a_request_that_still_waits_is_left_in_the_queue(cloud):
  (cloud / 'request').write_text('PROVISIONING\n')
  done = on(cloud, 'resume', *WHERE, '--type=v4-8', '--', *PROGRAM)
  assert done.returncode == 1 and 'seg is PROVISIONING: not ready yet' in done.stdout
  assert (cloud / 'calls').read_text().split() == ['DESCRIBE']


def test_create_tells_the_states_and_ends_with_a_request_that_failed(cloud):
  done = on(cloud, 'create', *WHERE, '--type=v4-8', '--every=1')
  assert done.returncode == 0, done.stderr
  assert [line.split()[-1] for line in done.stdout.splitlines()] == [
    'WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE'
  ]  # fmt: skip
  assert on(cloud, 'status', *WHERE).stdout == 'request: ACTIVE, VM: READY\n'
  (cloud / 'becomes').write_text('FAILED\n')
  done = on(cloud, 'create', *WHERE, '--type=v4-8', '--every=1')
  assert done.returncode == 1 and 'ended FAILED' in done.stderr


def test_the_first_connections_may_be_refused(cloud):
  (cloud / 'refuses').touch()
  done = on(cloud, 'install', *WHERE, '--every=1')
  assert done.returncode == 0 and 'again in 1 seconds' in done.stderr
  assert (cloud / 'calls').read_text().split() == ['scp', 'scp', 'ssh']


def test_stop_ends_all_processes_of_the_run(cloud):
  (cloud / 'jaxseg').mkdir()
  child = subprocess.Popen(['sleep', '60'], start_new_session=True)
  (cloud / 'jaxseg' / 'run.pid').write_text(f'{child.pid}\n')
  assert on(cloud, 'stop', *WHERE).returncode == 0
  assert child.wait(10) == -signal.SIGTERM


def test_resume_every_goes_on_until_the_run_has_finished(cloud):
  (cloud / 'jaxseg').mkdir()
  (cloud / 'jaxseg.installed').touch()
  for name, state in (('request', 'ACTIVE'), ('node', 'READY')):
    (cloud / name).write_text(f'{state}\n')
  (cloud / 'jaxseg' / 'ended').touch()
  done = on(cloud, 'resume', *WHERE, '--type=v4-8', '--every=1', '--', *PROGRAM)
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
