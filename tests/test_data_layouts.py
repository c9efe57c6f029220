"""Layouts as people have them, found from names alone, and what pairs in each."""

from pathlib import PurePosixPath

import pytest

from jaxseg.data import layouts, pairing, split_lists
from jaxseg.data.pairing import UNDIVIDED
from jaxseg.types import UserError

# A folder's files, the patterns that are found, and the pairs of each split ('' where there is none).
SHAPES = {
  'same names': (
    'images/a.jpg images/b.jpg masks/a.png masks/b.png',
    ('images/**/*', 'masks/**/*', {UNDIVIDED: 2}),
  ),
  'train, valid and test': (
    'train/images/a.jpg train/labels/a.png valid/images/b.jpg valid/labels/b.png '
    'test/images/c.jpg test/labels/c.png',
    ('{split}/images/**/*', '{split}/labels/**/*', {'train': 1, 'val': 1, 'test': 1}),
  ),
  'splits below': (
    'image/train/a.tif image/Validation/a.tif label/train/a.tif label/Validation/a.tif',
    ('image/{split}/**/*', 'label/{split}/**/*', {'train': 1, 'val': 1}),
  ),
  'splits with years': (
    'images/train2017/1.png images/eval2017/2.png annots/train2017/1.png annots/eval2017/2.png',
    ('images/{split}2017/**/*', 'annots/{split}2017/**/*', {'train': 1, 'val': 1}),
  ),
  'splits in the names of folders': (
    'train/a.png train/b.png trainannot/a.png trainannot/b.png test/c.png testannot/c.png',
    ('{split}/**/*', '{split}annot/**/*', {'train': 2, 'test': 1}),
  ),
  'sets of splits': (
    'TrainDataset/image/a.png TrainDataset/masks/a.png TestDataset/image/c.png TestDataset/masks/c.png',
    ('{split}Dataset/image/**/*', '{split}Dataset/masks/**/*', {'train': 1, 'test': 1}),
  ),
  'splits before other words': (
    'train/a.png train_labels/a_L.png train/b.png train_labels/b_L.png val/c.png val_labels/c_L.png',
    ('{split}/**/*', '{split}_labels/**/*_L', {'train': 2, 'val': 1}),
  ),
  'a suffix on the masks': (
    'train/x/ISIC_1.jpg train/x/ISIC_2.jpg train/x_GroundTruth/ISIC_1_segmentation.png '
    'train/x_GroundTruth/ISIC_2_segmentation.png',
    ('{split}/x/**/*', '{split}/x_GroundTruth/**/*_segmentation', {'train': 2}),
  ),
  'suffixes on both sides': (
    'leftImg8bit/train/ulm/u_1_leftImg8bit.png gtFine/train/ulm/u_1_gtFine_labelIds.png '
    'leftImg8bit/train/ulm/u_2_leftImg8bit.png gtFine/train/ulm/u_2_gtFine_labelIds.png '
    'gtFine/train/ulm/u_1_gtFine_color.png gtFine/train/ulm/u_2_gtFine_color.png',
    ('leftImg8bit/{split}/**/*_leftImg8bit', 'gtFine/{split}/**/*_gtFine_labelIds', {'train': 2}),
  ),
  'in front of the names': (
    'imgs/img_07.png imgs/img_08.png gt/gt_img_07.png gt/gt_img_08.png',
    ('imgs/**/*', 'gt/**/gt_*', {UNDIVIDED: 2}),
  ),
  'in one folder': (
    'data/12_sat.jpg data/12_mask.png data/3_sat.jpg data/3_mask.png',
    ('**/*_sat', '**/*_mask', {UNDIVIDED: 2}),
  ),
  'in one folder, one side': (
    'a.tif a_mask.tif b.tif b_mask.tif c-1.tif c-1_mask.tif',
    ('**/*', '**/*_mask', {UNDIVIDED: 3}),
  ),
  'in one folder, by format': ('a.jpg a.png b.jpg b.png', ('**/*.jpg', '**/*.png', {UNDIVIDED: 2})),
  'sub-folders': (
    'photos/x/1.jpg photos/y/1.jpg photos/2.jpg Truth/x/1.png Truth/y/1.png Truth/2.png',
    ('photos/**/*', 'Truth/**/*', {UNDIVIDED: 3}),
  ),
  'a folder for each site': (
    's1/images/1.png s1/masks/1.png s2/images/1.png s2/masks/1.png',
    ('**/images/**/*', '**/masks/**/*', {UNDIVIDED: 2}),
  ),
  "PASCAL VOC's": (
    'VOC/JPEGImages/1.jpg VOC/SegmentationClass/1.png VOC/SegmentationObject/1.png',
    ('**/JPEGImages/**/*', '**/SegmentationClass/**/*', {UNDIVIDED: 1}),
  ),
  'masks below their images': (
    '1.jpg 2.jpg labels/1.png labels/2.png',
    ('**/*', 'labels/**/*', {UNDIVIDED: 2}),
  ),
  'names that begin alike': (
    'images/1.png images/10.png images/11.png masks/1.png masks/10.png masks/11.png',
    ('images/**/*', 'masks/**/*', {UNDIVIDED: 3}),
  ),
  'folders with signs in their names': (
    '[a]_images/1*.png [a]_masks/1*.png',
    ('[[]a]_images/**/*', '[[]a]_masks/**/*', {UNDIVIDED: 1}),
  ),
}


