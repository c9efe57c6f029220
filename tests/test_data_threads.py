"""Work ahead of its consumer: order, how far ahead, and errors."""

import threading
import time

import pytest

from jaxseg.data import threads


def test_results_come_in_order_and_not_too_far_ahead():
  begun = []

  def items():
    for i in range(10):
      begun.append(i)
      yield i

  def slow_if_even(i):
    time.sleep(0.01 * (i % 2 == 0))
    return i * i

  for place, (item, future) in enumerate(threads.futures(slow_if_even, items(), prefetch=3)):
    assert item == place and future.result() == place**2
    assert len(begun) <= place + 4


def test_an_error_comes_out_of_its_own_future():
  futures = [f for _, f in threads.futures(lambda i: 1 // i, [1, 0, 2])]
  assert futures[0].result() == 1 and futures[2].result() == 0
  with pytest.raises(ZeroDivisionError):
    futures[1].result()


def test_a_backlog_waits_for_its_jobs_and_holds_few():
  running, most, lock, done = 0, 0, threading.Lock(), []

  def job(i):
    nonlocal running, most
    with lock:
      running += 1
      most = max(most, running)
    time.sleep(0.005)
    with lock:
      running -= 1
      done.append(i)

  with threads.Backlog(num_threads=2, most=2) as backlog:
    for i in range(8):
      backlog.submit(job, i)
  assert sorted(done) == list(range(8)) and most <= 2


def test_a_backlog_raises_what_a_job_raised():
  with pytest.raises(ZeroDivisionError), threads.Backlog() as backlog:
    backlog.submit(lambda: 1 // 0)
