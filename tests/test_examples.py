"""The notebook's cells run as they stand, in the order in which they stand."""

import json

import jax
import pytest

from tests.test_launch import ROOT


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('JAXSEG_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('TMPDIR', str(tmp_path))
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  # `cpu_devices=1` comes too late for this process: eight devices of one core wait for each other.
  one = jax.devices()[:1]
  monkeypatch.setattr(jax, 'devices', lambda: one)
  notebook = json.loads((ROOT / 'examples' / 'own_data.ipynb').read_text(encoding='utf-8'))
  cells = [''.join(c['source']) for c in notebook['cells'] if c['cell_type'] == 'code']
  assert len(cells) > 3 and not any(c.get('outputs') for c in notebook['cells'])
  shared: dict = {}
  for cell in cells:
    exec(compile(cell, 'own_data.ipynb', 'exec'), shared)
  said = capsys.readouterr().out
  assert "images 'photos/**/*' with masks 'photos_mask/**/*'" in said
  assert shared['summary']['mean_iou'] > 0.8
  assert shared['mask'].shape == (48, 48)
  assert (shared['mask'] == shared['truth']).mean() == pytest.approx(1, abs=0.05)
