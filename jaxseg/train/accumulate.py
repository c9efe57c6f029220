"""Gradient accumulation: micro-batches' loss sums and weights are added, and divided once."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxseg.types import Array, UserError


def accumulated(
  gradient: Callable, apply: Callable, task, psum: Callable[[Any], Any], count: int
) -> Callable:
  """Makes the gradient of a batch that is processed as `count` micro-batches in sequence.

  BatchNorm apart, it equals the gradient of the full batch, in the memory of a micro-batch.

  Args:
    gradient, apply: from train.step.make_gradient and make_apply.
    task: has the losses.
    psum: sums over the devices.
    count: a divisor of the batch size.

  Raises:
    UserError: the task's loss weights depend on the network's outputs.
  """
  if not task.weights_from_labels:
    raise UserError(
      f'accumulate={count}: the weights of this loss depend on predictions, so micro-batches would not '
      'equal one batch; set accumulate=1 and batch_size to what fits (a loss of your own whose weights '
      'depend on labels only says so by an attribute, my_loss.weights_from_labels = True)'
    )

  def weights_of(params, batch_stats, batch, key) -> dict[str, Array]:
    """Weights depend on labels only, so zeros stand in for the outputs and no forward pass is needed."""
    outputs = jax.eval_shape(apply, params, batch_stats, batch, key)[0]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), outputs)
    return {name: weight for name, (_, weight) in task.losses(zeros, batch).items()}

  def gradient_of_all(params, batch_stats, batch, key):
    size = batch['image'].shape[0] // count
    micro = jax.tree.map(lambda a: a.reshape(count, size, *a.shape[1:]), batch)
    keys = jax.random.split(key, count)
    weights = jax.vmap(partial(weights_of, params, batch_stats))(micro, keys)
    weights = psum(jax.tree.map(partial(jnp.sum, axis=0), weights))

    def body(carry, inputs):
      grads, stats, terms = carry
      new_grads, stats, new_terms = gradient(params, stats, *inputs, weights=weights)
      return (_add(grads, new_grads), stats, _add(terms, new_terms)), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    terms = {name: jnp.zeros((), jnp.float32) for name in weights}
    carry, _ = jax.lax.scan(body, (zeros, batch_stats, terms), (micro, keys))
    return carry

  return gradient_of_all


def _add(a: Any, b: Any) -> Any:
  return jax.tree.map(jnp.add, a, b)
