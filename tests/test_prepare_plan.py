"""launch/data.py plan: a config that says what the data say, loads, and trains as it is."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxseg import config as configs
from jaxseg.datasets import folder, shapes
from jaxseg.models import unet
from jaxseg.prepare import check, config_text, own_data, plan, recipe
from jaxseg.prepare.own_data import Request
from jaxseg.train import build
from jaxseg.types import UserError
from tests.test_launch import ROOT, launch
from tests.test_prepare_check import write_pair


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))


def six_of(size, folder):
  """Six generated images with masks, saved as a person would: images/ and masks/, no splits."""
  source = shapes.source('train', size=size, count=6, num_classes=3)
  for i in range(6):
    write_pair(folder, f'photo {i}', source[i]['image'], source[i]['label'])
  return folder


@pytest.fixture
def six(tmp_path):
  return six_of(32, tmp_path / 'my images')


def test_a_plan_trains_as_it_is(tmp_path, capsys):
  file, folder = tmp_path / 'mine.py', six_of(16, tmp_path / 'my images')
  launch('data', 'plan', f'--folder={folder}', f'--output={file}')
  text = capsys.readouterr().out
  command = f'python launch/train.py --config={file} --workdir={tmp_path}/mine_run'
  assert command in text and '5 training images, 16x16; 1 for validation' in text
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  # Two devices on one busy machine wait for each other.
  run = [sys.executable, *shlex.split(command)[1:], '--config.cpu_devices=1']
  done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  out = done.stdout
  losses = [float(v) for v in re.findall(r'loss ([\d.e+-]+) ', out)]
  assert re.search(r'step 200/200 ', out) and losses[-1] < 0.5 * losses[0]
  assert 'data      folder: 5 train, 1 val' in out and 'labels    train: ' in out


def test_a_plan_says_what_the_data_say(six, tmp_path):
  made = plan.plan(Request(str(six)), tmp_path / 'mine.py')
  experiment = build.experiment(configs.load(str(tmp_path / 'mine.py')))
  settings, data = experiment.settings, experiment.data
  source = folder.source('train', data_dir=six)
  pixels = np.concatenate([source[i]['image'].reshape(-1, 3) for i in range(5)])
  np.testing.assert_allclose(data.mean, pixels.mean(0), atol=0.006)
  np.testing.assert_allclose(data.std, pixels.std(0), atol=0.006)
  crop, flip, photometric = experiment.transforms
  assert crop.size == (32, 32) and crop.scale == (0.75, 1.5) and flip.horizontal
  assert photometric.brightness == photometric.contrast == 0.2
  assert experiment.config['model']['depth'] == 3 and len(experiment.task.class_weights) == 3
  assert (settings.batch_size, settings.num_steps, settings.num_classes) == (4, 200, 3)
  assert (experiment.eval.every, experiment.eval.scales) == (50, (1.0,))
  assert str(six) == settings.data_dir and made.images == 5
  suggested = check.check(experiment, tmp_path / 'checked')['class_weights']
  assert suggested == list(experiment.task.class_weights)


def test_a_plan_for_grey_binary_twelve_bit_images(tmp_path):
  root, rng = tmp_path / 'quote " and \\', np.random.default_rng(0)
  for split in ('train', 'val'):
    for i in range(2):
      write_pair(root / split, f'{i}', np.zeros((24, 24)), 255 * rng.integers(0, 2, (24, 24)))
      deep = rng.integers(0, 3000, (24, 24)).astype(np.uint16)
      Image.fromarray(deep).save(root / split / 'images' / f'{i}.png')
  plan.plan(Request(str(root)), tmp_path / 'mine.py')
  experiment = build.experiment(configs.load(str(tmp_path / 'mine.py')))
  names, [mean] = ('background', 'foreground'), experiment.data.mean
  layout = dict(images='{split}/images/**/*', masks='{split}/masks/**/*')
  assert experiment.data.options == layout | dict(classes=names, binary=True)
  assert experiment.channels == 1 and experiment.data.dtype == 'uint16' and 1400 < mean < 1600
  assert experiment.settings.data_dir == str(root)


def test_a_plan_never_overwrites_by_itself(six, tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text('mine')
  with pytest.raises(UserError, match='mine.py exists: .* --overwrite'):
    plan.plan(Request(str(six)), file)
  assert file.read_text() == 'mine'
  plan.plan(Request(str(six)), file, overwrite=True)
  with pytest.raises(UserError, match='ending in .py in a folder that exists'):
    plan.plan(Request(str(six)), tmp_path / 'none' / 'mine.py')
  assert [p.name for p in tmp_path.iterdir() if p.name.startswith('.')] == []


def test_a_plan_of_more_than_a_few_images_loads(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(21):
    write_pair(
      tmp_path / 'own', f'{i}', rng.integers(0, 256, (8, 8, 3)), rng.integers(0, 2, (8, 8))
    )
  made = plan.plan(Request(str(tmp_path / 'own')), tmp_path / 'mine.py')
  config = configs.load(str(tmp_path / 'mine.py'))
  experiment = build.experiment(config)  # refuses numbers of another kind
  settings = experiment.settings
  assert (made.images, made.data.counts['val'], settings.batch_size, settings.num_steps) == (
    17,
    4,
    8,
    210,
  )


def test_a_plan_halves_images_that_a_crop_would_not_show(tmp_path):
  rng, device = np.random.default_rng(0), recipe.Machine('any', 1, 8 << 30, is_accelerator=False)
  for i in range(4):
    mask = np.zeros((260, 300))
    mask[: 20 * i + 20] = 1
    write_pair(tmp_path / 'own', f'{i}', rng.integers(0, 256, (260, 300, 3)), mask)
  made = plan.make_plan(Request(str(tmp_path / 'own')), device)
  chosen = made.recipe
  assert (chosen.scale, chosen.crop, chosen.batch_size) == (0.5, (128, 128), 2)
  assert chosen.num_steps == 180 + 20  # 3 images, 130 x 150 of 128 x 128: 3.57 crops, 178 steps
  (tmp_path / 'mine.py').write_text(config_text.write(made, 'train'))
  experiment = build.experiment(configs.load(str(tmp_path / 'mine.py')))
  assert experiment.transforms[0].scale == 0.5 and experiment.eval.scales == (0.5,)
  counts = np.sort(made.weights)  # of two classes, the root of 1/(2 share)
  shares = [folder.source('train', data_dir=tmp_path / 'own')[i]['label'].mean() for i in range(3)]
  share = np.mean(shares)
  np.testing.assert_allclose(
    counts, np.sort([(0.5 / s) ** 0.5 for s in (share, 1 - share)]), atol=1e-4
  )


def test_a_plan_warns_of_ids_that_look_like_slips(six, tmp_path, capsys):
  assert own_data.find(Request(str(six))).warnings == ()
  mask = six / 'masks' / 'photo 3.png'
  ids = np.array(Image.open(mask))
  ids[0, 0] = 5
  Image.fromarray(ids).save(mask)
  launch('data', 'plan', f'--folder={six}', f'--output={tmp_path}/mine.py')
  lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('warning')]
  assert len(lines) == 2 and 'ids in no mask, below others: 3, 4;' in lines[0]
  assert f'ids in one mask only: 5 ({mask});' in lines[1]
  (six / 'classes.txt').write_text('a\nb\nc\nd\ne\nf\n')
  assert own_data.find(Request(str(six))).warnings == ()  # listed: each is meant


def test_patterns_and_lists_without_a_pair_are_refused(six):
  with pytest.raises(UserError, match=r"images 'none\*' with masks 'none\*' give no pair"):
    own_data.find(Request(str(six), 'none*', 'none*'))
  (six / 'list.csv').write_text('image,mask\n')
  with pytest.raises(UserError, match=r'list\.csv give no pair of image and mask'):
    own_data.find(Request(listed=str(six / 'list.csv')))


def test_masks_numbered_from_another_number_are_asked_about(six):
  for i in range(5, -1, -1):
    (six / 'masks' / f'photo {i}.png').rename(six / 'masks' / f'photo {i + 1}.png')
  with pytest.raises(UserError, match='images are numbered from 0 and masks from 1, .*--list'):
    own_data.find(Request(str(six)))
  (six / 'masks' / 'photo 6.png').unlink()
  assert own_data.find(Request(str(six))).counts == {
    'train': 4,
    'val': 1,
  }  # an image without a mask is left out
  (six / 'images' / 'photo 0.png').unlink()
  assert own_data.find(Request(str(six))).counts == {'train': 4, 'val': 1}


def test_masks_that_matlab_numbered_by_text_are_asked_about(tmp_path):
  for number in range(1, 12):
    for name in (f'images/frame_{number}.png', f'PixelLabelData/Label_{number}.png'):
      (tmp_path / name).parent.mkdir(exist_ok=True)
      Image.new('L', (16, 16), number % 2).save(tmp_path / name)
    if number == 9:  # up to here both orders are one
      assert own_data.find(Request(str(tmp_path))).counts == {'train': 8, 'val': 1}
  with pytest.raises(UserError, match='in which frame_1[01].png comes before frame_2.png: pair'):
    own_data.find(Request(str(tmp_path)))


@pytest.mark.parametrize(('axes', 'count'), [('CYX', 3), ('ZYX', 3), ('CYX', 9)])
@pytest.mark.parametrize('kind', ['imagej', 'ome'])
def test_pages_that_are_channels_are_asked_about(tmp_path, axes, count, kind):
  for name in ('images/a.tif', 'images/b.tif', 'masks/a.tif', 'masks/b.tif'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 2, (count, 16, 16)).astype(np.uint8)
    more = {kind: True, 'metadata': {'axes': axes}, 'photometric': 'minisblack'}
    tifffile.imwrite(tmp_path / name, pixels, **more)
  request = Request(str(tmp_path))
  if (axes, count) == ('CYX', 3):
    with pytest.raises(UserError, match='its 3 pages are channels by its own metadata: save'):
      own_data.find(request)
    request = Request(str(tmp_path), options={'pages': True})
  assert sum(own_data.find(request).counts.values()) == 2 * count


def test_a_plan_warns_of_examples_in_two_splits(six, tmp_path):
  for split, numbers in (('train', range(6)), ('val', (1, 4))):
    for kind in ('images', 'masks'):
      (tmp_path / 'own' / split / kind).mkdir(parents=True)
      for i in numbers:
        new = f'{split}{i}.png'
        shutil.copy(six / kind / f'photo {i}.png', tmp_path / 'own' / split / kind / new)
  assert own_data.find(Request(str(tmp_path / 'own'))).warnings == (
    'warning   2 images are in two splits: train/train1.png = val/val1.png, train/train4.png = val/val4.png; '
    'what is held out must not train',
  )


def test_what_is_to_be_left_out_stays_out_beside_bad_files(six):
  bad = [six / 'images' / f'photo {i}.png' for i in (0, 1)]
  [path.write_bytes(path.read_bytes()[:60]) for path in bad]
  (six / 'train.txt').write_text(''.join(f'photo {i}\n' for i in range(5)))
  (six / 'val.txt').write_text('photo 5\n')
  found = own_data.find(Request(str(six), options={'without': (bad[0].name,)}))
  source, told = found.usable('train')
  assert [source.file_name(i) for i in range(len(source))] == [f'photo {i}.png' for i in (2, 3, 4)]
  assert len(told) == 1 and str(bad[1]) in told[0]


def test_a_plan_warns_of_colours_that_number_objects(tmp_path):
  for i in range(4):
    write_pair(tmp_path, f'{i}', np.zeros((8, 8)), np.zeros((8, 8)))
    mask = np.zeros((8, 8, 3), np.uint8)
    mask[:4], mask[4:6] = (40 * i, 9, 9), (9, 40 * i, 7)
    Image.fromarray(mask).save(tmp_path / 'masks' / f'{i}.png')
  [warning] = own_data.find(Request(str(tmp_path))).warnings
  assert warning.startswith('warning   8 of 9 colours are in one mask only: if each is an object')


def test_masks_of_0_and_255_leave_no_doubt(tmp_path):
  for i in range(2):
    write_pair(tmp_path, f'{i}', np.zeros((8, 8)), np.full((8, 8), 255 * i))
  assert own_data.find(Request(str(tmp_path))).warnings == ()


GPU = recipe.Machine('big', 4, 80 << 30, is_accelerator=True)


def test_a_plan_fits_the_device(six):
  assert plan.make_plan(Request(str(six)), GPU).recipe.model['width'] == 32
  small = recipe.Machine('small', 1, 12 << 20, is_accelerator=False)
  chosen = plan.make_plan(Request(str(six)), small).recipe
  assert chosen.batch_size == 1 and chosen.step_bytes < 12e6


@pytest.mark.parametrize(
  ('sides', 'largest', 'depth', 'crop'),
  [
    ((360, 480), 512, 4, (352, 480)),
    ((2000, 3000), 512, 4, (512, 512)),
    ((2000, 3000), 128, 4, (128, 128)),
    ((40, 100), 512, 3, (40, 96)),
    ((5, 100), 512, 1, (4, 100)),
    ((1, 1), 512, 1, (2, 2)),
  ],
)
def test_the_crop_is_what_the_network_takes(sides, largest, depth, crop):
  options, found = recipe.fit('unet', sides, largest, fast=False)
  assert (options['depth'], found) == (depth, crop)
  rule = unet.Model(2, depth=depth, padding='same').size_rule
  assert all(rule.allows(side) for side in crop)


def test_a_plan_counts_whole_steps():
  """100 epochs of 16 images in batches of 8 are 200 steps; 1850 / 4 = 462.5 are 460."""
  for images, batch, on_cpu, on_gpu in (
    (16, 8, 200, 200),
    (37, 8, 460, 460),
    (5, 4, 200, 200),
    (900, 4, 1000, 20_000),
  ):
    counts = [recipe.count_steps(images, batch, is_accelerator=a) for a in (False, True)]
    assert counts == [on_cpu, on_gpu] and all(type(c) is int for c in counts)


def test_memory_of_a_step_is_of_the_right_size():
  """Conv 3 -> 4 keeps at least its input and output; a net of twice the pixels keeps twice that."""
  model = unet.Model(2, width=4, depth=1, padding='same', batch_norm=True)
  fixed, each = recipe.step_bytes(model, (16, 16), 3)
  _, double = recipe.step_bytes(model, (16, 32), 3)
  assert double == pytest.approx(2 * each, rel=0.01)
  assert each > 1.5 * 4 * 16 * 16 * (3 + 4 + 4)
  # enc0: 3*4*9+4, 4*4*9+4; bottom 4->8->8; up 8->4 2x2; dec 8->4->4; out 4->2; BN 2 a feature map
  convolutions = 112 + 148 + 296 + 584 + (8 * 4 * 4 + 4) + 292 + 148 + 10
  norms = 2 * (4 + 4 + 8 + 8 + 4 + 4)
  extra = fixed // 16 - convolutions
  assert fixed % 16 == 0 and 0 <= extra <= norms + 8
