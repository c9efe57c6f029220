"""The task's terms and metrics on a few pixels, by hand."""

from types import SimpleNamespace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import tasks
from jaxseg.config.parts import arguments
from jaxseg.data.frame import Frame
from jaxseg.tasks import semantic
from jaxseg.tasks.semantic import Task
from jaxseg.types import VOID, SizeRule, UserError

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
  with pytest.raises(
    UserError, match="no task 'semantics': choose one of .*did you mean 'semantic'"
  ):
    tasks.load('semantics')


@pytest.mark.parametrize(
  ('options', 'expected_sum', 'expected_weight'),
  [
    ({}, PLAIN, 3),
    ({'normalize': 'pixels'}, PLAIN, 3),
    ({'normalize': 'sum'}, PLAIN, 0),
    ({'class_weights': (5.0, 0.5)}, LOG(4 / 3) + 5 * LOG(4), 6),
    ({'class_weights': (5.0, 0.5), 'normalize': 'pixels'}, LOG(4 / 3) + 5 * LOG(4), 3),
    ({'pixel_weights': True}, 4 * LOG(4 / 3) + 2 * LOG(4), 6),
    ({'pixel_weights': True, 'normalize': 'sum'}, 4 * LOG(4 / 3) + 2 * LOG(4), 0),
    ({'pixel_weights': True, 'normalize': 'pixels'}, 4 * LOG(4 / 3) + 2 * LOG(4), 3),
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
  rows = task.predict(outputs, (2, 2), maps=True)
  np.testing.assert_array_equal(rows['mask'], np.ones((1, 2, 2)))
  np.testing.assert_allclose(rows['probabilities'][0, 0, 0], [1 / 4, 3 / 4], rtol=1e-6)


def test_dice_is_a_term_of_its_own():
  terms = Task(2, 'softmax_dice', normalize='sum').losses(OUTPUTS, BATCH)
  assert list(terms) == ['xent', 'dice']
  dice_0 = 2 * 1 / 4 / (3 / 16 + 1)
  dice_1 = 2 * 6 / 4 / (27 / 16 + 2)
  np.testing.assert_allclose(terms['dice'], [2 - dice_0 - dice_1, 2], rtol=1e-5)
  np.testing.assert_allclose(total(terms), PLAIN + (2 - dice_0 - dice_1) / 2, rtol=1e-5)


def test_auxiliary_term_is_scaled_in_its_sum():
  outputs = {**OUTPUTS, 'aux_logits': jnp.zeros((1, 2, 2, 2))}
  terms = Task(2).losses(outputs, BATCH)
  np.testing.assert_allclose(terms['aux/xent'], [0.4 * 3 * LOG(2), 3], rtol=1e-6)
  np.testing.assert_allclose(total(terms), PLAIN / 3 + 0.4 * LOG(2), rtol=1e-6)
  assert list(Task(2, aux_weight=0.0).losses(outputs, BATCH)) == ['xent']


def test_smaller_logits_see_the_centre_of_label_and_weight():
  label = np.full((1, 4, 6), 1, np.uint8)
  label[:, 1:3, 2:4] = BATCH['label']
  label[0, 0, 0] = 77
  weight = np.full((1, 4, 6), 100.0, np.float32)
  weight[:, 1:3, 2:4] = BATCH['weight']
  batch = {'label': jnp.asarray(label), 'weight': jnp.asarray(weight)}
  task = Task(2, pixel_weights=True)
  small = task.losses(OUTPUTS, BATCH)['xent']
  np.testing.assert_array_equal(task.losses(OUTPUTS, batch)['xent'], small)
  assert task.invalid(batch) == 1  # also outside the crop


@pytest.mark.parametrize('size', [(1, 2, 2), (2, 1, 2), (2, 2, 3)])
def test_labels_that_no_centre_crop_fits_are_refused(size):
  with pytest.raises(UserError, match='do not fit the centre'):
    semantic.align(np.zeros((1, *size[1:])), np.zeros((1, 2, 2 if size[0] == 2 else 3, 4)))


def test_all_void_gives_zero_loss_and_zero_gradient():
  batch = {'label': jnp.full((1, 2, 2), VOID, jnp.uint8), 'weight': BATCH['weight']}
  for loss in ('softmax', 'softmax_dice'):
    for normalize in get_args(semantic.Normalize):
      task = Task(2, loss, normalize, class_weights=(1.0, 2.0), pixel_weights=True)
      value, gradient = jax.jit(
        jax.value_and_grad(lambda x, task=task: total(task.losses({'logits': x}, batch)))
      )(OUTPUTS['logits'])
      assert value == 0
      np.testing.assert_array_equal(gradient, jnp.zeros((1, 2, 2, 2)))
  assert task.invalid(batch) == 0


def test_labels_outside_the_classes_do_not_train_but_are_reported():
  batch = {'label': jnp.asarray([[[1, 0], [1, 2]]], jnp.uint8)}
  task = Task(2)
  np.testing.assert_allclose(task.losses(OUTPUTS, batch)['xent'], [PLAIN, 3], rtol=1e-6)
  assert task.invalid(batch) == 1 and task.invalid(batch).dtype == jnp.int32


def test_predictions_are_read_from_resized_logits():
  """Half-pixel centres: 2 columns become 4, mixed 3 to 1 beside the middle. Class 1 wins from 3/8 on."""
  logits = jnp.asarray([[[[3.0, 0.0], [0.0, 5.0]]]])
  rows = jax.jit(Task.predict, static_argnums=(0, 2), static_argnames='maps')(
    Task(2), {'logits': logits}, (1, 4), maps=True
  )
  mixed = np.array([[[3.0, 0.0], [2.25, 1.25], [0.75, 3.75], [0.0, 5.0]]])
  np.testing.assert_array_equal(rows['mask'], [[[0, 0, 1, 1]]])
  assert rows['mask'].dtype == jnp.uint8 and rows['probabilities'].dtype == jnp.float32
  expected = np.exp(mixed) / np.exp(mixed).sum(-1, keepdims=True)
  np.testing.assert_allclose(rows['probabilities'][0], expected, rtol=1e-6)
  assert list(Task(2).predict({'logits': logits}, (1, 4))) == ['mask']


def test_probabilities_are_float32_whatever_the_logits():
  logits = jnp.asarray([[[[0.0, 0.0, LOG(2)]]]], jnp.bfloat16)
  rows = Task(3).predict({'logits': logits}, (1, 1), maps=True)
  assert rows['probabilities'].dtype == jnp.float32 and rows['mask'].item() == 2
  np.testing.assert_allclose(rows['probabilities'][0, 0, 0], [1 / 4, 1 / 4, 1 / 2], atol=2e-3)
  tie = Task(2).predict({'logits': jnp.zeros((1, 1, 1, 2))}, (1, 1))
  assert tie['mask'].item() == 0


def test_an_images_own_part_is_scored_and_drawn():
  """3 x 2 pixels lie in the upper left of a canvas of 4 x 4."""
  frame = Frame(SizeRule(multiple=4))
  mask = np.arange(16, dtype=np.uint8).reshape(4, 4) % 2
  row = {'mask': mask, 'probabilities': np.eye(2, dtype=np.float32)[mask]}
  prediction = Task(2).in_image(row, frame, (3, 2))
  np.testing.assert_array_equal(prediction['mask'], [[0, 1]] * 3)
  np.testing.assert_array_equal(prediction['probabilities'], np.eye(2)[prediction['mask']])
  example = {'image': np.zeros((3, 2, 3), np.uint8), 'label': np.array([[0, 1], [0, 0], [VOID, 1]])}
  score = Task(2).scorer(('a', 'b'), absent='zero', f_scores={'a': 1.0})
  score.add(example, prediction)
  result = score.compute()
  assert result['confusion'] == [[2, 1], [0, 2]] and Task(2).headline in result
  assert result['f_score'] == pytest.approx(2 * 2 / (2 * 2 + 1))
  pictures = Task(2).draw(example, prediction, SimpleNamespace(palette=((9, 9, 9), (7, 7, 7))))
  assert list(pictures) == ['image', 'truth', 'prediction', 'errors']
  np.testing.assert_array_equal(pictures['prediction'], [[[9] * 3, [7] * 3]] * 3)
  truth = Task(2).draw(example, None, SimpleNamespace(palette=((9, 9, 9), (7, 7, 7))))
  assert list(truth) == ['image', 'truth']


def test_equal_tasks_are_one_key():
  assert hash(Task(2, class_weights=[1, 2])) == hash(Task(2, class_weights=(1.0, 2.0)))
  assert Task(2, class_weights=[1, 2]) == Task(2, class_weights=(1.0, 2.0))


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'name': 'dice'}, "config.loss.name='dice': choose one of softmax, sigmoid, softmax_dice"),
    ({'normalize': 'mean'}, "config.loss.normalize='mean': choose one of weights, pixels, sum"),
    ({'name': 'sigmoid'}, "'sigmoid' is for 2 classes, got 3"),
    ({'class_weights': (1.0, 2.0)}, '2 numbers for 3 classes'),
    ({'class_weights': (1.0, 2.0, -1.0)}, 'give one a class, none negative and not all 0'),
    ({'name': 'jaxseg.my.loss'}, 'cannot be imported'),
    ({'num_classes': 1}, 'num_classes is 1; a task has from 2'),
  ],
)
def test_options_that_make_no_sense_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    Task(**{'num_classes': 3, **options})


