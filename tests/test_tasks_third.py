"""A third task, a class for each image, made of this file alone: `Task`, `Model` and a `Score`.

A config names this module as its task and as its network; no file of the library knows of it.
"""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxseg
from jaxseg import report, tasks
from jaxseg.config.parts import load
from jaxseg.data.frame import Frame
from jaxseg.draw import sheet
from jaxseg.metrics import score as scores
from jaxseg.predict.evaluate import evaluate_workdir
from jaxseg.train.evaluator import Evaluator
from jaxseg.train.state import make_init
from jaxseg.train.step import make_predict_step, make_train_step
from jaxseg.train.train import train
from jaxseg.types import VOID, SizeRule, UserError
from tests.tiny_runs import make_experiment

NAME = 'tests.test_tasks_third'


class Score(scores.Mean):
  """The share of images whose class is right."""

  name = 'image_accuracy'

  def measure(self, example, prediction):
    return {'total': float(prediction['class'] == largest_class(example['label'])), 'count': 1}


def largest_class(label):
  """Returns the class that covers most pixels."""
  return int(np.bincount(label[label != VOID].ravel()).argmax())


@dataclasses.dataclass(frozen=True)
class Task:
  """The class that covers most of an image."""

  num_classes: int
  smoothing: float = 0.0
  headline: ClassVar[str] = 'image_accuracy'
  weights_from_labels: ClassVar[bool] = True
  takes_extent: ClassVar[bool] = False
  maps: ClassVar[bool] = False
  class_colors: ClassVar[bool] = True
  transforms: ClassVar[tuple] = ()

  @property
  def num_outputs(self):
    return self.num_classes

  def model_inputs(self, batch):
    return {}

  def losses(self, outputs, batch):
    classes = jnp.arange(self.num_classes, dtype=jnp.int32).reshape(1, 1, 1, -1)
    counts = jnp.sum(batch['label'][..., None] == classes, axis=(1, 2))
    truth = optax.smooth_labels(jax.nn.one_hot(counts.argmax(-1), self.num_classes), self.smoothing)
    loss = optax.softmax_cross_entropy(outputs['image_logits'].astype(jnp.float32), truth)
    return {'class': (jnp.sum(loss), jnp.float32(len(loss)))}

  def invalid(self, batch):
    label = batch['label']
    return jnp.sum((label >= self.num_classes) & (label != VOID), dtype=jnp.int32)

  def predict(self, outputs, size, *, maps=False):
    return {'class': jnp.argmax(outputs['image_logits'], axis=-1)}

  def in_image(self, row, frame, size):
    return {'mask': np.full(size, row['class'], np.uint8), 'class': int(row['class'])}

  def scorer(self, class_names):
    return Score(class_names)

  def legend(self, classes, shown=()):
    return [*zip(classes.names, classes.palette, strict=True)]

  def draw(self, example, prediction, classes):
    shown = {'image': example['image'], 'truth': largest_class(example['label'])}
    if prediction is not None:
      shown['prediction'] = prediction['class']
    colors = np.array(classes.palette, np.uint8)
    height, width = example['label'].shape
    return {
      title: value if title == 'image' else np.tile(colors[value], (height, width, 1))
      for title, value in shown.items()
    }


class Model(nn.Module):
  """The mean colour, and a layer on top."""

  num_classes: int
  norm: Any = None
  dtype: Any = jnp.float32
  width: int = 16
  size_rule: ClassVar[SizeRule] = SizeRule()

  @nn.compact
  def __call__(self, image, *, train, dropout=None):
    hidden = nn.relu(nn.Dense(self.width, name='hidden')(image.mean(axis=(1, 2))))
    return {'image_logits': nn.Dense(self.num_classes, name='classes')(hidden)}


def plain_images(count=12, size=(10, 14)):
  """Images of one colour for each of three classes, noise on top, a corner of another class."""
  rng = np.random.default_rng(0)
  for index in range(count):
    kind = index % 3
    image = np.zeros((*size, 3), np.int64)
    image[..., kind] = 150
    label = np.full(size, kind, np.uint8)
    label[:3, :3], label[-1] = (kind + 1) % 3, VOID
    yield {'image': (image + rng.integers(0, 60, image.shape)).astype(np.uint8), 'label': label}


