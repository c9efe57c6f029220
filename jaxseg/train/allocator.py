"""The C library's allocator, told to keep the memory that a step frees for the next one."""

import ctypes

_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1  # M_ARENA_MAX and so on in glibc's malloc.h


def keep_freed_memory() -> None:
  """Lets glibc return no freed memory to the kernel; elsewhere does nothing.

  XLA allocates a program's buffers at each call. Fetched from the kernel every time, each 4 KiB page costs
  a fault, a third of the CPU time of a small network's step. Only the first arena can hold large buffers,
  so threads share it.
  """
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is not None:
    mallopt(_ARENA_MAX, 1)
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)


def return_freed_memory() -> None:
  """Returns freed memory to the kernel, as between programs that need much and differ in size."""
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
  if trim is not None:
    trim(0)
