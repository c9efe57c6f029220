"""Several runs as one: means by hand, one alone, what does not belong together, folds, temperatures."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxseg.metrics import confidence
from jaxseg.metrics.temperature import tempered
from jaxseg.predict import ensemble, evaluate, runs, temperature
from jaxseg.predict.ensemble import Ensemble
from jaxseg.predict.options import Options
from jaxseg.train.build import load_experiment
from jaxseg.train.run_folder import Classes
from jaxseg.types import UserError
from tests.test_launch import launch
from tests.test_predict_evaluate import assert_same_scores, scores_by_hand
from tests.test_predict_predictor import SHALLOW, VALID, predictor_of
from tests.tiny_runs import CLASSES, make_experiment, make_workdir, random_image

DEEP = dict(name='unet', width=4, depth=2, padding='same', batch_norm=True)


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
  """Two workdirs of different networks on the same data."""
  folder = tmp_path_factory.mktemp('runs')
  return [
    str(make_workdir(folder / name, make_experiment(model=model)))
    for name, model in (('deep', DEEP), ('shallow', SHALLOW))
  ]


def test_probabilities_are_the_mean_and_the_mask_is_its_largest():
  members = predictor_of(SHALLOW), predictor_of(VALID)
  image = random_image(30, 41)
  both = Ensemble(members).predict(image, maps=True)
  mean = sum(member.probabilities(image) for member in members) / 2
  np.testing.assert_array_equal(both['probabilities'], mean)
  np.testing.assert_array_equal(both['mask'], mean.argmax(axis=-1))
  np.testing.assert_allclose(both['uncertainty'], confidence.entropy(mean), rtol=1e-6)


def test_an_ensemble_of_one_equals_its_member_exactly():
  member, image = predictor_of(DEEP), random_image(30, 41)
  alone = Ensemble([member])
  for name, values in member.predict(image, maps=True).items():
    np.testing.assert_array_equal(alone.predict(image, maps=True)[name], values)
  np.testing.assert_array_equal(alone(image), member(image))


def test_members_that_cut_an_image_differently_still_meet():
  """Tiles of 32 rows end elsewhere in a network with a margin; the samples' variance comes along."""
  options = Options(tile=(48, 48), samples=2)
  members = predictor_of(SHALLOW, options), predictor_of(VALID, options)
  image = random_image(70, 50)
  cuts = [[band.top for band in member.bands(image)] for member in members]
  assert cuts[0] != cuts[1]
  bands = list(Ensemble(members).bands(image))
  assert [band.top for band in bands] == sorted({*cuts[0], *cuts[1]})
  assert sum(len(band.mask) for band in bands) == 70
  assert bands[0].variance.shape[-1] == 4 and bands[0].variance.max() > 0


def test_the_temperature_is_of_the_mean_not_of_the_members():
  members = [predictor_of(model, Options(temperature=2.0)) for model in (SHALLOW, DEEP)]
  image, both = random_image(24, 24), Ensemble(members)
  plain = both.replace(temperature=1.0).probabilities(image)
  np.testing.assert_array_equal(both.probabilities(image), tempered(plain, 2.0))
  np.testing.assert_array_equal(both(image), both.replace(temperature=1.0)(image))
  single = members[0].predict(image, maps=True)
  cold = tempered(members[0].replace(temperature=1.0).probabilities(image), 2.0)
  np.testing.assert_array_equal(single['probabilities'], cold)
  np.testing.assert_array_equal(members[0].probabilities(image), cold)
  np.testing.assert_allclose(single['uncertainty'], confidence.entropy(cold), rtol=1e-6)


def test_evaluate_scores_what_predict_writes(pair, tmp_path, capsys):
  source = make_experiment().source('val')
  (tmp_path / 'in').mkdir()
  for i in range(len(source)):
    Image.fromarray(source[i]['image']).save(tmp_path / 'in' / f'{i}.png')
  names = ','.join(pair)
  launch('predict', f'--workdir={names}', f'--input={tmp_path / "in"}', f'--output={tmp_path}/out')
  masks = [np.asarray(Image.open(tmp_path / 'out' / f'{i}.png')) for i in range(len(source))]
  launch('evaluate', f'--workdir={names}', '--confidence', '--places', '--groups=_00000([0-3])')
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
  with pytest.raises(UserError, match='was trained on train'):
    evaluate.fit_temperature(deep, split='train')


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
    evaluate.evaluate_out_of_fold([workdirs[0], again])
  with pytest.raises(UserError, match='name the run of every fold'):
    evaluate.evaluate_out_of_fold(workdirs[:1])


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
