"""How commands grow: made images, costs of processes, and the table of both."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from jaxseg.tools.benchmark import scale
from jaxseg.tools.benchmark.scale import Cost
from jaxseg.types import UserError


def test_made_images_have_a_brighter_square_in_their_masks(tmp_path):
  scale.make_images(tmp_path, 3)
  names = [f'{i:06d}.png' for i in range(3)]
  for kind in ('images', 'masks'):
    assert sorted(p.name for p in (tmp_path / kind).iterdir()) == names
  image, mask = (np.asarray(Image.open(tmp_path / kind / names[2])) for kind in ('images', 'masks'))
  assert image.shape == (16, 16, 3) and (mask == 1).sum() == 36
  assert image[mask == 1].mean() > image[mask == 0].mean() + 100


def test_the_table_says_what_each_thousand_more_adds():
  few = dict.fromkeys(scale.COMMANDS, Cost(9.0, 5.0, 300 << 20))
  many = dict.fromkeys(scale.COMMANDS, Cost(99.0, 23.0, 318 << 20))
  out = io.StringIO()
  Console(file=out, width=120).print(scale.table({1000: few, 10_000: many}))
  row = next(line for line in out.getvalue().splitlines() if 'check' in line)
  cells = [cell.strip() for cell in row.split('│')[1:-1]]
  assert cells == ['check', '5.0 s, 300 MiB', '23.0 s, 318 MiB', '2.00 s, 2.00 MiB']
  assert len(scale.table({1000: few}).columns) == 2


def test_a_command_costs_time_and_memory_and_its_failure_is_told(tmp_path):
  with pytest.raises(UserError, match='jaxseg data plan: error: plan needs --output'):
    scale.measure(['data', 'plan'], str(tmp_path))
  held = b'x' * (256 << 20)  # by the caller: not the command's
  cost = scale.measure(['--help'], str(tmp_path))
  assert 0 < cost.cpu_seconds and 0 < cost.seconds < 60 and 5 << 20 < cost.peak_bytes < len(held)


@pytest.mark.slow
def test_whole_commands_run_on_made_images(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('TMPDIR', str(tmp_path))
  costs = scale.run([30], str(tmp_path / 'costs.json'))
  assert list(costs[30]) == list(scale.COMMANDS) and (tmp_path / 'costs.json').stat().st_size > 100
  assert all(
    cost.seconds > 0 and 50 << 20 < cost.peak_bytes < 4 << 30 for cost in costs[30].values()
  )
  assert 'evaluation' in capsys.readouterr().out
