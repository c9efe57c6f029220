"""A new user's three commands, plan, train and predict, from six folder shapes and three annotation tools.

    WALKTHROUGH=docs/walkthrough.md pytest -m slow -n0 tests/test_walkthrough.py

renews the transcripts in that file. The images are nuclei of ../shared/data where that is present, else
discs; every command is a process of its own, as it is typed.
"""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import documents
from tests.object_layouts import Writer
from tests.test_launch import ROOT

TABLE = 'WALKTHROUGH'
TOLD: dict[str, str] = {}  # a shape's title -> its transcript
SHOWN = ('found ', 'folder ', 'training ', 'evaluated ')  # lines of the commands
STEPS = {'unet': 10, 'fcn': 10, 'segnet': 10, 'mask_rcnn': 5}
COUNT, SIDE = 20, 112  # images, and pixels of their sides at most

# title: where images and masks lie, for {i} and {split}; flags of plan, and what it must say
SHAPES = {
  'images/cell_0.jpg ...  masks/cell_0_mask.png ...': (
    'images/cell_{i}.jpg', 'masks/cell_{i}_mask.png', (), "with masks 'masks/**/*_mask'"),
  'train/images/0.png ...  train/labels/0.png ...  valid/...  test/...': (
    '{split}/images/{i}.png', '{split}/labels/{i}.png', ('--model=fcn',), '3 for testing'),
  'x/train/0.png ...  y/train/0.png ...  x/test/...  y/test/...': (
    'x/{half}/{i}.png', 'y/{half}/{i}.png', (), 'one image in 5 is held out as val'),
  'cell_0.png  cell_0_segmentation.png ...  (and cell_7.png alone)': (
    'cell_{i}.png', 'cell_{i}_segmentation.png', ('--model=segnet',), 'left out: 1 images without a mask'),
  'JPEGImages/site0/0.jpg ...  SegmentationClass/site0/0.png ...': (
    'JPEGImages/site{site}/{i}.jpg', 'SegmentationClass/site{site}/{i}.png', ('--folds=5',), 'val'),
  'pairs.csv: image,mask ...': ('a/{i}.png', 'b/{i}.png', ('--list=pairs.csv',), 'pairs.csv'),
}  # fmt: skip
TOOLS = {
  'labelme: train/0.png train/0.json ...  val/...': ('labelme', "found     labelme's JSON"),
  'CVAT: train/images/0.png ...  train/annotations.xml  val/...': ('cvat', "found     CVAT's XML"),
  'COCO: train/0.png ...  annotations/train.json ...': ('coco', "found     COCO's JSON"),
}


@pytest.fixture(scope='module')
def pictures():
  """Twenty images and the numbers of their objects, uint8 [h, w, 3] and uint16 [h, w]."""
  data = Path(os.environ.get('JAXSEG_DATA', ROOT.parent / 'shared' / 'data'))
  if (data / 'dsb2018').is_dir():
    from jaxseg.datasets import dsb2018

    source = dsb2018.source('val', data_dir=data, border_weight=False, separate=False)
    chosen = [source[i] for i in range(COUNT)]
    return [(e['image'][:SIDE, :SIDE].copy(), e['instances'][:SIDE, :SIDE]) for e in chosen]
  return [discs(i) for i in range(COUNT)]


def discs(seed):
  rng, ids = np.random.default_rng(seed), np.zeros((96, SIDE), np.uint16)
  rows, columns = np.indices(ids.shape)
  for number, (y, x) in enumerate(rng.integers(12, 84, (8, 2)), start=1):
    ids[(rows - y) ** 2 + (columns - x) ** 2 < 80] = number
  image = np.where(ids > 0, 120, 20) + rng.integers(0, 20, ids.shape)
  return np.repeat(image.astype(np.uint8)[..., None], 3, axis=-1), ids


def place(i):
  return {
    'i': i,
    'split': 'train' if i < 14 else 'valid' if i < 17 else 'test',
    'half': 'train' if i < 15 else 'test',
    'site': i % 3,
  }


def write_pairs(root, images, masks, pictures):
  """Writes images, and masks of 0 and 255; one mask is missing where all lie together."""
  rows = []
  for i, (image, ids) in enumerate(pictures):
    files = [root / pattern.format(**place(i)) for pattern in (images, masks)]
    for file in files:
      file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(files[0], quality=95)
    if i != 7 or files[0].parent != files[1].parent:
      Image.fromarray(np.where(ids > 0, 255, 0).astype(np.uint8)).save(files[1])
    rows.append([str(file.relative_to(root)) for file in files])
  if images.startswith('a/'):
    with (root / 'pairs.csv').open('w', newline='') as file:
      csv.writer(file).writerows([('image', 'mask'), *rows])


