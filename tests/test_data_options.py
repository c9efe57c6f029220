"""The config's group `data`: what it refuses, each in one line that names the key."""

import pytest

from jaxseg.config.parts import arguments
from jaxseg.data.options import Data
from jaxseg.types import UserError


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    (
      {'image_size': (3,)},
      r'image_size=\(3,\): \(height, width\) in pixels, at most 16384, or \(\) for none',
    ),
    ({'image_size': (0, 8)}, r'image_size=\(0, 8\): \(height, width\)'),
    ({'mean': (), 'std': ()}, r'mean=\(\): one or more numbers, each between'),
    ({'mean': (1.0, float('nan'), 2.0)}, 'mean=.*: one or more numbers, each between'),
    ({'std': (1.0, 0.0, 1.0)}, 'std=.*: every value must be above 0'),
    ({'std': (1.0,)}, r'std=\(1.0,\): one value for each of the 3 channels of config.data.mean'),
    ({'num_threads': 0}, 'num_threads=0: must be between 1 and 1024'),
    ({'timeout': -1.0}, 'timeout=-1.0: must be between 0 and 1e'),
    ({'memory_mb': -1}, 'memory_mb=-1: must be at least 0'),
  ],
)
def test_what_cannot_work_is_refused(wrong, message):
  with pytest.raises(UserError, match=f'^config.data.{message}') as error:
    Data(**wrong)
  assert '\n' not in str(error.value)


def test_what_a_command_line_gives():
  values = arguments(Data, {'mean': 5, 'std': (2, 3), 'image_size': 64}, 'config.data')
  assert values == {'mean': (5.0,), 'std': (2.0, 3.0), 'image_size': (64, 64)}
  assert Data(mean=(1.0,), std=(2.0,), image_size=()).channels == 1
  with pytest.raises(UserError, match='channel_order=.*choose one of rgb, bgr'):
    arguments(Data, {'channel_order': 'rbg'}, 'config.data')
