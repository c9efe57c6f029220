"""The losses of instances: each term and its gradient by hand, and how they are divided."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import tasks
from jaxseg.data.frame import Frame
from jaxseg.tasks.instance import TRUTH, Task, painted
from jaxseg.types import VOID, Detections, SizeRule, UserError

LOG2 = np.log(2)


def outputs(**changes):
  """One image: 4 sampled anchors, 4 regions of 3 classes, of which 2 may have masks of 2 x 2."""
  base = {
    'rpn_logits': jnp.zeros((1, 4)),
    'rpn_labels': jnp.array([[1, 0, 0, VOID]]),
    'rpn_deltas': jnp.ones((1, 4, 4)),
    'rpn_targets': jnp.zeros((1, 4, 4)).at[0, 0].set(jnp.array((0.0, 1, 2, 3.5))),
    'rois': jnp.zeros((1, 4, 4)),
    'roi_classes': jnp.array([[2, 0, 0, VOID]]),
    'class_logits': jnp.zeros((1, 4, 3)),
    'box_deltas': jnp.zeros((1, 4, 2, 4)).at[0, :, 1].set(0.5),
    'box_targets': jnp.full((1, 4, 4), -1.0),
    'mask_logits': jnp.zeros((1, 2, 2, 2, 2)),
    'mask_targets': jnp.array([[[[True, False], [False, False]]] * 2]),
  }
  return base | changes


def test_every_term_by_hand():
  terms = Task(3).losses(outputs(), {})
  found = {name: (float(total), float(weight)) for name, (total, weight) in terms.items()}
  expected = {
    'rpn/objectness': (3 * LOG2, 4),  # three of four places hold an anchor; all four divide
    'rpn/box': (1 + 0 + 1 + 2.5, 4),
    'class': (3 * np.log(3), 3),
    'box': (4 * 1.5, 3),  # of class 2 of the one positive region
    'mask': (4 * LOG2, 4),
  }
  assert found.keys() == expected.keys()
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def gradient(name, key):
  def total(values):
    return Task(3).losses(outputs(**{key: values}), {})[name][0]

  return np.asarray(jax.grad(total)(outputs()[key]))


def test_gradients_by_hand():
  np.testing.assert_allclose(gradient('rpn/objectness', 'rpn_logits'), [[-0.5, 0.5, 0.5, 0]])
  np.testing.assert_allclose(gradient('rpn/box', 'rpn_deltas')[0, :, 0], (1, 0, 0, 0))
  third = 1 / 3
  expected = [(third, third, -2 * third), *[(-2 * third, third, third)] * 2, (0, 0, 0)]
  np.testing.assert_allclose(gradient('class', 'class_logits')[0], expected, rtol=1e-5)
  moved = gradient('box', 'box_deltas')
  np.testing.assert_array_equal(moved[0, 0], [[0] * 4, [1] * 4])
  assert not moved[0, 1:].any()
  cells = gradient('mask', 'mask_logits')
  np.testing.assert_allclose(cells[0, 0, ..., 1], [[-0.5, 0.5], [0.5, 0.5]])
  assert not cells[..., 0].any() and not cells[0, 1].any()


def test_two_images_add_up():
  """Sums and weights of two images are those of each, so that devices may divide once."""
  random = np.random.default_rng(0)
  other = {
    key: jnp.array(random.normal(size=value.shape), jnp.float32)
    if value.dtype == jnp.float32
    else value
    for key, value in outputs(roi_classes=jnp.array([[1, 2, VOID, VOID]])).items()
  }
  both = {key: jnp.concatenate([value, other[key]]) for key, value in outputs().items()}
  parts = [Task(3).losses(o, {}) for o in (outputs(), other)]
  for name, pair in Task(3).losses(both, {}).items():
    summed = [sum(float(part[name][i]) for part in parts) for i in (0, 1)]
    np.testing.assert_allclose([float(v) for v in pair], summed, rtol=1e-6, err_msg=name)


def test_an_image_without_objects_costs_no_boxes_and_no_masks():
  empty = outputs(rpn_labels=jnp.zeros((1, 4), int), roi_classes=jnp.zeros((1, 4), int))
  terms = Task(3).losses(empty, {})
  for name in ('rpn/box', 'box', 'mask'):
    assert float(terms[name][0]) == 0
  assert float(terms['mask'][1]) == 0 and float(terms['class'][1]) == 4


def test_classes_outside_are_counted():
  classes = np.array([[0, 1, 2], [3, -1, 0]], np.int32)
  assert int(Task(3).invalid({'classes': classes})) == 2


def test_what_the_network_takes():
  batch = {name: np.zeros(1) for name in (*TRUTH, 'extent', 'image', 'label')}
  assert set(Task(2).model_inputs(batch)['truth']) == set(TRUTH)
  with pytest.raises(UserError, match='the batch has no masks: use a dataset with instances'):
    Task(2).model_inputs({name: 0 for name in (*TRUTH, 'extent') if name != 'masks'})
  assert tasks.load('semantic')(2).model_inputs(batch) == {}


def test_what_it_is():
  assert tasks.load('instance') is Task and hash(Task(2)) == hash(Task(2))
  assert (Task(2).headline, tasks.load('semantic')(2).headline) == ('mask_ap', 'mean_iou')
  for classes in (1, 255):
    with pytest.raises(UserError, match='num_classes'):
      Task(classes)


def test_training_examples_are_measured_last():
  [measured] = Task(3, max_instances=7, max_layers=2, min_area=5).transforms
  example = {
    'image': np.zeros((4, 4, 3), np.uint8),
    'instances': np.repeat([[1, 1, 0, 2]], 4, axis=0).astype(np.uint16),
    'instance_classes': np.array([2, 1], np.uint8),
  }
  made = measured(example, np.random.default_rng(0))
  assert set(measured.makes) <= set(made) and made['boxes'].shape == (7, 4)
  assert made['classes'].tolist() == [2, *[0] * 6]  # the second has 4 pixels


def row(boxes, scores, classes, masks):
  """A network's rows for an image; unused ones at the end."""
  rows = {
    'boxes': np.zeros((4, 4), np.float32),
    'scores': np.zeros(4, np.float32),
    'classes': np.zeros(4, np.int32),
    'masks': np.zeros((4, 28, 28), np.float32),
  }
  given = dict(boxes=boxes, scores=scores, classes=classes, masks=masks)
  for name, values in given.items():
    rows[name][: len(values)] = values
  return rows


