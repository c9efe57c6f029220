"""The prediction job through its command line: every kind of image, its own size, nothing lost."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from jaxseg.draw.labels import heat
from jaxseg.predict import coco_json, job
from jaxseg.predict.ensemble import load
from jaxseg.predict.inputs import InputImage, header_size, list_items, plan_outputs, read_image
from jaxseg.predict.job import OutputFiles, predict_files
from jaxseg.predict.options import Options
from jaxseg.predict.predictor import Predictor
from jaxseg.train.evaluator import Evaluator
from jaxseg.train.run_folder import Classes
from jaxseg.types import UserError
from tests.test_instance_launchers import tiny_experiment
from tests.test_launch import ROOT, heeds_interrupts, launch
from tests.tiny_runs import PALETTE, make_experiment, make_workdir, random_image


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return make_workdir(tmp_path_factory.mktemp('run'), make_experiment())


@pytest.fixture(scope='module')
def predictor(workdir):
  return load(workdir)


def save(path, array, mode=None, **options):
  image = Image.fromarray(array)
  (image.convert(mode) if mode else image).save(path, **options)


def read(path):
  with Image.open(path) as image:
    return image.mode, np.asarray(image), image.getpalette()


KINDS = {
  'rgb.png': ('RGB', {}),
  'grey.png': ('L', {}),
  'alpha.png': ('RGBA', {}),
  'palette.png': ('P', {}),
  'one_bit.png': ('1', {}),
  'photo.jpg': ('RGB', dict(quality=90)),
  'print.jpg': ('CMYK', dict(quality=90)),
  'scan.tif': ('RGB', {}),
  'old.bmp': ('RGB', {}),
}


def test_every_kind_of_image_comes_back_at_its_own_size(workdir, predictor, tmp_path):
  folder = tmp_path / 'in'
  folder.mkdir()
  for i, (name, (mode, options)) in enumerate(KINDS.items()):
    save(folder / name, random_image(29 + i % 2, 41), mode, **options)
  (folder / 'notes.md').write_text('no image')
  (folder / '.hidden.png').write_text('no image')
  bad = predict_files(workdir, folder, tmp_path / 'out')
  assert bad == {}
  written = sorted(p.name for p in (tmp_path / 'out').iterdir())
  stems = sorted(n.split('.')[0] for n in KINDS)
  assert written == [f'{stem}.png' for stem in stems]
  for i, name in enumerate(KINDS):
    mode, mask, palette = read(tmp_path / 'out' / f'{name.split(".")[0]}.png')
    assert mode == 'P' and mask.shape == (29 + i % 2, 41) and mask.max() < 4
    assert tuple(palette[:12]) == sum(PALETTE, ())
  image = random_image(29, 41)
  np.testing.assert_array_equal(read(tmp_path / 'out' / 'rgb.png')[1], predictor(image))
  deep = (random_image(29, 41, 1)[..., 0].astype(np.uint16)) * 257
  Image.fromarray(deep).save(folder / 'deep.png')
  bad = predict_files(workdir, folder, tmp_path / 'out', skip_existing=True)
  assert list(bad) == [str(folder / 'deep.png')] and 'is uint16, and uint8' in bad.popitem()[1]


def test_a_photograph_is_turned_as_its_exif_says(workdir, predictor, tmp_path):
  image, exif = random_image(24, 40), Image.Exif()
  exif[0x0112] = 6  # to be turned a quarter to the right
  save(tmp_path / 'turned.jpg', image, quality=95, exif=exif)
  item = InputImage(tmp_path / 'turned.jpg', 'turned')
  upright = read_image(item, channels=3)
  assert upright.shape == (40, 24, 3) and header_size(item) == (40, 24)
  with Image.open(item.path) as stored:
    np.testing.assert_array_equal(upright, np.rot90(np.asarray(stored), -1))
  predict_files(workdir, item.path, tmp_path / 'out')
  np.testing.assert_array_equal(read(tmp_path / 'out' / 'turned.png')[1], predictor(upright))


def test_images_are_read_as_training_records_hold_them(tmp_path):
  from jaxseg.datasets import folder

  for kind in ('images', 'masks'):
    (tmp_path / 'train' / kind).mkdir(parents=True)
  for name, (mode, options) in KINDS.items():
    save(tmp_path / 'train' / 'images' / name, random_image(20, 30), mode, **options)
    mask = np.arange(600, dtype=np.uint8).reshape(20, 30) % 3
    save(tmp_path / 'train' / 'masks' / f'{name.split(".")[0]}.png', mask)
  source = folder.source('train', data_dir=str(tmp_path), cache_dir=str(tmp_path / 'c'), classes=3)
  assert len(source) == len(KINDS)
  for example in (source[i] for i in range(len(source))):
    path = tmp_path / 'train' / 'images' / example['file_name']
    np.testing.assert_array_equal(read_image(InputImage(path, 'x'), channels=3), example['image'])


def test_everything_that_can_be_written(workdir, predictor, tmp_path):
  image = random_image(33, 20)
  save(tmp_path / 'a.png', image)
  launch(
    'predict',
    f'--workdir={workdir}',
    f'--input={tmp_path / "a.png"}',
    f'--output={tmp_path / "out"}',
    '--overlay',
    '--probabilities',
    '--uncertainty',
  )
  out = tmp_path / 'out'
  endings = ['.png', '_overlay.png', '_probabilities.npy', '_uncertainty.npy', '_uncertainty.png']
  assert sorted(p.name for p in out.iterdir()) == sorted(f'a{e}' for e in endings)
  mask = read(out / 'a.png')[1]
  np.testing.assert_array_equal(mask, predictor(image))
  probabilities = np.load(out / 'a_probabilities.npy')
  assert probabilities.dtype == np.float16 and probabilities.shape == (33, 20, 4)
  np.testing.assert_allclose(probabilities, predictor.probabilities(image), atol=1e-3)
  uncertainty = np.load(out / 'a_uncertainty.npy')
  np.testing.assert_allclose(uncertainty, predictor.uncertainty(image), atol=1e-6)
  overlay = read(out / 'a_overlay.png')[1]
  by_hand = 0.5 * image + 0.5 * np.array(PALETTE)[mask]
  np.testing.assert_allclose(overlay, by_hand, atol=0.51)
  assert read(out / 'a_uncertainty.png')[1].shape == (33, 20, 3)


def test_heat_goes_up_to_the_largest_entropy_and_to_the_images_largest_variance():
  black, yellow = [0, 0, 4], [252, 255, 164]
  entropy = heat(np.array([[0, np.log(4), np.log(4) / 2]], np.float32), 4, sampled=False)
  variance = heat(np.array([[0, 1e-4, 0.25e-4]], np.float32), 4, sampled=True)
  for drawn in (entropy, variance):
    assert drawn[0, 0].tolist() == black and drawn[0, 1].tolist() == yellow
    np.testing.assert_allclose(drawn[0, 2], [187, 55, 84], atol=2)  # the middle of inferno
  assert (heat(np.zeros((2, 2), np.float32), 4, sampled=True) == black).all()


def test_bad_files_are_listed_and_not_fatal(workdir, tmp_path, capsys):
  save(tmp_path / 'good.png', random_image(20, 20))
  (tmp_path / 'empty.png').touch()
  (tmp_path / 'text.jpg').write_text('no picture')
  whole = io.BytesIO()
  Image.fromarray(random_image(64, 64)).save(whole, 'JPEG')
  (tmp_path / 'cut.jpg').write_bytes(whole.getvalue()[:-200])
  with pytest.raises(SystemExit) as stop:
    launch('predict', f'--workdir={workdir}', f'--input={tmp_path}', f'--output={tmp_path / "o"}')
  assert stop.value.code == 3  # some, and the others were predicted
  out = capsys.readouterr().out
  assert [p.name for p in (tmp_path / 'o').iterdir()] == ['good.png']
  assert '1 of 4 images predicted' in out and '4/4 images' in out and '3 bad' in out
  listed = [line for line in out.splitlines() if line.startswith('  not ')]
  assert len(listed) == 3 and all(any(n in t for t in listed) for n in ('empty', 'text', 'cut'))


def test_nothing_predicted_is_status_2(workdir, tmp_path, capsys):
  (tmp_path / 'empty.png').touch()
  with pytest.raises(SystemExit) as stop:
    launch('predict', f'--workdir={workdir}', f'--input={tmp_path}', f'--output={tmp_path / "o"}')
  assert stop.value.code == 2
  assert 'none of 1 images could be predicted' in capsys.readouterr().err


def test_a_list_names_files_beside_it(workdir, tmp_path):
  (tmp_path / 'deep').mkdir()
  for name in ('b', 'a'):
    save(tmp_path / 'deep' / f'{name}.png', random_image(20, 20))
  (tmp_path / 'list.txt').write_text(f'deep/b.png\n\n{tmp_path}/deep/a.png\n')
  assert [item.stem for item in list_items(tmp_path / 'list.txt')] == ['b', 'a']
  predict_files(workdir, tmp_path / 'list.txt', tmp_path / 'o')
  assert sorted(p.name for p in (tmp_path / 'o').iterdir()) == ['a.png', 'b.png']


def test_every_page_of_a_tiff_is_an_image(workdir, predictor, tmp_path):
  pages = [random_image(20, 26, seed=i) for i in range(3)]
  first, *rest = map(Image.fromarray, pages)
  first.save(tmp_path / 'volume.tif', save_all=True, append_images=rest)
  predict_files(workdir, tmp_path / 'volume.tif', tmp_path / 'o')
  for i, page in enumerate(pages):
    np.testing.assert_array_equal(read(tmp_path / 'o' / f'volume_{i:02d}.png')[1], predictor(page))


def test_nothing_is_overwritten_without_being_told(workdir, tmp_path, monkeypatch):
  save(tmp_path / 'a.png', random_image(20, 20))
  out = tmp_path / 'o'
  out.mkdir()
  (out / 'a_overlay.png').write_text('mine')
  wanted = OutputFiles(overlay=True)
  monkeypatch.setattr(job, '_Job', None)  # nothing may run
  with pytest.raises(
    UserError, match=r'a_overlay\.png already exists.*--skip_existing.*--overwrite'
  ):
    predict_files(workdir, tmp_path / 'a.png', out, outputs=wanted)
  monkeypatch.undo()
  predict_files(workdir, tmp_path / 'a.png', out, outputs=wanted, overwrite=True)
  assert read(out / 'a_overlay.png')[1].shape == (20, 20, 3)


def test_nothing_is_predicted_into_another_folder(workdir, tmp_path):
  (tmp_path / 'in' / 'sub').mkdir(parents=True)
  save(tmp_path / 'in' / 'sub' / 'a.png', random_image(20, 20))
  (tmp_path / 'out').mkdir()
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'out' / 'sub').symlink_to(tmp_path / 'mine')
  with pytest.raises(UserError, match='out/sub is a link, and nothing is written through it'):
    predict_files(workdir, tmp_path / 'in', tmp_path / 'out', overwrite=True)
  with pytest.raises(UserError, match='behind a wildcard would leave --output'):
    predict_files(workdir, f'{tmp_path}/in/*/../../in/sub/*.png', tmp_path / 'new')
  assert not [*(tmp_path / 'mine').iterdir()] and not (tmp_path / 'new').exists()


def test_a_list_may_name_a_file_twice(workdir, tmp_path, capsys):
  save(tmp_path / 'odd.png', random_image(20, 20))
  save(tmp_path / 'b.png', random_image(20, 20))
  (tmp_path / 'link.png').symlink_to('odd.png')
  (tmp_path / 'here').symlink_to('.')
  names = ('odd.png', 'b.png', './odd.png', f'{tmp_path}/odd.png', 'here/odd.png', 'link.png')
  (tmp_path / 'list.txt').write_text('\n'.join(names))
  assert [item.stem for item in list_items(tmp_path / 'list.txt')] == ['odd', 'b', 'link']
  predict_files(workdir, tmp_path / 'list.txt', tmp_path / 'o')
  assert '3 of 3 images predicted' in capsys.readouterr().out


def test_skip_existing_writes_what_is_missing_and_replaces_nothing(workdir, tmp_path, capsys):
  (folder := tmp_path / 'in').mkdir()
  for name in ('a', 'b', 'c'):
    save(folder / f'{name}.png', random_image(20, 20, seed=ord(name)))
  flags = (f'--workdir={workdir}', f'--input={folder}', '--overlay', '--probabilities')
  launch('predict', *flags, f'--output={tmp_path / "whole"}')
  whole, out = contents(tmp_path / 'whole'), tmp_path / 'out'
  launch('predict', *flags, f'--output={out}')
  for name in ('a.png', 'b_overlay.png', 'b_probabilities.npy'):
    (out / name).unlink()
  (out / 'a_overlay.png').write_text('mine')
  (out / 'c.png').write_text('mine')  # all of c is there: it is not even looked at
  capsys.readouterr()
  launch('predict', *flags, f'--output={out}', '--skip_existing')
  assert '2 of 3 images predicted' in (told := capsys.readouterr().out)
  assert '1 were there already' in told
  assert contents(out) == whole | {'a_overlay.png': b'mine', 'c.png': b'mine'}
  launch('predict', *flags, f'--output={out}', '--skip_existing')
  assert '0 of 3 images predicted' in capsys.readouterr().out


def contents(folder):
  """The results; the log of what is done is not one."""
  return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith('.')}


def test_an_interrupted_prediction_says_how_to_go_on_and_does(workdir, tmp_path):
  (folder := tmp_path / 'in').mkdir()
  for i in range(300):
    save(folder / f'{i}.png', random_image(20, 20, seed=i))
  out = tmp_path / 'out'
  flags = (f'--workdir={workdir}', f'--input={folder}', f'--output={out}')
  command = [sys.executable, str(ROOT / 'launch' / 'predict.py'), *flags]
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  process = subprocess.Popen(
    command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeds_interrupts
  )
  while process.poll() is None and not list(out.glob('[!.]*.png')):
    time.sleep(0.01)
  process.send_signal(signal.SIGINT)
  _, error = process.communicate(timeout=120)
  assert process.returncode == 130
  assert error.count('\n') == 1 and error.startswith('interrupted: ') and 'skip_existing' in error
  there = contents(out)
  assert 0 < len(there) < 300 and not [name for name in there if name.startswith('.')]
  times = {name: (out / name).stat().st_mtime_ns for name in there}
  launch('predict', *flags, '--skip_existing')
  assert len(contents(out)) == 300
  assert {name: (out / name).stat().st_mtime_ns for name in there} == times


def test_skip_existing_knows_what_an_interrupted_run_of_instances_found(tmp_path, monkeypatch):
  run = make_workdir(tmp_path / 'run', tiny_experiment())
  (folder := tmp_path / 'in').mkdir()
  for name in ('a', 'b', 'c'):
    save(folder / f'{name}.png', random_image(37, 50, seed=ord(name)))
  predict_files(run, folder, tmp_path / 'whole')
  out, add = tmp_path / 'out', coco_json.Log.add

  def add_two(log, stem, detections):
    if len(log.results) == 2:
      raise KeyboardInterrupt
    add(log, stem, detections)

  monkeypatch.setattr(coco_json.Log, 'add', add_two)
  with pytest.raises(KeyboardInterrupt, match='--skip_existing goes on'):
    predict_files(run, folder, out)
  monkeypatch.undo()
  assert not (out / 'detections.json').exists()
  with (out / '.detections.jsonl').open('a') as file:
    file.write('["c')  # a line cut short, as by a kill
  monkeypatch.setattr(Predictor, 'predict', once(Predictor.predict))
  predict_files(run, folder, out, skip_existing=True)
  assert contents(out) == contents(tmp_path / 'whole')
  predict_files(run, folder, out, skip_existing=True)  # nothing is predicted
  assert contents(out) == contents(tmp_path / 'whole')
  (folder / 'c.png').unlink()
  with pytest.raises(UserError, match='detections.json lists other images'):
    predict_files(run, folder, out, skip_existing=True)
  (out / '.detections.jsonl').unlink()
  with pytest.raises(UserError, match='detections.json lists other images'):
    predict_files(run, folder, out, skip_existing=True)


def once(function):
  """Lets a function be called a single time."""
  calls = []

  def guarded(*arguments, **options):
    assert not calls.append(1) and len(calls) == 1, 'called again'
    return function(*arguments, **options)

  return guarded


def test_a_loop_of_links_is_one_bad_file(workdir, tmp_path, capsys):
  save(tmp_path / 'good.png', random_image(20, 20))
  (tmp_path / 'loop.png').symlink_to('loop.png')
  (tmp_path / 'gone.tif').symlink_to('nothing.tif')
  bad = predict_files(workdir, tmp_path, tmp_path / 'o')
  assert [path.name for path in (tmp_path / 'o').iterdir()] == ['good.png']
  assert bad[f'{tmp_path}/loop.png'].startswith(f'cannot read {tmp_path}/loop.png: ')
  assert len(bad) == 2 and '1 of 3 images predicted' in capsys.readouterr().out


def test_inputs_are_never_replaced_and_names_never_clash(tmp_path):
  save(tmp_path / 'a.png', random_image(8, 8))
  items = list_items(tmp_path)
  with pytest.raises(UserError, match='is an input'):
    plan_outputs(items, tmp_path, ['.png'], overwrite=True)
  save(tmp_path / 'a.jpg', random_image(8, 8))
  with pytest.raises(UserError, match=r'a\.jpg and .*a\.png would both write a\.png'):
    plan_outputs(list_items(tmp_path), tmp_path / 'o', ['.png'])
  (tmp_path / 'a.jpg').unlink()
  save(tmp_path / 'a_overlay.jpg', random_image(8, 8))
  with pytest.raises(UserError, match='would both write a_overlay.png'):
    plan_outputs(list_items(tmp_path), tmp_path / 'o', ['.png', '_overlay.png'])


def test_images_of_one_size_follow_each_other_and_many_sizes_are_told(predictor, tmp_path, capsys):
  items = []
  for i in range(20):
    save(tmp_path / f'{i}.png', random_image(16 + 4 * (i % 10), 40))
    items.append(InputImage(tmp_path / f'{i}.png', str(i)))
  ordered = job.in_programs(predictor, items[:4] + items[10:14])
  assert [item.stem for item in ordered] == ['0', '10', '1', '11', '2', '12', '3', '13']
  assert not capsys.readouterr().out
  assert len(job.in_programs(predictor, items)) == 20
  assert '10 image sizes, each compiled for by itself as in evaluation: --multiple=64' in (
    capsys.readouterr().out
  )


@pytest.mark.parametrize('task', ['semantic', pytest.param('instance', marks=pytest.mark.slow)])
def test_predictions_of_twelve_sizes_are_those_that_evaluation_scores(task, tmp_path):
  """To the bit, though evaluation has batches: masks, maps, detections, of files and of records."""
  unet = dict(name='unet', width=2, depth=1, padding='same', batch_norm=True)
  experiment = make_experiment(model=unet) if task == 'semantic' else tiny_experiment()
  run = make_workdir(tmp_path / 'run', experiment)
  source, kept = [], {}
  (tmp_path / 'in').mkdir()
  for i in range(12):
    image = random_image(24 + 3 * i, 50 - 2 * i, seed=i)
    save(tmp_path / 'in' / f'{i:02d}.png', image)
    label = np.zeros(image.shape[:2], np.uint8)
    source.append({'image': image, 'label': label, 'file_name': f'{i:02d}.png'})

  class Keeper:
    maps = experiment.task.maps

    def add(self, example, prediction):
      kept[example['file_name'][:2]] = prediction

  loaded = load(run)
  sized = dataclasses.replace(experiment, eval=dataclasses.replace(experiment.eval, batch_size=3))
  Evaluator(sized, source, Keeper).score(loaded.variables)
  predict_files(
    run, tmp_path / 'in', tmp_path / 'out', outputs=OutputFiles(probabilities=Keeper.maps)
  )
  assert len(kept) == 12 and any(len(np.unique(one['mask'])) > 1 for one in kept.values())
  for stem, scored in kept.items():
    np.testing.assert_array_equal(read(tmp_path / 'out' / f'{stem}.png')[1], scored['mask'])
    if Keeper.maps:
      written = np.load(tmp_path / 'out' / f'{stem}_probabilities.npy')
      np.testing.assert_array_equal(written, scored['probabilities'].astype(np.float16))
    else:
      again = loaded.predict(tmp_path / 'in' / f'{stem}.png')
      for name in ('boxes', 'scores', 'classes', 'masks'):
        ours, theirs = (getattr(one['detections'], name) for one in (again, scored))
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
      numbers = read(tmp_path / 'out' / f'{stem}_instances.png')[1]
      np.testing.assert_array_equal(numbers, scored['ids'])


def test_folders_below_and_patterns_keep_their_places(workdir, predictor, tmp_path):
  images = {
    f'{name}.png': random_image(20, 24, seed=i) for i, name in enumerate(('a', 'x/a', 'x/y/b'))
  }
  for name, image in images.items():
    (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
    save(tmp_path / 'in' / name, image)
  (tmp_path / 'in' / '.cache').mkdir()
  save(tmp_path / 'in' / '.cache' / 'c.png', images['a.png'])
  out = tmp_path / 'in' / 'out'  # inside: what is written is no input of the next time
  for _ in range(2):
    assert predict_files(workdir, tmp_path / 'in', out, overwrite=True) == {}
  written = sorted(str(p.relative_to(out)) for p in out.rglob('*.png'))
  assert written == ['a.png', 'x/a.png', 'x/y/b.png']
  for name, image in images.items():
    np.testing.assert_array_equal(read(out / name)[1], predictor(image))

  def found(pattern):
    return [item.stem for item in list_items(f'{tmp_path}/in/{pattern}', out)]

  assert found('**/*.png') == ['a', 'x/a', 'x/y/b'] and found('*/*.png') == ['x/a']
  assert found('x/y/*') == ['b']
  with pytest.raises(UserError, match='holds no image: no file fits the pattern'):
    found('*.tif')
  assert list_items(tmp_path / 'in', out)[2].file_name == 'x/y/b.png'


def test_pictures_that_a_folder_keeps_from_prediction_are_named(tmp_path, capsys):
  for name in ('a.png', 'x/b.heic', 'c.JP2', 'notes.txt', 'out/a.npy'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b'')
  assert [item.stem for item in list_items(tmp_path, tmp_path / 'out')] == ['a']
  told = f'{tmp_path}: 2 files of other formats are left out: c.JP2, x/b.heic\n'
  assert capsys.readouterr().err == told


def test_a_predictor_takes_paths_and_pillows_images_as_training_reads_them(predictor, tmp_path):
  image = random_image(20, 24)
  mask = predictor(image)
  save(tmp_path / 'a.png', image, 'RGBA')
  with Image.open(tmp_path / 'a.png') as opened:
    np.testing.assert_array_equal(predictor(opened), mask)
  for path in (tmp_path / 'a.png', str(tmp_path / 'a.png')):
    np.testing.assert_array_equal(predictor(path), mask)
  grey = random_image(20, 24, 1)[..., 0]
  repeated = predictor(np.repeat(grey[..., None], 3, axis=-1))
  for form in (grey, grey[..., None], Image.fromarray(grey)):
    np.testing.assert_array_equal(predictor(form), repeated)
  for wrong, words in (
    (np.zeros((9, 9, 5), np.uint8), 'image has 5 channels, and 3 are expected'),
    (np.zeros((9, 9, 3), np.uint16), 'image is uint16, and uint8 is expected'),
    (np.zeros((9, 9, 3)), 'image is float64, and uint8 is expected'),
    (np.zeros((2, 9, 9, 3), np.uint8), r'has the shape \(2, 9, 9, 3\)'),
    (np.zeros((0, 9, 3), np.uint8), r'has the shape \(0, 9, 3\)'),
  ):
    with pytest.raises(UserError, match=words):
      predictor(wrong)


def test_nothing_left_to_do_loads_no_network(workdir, tmp_path, monkeypatch, capsys):
  save(tmp_path / 'a.png', random_image(20, 20))
  predict_files(workdir, tmp_path / 'a.png', tmp_path / 'out')
  monkeypatch.setattr(job, 'load_runs', lambda *_, **__: pytest.fail('a network was loaded'))
  assert predict_files(workdir, tmp_path / 'a.png', tmp_path / 'out', skip_existing=True) == {}
  assert '0 of 1 images predicted' in capsys.readouterr().out


def test_large_images_are_written_from_tiles(workdir, predictor, tmp_path):
  image = random_image(90, 70)
  save(tmp_path / 'big.png', image)
  options = Options(tile=(32, 32), tile_step=(16, 16), flip=True)
  predict_files(
    workdir,
    tmp_path / 'big.png',
    tmp_path / 'o',
    outputs=OutputFiles(probabilities=True, uncertainty=True),
    options=options,
  )
  tiled = predictor.replace(tile=(32, 32), tile_step=(16, 16), flip=True)
  np.testing.assert_array_equal(read(tmp_path / 'o' / 'big.png')[1], tiled(image))
  stored = np.load(tmp_path / 'o' / 'big_probabilities.npy')
  np.testing.assert_allclose(stored, tiled.probabilities(image), atol=1e-3)


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--input=/nowhere.png'], 'no such file or folder: /nowhere.png'),
    (['--input=EMPTY'], 'holds no image'),
    (['--input=IMAGE', '--tile=33,32'], 'take 32 or 36'),
    (['--input=IMAGE', '--tile=x'], "'x': give a whole number, 1 or more"),
    (['--input=IMAGE', '--scales=1,b'], "'b': give a number between 0.01 and 16"),
    (['--input=IMAGE', '--step=7'], 'one of the steps 1'),
    (['--input=IMAGE', '--output=/proc/x'], 'choose a folder that can be made'),
    (['--input=IMAGE', '--skip_existing', '--overwrite'], 'give one of them'),
  ],
)
def test_a_mistake_is_one_line_and_status_2(flags, message, workdir, tmp_path, capsys):
  save(tmp_path / 'a.png', random_image(8, 8))
  (tmp_path / 'empty').mkdir()
  words = {'IMAGE': tmp_path / 'a.png', 'EMPTY': tmp_path / 'empty'}
  flags = [
    f.replace(word, str(path)) for f in flags for word, path in words.items() if word in f
  ] + [f for f in flags if not any(word in f for word in words)]
  with pytest.raises(SystemExit) as stop:
    launch('predict', f'--workdir={workdir}', f'--output={tmp_path / "o"}', *flags)
  assert stop.value.code == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


def test_masks_that_number_classes_otherwise_than_the_data_are_told(capsys):
  job._tell_numbers(Classes(('ground', 'cat', 'dog'), PALETTE[:3], (0, 7, 20)))
  said = 'note      masks number the classes from 0: 1 is cat (7), 2 is dog (20) in your data\n'
  assert capsys.readouterr().out == said
  job._tell_numbers(Classes(('ground', 'cat'), PALETTE[:2]))
  assert not capsys.readouterr().out
