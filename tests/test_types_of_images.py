"""Bands and types from files to predictions, through the launchers: values are those that the files hold."""

import contextlib
import io
import json
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxseg import config as configs
from jaxseg import load
from jaxseg.train import build
from jaxseg.train.train import train
from tests.test_launch import ROOT, launch

KINDS = {
  'uint16': (8, lambda x: np.rint(400 + 300 * x)),  # reflectances of a sensor of 11 bits
  'int16': (1, lambda x: np.rint(1000 * x - 400)),  # Hounsfield units
  'float32': (2, lambda x: 1e-3 * x),
}
SMALL = ('num_steps=120', 'model.width=4', 'model.depth=2', 'batch_size=2')


def make(root, dtype):
  """Writes six images of 24 x 24 whose class is where the first band is bright; returns them."""
  channels, values = KINDS[dtype]
  rng, images = np.random.default_rng(0), {}
  for i in range(6):
    folder = root / ('val' if i == 5 else 'train')
    for kind in ('images', 'masks'):
      (folder / kind).mkdir(parents=True, exist_ok=True)
    truth = np.zeros((24, 24), bool)
    truth[4 + i : 14 + i, 6:18] = True
    noise = rng.normal(0, 0.1, (24, 24, channels))
    image = values(noise + truth[..., None]).astype(dtype)
    planar = {} if channels == 1 else {'planarconfig': 'separate' if i % 2 else 'contig'}
    data = np.moveaxis(image, -1, 0) if i % 2 and channels > 1 else image
    path = folder / 'images' / f'{i}.tif'
    tifffile.imwrite(path, data if channels > 1 else image[..., 0], photometric='minisblack',
                     compression='lzw', **planar)  # fmt: skip
    Image.fromarray(truth.astype(np.uint8)).save(folder / 'masks' / f'{i}.png')
    images[i] = image
  (root / 'classes.txt').write_text('ground\nthing\n')
  return images


@pytest.mark.slow
@pytest.mark.parametrize('dtype', KINDS)
def test_a_set_goes_from_files_to_a_server_in_its_own_units(dtype, tmp_path, monkeypatch):
  """Planned, trained, resumed, predicted, exported and served; every number is held against numpy's."""
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))
  images, file, run = make(tmp_path / 'own', dtype), tmp_path / 'mine.py', tmp_path / 'run'
  launch('data', 'plan', f'--folder={tmp_path / "own"}', f'--output={file}')
  mean, std = check_plan(file, images, dtype)
  config = configs.load(str(file))
  for part in SMALL:
    configs.override(config, part)
  train(config, run, stop_at=10)
  launch('train', f'--config={file}', f'--workdir={run}', *(f'--config.{part}' for part in SMALL))
  last = tmp_path / 'own' / 'val' / 'images' / '5.tif'
  launch(
    'predict', f'--workdir={run}', f'--input={last}', f'--output={tmp_path / "out"}', '--overlay'
  )
  mask = np.asarray(Image.open(tmp_path / 'out' / '5.png'))
  truth = np.asarray(Image.open(tmp_path / 'own' / 'val' / 'masks' / '5.png'))
  assert (mask == truth).mean() > 0.9
  predictor = load(run)
  by_hand = (images[5].astype(np.float32) - np.float32(mean)) / np.float32(std)
  np.testing.assert_allclose(predictor.experiment.preprocess(images[5]), by_hand, rtol=1e-6)
  np.testing.assert_array_equal(mask, predictor(images[5]))
  launch('export', f'--workdir={run}', f'--output={tmp_path / "exported"}')
  card = json.loads((tmp_path / 'exported' / 'card.json').read_text())
  assert (card['input']['dtype'], card['input']['channels']) == (dtype, KINDS[dtype][0])
  with serving(tmp_path / 'exported') as url:
    with urllib.request.urlopen(
      urllib.request.Request(url, last.read_bytes()), timeout=60
    ) as answer:
      served = np.asarray(Image.open(io.BytesIO(answer.read())))
  np.testing.assert_array_equal(served, mask)


def check_plan(file, images, dtype):
  """Holds the plan's units and the records' values against what was written; returns mean and std."""
  experiment, channels = build.experiment(configs.load(str(file))), KINDS[dtype][0]
  assert (experiment.data.dtype, experiment.channels) == (dtype, channels)
  pixels = np.concatenate([images[i].reshape(-1, channels) for i in range(5)]).astype(float)
  np.testing.assert_allclose(experiment.data.mean, pixels.mean(0), rtol=1e-4, atol=0.006)
  np.testing.assert_allclose(experiment.data.std, pixels.std(0), rtol=1e-4, atol=0.006)
  for i, example in enumerate(experiment.source('train')):
    assert example['image'].dtype == dtype
    np.testing.assert_array_equal(example['image'], images[i])
  return experiment.data.mean, experiment.data.std


@contextlib.contextmanager
def serving(exported):
  """Runs the example's server, which has no jaxseg, and yields its address."""
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  command = [sys.executable, '-I', str(ROOT / 'examples' / 'serve.py'), str(exported), str(port)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    try:
      assert process.stdout.readline().startswith('serving ')
      yield f'http://localhost:{port}'
    finally:
      process.kill()