def test_predictions_are_the_networks_rows():
  names = ('boxes', 'scores', 'classes', 'masks')
  network = {name: jnp.full((1, 4), k) for k, name in enumerate((*names, 'rois'))}
  predicted = Task(3).predict(network, (8, 8), maps=True)
  assert {name: values[0, 0] for name, values in predicted.items()} == dict(
    zip(names, range(4), strict=True)
  )


def test_detections_lie_in_the_image():
  """A network that sees an image of 10 x 12 at half its size, on a canvas of 16 x 16."""
  full = np.ones((28, 28))
  rows = row([(1, 2, 3, 4), (5, 4, 9, 6)], [0.9, 0.6], [1, 2], [full, full])
  frame = Frame(SizeRule(multiple=8), scale=0.5)
  assert frame.canvas((10, 12)) == (16, 16) and frame.factor((10, 12)) == (2, 2)
  prediction = Task(3).in_image(rows, frame, (10, 12))
  found = prediction['detections']
  np.testing.assert_array_equal(found.boxes, [(2, 4, 6, 8), (10, 8, 12, 10)])  # cut at the border
  np.testing.assert_allclose(found.scores, [0.9, 0.6])
  assert found.classes.tolist() == [1, 2]
  wanted = np.zeros((2, 10, 12), bool)
  wanted[0, 4:8, 2:6] = wanted[1, 8:, 10:] = True
  np.testing.assert_array_equal(found.masks, wanted)
  np.testing.assert_array_equal(prediction['ids'], wanted[0] + 2 * wanted[1])
  np.testing.assert_array_equal(prediction['mask'], wanted[0] + 2 * wanted[1])
  assert (prediction['ids'].dtype, prediction['mask'].dtype) == (np.uint16, np.uint8)


def test_a_mask_belongs_to_its_whole_box():
  """Half of the box lies beyond the image; its left half alone is the object, and is all shown."""
  mask = np.zeros((28, 28))
  mask[:, :14] = 1
  rows = row([[0, 0, 16, 8]], [0.9], [1], [mask])
  found = Task(3).in_image(rows, Frame(SizeRule(multiple=16)), (8, 8))['detections']
  assert np.asarray(found.masks).all() and found.boxes.tolist() == [[0, 0, 8, 8]]


def test_painted_with_the_best_on_top():
  masks = np.zeros((3, 2, 4), bool)
  masks[0, 0, :2] = masks[1, 0] = masks[2] = True
  found = Detections(np.zeros((3, 4)), np.array([0.9, 0.6, 0.4]), np.array([3, 1, 2]), masks)
  ids, classes = painted(found)
  assert ids.tolist() == [[1, 1, 2, 2], [0, 0, 0, 0]]
  assert classes.tolist() == [[3, 3, 1, 1], [0, 0, 0, 0]]
  assert painted(found, 0.4)[0].tolist() == [[1, 1, 2, 2], [3, 3, 3, 3]]
  least = Task(num_classes=3).of_objects(found, 0.4)
  assert least['ids'].tolist() == [[1, 1, 2, 2], [3, 3, 3, 3]] and len(least['detections']) == 3
  surest = Task(num_classes=3).of_objects(found, float(found.scores[0]))
  assert len(surest['detections']) == 1 and set(np.unique(surest['ids'])) == {0, 1}


def test_predictions_are_scored_and_drawn():
  instances = np.zeros((10, 12), np.uint16)
  instances[4:8, 2:6] = 1
  example = {
    'image': np.zeros((10, 12, 3), np.uint8),
    'instances': instances,
    'instance_classes': np.array([1], np.uint8),
  }
  rows = row([(2, 4, 6, 8)], [0.9], [1], [np.ones((28, 28))])
  task = Task(2)
  prediction = task.in_image(rows, Frame(SizeRule(multiple=4)), (10, 12))
  score = task.scorer(('background', 'cell'))
  score.add(example, prediction)
  assert score.compute()[task.headline] == pytest.approx(1)
  pictures = task.draw(example, prediction, None)
  np.testing.assert_array_equal(pictures['truth'], pictures['prediction'])
  assert list(task.draw(example, None, None)) == ['image', 'truth']
