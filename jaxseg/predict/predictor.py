"""Prediction on single images of any size, with the network, scale and colours of a run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from jaxseg import files
from jaxseg.data import geometry
from jaxseg.data.loader import eval_batches
from jaxseg.predict import averages, tiles
from jaxseg.predict.averages import Band, Options
from jaxseg.predict.instance_predictor import InstancePredictor, checked
from jaxseg.train import build
from jaxseg.train.checkpoint import Checkpoints
from jaxseg.train.run_folder import Classes, load_classes, load_config
from jaxseg.train.state import make_init
from jaxseg.train.step import at_size
from jaxseg.types import VOID, UserError

__all__ = ['Band', 'Options', 'Predictor', 'load', 'load_variables', 'make_predictor']

AUTO_TILE = 1024  # side of these tiles, or the next larger that the network takes


class Predictor:
  """Maps images to labels: `mask = predictor(image)`.

  Args:
    config: of the run.
    variables: {'params': ..., 'batch_stats': ...}.
    classes: names and colours of the classes.
    options: see Options.

  Raises:
    UserError: tiles that the network cannot take, samples of a network without dropout.
  """

  def __init__(
    self, config: ConfigDict, variables: Any, classes: Classes, options: Options | None = None
  ):
    self.config, self.classes = config, classes
    options = options or Options()
    self.options = dataclasses.replace(
      options,
      scales=tuple(options.scales or map(float, config.eval_scales)),
      multiple=max(options.multiple, 1),
    )
    self.variables = jax.device_put(variables)
    self._model = build.model_from(config)
    self._preprocess = build.preprocessing_from(config)
    self._task = build.task_from(config)
    self._key = jax.random.key(config.seed)
    self._mirror_border = build.mirror_border_from(config)
    self._tiling = partial(
      tiles.make_tiling,
      self._model.size_rule,
      fill=self._preprocess.fill,
      mirror_border=self._mirror_border,
    )
    if options.tile:
      self._tiling(options.tile, options.tile_step)
    if options.samples:
      averages.check_dropout(self._model, self.variables, config.channels)
    self._network = jax.jit(self._make_network(), static_argnames='size')
    self._plain = jax.jit(self._labels_and_map, static_argnames='size')
    self._labels = jax.jit(
      lambda *inputs, size: self._labels_and_map(*inputs, size)[0], static_argnames='size'
    )

  def __call__(self, image: np.ndarray) -> np.ndarray:
    """Returns the class of each pixel, uint8 [h, w], of an image uint8 [h, w, c] or [h, w]."""
    image = checked(image, self.config.channels)
    if self._is_plain(image):
      return self._whole(self._labels, image, self.options.scales[0])
    return np.concatenate([band.mask for band in self.bands(image)])

  def probabilities(self, image: np.ndarray) -> np.ndarray:
    """Returns float32 [h, w, num_classes] for a uint8 image [h, w, c] or [h, w]."""
    return np.concatenate([band.probabilities for band in self.bands(image)])

  def uncertainty(self, image: np.ndarray) -> np.ndarray:
    """Returns float32 [h, w], see Band, for a uint8 image [h, w, c] or [h, w]."""
    return np.concatenate([band.uncertainty for band in self.bands(image)])

  def bands(self, image: np.ndarray) -> Iterator[Band]:
    """Yields the prediction from the top down.

    In tiles, at one scale and without rotations, a band is what one row of tiles finishes, so that
    memory holds little more than the image; else there is one band.
    """
    image = checked(image, self.config.channels)
    if self._is_resized(image):
      yield self._at_the_size_of_training(image)
    elif self._is_plain(image):
      labels, probabilities = self._whole(self._plain, image, self.options.scales[0])
      yield self._band(0, probabilities, labels)
    elif self.options.rotations == 1 and self.options.scales == (1.0,):
      for top, rows in tiles.bands(self._run(), image, self._tiling_of(image, 1.0)):
        yield self._band(top, rows)
    else:
      at_scales = averages.over_scales(self._map, self.options.scales)
      yield self._band(0, averages.over_rotations(at_scales, self.options.rotations)(image))

  def instances(self, image: np.ndarray) -> Any:
    """Raises UserError: only a network of the task 'instance' tells objects apart."""
    raise UserError(
      f'config.task={self.config.task} gives the class of each pixel, no instances: load a run with '
      'config.task=instance'
    )

  def replace(self, **changes: Any) -> Predictor:
    """Returns the same network with other options."""
    options = dataclasses.replace(self.options, **changes)
    return Predictor(self.config, self.variables, self.classes, options)

  def canvas(self, height: int, width: int) -> tuple[int, int]:
    """Returns the size of the program that a whole image of this size runs in, at scale 1."""
    return tuple(self._output(side) for side in self.config.image_size or (height, width))

  def _make_network(self) -> averages.Network:
    options = self.options
    dropout = True if options.samples else None
    network = averages.make_network(self._model, self._task, self._preprocess, dropout=dropout)
    if options.samples:
      network = averages.with_samples(network, options.samples)
    return averages.with_flip(network) if options.flip else network

  def _labels_and_map(self, variables, image, key, size):
    """Labels as evaluation has them, from the logits: float32 probabilities may tie."""
    del key
    outputs = self._model.apply(variables, self._preprocess(image), train=False)
    outputs = {'logits': at_size(outputs['logits'], size)}
    labels = self._task.predictions(outputs).astype(jnp.uint8)
    return labels, self._task.probabilities(outputs)

  def _is_plain(self, image: np.ndarray) -> bool:
    options = self.options
    averaged = len(options.scales) > 1 or options.flip or options.rotations > 1 or options.samples
    return not averaged and not (
      self._is_resized(image) or self._needs_tiles(image, options.scales[0])
    )

  def _is_resized(self, image: np.ndarray) -> bool:
    size = tuple(self.config.image_size)
    return bool(size) and image.shape[:2] != size

  def _at_the_size_of_training(self, image: np.ndarray) -> Band:
    """Predicts at config.image_size, the only one the network knows, and resizes the maps back."""
    bands = list(self.bands(geometry.resize_image(image, tuple(self.config.image_size))))
    maps = [np.concatenate([band.probabilities for band in bands])]
    if self.options.samples:
      maps.append(np.concatenate([band.variance for band in bands]))
    return self._band(0, geometry.resize_image(np.concatenate(maps, -1), image.shape[:2]))

  def _needs_tiles(self, image: np.ndarray, scale: float) -> bool:
    if self.options.tile:
      return True
    margin = self._model.size_rule.margin
    sides = (self._output(side * scale) + 2 * margin for side in image.shape[:2])
    return np.prod([*sides], dtype=np.int64) > self.options.max_pixels

  def _output(self, length: float) -> int:
    rule, multiple = self._model.size_rule, self.options.multiple
    length = -(-length // multiple) * multiple
    return rule.at_least(int(length) + 2 * rule.margin) - 2 * rule.margin

  def _tiling_of(self, image: np.ndarray, scale: float) -> tiles.Tiling:
    if self.options.tile:
      return self._tiling(self.options.tile, self.options.tile_step)
    rule = self._model.size_rule
    needed = (self._output(side * scale) + 2 * rule.margin for side in image.shape[:2])
    return self._tiling(tuple(min(rule.at_least(AUTO_TILE), side) for side in needed))

  def _run(self) -> tiles.Run:
    """The network on one tile; every tile draws its own dropout."""
    number = itertools.count()

    def run(tile: np.ndarray):
      key = jax.random.fold_in(self._key, next(number))
      return self._network(self.variables, tile[None], key, size=None)[0]

    return run

  def _map(self, image: np.ndarray, scale: float) -> np.ndarray:
    """Returns what the network says of an image seen at a scale, float32 [h, w, k]."""
    if not self._needs_tiles(image, scale):
      return self._whole(self._network, image, scale)
    size = tuple(max(1, round(side * scale)) for side in image.shape[:2])
    resized = geometry.resize_image(image, size)
    found = tiles.whole(self._run(), resized, self._tiling_of(image, scale))
    return geometry.resize_image(found, image.shape[:2])

  def _whole(self, function, image: np.ndarray, scale: float):
    """Runs `function` on the padded image and cuts the image's own part out of each result."""
    height, width = image.shape[:2]
    batch = next(
      eval_batches(
        [{'image': image, 'label': np.full((height, width), VOID, np.uint8)}],
        batch_size=1,
        size_rule=self._model.size_rule,
        scale=scale,
        fill=self._preprocess.fill,
        mirror_border=self._mirror_border,
        min_multiple=self.options.multiple,
        num_threads=0,
      )
    )
    size = batch['label'].shape[1:3]
    found = function(self.variables, batch['image'], self._key, size=size)
    return jax.tree.map(lambda a: np.asarray(a)[0, :height, :width], found)

  def _band(self, top: int, found: np.ndarray, labels: np.ndarray | None = None) -> Band:
    probabilities = found[..., : self.config.num_classes]
    if labels is None:
      labels = np.argmax(probabilities, axis=-1).astype(np.uint8)
    variance = found[..., self.config.num_classes :] if self.options.samples else None
    return Band(top, labels, probabilities, variance)


