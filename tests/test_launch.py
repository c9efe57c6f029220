"""The launchers through their command lines: every config's smoke run, evaluation, errors."""

import errno
import io
import json
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxseg
from jaxseg import console
from tests.test_configs import SMOKE

ROOT = Path(__file__).resolve().parent.parent


def launch(name: str, *flags: str) -> None:
  """Runs launch/<name>.py in this process; SystemExit carries its status."""
  before = sys.argv
  sys.argv = [f'launch/{name}.py', *flags]
  try:
    runpy.run_path(str(ROOT / 'launch' / f'{name}.py'), run_name='__main__')
  finally:
    sys.argv = before


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A workdir trained by the command line for a few steps."""
  workdir = tmp_path_factory.mktemp('trained')
  launch(
    'train',
    f'--config={ROOT}/configs/unet_shapes.py:smoke',
    f'--workdir={workdir}',
    '--config.num_steps=4',
    '--config.eval.every=2',
    '--config.log.every=2',
  )
  return workdir


# Those whose network, task and pipeline another config's run has too.
TWICE = (
  'mask_rcnn',  # tests/test_instance_launchers.py trains one
  'segnet_camvid.py:basic',
  'folder',
  'unet_isbi2012.py:nvidia',
  'pspnet_ade20k',
  'pspnet_cityscapes',
  'pspnet_voc2012',
  'fcn_pet',
  'fcn_voc2011',
  'unet_ctc',
  'unet_dsb2018',
  'unet_lyft',
  'segnet_sunrgbd',
)


@pytest.mark.parametrize(
  'spec',
  [pytest.param(spec, marks=pytest.mark.slow if spec.startswith(TWICE) else ()) for spec in SMOKE],
)
def test_every_smoke_config_trains(spec, tmp_path, capsys):
  launch(
    'train',
    f'--config={ROOT}/configs/{spec}',
    f'--workdir={tmp_path}',
    '--config.num_steps=2',
    '--config.eval.every=2',
    '--config.log.every=1',
    '--config.log.figures=1',
  )
  out = capsys.readouterr().out
  assert re.search(r'step 2/2 \. loss [\d.e+-]+ \. lr', out)
  records = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  losses = [r['train/loss'] for r in records if 'train/loss' in r]
  assert len(losses) == 2 and np.isfinite(losses).all()
  headline = 'mask_ap' if spec.startswith('mask_rcnn') else 'mean_iou'
  assert 0 <= records[-1][f'eval/{headline}'] <= 1


def test_evaluate_writes_the_numbers(trained, capsys):
  launch('evaluate', f'--workdir={trained}', '--split=test', '--step=2')
  result = json.loads((trained / 'eval' / 'test.json').read_text())
  confusion = np.array(result['confusion'])
  assert result['images'] == 16 and result['step'] == 2
  assert result['pixel_accuracy'] == pytest.approx(np.trace(confusion) / confusion.sum())
  assert set(result['per_class_iou']) == {'background', 'disc', 'square', 'triangle'}
  assert 'mean iou' in capsys.readouterr().out


def test_evaluate_takes_the_best_step_by_default(trained):
  launch('evaluate', f'--workdir={trained}')
  lines = [json.loads(line) for line in (trained / 'metrics.jsonl').read_text().splitlines()]
  scores = {r['step']: r['eval/mean_iou'] for r in lines if 'eval/mean_iou' in r}
  result = json.loads((trained / 'eval' / 'val.json').read_text())
  assert result['step'] == max(scores, key=scores.get)
  assert result['mean_iou'] == pytest.approx(scores[result['step']], abs=1e-6)


def test_load_predicts_any_size(trained):
  predictor = jaxseg.load(trained)
  image = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
  mask = predictor(image)
  assert mask.shape == (37, 51) and mask.dtype == np.uint8 and mask.max() < 4
  np.testing.assert_allclose(predictor.probabilities(image).sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize(
  ('name', 'flags', 'message'),
  [
    ('train', ['--workdir=/tmp/x'], 'required: --config'),
    ('train', ['--config=configs/nothing.py', '--workdir=/tmp/x'], 'no config file'),
    ('train', ['--config=CONFIG:smok', '--workdir=/tmp/x'], "did you mean 'smoke'"),
    ('train', ['--config=CONFIG', '--workdir=/tmp/x', '--config.lr=1'], "unknown config key 'lr'"),
    ('train', ['--config=CONFIG', '--workdir=/tmp/x', '--confg.lr=1'], 'unrecognized arguments'),
    (
      'train',
      ['--config=CONFIG', '--workdir=NEW', '--config.model=unett'],
      'unet',
    ),
    (
      'train',
      ['--config=CONFIG', '--workdir=NEW', '--config.model.widht=3'],
      'config.model.widht',
    ),
    ('train', ['--config=CONFIG', '--workdir=NEW', '--config.data.name=shape'], 'shapes'),
    (
      'train',
      ['--config=CONFIG', '--workdir=NEW', '--config.num_classes=5'],
      '--config.num_classes=4',
    ),
    ('train', ['--config=CONFIG', '--workdir=NEW', '--config.augment.crop.size=30,30'], '28 or 32'),
    (
      'train',
      [f'--config={ROOT}/configs/segnet_camvid.py', '--workdir=NEW', '--config.data_dir=/nowhere'],
      '/nowhere',
    ),
    ('train', ['--config=CONFIG', '--workdir=NEW', '--config.data.train_split=trian'], 'train'),
    ('train', ['--config=CONFIG', '--workdir=/proc/x'], 'can be written'),
    ('train', ['--config=CONFIG', '--workdir=NEW', '--stop_at=-1'], "'-1': give a whole number"),
    ('train', ['--config=CONFIG', '--workdir=NEW', '--stop_at=0'], '1 or more'),
    ('train', ['--config=CONFIG', '--workdir=NEW', '--stop_at=1.5'], '1 or more'),
    ('evaluate', ['--workdir=/nowhere'], 'no run in /nowhere'),
    ('evaluate', ['--workdir=TRAINED', '--step=3'], 'best, latest or one of the steps'),
    ('evaluate', ['--workdir=TRAINED', '--split=tset'], 'test'),
  ],
)
def test_a_mistake_is_one_line_and_status_2(name, flags, message, trained, tmp_path, capsys):
  config = f'{ROOT}/configs/unet_shapes.py'
  smoke = config + ':smoke'
  words = {'CONFIG:smok': config + ':smok', 'CONFIG': smoke, 'TRAINED': str(trained)}
  words['NEW'] = str(tmp_path / 'new')
  for word, value in words.items():
    flags = [f.replace(f'={word}', f'={value}') if f.endswith(f'={word}') else f for f in flags]
  with pytest.raises(SystemExit) as stop:
    launch(name, *flags)
  assert stop.value.code == 2
  error = capsys.readouterr().err
  assert message in error and error.startswith('error: ') and error.count('\n') == 1
  assert not list(tmp_path.rglob('checkpoints/*'))


MISTAKES = (
  'model.widht=4',
  'model=nope',
  'data.name=nope',
  'data.options.x=1',
  'data_dir=/nope dataset=folder',
  'data.train_split=nope',
  'eval_split=nope',
  'num_classes=5',
  'augment.crop.size=30,30',
  'optim.name=adm',
  'parallel=mesh mesh=data:3',
  'init_from=/nope',
  'eval.scales=0.5,1.0',
)


def files_in(folder):
  return {str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()}


def test_a_refused_command_leaves_the_workdir_to_the_corrected_one(tmp_path, capsys):
  workdir = tmp_path / 'runs' / 'one'
  command = [f'--config={ROOT}/configs/unet_shapes.py:smoke', f'--workdir={workdir}']
  for mistake in MISTAKES:
    with pytest.raises(SystemExit) as stop:
      launch('train', *command, *(f'--config.{key}' for key in mistake.split()))
    assert stop.value.code == 2, mistake
    assert capsys.readouterr().err.startswith('error: '), mistake
    assert not list(tmp_path.iterdir()), mistake
  launch('train', *command, '--config.num_steps=1', '--config.log.figures=0')
  assert files_in(workdir) >= {'config.json', 'classes.json', 'run.json', 'metrics.jsonl'}
  assert len(json.loads((workdir / 'run.json').read_text())['sessions']) == 1
  before = files_in(workdir)
  with pytest.raises(SystemExit):  # of a run with a checkpoint nothing is replaced either
    launch('train', *command, '--config.num_steps=1', '--config.init_from=/nope', '--config.seed=1')
  assert 'seed: 0 there, 1 now' in capsys.readouterr().err and files_in(workdir) == before


def heeds_interrupts():
  """For a child process: what runs in a shell's background ignores SIGINT, and children inherit that."""
  signal.signal(signal.SIGINT, signal.SIG_DFL)


