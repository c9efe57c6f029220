"""train.txt and the like divide a folder's images; every answer is written out."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxseg.data import split_lists
from jaxseg.data.division import Division
from jaxseg.data.formats import splits
from jaxseg.data.pairing import UNDIVIDED
from jaxseg.data.records import Raw
from jaxseg.types import UserError

IMAGES = ['JPEGImages/a.jpg', 'JPEGImages/b.c.jpg', 'other/a.jpg']


def write(root, **texts):
  for path, text in texts.items():
    file = root / path.replace('__', '/')
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix('.txt').write_text(text)


@pytest.mark.parametrize(
  'lines',
  [
    'JPEGImages/a\nb.c\n',  # names without ending
    'data/JPEGImages/a.jpg\r\n\r\n./JPEGImages/b.c.jpg\r\n',  # darknet's paths
    'C:\\x\\JPEGImages\\a.jpg masks\\a.png\nb.c.jpg masks/b.png\n',  # and a mask behind each
  ],
)
def test_lines_name_images(tmp_path, lines):
  write(tmp_path, lists__Train=lines, lists__test='other/a.jpg\nnobody\n', README='b.c\n')
  found, lists = split_lists.find(tmp_path, IMAGES)
  assert found == {IMAGES[0]: 'train', IMAGES[1]: 'train', IMAGES[2]: 'test'}
  assert lists == ['lists/Train.txt', 'lists/test.txt']


@pytest.mark.parametrize(
  ('name', 'file', 'folder'),
  [
    ('train2017', 'train', 'train'),
    ('TrainDataset', 'train', 'train'),
    ('testset', 'test', 'test'),
    ('TestData2', 'test', 'test'),
    ('Validation Set', 'val', 'val'),
    ('instances_valset', 'val', UNDIVIDED),
    ('trainval', UNDIVIDED, UNDIVIDED),
    ('dataset', UNDIVIDED, UNDIVIDED),
    ('testimony', UNDIVIDED, UNDIVIDED),
    ('TrainVal', 'train', UNDIVIDED),
  ],
)
def test_words_for_splits(name, file, folder):
  assert (splits.split_of(name), splits.split_of_folder(name)) == (file, folder)


def test_lists_that_differ_from_the_folders_are_told(tmp_path, capsys):
  folders = {'train/a.jpg': 'train', 'train/b.jpg': 'train', 'val/c.jpg': 'val'}
  write(tmp_path, test='')
  split_lists.tell_of_others(tmp_path, folders)
  write(tmp_path, train='train/a\ntrain/b\n', val='val/c\n')
  split_lists.tell_of_others(tmp_path, folders)
  (tmp_path / 'train.txt').unlink()  # those in no list may be of any split
  split_lists.tell_of_others(tmp_path, folders)
  assert 'otherwise' not in capsys.readouterr().err
  write(tmp_path, train='train/a\n', val='train/b\n')
  split_lists.tell_of_others(tmp_path, folders)
  told = 'train.txt, val.txt divide 2 images otherwise than the folders do, which count: train/b.jpg, val/c.jpg'
  assert told in capsys.readouterr().err
  write(tmp_path, val='train/a\n')
  split_lists.tell_of_others(tmp_path, folders)
  assert 'keep one; the folders divide the images' in capsys.readouterr().err


def test_no_lists(tmp_path):
  write(tmp_path, train='a note of the training\n', notes='b.c\n')
  assert split_lists.find(tmp_path, IMAGES) == ({}, [])


def test_a_name_of_two_images_names_none(tmp_path):
  write(tmp_path, train='a\nb.c\n')
  assert split_lists.find(tmp_path, IMAGES)[0] == {IMAGES[1]: 'train'}


@pytest.mark.parametrize(
  ('images', 'lines', 'named', 'told'),
  [
    (
      ['images/siteA/1.png', 'images/siteB/3.png'],
      ['siteB/1', 'siteB/3', 'images/1', '../siteC/3', '/old/images/siteA/1.png'],
      ['images/siteB/3.png', 'images/siteA/1.png'],
      '3 of 5 lines name no image that is read here: siteB/1, images/1, ../siteC/3\n',
    ),
    (
      ['siteA/images/1.png', 'siteB/images/1.png', 'siteB/day2/3.png'],
      ['siteB/1', 'siteA/3', 'siteB/3', '1'],
      ['siteB/images/1.png'],
      '3 of 4 lines name no image that is read here: siteA/3, siteB/3, 1\n',
    ),
    (
      ['cell.png', 'cell 1.png', 'cell 2.png'],
      ['cell 1', 'cell 9', 'cell 2.png masks/cell 2.png', 'cell.png 1', 'cell 12 0'],
      ['cell 1.png', 'cell 2.png', 'cell.png'],
      '2 of 5 lines name no image that is read here: cell 9, cell 12 0\n',
    ),
    (['cell.png', 'x/cell.png'], ['x/cell 1', 'cell\t1', 'y z/cell'], ['x/cell.png'], '2 of 3'),
  ],
)
def test_lines_name_no_other_image_than_theirs(tmp_path, capsys, images, lines, named, told):
  write(tmp_path, val='\n'.join(lines))
  assert list(split_lists.find(tmp_path, images)[0]) == named
  assert f'{tmp_path}/val.txt: {told}' in capsys.readouterr().err


def test_lists_that_name_no_other_images_count(tmp_path):
  write(tmp_path, Main__train='b.c\nx\ny\n', Segmentation__val='b.c\n')
  assert split_lists.find(tmp_path, IMAGES)[0] == {IMAGES[1]: 'val'}


def test_what_contradicts_itself(tmp_path):
  write(tmp_path, one__train='b.c\n', two__val='b.c\n')
  with pytest.raises(UserError, match='differently: one/train.txt, two/val.txt; keep those of one'):
    split_lists.find(tmp_path, IMAGES)
  write(tmp_path, one__val='b.c\n', two__train='b.c\n')
  with pytest.raises(UserError, match=r'val.txt lists JPEGImages/b.c.jpg, which is in train too'):
    split_lists.find(tmp_path, IMAGES)


def test_pairs_are_divided_and_what_is_not_listed_is_told(tmp_path):
  for name in 'abcd':
    for folder in ('images', 'masks'):
      (tmp_path / folder).mkdir(exist_ok=True)
      Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / folder / f'{name}.png')
  write(tmp_path, train='a\nc\n', val='b\n')
  names = {s: [raw.file_name for raw in raws] for s, raws in Division().splits(tmp_path).items()}
  assert names == {'train': ['a.png', 'c.png'], 'val': ['b.png']}
  assert Division().pairs(tmp_path).left_out() == '1 images in no list (d.png)'
  write(tmp_path, train='')
  (tmp_path / 'train.txt').unlink()
  assert {s: len(r) for s, r in Division().splits(tmp_path).items()} == {'val': 1, 'train': 3}


def test_names_of_files_divide_and_pages_of_a_stack_stay_together(tmp_path):
  def save(name, count):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    tifffile.imwrite(tmp_path / name, np.zeros((count, 20, 20), np.uint8), photometric='minisblack')

  for name in ('a-volume.tif', 'a-labels.tif'):
    save(name, 10)
  divided = Division(pages=True).splits(tmp_path)
  assert [raw.extra for raw in divided['val']] == [0, 1]
  assert [raw.file_name for raw in divided['train']][
    -1
  ] == f'a-volume_{divided["train"][-1].extra:03d}.tif'
  for name in ('train-volume.tif', 'train-labels.tif', 'test-volume.tif', 'test-labels.tif'):
    save(name, 3)
  for name in ('a-volume.tif', 'a-labels.tif'):
    (tmp_path / name).unlink()
  counts = {split: len(raws) for split, raws in Division(pages=True).splits(tmp_path).items()}
  assert counts == {'train': 3, 'test': 3}
  save('test-labels.tif', 2)
  with pytest.raises(UserError, match='test-volume.tif has 3 pages and .*test-labels.tif 2'):
    Division(pages=True).splits(tmp_path)


def test_folders_of_images_divide_what_nothing_else_does(tmp_path):
  def parts(*paths):
    raws = [Raw(tmp_path / path, tmp_path / 'all.json', path) for path in paths]
    divided = splits.by_lists(tmp_path, {UNDIVIDED: raws})[0]
    return {split: [raw.file_name for raw in of] for split, of in divided.items()}

  assert parts('train/a.png', 'x/Val2017/a.png') == {
    'train': ['train/a.png'],
    'val': ['x/Val2017/a.png'],
  }
  assert parts('test/a.png') == {UNDIVIDED: ['test/a.png']}
  assert parts('train/a.png', 'b.png') == {UNDIVIDED: ['train/a.png', 'b.png']}
