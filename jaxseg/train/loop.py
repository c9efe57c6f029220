"""Training, from a config to a trained workdir; the same call again resumes, bit for bit.

Read it top to bottom: config and keys, data, model and task, optimiser, state, restore, wrap, loop.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxseg import experiment, visualize
from jaxseg.datasets import labelscan
from jaxseg.inference import Predictor
from jaxseg.pipeline.loader import train_batches
from jaxseg.pipeline.memory import remember
from jaxseg.report import after_training
from jaxseg.train import parallel
from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.evaluate import Evaluator
from jaxseg.train.initial import start_from
from jaxseg.train.population import PopulationPass
from jaxseg.train.state import make_init, parameter_count
from jaxseg.train.step import make_train_step
from jaxseg.train.workdir import Classes, Workdir
from jaxseg.train.writer import Progress, Writer, duration, read_records
from jaxseg.types import UserError


def train(config: ConfigDict, workdir: str | Path, *, stop_at: int | None = None) -> dict[str, Any]:
  """Trains until config.num_steps, or resumes and goes on from the newest checkpoint.

  Args:
    config: complete and locked (jaxseg.config.load).
    workdir: gets config.json, metrics.jsonl, TensorBoard events, checkpoints/ and figures/.
    stop_at: save and return at this step, as a preemption would.

  Returns:
    The last evaluation's numbers, {} where the run stopped before it.

  Raises:
    UserError: anything that the user can mend.
  """
  at_end = contextlib.ExitStack()
  folder = Workdir(workdir, config)
  at_end.callback(folder.close)
  try:
    return _train(config, folder, at_end, stop_at)
  except jax.errors.JaxRuntimeError as e:
    if 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    raise UserError(f'{_out_of_memory(config)} ({str(e).splitlines()[0][:120]})') from e
  finally:
    at_end.close()


def _train(
  config: ConfigDict, folder: Workdir, at_end: contextlib.ExitStack, stop_at: int | None
) -> dict[str, Any]:
  experiment.set_up_jax(config)
  workdir = folder.path
  init_key, step_key = jax.random.split(jax.random.key(config.seed))

  train_source = remember(
    experiment.source_from(config, config.train_split), config.remember_mb << 20
  )
  eval_source = remember(
    experiment.source_from(config, config.eval_split), config.remember_mb << 20
  )
  labels = labelscan.check(train_source, eval_source, cache_dir=config.cache_dir or None)
  folder.keep_classes(Classes(train_source.class_names, train_source.palette))

  wrapper = parallel.build(config.parallel, config.mesh, config.batch_size // config.accumulate)
  folder.keep_run(wrapper.describe())
  model = experiment.model_from(config, wrapper.axis_name)
  task = experiment.task_from(config, train_source)
  preprocess = experiment.preprocessing_from(config)
  transforms = experiment.transforms_from(config)

  tx, schedule = experiment.optimizer_from(config)
  init = make_init(
    experiment.model_from(config), tx, _input_shape(config, model, train_source, transforms)
  )
  shapes = jax.eval_shape(init, init_key)

  checkpoints = Checkpoints(workdir / 'checkpoints', keep=config.keep)
  at_end.callback(checkpoints.close)
  state, restored = checkpoints.restore_newest(shapes)
  report = ''
  if restored is None:
    given = {}
    if config.init_from:  # read before anything is compiled: most mistakes are found here
      given, report = start_from(config, shapes.variables)
    state = jax.jit(init)(init_key)
    state = state.replace(**{k: _filled(v, state.variables[k]) for k, v in given.items()})
    state = wrapper.place_state(state)
  start = restored or 0

  step = make_train_step(
    model, task, tx, preprocess, axis_name=wrapper.axis_name, accumulate=config.accumulate
  )
  train_step = wrapper.wrap_train(step)
  evaluator = Evaluator(config, eval_source, task)
  batches = train_batches(
    train_source,
    transforms,
    seed=config.seed,
    batch_size=config.batch_size,
    start_step=start,
    num_threads=config.num_threads,
    replacement=config.replacement,
  )

  with Progress() as progress:
    for line in _header(config, workdir, wrapper, shapes, train_source, eval_source):
      progress.say(line)
    progress.say(f'labels    {"; ".join(labels)}')
    for line in report.splitlines():
      progress.say(line)
    if restored is not None:
      progress.say(f'resumed at step {restored}')
    run = _Run(config, workdir, checkpoints, evaluator, eval_source, progress, schedule, start)
    if config.population_pass and shapes.batch_stats:
      run.population = PopulationPass(config, train_source)
    summary = run.loop(train_step, wrapper, state, batches, step_key, stop_at)
    after_training(workdir, progress)
    return summary


class _Run:
  """One run's loop and its records."""

  def __init__(
    self, config, workdir, checkpoints, evaluator, eval_source, progress, schedule, start
  ):
    self._config, self._workdir = config, workdir
    self._checkpoints, self._evaluator, self._source = checkpoints, evaluator, eval_source
    self._classes = Classes(eval_source.class_names, eval_source.palette)
    self._progress, self._schedule, self._start = progress, schedule, start
    self._writer = Writer(workdir, start, wandb=config.wandb, config=config.to_dict())
    self._best = max((r.get('eval/mean_iou', 0.0) for r in read_records(workdir)), default=0.0)
    self._summary: dict[str, Any] = {}
    self._window: list[dict[str, float]] = []
    self.population: PopulationPass | None = None

  def loop(self, train_step, wrapper, state, batches, key, stop_at) -> dict[str, Any]:
    config = self._config
    last = config.num_steps if stop_at is None else min(stop_at, config.num_steps)
    state = wrapper.place_state(state)
    batches, pending = iter(batches), None
    clock = _Clock(batches)
    with _Interruptible() as interrupted:
      for step in range(self._start, last):
        batch = dict(next(batches))
        index = batch.pop('index')
        state, metrics = train_step(state, wrapper.place_batch(batch), key)
        if pending:  # one step behind, so that the device never waits for the host
          self._check(*pending)
        pending = (step + 1, metrics, index)
        done = step + 1
        if done % config.log_every == 0 or done == last:
          self._check(*pending)
          pending = None
          self._log(done, last, clock)
        if done % config.eval_every == 0 or done % config.checkpoint_every == 0 or done == last:
          if pending:
            self._check(*pending)
            pending = None
          self._keep(
            done, state, evaluated=done % config.eval_every == 0 or done == config.num_steps
          )
          clock.pause()
        if interrupted.by:
          if pending:
            self._check(*pending)
          self._keep(done, state, evaluated=False, hurried=True)
          last = done
          break
    self._checkpoints.wait()
    self._checkpoints.close()
    self._writer.close()
    if last < config.num_steps:
      self._progress.say(f'stopped and saved at step {last}; the same command resumes from there')
    return self._summary

  def _check(self, step: int, metrics: dict[str, Any], index: np.ndarray) -> None:
    """Stops at a loss that is not finite and at labels that are no class, naming the files."""
    values = {k: float(v) for k, v in jax.device_get(metrics).items()}
    if values['invalid']:
      raise UserError(
        f'step {step}: {int(values["invalid"])} pixels carry labels outside the '
        f'{self._config.num_classes} classes, in one of {index.tolist()} of {self._config.dataset}'
      )
    if not values['finite']:
      self._checkpoints.wait()
      raise UserError(
        f'step {step}: loss {values["loss"]:g}, gradient norm {values["grad_norm"]:g}, on the images '
        f'{_names(self._config, index)}; the last good checkpoint is kept: lower config.learning_rate, '
        'set config.clip_norm, or look at these images'
      )
    self._window.append(values)

  def _log(self, step: int, last: int, clock: _Clock) -> None:
    mean = {k: float(np.mean([m[k] for m in self._window])) for k in self._window[0]}
    self._window = []
    seconds, waiting = clock.lap()
    steps = min(self._config.log_every, step - self._start)
    rate = steps * self._config.batch_size / seconds
    lr = float(self._schedule(step - 1))
    scalars = {f'train/{k}': v for k, v in mean.items() if k not in ('finite', 'invalid')}
    self._writer.write(
      step,
      {
        **scalars,
        'train/learning_rate': lr,
        'time/images_per_second': rate,
        'time/waiting_for_data': waiting,
      },
    )
    parts = [
      f'step {step}/{self._config.num_steps}',
      f'loss {mean["loss"]:.4g}',
      f'lr {lr:.3g}',
      f'{rate:.3g} img/s',
      f'waiting for data {waiting:.0%}',
    ]
    if self._summary:
      parts.append(f'mIoU {self._summary["mean_iou"]:.3f} (best {self._best:.3f})')
    parts.append(f'ETA {duration((last - step) * seconds / steps)}')
    self._progress.show(' . '.join(parts))

  def _keep(self, step: int, state: Any, *, evaluated: bool, hurried: bool = False) -> None:
    """Evaluates if it is time, draws, and saves; `hurried` where a signal wants the process gone."""
    if self.population and not hurried:
      state = state.replace(batch_stats=self.population(jax.device_get(state.variables)))
    if evaluated:
      variables = jax.device_get(state.variables)
      self._summary = self._evaluator(variables)
      self._best = max(self._best, self._summary['mean_iou'])
      scalars = {k: v for k, v in self._summary.items() if isinstance(v, float)}
      self._writer.write(step, {f'eval/{k}': v for k, v in scalars.items()})
      self._draw(step, variables)
      self._progress.say(
        f'evaluated {self._config.eval_split} at step {step}: '
        + ' . '.join(f'{k.replace("_", " ")} {v:.4f}' for k, v in scalars.items())
      )
    self._checkpoints.save(step, state, self._summary if evaluated else None)

  def _draw(self, step: int, variables: Any) -> None:
    """Renews figures/: predictions on the same few validation images, and the curves so far."""
    predictor = Predictor(self._config, variables, self._classes)
    rows = []
    count = min(self._config.figures, len(self._source))
    for i in np.linspace(
      0, len(self._source) - 1, count, dtype=int
    ):  # apart: neighbours look alike
      example = self._source[int(i)]
      rows.append((example['image'], example['label'], predictor(example['image'])))
    folder = self._workdir / 'figures'
    folder.mkdir(exist_ok=True)
    if rows:
      picture = visualize.panel(rows, self._classes.palette, self._classes.names)
      visualize.save(folder / 'predictions.png', picture)
      self._writer.picture(step, 'predictions', picture)
    visualize.save_curves(folder / 'curves.png', read_records(self._workdir))
    iou = self._summary['per_class_iou']
    visualize.save_class_bars(
      folder / 'classes.png', iou, self._classes.names, title=f'IoU at step {step}'
    )


