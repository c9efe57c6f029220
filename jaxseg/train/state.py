"""The state that a training run carries from step to step."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from jaxseg.types import Array


@flax.struct.dataclass
class State:
  """The contents of a checkpoint. It has no random keys: they are derived from seed and step.

  Attributes:
    step: int32 scalar, updates done.
    params: float32 parameters.
    batch_stats: BatchNorm's population statistics, {} for a network without BatchNorm.
    opt_state: the optimiser's state.
    trained: with config.optim.average, the {'params': ..., 'batch_stats': ...} that the optimiser
      updates, of which those above are moving averages; {} without averages.
  """

  step: Array
  params: Any
  batch_stats: Any
  opt_state: Any
  trained: Any = flax.struct.field(default_factory=dict)

  @property
  def variables(self) -> dict[str, Any]:
    """The collections that `model.apply` takes."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def make_init(
  model, tx: optax.GradientTransformation, input_shape: tuple[int, ...], *, average: float = 0.0
):
  """Returns init(key) -> State for images of `input_shape` [b, h, w, c]; jit it once.

  With `average` (see Optim) the state holds the moving averages beside the trained variables.
  """

  def init(key: Array) -> State:
    image = jnp.zeros(input_shape, jnp.float32)
    variables = model.init({'params': key}, image, train=False)
    initial = {name: variables.get(name, {}) for name in ('params', 'batch_stats')}
    return State(
      step=jnp.zeros((), jnp.int32),
      opt_state=tx.init(initial['params']),
      trained=initial if average else {},
      **initial,
    )

  return init


def parameter_count(params: Any) -> int:
  """Returns the number of values in a tree of arrays or shapes."""
  return sum(int(leaf.size) for leaf in jax.tree.leaves(params))
