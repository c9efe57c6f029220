"""Training, from a config to a trained workdir; the same call again resumes, bit for bit.

Read `_train` top to bottom: run folder, data, network, initial state, step, journal, loop. A
`hosts.together()` block succeeds on every host or fails on every host.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.serialization import from_state_dict, to_state_dict

from jaxseg import config as configs
from jaxseg.console import Progress
from jaxseg.data import label_check, threads
from jaxseg.data.loader import train_batches
from jaxseg.data.views import Cached
from jaxseg.train import batch_shape, budget, build, machine, memory, run_data
from jaxseg.train.build import Experiment
from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.devices import hosts, parallel, spatial
from jaxseg.train.evaluator import Evaluator
from jaxseg.train.initial import start_from
from jaxseg.train.journal import Hook, Journal, NoJournal, RunView
from jaxseg.train.loop import Loop
from jaxseg.train.population import PopulationPass
from jaxseg.train.run_folder import Classes, RunFolder, load_classes
from jaxseg.train.state import State, make_init, parameter_count
from jaxseg.train.step import make_train_step
from jaxseg.train.times import Profile, Times
from jaxseg.train.writer import Writer, best_score, read_records


def train(
  config: Mapping[str, Any],
  workdir: str | Path,
  *,
  stop_at: int | None = None,
  profile: tuple[int, int] | None = None,
  hooks: Iterable[Hook] = (),
) -> dict[str, Any]:
  """Trains until config.num_steps, or resumes and goes on from the newest checkpoint.

  Args:
    config: from jaxseg.config.load.
    workdir: gets config.json, metrics.jsonl, TensorBoard events and checkpoints/; with several hosts
      (see train.devices.hosts) only the first reads and writes it.
    stop_at: save and return at this step; the same call without it goes on.
    profile: (first, last) step to trace into workdir/profile.
    hooks: called after evaluations and at the end, such as jaxseg.report.hooks().

  Returns:
    The last evaluation's scores, {} if the run stopped before the first.

  Raises:
    UserError: anything that the user can fix.
    KeyboardInterrupt: Ctrl-C during training; everything is saved by then.
  """
  with contextlib.ExitStack() as stack:
    times = stack.enter_context(Times())
    build.set_up_jax(configs.settings(configs.plain(config)))
    with hosts.together():
      experiment = build.experiment(config)
    stack.enter_context(memory.advise_on_out_of_memory(experiment))
    stack.enter_context(threads.time_limit(experiment.data.timeout))
    return _train(experiment, workdir, stack, times, stop_at, profile, hooks)


def _train(
  experiment: Experiment,
  workdir: str | Path,
  stack: contextlib.ExitStack,
  times: Times,
  stop_at: int | None,
  traced: tuple[int, int] | None,
  hooks: Iterable[Hook],
) -> dict[str, Any]:
  settings = experiment.settings
  init_key, step_key = jax.random.split(jax.random.key(settings.seed))
  with hosts.together() as agreed:  # an error on one host ends all of them
    folder = _open(workdir, experiment, stack)
    data = _load_data(experiment)
    micro_batch = settings.batch_size // settings.accumulate
    wrapper = parallel.build(settings.parallel, settings.mesh, micro_batch)
    model = experiment.model(wrapper.axis_name)
    task = experiment.task_for(data.train)
    shape = batch_shape.check(experiment, model, task, data.train)
    note = spatial.check(
      wrapper, model, task, experiment.preprocess, shape, accumulate=settings.accumulate
    )
    unmapped = experiment.model()  # init runs outside pmap, where there is no named axis
    init = make_init(unmapped, _optimizer(experiment), shape, average=experiment.optim.average)
    shapes = jax.eval_shape(init, init_key)
    checkpoints, initial = _restore_or_init(experiment, folder, data, init, init_key, shapes, stack)
    evaluator = Evaluator(dataclasses.replace(experiment, task=task), data.eval)
    profile = _profile(traced, folder, initial, _last(stop_at, settings), stack)
    agreed['command'] = [stop_at, traced, machine.shared(experiment.config)]
    agreed['data'] = [len(data.train), len(data.eval), data.labels, run_data.summary(data.digests)]

  initial = hosts.broadcast(initial)  # so that only the first host needs the workdir
  make_step = partial(_make_step, wrapper, model, task)
  train_step, population = make_step(experiment), _population_pass(experiment, data.train, shapes)
  if settings.max_minutes:
    rehearse = partial(_rehearse, experiment, data, shapes, wrapper, evaluator, population)
    steps = initial['num_steps'] or rehearse(initial, train_step, step_key, times)
    experiment = budget.with_steps(experiment, steps)
    train_step = train_step if steps == settings.num_steps else make_step(experiment)
  with hosts.together():  # all checks have passed: from here on the folder belongs to this run
    journal = _journal(experiment, folder, checkpoints, data, initial, times, hooks, stack)
    if folder:
      folder.config = experiment.config
      folder.write_facts(data.classes, wrapper.describe())
    machine.save(workdir, experiment.config)
  state = wrapper.place_state(from_state_dict(shapes, initial.pop('state')))  # keep no host copy
  batches = _batches(experiment, data.train, initial['step'])
  stack.callback(batches.close)

  for line in _header(experiment, folder, wrapper, shapes, data, note, initial['origin']):
    journal.say(line)
  last, best = _last(stop_at, experiment.settings), (initial['best'], initial['since_best'])
  scoring = (evaluator, experiment.schedule, data.train, population, best)
  loop = Loop(experiment, journal, times, profile, *scoring)
  summary = loop.run(train_step, wrapper, state, batches, step_key, initial['step'], last)
  journal.on_end(show=not loop.preempted)
  if loop.interrupted:
    raise hosts.Interrupted
  return summary


def _optimizer(experiment: Experiment) -> Any:
  return experiment.optim.make_optimizer(experiment.schedule)


def _last(stop_at: int | None, settings: configs.Settings) -> int:
  return settings.num_steps if stop_at is None else min(stop_at, settings.num_steps)


def _make_step(wrapper, model, task, experiment: Experiment) -> Callable:
  """Returns the wrapped step."""
  step = make_train_step(
    model,
    task,
    _optimizer(experiment),
    experiment.preprocess,
    axis_name=wrapper.axis_name,
    accumulate=experiment.settings.accumulate,
    average=experiment.optim.average,
  )
  if hosts.count() > 1:
    step = hosts.make_voting_step(step, wrapper.axis_name)
  return wrapper.wrap_train(step)


@dataclasses.dataclass(frozen=True)
class _Data:
  """The training and evaluation splits, and a summary of their labels in lines for the user."""

  train: Any
  eval: Any
  labels: list[str]

  @property
  def digests(self) -> run_data.Digests:
    return run_data.digests(self.train, self.eval)

  @property
  def classes(self) -> Classes:
    ids = getattr(self.train, 'category_ids', ())
    return Classes(self.train.class_names, self.train.palette, ids)


def _load_data(experiment: Experiment) -> _Data:
  limit = experiment.data.memory_mb << 20
  train, evaluation = (
    Cached(experiment.source(split), limit)
    for split in (experiment.data.train_split, experiment.settings.eval_split)
  )
  labels = label_check.check(train, evaluation, cache_dir=experiment.cache_dir)
  return _Data(train, evaluation, labels)


def _rehearse(
  experiment: Experiment,
  data: _Data,
  shapes: State,
  wrapper,
  evaluator: Evaluator,
  population: PopulationPass | None,
  initial: dict[str, Any],
  train_step: Callable,
  key,
  times: Times,
) -> int:
  """Returns how many steps fit the time budget, and appends that line to `initial['origin']`."""

  def score(variables) -> None:
    if population:
      population(variables)
    evaluator(variables)

  state = jax.tree.map(np.array, initial['state'])  # a copy: the steps donate their input
  state = wrapper.place_state(from_state_dict(shapes, state))
  with contextlib.closing(_batches(experiment, data.train, 0)) as batches:
    steps, budget_line = budget.measure_steps(
      experiment, times, train_step, wrapper, state, batches, key, score
    )
  initial['origin'] = '\n'.join(filter(None, (initial['origin'], budget_line)))
  return steps


def _open(
  workdir: str | Path, experiment: Experiment, stack: contextlib.ExitStack
) -> RunFolder | None:
  """Opens the run folder, on the first host only."""
  if not hosts.is_first():
    return None
  complete = lambda saved: build.experiment(machine.apply(workdir, saved)).config  # noqa: E731
  folder = RunFolder(workdir, budget.with_saved_steps(experiment, workdir).config, complete)
  stack.callback(folder.close)
  return folder


def _restore_or_init(
  experiment: Experiment,
  folder: RunFolder | None,
  data: _Data,
  init,
  key,
  shapes: State,
  stack: contextlib.ExitStack,
) -> tuple[Checkpoints | None, dict[str, Any] | None]:
  """Returns the checkpoints, and the initial state as a dict with its step, origin and best score."""
  if not folder:
    return None, None
  checkpoints = Checkpoints(
    folder.path / 'checkpoints', keep=experiment.log.keep, metric=experiment.task.headline
  )
  stack.callback(checkpoints.close)
  state, restored = checkpoints.restore_newest(shapes)
  origin = f'resumed at step {restored}'
  if restored and not experiment.data.changed:
    run_data.check(folder.path, data.digests)
    build.check_names(load_classes(folder.path).names, data.classes.names)
  if restored is None:
    state, origin = _first_state(experiment, init, key, shapes, data.classes.names)
  records = [r for r in read_records(folder.path) if r['step'] <= (restored or 0)]
  best, since_best = best_score(records, experiment.task.headline)
  initial = {'state': to_state_dict(state), 'step': restored or 0, 'origin': origin}
  return checkpoints, initial | {
    'num_steps': folder.config['num_steps'] if restored else 0,
    'best': best,
    'since_best': since_best,
  }


def _first_state(
  experiment: Experiment, init, key, shapes: State, names: Sequence[str]
) -> tuple[State, str]:
  """Returns the state of step 0, and the report on the pretrained weights."""
  # Before compiling anything: most user errors surface here.
  loaded, report = start_from(experiment, shapes.variables, names)
  state = jax.jit(init)(key)
  state = state.replace(**{k: _filled(v, state.variables[k]) for k, v in loaded.items()})
  trained = jax.tree.map(np.array, state.variables) if state.trained else {}
  return state.replace(trained=trained), report


def _filled(loaded: Any, fresh: Any) -> Any:
  """Returns the loaded tree with its shape-only leaves replaced by the fresh arrays."""
  is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
  return jax.tree.map(lambda new, old: old if is_shape(new) else new, loaded, fresh)


def _journal(
  experiment: Experiment,
  folder: RunFolder | None,
  checkpoints: Checkpoints | None,
  data: _Data,
  initial: dict[str, Any] | None,
  times: Times,
  hooks: Iterable[Hook],
  stack: contextlib.ExitStack,
) -> Journal | NoJournal:
  if not folder:
    return NoJournal()
  folder.begin()
  run_data.write(folder.path, data.digests)
  wandb, step = experiment.log.wandb, initial['step']
  writer = Writer(folder.path, step, wandb=wandb, config=dict(experiment.config))
  progress = stack.enter_context(Progress())
  run = RunView(experiment, folder.path, data.eval, data.classes, writer, progress)
  return Journal(run, checkpoints, times, hooks, step)


def _profile(
  traced: tuple[int, int] | None,
  folder: RunFolder | None,
  initial: dict[str, Any] | None,
  last: int,
  stack: contextlib.ExitStack,
) -> Profile:
  """Returns the profiler of the steps, which traces on the first host only."""
  if not folder:
    return Profile()
  todo = range(initial['step'] + 1, last + 1)
  return stack.enter_context(Profile(traced, folder.path / 'profile', todo))


def _population_pass(experiment: Experiment, source: Any, shapes: State) -> PopulationPass | None:
  wanted = experiment.eval.population_pass and shapes.batch_stats
  return PopulationPass(experiment, source) if wanted else None


def _batches(experiment: Experiment, source, start: int):
  settings, data = experiment.settings, experiment.data
  return train_batches(
    source,
    experiment.transforms,
    seed=settings.seed,
    batch_size=settings.batch_size,
    start_step=start,
    num_threads=data.num_threads,
    replacement=data.replacement,
    timeout=data.timeout,
    **hosts.share(),
  )


def _header(
  experiment: Experiment, folder, wrapper, shapes: State, data: _Data, note: str, origin: str
) -> Iterator[str]:
  settings, count = experiment.settings, parameter_count(shapes.params)
  yield from folder.notes if folder else ()
  yield f'model     {experiment.name}, {count:,} parameters, {settings.dtype}'
  splits = ((data.train, experiment.data.train_split), (data.eval, settings.eval_split))
  numbers = ', '.join(f'{len(source)} {split}' for source, split in splits)
  yield f'data      {experiment.data.name}: {numbers}'
  micro = f' in {settings.accumulate} micro-batches' if settings.accumulate > 1 else ''
  yield f'devices   {wrapper.describe()} of {jax.device_count()}; batch {settings.batch_size}{micro}'
  micro_batch, used = settings.batch_size // settings.accumulate, len(wrapper.devices)
  if idle := parallel.idle(micro_batch, used, jax.device_count()) if not settings.mesh else '':
    yield f'warning: {idle}'
  yield f'workdir   {folder.path if folder else ""}'
  yield f'labels    {"; ".join(data.labels)}'
  yield from (*note.splitlines(), *origin.splitlines())
