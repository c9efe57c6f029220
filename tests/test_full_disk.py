"""A disk that is full: told in one line, status 2; what was saved before is whole and used again.

`DISK_TABLE=docs/reliability.md pytest -n0 tests/test_full_disk.py` renews the table.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.writer import read_records
from tests import documents

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from PIL import Image
from jaxseg import console

FOLDER = Path(sys.argv[2])
NOISE = np.random.default_rng(0).integers(0, 256, (400, 300, 3), np.uint8)  # no format makes it small

def fill_the_disk():  # no file may grow beyond 64 KiB from here on
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

def save():
  from jaxseg.train.checkpoint import Checkpoints
  checkpoints = Checkpoints(FOLDER)
  state = {'w': np.random.default_rng(0).random(100_000)}
  checkpoints.save(1, state)
  checkpoints.wait()
  fill_the_disk()
  try:
    checkpoints.save(2, {'w': state['w'] + 1})
    checkpoints.wait()
  finally:
    checkpoints.close()

def log():
  from jaxseg.train.writer import Writer
  writer = Writer(FOLDER)
  fill_the_disk()
  for step in range(1, 2000):
    writer.write(step, {'train/loss': 1.0, 'train/grad_norm': 2.0})

def records():
  from jaxseg.data import records
  from jaxseg.data.source import DatasetInfo
  image, mask = Path(sys.argv[3], 'a.png'), Path(sys.argv[3], 'm.png')
  Image.fromarray(NOISE).save(image)
  Image.fromarray(NOISE[..., 0] % 2).save(mask)
  raws = [records.Raw(image, mask, f'{i}.png') for i in range(3)]
  facts = DatasetInfo('noise', ('a', 'b'), ((0, 0, 0), (1, 1, 1)))
  fill_the_disk()
  records.open_source(facts, 'train', raws, records_read, cache_dir=FOLDER)

def records_read(raw):
  from jaxseg.data import records
  return records.read_ids(raw, table={0: 0, 1: 1})

def archive():
  import tarfile
  from jaxseg.data import archives
  packed = Path(sys.argv[3], 'a.tar')
  Path(sys.argv[3], 'big').write_bytes(NOISE)
  with tarfile.open(packed, 'w') as file:
    file.add(Path(sys.argv[3], 'big'), 'big')
  fill_the_disk()
  archives.unpack(packed, FOLDER)

def predictions(**wanted):
  from jaxseg.predict import job
  from tests.tiny_runs import CLASSES, make_experiment
  band = SimpleNamespace(top=0, mask=NOISE[..., 0] % 4, uncertainty=np.float32(NOISE[..., 1]))
  band.probabilities = np.float32(NOISE)
  predictor = SimpleNamespace(experiment=make_experiment(), classes=CLASSES)
  predictor.options = SimpleNamespace(samples=0)
  predictor.bands, predictor.predict = lambda image: [band], lambda image: vars(band)
  predictor.comes_in_bands, predictor.cleaned = lambda size: False, lambda mask: mask
  image = Path(sys.argv[3], 'a.png')
  Image.fromarray(NOISE).save(image)
  fill_the_disk()
  job._Job(predictor, FOLDER, job.OutputFiles(**wanted)).run([job.InputImage(image, 'a')])

def probabilities():
  predictions(probabilities=True)

def uncertainty():
  predictions(uncertainty=True)

def overlay():
  predictions(overlay=True)

def exported():
  from safetensors.numpy import save_file
  from jaxseg.export.folder import replacing
  fill_the_disk()
  with replacing(FOLDER / 'export') as new:
    new.mkdir()
    (new / 'card.json').write_text('{}')
    save_file({'w': NOISE}, new / 'weights.safetensors')

def picture():
  from jaxseg import files
  from jaxseg.draw import labels
  fill_the_disk()
  with files.new_file(FOLDER / 'a.png') as part:
    labels.save(part, NOISE)

def page():
  from jaxseg import files
  fill_the_disk()
  files.write_text(FOLDER / 'report.html', 'x' * 99999)

console.run(globals()[sys.argv[1]])
"""


def run(job: str, folder: Path, inputs: Path | None = None) -> subprocess.CompletedProcess:
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-W', 'ignore', '-c', SCRIPT, job, str(folder), str(inputs)]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
  assert done.returncode == 2, done.stderr
  [line] = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
  line = re.sub(r'tfevents\.\S+', 'tfevents', line.removeprefix('error: '))
  SAID[job] = line.replace(str(folder), 'out')
  return done


SAID: dict[str, str] = {}  # of each job what it said
WRITERS = {
  'records': 'the records of a dataset',
  'archive': 'what is unpacked',
  'probabilities': 'probabilities of a prediction',
  'uncertainty': 'its uncertainty',
  'overlay': 'its overlay',
  'exported': 'an export',
  'picture': 'a picture',
  'page': 'a report',
}
RUN = {'save': 'a checkpoint', 'log': 'the log of a training'}


@pytest.mark.parametrize('writer', WRITERS)
def test_every_writer_ends_in_one_line_and_leaves_nothing(writer, tmp_path):
  (out := tmp_path / 'out').mkdir()
  (inputs := tmp_path / 'in').mkdir()
  done = run(writer, out, inputs)
  [line] = [text for text in done.stderr.splitlines() if not text.startswith('preparing')]
  assert line.startswith('error: ') and 'File too large' in line and str(out) in line, done.stderr
  left = [path for path in out.rglob('*') if path.is_file() and path.parent.name != 'digests']
  assert not left


def test_a_save_that_fails_leaves_the_ones_before(tmp_path):
  folder = tmp_path / 'checkpoints'
  done = run('save', folder)
  assert len(done.stderr.splitlines()) == 1, done.stderr
  assert f'a checkpoint cannot be written to {folder}: File too large' in done.stderr
  assert 'make room there, and the same command goes on from step 1' in done.stderr
  assert [path.name for path in folder.iterdir()] == ['1']  # no half of one
  checkpoints = Checkpoints(folder)
  state = {'w': np.zeros(100_000)}
  state, step = checkpoints.restore_newest(state)
  assert step == 1 and checkpoints.steps() == [1]
  np.testing.assert_array_equal(state['w'], np.random.default_rng(0).random(100_000))
  checkpoints.save(2, state)
  checkpoints.wait()
  assert checkpoints.steps() == [1, 2]
  checkpoints.close()


def test_a_log_that_cannot_grow_ends_the_run_and_does_not_hang(tmp_path):
  done = run('log', tmp_path)
  assert 'tfevents' in done.stderr  # it is the first of both that is full
  assert ' cannot be written: File too large; make room there' in done.stderr
  steps = [record['step'] for record in read_records(tmp_path)]
  assert steps == list(range(1, len(steps) + 1)) and len(steps) > 100


def test_the_table_shows_every_writer():
  titles = WRITERS | RUN
  if os.environ.get('DISK_TABLE'):
    rows = [f'| {title} | {SAID[job]} |' for job, title in titles.items()]
    head = '| what is written | the one line it ends with (status 2, nothing half is left) |'
    about = (
      f'{len(rows)} writers; `DISK_TABLE=docs/reliability.md pytest -n0 tests/test_full_disk.py`.'
    )
    table = '\n'.join([about, '', head, '|---|---|', *rows])
    documents.renew('DISK_TABLE', 'Full disk', 'full disk', table)
  assert all(f'| {title} |' in documents.section('full disk') for title in titles.values())
