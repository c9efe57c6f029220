"""Areas, overlaps and offsets of boxes; anchors written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.nn.detection import boxes as box
from jaxseg.nn.detection.boxes import make_anchors


def rows(*values):
  return jnp.array(values, jnp.float32)


def test_a_pixel_has_area_one_and_an_inverted_box_none():
  np.testing.assert_array_equal(
    box.area(rows((0, 0, 1, 1), (2, 1, 5, 3), (3, 3, 1, 9), (0, 0, 0, 0))), (1, 6, 0, 0)
  )


def test_iou_by_hand():
  """A 2x2 box shares 1 of 4 + 4 - 1 with its neighbour; half of a box of the same top-left corner."""
  a = rows((0, 0, 2, 2), (0, 0, 0, 0))
  b = rows((0, 0, 2, 2), (1, 1, 3, 3), (0, 0, 2, 1), (2, 0, 4, 2), (0, 0, 0, 0))
  np.testing.assert_allclose(box.iou(a, b), [[1, 1 / 7, 1 / 2, 0, 0], [0] * 5], rtol=1e-6)
  np.testing.assert_array_equal(box.intersection(a, b)[0], (4, 1, 2, 0, 0))


def test_clip_knows_height_from_width():
  boxes, extent = rows((-3, -1, 30, 30), (2, 3, 4, 5)), jnp.array((0.0, 0, 20, 10))
  np.testing.assert_array_equal(box.clip(boxes, extent), [[0, 0, 20, 10], [2, 3, 4, 5]])
  inner = jnp.array((3.0, 0, 20, 4))
  np.testing.assert_array_equal(box.clip(boxes, inner), [[3, 0, 20, 4], [3, 3, 4, 4]])
  assert box.centred_in(boxes, inner).tolist() == [False, True]
  assert box.image_box(jnp.zeros((2, 10, 20, 3))).tolist() == [[0, 0, 20, 10]] * 2


def test_encode_by_hand():
  """From a 10x20 box centred at (5, 10): 1 right, 5 down, twice as wide, half as high."""
  deltas = box.encode(rows((-4, 10, 16, 20)), rows((0, 0, 10, 20)), (10, 10, 5, 5))
  expected = (10 * 0.1, 10 * 0.25, 5 * np.log(2), 5 * np.log(0.5))
  np.testing.assert_allclose(deltas[0], expected, rtol=1e-5)


def test_decode_undoes_encode_and_bounds_growth():
  random = np.random.default_rng(0)
  corner, sides = random.uniform(-9, 9, (2, 50, 2)), random.uniform(1, 40, (2, 50, 2))
  boxes, reference = np.concatenate([corner, corner + sides], axis=-1).astype('f')
  for weights in ((1, 1, 1, 1), (10, 10, 5, 5)):
    again = box.decode(box.encode(boxes, reference, weights), reference, weights)
    np.testing.assert_allclose(again, boxes, rtol=1e-4, atol=1e-4)
  large = box.decode(rows((0, 0, 100, 100)), rows((0, 0, 16, 16)))
  np.testing.assert_allclose(large, [[-492, -492, 508, 508]], rtol=1e-5)  # 1000 / 16 times
  empty = box.encode(jnp.zeros((1, 4)), jnp.zeros((1, 4)))
  assert np.isfinite(empty).all()


def test_anchors_by_hand():
  """Ratio is height over width, the area stays; centres at multiples of the stride."""
  found = make_anchors((2, 3), 8, 16, (0.25, 1.0)).reshape(2, 3, 2, 4)
  np.testing.assert_array_equal(found[0, 0], [[-16, -4, 16, 4], [-8, -8, 8, 8]])
  np.testing.assert_array_equal(found[1, 2], found[0, 0] + np.array([16, 8, 16, 8]))
  middle = make_anchors((2, 3), 8, 16, (0.25, 1.0), offset=0.5).reshape(2, 3, 2, 4)
  np.testing.assert_array_equal(middle, found + 4)
  assert found.dtype == np.float32


def test_rounded_anchors_are_torchvisions():
  """The 32-pixel anchors of its Mask R-CNN: generate_anchors gives these three."""
  found = make_anchors((1, 1), 4, 32, rounded=True)
  np.testing.assert_array_equal(found, [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]])
  exact = make_anchors((1, 1), 4, 32)
  np.testing.assert_allclose(np.asarray(box.area(exact)), 1024, rtol=1e-5)


@pytest.mark.parametrize('shape', [(4,), (2, 3, 4)])
def test_any_number_of_leading_axes(shape):
  boxes = jnp.broadcast_to(rows((1, 2, 5, 9))[0], shape)
  deltas = jax.jit(box.encode)(boxes, boxes)
  np.testing.assert_allclose(deltas, np.zeros(shape), atol=1e-6)
  np.testing.assert_allclose(box.decode(deltas, boxes), boxes)
