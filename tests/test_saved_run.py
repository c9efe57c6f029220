"""A run of jaxseg 0.1, whose config has all keys on one level: it resumes, evaluates, predicts and reports.

tests/saved_run was trained for 4 of 6 steps by revision eefd579. The numbers here are those of that
revision, which trained the same run to its end and predicted with it.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import jaxseg
from jaxseg import report
from jaxseg.predict import evaluate
from jaxseg.train import build
from jaxseg.train.train import train

LOSSES = {5: 3.1894965171813965, 6: 1.7570406198501587}
RATES = {5: 0.00018749997252598405, 6: 6.0288526583462954e-05}
SCORES = {
  4: (0.6526829268292683, 0.22831116033649035),
  6: (0.7004878048780487, 0.24093112728557015),
}


@pytest.fixture
def run(tmp_path):
  """A copy of the saved run that may be changed."""
  return Path(shutil.copytree(Path(__file__).parent / 'saved_run', tmp_path / 'run'))


def test_it_resumes_where_it_stopped(run, capsys):
  train(build.load_experiment(run).config, run)
  assert 'resumed at step 4' in capsys.readouterr().out
  lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
  trained = {r['step']: r for r in lines if 'train/loss' in r}
  for step, loss in LOSSES.items():  # another processor rounds otherwise
    np.testing.assert_allclose(trained[step]['train/loss'], loss, rtol=1e-4)
    np.testing.assert_allclose(trained[step]['train/learning_rate'], RATES[step], rtol=1e-6)
  last = [(r['eval/pixel_accuracy'], r['eval/mean_iou']) for r in lines if 'eval/mean_iou' in r][-1]
  np.testing.assert_allclose(last, SCORES[6], atol=0.01)
  config = json.loads((run / 'config.json').read_text())
  assert config['optim']['schedule'] == 'cosine' and config['augment'][0][0] == 'crop'


def test_another_seed_is_another_run(run):
  config = build.load_experiment(run).config
  with pytest.raises(jaxseg.types.UserError, match='belongs to another run .seed: 0 there, 1 now'):
    train(config | {'seed': 1}, run)


def test_it_evaluates(run):
  result = evaluate.evaluate_workdir(run, step='4')
  scores = result['pixel_accuracy'], result['mean_iou']
  np.testing.assert_allclose(scores, SCORES[4], atol=2e-3)  # a pixel or two


def test_it_predicts(run):
  predictor = jaxseg.load(run, step='latest')
  image = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
  counts = np.bincount(predictor(image).ravel(), minlength=4)
  np.testing.assert_allclose(counts, [25, 657, 0, 32], atol=2)
  mean = predictor.probabilities(image).mean((0, 1))
  np.testing.assert_allclose(mean, [0.119869, 0.578842, 0.222617, 0.078672], atol=1e-5)


def test_it_is_reported(run):
  page = report.write([run])
  assert 'unet' in Path(page).read_text(encoding='utf-8')
