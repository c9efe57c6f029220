"""Several runs as one: means by hand, one alone, what does not belong together, folds, temperatures."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxseg.metrics import confidence
from jaxseg.metrics.temperature import tempered
from jaxseg.predict import ensemble, evaluate, runs, temperature
from jaxseg.predict.averages import Band
from jaxseg.predict.base import BasePredictor
from jaxseg.predict.ensemble import Ensemble
from jaxseg.predict.options import Options
from jaxseg.train.build import load_experiment
from jaxseg.train.run_folder import Classes
from jaxseg.types import UserError
from tests.test_launch import launch
from tests.test_predict_evaluate import assert_same_scores, scores_by_hand
from tests.test_predict_predictor import SHALLOW, predictor_of
from tests.tiny_runs import CLASSES, make_experiment, make_workdir, random_image


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """Two workdirs of different networks on the same data."""
  folder = tmp_path_factory.mktemp('runs')
  return [
    str(make_workdir(folder / name, make_experiment(model=model)))
    for name, model in (('deep', {**SHALLOW, 'width': 5}), ('shallow', SHALLOW))
  ]


class Fixed(BasePredictor):
  """Says the same of every image: maps [h, w, k], cut into bands at some rows."""

  experiment, classes = make_experiment(), CLASSES
  entries = frozenset({'mask'})

  def __init__(self, maps, cuts=(), options=None):
    self.maps, self.cuts, self.options = maps, cuts, options or Options()

  def canvas(self, height, width):
    return height, width

  def comes_in_bands(self, size):
    return False

  def replace(self, **options):
    return Fixed(self.maps, self.cuts, dataclasses.replace(self.options, **options))

  def _bands(self, image):
    for top, rows in zip((0, *self.cuts), np.split(self.maps, self.cuts), strict=True):
      yield Band.of_maps(top, rows, 4)


def random_maps(seed, channels=4):
  rng = np.random.default_rng(seed)
  maps = rng.dirichlet(np.ones(4), (9, 5)).astype(np.float32)
  return np.concatenate([maps, rng.random((9, 5, channels - 4), np.float32)], axis=-1)


IMAGE = random_image(9, 5)


def test_probabilities_are_the_mean_and_the_mask_is_its_largest():
  maps = [random_maps(seed) for seed in range(3)]
  found = Ensemble([Fixed(m) for m in maps]).predict(IMAGE, maps=True)
  np.testing.assert_allclose(found['probabilities'], np.mean(maps, axis=0), rtol=1e-6)
  np.testing.assert_array_equal(found['mask'], np.mean(maps, axis=0).argmax(axis=-1))
  entropy = confidence.entropy(np.mean(maps, axis=0))
  np.testing.assert_allclose(found['uncertainty'], entropy, rtol=1e-5)


def test_members_that_cut_an_image_differently_still_meet():
  """The samples' variances come along."""
  maps = [random_maps(seed, channels=8) for seed in range(3)]
  cuts = [(4,), (), (2, 4, 8)]
  bands = list(Ensemble(list(map(Fixed, maps, cuts))).bands(IMAGE))
  assert [band.top for band in bands] == [0, 2, 4, 8]
  joined = np.concatenate([band.maps for band in bands])
  np.testing.assert_allclose(joined, np.mean(maps, axis=0), rtol=1e-6)
  np.testing.assert_allclose(bands[1].variance, np.mean(maps, axis=0)[2:4, :, 4:], rtol=1e-6)


def test_the_temperature_is_of_the_mean_not_of_the_members():
  members = [Fixed(random_maps(seed), options=Options(temperature=2.0)) for seed in range(2)]
  both = Ensemble(members)
  plain = both.replace(temperature=1.0)
  cold = tempered(plain.probabilities(IMAGE), 2.0)
  np.testing.assert_array_equal(both.probabilities(IMAGE), cold)
  np.testing.assert_array_equal(both(IMAGE), plain(IMAGE))
  sampled = Fixed(random_maps(0, channels=8), options=Options(temperature=2.0))
  band = next(sampled.bands(IMAGE))
  np.testing.assert_array_equal(band.probabilities, tempered(random_maps(0), 2.0))
  np.testing.assert_array_equal(band.variance, random_maps(0, channels=8)[..., 4:])


def test_an_ensemble_of_one_equals_its_member_exactly():
  """Also at a temperature; probabilities of a plain pass have it too."""
  member, image = predictor_of(SHALLOW, Options(temperature=2.0)), random_image(24, 24)
  alone, expected = Ensemble([member]), member.predict(image, maps=True)
  for name, values in alone.predict(image, maps=True).items():
    np.testing.assert_array_equal(values, expected[name])
  np.testing.assert_array_equal(alone(image), member(image))
  entropy = confidence.entropy(expected['probabilities'])
  np.testing.assert_allclose(expected['uncertainty'], entropy, rtol=1e-6)
  row = member.row(image, maps=True)
  plain = member.experiment.task.in_image(row, member.frame(), (24, 24))['probabilities']
  np.testing.assert_array_equal(expected['probabilities'], tempered(plain, 2.0))


