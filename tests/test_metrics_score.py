"""Every score: two halves merged are the whole; results speak for themselves."""

import pickle

import numpy as np
import pytest

from jaxseg.config import parts
from jaxseg.metrics import components, score
from jaxseg.types import VOID, UserError

NAMES = ('background', 'membrane', 'disc')
SCORES = [name for name in parts.names('metrics') if name != 'score']


def images(count=6, size=(24, 30)):
  """Random scenes with void; predictions are the truth with blocks changed."""
  rng = np.random.default_rng(0)
  for index in range(count):
    coarse = rng.integers(0, 3, (4, 5)).astype(np.uint8)
    label = coarse.repeat(6, axis=0).repeat(6, axis=1)
    mask = label.copy()
    mask[rng.integers(0, 18) :, : rng.integers(6, 20)] = rng.integers(0, 3)
    probabilities = rng.dirichlet((1, 1, 1), size).astype(np.float32)
    probabilities = 0.3 * probabilities + 0.7 * np.eye(3, dtype=np.float32)[mask]
    instances = np.zeros(size, np.uint16)
    instances[:12, :6], instances[14:20, 10:25] = 1, 2
    label[0, :4] = VOID
    example = {
      'label': np.where(label == 2, 0, label) if index == 0 else label,
      'instances': instances,
      'instance_classes': np.array([1, 2], np.uint8),
      'index': index,
    }
    detections = components.detections_of(mask, probabilities)
    ids = np.where(mask > 0, mask, 0).astype(np.uint16)
    yield (
      example,
      dict(mask=mask, probabilities=probabilities, detections=detections, ids=ids),
    )


IMAGES = list(images())


def scored(name, chosen):
  one = score.load(name, NAMES)
  for pair in chosen:
    one.add(*pair)
  return one


def check_equal(result, expected):
  assert result.keys() == expected.keys()
  for key, value in expected.items():
    if isinstance(value, dict):
      check_equal(result[key], value)
    elif value is None or key == 'confusion':
      assert result[key] == value
    else:
      assert result[key] == pytest.approx(value, rel=1e-12), key


@pytest.mark.parametrize('name', SCORES)
def test_halves_merge_into_the_whole_also_from_another_process(name):
  whole = scored(name, IMAGES).compute()
  first, second = scored(name, IMAGES[::2]), scored(name, IMAGES[1::2])
  first.merge(pickle.loads(pickle.dumps(second)))
  check_equal(first.compute(), whole)
  nothing = score.load(name, NAMES)
  nothing.merge(scored(name, IMAGES))
  check_equal(nothing.compute(), whole)


@pytest.mark.parametrize('name', SCORES)
def test_results_hold_numbers_columns_breakdowns_and_a_matrix(name):
  result = scored(name, IMAGES).compute()
  of_maps = ('components', 'confidence', 'dice', 'neurites', 'temperature')
  assert score.load(name, NAMES).maps == (name in of_maps)
  for key, value in result.items():
    if key == 'confusion':
      assert np.shape(value) == (3, 3) and type(value[0][0]) is int
    elif key.startswith('by_'):
      assert all(type(v) in (int, float) for row in value.values() for v in row.values()), key
    elif key in ('reliability', 'risk_coverage'):
      assert all(type(v) is float for values in value.values() for v in values), key
    else:
      values = value.values() if isinstance(value, dict) else [value]
      assert all(v is None or type(v) is float for v in values), key


def test_scores_join_several():
  joined = score.Scores(score.load(name, NAMES) for name in ('confusion', 'dice'))
  other = score.Scores(score.load(name, NAMES) for name in ('confusion', 'dice'))
  for pair in IMAGES[:3]:
    joined.add(*pair)
  for pair in IMAGES[3:]:
    other.add(*pair)
  joined.merge(pickle.loads(pickle.dumps(other)))
  expected = {**scored('confusion', IMAGES).compute(), **scored('dice', IMAGES).compute()}
  check_equal(joined.compute(), expected)
  assert joined.maps and not score.Scores([score.load('seg', NAMES)]).maps


