"""Hours and costs of a training on TPUs: counted by hand from round numbers, and once through the launcher."""

import pytest

from jaxseg.tools.benchmark import hours
from jaxseg.types import UserError
from tests.test_launch import ROOT, launch
from tests.tiny_runs import make_experiment


@pytest.fixture
def slices(monkeypatch):
  """3600 steps of 110 TFLOP: on one chip of 1 TFLOP/s, 110 hours."""
  monkeypatch.setattr(hours.ours, 'flops', lambda experiment, size, train: 110e12)

  def table(batch_size, **options):
    experiment = make_experiment(num_steps=3600, batch_size=batch_size)
    options = {'utilisation': 0.5, 'say': lambda line: None} | options
    return {entry['slice']: entry for entry in hours.table(experiment, (8, 8), **options)['slices']}

  return table


def test_hours_by_hand(slices):
  table = slices(4)
  assert [table[s]['busy'] for s in ('v4-8', 'v5e-8', 'v6e-8', 'v5e-256')] == [4, 4, 4, None]
  assert table['v4-8']['hours'] == pytest.approx(110 / (4 * 275 * 0.5))  # 0.2
  assert table['v5e-8']['hours'] == pytest.approx(110 / (4 * 197 * 0.5))
  assert table['v6e-8']['hours'] == pytest.approx(110 / (4 * 918 * 0.5))
  assert table['v5e-256']['hours'] is None
  assert table['v5e-256']['hours_all_busy'] == pytest.approx(110 / (256 * 197 * 0.5))
  assert table['v4-8']['cost'] is None


def test_all_chips_are_paid_for(slices):
  table = slices(4, price=3.0)
  assert table['v4-8']['cost'] == pytest.approx(3 * 4 * 0.2)
  assert table['v5e-8']['cost'] == pytest.approx(3 * 8 * table['v5e-8']['hours'])


def test_a_large_batch_keeps_a_pod_busy(slices):
  assert slices(256)['v5e-256']['busy'] == 256
  assert slices(64)['v5e-256']['busy'] == 64
  assert slices(6)['v4-8']['busy'] == 3


def test_a_share_or_price_that_cannot_be(slices):
  for options, says in ((dict(utilisation=0), 'utilisation'), (dict(price=-1), 'price')):
    with pytest.raises(UserError, match=says):
      slices(4, **options)


def test_the_launcher_prints_the_table(capsys):
  spec = f'--config={ROOT}/configs/unet_shapes.py:smoke'
  launch('benchmark', spec, '--mode=hours', '--crop=32,32', '--price-per-chip-hour=2')
  out = capsys.readouterr().out
  assert (
    out.startswith('computed, not measured: 10 steps of 8 x 32x32x3') and '| v6e-8 | 8 | 8 |' in out
  )
