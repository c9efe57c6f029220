"""Groups of images, from file names and from lists."""

import pytest

from jaxseg.predict.grouping import Grouping
from jaxseg.types import UserError
from tests.tiny_runs import make_experiment


def groups(text, *names, **changes):
  grouping = Grouping.of(text, make_experiment(**changes))
  return grouping.title, [grouping({'file_name': name}) for name in names]


def test_a_pattern_takes_the_group_from_the_name():
  found = groups(r'^([a-z]+)_', 'north_1.png', 'south_1.png', 'x.png', 'day/north_2.png')
  assert found == ('group', ['north', 'south', 'others', 'others'])
  assert groups(r'(\d{4})-', 'a/2024-05.png') == ('group', ['2024'])


def test_a_column_of_the_list_names_the_group(tmp_path):
  (tmp_path / 'list.csv').write_text(
    'image;mask;Site;split\na/1.png;m/1.png;north;train\na/2.png;m/2.png;;val\nb.png;m/3.png;south sea;val\n'
  )
  data = dict(data=dict(name='folder', options=dict(listed='list.csv')), data_dir=str(tmp_path))
  names = ('a/1.png', 'a/2.png', 'b.png')
  assert groups('Site', *names, **data) == ('Site', ['north', 'others', 'south sea'])
  with pytest.raises(UserError, match="no column 'site': it has image, mask, Site, split"):
    groups('site', **data)


@pytest.mark.parametrize(
  ('text', 'message'),
  [('(', r'--groups=\(: '), ('camera', 'train on a list .* give one of its columns')],
)
def test_what_is_neither_is_refused(text, message):
  with pytest.raises(UserError, match=message):
    groups(text)
