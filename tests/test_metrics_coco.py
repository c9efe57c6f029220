"""Average precision, worked out by hand, and the same as the whole of pycocotools gives."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as rle_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jaxseg.data import outlines
from jaxseg.metrics import coco, components
from jaxseg.metrics.coco import Score, results_of
from jaxseg.types import Detections, UserError

NAMES = ('background', 'disc', 'square')


def square(top, left, height, width, size=(120, 120)):
  mask = np.zeros(size, bool)
  mask[top : top + height, left : left + width] = True
  return mask


def example_of(masks, classes=None, **tables):
  """An example whose objects do not overlap."""
  instances = np.zeros(masks[0].shape if masks else (120, 120), np.uint16)
  for i, mask in enumerate(masks, start=1):
    instances[mask] = i
  classes = np.array([1] * len(masks) if classes is None else classes, np.uint8)
  return {'instances': instances, 'instance_classes': classes, **tables}


def found_of(masks, scores, classes=None, size=(120, 120)):
  boxes = []
  for mask in masks:
    rows, columns = np.nonzero(mask)
    boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
  return Detections(
    np.array(boxes, np.float32).reshape(-1, 4),
    np.array(scores, np.float32),
    np.array([1] * len(masks) if classes is None else classes, np.int32),
    np.array(masks, bool).reshape(-1, *size),
  )


NOTHING = found_of([], [])


def summary(*images, **options):
  score = Score(NAMES, **options)
  for example, found in images:
    score.add(example, {'detections': found})
  found = score.compute()
  per_class = {k: _rounded(v) for k, v in found.pop('per_class_ap').items()}
  return {k: _rounded(v) for k, v in found.items()} | {'per_class_ap': per_class}


def _rounded(value):
  """pycocotools adds a rounding error to what it divides by."""
  return None if value is None else round(value, 12)


def test_an_iou_counts_at_the_thresholds_below_it():
  """8 of 10 rows and 8 of 10 columns: IoU .64, above .50, .55 and .60 of the ten thresholds."""
  found = found_of([square(10, 10, 8, 8)], [0.9])
  scores = summary((example_of([square(10, 10, 10, 10)]), found))
  assert scores['mask_ap'] == pytest.approx(0.3)
  assert (scores['mask_ap50'], scores['mask_ap75']) == (1, 0)
  assert scores['box_ap'] == pytest.approx(0.3)  # squares: their boxes overlap as they do
  assert scores['per_class_ap'] == {'disc': pytest.approx(0.3), 'square': None}


def test_boxes_are_scored_by_themselves():
  """A mask of a quarter of the object in a box that is right."""
  found = found_of([square(10, 10, 5, 5)], [0.9])
  found.boxes[:] = (10, 10, 20, 20)
  scores = summary((example_of([square(10, 10, 10, 10)]), found))
  assert (scores['mask_ap50'], scores['box_ap']) == (0, 1)


def test_precision_at_101_recalls():
  """Right, wrong, right: precision 1 up to recall .50 (51 points), 2/3 for the 50 beyond."""
  masks = [square(0, 0, 10, 10), square(60, 0, 10, 10), square(30, 0, 10, 10)]
  found = found_of(masks, [0.9, 0.8, 0.7])
  scores = summary((example_of([masks[0], masks[2]]), found))
  assert scores['mask_ap'] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_scores_are_compared_over_all_images():
  """The wrong one of the second image comes between the right ones: the same curve as above."""
  masks = [square(0, 0, 10, 10), square(60, 0, 10, 10)]
  first = example_of(masks[:1]), found_of(masks[:1], [0.9])
  second = example_of(masks[:1]), found_of(masks[::-1], [0.8, 0.7])
  assert summary(first, second)['mask_ap'] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_second_detection_of_an_object_is_wrong():
  """Both objects are covered, one twice and with the best scores: right, wrong, right again."""
  masks = [square(0, 0, 10, 10), square(30, 0, 10, 10)]
  found = found_of([masks[0], masks[0], masks[1]], [0.9, 0.8, 0.7])
  assert summary((example_of(masks), found))['mask_ap'] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_equal_scores_keep_the_order_of_detections_and_of_images():
  right, wrong = square(0, 0, 10, 10), square(60, 0, 10, 10)
  example = example_of([right])
  assert summary((example, found_of([right, wrong], [0.5, 0.5])))['mask_ap'] == 1
  assert summary((example, found_of([wrong, right], [0.5, 0.5])))['mask_ap'] == pytest.approx(0.5)
  hit, miss = found_of([right], [0.5]), found_of([wrong], [0.5])
  added_late = ({**example, 'index': 1}, miss), ({**example, 'index': 0}, hit)
  in_order = summary(added_late[1], added_late[0])
  assert summary(*added_late) == in_order and in_order['mask_ap'] == pytest.approx(51 / 101)


def test_what_lies_in_a_crowd_does_not_count():
  """Two detections inside the crowd would be the best scored and wrong."""
  right, crowd = square(0, 0, 10, 10), square(50, 0, 40, 40)
  inside = [square(52, 2, 10, 10), square(70, 20, 10, 10)]
  found = found_of([*inside, right], [0.9, 0.8, 0.5])
  example = example_of([right, crowd], crowd=np.array([False, True]))
  assert summary((example, found))['mask_ap'] == 1
  wrong = summary((example_of([right]), found))
  assert wrong['mask_ap'] == pytest.approx(1 / 3)


def test_ranges_of_area():
  """31^2 = 961 is small, 33^2 = 1089 medium (32^2 = 1024), 97^2 = 9409 large (96^2 = 9216)."""
  size = (200, 200)
  masks = [square(0, 0, 31, 31, size), square(0, 50, 33, 33, size), square(100, 0, 97, 97, size)]
  found = found_of([masks[0], masks[2]], [0.9, 0.8], size=size)
  scores = summary((example_of(masks), found))
  assert [scores[f'mask_ap_{k}'] for k in ('small', 'medium', 'large')] == [1, 0, 1]
  told = example_of(masks, area=np.array([961, 1000, 9409], np.float32))  # as annotators measured
  scores = summary((told, found))
  assert scores['mask_ap_medium'] is None
  assert scores['mask_ap_small'] == pytest.approx(51 / 101)  # one of two, none wrong


def test_no_more_than_the_best_detections_count():
  masks = [square(0, 0, 10, 10), square(30, 0, 10, 10)]
  found = found_of(masks, [0.6, 0.9])
  scores = summary((example_of(masks), found), max_detections=1)
  assert scores['mask_ap'] == pytest.approx(51 / 101)


def test_classes_are_averaged_and_a_wrong_class_is_wrong():
  masks = [square(0, 0, 10, 10), square(30, 0, 10, 10)]
  scores = summary((example_of(masks, [1, 2]), found_of(masks, [0.9, 0.8], [1, 1])))
  assert scores['per_class_ap'] == {'disc': 1, 'square': 0}
  assert scores['mask_ap'] == 0.5


def test_layers_hold_objects_that_overlap():
  whole, part = square(0, 0, 20, 20), square(0, 0, 20, 10)
  layers = np.stack([whole * np.uint16(1), part * np.uint16(2)], axis=-1)
  example = {'instances': layers, 'instance_classes': np.array([1, 1], np.uint8)}
  assert summary((example, found_of([part, whole], [0.9, 0.8])))['mask_ap'] == 1


def test_ids_without_pixels():
  """A number that never occurs is no object, unless the annotators have measured it."""
  right = square(0, 0, 10, 10)
  example = {'instances': right * np.uint16(2), 'instance_classes': np.array([1, 1], np.uint8)}
  assert summary((example, found_of([right], [0.9])))['mask_ap'] == 1
  example['area'] = np.array([3.5, 100], np.float32)
  assert summary((example, found_of([right], [0.9])))['mask_ap'] == pytest.approx(51 / 101)


def test_boxes_of_the_annotators():
  right = square(0, 0, 10, 10)
  example = example_of([right], instance_boxes=np.array([[0, 0, 10, 20]], np.float32))
  scores = summary((example, found_of([right], [0.9])))
  assert (scores['mask_ap'], scores['box_ap50'], scores['box_ap75']) == (1, 1, 0)  # IoU .5


def test_images_without_detections_or_objects():
  right = square(0, 0, 10, 10)
  assert summary((example_of([right]), NOTHING))['mask_ap'] == 0
  empty = example_of([]), found_of([right], [0.95])
  assert summary((example_of([right]), found_of([right], [0.9])), empty)['mask_ap'] == 0.5
  with pytest.raises(UserError, match='nothing to score'):
    summary(empty)


def test_mistakes_are_told():
  right = square(0, 0, 10, 10)
  with pytest.raises(UserError, match='number their objects'):
    summary(({'image': right}, NOTHING))
  with pytest.raises(UserError, match='classes 3 to 3; allowed are 1 to 2'):
    summary((example_of([right], [3]), NOTHING))
  with pytest.raises(UserError, match='masks of'):
    summary((example_of([right]), found_of([right[:5]], [0.9], size=(5, 120))))


def test_results_are_in_cocos_format():
  (result,) = results_of(found_of([square(1, 2, 3, 4)], [0.5], [2]))
  assert (result['category_id'], result['score'], result['bbox']) == (2, 0.5, [2, 1, 4, 3])
  np.testing.assert_array_equal(rle_masks.decode(result['segmentation']), square(1, 2, 3, 4))


def random_image(rng):
  """A scene of rectangles, and detections near some of them and anywhere."""
  size, masks = (80, 90), []
  for _ in range(int(rng.integers(1, 7))):
    top, left = rng.integers(0, 50, 2)
    masks.append(square(top, left, *rng.integers(4, 40, 2), size))
  layers = np.stack([m * np.uint16(i) for i, m in enumerate(masks, start=1)], axis=-1)
  classes = rng.integers(1, 3, len(masks)).astype(np.uint8)
  crowd = rng.random(len(masks)) < 0.2
  moved = [np.roll(m, rng.integers(-2, 3, 2), (0, 1)) for m in masks]
  kinds = [int(k) if rng.random() < 0.8 else 1 for k in classes]
  moved, kinds = moved + [square(*rng.integers(0, 60, 2), 12, 9, size)], [*kinds, 2]
  scores = np.sort(rng.integers(1, 8, len(moved)))[::-1] / 8  # many are equal
  found = found_of(moved, scores, kinds, size)
  return {'instances': layers, 'instance_classes': classes, 'crowd': crowd}, found


def test_parity_with_pycocotools_files(tmp_path):
  """The same objects written as annotations and results, read and summed up by pycocotools."""
  rng = np.random.default_rng(0)
  images = [random_image(rng) for _ in range(12)]
  annotations, results = [], []
  for number, (example, found) in enumerate(images, start=1):
    for i, kind in enumerate(example['instance_classes']):
      mask = example['instances'][..., i] == i + 1
      code = rle_masks.encode(np.asfortranarray(mask, np.uint8))
      annotations.append(
        dict(
          id=len(annotations) + 1,
          image_id=number,
          category_id=int(kind),
          iscrowd=int(example['crowd'][i]),
          area=int(mask.sum()),
          bbox=rle_masks.toBbox(code).tolist(),
          segmentation={'size': code['size'], 'counts': code['counts'].decode()},
        )
      )
    for result in results_of(found):
      code = result['segmentation']
      code = {'size': code['size'], 'counts': code['counts'].decode()}
      results.append({**result, 'segmentation': code, 'image_id': number})
  truth = dict(
    images=[dict(id=n, height=80, width=90) for n in range(1, 13)],
    annotations=annotations,
    categories=[dict(id=1, name='disc'), dict(id=2, name='square')],
  )
  (tmp_path / 'truth.json').write_text(json.dumps(truth))
  wanted = {}
  with contextlib.redirect_stdout(io.StringIO()):
    reference = COCO(str(tmp_path / 'truth.json'))
    for kind, name, other in (('segm', 'mask', 'bbox'), ('bbox', 'box', 'segmentation')):
      # a box beside a mask would decide the mask's area
      own = [{k: v for k, v in result.items() if k != other} for result in results]
      evaluation = COCOeval(reference, reference.loadRes(own), kind)
      evaluation.evaluate()
      evaluation.accumulate()
      evaluation.summarize()
      for key, value in zip(
        ('ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large'),
        evaluation.stats[:6],
        strict=True,
      ):
        wanted[f'{name}_{key}'] = value
  got = summary(*images)
  for key, value in got.items():
    if key != 'per_class_ap':
      assert (-1 if value is None else value) == pytest.approx(wanted[key], abs=1e-12), key
  assert 0.1 < got['mask_ap'] < 0.9


def test_components_as_objects_by_hand():
  """Two components of class 1, one of class 2; scores are mean probabilities of the class."""
  mask = np.array([[1, 1, 0, 1], [0, 0, 0, 2]], np.uint8)
  probabilities = np.zeros((2, 4, 3), np.float32)
  probabilities[0, :, 1] = (0.6, 0.8, 0.9, 0.9)
  probabilities[1, 3, 2] = 0.95
  found = components.detections_of(mask, probabilities)
  np.testing.assert_allclose(found.scores, [0.95, 0.9, 0.7], rtol=1e-6)
  assert found.classes.tolist() == [2, 1, 1]
  assert found.boxes.tolist() == [[3, 1, 4, 2], [3, 0, 4, 1], [0, 0, 2, 1]]
  assert [m.sum() for m in found.masks] == [1, 1, 2]
  assert len(components.detections_of(np.zeros((2, 4), np.uint8), probabilities)) == 0
  example = {'instances': np.array([[1, 1, 0, 2], [0, 0, 0, 3]]), 'instance_classes': [1, 1, 2]}
  score = components.Score(NAMES)
  score.add(example, {'mask': mask, 'probabilities': probabilities})
  assert score.compute()['per_class_ap'] == {'disc': pytest.approx(1), 'square': pytest.approx(1)}


def test_run_lengths_are_pycocotools():
  """Of the pixels of a window: empty, full, single ones, at every border."""
  rng = np.random.default_rng(0)
  for share in (0, 0.05, 0.5, 1):
    for _ in range(10):
      size = tuple(int(n) for n in rng.integers(1, 12, 2))
      mask = np.zeros(size, bool)
      top, left = (int(rng.integers(0, n)) for n in size)
      mask[top:, left:] = rng.random(mask[top:, left:].shape) < share
      expected = rle_masks.encode(np.asfortranarray(mask, np.uint8))
      assert coco.encode(outlines.tight(mask), size) == expected
      assert coco.encode(outlines.CroppedMask(0, 0, mask), size) == expected