def write(root, names):
  for name in names.split():
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b'')


@pytest.mark.parametrize('shape', SHAPES)
def test_a_layout_is_found(shape, tmp_path):
  names, expected = SHAPES[shape]
  write(tmp_path, names)
  layout = layouts.find(tmp_path)
  pairs = layout.pairs(tmp_path)
  counts = {split: len(found) for split, found in pairs.splits.items()}
  assert (layout.images, layout.masks, counts) == expected
  assert not pairs.without_mask and not pairs.without_image
  for pair in (p for found in pairs.splits.values() for p in found):
    digits = [
      ''.join(c for c in PurePosixPath(f).stem if c.isdigit()) for f in (pair.image, pair.mask)
    ]
    assert digits[0] == digits[1] or '8bit' in pair.image.name


def test_names_of_sub_folders_do_not_collide(tmp_path):
  write(tmp_path, SHAPES['sub-folders'][0])
  [pairs] = layouts.find(tmp_path).pairs(tmp_path).splits.values()
  assert sorted(p.name for p in pairs) == ['2.jpg', 'x/1.jpg', 'y/1.jpg']
  assert {p.name: p.mask.relative_to(tmp_path).as_posix() for p in pairs}[
    'y/1.jpg'
  ] == 'Truth/y/1.png'


def test_splits_beside_further_folders_are_told_to_be_none(tmp_path, capsys):
  write(tmp_path, 'train/images/1.png train/masks/1.png old/images/2.png old/masks/2.png')
  [pairs] = layouts.find(tmp_path).pairs(tmp_path).splits.values()
  assert len(pairs) == 2
  assert f'{tmp_path}: train are taken for no splits' in capsys.readouterr().err


def test_masks_of_objects_are_found_where_objects_are_wanted(tmp_path):
  write(tmp_path, 'JPEGImages/1.jpg SegmentationClass/1.png SegmentationObject/1.png')
  assert layouts.find(tmp_path).masks == 'SegmentationClass/**/*'
  assert layouts.find(tmp_path, objects=True).masks == 'SegmentationObject/**/*'


def test_two_layouts_that_do_equally_well_are_asked_about(tmp_path):
  write(tmp_path, 'images/a.png labels_1/a.png labels_2/a.png')
  with pytest.raises(UserError, match=r"two ways: .*'labels_\d/\*\*/\*'.*--images and --masks"):
    layouts.find(tmp_path)


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    ('notes.txt', 'holds no image'),
    ('images/a.png images/b.png', 'no masks were found for images such as images/a.png'),
    ('before_a.png before_b.png after_a.png after_b.png', 'no masks were found'),
    ('frame1.png frame2.png frame10.png frame20.png', 'no masks were found'),
  ],
)
def test_what_is_no_layout_says_how_to_give_one(names, message, tmp_path):
  write(tmp_path, names)
  with pytest.raises(UserError, match=message):
    layouts.find(tmp_path)


def test_what_pairs_with_nothing_is_told(tmp_path):
  write(
    tmp_path, 'images/a.png images/b.png images/c.png masks/a.png masks/b.png masks/d.png x/e.png'
  )
  pairs = pairing.match(tmp_path, 'images/**/*', 'masks/**/*')
  assert [p.name for p in pairs.splits[UNDIVIDED]] == ['a.png', 'b.png']
  assert pairs.left_out() == (
    '1 images without a mask (images/c.png), 1 masks without an image (masks/d.png), '
    '1 other files (x/e.png)'
  )


def test_two_words_for_one_split_are_refused(tmp_path):
  write(tmp_path, 'val/images/a.png val/masks/a.png valid/images/b.png valid/masks/b.png')
  with pytest.raises(UserError, match="both|has val and valid for the split 'val': keep one"):
    layouts.find(tmp_path).pairs(tmp_path)


@pytest.mark.parametrize(
  ('pattern', 'path', 'split', 'key'),
  [
    ('imgs/*.jpg', 'imgs/a.b.JPG', '', ('a.b',)),
    ('imgs/*', 'imgs/a.b.png', '', ('a.b',)),
    ('**/im_?[0-9].*', 'x/y/im_a7.bmp', '', ('x/y', 'a', '7')),
    ('{split}/**/*_m', 'Valid/a_m_m.tif', 'val', ('a_m',)),
    ('[!x]*', 'yz.png', '', ('y', 'z')),
  ],
)
def test_what_a_pattern_means(pattern, path, split, key):
  found = pairing.match_path(pattern, path)
  assert (found.split, found.key) == (split, key)
  assert pairing.match_path(pattern, f'other/{path}.txt') is None