def write_objects(root, tool, pictures):
  listed = [
    (str(i), image, [(1, ids == k) for k in np.unique(ids[ids > 0]) if (ids == k).sum() >= 12])
    for i, (image, ids) in enumerate(pictures)
  ]
  writer = Writer(root, ('nucleus',))
  for split, part in (('train', listed[:16]), ('val', listed[16:])):
    getattr(writer, tool)(split, part)


def run(words, here):
  """Runs a command as a user types it; returns it, and the lines that matter of what it says."""
  environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAXSEG_CACHE': str(here.parent / 'cache')}
  done = subprocess.run(
    [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=900
  )
  assert done.returncode == 0, done.stderr
  assert 'Traceback' not in done.stderr
  lines = [
    line
    for line in done.stdout.splitlines()
    if line.startswith(SHOWN) or line.endswith(f'into {here}/out')
  ]
  shown = map(shortened, lines)
  return '\n'.join([f'$ python {" ".join(words)}', *shown]), done.stdout


def shortened(line):
  """Returns a line without a network's options, and of scores the first three."""
  if line.startswith('training '):
    return re.sub(r' \(.*\), crop', ', crop', line)
  return ' . '.join(line.split(' . ')[:3])


def three_commands(here, plan, new):
  """Plans, trains and predicts; returns the transcript and what plan said."""
  file, workdir = here / 'mine.py', here / 'mine_run'
  planned, said = run(['launch/data.py', 'plan', *plan, f'--output={file}'], here)
  train = re.search(r'python (launch/train.py .*)', said)[1].split()
  steps = STEPS[re.search(r'training  (\w+)', said)[1]]
  trained, _ = run([*train, f'--config.num_steps={steps}'], here)
  flags = [f'--workdir={workdir}', f'--input={new}', f'--output={here}/out']
  predicted, _ = run(['launch/predict.py', *flags], here)
  return '\n'.join((planned, trained, predicted)).replace(str(here), '/tmp/mine'), said


def new_images(here, pictures):
  """Writes two images of no mask, of odd sizes; returns their folder and sizes."""
  folder, sizes = here / 'new', {}
  folder.mkdir()
  for i, (height, width) in enumerate(((85, 96), (70, 90))):
    Image.fromarray(pictures[i][0][:height, :width]).save(folder / f'{i}.png')
    sizes[f'{i}.png'] = width, height
  return folder, sizes


@pytest.mark.slow
@pytest.mark.parametrize('title', SHAPES)
def test_a_folder_of_masks(title, pictures, tmp_path):
  images, masks, flags, says = SHAPES[title]
  root = tmp_path / 'own'
  write_pairs(root, images, masks, pictures)
  where = [f.replace('--list=', f'--list={root}/') for f in flags if f.startswith('--list')]
  given = [f for f in flags if not f.startswith('--list')]
  folder, sizes = new_images(tmp_path, pictures)
  text, said = three_commands(tmp_path, (where or [f'--folder={root}']) + given, folder)
  assert says in said and 'background' in said and 'foreground' in said
  for name, size in sizes.items():
    mask = Image.open(tmp_path / 'out' / name)
    assert mask.size == size and set(np.unique(mask)) <= {0, 1}
  TOLD[title] = text


@pytest.mark.slow
@pytest.mark.parametrize('title', TOOLS)
def test_an_annotation_tool(title, pictures, tmp_path):
  tool, says = TOOLS[title]
  write_objects(tmp_path / 'own', tool, pictures)
  folder, _ = new_images(tmp_path, pictures)
  text, said = three_commands(tmp_path, [f'--folder={tmp_path}/own'], folder)
  assert says in said and 'nucleus' in said
  assert (tmp_path / 'out' / 'detections.json').is_file()
  TOLD[title] = text


@pytest.mark.slow
def test_the_transcripts_are_in_the_documents():
  """Writes them where the environment asks for that; else sees that no shape is missing there."""
  titles = [*SHAPES, *TOOLS]
  if os.environ.get(TABLE):
    assert len(TOLD) == len(titles), 'the transcripts need every shape to run, in one process'
    text = '\n\n'.join(f'{title}\n\n```\n{TOLD[title]}\n```' for title in titles)
    documents.renew(TABLE, 'From other shapes', 'shapes', f'\n{text}\n')
  text = documents.section('shapes', ROOT / 'docs' / 'walkthrough.md')
  assert not [title for title in titles if title not in text]
