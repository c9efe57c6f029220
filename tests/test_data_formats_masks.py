"""Objects as masks, a file each or by numbers: read as meant, told, or refused in one line."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.types import UserError
from tests.annotated_folders import (
  numbered,
  opened,
  photo,
  shape,
  write_files,
  write_ids,
  write_labelme,
)


def test_maps_of_numbers(root):
  for name, dtype in (('a', np.uint8), ('b', np.uint16)):
    write_ids(root, numbered(4, 9, dtype=dtype), name)
  examples = [*opened(root, 'train'), *opened(root, 'val')]
  for example in examples:
    assert example['instance_boxes'].tolist() == [[1, 2, 3, 4], [3, 2, 5, 4]]
    assert example['instance_classes'].tolist() == [1, 1]
  assert opened(root).class_names == ('background', 'object')


def test_numbers_that_hold_their_class(root):
  """Cityscapes: 2001 is the first of class 2; 2 without a number is a region, not an object."""
  for name in 'ab':
    write_ids(root, numbered(2001, 1000, 2, dtype=np.uint16), name)
  (root / 'classes.txt').write_text('background\ncar\nrider\n')
  with pytest.raises(UserError, match='nothing says which of 2 classes object'):
    opened(root)
  assert opened(root, divisor=1000)[0]['instance_classes'].tolist() == [1, 2]
  for divisor in (0, -3, 1 << 60):
    with pytest.raises(UserError, match=f'got divisor {divisor}; 2 to'):
      opened(root, divisor=divisor)
  write_ids(root, numbered(5001, dtype=np.uint16), 'c')
  with pytest.raises(UserError, match='object 5001 is of class 5; 1 to 2 are named'):
    [opened(root, split, divisor=1000) for split in ('train', 'val')]


@pytest.mark.parametrize(('last', 'dtype'), [(255, np.uint8), (255, np.uint16), (65535, np.uint16)])
def test_the_last_number_beside_few_is_asked_about(root, last, dtype):
  for name in 'ab':
    write_ids(root, numbered(1, last, dtype=dtype), name)
  with pytest.raises(
    UserError, match=f'options.void={last} if it is a region to ignore, or void=-1'
  ):
    opened(root)
  assert opened(root, void=last)[0]['crowd'].tolist() == [False, True]
  assert opened(root, void=-1)[0]['crowd'].tolist() == [False, False]


def test_255_is_an_object_among_numbers_of_16_bits_with_gaps(root):
  for name in 'ab':
    write_ids(root, numbered(12, 255, dtype=np.uint16), name)
  assert opened(root)[0]['crowd'].tolist() == [False, False]


def test_an_empty_folder_of_masks_is_an_image_without_objects(root):
  for name in 'ab':
    photo(root / name / 'images' / f'{name}.png')
    (root / name / 'masks').mkdir()
  Image.fromarray(255 * numbered(1)).save(root / 'a' / 'masks' / '0.png')
  found = {e['file_name']: len(e['area']) for s in ('train', 'val') for e in opened(root, s)}
  assert found == {'a.png': 1, 'b.png': 0}


def test_folders_that_are_no_example_are_named(root, capsys):
  for name in 'abcd':
    write_files(root, name)
  photo(root / 'b' / 'images' / 'b_overlay.png')
  (root / 'c' / 'masks').rename(root / 'c' / 'mask')
  photo(root / 'x' / 'e' / 'images' / 'e.png')
  assert sorted(e['file_name'] for s in ('train', 'val') for e in opened(root, s)) == [
    'a.png',
    'd.png',
  ]
  told = capsys.readouterr().err
  assert '4 folders lack images/ with one image, or masks/, and are left out: b, c, c/mask' in told
  for name in ('a', 'd'):  # as many folders of several images: of a site each
    photo(root / name / 'images' / 'further.png')
    write_files(root, f'{name}2')
  with pytest.raises(UserError, match='no annotated objects of the format files'):
    opened(root, format='files')


def test_masks_in_folders_within_masks_are_refused(root):
  for name in 'ab':
    write_files(root, name)
  (root / 'a' / 'masks' / 'cat').mkdir()
  (root / 'a' / 'masks' / '2.png').rename(root / 'a' / 'masks' / 'cat' / '2.png')
  with pytest.raises(UserError, match='a/masks/cat holds masks that would be left out'):
    opened(root)


def test_files_begin_with_their_class_if_some_do(root):
  for name in 'ab':
    write_files(root, name)
  (root / 'classes.txt').write_text('background\ncat\n')
  assert opened(root)[0]['instance_classes'].tolist() == [1, 1]
  for name in 'ab':
    for number, word in ((1, 'cat'), (2, 'dog')):
      file = root / name / 'masks' / f'{number}.png'
      file.rename(file.with_name(f'{word}_{number}.png'))
  with pytest.raises(UserError, match='dog_2.png begins with none of the classes cat, as others'):
    [opened(root, split) for split in ('train', 'val')]


def test_images_of_one_name_are_left_out_one_by_one(root):
  for split in ('train', 'val'):
    write_labelme(root / split, shape('dog'))
  for path in ('val/a.jpg', (root / 'val' / 'a.jpg').as_posix()):
    assert len(opened(root, 'train', without=(path,))) == 2
    assert [e['file_name'] for e in opened(root, 'val', without=(path,))] == ['b.jpg']
  with pytest.raises(UserError, match='without names a.jpg, as are .*train/a.jpg and .*val/a.jpg'):
    opened(root, without=('a.jpg',))


@pytest.mark.parametrize('name', ['masks/2.npy', 'masks/2.TGA', 'images/a.heic'])
def test_files_of_an_example_in_other_formats_are_refused(root, name):
  for stem in 'ab':
    write_files(root, stem)
  (root / 'a' / 'masks' / '2.png').rename(root / 'a' / name)
  with pytest.raises(UserError, match=f'a/{name} would be left out: save it as one of .png'):
    opened(root)


def test_what_is_no_map_of_numbers_is_named(root, capsys):
  for split in ('train', 'train2', 'val'):
    write_ids(root / split, numbered(1, 2), split)
  assert len(opened(root, format='ids')) == len(opened(root, 'val', format='ids')) == 1
  told = 'left out are 2 other files (train2/images/train2.jpg, train2/masks/train2.png)'
  assert f'{root}: {told}' in capsys.readouterr().err
  (root / 'train' / 'masks' / 'b.pgm').write_bytes(b'')
  with pytest.raises(UserError, match='masks/b.pgm would be left out: save it as one of'):
    opened(root, format='ids')
