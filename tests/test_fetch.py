"""Data and weights by name: the manifest is sound, terms are agreed to once, and files lie where readers look."""

import contextlib
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg.config import config_files
from jaxseg.config.parts import load, names, parameters
from jaxseg.data import archives
from jaxseg.fetch import get, manifest, weights
from jaxseg.files import part
from jaxseg.nn.backbones import NAMES
from jaxseg.prepare import get as prepare_get
from jaxseg.pretrained.names import SOURCES
from jaxseg.train import build, initial
from jaxseg.types import UserError

ROOT = Path(__file__).parents[1]
DATA = np.random.default_rng(0).integers(0, 256, 200_000, np.uint8).tobytes()
ITEM = manifest.RemoteFile(
  'f.tar', bytes=len(DATA), digest=f'sha256:{hashlib.sha256(DATA).hexdigest()}'
)
SET = manifest.Dataset(
  'voc', 'CC BY 4.0', 'https://example.org', (ITEM,), steps='log in at {folder}'
)
ALL = [*(i for d in manifest.datasets().values() for i in d.files)]
ALL += [w.file for w in manifest.weights().values() if not w.package]


@pytest.fixture
def place(tmp_path, monkeypatch):
  """A data folder, a cache and a mirror that has ITEM."""
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('JAXSEG_DATA', str(tmp_path / 'data'))
  monkeypatch.delenv('JAXSEG_MIRROR', raising=False)
  mirror = tmp_path / 'mirror' / 'voc' / ITEM.name
  mirror.parent.mkdir(parents=True)
  mirror.write_bytes(DATA)
  return tmp_path


def way(place, **options):
  return get.FetchOptions(str(place / 'mirror'), **options)


def test_every_published_dataset_is_listed_and_its_files_are_what_its_reader_asks_for():
  own = {'folder', 'objects', 'shapes'}
  assert set(manifest.datasets()) == set(names('datasets')) - own
  for name, entry in manifest.datasets().items():
    module = load('datasets', name)
    text = Path(module.__file__).read_text()
    for item in entry.files:
      stem = item.name.split('.')[0].split('_')[0]
      assert item.name in text or stem in text or name == 'ctc', item.name
      for condition in item.when:
        key, _, value = condition.partition('=')
        assert value in module.SPLITS if key == 'split' else key in parameters(module.source)


@pytest.mark.parametrize('item', ALL, ids=lambda item: item.name)
def test_a_file_says_where_it_is_who_knows_it_and_what_is_not_verified(item):
  part.check_digest(item.digest)
  assert all(re.match('https?://', address) for address in item.addresses)
  assert item.known or not item.addresses
  if item.addresses and not (item.digest and item.bytes):
    assert 'not verified' in item.known or 'may change' in item.known
  if m := re.search(r'-([0-9a-f]{8})\.pth$', item.name):  # torch's file names and the packages'
    assert item.digest.startswith(f'sha256:{m[1]}')


def test_steps_are_given_where_there_is_no_address():
  for entry in manifest.datasets().values():
    assert bool(entry.steps) == any(not item.addresses for item in entry.files)
    assert '{folder}' in entry.steps or not entry.steps


def test_weights_are_of_a_naming_that_is_read_and_of_a_network_that_there_is():
  networks = {'', *NAMES, 'vgg16_bn', 'resnet50_deep', 'resnet101_deep'}
  for entry in manifest.weights().values():
    assert entry.naming in {source.name for source in SOURCES} and entry.network in networks


def test_files_are_got_and_noted_and_stay(place, capsys):
  root = place / 'data'
  get.dataset(SET, root, way(place, yes=True))
  file = root / 'voc' / 'f.tar'
  assert file.read_bytes() == DATA
  note = json.loads((root / 'voc' / 'f.tar.origin.json').read_text())
  assert note.pop('date') and note == {
    'address': f'{place}/mirror/voc/f.tar',
    'size': len(DATA),
    'sha256': ITEM.digest.removeprefix('sha256:'),
  }
  assert 'voc: CC BY 4.0; https://example.org' in capsys.readouterr().out
  (place / 'mirror' / 'voc' / 'f.tar').unlink()
  get.dataset(SET, root, way(place))  # nothing is asked for or asked
  assert capsys.readouterr().out == f'voc: f.tar in {root}/voc\n'