class _Clock:
  """Wall seconds since the last lap, and the share of them spent waiting for data."""

  def __init__(self, batches):
    self._batches = batches
    self._time, self._waited, self._paused = time.perf_counter(), batches.waited_seconds, 0.0
    self._checked = self._time

  def lap(self) -> tuple[float, float]:
    now, waited = time.perf_counter(), self._batches.waited_seconds
    seconds = max(now - self._time, 1e-9)
    share = (waited - self._waited) / seconds
    self._time, self._waited = now, waited
    return seconds, share

  def pause(self) -> None:
    """Leaves out what was just done (an evaluation, a save)."""
    self._time, self._waited = time.perf_counter(), self._batches.waited_seconds


class _Interruptible:
  """Turns Ctrl-C and SIGTERM into a flag that the loop reads between two steps."""

  def __enter__(self) -> _Interruptible:
    self.by = None
    self._previous = {}
    for number in (signal.SIGINT, signal.SIGTERM):
      try:
        self._previous[number] = signal.signal(number, self._note)
      except ValueError:  # not the main thread: whoever runs us has its own way to stop
        pass
    return self

  def _note(self, number, frame):
    self.by = signal.Signals(number).name

  def __exit__(self, *_) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)


def _input_shape(config, model, source, transforms) -> tuple[int, ...]:
  """Returns [1, h, w, c] of a training image, and refuses a size that the network cannot take."""
  example = source[0]
  rng = np.random.default_rng(0)
  for transform in transforms:
    example = transform(example, rng)
  height, width, channels = example['image'].shape
  rule = model.size_rule
  for name, size in (('height', height), ('width', width)):
    if not rule.allows(size):
      above = rule.at_least(size)
      below = above - rule.multiple
      near = f'{below} or {above}' if below >= rule.minimum else f'{above}'
      raise UserError(
        f'training images have {name} {size}, which {config.model} cannot take; the nearest it can: {near}: '
        'set --config.crop=HEIGHT,WIDTH'
      )
  return (1, height, width, channels)