LIST = {
  'with a header': 'mask,image,split\nm/1.png,1.jpg,train\nm/2.png,2.jpg,valid\n',
  'without': '1.jpg,m/1.png,train\n2.jpg,m/2.png,validation\n\n',
  "with Windows' paths": 'File Name,Mask_Path,set\r\n1.jpg,m\\1.png,train\r\n2.jpg,m\\2.png,eval\r\n',
  'with semicolons': 'Image;Label;Subset\n1.jpg;m/1.png;train\n2.jpg;m/2.png;val\n',
}


@pytest.mark.parametrize('kind', LIST)
def test_a_list_of_pairs(kind, tmp_path):
  (tmp_path / 'list.csv').write_text(LIST[kind])
  splits = pairing.Layout(listed='list.csv').pairs(tmp_path).splits
  assert {s: [(p.name, p.mask) for p in found] for s, found in splits.items()} == {
    'train': [('1.jpg', tmp_path / 'm/1.png')],
    'val': [('2.jpg', tmp_path / 'm/2.png')],
  }


def test_a_list_of_a_split_that_is_no_text_is_told(tmp_path, capsys):
  (tmp_path / 'train.txt').write_bytes('b\n'.encode('utf-16'))
  assert split_lists.find(tmp_path, ['images/b.png']) == ({}, [])
  assert 'train.txt is not a text file in UTF-8: save it as one; it divides nothing' in (
    capsys.readouterr().err
  )


def test_lines_of_a_list_of_a_split_that_name_nothing_are_told(tmp_path, capsys):
  images = ['images/a.png', 'images/b.png']
  (tmp_path / 'VAL.TXT').write_text('a\n\nc\n"b"\n')
  assert split_lists.find(tmp_path, images) == ({'images/a.png': 'val'}, ['VAL.TXT'])
  told = f'{tmp_path}/VAL.TXT: 2 of 3 lines name no image that is read here: c, "b"\n'
  assert told in capsys.readouterr().err
  (tmp_path / 'VAL.TXT').write_text('x\n')
  assert split_lists.find(tmp_path, images) == ({}, [])
  assert 'VAL.TXT name no image that is read here: they divide nothing' in capsys.readouterr().err
  (tmp_path / 'main').mkdir()
  (tmp_path / 'main/train.txt').write_text(
    'a\nb\n'
  )  # of lists in several folders, the one that fits
  assert split_lists.find(tmp_path, images)[1] == ['main/train.txt']
  assert capsys.readouterr().err == ''


def test_of_two_columns_the_plainer_name_counts(tmp_path):
  (tmp_path / 'list.csv').write_text('label,mask,image\ncat,m.png,a.png\n')
  assert [pair.mask.name for pair in pairing.read_list(tmp_path / 'list.csv').splits['']] == [
    'm.png'
  ]


def test_a_list_names_an_image_once_however(tmp_path):
  (tmp_path / 'link').symlink_to(tmp_path)
  for again in (tmp_path / 'a.png', 'link/a.png', 'x/../a.png'):
    (tmp_path / 'list.csv').write_text(f'image,mask,split\na.png,m.png,train\n{again},m.png,val\n')
    with pytest.raises(UserError, match='line 3: .*a.png is listed a second time'):
      pairing.read_list(tmp_path / 'list.csv')


def test_a_list_of_a_split_writes_accents_in_either_way(tmp_path):
  (tmp_path / 'train.txt').write_text('caf\u00e9\n')
  split, lists = split_lists.find(tmp_path, ['images/cafe\u0301.png', 'images/b.png'])
  assert split == {'images/cafe\u0301.png': 'train'} and lists == ['train.txt']


def test_a_mask_of_several_images_is_told(tmp_path, capsys):
  (tmp_path / 'list.csv').write_text('image,mask\na.png,m.png\nb.png,m.png\nc.png,n.png\n')
  pairing.read_list(tmp_path / 'list.csv')
  assert f'masks of several images: {tmp_path}/m.png (2)\n' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('image,mask\na.png\n', "line 2: expected 'image,mask', got 'a.png'"),
    ('a.png,b.png\na.png,c.png\n', 'line 2: a.png is listed a second time'),
    ('a.png,b.png,held\n', "line 1: split 'held': use one of train, training, val"),
    ('a.png,b.png,train\n./a.png,c.png,val\n', 'line 2: ./a.png is listed a second time'),
    ('a.png,x/../a.png\n', 'line 1: a.png is image and mask at once'),
    ('image,mask\na.png,b.png,val\n', 'line 2 has more cells than the first line'),
    ('image,mask,mask_path\na.png,b.png,c.png\n', 'several columns for mask'),
    ('image,mask,label\na.png,b.png,c.png\n', 'has masks in several columns: mask, label; keep'),
    ('image,mask,phase\na.png,b.png,train\n', "its column 'phase' holds splits: name it 'split'"),
    ('a.png,b\0.png\n', 'holds NUL'),
    (f'{"x" * 200_000},b.png\n', 'cannot be read as a table: field larger'),
  ],
)
def test_a_list_that_is_wrong(text, message, tmp_path):
  (tmp_path / 'list.csv').write_text(text)
  with pytest.raises(UserError, match=message):
    pairing.read_list(tmp_path / 'list.csv')
