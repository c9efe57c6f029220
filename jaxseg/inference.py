"""Prediction on single images of any size, with the network, scale and colours of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxseg import experiment
from jaxseg.pipeline.loader import eval_batches
from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.state import make_init
from jaxseg.train.step import at_size
from jaxseg.train.workdir import Classes, load_classes, load_config
from jaxseg.types import VOID, UserError


class Predictor:
  """Maps images to labels: `mask = predictor(image)`.

  Args:
    config: of the run.
    variables: {'params': ..., 'batch_stats': ...}.
    classes: names and colours of the classes.
  """

  def __init__(self, config: ConfigDict, variables: Any, classes: Classes):
    self.config, self.variables, self.classes = config, variables, classes
    self._model = experiment.model_from(config)
    self._task = experiment.task_from(config)
    self._preprocess = experiment.preprocessing_from(config)
    self._apply = jax.jit(self._probabilities, static_argnames='size')

  def _probabilities(self, variables, image, size):
    outputs = self._model.apply(variables, self._preprocess(image), train=False)
    return self._task.probabilities({'logits': at_size(outputs['logits'], size)})

  def probabilities(self, image: np.ndarray) -> np.ndarray:
    """Returns float32 [h, w, num_classes] for a uint8 image [h, w, c] or [h, w].

    Each of config.eval_scales is run, and the probabilities are averaged.
    """
    image = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or image.shape[-1] != self.config.channels:
      raise UserError(
        f'image is {image.dtype} with {image.shape[-1]} channels; this network takes uint8 with '
        f'{self.config.channels}'
      )
    height, width = image.shape[:2]
    example = {'image': image, 'label': np.full((height, width), VOID, np.uint8)}
    total = 0.0
    for scale in self.config.eval_scales:
      batch = next(
        eval_batches(
          [example],
          batch_size=1,
          size_rule=self._model.size_rule,
          scale=float(scale),
          fill=self._preprocess.fill,
          num_threads=0,
        )
      )
      canvas = batch['label'].shape[1:3]
      total = total + self._apply(self.variables, batch['image'], size=canvas)[0, :height, :width]
    return np.asarray(total / len(self.config.eval_scales))

  def __call__(self, image: np.ndarray) -> np.ndarray:
    """Returns the class of each pixel, uint8 [h, w]."""
    return np.argmax(self.probabilities(image), axis=-1).astype(np.uint8)


def load_variables(workdir: str | Path, step: str = 'best') -> tuple[Any, int]:
  """Restores the parameters and statistics of a run as numpy arrays.

  Args:
    workdir: written by training.
    step: 'best' (highest mean IoU in evaluation) | 'latest' | a number.

  Returns:
    The variables and their step.

  Raises:
    UserError: no run, no checkpoint, or no such step (the message lists those there are).
  """
  config = load_config(workdir)
  folder = Path(workdir).expanduser() / 'checkpoints'
  if not folder.is_dir():
    raise UserError(f'no checkpoints in {workdir}: train first')
  checkpoints = Checkpoints(folder, read_only=True)
  steps = checkpoints.steps()
  if not steps:
    raise UserError(f'no checkpoint in {folder}: the training stopped before its first save')
  named = {'best': checkpoints.best_step, 'latest': lambda: steps[-1]}
  chosen = named[step]() if step in named else int(step) if str(step).isdigit() else None
  if chosen not in steps:
    there = ', '.join(map(str, steps))
    raise UserError(f'--step={step}: choose best, latest or one of the steps {there}')
  tx, _ = experiment.optimizer_from(config)
  model = experiment.model_from(config)
  size = model.size_rule.at_least(max(64, model.size_rule.minimum))
  init = make_init(model, tx, (1, size, size, config.channels))
  state = checkpoints.restore(jax.eval_shape(init, jax.random.key(0)), chosen)
  checkpoints.close()
  return state.variables, chosen


def load(workdir: str | Path, step: str = 'best') -> Predictor:
  """Returns the predictor of a trained workdir; see load_variables for `step`."""
  config = load_config(workdir)
  variables, _ = load_variables(workdir, step)
  variables = jax.tree.map(jnp.asarray, variables)
  return Predictor(config, variables, load_classes(workdir))
