"""The pure steps: one update, one evaluation. They know nothing of devices, configs or loops.

`train/parallel.py` wraps the same step for pmap (axis_name='data') and for one program on a mesh
(axis_name=None). Every loss is a (sum, weight) pair that is divided once, by the weight of the whole
batch over all devices and micro-batches; gradients of the divided terms are therefore added, never
averaged. Averaging each device's mean would be wrong as soon as void pixels are uneven.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from jaxseg.nn.layers.upsampling import resize_bilinear
from jaxseg.train.state import State
from jaxseg.types import Array, Batch, UserError

_SAMPLE = 1  # folded into the step's key for the stream 'sample'; 'dropout' has the key itself


def make_train_step(
  model,
  task,
  tx: optax.GradientTransformation,
  preprocess: Callable[[Array], Array],
  *,
  axis_name: str | None = None,
  accumulate: int = 1,
) -> Callable[[State, Batch, Array], tuple[State, dict[str, Array]]]:
  """Makes step(state, batch, key) -> (state, metrics).

  Args:
    model: maps (image, train) to outputs; random streams 'dropout' and 'sample'.
    task: gives `losses(outputs, batch)`, what the model takes beside the image, and counts labels
      outside the classes.
    tx: the optimiser.
    preprocess: maps uint8 images to the model's float images.
    axis_name: the mapped axis under pmap, None under jit.
    accumulate: micro-batches that the batch is split into; their sums and weights are added and
      divided once, so that (BatchNorm apart) k micro-batches equal one batch.

  Returns:
    A pure function. Its metrics are float32 scalars: 'loss' (the total), 'loss/NAME' for each term,
    'grad_norm', 'invalid' (labels outside the classes) and 'finite' (1 where loss and gradient are).
    A step that is not finite leaves parameters, statistics and optimiser as they were. Where the
    optimiser is wrapped in optax.apply_if_finite, 'skipped' counts such steps since the beginning
    and 'skipped_in_a_row' those since the last good one.

  Raises:
    UserError: micro-batches for a task whose weights depend on what the network says.
  """
  if accumulate > 1 and not task.weights_from_labels:
    raise UserError(
      f'accumulate={accumulate}: the weights of this task depend on the proposals, so micro-batches '
      'would not equal one batch; set accumulate=1 and batch_size to what fits'
    )
  psum = partial(jax.lax.psum, axis_name=axis_name) if axis_name else (lambda tree: tree)

  def apply(params, batch_stats, batch, key):
    return model.apply(
      {'params': params, 'batch_stats': batch_stats},
      preprocess(batch['image']),
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': key, 'sample': jax.random.fold_in(key, _SAMPLE)},
      **task.model_inputs(batch),
    )

  def forward(params, batch_stats, batch, key):
    outputs, updated = apply(params, batch_stats, batch, key)
    return task.losses(outputs, batch), updated.get('batch_stats', {})

  def weights_of(params, batch_stats, batch, key):
    """The weights depend on labels alone: with logits of zero, XLA drops the network."""
    outputs = jax.eval_shape(apply, params, batch_stats, batch, key)[0]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), outputs)
    return {name: weight for name, (_, weight) in task.losses(zeros, batch).items()}

  def gradient(params, batch_stats, batch, key, weights=None):
    """Returns gradient, new statistics and the divided terms of one (micro-)batch."""

    def total(params):
      terms, new_stats = forward(params, batch_stats, batch, key)
      divided = {
        name: total_of / _nonzero(psum(weight) if weights is None else weights[name])
        for name, (total_of, weight) in terms.items()
      }
      return sum(divided.values()), (divided, new_stats)

    (_, (divided, new_stats)), grads = jax.value_and_grad(total, has_aux=True)(params)
    return grads, new_stats, divided

  def accumulated(state, batch, key):
    size = batch['label'].shape[0] // accumulate
    micro = jax.tree.map(lambda a: a.reshape(accumulate, size, *a.shape[1:]), batch)
    keys = jax.random.split(key, accumulate)
    weigh = partial(weights_of, state.params, state.batch_stats)
    weights = jax.vmap(weigh)(micro, keys)
    weights = psum(jax.tree.map(partial(jnp.sum, axis=0), weights))

    def body(carry, inputs):
      grads, stats, terms = carry
      new_grads, stats, new_terms = gradient(state.params, stats, *inputs, weights=weights)
      return (_add(grads, new_grads), stats, _add(terms, new_terms)), None

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    terms = {name: jnp.zeros((), jnp.float32) for name in weights}
    carry, _ = jax.lax.scan(body, (zeros, state.batch_stats, terms), (micro, keys))
    return carry

  def step(state: State, batch: Batch, key: Array) -> tuple[State, dict[str, Array]]:
    key = jax.random.fold_in(key, state.step)
    if axis_name:  # else every device would draw the same dropout mask
      key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    if accumulate > 1:
      grads, batch_stats, terms = accumulated(state, batch, key)
    else:
      grads, batch_stats, terms = gradient(state.params, state.batch_stats, batch, key)
    grads, terms = psum(grads), psum(terms)
    loss, norm = sum(terms.values()), optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    counting = isinstance(state.opt_state, optax.ApplyIfFiniteState)
    if counting:  # it looks at gradients alone, and the loss may overflow first
      grads = jax.tree.map(lambda g: jnp.where(finite, g, jnp.nan), grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    updated = state.replace(
      params=optax.apply_updates(state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
    )
    kept = jax.tree.map(partial(jnp.where, finite), updated, state)
    metrics = {'loss': loss, 'grad_norm': norm, 'finite': finite.astype(jnp.float32)}
    if counting:  # the optimiser inside is as it was, the counts go on
      kept = kept.replace(opt_state=opt_state)
      metrics['skipped'] = opt_state.total_notfinite.astype(jnp.float32)
      metrics['skipped_in_a_row'] = opt_state.notfinite_count.astype(jnp.float32)
    metrics |= {f'loss/{name}': value for name, value in terms.items()}
    metrics['invalid'] = psum(task.invalid(batch)).astype(jnp.float32)
    return kept.replace(step=state.step + 1), metrics

  return step


def make_eval_step(
  model, task, preprocess: Callable[[Array], Array], *, axis_name: str | None = None
) -> Callable[[dict, Batch], dict[str, Array]]:
  """Makes step(variables, batch) -> the task's additive metrics, summed over devices.

  Where the network saw the images at another scale, its logits are resized to the labels, which are
  scored at their own size.
  """
  psum = partial(jax.lax.psum, axis_name=axis_name) if axis_name else (lambda tree: tree)

  def step(variables: dict, batch: Batch) -> dict[str, Array]:
    outputs = model.apply(variables, preprocess(batch['image']), train=False)
    logits = at_size(outputs['logits'], batch['label'].shape[1:3])
    return psum(task.metrics({'logits': logits}, batch))

  return step


def at_size(logits: Array, size: tuple[int, int]) -> Array:
  """Resizes logits [b, h, w, k] bilinearly to [b, *size, k], if they are of another size."""
  return logits if logits.shape[1:3] == tuple(size) else resize_bilinear(logits, size)


def _nonzero(weight: Array) -> Array:
  """Nothing to divide by ('sum', or an all-void batch) means division by one."""
  return jnp.where(weight > 0, weight, 1)


def _add(a, b):
  return jax.tree.map(jnp.add, a, b)
