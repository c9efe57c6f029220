"""What a training run carries from step to step, and nothing else."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from jaxseg.types import Array


@flax.struct.dataclass
class State:
  """Everything that a checkpoint holds. Random keys are not here: they follow from seed and step.

  Attributes:
    step: int32 scalar, the number of updates done.
    params: float32 parameters.
    batch_stats: BatchNorm's population statistics, {} for a network without BatchNorm.
    opt_state: the optimiser's state.
    trained: {'params': ..., 'batch_stats': ...} that the steps train, where those above are averages of
      them over the steps (config.optim.average); {} where they are these themselves.
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

  With `average` (see Optim) the state holds averages, and beside them what is trained.
  """

  def init(key: Array) -> State:
    image = jnp.zeros(input_shape, jnp.float32)
    variables = model.init({'params': key}, image, train=False)
    first = {name: variables.get(name, {}) for name in ('params', 'batch_stats')}
    return State(
      step=jnp.zeros((), jnp.int32),
      opt_state=tx.init(first['params']),
      trained=first if average else {},
      **first,
    )

  return init


def parameter_count(params: Any) -> int:
  """Returns the number of values in a tree of arrays or of shapes."""
  return sum(int(leaf.size) for leaf in jax.tree.leaves(params))
