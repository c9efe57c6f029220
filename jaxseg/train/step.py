"""The pure steps: one update, one prediction. Of devices they know the mapped axis's name, of configs and loops nothing.

`train/devices/parallel.py` wraps the same step for pmap (axis_name='data') and for one program on a
mesh (axis_name=None). Every loss is a (sum, weight) pair, divided once by the weight of the global
batch; gradients are therefore summed over devices, never averaged: averaging per-device means would
be wrong wherever devices have different numbers of void pixels. Batch norm reduces its statistics
itself: the model has the axis name too, and on a mesh needs none (nn/layers/norm.py).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxseg.train.accumulate import accumulated
from jaxseg.train.state import State
from jaxseg.types import Array, Batch

_SAMPLE = 1  # folded into the step's key for the stream 'sample'; 'dropout' uses the key itself

# (params, batch_stats, batch, key) -> gradient, new batch_stats, normalised loss terms by name
Gradient = Callable[[Any, Any, Batch, Array], tuple[Any, Any, dict[str, Array]]]


def make_train_step(
  model,
  task,
  tx: optax.GradientTransformation,
  preprocess: Callable[[Array], Array],
  *,
  axis_name: str | None = None,
  accumulate: int = 1,
  average: float = 0.0,
) -> Callable[[State, Batch, Array], tuple[State, dict[str, Array]]]:
  """Makes step(state, batch, key) -> (state, metrics).

  Args:
    model: maps (image, train) to outputs; random streams 'dropout' and 'sample'.
    task: defines the losses and further model inputs, and counts labels outside the classes.
    tx: the optimiser.
    preprocess: maps the images of a batch to the model's float images.
    axis_name: the mapped axis under pmap, None under jit.
    accumulate: micro-batches of a step, see train.accumulate.
    average: decay of the moving averages, see Optim; 0 for none. With them the state's variables
      are the averages, and the optimiser updates `state.trained`.

  Returns:
    A pure function. Its metrics are float32 scalars: 'loss' (the total), 'loss/NAME' for each term,
    'grad_norm', 'invalid' (labels outside the classes) and 'finite' (1 if loss and gradient are).
    A non-finite step leaves parameters, statistics and optimiser unchanged. If the optimiser is
    wrapped in optax.apply_if_finite, 'skipped' counts such steps since the start of the run and
    'skipped_in_a_row' those since the last finite one.
  """
  psum = partial(jax.lax.psum, axis_name=axis_name) if axis_name else lambda tree: tree
  apply = make_apply(model, task, preprocess)
  gradient = make_gradient(apply, task, psum)
  if accumulate > 1:
    gradient = accumulated(gradient, apply, task, psum, accumulate)

  def train_step(state: State, batch: Batch, key: Array) -> tuple[State, dict[str, Array]]:
    key = jax.random.fold_in(key, state.step)
    if axis_name:  # otherwise every device would draw the same dropout mask
      key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    trained = state.trained or state.variables
    grads, batch_stats, terms = gradient(trained['params'], trained['batch_stats'], batch, key)
    grads, terms = psum(grads), psum(terms)
    loss, norm = sum(terms.values()), optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    new_state, counts = _updated(state, grads, batch_stats, finite, tx, average)
    metrics = {'loss': loss, 'grad_norm': norm, 'finite': finite.astype(jnp.float32)}
    metrics |= counts | {f'loss/{name}': value for name, value in terms.items()}
    metrics['invalid'] = psum(task.invalid(batch)).astype(jnp.float32)
    return new_state.replace(step=state.step + 1), metrics

  return train_step


def make_gradient(apply: Callable, task, psum: Callable[[Any], Any]) -> Gradient:
  """Makes gradient(params, batch_stats, batch, key) of one batch.

  Args:
    apply: from `make_apply`.
    task: has `losses(outputs, batch)`.
    psum: sums over the devices.

  Returns:
    A function that also takes `weights`, the divisor of each loss term by name; None: this batch's
    weights, summed over all devices. Gradient and terms are this device's part of the sum.
  """

  def gradient(params, batch_stats, batch, key, weights=None):
    def total(params):
      outputs, updated = apply(params, batch_stats, batch, key)
      terms = {
        name: loss / _nonzero(psum(weight) if weights is None else weights[name])
        for name, (loss, weight) in task.losses(outputs, batch).items()
      }
      return sum(terms.values()), (terms, updated.get('batch_stats', {}))

    (_, (terms, new_stats)), grads = jax.value_and_grad(total, has_aux=True)(params)
    return grads, new_stats, terms

  return gradient


def make_apply(model, task, preprocess: Callable[[Array], Array]) -> Callable:
  """Makes the training forward pass, apply(params, batch_stats, batch, key) -> (outputs, updates)."""

  def apply(params, batch_stats, batch, key):
    return model.apply(
      {'params': params, 'batch_stats': batch_stats},
      preprocess(batch['image']),
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': key, 'sample': jax.random.fold_in(key, _SAMPLE)},
      **task.model_inputs(batch),
    )

  return apply


def _updated(
  state: State,
  grads: Any,
  batch_stats: Any,
  finite: Array,
  tx: optax.GradientTransformation,
  average: float,
) -> tuple[State, dict[str, Array]]:
  """Returns the next state, unchanged after a non-finite step, and the counts of skipped steps."""
  counts_skipped = isinstance(state.opt_state, optax.ApplyIfFiniteState)
  if counts_skipped:  # optax checks gradients only, and the loss may overflow first
    grads = jax.tree.map(lambda g: jnp.where(finite, g, jnp.nan), grads)
  params = (state.trained or state.variables)['params']
  updates, opt_state = tx.update(grads, state.opt_state, params)
  new = {'params': optax.apply_updates(params, updates), 'batch_stats': batch_stats}
  if state.trained:
    new = averaged(state.variables, new, state.step, average) | {'trained': new}
  updated = state.replace(opt_state=opt_state, **new)
  guarded = jax.tree.map(partial(jnp.where, finite), updated, state)
  if not counts_skipped:
    return guarded, {}
  counts = {'skipped': opt_state.total_notfinite, 'skipped_in_a_row': opt_state.notfinite_count}
  counts = {name: count.astype(jnp.float32) for name, count in counts.items()}
  return guarded.replace(opt_state=opt_state), counts  # the inner optimiser state is unchanged


def averaged(averages: Any, values: Any, step: Array, decay: float) -> Any:
  """Updates a tree of exponential moving averages; `step` is the number of earlier updates.

  The decay rises as (1 + step) / (10 + step) up to `decay`, to forget the first values soon
  (TensorFlow's ExponentialMovingAverage with num_updates).
  """
  decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  return jax.tree.map(lambda old, new: new + decay * (old - new), averages, values)


def make_predict_step(
  model,
  task,
  preprocess: Callable[[Array], Array],
  *,
  size: tuple[int, int],
  maps: bool = False,
) -> Callable[[dict, Batch], dict[str, Array]]:
  """Makes step(variables, batch from `predict_batch`) -> the task's predictions, one row per image.

  Args:
    model, task, preprocess: see make_train_step.
    size: (height, width) of the canvas in image pixels.
    maps: also return probability maps.
  """

  def step(variables: dict, batch: Batch) -> dict[str, Array]:
    model_inputs = {name: value for name, value in batch.items() if name != 'image'}
    outputs = model.apply(variables, preprocess(batch['image']), train=False, **model_inputs)
    return task.predict(outputs, size, maps=maps)

  return step


def predict_batch(task, image: Array, extent: Array) -> dict[str, Array]:
  """Returns the input of a prediction step for images [b,h,w,c] on a canvas.

  `extent` is float32 [b,4], x0, y0, x1, y1 of each image without padding, for tasks that take it.
  """
  return {'image': image} | ({'extent': extent} if task.takes_extent else {})


def _nonzero(weight: Array) -> Array:
  """Replaces a weight of zero ('sum' reduction, or an all-void batch) by one."""
  return jnp.where(weight > 0, weight, 1)
