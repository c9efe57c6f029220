"""Recipes at one image size: training, evaluation and prediction all see images of that size."""

from pathlib import Path

import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg.data import geometry
from jaxseg.losses import dice
from jaxseg.predict.averages import Options
from jaxseg.predict.evaluate import score_images
from jaxseg.predict.predictor import Predictor
from jaxseg.train import build
from jaxseg.train.evaluator import Evaluator, make_scores
from jaxseg.train.run_folder import Classes
from jaxseg.types import UserError
from tests.tiny_runs import make_state

NVIDIA = str(Path(__file__).resolve().parent.parent / 'configs' / 'unet_isbi2012.py:nvidia,smoke')
CLASSES = Classes(('a', 'b'), ((0, 0, 0), (1, 1, 1)))


@pytest.fixture(scope='module')
def experiment():
  overrides = ['eval.batch_size=2', 'data.options.count=3']
  return build.experiment(configs.load(NVIDIA, overrides))


@pytest.fixture(scope='module')
def variables(experiment):
  return make_state(experiment).variables


def test_training_images_lie_on_the_canvas(experiment):
  raw = experiment.source('train')[0]
  assert raw['image'].shape == (36, 36, 1) and raw['label'].shape == (36, 36)
  example = experiment.transforms[0](raw, np.random.default_rng(0))
  assert example['image'].shape == (76, 76, 1) and (example['image'][:20] == 128).all()
  assert (example['label'][:20] == 0).all()  # as published: the ground is membrane, not void
  np.testing.assert_array_equal(example['label'][20:56, 20:56], raw['label'])


def test_evaluation_sees_the_same_canvas_and_scores_the_resized_label(experiment, variables):
  source = experiment.source('val')
  evaluator = Evaluator(experiment, source)
  batch = next(evaluator.batches())
  assert batch['image'].shape == (2, 76, 76, 1) and (batch['image'][:, :20] == 128).all()
  assert [e['label'].shape for e in batch['examples']] == [(36, 36)] * 2
  scores = evaluator(variables)
  assert np.sum(scores['confusion']) <= 3 * 36 * 36

  predictor = Predictor(experiment, variables, Classes(source.class_names, source.palette))
  each = [dice(predictor.probabilities(e['image'])[None], e['label'][None])[0] for e in source]
  assert scores['dice'] == pytest.approx(np.mean(each), rel=1e-5)
  alone = score_images(predictor, source, make_scores(experiment, source.class_names)).compute()
  assert alone['dice'] == pytest.approx(scores['dice'], rel=1e-5)


def test_prediction_resizes_there_and_back(experiment, variables):
  predictor = Predictor(experiment, variables, CLASSES)
  image = np.random.default_rng(0).integers(0, 256, (50, 41, 1), dtype=np.uint8)
  small = predictor.probabilities(geometry.resize_image(image, (36, 36)))
  maps = predictor.probabilities(image)
  np.testing.assert_allclose(maps, geometry.resize_image(small, (50, 41)), rtol=1e-6)
  np.testing.assert_array_equal(predictor(image), maps.argmax(-1))
  np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)


def test_samples_are_resized_too(experiment, variables):
  predictor = Predictor(experiment, variables, CLASSES, Options(samples=2))
  assert predictor.uncertainty(np.zeros((50, 41, 1), np.uint8)).shape == (50, 41)


def test_a_size_that_is_none_is_refused():
  with pytest.raises(UserError, match=r'config.data.image_size=\(3, -1\): \(height, width\)'):
    build.experiment(configs.load(NVIDIA, ['data.image_size=(3,-1)']))