INTERRUPTED = """
import _thread, threading, time
from jaxseg import console

def main():
  print('so far')
  threading.Thread(target=time.sleep, args=(100,)).start()  # nobody waits for it
  _thread.interrupt_main()
  time.sleep(100)

console.run(main)
"""


def test_an_interrupt_is_one_line_and_status_130():
  done = subprocess.run(
    [sys.executable, '-c', INTERRUPTED],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=60,
    preexec_fn=heeds_interrupts,
  )
  assert (done.returncode, done.stdout, done.stderr) == (130, 'so far\n', 'interrupted\n')


@pytest.mark.parametrize('buffered', [True, False])
@pytest.mark.parametrize('lines', [2, 9999])  # less and more than a pipe holds
@pytest.mark.parametrize('end', ['', 'raise SystemExit(0)', 'raise UserError("no")'])
def test_output_that_nobody_reads_ends_it_without_a_word(buffered, lines, end):
  """As `| head -c 0` does."""
  code = (
    'import time\nfrom jaxseg import console\nfrom jaxseg.types import UserError\n'
    f'def main():\n  time.sleep(0.3)\n  for _ in range({lines}): print("x" * 99)\n  {end}\n'
    'console.run(main)'
  )
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '' if buffered else '1'}
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  printing = subprocess.Popen([sys.executable, '-c', code], env=environment, **pipes)
  printing.stdout.close()
  told = printing.stderr.read()
  mistake = b'error: no\n' if 'UserError' in end and buffered and lines == 2 else b''
  assert (printing.wait(60), told) == (128 + signal.SIGPIPE, mistake)