@pytest.mark.parametrize('key', [dict(percentiles=(10.0, 80.0)), dict(image_size=(48, 48))])
def test_runs_that_read_images_differently_are_not_scored_together(key, pair, tmp_path):
  """The images that one run is scored on would be what the other makes of them."""
  data = dict(name='shapes', options=dict(size=32, count=8), **key)
  other = make_workdir(tmp_path / 'other', make_experiment(model=SHALLOW, data=data))
  for workdirs in ([pair[1], other], [other, pair[1]]):
    with pytest.raises(UserError, match=f'has data.{next(iter(key))}=.*scored together on images'):
      evaluate.evaluate_workdir(workdirs)


def test_evaluate_scores_what_predict_writes(pair, tmp_path, capsys):
  source = make_experiment().source('val')
  (tmp_path / 'in').mkdir()
  for i in range(len(source)):
    Image.fromarray(source[i]['image']).save(tmp_path / 'in' / f'{i}.png')
  names = ','.join(pair)
  launch('predict', f'--workdir={names}', f'--input={tmp_path / "in"}', f'--output={tmp_path}/out')
  masks = [np.asarray(Image.open(tmp_path / 'out' / f'{i}.png')) for i in range(len(source))]
  launch('evaluate', f'--workdir={names}', '--scores=confidence,places', '--groups=_00000([0-3])')
  result = json.loads((runs.open_runs(pair)[0].path / 'eval' / 'val_with-shallow.json').read_text())
  labels = [source[i]['label'] for i in range(len(source))]
  assert_same_scores(result, scores_by_hand(labels, masks, 4))
  assert result['mode'] == 'with shallow' and result['runs'] == pair and 0 < result['ece'] < 1
  groups = {name: row['images'] for name, row in result['by_group'].items()}
  assert groups == {'0': 1, '1': 1, '2': 1, '3': 1, 'others': 4}
  assert_same_scores(result['by_group']['2'], scores_by_hand(labels[2:3], masks[2:3], 4))
  out = capsys.readouterr().out
  assert 'outline distance' in out and 'share of errors' in out and 'others' in out


def test_a_fitted_temperature_is_kept_for_its_mode_and_step(pair, tmp_path, capsys):
  deep = pair[0]
  with pytest.raises(
    UserError, match=r'no temperature was fitted, wanted is step 1, plain: .*--fit'
  ):
    ensemble.load(deep, temperature=0)
  launch('evaluate', f'--workdir={deep}', '--fit_temperature')
  launch('evaluate', f'--workdir={",".join(pair)}', '--fit_temperature', '--flip')
  out = capsys.readouterr().out
  assert 'temperature' in out and 'NLL' in out
  kept = json.loads((runs.open_runs(deep)[0].path / 'temperature.json').read_text())
  assert list(kept) == ['plain', 'with shallow, flip']
  entry = kept['plain']
  assert entry['split'] == 'val' and entry['images'] == 8 and entry['nll_after'] < entry['nll']
  value = entry['temperature']
  assert temperature.fitted(deep, 1) == value != 1
  assert ensemble.load(deep, temperature=0).options.temperature == value
  result = evaluate.evaluate_workdir(deep, options=Options(temperature=0), extra=['confidence'])
  plain = evaluate.evaluate_workdir(deep, extra=['confidence'])
  assert result['mode'] == f'temperature {value:.4g}' and result['confusion'] == plain['confusion']
  assert result['nll'] == pytest.approx(entry['nll_after'], rel=1e-3)
  assert plain['nll'] == pytest.approx(entry['nll'], rel=1e-3)
  with pytest.raises(UserError, match='a temperature was fitted at step 1, wanted is step 2'):
    temperature.fitted(deep, 2)
  with pytest.raises(UserError, match='leave one of them out'):
    evaluate.fit_temperature(deep, options=Options(temperature=2.0))
  file = runs.open_runs(deep)[0].path / 'temperature.json'
  kept['plain'] |= {'started': ['2020-01-01']}
  file.write_text(json.dumps(kept))
  with pytest.raises(UserError, match=r'was fitted for other runs of these names \(plain\)'):
    temperature.fitted(deep, 1)
  del kept['plain']['started']  # as fitted by an earlier version
  file.write_text(json.dumps(kept))
  assert temperature.fitted(deep, 1) == value
  with pytest.raises(UserError, match='was trained on train'):
    evaluate.fit_temperature(deep, split='train')


