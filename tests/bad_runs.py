"""The rest of the table of bad inputs: lists, weights, checkpoints, prediction and configs."""

from __future__ import annotations

import os
import pickle
import shutil

import numpy as np

from tests.bad_inputs import CASES, ROOT, Case, Place, case, works

# Lists --------------------------------------------------------------------------------------------


@case('list', 'classes.txt that is no text', 'classes.txt is not a text file')
def _(place):
  (place.own / 'classes.txt').write_bytes(b'\xff\xfe\x00g\x00r')


@case('list', 'classes.txt with one class twice', 'the class names must differ')
def _(place):
  (place.own / 'classes.txt').write_text('ground\nroad\nroad\n')


@case('list', 'another number of classes than the config', 'add --config.num_classes=4')
def _(place):
  (place.own / 'classes.txt').write_text('ground\nroad\ncar\ntree\n')


def _camvid(place: Place, text: str | bytes) -> list[str]:
  """A CamVid of one's own, whose train.txt holds the text."""
  root = place.here / 'camvid'
  for name in ('train', 'trainannot'):
    (root / name).mkdir(parents=True)
    shutil.copy(place.mask, root / name / 'a.png')
  (root / 'train.txt').write_bytes(text.encode() if isinstance(text, str) else text)
  (root / 'val.txt').write_text('train/a.png trainannot/a.png\n')
  config = ROOT / 'configs' / 'segnet_camvid.py'
  return [f'--config={config}:small', f'--config.data_dir={place.here}']


@case('list', 'line without a label', "train.txt, line 2: expected 'image label'")
def _(place):
  return _camvid(place, 'train/a.png trainannot/a.png\ntrain/a.png\n')


@case('list', 'names a file that is not there', 'missing file', job='check')
def _(place):
  return _camvid(place, 'train/a.png trainannot/a.png\ntrain/b.png trainannot/b.png\n')


@case('list', 'empty', "the split 'train' has no examples")
def _(place):
  return _camvid(place, '\n')


@case('list', 'that is no text', 'train.txt is not a text file')
def _(place):
  return _camvid(place, bytes(range(128, 256)))


@case('list', 'index without its columns', "index.csv has no columns 'id' and 'split'")
def _(place):
  (place.here / 'dsb2018').mkdir()
  (place.here / 'dsb2018' / 'index.csv').write_text('name,fold\na,1\n')
  config = ROOT / 'configs' / 'unet_dsb2018.py'
  return [f'--config={config}', f'--config.data_dir={place.here}']


# Weights and checkpoints --------------------------------------------------------------------------


class Bomb:
  """A pickle of it makes the folder `jaxseg_bomb` wherever it is loaded."""

  def __reduce__(self):
    return os.mkdir, ('jaxseg_bomb',)


def _weights(place: Place, name: str, data: bytes) -> list[str]:
  file = place.here / name
  file.write_bytes(data)
  return [f'--config.init_from={file}']


@case('weights', 'file that is not there', 'there is no weight file')
def _(place):
  return [f'--config.init_from={place.here}/none.pth']


@case('weights', 'text named .pth', 'w.pth is no weight file')
def _(place):
  return _weights(place, 'w.pth', b'<html>404 not found</html>')


@case('weights', 'pickle that would run code', 'w.pth', process=True)
def _(place):
  return _weights(place, 'w.pth', pickle.dumps({'state_dict': Bomb()}, protocol=2))


@case('weights', 'truncated safetensors', 'w.safetensors')
def _(place):
  from safetensors.numpy import save

  return _weights(place, 'w.safetensors', save({'a': np.zeros(99, np.float32)})[:-100])


@case('weights', "another network's", 'the weights do not fit')
def _(place):
  return [f'--config.init_from={place.trained()}']


@case('weights', 'folder without a run', 'no run in')
def _(place):
  return [f'--config.init_from={place.own}']


@case('checkpoint', 'workdir that is not there', 'no run in', job='evaluate', process=True)
def _(place):
  return [f'--workdir={place.here}/none']


@case('checkpoint', 'config.json cut short', 'config.json is not a config', job='evaluate')
def _(place):
  run = place.trained()
  file = run / 'config.json'
  file.write_text(file.read_text()[:100])
  return [f'--workdir={run}']


@case('checkpoint', 'all its files emptied', 'remove this folder', job='evaluate')
def _(place):
  run = place.trained()
  for path in run.glob('checkpoints/1/**/*'):
    if path.is_file():
      path.write_bytes(b'')
  return [f'--workdir={run}']


