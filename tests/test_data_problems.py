"""Bad files are told all at once, and how far a long pass is."""

import pytest

from jaxseg.data import problems, progress
from jaxseg.types import UserError


def test_all_bad_items_are_in_one_error():
  def read(item):
    if item % 3 == 1:
      raise UserError(f'{item} is bad')
    return item

  taken = []
  with pytest.raises(problems.BadFiles, match='^1 is bad .and 1 more like it') as error:
    for value in problems.read_all(read, range(6), str, 'reading'):
      taken.append(value)
  assert taken == [0] and error.value.problems == ('1 is bad', '4 is bad')
  assert list(problems.read_all(abs, [-1, 2], str, 'reading')) == [1, 2]
  with pytest.raises(ZeroDivisionError):  # a mistake of ours is no bad file
    list(problems.read_all(lambda i: 1 // i, [0], str, 'reading'))


def test_some():
  assert problems.abbreviate([3, 1]) == '3, 1'
  assert problems.abbreviate(range(10)) == '0, 1, 2, 3, 4, 5, 6, 7 and 2 more'


def test_choices():
  problems.check_choice('pets', 'border', 'void', ('class', 'void'))
  with pytest.raises(UserError, match='^pets has no border 3: use one of class, void$'):
    problems.check_choice('pets', 'border', 3, ('class', 'void'))
  with pytest.raises(UserError, match="^pets: its labels are hidden; use 'val', or predict$"):
    problems.check_split('pets', 'test', ('train', 'val'), 'its labels are hidden')


def test_a_line_now_and_then_on_standard_error(monkeypatch, capsys):
  clock = iter([0.0, 9.0, 11.0, 11.0, 12.0, 22.0, 22.0])
  monkeypatch.setattr(progress.time, 'monotonic', lambda: next(clock))
  assert list(progress.with_progress('reading', 'abcd', 4)) == list('abcd')
  assert capsys.readouterr().err == 'reading: 2 of 4\nreading: 4 of 4\n'
