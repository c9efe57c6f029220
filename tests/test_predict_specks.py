"""Small parts of a mask take the class of what surrounds them; by hand, and through every way to predict."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.predict.ensemble import Ensemble, load
from jaxseg.predict.job import OutputFiles, predict_files
from jaxseg.predict.options import Options
from jaxseg.predict.specks import without_specks
from jaxseg.types import UserError
from tests.test_instance_launchers import tiny_experiment
from tests.test_launch import launch
from tests.test_predict_evaluate import assert_same_scores, masks_of, read_result, scores_by_hand
from tests.tiny_runs import make_experiment, make_workdir, random_image


def rows(*lines):
  return np.array([[int(digit) for digit in line] for line in lines], np.uint8)


MASK = rows(
  '0000000',
  '0110003',  # two of class 1, joined by a corner to a third
  '0001000',
  '0000022',
  '2200022',  # two of class 2 at the left, five at the right
  '0000002',
)


def test_by_hand():
  assert without_specks(MASK, 1) is MASK
  np.testing.assert_array_equal(without_specks(MASK, 2), np.where(MASK == 3, 0, MASK))
  without_three = MASK.copy()
  without_three[1, 6] = without_three[4, :2] = 0
  np.testing.assert_array_equal(without_specks(MASK, 3), without_three)
  five = np.zeros_like(MASK)
  five[3:5, 5:] = five[5, 6] = 2
  np.testing.assert_array_equal(without_specks(MASK, 5), five)
  assert without_specks(MASK, 42) is MASK  # nothing would be left


def test_holes_are_filled_and_the_nearest_class_wins():
  assert without_specks(rows('1111', '1011', '1111'), 2).tolist() == [[1] * 4] * 3
  assert without_specks(rows('111022'), 2).tolist() in ([[1, 1, 1, 1, 2, 2]], [[1, 1, 1, 2, 2, 2]])
  assert without_specks(rows('11100222'), 3).tolist() == [[1, 1, 1, 1, 2, 2, 2, 2]]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return make_workdir(tmp_path_factory.mktemp('run'), make_experiment())


def test_every_way_to_predict(run, tmp_path):
  plain, cleaning = load(run), load(run, min_area=30)
  image = random_image(40, 56)
  expected = without_specks(plain(image), 30)
  assert (expected != plain(image)).any()
  for predictor in (cleaning, Ensemble([cleaning, cleaning])):
    prediction = predictor.predict(image, maps=True)
    np.testing.assert_array_equal(prediction['mask'], expected)
    np.testing.assert_allclose(prediction['probabilities'], plain.probabilities(image), atol=1e-6)
  Image.fromarray(image).save(tmp_path / 'a.png')
  for outputs in (OutputFiles(), OutputFiles(probabilities=True)):
    folder = tmp_path / str(outputs.probabilities)
    predict_files(run, tmp_path / 'a.png', folder, options=Options(min_area=30), outputs=outputs)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / 'a.png')), expected)


def test_evaluate_scores_what_is_predicted(run):
  launch('evaluate', f'--workdir={run}', '--min_area=30')
  result = read_result(run, 'val_parts-from-30-pixels')
  examples, masks = masks_of(run, min_area=30)
  assert_same_scores(result, scores_by_hand([e['label'] for e in examples], masks, 4))
  assert result['mode'] == 'parts from 30 pixels'


def test_objects_have_no_specks(tmp_path):
  workdir = make_workdir(tmp_path, tiny_experiment())
  with pytest.raises(UserError, match='min_area=9 is for masks of pixels: config.task=instance'):
    load(workdir, min_area=9)