@case('checkpoint', 'its arrays cut short', 'cannot be read', job='evaluate')
def _(place):
  run = place.trained()
  for path in run.glob('checkpoints/1/state/**/*'):
    if path.is_file():
      os.truncate(path, path.stat().st_size // 2)
  return [f'--workdir={run}']


@case('checkpoint', 'none in the folder', 'no checkpoint', job='evaluate')
def _(place):
  run = place.trained()
  shutil.rmtree(run / 'checkpoints' / '1')
  return [f'--workdir={run}']


@case('checkpoint', 'a pickle in its place', 'no checkpoint', job='predict')
def _(place):
  run = place.trained()
  shutil.rmtree(run / 'checkpoints' / '1')
  (run / 'checkpoints' / '1').write_bytes(pickle.dumps(Bomb()))
  return [f'--workdir={run}', f'--input={place.image}']


@case('checkpoint', 'classes.json cut short', 'classes.json cannot be read', job='predict')
def _(place):
  run = place.trained()
  (run / 'classes.json').write_text('{"names": ')
  return [f'--workdir={run}', f'--input={place.image}']


@case('checkpoint', 'workdir that cannot be written', 'choose a folder that can be written')
def _(place):
  return [f'--workdir={place.image}']


# Prediction ---------------------------------------------------------------------------------------


@case('prediction', 'folder without an image', 'no image', job='predict')
def _(place):
  (place.here / 'empty').mkdir()
  return [f'--workdir={place.trained()}', f'--input={place.here}/empty']


@case('prediction', 'input that is not there', 'none.png', job='predict')
def _(place):
  return [f'--workdir={place.trained()}', f'--input={place.here}/none.png']


@works('prediction', 'a bad image among good ones', 'a.png is empty', job='predict', status=3)
def _(place):
  place.image.write_bytes(b'')
  return [f'--workdir={place.trained()}', f'--input={place.image.parent}']


@works(
  'prediction',
  'a link to itself among good images',
  'Too many levels of symbolic links',
  job='predict',
  status=3,
)
def _(place):
  (place.image.parent / 'loop.png').symlink_to('loop.png')
  return [f'--workdir={place.trained()}', f'--input={place.image.parent}']


# Configs ------------------------------------------------------------------------------------------


def _flag(group, title, flag, says, **more):
  CASES.append(Case(group, title, more.pop('job', 'train'), lambda place: [flag], says, **more))


def _file(title: str, text: str, says: str, **more) -> None:
  def spoil(place: Place) -> list[str]:
    file = place.here / 'bad.py'
    file.write_text(text)
    return [f'--config={file}']

  CASES.append(Case('config', title, 'train', spoil, says, **more))


BASE = 'from jaxseg.config import base\n\n\ndef get_config(variant=None):\n  config = base()\n'
_flag(
  'config', 'key with a typo', '--config.bach_size=2', "did you mean 'batch_size'?", process=True
)
_flag('config', 'option with a typo', '--config.model.widht=3', 'no such option; it has')
_flag('config', 'word for a number', '--config.batch_size=eight', 'expected a whole number')
_flag(
  'config', 'not a number', '--config.optim.learning_rate=nan', "config.optim.learning_rate='nan'"
)
_flag('config', 'word for a size', '--config.augment.crop.size=ab', "config.augment.crop.size='ab'")
_flag('config', 'crop that the network cannot take', '--config.augment.crop.size=30,30', '28 or 32')
_flag(
  'config',
  'mean of the wrong length',
  '--config.data.mean=1,2',
  'one value for each of the 2 channels',
)
_flag('config', 'deviation of zero', '--config.data.std=1,0,1', 'every value must be above 0')
_flag(
  'config',
  'weights of two of three classes',
  '--config.loss.class_weights=1,1',
  '2 numbers for 3 classes',
)
_flag('config', 'dataset that does not exist', '--config.data.name=foldr', "did you mean 'folder'?")
_flag(
  'config',
  'unknown option of the dataset',
  '--config.data.options.x=1',
  'config.data.options.x: no such option',
)
_flag('config', 'split that does not exist', '--config.data.train_split=trian', "no split 'trian'")
_flag(
  'config', 'optimiser that does not exist', '--config.optim.name=adm', 'choose one of', job='check'
)
_flag('config', 'file that is not there', '--config=none.py', 'no config file', process=True)
_file('file with a syntax error', 'def get_config(:\n', 'bad.py: SyntaxError')
_file('file that fails', BASE + '  return config.seed / 0\n', 'line 6: ZeroDivisionError')
_file('file that ends the process', BASE + '  raise SystemExit(0)\n', 'line 6: SystemExit: 0')
_file('file that returns nothing', BASE, 'get_config returned None')
_file('text for a number in the file', BASE + "  config.batch_size = '8'\n  return config\n", "'8'")
