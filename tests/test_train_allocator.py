import ctypes
import subprocess
import sys

import pytest

SCRIPT = """
import resource, threading
import numpy as np
from jaxseg.train import allocator

def pages():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
  for _ in range(8):
    np.empty(96 << 20, np.uint8).fill(1)  # 24576 pages, more than a thread's own arena may hold

def steps():
  step()
  before = pages()
  step()
  print(pages() - before)

if KEEP:
  allocator.keep_freed_memory()
thread = threading.Thread(target=steps)
thread.start()
thread.join()
"""


def page_faults(keep: bool) -> int:
  script = SCRIPT.replace('KEEP', str(keep))
  return int(subprocess.run([sys.executable, '-c', script], check=True, capture_output=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), 'mallopt'), reason='no glibc')
def test_memory_that_a_thread_frees_is_used_again():
  assert page_faults(keep=True) < 1000
  assert page_faults(keep=False) > 100  # of huge pages: the test would notice
