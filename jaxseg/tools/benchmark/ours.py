"""Our side of the benchmark: a config's training step and its inference, compiled and ready."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxseg.data.objects import Instances
from jaxseg.tools.benchmark import stock
from jaxseg.train import build
from jaxseg.train.devices import parallel
from jaxseg.train.state import make_init, parameter_count
from jaxseg.train.step import make_train_step
from jaxseg.types import Array, Batch, UserError

_SQUARE = 32  # side of the objects that detectors are timed on, in pixels


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled program.

  Attributes:
    call: runs it once and returns when it is done.
    compile_seconds: tracing, lowering and compiling, without the persistent cache.
    argument_bytes, temporary_bytes, output_bytes: of one device, by the compiler's own account,
      known before anything is allocated. Outputs that reuse a donated argument are not counted.
    devices: number of devices that it runs on.
    text: returns the compiled program as text.
  """

  call: Callable[[], Any]
  compile_seconds: float
  argument_bytes: int
  temporary_bytes: int
  output_bytes: int
  devices: int
  text: Callable[[], str]

  @property
  def needed_bytes(self) -> int:
    return self.argument_bytes + self.temporary_bytes + self.output_bytes


class Network:
  """The parts that a config names, for random images of one shape.

  Args:
    config: complete (jaxseg.config.load); `batch_size` images a step.
    size: (height, width) of the images.
    stock_layers: Flax's and lax's own layers in place of ours.
  """

  def __init__(self, config: ConfigDict, size: tuple[int, int], *, stock_layers: bool = False):
    self.config, self._stock = config, stock_layers
    self.shape = (config.batch_size, *size, config.channels)
    micro = config.batch_size // config.accumulate
    self.wrapper = parallel.build(config.parallel, config.mesh, micro)
    axis_name = self.wrapper.axis_name
    self.model = build.model_from(config, axis_name)
    rule = self.model.size_rule
    for side in size:
      if not rule.allows(side):
        raise UserError(
          f'{config.model} cannot take {size[0]}x{size[1]}: the nearest is --crop='
          + ','.join(str(rule.at_least(n)) for n in size)
        )
    plain = build.model_from(config)
    if stock_layers:
      self.model, plain = stock.with_stock_norm(self.model, axis_name), stock.with_stock_norm(plain)
    self._preprocess = build.preprocessing_from(config)
    task = build.task_from(config)
    tx, _ = build.optimizer_from(config)
    self._init = make_init(plain, tx, (1, *self.shape[1:]))
    self._key = jax.random.key(config.seed)
    self._step = make_train_step(
      self.model, task, tx, self._preprocess, axis_name=axis_name, accumulate=config.accumulate
    )
    with stock.layers(stock_layers):
      self._shapes = jax.eval_shape(self._init, self._key)

  @property
  def parameters(self) -> int:
    return parameter_count(self._shapes.params)

  def batch(self) -> Batch:
    """Returns random images uint8 [b,h,w,c] and labels [b,h,w], and weights or objects where asked for."""
    random = np.random.default_rng(0)
    label = random.integers(0, self.config.num_classes, self.shape[:3], dtype=np.uint8)
    batch = {'image': random.integers(0, 256, self.shape, dtype=np.uint8), 'label': label}
    if self.config.pixel_weights:
      batch['weight'] = np.ones(self.shape[:3], np.float32)
    if self.config.task == 'instance':
      batch |= {k: np.stack([v] * len(label)) for k, v in self._objects().items()}
    return batch

  def _objects(self) -> Batch:
    """A grid of squares as objects of class 1, in the form that the step takes."""
    config, (height, width) = self.config, self.shape[1:3]
    rows, columns = np.arange(height) // _SQUARE, np.arange(width) // _SQUARE
    ids = 1 + rows[:, None] * (columns[-1] + 1) + columns
    ids = np.where(ids <= config.max_instances, ids, 0).astype(np.uint16)
    make = Instances(config.max_instances, config.max_layers, config.min_area)
    example = {'instances': ids, 'instance_classes': np.ones(int(ids.max()), np.uint8)}
    made = make(example, np.random.default_rng(0))
    return {key: made[key] for key in Instances.makes}

  def train_program(self) -> Program:
    """The whole step: images to the network's range, forward, backward, update."""
    wrapped = self.wrapper.wrap_train(self._step)
    state = self._state
    arguments = (self._shapes, self.wrapper.place_batch(self.batch()), self._key)
    compiled, seconds = self._compile(wrapped, arguments)

    def ready():
      (_, batch_sharding, _), _ = compiled.input_shardings
      box = [self.wrapper.place_state(state()), jax.device_put(arguments[1], batch_sharding)]

      def call():
        box[0], metrics = compiled(box[0], box[1], self._key)
        jax.block_until_ready((box[0], metrics))

      return call

    return _program(compiled, seconds, ready, len(self.wrapper.devices))

  def infer_program(self) -> Program:
    """Logits (or detections) of one batch, with population statistics."""

    def infer(variables: Any, batch: Batch) -> Any:
      outputs = self.model.apply(variables, self._preprocess(batch['image']), train=False)
      return outputs.get('logits', outputs)

    if isinstance(self.wrapper, parallel.Pmap):
      wrapped = jax.pmap(infer, 'data', in_axes=(None, 0), devices=self.wrapper.devices)
    else:
      wrapped = jax.jit(infer)
    batch = self.wrapper.place_batch({'image': self.batch()['image']})
    compiled, seconds = self._compile(wrapped, (self._shapes.variables, batch))

    def ready():
      placed = jax.device_put(
        (jax.device_get(self._state().variables), batch), compiled.input_shardings[0]
      )
      return lambda: jax.block_until_ready(compiled(*placed))

    return _program(compiled, seconds, ready, len(self.wrapper.devices))

  def loop_step(self) -> tuple[Callable, Any, Array]:
    """The step as the training loop calls it: step(state, placed batch, key), the state, the key."""
    return self.wrapper.wrap_train(self._step), self.wrapper.place_state(self._state()), self._key

  def _state(self):
    with stock.layers(self._stock):
      return jax.jit(self._init)(self._key)

  def _compile(self, wrapped, arguments):
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update('jax_enable_compilation_cache', False)
    begin = time.perf_counter()
    try:
      with stock.layers(self._stock):
        compiled = wrapped.lower(*arguments).compile()
    finally:
      jax.config.update('jax_enable_compilation_cache', cached)
    return compiled, time.perf_counter() - begin