def test_groups_are_scored_apart():
  """Those of even and odd images are what each half has alone; an empty group merges in."""

  def make():
    return score.Groups('half', lambda e: ('even', 'odd')[e['index'] % 2], lambda: own())

  def own():
    return score.load('confusion', NAMES)

  first, second = make(), make()
  for number, pair in enumerate(IMAGES):
    (first if number < 2 else second).add(*pair)
  first.merge(second)
  result = first.compute()
  assert list(result) == ['by_half'] and list(result['by_half']) == ['even', 'odd']
  for name, chosen in (('even', IMAGES[::2]), ('odd', IMAGES[1::2])):
    expected = {'images': 3, **score.numbers(scored('confusion', chosen).compute())}
    assert result['by_half'][name] == expected
  void = {**IMAGES[0][0], 'label': np.full_like(IMAGES[0][0]['label'], VOID)}
  alone = make()
  alone.add(void, IMAGES[0][1])
  assert (
    alone.compute()['by_half']['even']['pixel_accuracy'] is None
  )  # and no NaN, which JSON lacks
  assert score.numbers(result) == {} and score.columns(result) == {}
  assert score.breakdowns({**result, 'mean_iou': 0.5}) == {'half': result['by_half']}


def test_of_many_groups_the_lowest_are_shown():
  rows = {f'day {i}': {'images': 1, 'iou': None if i == 7 else i / 100} for i in range(60, 0, -1)}
  ((title, shown),) = score.breakdowns({'by_day': rows, 'by_none': {}}).items()
  assert title == 'day, the lowest 40 of 60'
  assert [*shown] == [f'day {i}' for i in range(1, 42) if i != 7]


def test_numbers_and_columns_need_no_table_of_names():
  result = {
    'split': 'val',
    'step': 7,
    'images': 3,
    'mode': '',
    'mean_iou': 0.5,
    'seg': None,
    'per_class_iou': {'background': 0.25, 'disc': None},
    'f_score': 0.75,
    'per_class_f_score': {'disc (beta 2)': 0.75},
    'per_class_ap': {'disc': 0.125},
    'neurites': {'v_rand': 0.9},
    'confusion': [[1, 0], [0, 1]],
    'paper': {'params': 1, 'mean_iou': 0.477, 'source': 'arXiv:1'},
  }
  assert score.numbers(result) == {
    'mean_iou': 0.5,
    'seg': None,
    'f_score': 0.75,
    'f_score of disc (beta 2)': 0.75,
    'v_rand': 0.9,
  }
  assert score.columns(result) == {
    'iou': {'background': 0.25, 'disc': None},
    'ap': {'disc': 0.125},
  }
  ap_first = {
    'per_class_ap': {'disc': 0.5},
    'per_class_boundary_f1': {'background': 1.0, 'disc': 1.0},
  }
  assert list(score.columns(ap_first)) == ['ap', 'boundary_f1'] and not score.numbers(ap_first)
  assert score.published(result['paper']) == {'mean_iou': 0.477} and score.published(None) == {}


def test_a_number_of_one_image():
  pair = IMAGES[1]
  expected = scored('confusion', [pair]).compute()['mean_iou']
  assert score.of_image(score.load('confusion', NAMES), *pair, 'mean_iou') == expected
  void = {'label': np.full((24, 30), VOID, np.uint8)}
  assert score.of_image(score.load('confusion', NAMES), void, pair[1], 'mean_iou') is None
  empty = {'instances': np.zeros((24, 30), np.uint16), 'instance_classes': np.zeros(0, np.uint8)}
  assert score.of_image(score.load('coco', NAMES), empty, pair[1], 'mask_ap') is None


def test_a_wrong_name_is_answered():
  with pytest.raises(
    UserError, match="no score 'dise': choose one of boundary, .*did you mean 'dice'"
  ):
    score.load('dise', NAMES)
