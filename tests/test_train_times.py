"""Where the time of a run goes: every second counts once; and which steps are traced."""

import argparse
import time
from pathlib import Path

import jax
import pytest

from jaxseg import console
from jaxseg.train import times as module
from jaxseg.train.times import PARTS, Profile, Times, describe, total
from jaxseg.types import UserError


class Clock:
  """In place of time.perf_counter: it goes only where it is told to."""

  def __init__(self, monkeypatch):
    self.now = 100.0
    monkeypatch.setattr(module.time, 'perf_counter', lambda: self.now)

  def sleep(self, seconds):
    self.now += seconds


def compiled(clock, seconds, event='backend_compile_duration'):
  """What JAX does when a program is made."""
  clock.sleep(seconds)
  jax.monitoring.record_event_duration_secs(f'/jax/core/compile/{event}', seconds)


def test_each_second_is_in_the_innermost_part_and_the_parts_add_up(monkeypatch):
  clock = Clock(monkeypatch)
  with Times() as times:
    clock.sleep(2)  # reading
    with times.part('steps'):
      clock.sleep(10)
      with times.part('waiting_for_data'):
        clock.sleep(3)
      with times.part('evaluation'):
        clock.sleep(5)
      clock.sleep(1)
    with times.part('saving'):
      clock.sleep(0.5)
    seconds = times.seconds()
  want = dict.fromkeys(PARTS, 0.0) | {'steps': 11, 'waiting_for_data': 3, 'evaluation': 5}
  assert seconds == want | {'saving': 0.5, 'other': 2, 'wall': 21.5}


def test_what_is_compiled_is_taken_from_the_part_that_it_happens_in(monkeypatch):
  clock = Clock(monkeypatch)
  with Times() as times:
    compiled(clock, 4)  # the first state's, before the loop
    with times.part('evaluation'):
      clock.sleep(1)
      compiled(clock, 6)
      clock.sleep(2)
    seconds = times.seconds()
  assert (seconds['compile'], seconds['evaluation'], seconds['other']) == (10, 3, 0)


def test_a_program_inside_another_counts_once(monkeypatch):
  """JAX tells of the inner one first, and of the outer one with the inner one's time in it."""
  clock = Clock(monkeypatch)
  with Times() as times, times.part('steps'):
    clock.sleep(1)
    compiled(clock, 2, 'jaxpr_trace_duration')
    clock.sleep(0.5)
    compiled(clock, 3, 'jaxpr_trace_duration')
    clock.sleep(1)
    jax.monitoring.record_event_duration_secs('/jax/core/compile/jaxpr_trace_duration', 7.0)
    jax.monitoring.record_event_duration_secs('/jax/checkpoint/write_duration', 3.0)
    seconds = times.seconds()
  assert (seconds['compile'], seconds['steps'], seconds['wall']) == (7, 0.5, 7.5)


def test_jax_tells_of_what_it_compiles():
  with Times() as times, times.part('steps'):
    jax.jit(lambda x: x * 3.25 + 1)(2.0).block_until_ready()
    time.sleep(0.2)
  seconds = times.seconds()
  assert seconds['compile'] > 0.001 and seconds['steps'] >= 0.2
  before = seconds['compile']
  jax.jit(lambda x: x * 4.25 + 1)(2.0)
  assert times.seconds()['compile'] == before  # it listens no more


def test_all_starts_of_a_run_together():
  one = {'wall': 60.0, 'steps': 45.0, 'compile': 12.0, 'other': 3.0}
  sessions = [{'seconds': one}, {'started': 'and killed before its first save'}, {'seconds': one}]
  found = total(sessions)
  assert (found['wall'], found['steps'], found['figures']) == (120.0, 90.0, 0.0)
  text = describe(found, 3)
  assert text.startswith('2m00s in 3 starts: steps 75%, compile 20%, other 5%, ')
  assert describe(one, 1).startswith('1m00s: steps 75%') and total([{}]) == {}


@pytest.mark.parametrize(
  ('steps', 'todo', 'says'),
  [
    ((5, 8), range(10, 21), '--profile=5:8: steps 10 to 20 are still to do'),
    ((18, 21), range(10, 21), 'steps 10 to 20'),
    ((1, 1), range(5, 5), 'no step is still to do'),
  ],
)
def test_steps_that_a_start_does_not_have(steps, todo, says, tmp_path):
  with pytest.raises(UserError, match=says):
    Profile(steps, tmp_path, todo)


def test_a_trace_of_some_steps(tmp_path, monkeypatch):
  told, jitted = [], jax.jit(lambda x: x + 1)
  for name in ('start_trace', 'stop_trace'):
    monkeypatch.setattr(jax.profiler, name, lambda *a, name=name: told.append((step, name)))
  with Profile((2, 3), tmp_path, range(1, 6)) as profile:
    for step in range(1, 6):
      with profile.step(step):
        result = jitted(step)
      line = profile.end(step, result)
      assert bool(line) == (step == 3)
  assert told == [(2, 'start_trace'), (3, 'stop_trace')]
  with Profile((2, 3), Path(tmp_path), range(1, 6)) as profile:  # a signal comes after the first
    step = 2
    with profile.step(step):
      pass
  assert told[2:] == [(2, 'start_trace'), (2, 'stop_trace')]


@pytest.mark.parametrize('text', ['', ':', 'x', '0:3', '5:4', '1:2:3', '-1:2', '²:3'])
def test_a_span_of_steps_that_is_none(text):
  assert console.step_range('4:6') == (4, 6) and console.step_range('5') == (5, 5)
  with pytest.raises(argparse.ArgumentTypeError, match='give '):
    console.step_range(text)
