"""The papers' optimisers and schedules, built on optax."""

import dataclasses
import re
from typing import Any, Literal

import jax
import optax

from jaxseg.config.fields import check_fields, checked, is_number, is_pattern, within
from jaxseg.types import LARGEST, UserError

_NEVER = 2**31 - 2  # above max_consecutive_errors optax would apply non-finite updates
Multipliers = tuple[tuple[str, float, float], ...]


def _is_rule(rule: Any) -> bool:
  if not (isinstance(rule, tuple) and len(rule) == 3 and is_pattern(rule[0])):
    return False
  return all(is_number(multiplier, 0, 1e6) for multiplier in rule[1:])


@dataclasses.dataclass(frozen=True)
class Optim:
  """An optimiser and its schedule.

  Attributes:
    name: 'sgd' (torch's: decay is added to the gradient, the rate multiplies the velocity) |
      'caffe_sgd' (the rate is inside the velocity, v <- m v + lr (g + wd w), w <- w - v; equal to
      'sgd' only at a constant rate) | 'adam' | 'adamw' (decoupled decay).
    learning_rate: at the start, or after warm-up.
    schedule: 'constant' | 'step' (times `schedule_factor` at each of `schedule_steps`) | 'poly'
      ((1 - t)^schedule_power, PSPNet and DeepLab) | 'cosine'; the last two reach 0 at the last step.
    warmup_steps: step i of these scales the schedule's rate by (i + 1) / warmup_steps; the schedule
      starts at step 0 too.
    momentum: of both kinds of SGD.
    weight_decay: coupled L2 for all but 'adamw'.
    multipliers: (pattern, rate multiplier, decay multiplier) rules: the first pattern that matches in
      a parameter's 'layer/kernel' path applies, (1, 1) if none does. Caffe's `lr_mult`, `decay_mult`;
      a rate multiplier of 0 freezes the parameter.
    clip_norm: largest global norm of the gradient, 0 is off.
    apply_if_finite: number of consecutive steps with a non-finite loss or gradient to skip before
      the run stops; 0: it stops at the first.
    average: decay of an exponential moving average of parameters and batch statistics, such as 0.99;
      the averages are evaluated, used for prediction and exported. 0: no averages.
  """

  name: Literal['sgd', 'caffe_sgd', 'adam', 'adamw'] = 'adam'
  learning_rate: float = within(0, 1e6, default=1e-3)
  schedule: Literal['constant', 'step', 'poly', 'cosine'] = 'constant'
  schedule_steps: tuple[int, ...] = within(1, LARGEST, default=())
  schedule_factor: float = within(0, 1e3, default=0.1)
  schedule_power: float = within(0, 100, default=0.9)
  warmup_steps: int = within(0, LARGEST, default=0)
  momentum: float = within(0, 1, default=0.9)
  weight_decay: float = within(0, 1e3, default=0.0)
  multipliers: tuple = checked(
    lambda rules: all(_is_rule(rule) for rule in rules),
    'give (pattern, rate, decay) for each rule, a regular expression and two numbers from 0',
    default=(),
  )
  clip_norm: float = within(0, 1e12, default=0.0)
  apply_if_finite: int = within(0, _NEVER, default=0)
  average: float = within(0, 0.999999, default=0.0)

  def __post_init__(self):
    check_fields(self, 'config.optim')
    if self.schedule == 'step' and not self.schedule_steps:
      raise UserError(
        'config.optim.schedule=step: say at which, config.optim.schedule_steps=1000,2000'
      )

  def make_schedule(self, num_steps: int) -> optax.Schedule:
    """Returns step -> learning rate, for a run of `num_steps`."""
    rate = self.learning_rate
    schedule = {
      'constant': lambda: optax.constant_schedule(rate),
      'step': lambda: optax.piecewise_constant_schedule(
        rate, dict.fromkeys(self.schedule_steps, self.schedule_factor)
      ),
      'poly': lambda: optax.polynomial_schedule(rate, 0.0, self.schedule_power, num_steps),
      'cosine': lambda: optax.cosine_decay_schedule(rate, num_steps),
    }[self.schedule]()
    if not self.warmup_steps:
      return schedule
    return lambda step: schedule(step) * jax.numpy.minimum(1.0, (step + 1) / self.warmup_steps)

  def make_optimizer(self, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns the optimiser with a schedule, step -> learning rate.

    With `apply_if_finite` it is wrapped in optax.apply_if_finite, which skips and counts non-finite
    gradients; the training loop reads the count and decides when to give up.
    """
    rate = scale_by_path(self.multipliers, which=1)
    decay = optax.identity()
    if self.weight_decay:
      decay = add_decay_by_path(self.weight_decay, self.multipliers)
    lr = optax.scale_by_schedule(schedule)
    trace = optax.trace(self.momentum)
    core = {
      'sgd': [decay, trace if self.momentum else optax.identity(), rate, lr],
      'caffe_sgd': [decay, rate, lr, trace],
      'adam': [decay, optax.scale_by_adam(), rate, lr],
      'adamw': [optax.scale_by_adam(), decay, rate, lr],
    }[self.name]
    clip = [optax.clip_by_global_norm(self.clip_norm)] if self.clip_norm else []
    tx = optax.chain(*clip, *core, optax.scale(-1.0))
    return optax.apply_if_finite(tx, max_consecutive_errors=_NEVER) if self.apply_if_finite else tx


def path_name(path: tuple[Any, ...]) -> str:
  """Returns 'layer/kernel' for a path of jax.tree_util."""
  return '/'.join(str(getattr(p, 'key', getattr(p, 'name', p))) for p in path)


def multiplier_of(name: str, multipliers: Multipliers, which: int) -> float:
  """Returns the rate (which=1) or decay (which=2) multiplier of the parameter called `name`."""
  return next((float(rule[which]) for rule in multipliers if re.search(rule[0], name)), 1.0)


def scale_by_path(multipliers: Multipliers, which: int) -> optax.GradientTransformation:
  """Multiplies each update by its parameter's multiplier.

  Raises:
    UserError: at its `init`, a pattern that matches no parameter: what it names would not be frozen.
  """
  if not multipliers:
    return optax.identity()

  def init(params):
    names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern, *_ in multipliers:
      if not any(re.search(pattern, name) for name in names):
        layers = ', '.join(sorted({name.partition('/')[0] for name in names}))
        raise UserError(
          f'config.optim.multipliers: {pattern!r} matches no parameter; the layers are {layers}'
        )
    return optax.EmptyState()

  def scale(path, update):
    return update * multiplier_of(path_name(path), multipliers, which)

  def update(updates, state, params=None):
    return jax.tree_util.tree_map_with_path(scale, updates), state

  return optax.GradientTransformation(init, update)


def add_decay_by_path(
  weight_decay: float, multipliers: Multipliers
) -> optax.GradientTransformation:
  """Adds weight_decay * multiplier * parameter to each update."""

  def add(path, update, param):
    return update + weight_decay * multiplier_of(path_name(path), multipliers, 2) * param

  return optax.stateless(
    lambda updates, params: jax.tree_util.tree_map_with_path(add, updates, params)
  )
