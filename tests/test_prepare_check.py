"""launch/data.py: what check counts and draws, and what prepare builds."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from jaxseg import config as configs
from jaxseg.data import label_check
from jaxseg.prepare import check, survey
from jaxseg.train import build
from jaxseg.types import VOID
from tests.test_launch import ROOT, launch


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))


def write_pair(folder, stem, image, mask):
  for kind, array in (('images', image), ('masks', mask)):
    (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(folder / kind / f'{stem}.png')


@pytest.fixture
def own(tmp_path):
  """Three images of 16 x 20 in train, one of 18 x 18 and a copy of a training image in val."""
  root = tmp_path / 'own'
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (4, 16, 20, 3))
  masks = np.zeros((4, 16, 20))
  masks[0, :, 10:] = 1  # half of image 0
  masks[1, :4] = VOID  # a quarter of image 1
  for i in range(3):
    write_pair(root / 'train', f'{i}', images[i], masks[i])
  write_pair(root / 'val', 'copy', images[2], masks[2])
  write_pair(root / 'val', 'square', np.full((18, 18, 3), 90), np.ones((18, 18)))
  (root / 'classes.txt').write_text('ground\nroad works\n')
  return root


def flags(root, *more):
  void = '--config.data.options.binary=False'  # no mask has 1 and 255, so it must be said
  return (f'--config={ROOT}/configs/folder.py', f'--config.data_dir={root}', void, *more)


def test_check_counts_by_hand(own, tmp_path, capsys):
  out = tmp_path / 'out'
  launch('data', 'check', *flags(own, f'--output={out}'))
  report = json.loads((out / 'data.json').read_text())
  train, val = report['splits']['train'], report['splits']['val']
  assert train['images'] == 3 and train['sizes'] == {'16x20': 3}
  assert train['pixels'] == {'ground': 3 * 320 - 160 - 80, 'road works': 160}
  assert train['images_with'] == {'ground': 3, 'road works': 1}
  assert train['void'] == pytest.approx(80 / 960)
  # frequencies 720 / 960 and 160 / 320, their median 0.625
  assert report['class_weights'] == [round((0.625 / 0.75) ** 0.5, 4), round(1.25**0.5, 4)]
  pixels = np.stack([np.asarray(Image.open(own / f'train/images/{i}.png')) for i in range(3)])
  np.testing.assert_allclose(train['mean'], pixels.reshape(-1, 3).mean(0), atol=0.006)
  np.testing.assert_allclose(train['std'], pixels.reshape(-1, 3).std(0), atol=0.006)
  assert val['sizes'] == {'16x20': 1, '18x18': 1}
  assert report['duplicates'] == ['train/2.png = val/copy.png'] and report['problems'] == []
  text = capsys.readouterr().out
  assert '1 images stand in two splits: train/2.png = val/copy.png' in text
  assert '--config.loss.class_weights=0.9129,1.118' in text and 'road works' in text
  assert 'note: no split test' in text


def test_check_replaces_only_what_a_check_wrote(own, tmp_path, capsys):
  out = tmp_path / 'out'
  for _ in range(2):
    launch('data', 'check', *flags(own, f'--output={out}'))
  (out / 'data.json').write_text('{"splits": 1, "duplicates": 2, "problems": 3, "mine": 4}')
  unwritten = 'holds a data.json that no check wrote'
  places = {out: unwritten, f'{tmp_path}/new/../out': unwritten, '/proc': 'can be written'}
  for output, says in places.items():
    with pytest.raises(SystemExit) as stop:
      launch('data', 'check', *flags(own, f'--output={output}'))
    assert stop.value.code == 2 and says in capsys.readouterr().err


def test_check_draws_samples_and_their_augmentation(own, tmp_path):
  out = tmp_path / 'out'
  launch('data', 'check', *flags(own, f'--output={out}', '--config.augment.crop.size=8,8'))
  samples, augmented = (np.asarray(Image.open(out / f'{n}.png')) for n in ('samples', 'augmented'))
  assert samples.shape[2] == 3 and augmented.shape[0] > samples.shape[0]
  # The first picture is image 0, enlarged round(230 / 20) = 12 times; its mask stands beside it.
  first = np.asarray(Image.open(own / 'train/images/0.png'))
  np.testing.assert_array_equal(samples[8 : 8 + 12 * 16 : 12, 8 : 8 + 12 * 20 : 12], first)
  mask = samples[8 : 8 + 12 * 16, 8 + 240 + 8 : 8 + 240 + 8 + 240]
  assert (mask[:, :120] == (0, 0, 0)).all() and (mask[:, 120:] == (128, 0, 0)).all()


@pytest.mark.parametrize('name', ['unet_isbi2012', 'unet_dsb2018', 'segnet_camvid', 'fcn_camvid'])
def test_check_takes_every_kind_of_config(name, tmp_path, capsys):
  launch('data', 'check', f'--config={ROOT}/configs/{name}.py:smoke', f'--output={tmp_path}/out')
  report = json.loads((tmp_path / 'out' / 'data.json').read_text())
  assert list(report['splits']) == ['train', 'val', 'test']
  assert len(report['splits']['train']['mean']) == (1 if 'isbi' in name else 3)
  assert 'samples of train' in capsys.readouterr().out


def test_check_of_real_grey_data(shared_data, tmp_path, capsys):
  config = f'--config={ROOT}/configs/unet_isbi2012.py:small'
  launch('data', 'check', config, f'--config.data_dir={shared_data}', f'--output={tmp_path}/out')
  report = json.loads((tmp_path / 'out' / 'data.json').read_text())
  assert list(report['splits']) == ['train', 'val']  # 'all' is both
  pixels = [sum(report['splits'][s]['pixels'].values()) for s in ('train', 'val')]
  assert pixels == [24 * 512 * 512, 6 * 512 * 512]
  membrane = sum(report['splits'][s]['pixels']['membrane'] for s in ('train', 'val'))
  assert membrane / sum(pixels) == pytest.approx(0.2196, abs=5e-5)  # the data's own description
  assert report['duplicates'] == []


def test_check_lists_every_bad_file_and_fails(own, tmp_path, capsys):
  (own / 'classes.txt').write_text('ground\nroad\nsky\n')
  for stem, value in (('0', 7), ('2', 9)):
    mask = np.asarray(Image.open(own / f'train/masks/{stem}.png')).copy()
    mask[0, 0] = value
    Image.fromarray(mask).save(own / f'train/masks/{stem}.png')
  broken = own / 'train/masks/1.png'
  broken.write_bytes(broken.read_bytes()[:50])
  with pytest.raises(SystemExit) as stop:
    launch('data', 'check', *flags(own, f'--output={tmp_path}/out', '--config.num_classes=3'))
  shown = capsys.readouterr()
  assert stop.value.code == 2
  bad = re.findall(r'bad: .*?(\d\.png: label ids \d|\d\.png: image file)', shown.out)
  assert bad == ['0.png: label ids 7', '1.png: image file', '2.png: label ids 9']
  assert re.fullmatch(r'error: .*train.masks.0\.png: .*\(and 2 more like it: .*\)\n', shown.err)
  assert not list((tmp_path / 'cache' / 'folder').glob('*train*'))
  assert len(json.loads((tmp_path / 'out' / 'data.json').read_text())['problems']) == 3


def test_names_are_printed_as_they_are(own, tmp_path, capsys):
  """Brackets are rich's markup, words between colons its emoji."""
  (own / 'classes.txt').write_text('bg [/b]\n[red] :car:\n')
  (tmp_path / '[out]').mkdir()
  launch('data', 'check', *flags(own, f'--output={tmp_path}/[out]'))
  text = capsys.readouterr().out
  assert 'bg [/b]' in text and '[red] :car:' in text and '[out]/samples.png' in text
  for kind in ('images', 'masks'):
    (own / 'train' / kind / '0.png').rename(own / 'train' / kind / '[scan] 5.png')
  (own / 'train' / 'masks' / '[scan] 5.png').write_bytes(b'')
  with pytest.raises(SystemExit) as stop:
    launch('data', 'check', *flags(own, f'--output={tmp_path}/out'))
  shown = capsys.readouterr()
  assert stop.value.code == 2 and 'Traceback' not in shown.err
  assert 'masks/[scan] 5.png is empty' in shown.out and 'masks/[scan] 5.png is empty' in shown.err


