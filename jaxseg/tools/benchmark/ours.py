"""Our side of the benchmark: a config's compiled training step and inference."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax

from jaxseg.tools.benchmark import stock
from jaxseg.tools.examples import make_batch, make_state
from jaxseg.train.build import Experiment
from jaxseg.train.build import experiment as build
from jaxseg.train.devices import parallel, spatial
from jaxseg.train.devices.compiled import compile_with
from jaxseg.train.state import make_init, parameter_count
from jaxseg.train.step import make_predict_step, make_train_step
from jaxseg.types import Array, Batch, UserError


def changed(
  experiment: Experiment, model: Mapping[str, Any] = MappingProxyType({}), **settings: Any
) -> Experiment:
  """Returns the experiment with other model options or top-level keys."""
  config = {**experiment.config, **settings}
  return build({**config, 'model': {**config['model'], **model}})


def _with_weights(task: Any) -> Any:
  """Replaces class weights that would be computed from labels by ones, which does not change the cost."""
  if not isinstance(getattr(task, 'class_weights', None), str):
    return task
  return dataclasses.replace(task, class_weights=(1.0,) * task.num_classes)


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled program.

  Attributes:
    call: runs it once and returns when it is done.
    compiled: JAX's executable.
    compile_seconds: tracing, lowering and compiling, without the persistent cache.
    devices: number of devices it runs on.
  """

  call: Callable[[], None]
  compiled: Any
  compile_seconds: float
  devices: int

  @property
  def bytes(self) -> dict[str, int]:
    """Memory per device by kind as reported by the compiler, before any is allocated.

    Outputs that reuse a donated argument are not counted.
    """
    memory = self.compiled.memory_analysis()
    return {
      'argument_bytes': memory.argument_size_in_bytes,
      'temporary_bytes': memory.temp_size_in_bytes,
      'output_bytes': memory.output_size_in_bytes - memory.alias_size_in_bytes,
    }


