"""Parts by name, and keyword arguments that a signature checks."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import pytest

from jaxseg.config import parts
from jaxseg.types import UserError


@dataclasses.dataclass
class Oven:
  seats: int
  heat: float = 200.0
  fan: bool = False
  mode: Literal['bake', 'grill'] = 'bake'
  label: str = ''
  size: tuple[int, int] = (60, 40)
  racks: tuple[int, ...] = ()
  names: tuple[str, ...] = ()
  range: tuple[float, float] | None = None
  fill: tuple[int, ...] | int = 0
  extras: dict[str, Any] = dataclasses.field(default_factory=dict)
  hook: Callable | None = None


class Net(nn.Module):
  num_classes: int
  norm: Callable = nn.BatchNorm
  dtype: Any = 'float32'
  width: int = 64

  def __call__(self, image):
    return image


@pytest.mark.parametrize(
  ('name', 'value', 'typed'),
  [
    ('heat', 7, 7.0),
    ('fan', 'true', True),
    ('fan', 0, False),
    ('mode', 'grill', 'grill'),
    ('size', [3, 4], (3, 4)),
    ('size', 5, (5, 5)),
    ('racks', 3, (3,)),
    ('racks', (), ()),
    ('names', 'a, b', ('a', 'b')),
    ('names', '', ()),
    ('range', None, None),
    ('range', (1, 2), (1.0, 2.0)),
    ('fill', 3, 3),
    ('fill', (1, 2, 3), (1, 2, 3)),
    ('extras', {'a': 1}, {'a': 1}),
    ('hook', len, len),
  ],
)
def test_a_value_takes_the_type_of_the_signature(name, value, typed):
  given = parts.arguments(Oven, {'seats': 1, name: value}, 'config.oven')
  assert given == {'seats': 1, name: typed} and type(given[name]) is type(typed)


def test_a_missing_value_and_a_function_that_takes_any():
  with pytest.raises(UserError, match='config.oven: seats is missing, set config.oven.seats'):
    parts.arguments(Oven, {}, 'config.oven')

  def source(split, **options):
    return split, options

  assert parts.arguments(source, {'fold': '3'}, 'config.data.options', ('split',)) == {'fold': '3'}
  with pytest.raises(UserError, match='config.data.options.split: no such option'):
    parts.arguments(source, {'split': 'val'}, 'config.data.options', ('split',))


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'het': 1}, "config.oven.het: no such option; it has extras, fan, fill, heat, .*'heat'"),
    ({'heat': 'hot'}, "config.oven.heat='hot': expected a number, as in 200.0"),
    ({'heat': float('nan')}, 'config.oven.heat=nan: expected a number'),
    ({'heat': True}, 'expected a number'),
    ({'seats': 1.5}, 'config.oven.seats=1.5: expected a whole number$'),
    ({'seats': True}, 'expected a whole number'),
    ({'fan': 2}, 'expected true or false, as in False'),
    ({'mode': 'fry'}, "config.oven.mode='fry': choose one of bake, grill"),
    ({'label': 2.5}, 'expected a word'),
    ({'size': (1, 2, 3)}, r'expected 2 whole numbers, as in \(60, 40\)'),
    ({'racks': (1, 'a')}, 'expected whole numbers'),
    ({'range': (1, 'a')}, 'expected 2 numbers or None'),
    ({'extras': 3}, 'config.oven.extras=3: expected a group of options'),
  ],
)
def test_a_mistake_is_answered_in_one_line(values, message):
  with pytest.raises(UserError, match=message) as error:
    parts.arguments(Oven, {'seats': 1, **values}, 'config.oven')
  assert '\n' not in str(error.value)


def test_what_the_caller_gives_a_config_may_not():
  with pytest.raises(UserError, match='config.oven.seats: no such option'):
    parts.arguments(Oven, {'seats': 3}, 'config.oven', given=('seats',))


def test_a_network_has_its_own_options_alone():
  assert parts.defaults(Net) == {'width': 64}
  assert parts.arguments(Net, {'width': 8}, 'config.model') == {'width': 8}
  with pytest.raises(UserError, match='config.model.num_classes: no such option; it has width$'):
    parts.arguments(Net, {'num_classes': 3}, 'config.model')


def test_defaults_are_made_anew():
  first, second = parts.defaults(Oven), parts.defaults(Oven)
  assert 'seats' not in first and first['size'] == (60, 40) and first['extras'] == {}
  assert first['extras'] is not second['extras']


def test_parts_are_modules_by_name():
  assert parts.load('models', 'unet').__name__ == 'jaxseg.models.unet'
  assert {'fcn', 'segnet', 'unet'} <= set(parts.names('models'))


def test_a_part_of_your_own_has_a_dotted_name(tmp_path, monkeypatch):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'net.py').write_text('WIDTH = 3\n')
  monkeypatch.syspath_prepend(tmp_path)
  assert parts.load('models', 'mine.net').WIDTH == 3


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('models', 'unett'), "no model 'unett': choose one of fcn, .*; did you mean 'unet'?"),
    (('models', 'mine.gone'), "model 'mine.gone' cannot be imported"),
    (('models', '.os'), "model '.os' cannot be imported .it is no dotted name"),
    (('models', 'mine..net'), "model 'mine..net' cannot be imported .it is no dotted name"),
    (('datasets', 'camvit', 'data'), "no data 'camvit': .*'camvid'"),
  ],
)
def test_a_part_that_is_not_there(arguments, message):
  with pytest.raises(UserError, match=message):
    parts.load(*arguments)
