"""Bands and types from files to predictions, through the launchers: values are those that the files hold."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxseg import config as configs
from jaxseg import load
from jaxseg.train import build
from jaxseg.train.train import train
from tests.test_launch import launch

KINDS = {
  'uint16': (8, lambda x: np.rint(400 + 300 * x)),  # reflectances of a sensor of 11 bits
  'int16': (1, lambda x: np.rint(1000 * x - 400)),  # Hounsfield units
  'float32': (2, lambda x: 1e-3 * x),
}


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
def test_a_set_trains_resumes_and_predicts_in_its_own_units(dtype, tmp_path, monkeypatch):
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))
  images, file, run = make(tmp_path / 'own', dtype), tmp_path / 'mine.py', tmp_path / 'run'
  launch('data', 'plan', f'--folder={tmp_path / "own"}', f'--output={file}')
  experiment = build.experiment(configs.load(str(file)))
  assert (experiment.data.dtype, experiment.channels) == (dtype, KINDS[dtype][0])
  pixels = np.concatenate([images[i].reshape(-1, KINDS[dtype][0]) for i in range(5)]).astype(float)
  np.testing.assert_allclose(experiment.data.mean, pixels.mean(0), rtol=1e-4, atol=0.006)
  np.testing.assert_allclose(experiment.data.std, pixels.std(0), rtol=1e-4, atol=0.006)
  source = experiment.source('train')
  for i in range(5):
    stored = source[i]['image']
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, images[i])
  small = ('num_steps=40', 'model.width=4', 'model.depth=2', 'batch_size=2')
  config = configs.load(str(file))
  for assignment in small:
    configs.override(config, assignment)
  train(config, run, stop_at=10)
  launch('train', f'--config={file}', f'--workdir={run}', *(f'--config.{part}' for part in small))
  launch('predict', f'--workdir={run}', f'--input={tmp_path / "own" / "val" / "images"}',
         f'--output={tmp_path / "out"}', '--overlay')  # fmt: skip
  mask = np.asarray(Image.open(tmp_path / 'out' / '5.png'))
  predictor = load(run)
  np.testing.assert_array_equal(mask, predictor(images[5]))
  by_hand = (images[5].astype(np.float32) - np.float32(experiment.data.mean)) / np.float32(
    experiment.data.std
  )
  np.testing.assert_allclose(experiment.preprocess(images[5]), by_hand, rtol=1e-6)
  truth = np.asarray(Image.open(tmp_path / 'own' / 'val' / 'masks' / '5.png'))
  assert (mask == truth).mean() > 0.9
