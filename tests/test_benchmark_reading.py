"""Careful readers beside plain ones: both read the same, and the command times each pair."""

import numpy as np
import pytest

from jaxseg.tools.benchmark import reading
from tests.test_launch import launch


@pytest.fixture
def few(monkeypatch):
  for name, count in (('_LINES', 9), ('_OBJECTS', 9), ('_SMALL', 2), ('_IMAGES', 2), ('_SIDE', 8)):
    monkeypatch.setattr(reading, name, count)
  monkeypatch.setattr(reading, '_TENSORS', 1)


def test_both_sides_read_the_same(few, tmp_path):
  pairs = reading.pairs(tmp_path)
  assert len(pairs) == 6
  log, *others, tensors = ((ours(), plain()) for ours, plain in pairs.values())
  assert log[0] == log[1] and len(log[0]) == 9 and log[0][3]['step'] == 3
  for ours, plain in others:
    np.testing.assert_equal(ours, plain)
  np.testing.assert_array_equal(*(side['layer0.weight'] for side in tensors))


def test_the_command_prints_a_row_for_each(few, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(reading.timing, '_LEAST_SECONDS', 0.0)
  launch('benchmark', '--mode=reading', '--trials=1', f'--json={tmp_path / "a.json"}')
  told = capsys.readouterr().out
  assert told.count('\n') == 8 and '| a log of 9 lines |' in told
  assert (tmp_path / 'a.json').stat().st_size > 500
  (tmp_path / 'thesis.txt').write_text('mine')
  for mode in ('reading', 'scale'):
    with pytest.raises(SystemExit):
      launch('benchmark', f'--mode={mode}', f'--json={tmp_path / "thesis.txt"}')
    assert 'thesis.txt exists: choose another name' in capsys.readouterr().err
  assert (tmp_path / 'thesis.txt').read_text() == 'mine'
