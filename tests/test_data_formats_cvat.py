"""CVAT's XML: read as meant, told, or refused in one line."""

import pytest

from jaxseg.types import UserError
from tests.annotated_folders import (
  opened,
  photo,
  write_cvat,
)


def test_cvat_images_that_lie_in_two_folders_are_asked_about(root):
  write_cvat(root, '<polygon label="dog" points="1,1;4,1;4,4;1,4"/>')
  photo(root / 'b.jpg')
  with pytest.raises(UserError, match=r'annotations.xml lists b.jpg, and there are .*b.jpg and '):
    opened(root)


def test_cvat_by_hand(root):
  write_cvat(
    root,
    '<polygon label="dog" points="1,1;4,1;4,4;1,4"/>'
    '<box label="cat" xtl="5" ytl="0" xbr="8" ybr="2"/>'
    '<mask label="cat" left="8" top="6" width="3" height="2" rle="0, 3, 3"/>'
    '<tag label="cat"/>',
  )
  source = opened(root)
  assert source.class_names == ('background', 'cat', 'dog')
  example = source[0]
  assert example['instance_classes'].tolist() == [2, 1, 1]
  assert example['instance_boxes'].tolist() == [[1, 1, 4, 4], [5, 0, 8, 2], [8, 6, 11, 7]]


WRONG_CVAT = {
  "its label 'bird' is none of cat, dog": '<polygon label="bird" points="1,1;4,1;4,4"/>',
  "its points are no 'x,y;x,y;...'": '<polygon label="cat" points="1,1;b"/>',
  r'reaches to x = 1e\+09': '<polygon label="cat" points="1,1;1e9,1;4,4"/>',
  'not finite': '<polygon label="cat" points="1,1;nan,1;4,4"/>',
  "its xbr is 'wide'": '<box label="cat" xtl="5" ytl="0" xbr="wide" ybr="2"/>',
  'add up to 5 of 6 pixels': '<mask label="cat" left="8" top="6" width="3" height="2" rle="5"/>',
  'are not inside': '<mask label="cat" left="8" top="6" width="30" height="2" rle="60"/>',
  'a polyline is no object with a mask': '<polyline label="cat" points="1,1;2,2"/>',
}


@pytest.mark.parametrize('words', WRONG_CVAT)
def test_cvat_refuses(root, words):
  write_cvat(root, WRONG_CVAT[words])
  with pytest.raises(UserError, match=f'annotations.xml.*{words}'):
    opened(root)


def test_xml_that_declares_entities_is_refused(root):
  write_cvat(root, '')
  file = root / 'annotations.xml'
  file.write_text('<!DOCTYPE a [<!ENTITY b "c">]>' + file.read_text())
  with pytest.raises(UserError, match='declares a document type'):
    opened(root)
