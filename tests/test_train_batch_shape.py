"""What a batch must be before anything is compiled: sizes, and enough values for batch norm."""

import numpy as np
import pytest

from jaxseg.train import batch_shape
from jaxseg.types import UserError
from tests.test_instance_launchers import tiny_experiment
from tests.tiny_runs import make_experiment

PSPNET = dict(name='pspnet', width=4, stage_sizes=(1, 1, 1, 1))


def check(experiment, size=(64, 64)):
  """Looks at a batch of the experiment, as training does."""
  model, rng = experiment.model(), np.random.default_rng(0)
  label = np.zeros(size, np.uint8)
  label[8:24, 8:24] = 1
  example = {'image': rng.integers(0, 256, (*size, 3), np.uint8), 'label': label}
  example |= {'instances': label.astype(np.uint16), 'instance_classes': np.array([1], np.uint8)}
  assert batch_shape.check(experiment, model, experiment.task, [example]) == (1, *size, 3)


def test_one_value_a_channel_is_refused_wherever_a_network_has_it():
  pspnet = make_experiment(model=PSPNET, batch_size=1)
  with pytest.raises(
    UserError,
    match=r'batch_size=1: of one image of 65 x 65 .* nothing is learnt: set --config.batch_size=2 or more',
  ) as e:
    check(pspnet, (65, 65))
  assert 'the batch norm ' in str(e.value) and '\n' not in str(e.value)
  with pytest.raises(
    UserError, match=r'batch_size=4 with config.accumulate=4: of one image .*=8 or more'
  ):
    check(make_experiment(model=PSPNET, batch_size=4, accumulate=4), (65, 65))
  unet = dict(name='unet', width=2, depth=2, padding='same', batch_norm=True)
  with pytest.raises(UserError, match='of one image of 4 x 4 pixels'):
    check(make_experiment(model=unet, batch_size=1), (4, 4))


@pytest.mark.parametrize(
  'experiment',
  [
    make_experiment(model=PSPNET, batch_size=2),
    make_experiment(batch_size=1),
    make_experiment(model=dict(name='unet', width=2, depth=2, padding='same'), batch_size=1),
    tiny_experiment(batch_size=1),
  ],
  ids=['two images', 'an image of many values', 'no batch norm', 'objects'],
)
def test_what_can_learn_goes_on(experiment):
  check(experiment, (65, 65) if experiment.name.startswith('pspnet') else (64, 64))