def test_another_pipe_that_breaks_is_no_reader_that_left():
  def main():
    raise BrokenPipeError(errno.EPIPE, 'a worker died')

  with pytest.raises(BrokenPipeError, match='a worker died'):
    console.run(main)


def test_a_name_that_is_no_unicode_is_printed(monkeypatch):
  told = io.BytesIO()
  monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(told, encoding='utf-8', write_through=True))
  console.run(lambda: print(os.fsdecode(b'\xff.png')))
  assert told.getvalue() == b'\\udcff.png\n'


def test_a_step_trains_with_tensorflow_blocked_from_import(tmp_path):
  (tmp_path / 'tensorflow').mkdir()
  (tmp_path / 'tensorflow' / '__init__.py').write_text('raise ImportError("blocked by the test")\n')
  command = [
    sys.executable,
    str(ROOT / 'launch' / 'train.py'),
    f'--config={ROOT}/configs/unet_shapes.py:smoke',
    f'--workdir={tmp_path / "run"}',
    '--config.num_steps=1',
    '--config.log.every=1',
    '--config.log.figures=0',
  ]
  path = os.pathsep.join([str(tmp_path), str(ROOT)])
  done = subprocess.run(
    command, env={**os.environ, 'PYTHONPATH': path}, capture_output=True, text=True, timeout=300
  )
  assert done.returncode == 0, done.stderr
  assert 'step 1/1' in done.stdout