def _program(compiled, seconds, ready, devices) -> Program:
  memory = compiled.memory_analysis()
  calls = []

  def call():
    if not calls:  # nothing is allocated before the first call
      calls.append(ready())
    calls[0]()

  return Program(
    call,
    seconds,
    memory.argument_size_in_bytes,
    memory.temp_size_in_bytes,
    memory.output_size_in_bytes - memory.alias_size_in_bytes,
    devices,
    compiled.as_text,
  )


def flops(config: ConfigDict, size: tuple[int, int], *, train: bool) -> float:
  """FLOPs of one step or inference, all devices, as the compiler counts them.

  Counted on the program with stock layers and before optimisation: XLA counts a loop's body once
  whatever the number of rounds, and a rewritten operation by what it rewrote it to.
  """
  config = config.copy_and_resolve_references()
  config.accumulate, config.parallel, config.mesh = 1, 'mesh', 'data:1'
  network = Network(config, size, stock_layers=True)
  with stock.layers():
    if train:
      arguments = (network._shapes, network.batch(), network._key)
      lowered = jax.jit(network._step).lower(*arguments)
    else:
      image = network._preprocess(network.batch()['image'])
      lowered = jax.jit(lambda v: network.model.apply(v, image, train=False)).lower(
        network._shapes.variables
      )
  return float((lowered.cost_analysis() or {}).get('flops', 0.0))
