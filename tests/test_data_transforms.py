"""Augmentation by hand: written-out results, labels never mixed, everything moved alike."""

import numpy as np
import pytest

from jaxseg.data import augment, transforms
from jaxseg.types import VOID, UserError

LABEL = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]], np.uint8)


class Draws:
  """A generator that hands out the given numbers, in the range [low, high] that was asked for."""

  def __init__(self, *values):
    self.values = list(values)

  def uniform(self, low, high, size=None):
    drawn = [self.values.pop(0) for _ in range(size or 1)]
    return np.array(drawn) if size else drawn[0]

  def integers(self, low, high=None, endpoint=False):
    return self.values.pop(0)

  def random(self, size):
    return np.array([self.values.pop(0) for _ in range(size)])

  def normal(self, mean, sigma, shape):
    return np.broadcast_to(np.float64(self.values.pop(0)), shape)


def example_of(label, channels=1):
  """An example whose image and weight say the same as its label: 10 times, a tenth of it."""
  label = np.array(label, np.uint8)
  image = np.repeat(10 * label[..., None], channels, axis=2)
  return {'image': image, 'label': label, 'weight': label.astype(np.float32) / 10, 'name': 'a'}


def natural(seed=0, size=(37, 53), channels=3):
  rng = np.random.default_rng(seed)
  return {
    'image': rng.integers(0, 256, (*size, channels), dtype=np.uint8),
    'label': rng.choice([0, 3, 7, 11, VOID], size).astype(np.uint8),
    'weight': rng.random(size, dtype=np.float32),
    'instances': rng.integers(0, 1000, size).astype(np.uint16),
  }


def test_resize_down_by_hand():
  # Half size: output row i looks at 2 i + 0.5, between two rows; nearest takes the lower one.
  result = transforms.Resize(size=(2, 2))(example_of(LABEL), None)
  np.testing.assert_array_equal(result['label'], [[5, 7], [13, 15]])
  # bilinear there is the mean of four pixels: (0 + 1 + 4 + 5) / 4 = 2.5
  np.testing.assert_array_equal(result['image'][..., 0], [[25, 45], [105, 125]])
  np.testing.assert_allclose(result['weight'], [[0.25, 0.45], [1.05, 1.25]], rtol=1e-6)
  assert result['name'] == 'a'


def test_resize_up_by_hand():
  result = transforms.Resize(scale=2.0)(example_of([[0, 4]]), None)
  np.testing.assert_array_equal(result['label'], [[0, 0, 4, 4]] * 2)
  # Output column j looks at j / 2 - 0.25: 0 (edge), 0.25, 0.75, 1 (edge).
  np.testing.assert_array_equal(result['image'][..., 0], [[0, 10, 30, 40]] * 2)
  np.testing.assert_allclose(result['weight'], [[0, 0.1, 0.3, 0.4]] * 2, rtol=1e-6)


@pytest.mark.parametrize(
  'coins, want',
  [
    ((0.9, 0.9), LABEL),
    ((0.1, 0.9), LABEL[:, ::-1]),
    ((0.9, 0.1), LABEL[::-1]),
    ((0.1, 0.1), LABEL[::-1, ::-1]),
  ],
)
def test_flip_by_hand(coins, want):
  result = transforms.Flip(True, True)(example_of(LABEL), Draws(*coins))
  np.testing.assert_array_equal(result['label'], want)
  np.testing.assert_array_equal(result['image'][..., 0], 10 * want)
  np.testing.assert_allclose(result['weight'], want / 10, rtol=1e-6)


def test_rotate90_by_hand():
  result = transforms.Rotate90()(example_of([[1, 2, 3], [4, 5, 6]]), Draws(1))
  np.testing.assert_array_equal(result['label'], [[3, 6], [2, 5], [1, 4]])
  np.testing.assert_array_equal(result['image'][..., 0], [[30, 60], [20, 50], [10, 40]])


def test_crop_inside_by_hand():
  crop = transforms.Crop((2, 3))
  result = crop(example_of(LABEL), Draws(1.0, 2, 1))  # scale 1, row 2, column 1
  np.testing.assert_array_equal(result['label'], [[9, 10, 11], [13, 14, 15]])
  np.testing.assert_array_equal(result['image'][..., 0], [[90, 100, 110], [130, 140, 150]])


