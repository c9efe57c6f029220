import ctypes
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), 'mallopt'), reason='no glibc')

STEP = """
import resource, threading
from pathlib import Path
import numpy as np
from jaxseg.train import allocator

def step():
  for _ in range(8):
    np.empty(96 << 20, np.uint8).fill(1)  # 24576 pages, more than a thread's own arena may hold
"""
FAULTS = """
def faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def steps():
  step()
  before = faults()
  step()
  print(faults() - before)

if KEEP:
  allocator.keep_freed_memory()
thread = threading.Thread(target=steps)
thread.start()
thread.join()
"""
MEGABYTES = """
def megabytes():
  return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() >> 20

allocator.keep_freed_memory()
before = megabytes()
step()
kept = megabytes() - before
allocator.return_freed_memory()
print(kept, megabytes() - before)
"""


def printed(script: str) -> list[int]:
  done = subprocess.run([sys.executable, '-c', STEP + script], check=True, capture_output=True)
  return list(map(int, done.stdout.split()))


def test_memory_that_a_thread_frees_is_used_again():
  assert printed(FAULTS.replace('KEEP', 'True'))[0] < 1000
  assert printed(FAULTS.replace('KEEP', 'False'))[0] > 100  # of huge pages: the test would notice


def test_it_can_be_returned():
  kept, left = printed(MEGABYTES)
  assert kept > 90 and left < 20