def _header(config, workdir, wrapper, shapes, train_source, eval_source) -> Iterator[str]:
  options = ', '.join(f'{k}={v}' for k, v in config.model_options.items())
  yield f'model     {config.model}({options}), {parameter_count(shapes.params):,} parameters, {config.dtype}'
  yield f'data      {config.dataset}: {len(train_source)} {config.train_split}, {len(eval_source)} {config.eval_split}'
  micro = f' in {config.accumulate} micro-batches' if config.accumulate > 1 else ''
  yield f'devices   {wrapper.describe()} of {jax.local_device_count()}; batch {config.batch_size}{micro}'
  yield f'workdir   {workdir}'


def _filled(given: Any, fresh: Any) -> Any:
  """Returns a tree of given arrays, where it has only shapes of fresh ones."""
  is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
  return jax.tree.map(lambda new, old: old if is_shape(new) else new, given, fresh)


def _out_of_memory(config: ConfigDict) -> str:
  """Says which keys make the step smaller, from those that have not been used yet."""
  options = config.model_options
  ways = [f'--config.accumulate={2 * config.accumulate} (same result, half the images at once)']
  if not options.get('remat', False):
    ways.append('--config.model_options.remat=True (recompute instead of keeping)')
  if config.dtype == 'float32':
    ways.append('--config.dtype=bfloat16')
  ways.append('a smaller --config.crop')
  return f'the device has too little memory for this step: try {", ".join(ways)}'


def _names(config: ConfigDict, index: np.ndarray) -> str:
  source = experiment.source_from(config, config.train_split)
  return ', '.join(str(source[int(i)]['file_name']) for i in index)