class Workload:
  """The parts of an experiment, for random images of one shape.

  Args:
    experiment: its `batch_size` is the number of images per step.
    size: (height, width) of the images.
    stock_layers: use Flax's and lax's layers instead of ours.
    devices: to compile for, which need not exist; default: those of this machine.

  Raises:
    UserError: a size that the network cannot take, or not split over these devices.
  """

  def __init__(
    self,
    experiment: Experiment,
    size: tuple[int, int],
    *,
    stock_layers: bool = False,
    devices: Sequence[jax.Device] | None = None,
  ):
    settings, optim = experiment.settings, experiment.optim
    self.experiment, self._stock = experiment, stock_layers
    self.shape = (settings.batch_size, *size, experiment.channels)
    micro = settings.batch_size // settings.accumulate
    self.wrapper = parallel.build(settings.parallel, settings.mesh, micro, devices)
    axis_name = self.wrapper.axis_name
    self.model, plain = experiment.model(axis_name), experiment.model()
    rule = self.model.size_rule
    if not all(map(rule.allows, size)):
      nearest = ','.join(str(rule.at_least(side)) for side in size)
      raise UserError(
        f'{experiment.config["model"]["name"]} cannot take {size[0]}x{size[1]}: the nearest is '
        f'--crop={nearest}'
      )
    if isinstance(self.wrapper, parallel.OnMesh) and self.wrapper.shards > 1:
      spatial.check_height(plain, (1, *self.shape[1:]), self.wrapper.shards)
    if stock_layers:
      self.model, plain = stock.with_stock_norm(self.model, axis_name), stock.with_stock_norm(plain)
    tx = optim.make_optimizer(experiment.schedule)
    init = make_init(plain, tx, (1, *self.shape[1:]))
    self._key, self._task = jax.random.key(settings.seed), _with_weights(experiment.task)
    self._step = make_train_step(
      self.model,
      self._task,
      tx,
      experiment.preprocess,
      axis_name=axis_name,
      accumulate=settings.accumulate,
    )
    with stock.layers(stock_layers):
      self._shapes = jax.eval_shape(init, self._key)
    self.batch = make_batch(experiment, self.shape)

  @property
  def parameters(self) -> int:
    return parameter_count(self._shapes.params)

  def train_program(self) -> Program:
    """The step: preprocessing, forward, backward, update."""
    compiled, seconds = self._compile(self.lower_train)

    @functools.cache  # allocate nothing before the first call
    def carry():
      (_, batch_sharding, _), _ = compiled.input_shardings
      state = self.wrapper.place_state(make_state(self._shapes))
      return [state, jax.device_put(self.wrapper.place_batch(self.batch), batch_sharding)]

    def call():
      carry()[0], metrics = compiled(*carry(), self._key)
      jax.block_until_ready((carry()[0], metrics))

    return Program(call, compiled, seconds, len(self.wrapper.devices))

  def infer_program(self) -> Program:
    """Logits (or detections) of one batch, with running statistics."""

    def infer(variables, batch):
      outputs = self._apply(variables, batch['image'])
      return outputs.get('logits', outputs)

    batch = self.wrapper.place_batch({'image': self.batch['image']})
    compiled, seconds = self._compile(lambda: self.lower_infer(infer))

    @functools.cache
    def placed():
      arguments = make_state(self._shapes.variables), batch
      return jax.device_put(arguments, compiled.input_shardings[0])

    def call():
      jax.block_until_ready(compiled(*placed()))

    return Program(call, compiled, seconds, len(self.wrapper.devices))

  def lower_train(self) -> jax.stages.Lowered:
    """The step, lowered from shapes alone."""
    step = self.wrapper.wrap_train(self._step)
    key = jax.ShapeDtypeStruct((), self._key.dtype)
    with stock.layers(self._stock):
      return step.lower(self._shapes, self._batch_shapes(self.batch), key)

  def lower_infer(self, step: Callable[[Any, Batch], Any]) -> jax.stages.Lowered:
    """step(variables, {'image': ...}) of the same images, lowered from shapes alone."""
    batch = self._batch_shapes({'image': self.batch['image']})
    with stock.layers(self._stock):
      return self.wrapper.map_predict(step).lower(self._shapes.variables, batch)

  def predict_step(self, *, maps: bool) -> Callable[[Any, Batch], Any]:
    """The step of evaluation, or with `maps` of prediction; see train.step.make_predict_step."""
    preprocess = self.experiment.preprocess
    return make_predict_step(self.model, self._task, preprocess, size=self.shape[1:3], maps=maps)

  def _batch_shapes(self, batch: Batch) -> Any:
    """Shapes of a placed batch over all hosts."""
    shapes = jax.eval_shape(lambda: batch)
    if isinstance(self.wrapper, parallel.Pmap):
      n = len(self.wrapper.devices)
      split = lambda a: jax.ShapeDtypeStruct((n, a.shape[0] // n, *a.shape[1:]), a.dtype)  # noqa: E731
    else:
      place = self.wrapper.batch_sharding
      split = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place(a))  # noqa: E731
    return jax.tree.map(split, shapes)

  def loop_step(self) -> tuple[Callable, Any, Array]:
    """Returns the training loop's step(state, placed batch, key), a state and a key."""
    state = self.wrapper.place_state(make_state(self._shapes))
    return self.wrapper.wrap_train(self._step), state, self._key

  def flops(self, *, train: bool) -> float:
    """Counts the step or the inference before optimisation; see the function `flops`."""
    if train:
      step, arguments = self._step, (self._shapes, self.batch, self._key)
    else:
      step, arguments = self._apply, (self._shapes.variables, self.batch['image'])
    with stock.layers(self._stock):
      costs = jax.jit(step).lower(*arguments).cost_analysis()
    return float((costs or {}).get('flops', 0.0))

  def _apply(self, variables: Any, image: Array) -> Any:
    return self.model.apply(variables, self.experiment.preprocess(image), train=False)

  def _compile(self, lower: Callable[[], jax.stages.Lowered]) -> tuple[Any, float]:
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update('jax_enable_compilation_cache', False)
    begin = time.perf_counter()
    try:
      compiled = compile_with(lower(), self.wrapper.options)
    finally:
      jax.config.update('jax_enable_compilation_cache', cached)
    return compiled, time.perf_counter() - begin


def flops(experiment: Experiment, size: tuple[int, int], *, train: bool) -> float:
  """FLOPs of one step or inference, all devices, as the compiler counts them.

  Counted with stock layers and before optimisation, because XLA counts a loop's body once regardless of
  the iterations, and an operation that it rewrites by its replacement.
  """
  one = changed(experiment, accumulate=1, parallel='mesh', mesh='data:1')
  return Workload(one, size, stock_layers=True).flops(train=train)