def test_crop_of_half_the_window_at_scale_two_by_hand():
  crop = transforms.Crop((4, 4), (2.0, 2.0))
  result = crop(example_of(LABEL), Draws(2.0, 1, 2))  # window 2 x 2 at row 1, column 2
  np.testing.assert_array_equal(result['label'], np.kron([[6, 7], [10, 11]], np.ones((2, 2), int)))


def test_crop_of_a_smaller_image_pads_with_fill_void_and_no_weight():
  crop = transforms.Crop((3, 5), fill=(9,))
  result = crop(example_of([[1, 2], [3, 4]]), Draws(1.0, -1, -2))  # one row above, two columns left
  v = VOID
  np.testing.assert_array_equal(
    result['label'], [[v, v, v, v, v], [v, v, 1, 2, v], [v, v, 3, 4, v]]
  )
  np.testing.assert_array_equal(
    result['image'][..., 0], [[9, 9, 9, 9, 9], [9, 9, 10, 20, 9], [9, 9, 30, 40, 9]]
  )
  np.testing.assert_allclose(
    result['weight'], [[0, 0, 0, 0, 0], [0, 0, 0.1, 0.2, 0], [0, 0, 0.3, 0.4, 0]], rtol=1e-6
  )


def test_a_crop_of_one_class_is_drawn_again():
  """Columns 0 0 1 255: [0 0] is of one class, [1 255] too, since void is none, [0 1] of two."""
  example = example_of([[0, 0, 1, VOID]] * 2)
  crop = transforms.Crop((2, 2), most=0.5)
  cut = lambda *columns: crop(  # noqa: E731
    example, Draws(1.0, *(n for column in columns for n in (0, column)))
  )['label'][0].tolist()
  assert cut(0, 2, 1, 0) == [0, 1]
  assert cut(*[0] * 9, 2) == [1, VOID]  # the tenth is taken as it is
  assert transforms.Crop((2, 2))(example, Draws(1.0, 0, 0))['label'][0].tolist() == [0, 0]
  void = example_of([[VOID] * 3] * 2)
  assert (crop(void, np.random.default_rng(0))['label'] == VOID).all()


def test_crop_shrinks_a_small_image_before_it_pads():
  crop = transforms.Crop((4, 4), (0.5, 0.5))
  result = crop(example_of(LABEL), Draws(0.5, -2, -4))  # window 8 x 8 around the 4 x 4 image
  v = VOID
  np.testing.assert_array_equal(
    result['label'], [[v, v, v, v], [v, v, 5, 7], [v, v, 13, 15], [v, v, v, v]]
  )


