"""Training, from a config to a trained workdir; the same call again resumes, bit for bit.

Read it top to bottom: config and keys, data, model and task, optimiser, state, restore, wrap, loop.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.serialization import from_state_dict, to_state_dict
from ml_collections import ConfigDict

from jaxseg import config as configs
from jaxseg.data import label_check, threads, watch
from jaxseg.data.loader import train_batches
from jaxseg.data.views import remember
from jaxseg.report import after_training
from jaxseg.report.figures import Figures
from jaxseg.train import build
from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.devices import hosts, parallel, spatial
from jaxseg.train.evaluator import make_evaluator
from jaxseg.train.initial import start_from
from jaxseg.train.loop import Run
from jaxseg.train.population import PopulationPass
from jaxseg.train.run_folder import Classes, Workdir
from jaxseg.train.state import State, make_init, parameter_count
from jaxseg.train.step import make_train_step
from jaxseg.train.writer import Progress, Writer, read_records
from jaxseg.types import UserError


def train(config: ConfigDict, workdir: str | Path, *, stop_at: int | None = None) -> dict[str, Any]:
  """Trains until config.num_steps, or resumes and goes on from the newest checkpoint.

  Args:
    config: complete and locked (jaxseg.config.load).
    workdir: gets config.json, metrics.jsonl, TensorBoard events, checkpoints/ and figures/; of several
      hosts (see jaxseg.train.devices.hosts) only the first reads and writes it.
    stop_at: save and return at this step, as a preemption would.

  Returns:
    The last evaluation's numbers, {} where the run stopped before it.

  Raises:
    UserError: anything that the user can mend.
  """
  build.set_up_jax(config)
  watched = watch.patient(config.data_timeout)
  with contextlib.ExitStack() as at_end, _memory_explained(config), watched:
    return _train(config, workdir, at_end, stop_at)


def _train(
  config: ConfigDict, workdir: str | Path, at_end: contextlib.ExitStack, stop_at: int | None
) -> dict[str, Any]:
  init_key, step_key = jax.random.split(jax.random.key(config.seed))

  with hosts.together() as same:  # what is wrong on one host ends all of them
    folder = Workdir(workdir, config) if hosts.first() else hosts.Silent()
    at_end.callback(folder.close)
    train_source = _source(config, config.train_split)
    eval_source = _source(config, config.eval_split)
    labels = label_check.check(train_source, eval_source, cache_dir=config.cache_dir or None)

    wrapper = parallel.build(config.parallel, config.mesh, config.batch_size // config.accumulate)
    model = build.model_from(config, wrapper.axis_name)
    task = build.task_from(config, train_source)
    transforms = build.transforms_from(config)

    tx, schedule = build.optimizer_from(config)
    input_shape = _input_shape(config, model, train_source, transforms)
    preprocess = build.preprocessing_from(config)
    options = dict(accumulate=config.accumulate)
    split = spatial.check(wrapper, model, task, preprocess, input_shape, **options)
    init = make_init(build.model_from(config), tx, input_shape)
    shapes = jax.eval_shape(init, init_key)

    checkpoints = begin = hosts.Silent()
    if hosts.first():
      checkpoints = Checkpoints(folder.path / 'checkpoints', keep=config.keep, metric=task.headline)
      at_end.callback(checkpoints.close)
      begin = _begin(config, checkpoints, init, init_key, shapes)
    evaluator = make_evaluator(config, eval_source, task)
    same['command'] = [stop_at, _shared_keys(config)]
    same['data'] = [len(train_source), len(eval_source), labels]

  with hosts.together():  # nothing is wrong anywhere: from here on the folder is this run's
    records = _records(config, task, folder, checkpoints, eval_source, begin)
    folder.keep_config()
    folder.keep_classes(Classes(train_source.class_names, train_source.palette))
    folder.keep_run(wrapper.describe())
  begin = hosts.broadcast(begin)  # the first host's state, so that nobody else needs the workdir
  start = begin['step']
  state = wrapper.place_state(from_state_dict(shapes, begin.pop('state')))  # no copy stays behind

  step = make_train_step(model, task, tx, preprocess, axis_name=wrapper.axis_name, **options)
  if hosts.count() > 1:
    step = hosts.make_voting_step(step, wrapper.axis_name)
  train_step = wrapper.wrap_train(step)
  batches = _batches(config, train_source, transforms, start)
  at_end.callback(batches.close)

  with Progress() if hosts.first() else hosts.Silent() as progress:
    for line in _header(config, folder.path, wrapper, shapes, train_source, eval_source):
      progress.say(line)
    for line in (
      f'labels    {"; ".join(labels)}',
      *split.splitlines(),
      *begin['origin'].splitlines(),
    ):
      progress.say(line)
    run = Run(
      config,
      checkpoints=checkpoints,
      evaluator=evaluator,
      headline=task.headline,
      progress=progress,
      schedule=schedule,
      source=train_source,
      population=_population_pass(config, shapes, train_source),
      **records,
    )
    last = config.num_steps if stop_at is None else min(stop_at, config.num_steps)
    summary = run.loop(train_step, wrapper, state, batches, step_key, start, last)
    if hosts.first():
      after_training(folder.path, progress)
    return summary


def _begin(
  config: ConfigDict, checkpoints: Checkpoints, init, key, shapes: State
) -> dict[str, Any]:
  """Returns the state to begin with as a dict, its step, and where it comes from in words."""
  state, restored = checkpoints.restore_newest(shapes)
  origin = f'resumed at step {restored}'
  if restored is None:
    state, origin = _first_state(config, init, key, shapes)
  return {'state': to_state_dict(state), 'step': restored or 0, 'origin': origin}


def _records(
  config: ConfigDict, task, folder: Workdir, checkpoints, source, begin: dict[str, Any]
) -> dict[str, Any]:
  """Returns what writes down the run: on the first host alone."""
  if not hosts.first():
    return {'writer': hosts.Silent(), 'figures': hosts.Silent()}
  score = f'eval/{task.headline}'
  writer = Writer(folder.path, begin['step'], wandb=config.wandb, config=config.to_dict())
  return {
    'window': checkpoints.window(begin['step']) if begin['step'] else [],
    'writer': writer,
    'figures': Figures(config, folder.path, source, writer),
    'best': max((r.get(score, 0.0) for r in read_records(folder.path)), default=0.0),
  }


def _shared_keys(config: ConfigDict) -> dict[str, Any]:
  """Returns the keys that every host must have alike: all but those about its own disk."""
  own = ('data_dir', 'cache_dir', 'compile_cache', 'num_threads', 'remember_mb', 'init_from')
  return {k: v for k, v in json.loads(configs.to_json(config)).items() if k not in own}


def _source(config: ConfigDict, split: str):
  return remember(build.source_from(config, split), config.remember_mb << 20)


def _first_state(config: ConfigDict, init, key, shapes: State) -> tuple[State, str]:
  """Returns the state of step 0 and the report on the weights that it starts from, '' without."""
  given, report = {}, ''
  if config.init_from:  # read before anything is compiled: most mistakes are found here
    given, report = start_from(config, shapes.variables)
  state = jax.jit(init)(key)
  return state.replace(**{k: _filled(v, state.variables[k]) for k, v in given.items()}), report


def _batches(config: ConfigDict, source, transforms, start: int):
  return train_batches(
    source,
    transforms,
    seed=config.seed,
    batch_size=config.batch_size,
    start_step=start,
    num_threads=config.num_threads,
    replacement=config.replacement,
    timeout=config.data_timeout,
    **hosts.share(),
  )


def _population_pass(config: ConfigDict, shapes: State, source) -> PopulationPass | None:
  wanted = config.population_pass and shapes.batch_stats
  return PopulationPass(config, source) if wanted else None


def _input_shape(config, model, source, transforms) -> tuple[int, ...]:
  """Returns [1, h, w, c] of a training image, and refuses a size that the network cannot take."""
  [example] = threads.examples(source, [0])
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
  yield f'devices   {wrapper.describe()} of {jax.device_count()}; batch {config.batch_size}{micro}'
  yield f'workdir   {workdir}'


def _filled(given: Any, fresh: Any) -> Any:
  """Returns a tree of given arrays, where it has only shapes of fresh ones."""
  is_shape = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)  # noqa: E731
  return jax.tree.map(lambda new, old: old if is_shape(new) else new, given, fresh)


@contextlib.contextmanager
def _memory_explained(config: ConfigDict) -> Iterator[None]:
  """Turns the compiler's or the device's want of memory into what the user can change."""
  try:
    yield
  except jax.errors.JaxRuntimeError as e:
    if 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    raise UserError(f'{_out_of_memory(config)} ({str(e).splitlines()[0][:120]})') from e


def _out_of_memory(config: ConfigDict) -> str:
  """Says which keys make the step smaller, from those that have not been used yet."""
  options = config.model_options
  ways = []
  if config.task != 'instance':  # whose losses do not add up over micro-batches
    ways.append(
      f'--config.accumulate={2 * config.accumulate} (same result, half the images at once)'
    )
  if not options.get('remat', False):
    ways.append('--config.model_options.remat=True (recompute instead of keeping)')
  if config.dtype == 'float32':
    ways.append('--config.dtype=bfloat16')
  ways.append('a smaller --config.crop')
  return f'the device has too little memory for this step: try {", ".join(ways)}'
