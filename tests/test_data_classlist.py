"""Generated palettes and lists of classes."""

import pytest

from jaxseg.data import classlist
from jaxseg.types import VOID, UserError


def test_voc_palette():
  """The first and last of the twenty-one published colours."""
  palette = classlist.voc_palette(21)
  assert palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
  assert palette[8] == (64, 0, 0) and palette[15] == (192, 128, 128) and palette[20] == (0, 64, 128)


def test_void_is_no_class_and_binary_masks_have_two():
  classes = classlist.from_names(('sky', 'void', 'car'))
  assert classes.names == ('sky', 'car')
  assert dict(classes.ids) == {0: 0, 1: VOID, 2: 1, 255: VOID}
  assert dict(classes.as_binary().ids) == {0: 0, 1: 1, 255: 1, 65535: 1}
  with pytest.raises(UserError, match='binary masks have two classes, but 3 are listed'):
    classlist.from_names('abc').as_binary()


def test_own_ids_are_those_of_masks_that_number_classes_otherwise(tmp_path):
  (tmp_path / 'classes.txt').write_text('id,name\n0,ground\n7,cat\n20,dog\n')
  gaps = classlist.read_file(tmp_path / 'classes.txt')
  assert gaps.own_ids == (0, 7, 20)
  assert classlist.from_names(('ground', 'cat')).own_ids == ()
  assert classlist.from_names(('ground', 'void', 'cat')).own_ids == (0, 2)
  assert classlist.from_names(('ground', 'cat')).as_binary().own_ids == ()
  assert classlist.from_colors(('a', 'b'), ((0, 0, 0), (9, 9, 9))).own_ids == ()
