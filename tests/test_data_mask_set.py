"""One reading for all masks of a set; what each holds is written out, and what is unclear is asked."""

from pathlib import Path

import pytest

from jaxseg.data import classlist, mask_set
from jaxseg.data.mask_files import MaskSummary
from jaxseg.data.mask_set import Choice
from jaxseg.types import VOID, UserError

BLACK, RED, GREEN, WHITE = (0, 0, 0), (255, 0, 0), (0, 255, 0), (255, 255, 255)
TWO = classlist.from_names(('ground', 'crack'))


def grey(*ids):
  return MaskSummary('grey', ids, tuple((i,) * 3 for i in ids))


def index(**colors):
  return MaskSummary('index', tuple(int(k[1:]) for k in colors), tuple(colors.values()))


def colour(*colors):
  return MaskSummary('colour', (), colors, solid=colors)


def decide(*facts, listed=None, num_classes=None, **choice):
  named = {Path(f'{i}.png'): one for i, one in enumerate(facts)}
  return mask_set.choose_reading(named, listed, Choice(**choice), num_classes)


def colored(**colors):
  return classlist.from_colors(tuple(colors), tuple(colors.values()))


def test_grey_masks_are_read_by_listed_greys():
  listed = colored(ground=BLACK, cup=(127,) * 3, disc=WHITE)
  for facts in (
    (grey(0, 127, 255), grey(0)),
    (MaskSummary('grey', (0, 1), (BLACK, WHITE), highest=1),),
  ):
    assert decide(*facts, listed=listed).by == 'colors'
  assert decide(grey(0, 1, 2), colour(BLACK, WHITE), listed=listed).by == 'mixed'
  assert decide(grey(0, 255), listed=colored(a=BLACK, b=RED)).by == 'colors'  # 255 is void
  assert decide(grey(0, 1, 255), listed=colored(a=BLACK, b=RED)).by == 'mixed'


def test_masks_of_0_and_255():
  binary = ((0, 0), (1, 1), (255, 1), (65535, 1))
  assert decide(grey(0, 255), grey(0)).ids == binary
  assert decide(grey(0, 255), listed=TWO).ids == binary
  assert decide(grey(0, 255), listed=TWO, binary=False).ids == TWO.ids
  assert decide(grey(0, 1, 255), grey(0, 255), listed=TWO).ids == TWO.ids  # 255 is void beside a 1
  with pytest.raises(UserError, match='1 masks hold 0 and 1 .*0.png.*, 2 hold 0 and 255 .*1.png'):
    decide(grey(0, 1), grey(0, 255), grey(255), listed=TWO)
  with pytest.raises(UserError, match='only 0 and 255, and with 3 classes'):
    decide(grey(0, 255), listed=classlist.from_names('abc'))


def test_a_listed_255_is_no_void(tmp_path):
  (tmp_path / 'list').write_text('0,ground\n1,road\n255,car\n')
  known = decide(grey(0, 1, 255), listed=classlist.read_file(tmp_path / 'list'))
  assert dict(known.ids) == {0: 0, 1: 1, 255: 2}


@pytest.mark.parametrize('listed', [None, TWO, colored(ground=BLACK, crack=WHITE)])
def test_soft_edges_are_told_and_read_by_a_threshold(listed):
  facts = grey(*range(0, 256, 3))
  with pytest.raises(UserError, match='86 values from 0 to 255, as soft .*threshold=128 makes'):
    decide(facts, grey(0), listed=listed)
  known = decide(facts, listed=listed, threshold=100)
  assert known.threshold == 100 and len(known.names) == 2
  with pytest.raises(UserError, match='threshold makes two classes, but 3 are listed'):
    decide(facts, listed=classlist.from_names('abc'), threshold=100)


def test_many_classes_are_not_soft_edges():
  assert len(decide(grey(*range(150), 255)).names) == 150
  assert decide(grey(*range(0, 256, 3)), listed=classlist.from_names([f'c{i}' for i in range(255)]))


def test_opacity_tells_where_nothing_else_differs():
  facts = MaskSummary('colour', (), (RED,), alpha=(0, 255)), MaskSummary('colour', (), (RED,))
  known = decide(*facts, listed=colored(ground=BLACK, thing=RED))
  assert known.by == 'alpha' and dict(known.ids) == {0: 0, 1: 1, 255: 1, 65535: 1}
  with pytest.raises(UserError, match='only the opacity .*read_by=alpha .*read_by=colors'):
    decide(MaskSummary('colour', (), (RED,), alpha=(0, 255)), colour(BLACK, GREEN))
  shown = MaskSummary('colour', (), (BLACK, RED), alpha=(0, 255))
  assert decide(shown, listed=colored(ground=BLACK, thing=RED)).by == 'colors'


