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