def make_predictor(
  config: ConfigDict, variables: Any, classes: Classes, options: Options | None = None
) -> Predictor | InstancePredictor:
  """Returns what predicts with a run's network: labels, and instances where that is its task."""
  kind = InstancePredictor if config.task == 'instance' else Predictor
  return kind(config, variables, classes, options)


def load_variables(workdir: str | Path, step: str = 'best') -> tuple[Any, int]:
  """Restores the parameters and statistics of a run as numpy arrays.

  Args:
    workdir: written by training.
    step: 'best' (highest mean IoU or mask AP in evaluation) | 'latest' | a number.

  Returns:
    The variables and their step.

  Raises:
    UserError: no run, no checkpoint, or no such step (the message lists those there are).
  """
  config = load_config(workdir)
  folder = files.place(workdir) / 'checkpoints'
  if not folder.is_dir():
    raise UserError(f'no checkpoints in {workdir}: train first')
  metric = build.task_from(config).headline
  checkpoints = Checkpoints(folder, metric=metric, read_only=True)
  steps = checkpoints.steps()
  if not steps:
    raise UserError(f'no checkpoint in {folder}: the training stopped before its first save')
  named = {'best': checkpoints.best_step, 'latest': lambda: steps[-1]}
  chosen = named[step]() if step in named else int(step) if str(step).isdigit() else None
  if chosen not in steps:
    there = ', '.join(map(str, steps))
    raise UserError(f'--step={step}: choose best, latest or one of the steps {there}')
  model = build.model_from(config)
  size = model.size_rule.at_least(max(64, model.size_rule.minimum))
  init = make_init(model, optax.identity(), (1, size, size, config.channels))
  shapes = jax.eval_shape(init, jax.random.key(0)).variables
  variables = checkpoints.restore_variables(shapes, chosen)
  checkpoints.close()
  return variables, chosen


def load(workdir: str | Path, step: str = 'best', **options: Any) -> Predictor | InstancePredictor:
  """Returns the predictor of a trained workdir.

  Args:
    workdir: written by training.
    step: see load_variables.
    **options: fields of Options, as in `load(workdir, scales=(0.5, 1), flip=True)`.
  """
  known = [field.name for field in dataclasses.fields(Options)]
  for name in options:
    if name not in known:
      raise UserError(f'{name!r} is no option of prediction; there are {", ".join(known)}')
  config = load_config(workdir)
  variables, _ = load_variables(workdir, step)
  return make_predictor(config, variables, load_classes(workdir), Options(**options))