def test_crop_with_mirror_by_hand():
  crop = transforms.Crop((3, 4), mirror=2)
  result = crop(example_of([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), Draws(1.0, 1, 0))
  v = VOID
  np.testing.assert_array_equal(result['label'], [[v, v, v, v], [v, v, 1, 2], [v, v, 4, 5]])
  np.testing.assert_array_equal(
    result['image'][..., 0], [[60, 50, 40, 50], [30, 20, 10, 20], [60, 50, 40, 50]]
  )
  np.testing.assert_allclose(result['weight'][0], 0)


def test_crop_with_mirror_reaches_every_pixel_of_the_centre():
  # A network that loses 2 pixels a side sees windows of 6 and labels 2 x 2 of them.
  crop = transforms.Crop((6, 6), mirror=2)
  rng, seen = np.random.default_rng(0), set()
  for _ in range(200):
    result = crop(example_of(LABEL), rng)
    assert not (result['label'][2:4, 2:4] == VOID).any()
    seen |= set(result['label'][2:4, 2:4].ravel().tolist())
  assert seen == set(range(16))


def test_mirror_border_and_pad_by_hand():
  result = transforms.MirrorBorder(1)(example_of([[1, 2], [3, 4]]), None)
  np.testing.assert_array_equal(
    result['image'][..., 0],
    [[40, 30, 40, 30], [20, 10, 20, 10], [40, 30, 40, 30], [20, 10, 20, 10]],
  )
  v = VOID
  inside = [[v, v, v, v], [v, 1, 2, v], [v, 3, 4, v], [v, v, v, v]]
  np.testing.assert_array_equal(result['label'], inside)
  result = transforms.Pad((2, 4), (7,), label=0)(example_of([[1]]), None)
  np.testing.assert_array_equal(result['label'], [[0, 1, 0, 0], [0, 0, 0, 0]])
  np.testing.assert_array_equal(result['image'][..., 0], [[7, 10, 7, 7], [7, 7, 7, 7]])


def test_random_sides_by_hand():
  sides = transforms.Sides(0.45)
  result = sides(example_of(LABEL), Draws(0.5, 0.0, 0.0, 0.5))  # shares of top, bottom, left, right
  # Rows 2..3 and columns 0..1 are left, and each becomes two.
  np.testing.assert_array_equal(result['label'], np.kron([[8, 9], [12, 13]], np.ones((2, 2), int)))


def test_rotate_by_a_right_angle_by_hand():
  result = transforms.Rotate(90.0)(example_of([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), Draws(90.0))
  np.testing.assert_array_equal(result['label'], [[3, 6, 9], [2, 5, 8], [1, 4, 7]])
  np.testing.assert_array_equal(result['image'][..., 0], 10 * result['label'])
  result = transforms.Rotate(90.0, (5,))(example_of([[1, 2, 3]]), Draws(90.0))
  np.testing.assert_array_equal(result['label'], [[VOID, 2, VOID]])
  np.testing.assert_array_equal(result['image'][0, :, 0], [5, 20, 5])
  np.testing.assert_allclose(result['weight'], [[0, 0.2, 0]], atol=1e-6)


def test_only_a_share_is_rotated():
  rotate = transforms.Rotate(90.0, share=0.5)
  example = example_of([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
  assert rotate(example, Draws(0.5)) is example  # no second draw
  np.testing.assert_array_equal(rotate(example, Draws(0.49, 90.0))['label'][0], [3, 6, 9])


def test_blur_of_a_point_by_hand():
  """Weights of distance 0, 1, 2: 1, exp(-1 / 2.42), exp(-4 / 2.42), over their sum 2.7063."""
  example = example_of(LABEL)
  example['image'] = np.zeros((7, 7, 1), np.uint8)
  example['image'][3, 3] = 250
  blur = transforms.Blur(0.5)
  assert blur(example, Draws(0.5)) is example
  result = blur(example, Draws(0.49))
  line = np.array([0, 0.0708, 0.2445, 0.3695, 0.2445, 0.0708, 0])
  np.testing.assert_allclose(result['image'][..., 0], 250 * np.outer(line, line), atol=1)
  assert result['label'] is example['label']


def test_elastic_shifts_everything_by_one_displacement():
  # The same displacement at all nodes is a shift: every pixel reads one to the right, one below.
  result = transforms.Elastic()(example_of(LABEL), Draws(1.0))
  want = [[5, 6, 7, 6], [9, 10, 11, 10], [13, 14, 15, 14], [9, 10, 11, 10]]
  np.testing.assert_array_equal(result['label'], want)
  np.testing.assert_array_equal(result['image'][..., 0], 10 * np.array(want))
  np.testing.assert_allclose(result['weight'], np.array(want) / 10, rtol=1e-6)


def test_elastic_moves_image_and_label_together():
  label = np.zeros((64, 64), np.uint8)
  label[16:48, 20:40] = 1
  example = {'image': 200 * label[..., None], 'label': label, 'weight': label.astype(np.float32)}
  result = transforms.Elastic(6.0)(example, np.random.default_rng(3))
  assert (result['label'] != label).sum() > 50  # it did move
  np.testing.assert_array_equal(result['label'], result['image'][..., 0] >= 100)
  np.testing.assert_array_equal(result['label'], result['weight'] >= 0.5)


def test_elastic_displacement_has_the_papers_size():
  columns = np.tile(np.arange(200, dtype=np.float32), (200, 1))
  example = {**natural(size=(200, 200)), 'weight': columns}
  rng = np.random.default_rng(0)
  moved = [transforms.Elastic(10.0)(example, rng)['weight'] - columns for _ in range(200)]
  assert 9 < np.std([m[100, 100] for m in moved]) < 11  # at the middle node


def test_photometric_by_hand():
  image = np.array([[[10, 20, 30], [50, 40, 60]]], np.uint8)
  example = {'image': image, 'label': np.zeros((1, 2), np.uint8)}

  def draw(*draws, **amounts):
    return transforms.Photometric(**amounts)(example, Draws(*draws))['image']

  np.testing.assert_array_equal(draw(1, 0, 0, 0, brightness=0.5), [[[15, 30, 45], [75, 60, 90]]])
  np.testing.assert_array_equal(draw(0, 0, 0, 1, shift=0.2), [[[61, 71, 81], [101, 91, 111]]])
  np.testing.assert_array_equal(draw(0, 0, 0, -1, shift=0.2)[0, 0], [0, 0, 0])  # clipped
  gray = np.round(image @ [0.299, 0.587, 0.114])
  mean = (image @ [0.299, 0.587, 0.114]).mean()
  want = np.round(mean + 0.5 * (image - mean))
  np.testing.assert_array_equal(draw(0, -1, 0, 0, contrast=0.5), want)
  got = draw(0, 0, -1, 0, saturation=1.0).astype(int)
  assert np.abs(got - gray[..., None]).max() <= 1  # fixed point: within one level
  untouched = draw(0, 0, 0, 0, brightness=0.5, contrast=0.5, saturation=0.5)
  np.testing.assert_array_equal(untouched, image)


ALL = (
  ('resize', {'size': (30, 40)}),
  ('elastic', {'sigma': 4.0}),
  ('rotate', {'degrees': 25.0}),
  ('crop', {'size': (32, 32), 'scale': (0.5, 2.0)}),
  ('sides', {'amount': 0.2}),
  ('flip', {'vertical': True}),
  ('rotate90', {}),
  ('photometric', {'brightness': 0.2, 'contrast': 0.2, 'saturation': 0.2, 'shift': 0.1}),
  ('blur', {'share': 0.5}),
)


@pytest.mark.parametrize('channels', [1, 3, 4, 6])
@pytest.mark.parametrize('mirror', [0, 5])
def test_labels_are_never_mixed_and_inputs_never_written(channels, mirror):
  example = natural(channels=channels)
  for array in example.values():
    array.flags.writeable = False
  changes = {'crop': {'mirror': mirror}, 'rotate': {'fill': None} if mirror else {}}
  steps = augment.make_transforms([(name, kw | changes.get(name, {})) for name, kw in ALL])
  allowed = set(np.unique(example['label']).tolist()) | {VOID}
  for seed in range(20):
    rng, result = np.random.default_rng(seed), example
    for step in steps:
      result = step(result, rng)
      assert set(np.unique(result['label']).tolist()) <= allowed, step
      assert set(np.unique(result['instances'])) <= set(np.unique(example['instances'])) | {0}, step
    assert result['image'].shape == (32, 32, channels) and result['image'].dtype == np.uint8
    for key, dtype in (('label', 'uint8'), ('weight', 'float32'), ('instances', 'uint16')):
      assert result[key].shape == (32, 32) and result[key].dtype == dtype


def test_weight_and_image_go_through_the_same_geometry():
  example = natural(size=(40, 40), channels=1)
  example['weight'] = example['image'][..., 0].astype(np.float32)
  geometric = [step for step in ALL if step[0] not in ('photometric', 'blur')]
  for seed in range(10):
    rng, result = np.random.default_rng(seed), example
    for step in augment.make_transforms(geometric):
      result = step(result, rng)
    # each of the interpolations rounds the image to whole levels once
    assert np.abs(result['weight'] - result['image'][..., 0]).max() < 4


class Noted:
  """A user's own transform: what it is made with."""

  def __init__(self, word: str, fill: tuple[int, ...] = (0,)):
    self.word, self.fill = word, fill

  def __call__(self, example, rng):
    return example


def test_a_config_names_transforms_in_their_order():
  nvidia = [
    ('resize', {'size': (388, 388)}),
    ('pad', {'size': 572, 'label': 0}),
    ('sides', {'amount': 0.3}),
    ('flip', {'vertical': True}),
    ('photometric', {'shift': 0.1}),
  ]
  assert augment.make_transforms(nvidia, fill=(128,)) == (
    transforms.Resize(size=(388, 388)),
    transforms.Pad((572, 572), (128,), 0),
    transforms.Sides(0.3),
    transforms.Flip(True, True),
    transforms.Photometric(shift=0.1),
  )
  assert augment.make_transforms([]) == ()
  mirrored = augment.make_transforms([('rotate', {'degrees': 5, 'fill': None})], (9,))
  assert mirrored == (transforms.Rotate(5.0, None),)
  short = [('short_side', {'sides': [8, 10]}), ('mirror_border', {'pixels': 92})]
  assert augment.make_transforms(short) == (
    transforms.ShortSide((8, 10)),
    transforms.MirrorBorder(92),
  )


def test_a_name_with_a_dot_is_the_users_own():
  (own,) = augment.make_transforms([(f'{__name__}.Noted', {'word': 'a'})], fill=(7,))
  assert (type(own), own.word, own.fill) == (Noted, 'a', (7,))


@pytest.mark.parametrize(
  'name, options, remedy',
  [
    (
      'crops',
      {},
      "augment.crops: no such transform; there are blur, copy_paste, crop, .*mean 'crop'",
    ),
    ('my.Own', {}, "transform 'my.Own' cannot be imported"),
    (
      'os.system',
      {'command': 'false'},
      "transform 'os.system' cannot be imported .it belongs to Py",
    ),
    ('jaxseg.files.to_path', {'path': '.'}, 'jaxseg.files has no class of this name'),
    ('jaxseg.files.writing.Path', {}, 'jaxseg.files.writing has no class of this name'),
    ('crop', {}, 'augment.crop: size is missing, set config.augment.crop.size'),
    ('crop', {'sizes': 3}, r"augment.crop.sizes: no such option; .*mean 'size'"),
    ('crop', {'size': (0, 32)}, r'augment.crop.size=\(0, 32\): \(height, width\)'),
    ('crop', {'size': 'big'}, "augment.crop.size='big'"),
    ('crop', {'size': 32, 'scale': (2.0, 0.5)}, 'augment.crop.scale=.*lowest, highest'),
    ('crop', {'size': 32, 'mirror': 1.5}, 'augment.crop.mirror=1.5.*whole'),
    (
      'crop',
      {'size': 32, 'fill': (0, 300, 0)},
      'augment.crop.fill=.*between 0 and 255, as images are uint8',
    ),
    ('resize', {'scale': -0.5}, 'augment.resize.scale=-0.5: must be between 0.01 and 16'),
    ('resize', {}, 'exactly one'),
    ('rotate', {'degrees': 200.0}, 'augment.rotate.degrees=200.0: must be between 0 and 180'),
    ('photometric', {'contrast': -0.1}, 'augment.photometric.contrast=-0.1'),
    ('elastic', {'sigma': -1.0}, 'augment.elastic.sigma=-1.0'),
    ('sides', {'amount': 0.6}, 'between 0 and 0.45'),
    ('pad', {'size': 8, 'label': 300}, 'augment.pad.label=300'),
    ('short_side', {'sides': (8, 2000)}, 'augment.short_side.sides=.*longest=1333'),
    ('rotate90', {}, 'rotate90 needs images of one square size, got None'),
  ],
)
def test_wrong_options_are_refused_in_one_line(name, options, remedy):
  with pytest.raises(UserError, match=remedy) as error:
    augment.make_transforms([(name, options)])
  assert '\n' not in str(error.value)


def test_quarter_turns_keep_one_size():
  crop, turn = ('crop', {'size': (16, 32)}), ('rotate90', {})
  with pytest.raises(UserError, match=r'rotate90 .* square size, got \(16, 32\): set .*crop'):
    augment.make_transforms([crop, turn])
  assert len(augment.make_transforms([turn, crop])) == 2  # all are cut again


def test_data_that_does_not_fit_the_options_is_refused():
  with pytest.raises(UserError, match=r'does not fit on config.augment.pad.size=\(4, 4\)'):
    transforms.Pad((4, 4))(natural(), None)
  with pytest.raises(UserError, match='2 values, the image has 3 channels'):
    transforms.Crop((99, 99), fill=(1, 2))(natural(), np.random.default_rng(0))