def test_a_temperature_is_not_fitted_on_training_images_by_default(tmp_path):
  run = make_workdir(tmp_path / 'run', make_experiment('eval_split=train', model=SHALLOW))
  with pytest.raises(UserError, match='was trained on train'):
    evaluate.fit_temperature(run)


def folds(folder, names=('one', 'two')):
  """Workdirs whose validation images differ: of own folders, with four images each."""
  workdirs = []
  for number, name in enumerate(names):
    shapes = make_experiment(data=dict(name='shapes', options=dict(size=32, count=4, seed=number)))
    for split in ('train', 'val'):
      source, place = shapes.source(split), folder / f'{name}_data' / split
      for kind in ('images', 'masks'):
        (place / kind).mkdir(parents=True)
      for i in range(len(source)):
        Image.fromarray(source[i]['image']).save(place / 'images' / f'{name}{i}.png')
        Image.fromarray(source[i]['label']).save(place / 'masks' / f'{name}{i}.png')
    experiment = make_experiment(
      data=dict(name='folder'),
      data_dir=str(folder / f'{name}_data'),
      cache_dir=str(folder / 'cache'),
    )
    workdirs.append(str(make_workdir(folder / name, experiment)))
  return workdirs


def test_out_of_fold_scores_are_those_of_all_images_each_by_its_own_run(tmp_path, capsys):
  workdirs = folds(tmp_path)
  launch('evaluate', f'--workdir={",".join(workdirs)}', '--out_of_fold')
  file = tmp_path / 'one' / 'eval' / 'val_out-of-fold_with-two.json'
  result = json.loads(file.read_text())
  each = [evaluate.evaluate_workdir(workdir) for workdir in workdirs]
  total = np.sum([one['confusion'] for one in each], axis=0)
  np.testing.assert_array_equal(result['confusion'], total)
  assert result['images'] == 8 and result['mode'] == 'out-of-fold, with two'
  rows = result['by_fold']
  assert [rows[workdir]['mean_iou'] for workdir in workdirs] == [one['mean_iou'] for one in each]
  assert 'fold' in capsys.readouterr().out
  with pytest.raises(UserError, match=r'different images in val.*--out_of_fold'):
    evaluate.evaluate_workdir(workdirs)
  again = make_workdir(tmp_path / 'again', load_experiment(workdirs[0]))
  with pytest.raises(UserError, match='both hold out one0.png'):
    evaluate.evaluate_workdir([workdirs[0], again], out_of_fold=True)
  with pytest.raises(UserError, match='name the run of every fold'):
    evaluate.evaluate_workdir(workdirs[:1], out_of_fold=True)


def test_images_of_one_name_may_be_others(pair):
  """As where the files of one run's folder are numbered from 1, those of the other's from 0."""
  both = runs.open_runs(pair)
  sources = [
    SimpleNamespace(identity=name, digests=(('0.png', digest),))
    for name, digest in (('a', '1'), ('b', '2'))
  ]
  with pytest.raises(UserError, match=r'shallow and .*deep have different images in val'):
    runs.check_same_images(both, sources, 'val')
  runs.check_same_images(both, sources[:1] * 2, 'val')


def test_folds_without_a_run_are_named(capsys):
  data = [SimpleNamespace(options=dict(folds=4, fold=fold)) for fold in (0, 2)]
  of_folds = [SimpleNamespace(experiment=SimpleNamespace(data=one), path=Path('x')) for one in data]
  runs.check_folds(of_folds, [[], []])
  assert 'no run holds out fold 1, 3 of 4: its images are not scored' in capsys.readouterr().err


def test_runs_that_do_not_belong_together_are_refused(pair, tmp_path):
  other = Classes(('ground', 'disc', 'square', 'star'), CLASSES.palette)
  another = make_workdir(tmp_path / 'other', make_experiment(), other)
  with pytest.raises(
    UserError, match=r'other has the classes ground, disc, square, star, .*deep has'
  ):
    ensemble.load([pair[0], another])
  with pytest.raises(UserError, match='a folder is given twice'):
    ensemble.load([pair[0], pair[0]])
  grey = make_experiment(
    data=dict(name='shapes', options=dict(channels=1), mean=(1.0,), std=(1.0,))
  )
  with pytest.raises(UserError, match='has channels 1, '):
    ensemble.load([pair[0], make_workdir(tmp_path / 'grey', grey)])
  with pytest.raises(UserError, match='--groups=.*unterminated'):
    evaluate.evaluate_workdir(pair[0], groups='(')


def test_names_of_runs_are_as_short_as_they_can_be(tmp_path):
  paths = [tmp_path / 'a' / 'run', tmp_path / 'b' / 'run']
  assert runs.unique_names(paths) == ['a/run', 'b/run']
  assert runs.unique_names([tmp_path / 'a', tmp_path / 'b']) == ['a', 'b']
