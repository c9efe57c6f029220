"""Files damaged at random, with a fixed seed: no traceback, no crash, no hang, bounded memory.

`FUZZ_TABLE=docs/reliability.md pytest -m slow -n0 tests/test_fuzz.py` renews the table.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import documents, fuzz
from tests.fuzz_files import KINDS

ROOT = Path(__file__).resolve().parent.parent
COUNTS = {'run folder (JSON)': 400, 'records': 150}
results = {}


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_damaged_files_are_refused_in_one_line_or_read(kind, tmp_path):
  folder = tmp_path / 'files'
  folder.mkdir()
  command = [sys.executable, '-m', 'tests.fuzz', kind, str(COUNTS.get(kind, 500)), str(folder)]
  environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  environment['JAXSEG_CACHE'] = str(tmp_path / 'cache')
  done = subprocess.run(
    command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=1200
  )
  assert done.returncode == 0, done.stderr[-3000:]
  results[kind] = json.loads(done.stdout.splitlines()[-1])
  assert results[kind]['tried'] == results[kind]['read'] + results[kind]['refused']
  assert results[kind]['refused'] > 0


@pytest.mark.slow
def test_the_table_shows_them():
  rows = [
    f'| {kind} | {r["tried"]:,} | {r["refused"]:,} | {r["read"]:,} | {r["seconds"]:.1f} | '
    f'{r["times"]:.1f} |'
    for kind, r in results.items()
  ]
  table = '\n'.join(
    [
      'Bits, numbers, pieces and ends of good files changed at random, with a fixed seed, each kind in a',
      f'process of its own that may have {fuzz.MACHINE >> 30} GiB more than it starts with. Memory is at most '
      f'{fuzz.TIMES} times the files and {fuzz.ANYWAY >> 20} MiB;',
      '`FUZZ_TABLE=docs/reliability.md pytest -m slow -n0 tests/test_fuzz.py`.',
      '',
      '| files | tried | refused in one line | read | longest s | most MiB |',
      '|---|---|---|---|---|---|',
      *rows,
    ]
  )
  documents.renew('FUZZ_TABLE', 'Hostile files', 'fuzz', table)