def test_terms_are_agreed_to_once_and_again_where_they_change(place, monkeypatch):
  with pytest.raises(UserError, match=r'voc: its terms are not agreed to: .* add --yes'):
    get.dataset(SET, place / 'data', way(place))
  assert not (place / 'data' / 'voc' / 'f.tar').exists()
  for stream in (sys.stdin, sys.stdout):
    monkeypatch.setattr(stream, 'isatty', lambda: True)
  answers = iter(['no', 'y'])
  monkeypatch.setattr('builtins.input', lambda _: next(answers))
  with pytest.raises(UserError, match='not agreed'):
    get.ask_to_agree('voc', 'terms', way(place))
  get.ask_to_agree('voc', 'terms', way(place))
  get.ask_to_agree('voc', 'terms', way(place))
  with pytest.raises(StopIteration):
    get.ask_to_agree('voc', 'other terms', way(place))


def test_what_is_unpacked_already_is_not_got(place):
  item = dataclasses.replace(ITEM, holds=('VOCdevkit/VOC2012',))
  entry = dataclasses.replace(SET, files=(item,))
  for root in ('one/voc', 'two'):  # in the dataset's folder, or in the data folder itself
    (place / root / 'VOCdevkit' / 'VOC2012').mkdir(parents=True)
    get.dataset(entry, place / root.split('/')[0], get.FetchOptions('/gone'))


def test_a_file_put_there_by_hand_is_checked_once(place):
  file = place / 'data' / 'voc' / 'f.tar'
  file.parent.mkdir(parents=True)
  file.write_bytes(DATA[:-1] + b'?')
  with pytest.raises(UserError, match='f.tar is another file, or damaged: .* remove it'):
    get.dataset(SET, place / 'data', way(place))
  file.write_bytes(DATA)
  get.dataset(SET, place / 'data', way(place))
  assert json.loads((file.parent / 'f.tar.origin.json').read_text())['address'].startswith(
    'put here'
  )


def test_what_cannot_be_had_is_told_in_one_line_with_where_to_put_it(place):
  item = dataclasses.replace(ITEM, addresses=(f'{place}/nowhere/f.tar',))
  entry = dataclasses.replace(SET, files=(item,))
  with pytest.raises(UserError) as error:
    get.dataset(entry, place / 'data', get.FetchOptions(yes=True))
  told, file = str(error.value), place / 'data' / 'voc' / 'f.tar'
  assert '\n' not in told and 'No such file' in told
  assert f'get {place}/nowhere/f.tar on a machine that can, put it at {file}, and run' in told


def test_an_account_is_asked_for_only_where_no_mirror_has_the_file(place):
  with pytest.raises(
    UserError, match=r'voc: f\.tar cannot be downloaded without an account .*log in at .*voc$'
  ):
    get.dataset(SET, place / 'data', get.FetchOptions(yes=True))
  get.dataset(SET, place / 'data', way(place, yes=True))


def test_room_for_all_files_is_made_sure_of_before_the_first(place):
  large = dataclasses.replace(ITEM, name='g.tar', bytes=9 * 10**15)
  entry = dataclasses.replace(SET, files=(ITEM, large))
  with pytest.raises(UserError, match='f.tar, g.tar have .* make room'):
    get.dataset(entry, place / 'data', way(place, yes=True))
  assert not (place / 'data' / 'voc' / 'f.tar').exists()


def test_only_what_splits_and_options_need():
  def needed(name, *splits, **options):
    files = manifest.datasets()[name].files
    return [item.name for item in files if item.is_needed(splits, options)]

  assert needed('voc', 'sbd_train', 'seg11valid', year=2011) == [
    'VOCtrainval_25-May-2011.tar',
    'benchmark.tgz',
  ]
  assert needed('voc', 'train', 'val', year=2012) == ['VOCtrainval_11-May-2012.tar']
  assert needed('coco', 'val') == ['annotations_trainval2017.zip', 'val2017.zip']
  assert needed('ctc', 'train', cells='hela') == ['DIC-C2DH-HeLa.zip']
  assert needed('cityscapes', 'train', 'val', coarse=False) == [
    'leftImg8bit_trainvaltest.zip',
    'gtFine_trainvaltest.zip',
  ]


