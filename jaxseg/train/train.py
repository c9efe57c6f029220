"""Training, from a config to a trained workdir; the same call again resumes, bit for bit.

Read `_train` top to bottom: data, network and step, run folder and first state, journal, loop. What
is inside `hosts.together()` ends well on every host or on none.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from jaxseg.data.views import Remembered
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
    config: of jaxseg.config.load.
    workdir: gets config.json, metrics.jsonl, TensorBoard events and checkpoints/; of several hosts
      (see train.devices.hosts) only the first reads and writes it.
    stop_at: save and return at this step, as a preemption would.
    profile: (first, last) of the steps that are traced into workdir/profile.
    hooks: show evaluations and the end, such as jaxseg.report.hooks().

  Returns:
    The last evaluation's numbers, {} where the run stopped before it.

  Raises:
    UserError: anything that the user can mend.
    KeyboardInterrupt: Ctrl-C while steps were done, when everything is saved.
  """
  with contextlib.ExitStack() as at_end:
    times = at_end.enter_context(Times())
    build.set_up_jax(configs.settings(configs.plain(config)))
    with hosts.together():
      experiment = build.experiment(config)
    at_end.enter_context(memory.explained(experiment))
    at_end.enter_context(threads.time_limit(experiment.data.timeout))
    return _train(experiment, workdir, at_end, times, stop_at, profile, hooks)


def _train(
  experiment: Experiment,
  workdir: str | Path,
  at_end: contextlib.ExitStack,
  times: Times,
  stop_at: int | None,
  traced: tuple[int, int] | None,
  hooks: Iterable[Hook],
) -> dict[str, Any]:
  settings = experiment.settings
  init_key, step_key = jax.random.split(jax.random.key(settings.seed))
  with hosts.together() as agreed:  # what is wrong on one host ends all of them
    folder = _open(workdir, experiment, at_end)
    data = _load_data(experiment)
    micro_batch = settings.batch_size // settings.accumulate
    wrapper = parallel.build(settings.parallel, settings.mesh, micro_batch)
    model = experiment.model(wrapper.axis_name)
    task = experiment.task_for(data.train)
    shape = batch_shape.check(experiment, model, task, data.train)
    note = spatial.check(
      wrapper, model, task, experiment.preprocess, shape, accumulate=settings.accumulate
    )
    unmapped = experiment.model()  # init runs outside of pmap, where no axis has a name
    init = make_init(unmapped, _optimizer(experiment), shape, average=experiment.optim.average)
    shapes = jax.eval_shape(init, init_key)
    checkpoints, first = _restore_or_init(experiment, folder, data, init, init_key, shapes, at_end)
    evaluator = Evaluator(dataclasses.replace(experiment, task=task), data.eval)
    profile = _profile(traced, folder, first, _last(stop_at, settings), at_end)
    agreed['command'] = [stop_at, traced, machine.shared(experiment.config)]
    agreed['data'] = [len(data.train), len(data.eval), data.labels, run_data.summary(data.held)]

  first = hosts.broadcast(first)  # the first host's state, so that nobody else needs the workdir
  make_step = partial(_make_step, wrapper, model, task)
  train_step, population = make_step(experiment), _population_pass(experiment, data.train, shapes)
  if settings.max_minutes:
    rehearse = partial(_rehearse, experiment, data, shapes, wrapper, evaluator, population)
    steps = first['num_steps'] or rehearse(first, train_step, step_key, times)
    experiment = budget.of_steps(experiment, steps)
    train_step = train_step if steps == settings.num_steps else make_step(experiment)
  with hosts.together():  # nothing is wrong anywhere: from here on the folder is this run's
    journal = _journal(experiment, folder, checkpoints, data, first, times, hooks, at_end)
    if folder:
      folder.config = experiment.config
      folder.write_facts(data.classes, wrapper.describe())
    machine.remember(workdir, experiment.config)
  state = wrapper.place_state(from_state_dict(shapes, first.pop('state')))  # no copy stays behind
  batches = _batches(experiment, data.train, first['step'])
  at_end.callback(batches.close)

  for line in _header(experiment, folder, wrapper, shapes, data, note, first['origin']):
    journal.say(line)
  last, best = _last(stop_at, experiment.settings), (first['best'], first['since_best'])
  scoring = (evaluator, experiment.schedule, data.train, population, best)
  loop = Loop(experiment, journal, times, profile, *scoring)
  summary = loop.run(train_step, wrapper, state, batches, step_key, first['step'], last)
  journal.ended(show=not loop.preempted)
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
  """Both splits of a run, and what their labels hold, in lines for the user."""

  train: Any
  eval: Any
  labels: list[str]

  @property
  def held(self) -> run_data.Digests:
    return run_data.digests(self.train, self.eval)

  @property
  def classes(self) -> Classes:
    ids = getattr(self.train, 'category_ids', ())
    return Classes(self.train.class_names, self.train.palette, ids)


