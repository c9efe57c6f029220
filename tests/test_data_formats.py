"""What all readers of annotation tools' files have in common: names, splits, folders of something else."""

import json

import numpy as np
import pytest

from jaxseg.data import annotations
from jaxseg.datasets import objects
from jaxseg.types import UserError
from tests.annotated_folders import (
  entry,
  opened,
  photo,
  shape,
  write_coco,
  write_cvat,
  write_files,
  write_labelme,
  write_yolo,
)


@pytest.mark.parametrize('name', ['../outside.jpg', '{}/outside.jpg', 'images/../../outside.jpg'])
def test_names_that_lead_out_of_the_data_are_refused(root, tmp_path, name):
  photo(tmp_path / 'outside.jpg')
  write_coco(root, [entry(1)])
  content = json.loads((root / 'train.json').read_text())
  content['images'] = [dict(id=1, file_name=name.format(tmp_path))]
  (root / 'train.json').write_text(json.dumps(content))
  with pytest.raises(UserError, match='outside.jpg is named by a file of .*own, and lies outside'):
    opened(root)
  content['images'][0]['file_name'] = 'images/../images/1.jpg'
  (root / 'train.json').write_text(json.dumps(content))
  assert opened(root)[0]['instance_classes'].tolist() == [1]
  (root / 'train.json').unlink()
  (root / 'val.json').unlink()
  write_cvat(root, '')
  file = root / 'annotations.xml'
  file.write_text(file.read_text().replace('"a.jpg"', f'"{name.format(tmp_path)}"'))
  with pytest.raises(UserError, match='outside.jpg is named by a file of .*own, and lies outside'):
    opened(root)


SPLIT_WRITERS = {
  'files': lambda root, split: write_files(root / split, split),
  'yolo': lambda root, split: write_yolo(root / split, '1 0.25 0.25 0.5 0.25 0.5 0.5', names=''),
  'labelme': lambda root, split: write_labelme(root / split, shape('dog')),
  'cvat': lambda root, split: write_cvat(
    root / split, '<polygon label="dog" points="1,1;4,1;4,4"/>'
  ),
}


@pytest.mark.parametrize('kind', SPLIT_WRITERS)
def test_folders_of_one_split_are_read_together(root, kind):
  for split in ('train', 'train2', 'training', 'valid'):
    SPLIT_WRITERS[kind](root, split)
  (root / 'data.yaml').write_text('names: [cat, dog]\n')
  splits = objects.layout_of(root, kind)[1].splits
  found = {s: [raw.image.relative_to(root).parts[0] for raw in of] for s, of in splits.items()}
  assert {s: list(dict.fromkeys(of)) for s, of in found.items()} == {
    'train': ['train', 'train2', 'training'],
    'val': ['valid'],
  }


def test_images_of_other_formats_beside_annotated_ones_are_named(root, capsys):
  write_yolo(root, '1 0.25 0.25 0.5 0.25 0.5 0.5')
  (root / 'images' / 'c.heic').write_bytes(b'')
  assert len(opened(root)) == 1
  assert '1 files of other formats are left out: c.heic' in capsys.readouterr().err


def test_a_folder_of_something_else_is_told(root, tmp_path):
  photo(root / 'a.jpg')
  with pytest.raises(UserError, match='has no annotated objects of any of the formats coco, cvat'):
    opened(root)
  with pytest.raises(UserError, match='no annotated objects of the format yolo'):
    opened(root, format='yolo')
  with pytest.raises(UserError, match="has no format 'voc': use one of None, coco"):
    opened(root, format='voc')
  write_yolo(root, '')
  with pytest.raises(UserError, match='of the format yolo, which takes no crowds'):
    opened(root, crowds='objects')


WRITERS = {
  'train.json': lambda root: write_coco(root, [entry(1), entry(2, image=2, area=4.0)]),
  'labels/a.txt': lambda root: write_yolo(root, '1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5'),
  'data.yaml': lambda root: write_yolo(root, '1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5'),
  'a.json': lambda root: write_labelme(root, shape('dog'), shape('cat')),
  'annotations.xml': lambda root: write_cvat(root, '<polygon label="dog" points="1,1;4,1;4,4"/>'),
}


PARTS = (
  b'NaN',
  b'1e999',
  b'[',
  b'{',
  b'null',
  b'-1',
  b'""',
  b'1e9',
  b'true',
  b'9' * 30,
  b'\xff',
  b'',
)


@pytest.mark.slow
@pytest.mark.parametrize('file', WRITERS)
def test_mutated_files_end_in_one_line(root, file):
  """A piece is replaced by what is odd: it is read, or refused by a UserError of one line."""
  WRITERS[file](root)
  whole, rng = (root / file).read_bytes(), np.random.default_rng(0)
  refused = 0
  for _ in range(250):
    start, length = int(rng.integers(len(whole))), int(rng.integers(1, 12))
    part = PARTS[int(rng.integers(len(PARTS)))]
    (root / file).write_bytes(whole[:start] + part + whole[start + length :])
    try:
      found, layout = objects.layout_of(root)
      for raws in layout.splits.values():
        for raw in raws:
          annotations.example(raw, read=layout.read, exif='upright')
    except UserError as error:
      assert '\n' not in str(error)
      refused += 1
  assert refused > 50