@pytest.mark.parametrize(
  'spec, name, overrides',
  [
    ('fcn_voc2011.py', 'keras:vgg16', ()),
    ('fcn_camvid.py:32s', 'keras:vgg16', ()),
    ('segnet_camvid.py', 'keras:vgg16_notop', ()),
    ('segnet_sunrgbd.py', 'keras:vgg16_notop', ()),
    ('pspnet_ade20k.py', 'csail:resnet50', ()),
    ('pspnet_cityscapes.py', 'csail:resnet101', ()),
    ('pspnet_voc2012.py:torchvision', 'torchvision:resnet101', ()),
    ('mask_rcnn_coco.py', 'torchvision:resnet50', ()),
    ('mask_rcnn_coco.py:resnet101', 'torchvision:resnet101', ()),
    ('fcn_pet.py', 'torchvision:mobilenet_v2', ()),
    ('fcn_pet.py:resnet50', 'torchvision:resnet50', ()),
    ('unet_camvid.py', 'efficientnet_lite0', ()),
    ('unet_camvid.py', 'efficientnet_lite1', ('model.backbone=efficientnet_lite1',)),
    ('fcn_camvid.py', 'caffe:vgg16', ('init_from=caffe:vgg16',)),
    (
      'fcn_camvid.py',
      'torchvision:vgg16',
      ('data.channel_order=rgb', 'data.std=58.395,57.12,57.375'),
    ),
  ],
)
def test_imagenet_is_what_the_network_and_its_pixels_ask_for(monkeypatch, spec, name, overrides):
  experiment = build.experiment(configs.load(f'{ROOT}/configs/{spec}', overrides))
  monkeypatch.setattr(weights, 'path_of', lambda chosen, way: chosen.name)
  layer = 'fc6' if spec.startswith('fcn') else 'conv1_1'
  assert initial.first_weights(experiment, {'params': {layer: {'kernel': 0}}}) == name


def test_small_and_smoke_runs_start_from_nothing():
  for path in (ROOT / 'configs').glob('*.py'):
    for variant in ('small', 'smoke'):
      with contextlib.suppress(config_files.UnknownVariant):
        assert not configs.load(f'{path}:{variant}').init_from, path


def test_weights_that_there_are_not(place):
  with pytest.raises(
    UserError, match=r"no weights 'torchvision:resnet5O': .*did you mean 'torchvision:resnet50'"
  ):
    weights.choose('torchvision:resnet5O', 'resnet50', ())
  with pytest.raises(
    UserError, match="init_from='imagenet': no ImageNet weights are known for paper"
  ):
    weights.choose('imagenet', 'paper', ())
  assert not any(map(weights.is_name, ('./imagenet', 'runs/a', 'gs://a/b', 'C.pth', '', 'a:b/c')))


def test_weights_are_got_once_into_the_cache(place, capsys):
  entry = manifest.Weights('my:w', 'MIT', 'Keras vgg16', dataclasses.replace(ITEM, name='w.h5'))
  mirror = place / 'mirror' / 'weights' / 'w.h5'
  mirror.parent.mkdir()
  mirror.write_bytes(DATA)
  path = weights.path_of(entry, way(place))
  assert path == place / 'cache' / 'weights' / 'w.h5' and path.read_bytes() == DATA
  assert 'my:w: MIT' in capsys.readouterr().out
  mirror.unlink()
  assert weights.path_of(entry, way(place)) == path and not capsys.readouterr().out
  with pytest.raises(UserError, match='my:w: its terms are not agreed to'):
    weights.path_of(
      dataclasses.replace(entry, agree=True, file=dataclasses.replace(ITEM, name='v.h5')),
      way(place),
    )


def test_weights_of_a_package_are_where_it_is_installed(monkeypatch, tmp_path):
  (tmp_path / 'my_weights').mkdir()
  (tmp_path / 'my_weights' / '__init__.py').touch()
  entry = manifest.Weights(
    'mine', 'MIT', 'Keras vgg16', manifest.RemoteFile('w.pth'), package='my_weights', extra='parity'
  )
  with pytest.raises(UserError, match=r'mine comes with a package: pip install -e .*\[parity\]'):
    weights.path_of(entry, get.FetchOptions())
  monkeypatch.syspath_prepend(str(tmp_path))
  assert weights.path_of(entry, get.FetchOptions()) == tmp_path / 'my_weights' / 'w.pth'


