"""Prediction of images of any size: every network, padded, in tiles, averaged, sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.data import contrast, geometry
from jaxseg.predict import averages
from jaxseg.predict.options import Options
from jaxseg.predict.predictor import Predictor
from jaxseg.train.evaluator import Evaluator
from jaxseg.types import UserError
from tests import test_tasks_third
from tests.tiny_runs import CLASSES, make_experiment, make_state, make_workdir, random_image

NETWORKS = {
  'unet valid': dict(name='unet', width=1, padding='valid'),
  'unet same': dict(name='unet', width=1, padding='same'),
  'segnet': dict(name='segnet', width=1),
  'segnet basic': dict(name='segnet', variant='basic', width=2),
  'fcn paper': dict(name='fcn', width=1),
  'fcn aligned': dict(name='fcn', width=1, aligned=True),
  'pspnet': dict(name='pspnet', width=1, stage_sizes=(1, 1, 1, 1)),
}
RELATIVES = {  # of those above; compiling them all takes minutes
  'unet release': dict(name='unet', width=1, variant='release'),
  'unet keras': dict(name='unet', width=1, variant='keras'),
  'unet bilinear': dict(name='unet', width=1, padding='same', up='bilinear'),
  'segnet bayesian': dict(name='segnet', width=1, bayesian=True),
  'segnet basic bayesian': dict(name='segnet', variant='basic', width=2, bayesian=True),
  'fcn 32s': dict(name='fcn', width=1, stride=32),
  'fcn 16s': dict(name='fcn', width=1, stride=16),
  'fcn vgg16 with norm': dict(name='fcn', width=1, batch_norm=True),
  'fcn resnet50': dict(name='fcn', width=1, backbone='resnet50', head='light'),
  'fcn resnet101': dict(name='fcn', width=1, backbone='resnet101', head='light'),
  'fcn mobilenet_v1': dict(name='fcn', width=4, backbone='mobilenet_v1', head='light'),
  'fcn mobilenet_v2': dict(name='fcn', width=16, backbone='mobilenet_v2', head='light'),
  'fcn torchvision': dict(name='fcn', width=1, backbone='resnet50', head='torchvision'),
}
VALID = dict(name='unet', width=4, depth=2, padding='valid')  # margin 20, multiple 4
SHALLOW = dict(name='unet', width=4, depth=1, padding='same')


def predictor_of(model=None, options=None, **groups):
  experiment = make_experiment(**(dict(model=model) if model else {}), **groups)
  return Predictor(experiment, make_state(experiment).variables, CLASSES, options)


def apply_by_hand(predictor, padded):
  """Runs the model on an image padded by hand and returns its probabilities [h, w, k]."""
  model, preprocess = predictor.experiment.model(), predictor.experiment.preprocess
  run = jax.jit(lambda v, x: model.apply(v, preprocess(x), train=False)['logits'])
  return np.asarray(jax.nn.softmax(run(predictor.variables, padded[None])))[0]


@pytest.mark.parametrize(
  'name', [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in RELATIVES)]
)
def test_an_odd_image_comes_back_at_its_size_and_equals_the_padded_computation(name):
  predictor = predictor_of({**NETWORKS, **RELATIVES}[name])
  image = random_image(517, 389)
  found = predictor.probabilities(image)
  assert found.shape == (517, 389, 4) and found.dtype == np.float32
  rule = predictor.experiment.model().size_rule
  sides = [rule.at_least(n + 2 * rule.margin) - n for n in (517, 389)]
  if rule.margin:
    pads = [(rule.margin, side - rule.margin) for side in sides]
    padded = np.pad(image, (*pads, (0, 0)), mode='reflect')
  else:
    padded = np.pad(image, ((0, sides[0]), (0, sides[1]), (0, 0)), constant_values=128)
  expected = apply_by_hand(predictor, padded)[:517, :389]
  np.testing.assert_allclose(found, expected, atol=1e-5)
  mask = next(predictor.bands(image)).mask
  assert mask.shape == (517, 389) and mask.dtype == np.uint8
  assert (mask == np.argmax(expected, axis=-1)).mean() > 0.9999
  assert expected.std(axis=(0, 1)).max() > 1e-4  # the network does say something


def test_a_mask_is_the_same_with_and_without_probabilities():
  predictor, image = predictor_of(), random_image(37, 50)
  np.testing.assert_array_equal(predictor(image), next(predictor.bands(image)).mask)


def test_rounding_sizes_up_changes_nothing_inside_for_a_network_with_a_margin():
  exact, rounded = (predictor_of(VALID, options=Options(multiple=m)) for m in (1, 64))
  image = random_image(41, 70)
  assert exact.canvas(41, 70) == (44, 72) and rounded.canvas(41, 70) == (64, 128)
  np.testing.assert_allclose(rounded.probabilities(image), exact.probabilities(image), atol=1e-5)


def test_rounding_sizes_up_reaches_as_far_as_the_receptive_field_of_a_padding_network():
  exact, rounded = (predictor_of(SHALLOW, options=Options(multiple=m)) for m in (1, 64))
  image = random_image(42, 70)
  difference = np.abs(rounded.probabilities(image) - exact.probabilities(image)).max(axis=-1)
  # Two 3x3 convolutions at full size, two at half, two at full: 2 + 2 * 2 + 1 + 2 + 1 = 10 pixels.
  assert difference[:-10, :-10].max() < 1e-5 < difference.max()


def test_overlapping_tiles_of_the_unpadded_unet_equal_one_big_pass():
  image = random_image(101, 75)
  whole = predictor_of(VALID)
  tiled = whole.replace(tile=(60, 52))
  np.testing.assert_allclose(tiled.probabilities(image), whole.probabilities(image), atol=1e-5)
  assert len(list(tiled.bands(image))) > 1


def test_large_images_go_in_tiles_by_themselves(monkeypatch):
  monkeypatch.setattr('jaxseg.predict.predictor.AUTO_TILE', 60)
  image = random_image(101, 75)
  whole = predictor_of(VALID)
  limited = whole.replace(max_pixels=10_000)
  assert [len(list(p.bands(image))) for p in (whole, limited)] == [1, 6]
  np.testing.assert_allclose(limited.probabilities(image), whole.probabilities(image), atol=1e-5)
  small = random_image(40, 40)
  np.testing.assert_array_equal(limited(small), whole(small))


def test_what_fits_is_averaged_in_one_piece(monkeypatch):
  """Tiles of 32 pixels would join with seams; an image below max_pixels gets none, flipped or not."""
  monkeypatch.setattr('jaxseg.predict.predictor.AUTO_TILE', 32)
  image = random_image(48, 64)
  plain = predictor_of(SHALLOW)
  by_hand = (plain.probabilities(image) + plain.probabilities(image[:, ::-1])[:, ::-1]) / 2
  np.testing.assert_allclose(plain.replace(flip=True).probabilities(image), by_hand, atol=1e-6)


def test_logits_of_a_flip_are_added():
  plain, image = predictor_of(SHALLOW), random_image(16, 24)
  logits = [np.log(plain.probabilities(one)) for one in (image, image[:, ::-1])]
  expected = jax.nn.softmax(logits[0] + logits[1][:, ::-1])
  found = plain.replace(flip=True, flip_by='logits')
  np.testing.assert_allclose(found.probabilities(image), expected, atol=1e-5)
  assert found.options.describe() == 'flip of logits'


def test_a_longer_side_is_a_scale_for_each_image():
  plain = predictor_of(SHALLOW)
  for size, scale in (((80, 60), 0.5), ((30, 40), 1), ((10, 20), 2)):
    image = random_image(*size)
    found = plain.replace(long_side=40).probabilities(image)
    expected = plain.replace(scales=(scale,)).probabilities(image)
    np.testing.assert_allclose(found, expected, atol=1e-6)
  tiled = dict(tile=(16, 16), windows='even')
  found = plain.replace(long_side=40, **tiled).probabilities(random_image(80, 60))
  expected = plain.replace(scales=(0.5,), **tiled).probabilities(random_image(80, 60))
  np.testing.assert_allclose(found, expected, atol=1e-6)
  words = plain.replace(long_side=40, **tiled).options.describe()
  assert words == 'tiles of 16x16, that count alike, longer side 40'
  with pytest.raises(UserError, match='windows=even needs a tile'):
    plain.replace(windows='even')


def test_gaussian_tiles_of_a_padding_network_are_close_and_continuous():
  image = random_image(80, 80)
  whole = predictor_of(SHALLOW)
  tiled = whole.replace(tile=(48, 48), tile_step=(16, 16)).probabilities(image)
  np.testing.assert_allclose(tiled.sum(axis=-1), 1, rtol=1e-5)
  np.testing.assert_allclose(tiled, whole.probabilities(image), atol=0.02)


def test_flip_and_scales_are_means_of_single_passes():
  image = random_image(32, 48)
  plain = predictor_of(SHALLOW)
  once = plain.probabilities(image)
  by_hand = (once + plain.probabilities(image[:, ::-1])[:, ::-1]) / 2
  np.testing.assert_allclose(plain.replace(flip=True).probabilities(image), by_hand, atol=1e-5)
  half = plain.replace(scales=(0.5,)).probabilities(image)
  found = plain.replace(scales=(0.5, 1.0)).probabilities(image)
  np.testing.assert_allclose(found, (half + once) / 2, atol=1e-5)
  assert np.abs(half - once).max() > 1e-3


def test_scales_default_to_the_config():
  half = predictor_of(SHALLOW, eval=dict(scales=(0.5,)))
  assert half.options.scales == (0.5,) and half.options.describe() == 'scale 0.5'
  assert half.replace(scales=(0.5, 2)).options.describe() == 'scales 0.5, 2'


def test_a_tiled_scale_is_the_tiled_larger_image_made_smaller():
  image = random_image(64, 64)
  tiled = predictor_of(SHALLOW, options=Options(tile=(48, 48)))
  larger = tiled.probabilities(geometry.resize_image(image, (128, 128)))
  np.testing.assert_allclose(
    tiled.replace(scales=(2.0,)).probabilities(image),
    geometry.resize_image(larger, (64, 64)),
    atol=1e-6,
  )


def test_rotations_of_a_pixelwise_network_by_quarter_turns_change_nothing():
  image = random_image(21, 34).astype(np.uint8)
  pixelwise = averages.over_rotations(lambda x: x.astype(np.float32), 4)
  np.testing.assert_allclose(pixelwise(image), image, atol=0.6)  # the turned uint8 image is rounded


def test_seven_rotations_turn_back_what_they_turned():
  constant = averages.over_rotations(lambda x: np.full((*x.shape[:2], 2), 0.25, np.float32), 7)
  np.testing.assert_allclose(constant(random_image(20, 31)), 0.25, rtol=1e-6)
  ramp = np.repeat(np.linspace(0, 255, 65)[None].round(), 41, axis=0)[..., None].astype(np.uint8)
  found = averages.over_rotations(lambda x: x.astype(np.float32), 7)(ramp)
  np.testing.assert_allclose(found[5:-5, 8:-8], ramp[5:-5, 8:-8], atol=2.5)


def test_rotations_go_through_the_network():
  image = random_image(24, 30)
  found = predictor_of(options=Options(rotations=3)).probabilities(image)
  np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-4)
  assert found.shape == (24, 30, 4)


def test_samples_give_mean_and_variance_by_hand():
  key, count = jax.random.key(7), 5

  def network(variables, image, key, size):
    return variables + jax.random.uniform(key, (1, 2, 3, 4))

  found = averages.with_samples(network, count)(jnp.ones((1, 2, 3, 4)), None, key, None)
  draws = np.stack([network(1.0, None, k, None) for k in jax.random.split(key, count)])
  np.testing.assert_allclose(found[..., :4], draws.mean(axis=0), rtol=1e-6)
  np.testing.assert_allclose(found[..., 4:], draws.var(axis=0), rtol=1e-5)


def test_monte_carlo_dropout_of_the_bayesian_segnet():
  bayesian = dict(name='segnet', variant='basic', width=2, bayesian=True)
  sampled = predictor_of(bayesian, Options(samples=4))
  image = random_image(40, 56)
  band = next(sampled.bands(image))
  assert band.variance.shape == (40, 56, 4) and band.variance.max() > 0
  np.testing.assert_allclose(band.uncertainty, band.variance.sum(axis=-1) / 4, rtol=1e-6)
  np.testing.assert_allclose(band.probabilities.sum(axis=-1), 1, rtol=1e-5)
  np.testing.assert_array_equal(sampled.uncertainty(image), band.uncertainty)  # the same draws


def test_variance_travels_through_tiles_and_flips():
  options = Options(samples=3, flip=True, tile=(32, 32))
  sampled = predictor_of(SHALLOW, options)
  bands = list(sampled.bands(random_image(40, 56)))
  assert sum(len(band.variance) for band in bands) == 40 and len(bands) == 2
  assert min(band.variance.max() for band in bands) > 0
  np.testing.assert_allclose(bands[1].probabilities.sum(axis=-1), 1, rtol=1e-5)


def test_without_samples_uncertainty_is_the_entropy():
  predictor, image = predictor_of(), random_image(16, 16)
  p = predictor.probabilities(image).astype(np.float64)
  np.testing.assert_allclose(predictor.uncertainty(image), -(p * np.log(p)).sum(axis=-1), rtol=1e-4)


@pytest.mark.parametrize(
  ('build', 'message'),
  [
    (lambda: predictor_of(dict(name='segnet', width=2), Options(samples=3)), 'no dropout'),
    (lambda: predictor_of(options=Options(tile=(33, 32))), 'take 32 or 36'),
    (lambda: Options(scales=(0.0,)), 'scales'),
    (lambda: Options(rotations=0), 'rotations=0: must be between 1 and 10000'),
    (lambda: Options(tile_step=(8, 8)), 'needs a tile'),
    (lambda: predictor_of()(np.zeros((8, 8, 4), np.uint8)), '4 channels'),
    (lambda: predictor_of()(np.zeros((8, 8, 3), np.float32)), 'float32'),
    (lambda: predictor_of()(np.ma.zeros((8, 8, 3), np.uint8)), 'a masked array: .* image.filled'),
  ],
)  # fmt: skip
def test_what_cannot_work_is_refused(build, message):
  with pytest.raises(UserError, match=message):
    build()


def test_a_prediction_is_that_of_evaluation():
  """Batches of several sizes over devices, at half size: the masks are those of single images."""
  predictor = predictor_of(eval=dict(scales=(0.5,), batch_size=8))
  source = [
    {'image': random_image(*size, seed=i), 'label': np.zeros(size, np.uint8), 'file_name': str(i)}
    for i, size in enumerate([(33, 40), (21, 50), (33, 40)])
  ]
  masks = {}

  class Keeper:
    maps = False

    def add(self, example, prediction):
      masks[int(example['file_name'])] = prediction['mask']

    def compute(self):
      return {}

  Evaluator(predictor.experiment, source, Keeper)(predictor.variables)
  for i, example in enumerate(source):
    np.testing.assert_array_equal(predictor(example['image']), masks[i])
  assert len(np.unique(masks[0])) > 1


@pytest.mark.parametrize('options', [Options(), Options(tile=(16, 16)), Options(flip=True)])
def test_contrast_is_stretched_once_and_over_the_whole_image(options):
  plain, stretching = (
    predictor_of(SHALLOW, options, data=dict(percentiles=p)) for p in ((), (5.0, 90.0))
  )
  image = random_image(40, 50) // 3
  image[:20] //= 4  # tiles alone would have other percentiles
  whole = contrast.stretch(image, (5.0, 90.0))
  expected = plain.probabilities(whole)
  np.testing.assert_array_equal(stretching.probabilities(image), expected)
  np.testing.assert_array_equal(stretching.probabilities(whole), expected)  # as a source gives it
  np.testing.assert_array_equal(stretching(image), plain(whole))
  assert np.abs(plain.probabilities(image) - expected).max() > 1e-3


def test_a_task_without_maps_predicts_what_it_has():
  """The third task gives a mask and a class; what it has not is refused in one line."""
  name = test_tasks_third.NAME
  experiment = make_experiment(task=name, model=dict(name=name))
  image = np.zeros((1, 32, 32, 3), np.float32)
  variables = experiment.model().init(jax.random.key(0), image, train=False)
  predictor = Predictor(experiment, variables, CLASSES)
  image = random_image(20, 30)
  prediction = predictor.predict(image, maps=True)
  assert prediction.keys() == predictor.entries == {'mask', 'class'}
  assert (predictor(image) == prediction['class']).all() and predictor(image).shape == (20, 30)
  for ask in (predictor.probabilities, predictor.uncertainty, predictor.bands):
    with pytest.raises(UserError, match='predicts class, mask and no probability or uncertainty'):
      ask(image)
  for options, words in ((dict(flip=True), 'flip'), (dict(scales=(0.5, 1)), 'scales 0.5, 1')):
    with pytest.raises(UserError, match=f'{words}: config.task={name} predicts no maps'):
      predictor.replace(**options)


def test_labels_of_pixels_are_no_detections():
  with pytest.raises(UserError, match='config.task=semantic predicts mask and no detections'):
    predictor_of().instances(random_image(16, 16))


def test_load_reads_a_workdir_and_takes_options(tmp_path):
  import jaxseg

  experiment = make_experiment()
  make_workdir(tmp_path, experiment)
  image = random_image(30, 41)
  loaded = jaxseg.load(tmp_path)
  by_hand = Predictor(experiment, make_state(experiment).variables, CLASSES)
  np.testing.assert_array_equal(loaded(image), by_hand(image))
  assert jaxseg.load(tmp_path, flip=True).options.flip
  with pytest.raises(UserError, match="prediction.flp: no such option.*did you mean 'flip'"):
    jaxseg.load(tmp_path, flp=True)
