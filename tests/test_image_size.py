"""Recipes at one image size: training, evaluation and prediction all see images of that size."""

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg.data import geometry
from jaxseg.metrics.dice import dice
from jaxseg.metrics.measures import Dice
from jaxseg.predict.evaluate import score_images
from jaxseg.predict.predictor import Options, Predictor
from jaxseg.tasks.semantic import Task
from jaxseg.train import build
from jaxseg.train.evaluator import Evaluator
from jaxseg.train.run_folder import Classes
from jaxseg.types import VOID, UserError

NVIDIA = str(Path(__file__).resolve().parent.parent / 'configs' / 'unet_isbi2012.py:nvidia,smoke')


@pytest.fixture(scope='module')
def config():
  return configs.load(NVIDIA, ['eval_batch_size=2', 'dataset_options.count=3'])


@pytest.fixture(scope='module')
def variables(config):
  image = np.zeros((1, *config.pad, 1), np.float32)
  model = build.model_from(config)
  return jax.jit(lambda: model.init(jax.random.key(0), image, train=False))()


def test_training_images_lie_on_the_canvas(config):
  source = build.source_from(config, 'train')
  raw = source[0]
  assert raw['image'].shape == (36, 36, 1) and raw['label'].shape == (36, 36)
  pad = build.transforms_from(config)[0]
  example = pad(raw, np.random.default_rng(0))
  assert example['image'].shape == (76, 76, 1) and (example['image'][:20] == 128).all()
  assert (example['label'][:20] == 0).all()  # as published: the ground is membrane, not void
  np.testing.assert_array_equal(example['label'][20:56, 20:56], raw['label'])


def test_evaluation_sees_the_same_canvas_and_scores_the_resized_label(config, variables):
  source = build.source_from(config, 'val')
  task = build.task_from(config)
  evaluator = Evaluator(config, source, task)
  batch = next(evaluator.batches())
  assert batch['image'].shape == (2, 76, 76, 1) and batch['label'].shape == (2, 36, 36)
  assert (batch['image'][:, :20] == 128).all()
  summary = evaluator(variables)
  assert summary['confusion'].sum() <= 3 * 36 * 36

  predictor = Predictor(config, variables, Classes(source.class_names, source.palette))
  totals = [
    dice(predictor.probabilities(e['image'])[None], e['label'][None])
    for e in (source[i] for i in range(3))
  ]
  total, count = np.sum(totals, axis=0)
  assert count == 6 and 0 < total / count < 1
  assert summary['dice'] == pytest.approx(total / count, rel=1e-5)
  assert score_images(predictor, source, [Dice()])['dice'] == pytest.approx(total / count, rel=1e-5)


def test_prediction_resizes_there_and_back(config, variables):
  predictor = Predictor(config, variables, Classes(('a', 'b'), ((0, 0, 0), (1, 1, 1))))
  image = np.random.default_rng(0).integers(0, 256, (50, 41, 1), dtype=np.uint8)
  small = predictor.probabilities(geometry.resize_image(image, (36, 36)))
  found = predictor.probabilities(image)
  np.testing.assert_allclose(found, geometry.resize_image(small, (50, 41)), rtol=1e-6)
  np.testing.assert_array_equal(predictor(image), found.argmax(-1))
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_samples_are_resized_too(config, variables):
  classes = Classes(('a', 'b'), ((0, 0, 0), (1, 1, 1)))
  predictor = Predictor(config, variables, classes, Options(samples=2))
  image = np.zeros((50, 41, 1), np.uint8)
  assert predictor.uncertainty(image).shape == (50, 41)


def test_dice_in_a_task():
  logits = np.log(np.array([[[[0.8, 0.2], [0.6, 0.4], [0.5, 0.5]]]], np.float32))
  batch = {'label': np.array([[[0, 1, VOID]]], np.uint8)}
  metrics = Task(num_classes=2, dice=True).metrics({'logits': logits}, batch)
  expected = (2 * 0.8 / (0.64 + 0.36 + 1) + 2 * 0.4 / (0.04 + 0.16 + 1)) / 2
  metrics = {k: np.asarray(v) for k, v in metrics.items()}
  assert Task(num_classes=2, dice=True).summarize(metrics)['dice'] == pytest.approx(expected)
  assert 'dice' not in Task(num_classes=2).metrics({'logits': logits}, batch)


def test_errors():
  with pytest.raises(UserError, match=r'config.image_size=\(3,\): \(height, width\)'):
    configs.load(NVIDIA, ['image_size=(3,)'])
  with pytest.raises(UserError, match='set resize=0, sizes are fixed already'):
    configs.load(NVIDIA, ['resize=0.5'])