def test_missing_weights_and_wrong_channels_are_refused():
  with pytest.raises(UserError, match="the batch has no 'weight'"):
    Task(2, pixel_weights=True).losses(OUTPUTS, {'label': BATCH['label']})
  with pytest.raises(UserError, match='logits have 2 channels.*takes 3'):
    Task(3).losses(OUTPUTS, BATCH)


def test_weights_that_follow_from_the_data_are_needed_for_a_loss_alone():
  options = arguments(Task, {'class_weights': 'median_frequency'}, 'config.loss', ('num_classes',))
  task = Task(2, **options)
  assert task.predict(OUTPUTS, (2, 2))['mask'].shape == (1, 2, 2)
  with pytest.raises(UserError, match="class_weights='median_frequency' needs the training data"):
    task.losses(OUTPUTS, BATCH)
  with pytest.raises(UserError, match='config.loss.class_weights='):
    arguments(Task, {'class_weights': 'mean_frequency'}, 'config.loss', ('num_classes',))


def focal(logits, label, *, class_weights, pixel_weights):
  """A loss of one's own: (1 - p)^2 times the cross-entropy of the true class."""
  del class_weights, pixel_weights
  valid = label != VOID
  truth = jnp.where(valid, label, 0).astype(jnp.int32)
  log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), truth[..., None], axis=-1)[..., 0]
  return jnp.sum(jnp.where(valid, -((1 - jnp.exp(log_p)) ** 2) * log_p, 0)), jnp.sum(valid * 1.0)


def test_a_loss_of_ones_own_is_named_by_its_path(monkeypatch):
  """One void pixel and one of two even classes: (1 - 0.5)^2 log 2."""
  task = Task(2, name='tests.test_tasks_semantic.focal', aux_weight=0.5)
  logits = jnp.zeros((1, 1, 2, 2))
  batch = {'label': jnp.array([[[1, VOID]]], jnp.int32)}
  terms = task.losses({'logits': logits, 'aux_logits': logits}, batch)
  assert terms.keys() == {'focal', 'aux/focal'}
  assert Task(2).weights_from_labels and not task.weights_from_labels
  monkeypatch.setattr(focal, 'weights_from_labels', True, raising=False)
  assert task.weights_from_labels
  total, weight = terms['focal']
  np.testing.assert_allclose([total, weight], [0.25 * np.log(2), 1], rtol=1e-6)
  np.testing.assert_allclose(terms['aux/focal'][0], 0.125 * np.log(2), rtol=1e-6)
  for name, reason in (
    ('tests.test_tasks_semantic.none', 'no function'),
    ('not.there', 'cannot be'),
  ):
    with pytest.raises(UserError, match=f'loss {name!r}.* {reason}'):
      Task(2, name=name)