def test_transparent_pixels_of_an_opaque_colour_are_asked_about():
  facts = MaskSummary('colour', (), (BLACK, RED), alpha=(0, 255), hidden=(RED,))
  listed = colored(ground=BLACK, thing=RED)
  for of_set in ((facts, colour(BLACK, RED)), (colour(BLACK, RED), facts)):
    with pytest.raises(
      UserError, match=r'1 masks, .* of one colour, \(255, 0, 0\): save .*read_by'
    ):
      decide(*of_set, listed=listed)
    assert decide(*of_set, listed=listed, read_by='colors').by == 'colors'
    assert decide(*of_set, listed=TWO, read_by='alpha').by == 'alpha'


@pytest.mark.parametrize('greys', [grey(0, 1, 2), index(_0=BLACK, _1=(1, 1, 1)), grey(0, 255)])
def test_greys_beside_colours_are_asked_about(greys):
  """They may be ids of the classes that the colours stand for."""
  for facts in ((greys, colour(BLACK, RED)), (colour(BLACK, RED), greys)):
    with pytest.raises(
      UserError, match="hold the grey values .*, and others colours: save .*'name r g b'"
    ):
      decide(*facts)
    assert len(decide(*facts, read_by='colors').names) > 2
  assert decide(grey(0), grey(0, 255), colour(BLACK, RED, WHITE)).names[-1] == 'color 255,255,255'
  assert decide(grey(0), colour(WHITE, RED)).by == 'colors'


def test_indices_of_one_colour_are_asked_about():
  """As of a palette that is filled up with black, in which 255 is void and 0 is the ground."""
  facts, listed = index(_0=BLACK, _1=RED, _255=BLACK), colored(ground=BLACK, thing=RED)
  with pytest.raises(
    UserError, match=r'0.png has one colour, \(0, 0, 0\), for the indices 0, 255: .*ids'
  ):
    decide(facts, listed=listed)
  known = decide(facts, listed=listed, read_by='ids')
  assert known.by == 'ids' and dict(known.ids) == {0: 0, 1: 1, 255: VOID}
  assert decide(facts, listed=listed, read_by='colors').by == 'colors'
  assert decide(facts, listed=TWO).by == 'ids'


def test_a_palette_of_white_and_black_is_not_what_one_bit_shows():
  bit = MaskSummary('grey', (0, 1), (BLACK, WHITE), highest=1)
  for facts in ((bit, index(_0=WHITE, _1=BLACK)), (index(_0=WHITE, _1=BLACK), bit)):
    with pytest.raises(UserError, match='0 is .255, 255, 255. in .* and .0, 0, 0. in'):
      decide(*facts, listed=TWO)
    assert decide(*facts, listed=TWO, read_by='ids').by == 'ids'
  for palette in (index(_0=BLACK, _1=WHITE), index(_0=BLACK, _1=RED)):
    assert decide(bit, palette, listed=TWO) == TWO


def test_palettes_that_differ_are_asked_about():
  facts = index(_0=BLACK, _1=RED), index(_0=RED, _1=BLACK)
  with pytest.raises(
    UserError, match=r'0 is \(0, 0, 0\) in 0.png and \(255, 0, 0\) in 1.png; .*ids'
  ):
    decide(*facts, listed=TWO)
  assert decide(*facts, listed=TWO, read_by='ids').by == 'ids'
  known = decide(*facts, read_by='colors')
  assert dict(known.colors) == {BLACK: 0, RED: 1} and known.by == 'colors'
  with pytest.raises(UserError, match='needs the colour of each class'):
    decide(*facts, listed=TWO, read_by='colors')
  assert decide(index(_0=BLACK, _1=RED), index(_0=BLACK, _2=GREEN)).by == 'ids'


def test_colours_that_nothing_lists_are_classes():
  known = decide(colour(BLACK, (128, 0, 0)), colour((0, 128, 0), classlist.VOC_VOID))
  assert known.names == ('color 0,0,0', 'color 128,0,0', 'color 0,128,0')  # in VOC's order
  assert dict(known.colors)[classlist.VOC_VOID] == VOID
  with pytest.raises(UserError, match='0.png is a mask of colours, and the set has 40 of them'):
    decide(colour(*((i, 0, 9) for i in range(40))))
  with pytest.raises(UserError, match='needs masks of 0 and 255, but these are read by colour'):
    decide(colour(BLACK, RED), binary=True)


def test_numbers_that_are_no_classes():
  with pytest.raises(
    UserError, match="cannot tell the classes from mask ids 0, 127, 255.*'name 127"
  ):
    decide(grey(0, 127, 255))
  assert decide(grey(0, 7), num_classes=3).names == ('class 0', 'class 1', 'class 2')