def _load_data(experiment: Experiment) -> _Data:
  limit = experiment.data.memory_mb << 20
  train, evaluation = (
    Remembered(experiment.source(split), limit)
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
  first: dict[str, Any],
  train_step: Callable,
  key,
  times: Times,
) -> int:
  """Returns how many steps end in time, and adds that in words to what is told of the beginning."""

  def score(variables) -> None:
    if population:
      population(variables)
    evaluator(variables)

  state = jax.tree.map(np.array, first['state'])  # the steps take its memory
  state = wrapper.place_state(from_state_dict(shapes, state))
  with contextlib.closing(_batches(experiment, data.train, 0)) as batches:
    steps, told = budget.rehearse(
      experiment, times, train_step, wrapper, state, batches, key, score
    )
  first['origin'] = '\n'.join(filter(None, (first['origin'], told)))
  return steps


def _open(
  workdir: str | Path, experiment: Experiment, at_end: contextlib.ExitStack
) -> RunFolder | None:
  """Opens the run folder, on the first host alone."""
  if not hosts.is_first():
    return None
  complete = lambda saved: build.experiment(machine.adopted(workdir, saved)).config  # noqa: E731
  folder = RunFolder(workdir, budget.kept(experiment, workdir).config, complete)
  at_end.callback(folder.close)
  return folder


def _restore_or_init(
  experiment: Experiment,
  folder: RunFolder | None,
  data: _Data,
  init,
  key,
  shapes: State,
  at_end: contextlib.ExitStack,
) -> tuple[Checkpoints | None, dict[str, Any] | None]:
  """Returns the checkpoints and the state to begin with: as a dict, its step, and its origin in words."""
  if not folder:
    return None, None
  checkpoints = Checkpoints(
    folder.path / 'checkpoints', keep=experiment.log.keep, metric=experiment.task.headline
  )
  at_end.callback(checkpoints.close)
  state, restored = checkpoints.restore_newest(shapes)
  origin = f'resumed at step {restored}'
  if restored and not experiment.data.changed:
    run_data.check(folder.path, data.held)
    build.check_names(load_classes(folder.path).names, data.classes.names)
  if restored is None:
    state, origin = _first_state(experiment, init, key, shapes)
  records = [r for r in read_records(folder.path) if r['step'] <= (restored or 0)]
  best, since_best = best_score(records, experiment.task.headline)
  first = {'state': to_state_dict(state), 'step': restored or 0, 'origin': origin}
  return checkpoints, first | {
    'num_steps': folder.config['num_steps'] if restored else 0,
    'best': best,
    'since_best': since_best,
  }


def _first_state(experiment: Experiment, init, key, shapes: State) -> tuple[State, str]:
  """Returns the state of step 0 and the report on the weights that it starts from, '' without."""
  given, report = {}, ''
  if experiment.settings.init_from:  # read before anything is compiled: most mistakes show here
    given, report = start_from(experiment, shapes.variables)
  state = jax.jit(init)(key)
  state = state.replace(**{k: _filled(v, state.variables[k]) for k, v in given.items()})
  trained = jax.tree.map(np.array, state.variables) if state.trained else {}
  return state.replace(trained=trained), report


def _filled(given: Any, fresh: Any) -> Any:
  """Returns a tree of given arrays, where it has only shapes of fresh ones."""
  is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
  return jax.tree.map(lambda new, old: old if is_shape(new) else new, given, fresh)


def _journal(
  experiment: Experiment,
  folder: RunFolder | None,
  checkpoints: Checkpoints | None,
  data: _Data,
  first: dict[str, Any] | None,
  times: Times,
  hooks: Iterable[Hook],
  at_end: contextlib.ExitStack,
) -> Journal | NoJournal:
  if not folder:
    return NoJournal()
  run_data.write(folder.path, data.held)
  wandb, step = experiment.log.wandb, first['step']
  writer = Writer(folder.path, step, wandb=wandb, config=dict(experiment.config))
  progress = at_end.enter_context(Progress())
  run = RunView(experiment, folder.path, data.eval, data.classes, writer, progress)
  return Journal(run, checkpoints, times, hooks, step)


def _profile(
  traced: tuple[int, int] | None,
  folder: RunFolder | None,
  first: dict[str, Any] | None,
  last: int,
  at_end: contextlib.ExitStack,
) -> Profile:
  """Returns what traces the steps, on the first host alone."""
  if not folder:
    return Profile()
  todo = range(first['step'] + 1, last + 1)
  return at_end.enter_context(Profile(traced, folder.path / 'profile', todo))


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
