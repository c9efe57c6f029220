"""YOLO's outlines: read as meant, told, or refused in one line."""

import pytest

from jaxseg.types import UserError
from tests.annotated_folders import (
  opened,
  photo,
  write_yolo,
)


def test_yolo_by_hand(root, capsys):
  """x is a share of 12, y one of 8."""
  write_yolo(root, '1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5\n\n', names='{0: cat, 1: dog}')
  examples = [*opened(root, 'train'), *opened(root, 'val')]
  [example] = [e for e in examples if e['file_name'] == 'a.jpg']
  assert example['instance_boxes'].tolist() == [[3, 2, 6, 4]]
  assert example['instance_classes'].tolist() == [2]
  assert '1 images have no label file, so no objects: b.jpg' in capsys.readouterr().err
  inner = root / 'inner'
  inner.mkdir()
  for part in ('images', 'labels'):
    (root / part).rename(inner / part)
  (root / 'data.yaml').write_text('path: inner\nnames: [cat, dog]\n')
  assert len(opened(root)) == len(opened(root, 'val')) == 1
  for part in ('images', 'labels'):
    (inner / part).rename(root / part)
  (root / 'data.yaml').unlink()
  (root / 'classes.txt').write_text('cat\ndog\n')
  assert opened(root).class_names == ('background', 'cat', 'dog')


WRONG_YOLO = {
  'line 1: class 2 is none of the 2': '2 0 0 1 0 1 1',
  'line 1: class 0.5 is none': '0.5 0 0 1 0 1 1',
  'line 2: 4 numbers are a box, no outline': '0 0 0 1 0 1 1\n0 0.5 0.5 0.1 0.1',
  'as shares of the image from 0 to 1; got 6 numbers up to 120': '0 0 0 120 0 12 8',
  'got 7 numbers': '0 0 0 1 0 1 1 1',
  "'0 a b' are not numbers": '0 a b',
  "'0 0 0 nan 0 1 1' are not numbers": '0 0 0 nan 0 1 1',
  "'nan 0 0 1 0 1 1' are not": 'nan 0 0 1 0 1 1',
}


@pytest.mark.parametrize('words', WRONG_YOLO)
def test_yolo_refuses(root, words):
  write_yolo(root, WRONG_YOLO[words])
  photo(root / 'images' / 'c.jpg')
  with pytest.raises(UserError, match=words):
    [opened(root, split) for split in ('train', 'val')]


def test_yolo_folders_that_yaml_gives_to_other_splits_are_told(root, capsys):
  for split in ('train', 'val'):
    write_yolo(root / split, '', names='')
  lines = 'names: [cat, dog]\ntrain: ../train/images\nval: [/there/{}/images, train/images]\n'
  (root / 'data.yaml').write_text(lines.format('val'))
  opened(root)
  assert 'by its name' not in capsys.readouterr().err
  (root / 'data.yaml').write_text(lines.format('other') + 'test: val/images\n')
  opened(root)
  told = capsys.readouterr().err
  assert "data.yaml's test is" in told and 'val/images, which counts as val by its name' in told
  (root / 'data.yaml').write_text('names: [cat, dog]\ntrain: autosplit_train.txt\nval: val.txt\n')
  opened(root)
  told = capsys.readouterr().err
  assert 'train is the list autosplit_train.txt, which is not read: call it train.txt' in told
  assert 'val.txt, which' not in told


def test_yolo_folders_that_differ_in_capitals_are_refused(root):
  write_yolo(root, '')
  (root / 'Labels').mkdir()
  if len(list(root.iterdir())) > 3:  # a disk that tells them apart
    with pytest.raises(UserError, match='labels and Labels|Labels and labels'):
      opened(root)


def test_yolo_refuses_a_folder(root):
  write_yolo(
    root, '0 0.5 0.5 0.4 0.4 0.45 0.42 0.55 0.44 0.5 0.6', names='[person]\nkpt_shape: [3, 2]'
  )
  with pytest.raises(UserError, match='announces keypoints .kpt_shape., which are no outlines'):
    opened(root)
  write_yolo(root, '', names='{1: cat, 2: dog}')
  with pytest.raises(UserError, match='numbered 1, 2; 0, 1, 2'):
    opened(root)
  for names in ('[cat, cat]', '2', '1e9', 'true', 'cat'):
    (root / 'data.yaml').write_text(f'names: {names}')
    with pytest.raises(UserError, match='a list of different words'):
      opened(root)
  (root / 'data.yaml').write_text('names: [cat\n')
  with pytest.raises(UserError, match='data.yaml is no valid YAML'):
    opened(root)
  references = 'a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\n'
  (root / 'data.yaml').write_text(references)
  with pytest.raises(UserError, match='no valid YAML: it refers to parts of itself'):
    opened(root)
  (root / 'data.yaml').unlink()
  with pytest.raises(UserError, match='nothing names the classes'):
    opened(root)
  (root / 'labels' / 'z.txt').write_text('')
  with pytest.raises(UserError, match='1 label files without an image of their name: z.txt'):
    opened(root)