def preprocess(image):
  return image.astype(jnp.float32) / 255


def test_it_is_found_by_its_import_path():
  assert tasks.load(NAME) is load('models', NAME).Task


def test_without_a_part_of_the_protocol_it_is_refused(monkeypatch):
  monkeypatch.delattr(Task, 'headline')
  monkeypatch.delattr(Task, 'draw')
  with pytest.raises(UserError, match=r'lacks draw, headline: jaxseg/tasks/__init__'):
    tasks.load(__name__)


def test_it_learns_predicts_scores_and_draws():
  task, model = Task(3), Model(3)
  examples = list(plain_images())
  batch = {k: np.stack([e[k] for e in examples]) for k in ('image', 'label')}
  tx = optax.adam(0.03)
  state = make_init(model, tx, (1, 10, 14, 3))(jax.random.key(0))
  step = jax.jit(make_train_step(model, task, tx, preprocess, accumulate=2))
  losses = []
  for _ in range(60):
    state, metrics = step(state, batch, jax.random.key(1))
    losses.append(float(metrics['loss/class']))
  assert losses[-1] < 0.1 < losses[0] and not metrics['invalid']

  frame = Frame(model.size_rule, multiple=16)
  placed = np.stack([frame.place(e['image']) for e in examples])
  predict = make_predict_step(model, task, preprocess, size=frame.canvas((10, 14)))
  rows = jax.device_get(predict(state.variables, {'image': placed}))
  score = scores.Scores([task.scorer(('a', 'b', 'c')), scores.load('confusion', ('a', 'b', 'c'))])
  for place, example in enumerate(examples):
    row = {name: values[place] for name, values in rows.items()}
    prediction = task.in_image(row, frame, (10, 14))
    score.add(example, prediction)
  result = score.compute()
  assert result[task.headline] == 1 and 0.9 < result['pixel_accuracy'] < 1  # but for the corners

  palette = ((9, 0, 0), (0, 9, 0), (0, 0, 9))
  pictures = task.draw(example, prediction, SimpleNamespace(palette=palette))
  assert sheet.panel([pictures]).shape[2] == 3 and (pictures['prediction'] == (0, 0, 9)).all()


def test_an_evaluator_scores_it():
  experiment = make_experiment(task=NAME, model=dict(name=NAME), loss=dict(smoothing=0.1))
  assert experiment.task == Task(4, smoothing=0.1)
  source = experiment.source('val')
  evaluate = Evaluator(experiment, source)
  model = experiment.model()
  variables = jax.jit(model.init, static_argnames='train')(
    jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32), train=False
  )
  result = evaluate(variables)
  model_of = jax.jit(
    lambda image: model.apply(variables, experiment.preprocess(image), train=False)
  )
  right = [
    np.argmax(model_of(e['image'][None])['image_logits']) == largest_class(e['label'])
    for e in (source[i] for i in range(len(source)))
  ]
  assert result == {'image_accuracy': np.mean(right)}


def test_a_run_trains_is_evaluated_predicts_and_reports(tmp_path):
  log = dict(every=1, figures=2)
  changes = dict(task=NAME, model=dict(name=NAME), num_steps=2, batch_size=8, log=log)
  summary = train(make_experiment(**changes).config, tmp_path, hooks=report.hooks())
  assert summary.keys() == {'image_accuracy'}
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert {'train/loss/class', 'eval/image_accuracy'} <= {key for line in lines for key in line}
  assert evaluate_workdir(tmp_path)['image_accuracy'] == summary['image_accuracy']
  prediction = jaxseg.load(tmp_path).predict(np.zeros((20, 30, 3), np.uint8))
  assert (prediction['mask'] == prediction['class']).all() and prediction['mask'].shape == (20, 30)
  assert (tmp_path / 'figures' / 'predictions.png').exists()
  assert 'image accuracy' in (tmp_path / 'report.html').read_text()
