"""The task's terms and metrics on a few pixels, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import tasks
from jaxseg.tasks import semantic
from jaxseg.tasks.semantic import Task
from jaxseg.types import VOID, UserError

LOG = np.log
# p(class 1) = 3/4 everywhere; three valid pixels, one void.
OUTPUTS = {'logits': jnp.tile(jnp.asarray([0.0, LOG(3)], jnp.float32), (1, 2, 2, 1))}
BATCH = {
  'label': jnp.asarray([[[1, 0], [1, VOID]]], jnp.uint8),
  'weight': jnp.asarray([[[1.0, 2.0], [3.0, 9.0]]]),
}
PLAIN = 2 * LOG(4 / 3) + LOG(4)


def total(terms):
  return sum(s / jnp.where(w > 0, w, 1) for s, w in terms.values())


def test_load_finds_the_task_and_names_the_others():
  assert tasks.load('semantic') is Task
  with pytest.raises(UserError, match="unknown task 'semantics'; use one of .*semantic"):
    tasks.load('semantics')


@pytest.mark.parametrize(
  ('options', 'expected_sum', 'expected_weight'),
  [
    ({}, PLAIN, 3),
    ({'normalize': 'pixels'}, PLAIN, 3),
    ({'normalize': 'sum'}, PLAIN, 0),
    ({'class_weights': (5.0, 0.5)}, LOG(4 / 3) + 5 * LOG(4), 6),
    ({'class_weights': (5.0, 0.5), 'normalize': 'pixels'}, LOG(4 / 3) + 5 * LOG(4), 3),
    ({'use_pixel_weights': True}, 4 * LOG(4 / 3) + 2 * LOG(4), 6),
    ({'use_pixel_weights': True, 'normalize': 'sum'}, 4 * LOG(4 / 3) + 2 * LOG(4), 0),
    ({'use_pixel_weights': True, 'normalize': 'pixels'}, 4 * LOG(4 / 3) + 2 * LOG(4), 3),
  ],
)
def test_cross_entropy_is_divided_by_what_the_task_says(options, expected_sum, expected_weight):
  terms = Task(2, **options).losses(OUTPUTS, BATCH)
  assert list(terms) == ['xent']
  np.testing.assert_allclose(terms['xent'][0], expected_sum, rtol=1e-6)
  assert terms['xent'][1] == expected_weight and terms['xent'][1].dtype == jnp.float32
  np.testing.assert_allclose(total(terms), expected_sum / (expected_weight or 1), rtol=1e-6)


def test_sigmoid_equals_softmax_of_two_classes():
  task = Task(2, 'sigmoid', class_weights=(5.0, 0.5))
  assert task.num_outputs == 1 and Task(2).num_outputs == 2
  outputs = {'logits': jnp.full((1, 2, 2, 1), LOG(3))}
  terms = task.losses(outputs, BATCH)
  np.testing.assert_allclose(terms['xent'], [LOG(4 / 3) + 5 * LOG(4), 6], rtol=1e-6)
  np.testing.assert_array_equal(task.predictions(outputs), np.ones((1, 2, 2)))
  np.testing.assert_allclose(task.probabilities(outputs)[0, 0, 0], [1 / 4, 3 / 4], rtol=1e-6)
  np.testing.assert_array_equal(task.metrics(outputs, BATCH)['confusion'], [[0, 1], [0, 2]])


def test_dice_is_a_term_of_its_own():
  terms = Task(2, 'softmax_dice', normalize='sum').losses(OUTPUTS, BATCH)
  assert list(terms) == ['xent', 'dice']
  dice_0 = 2 * 1 / 4 / (3 / 16 + 1)
  dice_1 = 2 * 6 / 4 / (27 / 16 + 2)
  np.testing.assert_allclose(terms['dice'], [2 - dice_0 - dice_1, 2], rtol=1e-5)
  np.testing.assert_allclose(total(terms), PLAIN + (2 - dice_0 - dice_1) / 2, rtol=1e-5)


def test_auxiliary_term_is_scaled_in_its_sum_and_only_when_training():
  outputs = {**OUTPUTS, 'aux_logits': jnp.zeros((1, 2, 2, 2))}
  terms = Task(2).losses(outputs, BATCH)
  np.testing.assert_allclose(terms['aux/xent'], [0.4 * 3 * LOG(2), 3], rtol=1e-6)
  np.testing.assert_allclose(total(terms), PLAIN / 3 + 0.4 * LOG(2), rtol=1e-6)
  assert list(Task(2).losses(outputs, BATCH, train=False)) == ['xent']
  assert list(Task(2, aux_weight=0.0).losses(outputs, BATCH)) == ['xent']


def test_smaller_logits_see_the_centre_of_label_and_weight():
  label = np.full((1, 4, 6), 1, np.uint8)
  label[:, 1:3, 2:4] = BATCH['label']
  label[0, 0, 0] = 77
  weight = np.full((1, 4, 6), 100.0, np.float32)
  weight[:, 1:3, 2:4] = BATCH['weight']
  batch = {'label': jnp.asarray(label), 'weight': jnp.asarray(weight)}
  task = Task(2, use_pixel_weights=True)
  small = task.losses(OUTPUTS, BATCH)['xent']
  np.testing.assert_array_equal(task.losses(OUTPUTS, batch)['xent'], small)
  metrics = task.metrics(OUTPUTS, batch)
  np.testing.assert_array_equal(metrics['confusion'], [[0, 1], [0, 2]])
  assert metrics['invalid'] == 1  # also outside the crop


@pytest.mark.parametrize('size', [(1, 2, 2), (2, 1, 2), (2, 2, 3)])
def test_labels_that_no_centre_crop_fits_are_refused(size):
  with pytest.raises(UserError, match='do not fit the centre'):
    semantic.align(np.zeros((1, *size[1:])), np.zeros((1, 2, 2 if size[0] == 2 else 3, 4)))


def test_all_void_gives_zero_loss_zero_gradient_empty_confusion():
  batch = {'label': jnp.full((1, 2, 2), VOID, jnp.uint8), 'weight': BATCH['weight']}
  for loss in ('softmax', 'softmax_dice'):
    for normalize in semantic.NORMALIZE:
      task = Task(2, loss, normalize, class_weights=(1.0, 2.0), use_pixel_weights=True)
      value, gradient = jax.jit(
        jax.value_and_grad(lambda x, task=task: total(task.losses({'logits': x}, batch)))
      )(OUTPUTS['logits'])
      assert value == 0
      np.testing.assert_array_equal(gradient, jnp.zeros((1, 2, 2, 2)))
  metrics = task.metrics(OUTPUTS, batch)
  assert metrics['confusion'].sum() == 0 and metrics['invalid'] == 0


def test_labels_outside_the_classes_neither_train_nor_count_but_are_reported():
  batch = {'label': jnp.asarray([[[1, 0], [1, 2]]], jnp.uint8)}
  task = Task(2)
  np.testing.assert_allclose(task.losses(OUTPUTS, batch)['xent'], [PLAIN, 3], rtol=1e-6)
  metrics = task.metrics(OUTPUTS, batch)
  assert metrics['invalid'] == 1 and metrics['invalid'].dtype == jnp.int32
  assert metrics['confusion'].sum() == 3 and metrics['confusion'].dtype == jnp.int32


def test_metrics_add_up_and_are_summarised():
  task = Task(3, absent='zero')
  logits = jax.nn.one_hot(jnp.asarray([[[0, 1], [1, 0]]]), 3)
  batch = {'label': jnp.asarray([[[0, 1], [0, 0]]], jnp.uint8)}
  step = jax.jit(Task.metrics, static_argnums=0)  # a task is hashable
  once = step(task, {'logits': logits}, batch)
  twice = {k: np.asarray(v, np.int64) * 2 for k, v in once.items()}
  scores = task.summarize(twice)
  np.testing.assert_allclose(scores['mean_iou'], (2 / 3 + 1 / 2 + 0) / 3)
  np.testing.assert_allclose(scores['pixel_accuracy'], 3 / 4)


def test_probabilities_are_float32_whatever_the_logits():
  logits = jnp.asarray([[[[0.0, 0.0, LOG(2)]]]], jnp.bfloat16)
  probability = Task(3).probabilities({'logits': logits})
  assert probability.dtype == jnp.float32
  np.testing.assert_allclose(probability[0, 0, 0], [1 / 4, 1 / 4, 1 / 2], atol=2e-3)
  prediction = Task(3).predictions({'logits': logits})
  assert prediction.dtype == jnp.int32 and prediction.item() == 2


def test_equal_tasks_are_one_key():
  assert hash(Task(2, class_weights=[1, 2])) == hash(Task(2, class_weights=(1.0, 2.0)))
  assert Task(2, class_weights=[1, 2]) == Task(2, class_weights=(1.0, 2.0))


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'loss': 'dice'}, "loss is 'dice'; use one of softmax, sigmoid, softmax_dice"),
    ({'normalize': 'mean'}, "normalize is 'mean'; use one of weights, pixels, sum"),
    ({'absent': 'nan'}, "absent is 'nan'; use one of skip, zero"),
    ({'loss': 'sigmoid'}, "'sigmoid' is for 2 classes, got 3"),
    ({'class_weights': (1.0, 2.0)}, 'class_weights has 2 numbers.*give 3'),
    ({'class_weights': (1.0, 2.0, -1.0)}, 'smallest -1.0; give 3.*none negative'),
    ({'num_classes': 1}, 'num_classes is 1; a task has from 2'),
  ],
)
def test_options_that_make_no_sense_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    Task(**{'num_classes': 3, **options})


def test_missing_weights_and_wrong_channels_are_refused():
  with pytest.raises(UserError, match="the batch has no 'weight'"):
    Task(2, use_pixel_weights=True).losses(OUTPUTS, {'label': BATCH['label']})
  with pytest.raises(UserError, match='logits have 2 channels.*takes 3'):
    Task(3).losses(OUTPUTS, BATCH)