def test_a_bad_file_is_listed_once_however_many_splits_read_it(own, tmp_path, capsys):
  (own / 'classes.txt').unlink()  # so that the masks of all splits are read for any of them
  (own / 'train' / 'masks' / '0.png').write_bytes(b'')
  with pytest.raises(SystemExit):
    launch('data', 'check', *flags(own, f'--output={tmp_path}/out'))
  shown = capsys.readouterr()
  assert shown.out.count('0.png is empty') == 1 and 'more like it' not in shown.err
  assert len(json.loads((tmp_path / 'out' / 'data.json').read_text())['problems']) == 1


def test_check_lists_bad_files_of_all_kinds(own, tmp_path, capsys):
  mask = np.asarray(Image.open(own / 'train/masks/0.png')).copy()
  mask[0, 0] = 7
  Image.fromarray(mask).save(own / 'train/masks/0.png')
  (own / 'train' / 'images' / '1.png').write_bytes(b'')
  Image.fromarray(mask[1:6]).save(own / 'train/masks/2.png')
  (own / 'val' / 'images' / 'copy.png').write_text('no image')
  with pytest.raises(SystemExit):
    launch('data', 'check', *flags(own, f'--output={tmp_path}/out'))
  problems = json.loads((tmp_path / 'out' / 'data.json').read_text())['problems']
  wanted = ('0.png: label ids 7', '1.png is empty', '2.png is 20 x 5', 'copy.png: not an image')
  assert len(problems) == 4 and all(w in p for w, p in zip(wanted, problems, strict=True)), problems


