"""Every kind of images and labels that people have gives its right answer, or is asked about; see own_cases.py.

    CASES_TABLE=docs/reliability.md pytest -n0 tests/test_cases.py

renews the table of them in that file. Where ../shared/cases is present, its folders are read as well.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from jaxseg.prepare import own_data
from jaxseg.prepare.own_data import Request
from jaxseg.types import UserError
from tests import documents, further_cases  # noqa: F401 (adds its own to CASES)
from tests.own_cases import CASES, PIXELS, Case
from tests.test_launch import ROOT, launch

TABLE = 'CASES_TABLE'
SHARED = ROOT.parent / 'shared' / 'cases'
GOT: dict[str, str] = {}
COUNTS: dict[str, int] = {}

# Folders of ../shared/cases: the share of each class in percent, or what the one line must hold.
RIGHT = {
  'alpha_mask_colours': (79.7, 20.3),
  'alpha_mask_rgba': (79.7, 20.3),
  'antialiased_grey': 'soft edges',
  'antialiased_listed': 'soft edges',
  'binary_grey_with_colours': (79.7, 20.3),
  'class_dict_csv': (79.7, 10.9, 9.4),
  'coco_category_zero': ('cat', 'dog', 'horse'),
  'coco_cvat_brush_crowd': (74.5, 7.8, 9.8, 7.9),
  'coco_cvat_brush_half': (74.5, 7.8, 9.8, 7.9),
  'coco_empty_images': (85.4, 4.5, 5.6, 4.5),
  'coco_exif_unturned': (80.5, 7.8, 11.7, 0.0),
  'coco_exif_upright': (80.5, 7.8, 11.7, 0.0),
  'coco_ids_as_text': (74.5, 7.8, 9.8, 7.9),
  'coco_own_categories': ('cat', 'dog', 'horse'),
  'coco_shrunk_images': '64 x 64 pixels, but its annotations are of 128 x 128',
  'coco_without_area': (81.4, 7.8, 10.7, 0.0),
  'coco_without_iscrowd': (81.4, 7.8, 10.7, 0.0),
  'cvat_labelmap': (10.9, 79.7, 9.4),
  'exif_90': (79.7, 10.9, 9.4),
  'exif_both_png': (79.7, 10.9, 9.4),
  'grey_levels_listed': (79.7, 10.9, 9.4),
  'imagej_inverted_lut': (79.7, 20.3),
  'isic_suffix': (79.7, 20.3),
  'labelme_json': (89.1, 10.9),
  'labelme_labels': (79.7, 10.9, 9.4),
  'mixed_binary': 'binary=True reads 1 and 255 as the object',
  'nested_folders': (79.7, 10.9, 9.4),
  'palette_per_file': 'palettes of the masks differ',
  'roboflow_valid': (79.7, 10.9, 9.4),
  'tiff_11bit_rgb': (79.7, 10.9, 9.4),
  'tiff_16bit_rgb': (79.7, 10.9, 9.4),
  'tiff_4_bands': (79.7, 10.9, 9.4),
  'tiff_4_bands_16bit': (79.7, 10.9, 9.4),
  'tiff_5_bands': (79.7, 10.9, 9.4),
  'tiff_uint32_image': (79.7, 10.9, 9.4),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))


def examples(
  root: Path, listed: str = '', **options
) -> tuple[own_data.OwnData, tuple[str, ...], list[dict]]:
  """Returns what plan finds in a folder, its classes and all examples of train and val."""
  where = {'listed': str(root / listed)} if listed else {'folder': str(root)}
  data = own_data.find(Request(**where, options=options))
  sources = [data.source(split) for split in ('train', 'val')]
  return data, sources[0].class_names, [source[i] for source in sources for i in range(len(source))]


def shares(names, read) -> np.ndarray:
  """Returns the share of each class, in percent of all pixels (void too)."""
  counts = sum(np.bincount(e['label'].ravel(), minlength=256) for e in read)
  return 100 * counts[: len(names)] / counts.sum()


def words(names, read) -> str:
  listed = zip(names, shares(names, read), strict=True)
  image = read[0]['image']
  kind = (
    '' if image.shape[2] == 3 and image.dtype == np.uint8 else f'; {image.shape[2]} x {image.dtype}'
  )
  return ', '.join(f'{name} {share:.1f} %' for name, share in listed) + kind


@pytest.mark.parametrize('found', CASES, ids=lambda c: c.title)
def test_a_kind_is_read_rightly_or_asked_about(found, tmp_path):
  root, said = tmp_path / 'own', ''
  found.write(root)
  if found.asks:
    with pytest.raises(UserError, match=found.asks) as error:
      examples(root, found.listed)
    said = 'asks: ' + re.sub(r'\S*/', '', str(error.value)).replace('|', '/')
  if not found.refused:
    _, names, read = examples(root, found.listed, **found.answer)
    said = f'{said}; then ' * bool(said) + words(names, read)
    assert len(read) == 6 and (not found.names or names == found.names)
    check_pixels(found, names, read)
  GOT[found.title] = said
  COUNTS[found.title] = len([p for p in root.rglob('*') if p.is_file()])


def check_pixels(found: Case, names: tuple[str, ...], read: list[dict]) -> None:
  """Holds counts by hand, and that each label stands on the object that the image shows there."""
  ground = int(np.argmax(found.pixels))
  for example in read:
    counts = np.bincount(example['label'].ravel(), minlength=256)
    assert counts.sum() == sum(PIXELS)
    if counts[ground] == sum(PIXELS) and found.some_empty:
      continue
    assert tuple(counts[: len(names)]) == found.pixels
    wrong = shown(example['image'].astype(np.float64)) != (example['label'] != ground)
    assert wrong.mean() <= (0.05 if example['file_name'].lower().endswith('.jpg') else 0)


def shown(image: np.ndarray) -> np.ndarray:
  """Returns where an image shows an object, bool [h, w]: far from its most frequent colour."""
  distance = np.abs(image - np.median(image, axis=(0, 1))) / np.ptp(image, axis=(0, 1))
  return distance.max(axis=-1) > 0.25


def test_images_keep_their_values(tmp_path):
  """Bands and numbers are those that the file holds."""
  for found in (c for c in CASES if c.title.startswith('TIFF of') and 'tiff' in ''.join(c.shared)):
    root = tmp_path / found.title
    found.write(root)
    import tifffile

    data, _, read = examples(root)
    for example in read:
      [file] = root.glob(f'*/images/{example["file_name"]}')
      stored = np.atleast_3d(tifffile.imread(file))
      if stored.shape[0] < 9:  # planar
        stored = np.moveaxis(stored, 0, -1)
      np.testing.assert_array_equal(example['image'], stored)


def test_plan_check_and_train_say_the_same(tmp_path, capsys):
  """What is asked is asked alike; the plan with an answer writes it down, and check takes it."""
  [found] = [c for c in CASES if 'mixed_binary' in c.shared]
  root, config = tmp_path / 'own', f'--config={ROOT}/configs/folder.py'
  found.write(root)
  lines = set()
  for command in (
    ('data', 'plan', f'--folder={root}', f'--output={tmp_path}/mine.py'),
    ('data', 'check', config, f'--config.data_dir={root}', f'--output={tmp_path}/out'),
    ('train', config, f'--config.data_dir={root}', f'--workdir={tmp_path}/run'),
  ):
    with pytest.raises(SystemExit) as stop:
      launch(*command)
    assert stop.value.code == 2
    lines.add(capsys.readouterr().err.splitlines()[-1])
  assert len(lines) == 1 and re.search(found.asks, lines.pop())
  answer = '--config.data.options.binary=True'
  launch('data', 'plan', f'--folder={root}', f'--output={tmp_path}/mine.py', answer)
  assert 'binary=True' in (tmp_path / 'mine.py').read_text()
  launch('data', 'check', f'--config={tmp_path}/mine.py', f'--output={tmp_path}/out')
  assert re.search(r'class 1|foreground', capsys.readouterr().out)


@pytest.mark.parametrize('name', RIGHT)
def test_a_shared_case(name):
  if not (SHARED / name).is_dir():
    pytest.skip(f'no {SHARED / name}')
  root = next(p for p in (SHARED / name).iterdir() if p.is_dir())
  right, [found] = RIGHT[name], [c for c in CASES if name in c.shared]
  try:
    _, names, read = examples(root)
    if isinstance(right[0], str):
      assert names[1:] == right
    else:
      np.testing.assert_allclose(shares(names, read), right, atol=0.06)
  except UserError as error:
    assert isinstance(right, str) and right in str(error)
  else:
    assert not isinstance(right, str)
  COUNTS[f'{found.title}/{name}'] = len([p for p in root.rglob('*') if p.is_file()])


def test_every_shared_case_has_its_kind():
  """But for VOC saved as RGB, which test_datasets_voc tries."""
  if not SHARED.is_dir():
    pytest.skip(f'no {SHARED}')
  assert {p.name for p in SHARED.iterdir() if p.is_dir()} == RIGHT.keys() | {'voc_rgb_masks'}


def table() -> str:
  """Returns what each kind gave, and from how many files."""
  lines = [
    f'{len(CASES)} kinds, made anew by `tests/own_cases.py` and `tests/further_cases.py`, and {len(RIGHT)} folders of files that others have '
    'made; written by',
    f'`{TABLE}=docs/reliability.md pytest -n0 tests/test_cases.py`.',
    '',
    '| situation | right | got | files |',
    '|---|---|---|---|',
  ]
  for found in CASES:
    files = sum(n for title, n in COUNTS.items() if title.partition('/')[0] == found.title)
    lines.append(f'| {found.title} | {found.right} | {GOT[found.title]} | {files} |')
  return '\n'.join(lines)


def test_the_table_is_in_the_documents():
  """Writes it where the environment asks for that; else sees that no kind is missing there."""
  if os.environ.get(TABLE):
    assert len(GOT) == len(CASES), 'the table needs every kind to run, in one process'
    documents.renew(TABLE, 'Images and labels as people have them', 'cases', table())
    return
  text = documents.section('cases')
  absent = [c.title for c in CASES if f'| {c.title} |' not in text]
  assert not absent, f'renew it: {TABLE}=docs/reliability.md pytest -n0 tests/test_cases.py'
