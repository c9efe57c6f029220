"""RoIAlign: written out, as a product of matrices, gradients, and the level of a box."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.nn.layers.roi_align import level_of, roi_align

FIRST = jnp.zeros(1, jnp.int32)


def plane(height, width, slope=(1.0, 10.0)):
  """[h, w, 1] with the value slope_x * column + slope_y * row."""
  y, x = np.mgrid[:height, :width]
  return jnp.array(slope[0] * x + slope[1] * y, jnp.float32)[..., None]


def one(feature, box, size, **options):
  boxes = jnp.array([box], jnp.float32)
  return np.asarray(roi_align([feature], [4], boxes, FIRST, size, **options)[0, ..., 0])


def test_a_plane_gives_the_bins_centres():
  """Stride 4, box of 8 x 16 pixels at (8, 4): cells 2..4 by 1..5; areas shift by half a cell."""
  align = partial(one, plane(12, 10), (8, 4, 16, 20), 2)
  centres = np.array([[2.5, 3.5]]) + 10 * np.array([[2.0], [4.0]])
  np.testing.assert_allclose(align(aligned=False), centres, rtol=1e-6)
  np.testing.assert_allclose(align(aligned=True), centres - 5.5, rtol=1e-6)


def test_the_border_by_hand():
  """A point up to one cell outside takes the border's value, further out it is zero.

  One bin, 2 x 2 points: rows at -0.5 and 1.5, columns at -1.75 and 0.25 of a map 1 + column.
  """
  feature = 1 + plane(4, 4, (1.0, 0.0))
  box = np.array([-2.75, -1.5, 1.25, 2.5]) * 4
  found = one(feature, box, 1, aligned=False)
  np.testing.assert_allclose(found, [[1.25 / 2]], rtol=1e-6)


def test_a_small_box_is_one_cell_where_not_aligned():
  feature = plane(8, 8)
  small = one(feature, (8, 8, 9, 9), 2, aligned=False)
  np.testing.assert_allclose(small, one(feature, (8, 8, 12, 12), 2, aligned=False), rtol=1e-6)
  exact = one(feature, (8, 8, 9, 9), 1, aligned=True)
  np.testing.assert_allclose(exact, [[11 * 1.625]], rtol=1e-6)  # 8.5 pixels are cell 2.125 - .5


def pyramid():
  random = np.random.default_rng(0)
  maps = [jnp.array(random.normal(size=(s, s + 2, 3)), jnp.float32) for s in (16, 8, 4)]
  corner, sides = random.uniform(-20, 60, (9, 2)), random.uniform(0, 60, (9, 2))
  boxes = jnp.array(np.concatenate([corner, corner + sides], axis=1), jnp.float32)
  return maps, boxes, jnp.arange(9) % 3


def weights(start, end, length):
  """[5, length]: what each cell contributes to each bin of two points, float64."""
  points = start + (end - start) * (np.arange(10) + 0.5) / 10
  inside, points = (points >= -1) & (points <= length), np.clip(points, 0, length - 1)
  tents = np.maximum(0, 1 - np.abs(points[:, None] - np.arange(length)))
  return (tents * inside[:, None]).reshape(5, 2, length).mean(axis=1)


@pytest.mark.parametrize('at_a_time', [None, 2, 9])
def test_a_box_is_rows_times_map_times_columns(at_a_time):
  """Value and gradient; groups of which the last is not full, too."""
  maps, boxes, levels = pyramid()
  grades = np.random.default_rng(1).normal(size=(9, 5, 5, 3)).astype('f')

  @jax.jit
  @partial(jax.value_and_grad, has_aux=True)
  def run(maps):
    out = roi_align(maps, [4, 8, 16], boxes, levels, 5, at_a_time=at_a_time)
    return (out * grades).sum(), out

  (_, found), gradients = run(maps)
  expected = [np.zeros(m.shape) for m in maps]
  for i, level in enumerate(np.asarray(levels)):
    box = np.asarray(boxes[i], np.float64) / (4, 8, 16)[level] - 0.5
    height, width, _ = maps[level].shape
    rows, columns = weights(box[1], box[3], height), weights(box[0], box[2], width)
    value = np.einsum('ph,hwc,qw->pqc', rows, maps[level], columns)
    np.testing.assert_allclose(found[i], value, rtol=1e-4, atol=1e-5)
    expected[level] += np.einsum('ph,pqc,qw->hwc', rows, grades[i], columns)
  for ours, theirs in zip(gradients, expected, strict=True):
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_other_platforms_gather_all_boxes_point_by_point(form):
  test_a_box_is_rows_times_map_times_columns(None)


def test_the_gradient_by_hand():
  """One bin with one point between four cells: each gets its bilinear weight, and the box nothing."""
  feature = jnp.zeros((4, 4, 1))

  def value(feature, box):
    options = dict(samples=1, aligned=False)
    return roi_align([feature], [1], box, FIRST, 1, **options).sum()

  box = jnp.array([(0.75, 1.5, 1.75, 2.5)])  # centre: column 1.25, row 2
  gradient, of_box = jax.grad(value, argnums=(0, 1))(feature, box)
  expected = np.zeros((4, 4))
  expected[2, 1], expected[2, 2] = 0.75, 0.25
  np.testing.assert_allclose(gradient[..., 0], expected, atol=1e-6)
  assert not of_box.any()


def test_boxes_take_their_own_level():
  maps = [jnp.full((8, 8, 1), 1.0), jnp.full((4, 4, 1), 2.0)]
  boxes = jnp.array([(4, 4, 12, 12)] * 2, jnp.float32)
  found = roi_align(maps, [4, 8], boxes, jnp.array([1, 0]), 2)
  np.testing.assert_allclose(found[:, 0, 0, 0], (2, 1))


def test_no_boxes_are_no_values_and_no_gradient():
  maps, none = [jnp.ones((4, 4, 2))], jnp.zeros((0, 4))

  def total(maps):
    out = roi_align(maps, [4], none, jnp.zeros(0, jnp.int32), 3)
    return out.sum(), out

  (_, out), (gradient,) = jax.jit(jax.value_and_grad(total, has_aux=True))(maps)
  assert out.shape == (0, 3, 3, 2) and not gradient.any()


def test_the_level_of_a_box():
  """224 pixels are level 4 of 2..5; 112 are level 3, whatever the shape; ends are clipped."""
  sides = np.array([(224, 224), (223, 223), (112, 112), (56, 224), (10, 10), (1000, 1000), (0, 0)])
  boxes = jnp.array(np.concatenate([0 * sides, sides], axis=1), jnp.float32)
  np.testing.assert_array_equal(level_of(boxes, 4), (2, 1, 1, 1, 0, 3, 0))
  np.testing.assert_array_equal(level_of(boxes, 4, canonical_size=10.0)[4:6], (2, 3))


def test_bfloat16_stays_bfloat16_and_sums_in_float32():
  """512 boxes on one cell: in bfloat16 a sum of ones ends at 256."""
  maps, boxes = [jnp.ones((1, 1, 1), jnp.bfloat16)], jnp.tile(jnp.array([(0, 0, 4.0, 4)]), (512, 1))
  align = partial(roi_align, strides=[4], boxes=boxes, levels=jnp.zeros(512, jnp.int32), size=1)
  out, pull = jax.vjp(align, maps)
  assert out.dtype == jnp.bfloat16 and (out == 1).all()
  (gradient,) = pull(jnp.ones_like(out))[0]
  assert gradient.dtype == jnp.bfloat16 and gradient.item() == 512