def test_check_finds_ids_that_a_dataset_of_ones_own_lets_through():
  source = Listed([[[0, 1], [3, VOID]], [[0, 0], [0, 0]]])
  histogram = survey.survey(source, 'reading').histogram
  problem = 'train: 0.png: label ids 3 are not among the 3 classes (0..2, 255 is void)'
  assert label_check.invalid_files(source, histogram) == [problem]


def test_dark_and_void_images_are_remarked():
  source = Listed([[[VOID, VOID], [VOID, 0]]], image=20)
  surveys = {'train': survey.survey(source, 'reading')}
  experiment = build.experiment(configs.load(f'{ROOT}/configs/folder.py:smoke'))
  facts = surveys['train'].facts(source.class_names)
  lines = check.remarks(experiment, surveys, {'duplicates': [], 'splits': {'train': facts}})
  assert [re.sub(r'[:;].*', '', line) for line in lines] == [
    '75.0% of the pixels of train are void',
    'classes that train never shows',
    'the images of train are dark',
  ]


def test_a_split_without_images_is_remarked_once():
  source = Listed([])
  surveys = {'val': survey.survey(source, 'reading')}
  experiment = build.experiment(configs.load(f'{ROOT}/configs/folder.py:smoke'))
  facts = surveys['val'].facts(source.class_names)
  lines = check.remarks(experiment, surveys, {'duplicates': [], 'splits': {'val': facts}})
  assert list(lines) == ['val has no images']


def test_prepare_builds_and_tells_where(own, tmp_path, capsys):
  launch('data', 'prepare', *flags(own))
  text = capsys.readouterr().out
  assert re.search(rf'train: 3 examples, 0\.\d MB in {tmp_path}/cache/folder/[a-z]+-\w+/', text)
  assert 'val: 2 examples' in text
  launch('data', 'prepare', f'--config={ROOT}/configs/unet_shapes.py:smoke')
  assert 'train: 16 examples, generated when read' in capsys.readouterr().out


class Listed:
  """A source over labels in memory, with images of one value."""

  split, channels, num_classes, class_names = 'train', 1, 3, ('a', 'b', 'c')

  def __init__(self, labels, image=200):
    self.labels, self.image = np.array(labels, np.uint8), image

  def __len__(self):
    return len(self.labels)

  def __getitem__(self, i):
    label = self.labels[i]
    image = np.full((*label.shape, 1), self.image, np.uint8)
    return {'image': image, 'label': label, 'file_name': f'{i}.png'}