def test_archives_that_were_got_are_read(place):
  """Those of datasets whose readers otherwise know folders: CamVid, ISBI 2012 and the nuclei."""
  from tests import test_datasets_camvid as camvid
  from tests import test_datasets_dsb2018 as dsb2018
  from tests import test_datasets_isbi2012 as isbi2012

  root, made = place / 'data', place / 'made'
  for name, write, inner in (
    (
      'camvid',
      camvid._write,
      manifest.datasets()['camvid'].files[0].name.split('.')[0] + '/CamVid',
    ),
    ('dsb2018', dsb2018._published_layout, ''),
    ('isbi2012', isbi2012._volumes, 'somewhere'),
  ):
    (made / name).mkdir(parents=True)
    folder = write(made / name) or made / name / name
    (root / name).mkdir(parents=True)
    file = root / name / manifest.datasets()[name].files[0].name
    if name == 'camvid':
      with tarfile.open(file, 'w:gz') as archive:
        archive.add(folder, inner)
    else:
      _zip(folder, file, inner)
    module = load('datasets', name)
    options = dict(data_dir=str(root), cache_dir=str(place / 'cache'))
    assert len(module.source('train', **options)) == len(
      module.source('train', **{**options, 'data_dir': str(made / name)})
    )


def _zip(folder, file, inner):
  with zipfile.ZipFile(file, 'w') as archive:
    for path in sorted(p for p in folder.rglob('*') if p.is_file()):
      archive.write(path, f'{inner}/{path.relative_to(folder)}'.lstrip('/'))


def test_a_reader_that_finds_nothing_says_how_to_get_it(place):
  (place / 'data').mkdir()
  with pytest.raises(UserError, match=r'get it with python launch/data\.py get pet'):
    archives.finder(['pet'], place / 'data')(['images'], ['images.tar.gz'])


def run(place, *command, **environment):
  return subprocess.run(
    [sys.executable, '-m', 'jaxseg', 'data', 'get', *command],
    capture_output=True,
    text=True,
    env={
      'PYTHONPATH': str(ROOT),
      'JAXSEG_DATA': str(place / 'data'),
      'JAXSEG_CACHE': str(place / 'cache'),
      'PATH': '/usr/bin:/bin',
      **environment,
    },
  )


def test_the_command(place):
  wrong = run(place, 'voc', '--mirror', str(place / 'mirror'), 'vocc')
  assert wrong.returncode == 2 and wrong.stderr.count('\n') == 1
  assert "nothing is called 'vocc'" in wrong.stderr and "did you mean 'voc'?" in wrong.stderr
  item = manifest.datasets()['cityscapes'].files[2]
  steps = run(place, '--yes', 'cityscapes')
  assert (
    steps.returncode == 2
    and f'csDownload -d {place}/data/cityscapes {"leftImg8bit"}' in steps.stderr
  )
  for other in manifest.datasets()['cityscapes'].files:
    file = place / 'mirror' / 'cityscapes' / other.name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(DATA)
  done = run(place, 'cityscapes', '--yes', JAXSEG_MIRROR=str(place / 'mirror'))
  assert (done.returncode, done.stderr) == (0, '')
  assert (place / 'data' / 'cityscapes' / item.name).read_bytes() == DATA


FULL = """
import resource, sys
from pathlib import Path
from jaxseg import console
from jaxseg.files import download
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
console.run(lambda: download.download([sys.argv[1]], Path(sys.argv[2]), size=200_000))
"""


def test_the_weights_that_a_config_starts_from_are_got_too(place, monkeypatch, capsys):
  got = []

  def fetched(published, way):
    got.append((published.name, way.mirror))
    return Path('there.pth')

  monkeypatch.setattr('jaxseg.train.initial.weights.path_of', fetched)
  monkeypatch.setattr(prepare_get, 'dataset', lambda entry, *_: got.append(entry.name))
  spec = f'{ROOT}/configs/fcn_pet.py'
  prepare_get.get(config=spec, mirror='here', yes=True)
  assert got == [('torchvision:mobilenet_v2', 'here'), 'pet']
  assert 'imagenet: there.pth' in capsys.readouterr().out


def test_a_disk_that_fills_up_is_told_and_the_half_is_used_again(place):
  file, mirror = place / 'f.tar', str(place / 'mirror' / 'voc' / 'f.tar')
  done = subprocess.run(
    [sys.executable, '-c', FULL, mirror, str(file)],
    capture_output=True,
    text=True,
    env={'PYTHONPATH': str(ROOT), 'PATH': '/usr/bin:/bin'},
  )
  assert done.returncode == 2 and done.stderr.startswith(
    f'error: {file} cannot be written: File too large'
  )
  assert not file.exists() and (place / 'f.tar.part').stat().st_size == 1 << 16
  get.file(ITEM, place, 'voc', way(place))
  assert file.read_bytes() == DATA and not (place / 'f.tar.part').exists()
