"""Damages good files at random, reads them, and says what came of it; see tests/test_fuzz.py.

    python -m tests.fuzz KIND COUNT FOLDER

A reading may give what is there, or a UserError of one line. Anything else ends the process.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import shutil
import struct
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.types import UserError
from tests import fuzz_files

TIMES, ANYWAY = (
  64,
  64 << 20,
)  # bytes of memory for each of a file's own, and those that any may take
MACHINE = 2 << 30  # bytes of address space above what the process has: more is a crash
SECONDS = 60.0
_NUMBERS = (0, 1, 255, 1 << 31, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
_TOKENS = (
  b'-1',
  b'1e999',
  b'NaN',
  b'null',
  b'[]',
  b'{}',
  b'"\\u0000"',
  b'9' * 30,
  b'true',
  b'[' * 3000,
)


def mutated(data: bytes, rng: np.random.Generator, text: bool) -> bytes:
  """Returns the bytes with a few bits, numbers or pieces changed, or cut short."""
  spoilt = bytearray(data)
  for _ in range(rng.integers(1, 4)):
    at = int(rng.integers(len(spoilt))) if spoilt else 0
    kind = rng.integers(8)
    if kind < 3:
      spoilt[at : at + 1] = bytes([(spoilt[at] if spoilt else 0) ^ (1 << rng.integers(8))])
    elif kind == 3:
      spoilt[at : at + 1] = rng.integers(0, 256, rng.integers(1, 5), np.uint8).tobytes()
    elif kind == 4:
      number = _NUMBERS[rng.integers(len(_NUMBERS))]
      size = int(rng.choice([1, 2, 4, 8]))
      spoilt[at : at + size] = struct.pack('<Q', number)[:size]
    elif kind == 5:
      piece = spoilt[at : at + int(rng.integers(1, 64))]
      to = int(rng.integers(len(spoilt) + 1))
      spoilt[to:to] = piece
    elif kind == 6 and text:
      end = next((i for i in range(at, len(spoilt)) if spoilt[i] in b',:]}'), at)
      spoilt[at:end] = _TOKENS[rng.integers(len(_TOKENS))]
    elif kind == 6:
      del spoilt[at : at + int(rng.integers(1, 64))]
    elif rng.integers(4) == 0:
      del spoilt[at:]
  return bytes(spoilt)


def run(kind: str, count: int, folder: Path) -> dict[str, Any]:
  """Reads `count` damaged files of a kind; returns how many were read, and how many refused."""
  files, read = fuzz_files.KINDS[kind](folder)
  read()  # warm, and good
  originals = {path: path.read_bytes() for path in files}
  rng = np.random.default_rng(sum(map(ord, kind)))
  result = {'kind': kind, 'tried': 0, 'read': 0, 'refused': 0, 'seconds': 0.0, 'times': 0.0}
  used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
  resource.setrlimit(resource.RLIMIT_AS, (used + MACHINE, resource.RLIM_INFINITY))
  tracemalloc.start()
  for number in range(count):
    path = files[number % len(files)]
    data = mutated(originals[path], rng, path.suffix in ('.json', '.jsonl'))
    path.write_bytes(data)
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    start, before = time.perf_counter(), tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    try:
      read()
      result['read'] += 1
    except UserError as error:
      assert '\n' not in str(error), str(error)
      result['refused'] += 1
    except BaseException:
      shutil.copy(path, folder.parent / f'failed_{kind.replace(" ", "_")}_{number}')
      raise
    faulthandler.cancel_dump_traceback_later()
    peak = tracemalloc.get_traced_memory()[1] - before
    whole = sum(map(len, originals.values()))
    assert peak <= TIMES * whole + ANYWAY, f'{path}, {number}: {peak:,} bytes of {whole:,}'
    result['seconds'] = max(result['seconds'], time.perf_counter() - start)
    result['times'] = max(result['times'], peak / (1 << 20))
    result['tried'] += 1
    path.write_bytes(originals[path])
  return result


if __name__ == '__main__':
  print(json.dumps(run(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
