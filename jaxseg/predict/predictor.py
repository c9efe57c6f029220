"""Prediction on single images of any size with the network of a run."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxseg.data import contrast, geometry
from jaxseg.data.frame import Frame
from jaxseg.data.geometry import Size
from jaxseg.predict import averages, seams, tiles
from jaxseg.predict.averages import Band
from jaxseg.predict.base import BasePredictor, checked
from jaxseg.predict.options import Options
from jaxseg.train.build import Experiment
from jaxseg.train.run_folder import Classes
from jaxseg.train.step import make_predict_step, predict_batch
from jaxseg.types import Detections, UserError

PROGRAMS = 32  # image sizes whose compiled programs are cached
AUTO_TILE = 1024  # tile side for large images, rounded up to one that the network takes


class Predictor(BasePredictor):
  """Predicts with one network.

  A plain pass is that of evaluation in training: the experiment's frame places the image on the canvas,
  and the task reads the outputs. Averaging needs a task that predicts maps; tiles work for these and
  for tasks that detect objects.

  Args:
    experiment: of the run.
    variables: {'params': ..., 'batch_stats': ...}.
    classes: names and colours of the classes.
    options: see Options.

  Raises:
    UserError: averaging or tiles that task or network do not support, or samples without dropout.
  """

  def __init__(
    self,
    experiment: Experiment,
    variables: dict[str, Any] | None,
    classes: Classes,
    options: Options | None = None,
  ):
    options = options or Options()
    self.experiment, self.classes, self.variables = experiment, classes, variables
    self.options = replace(options, scales=tuple(options.scales or experiment.eval.scales))
    self._model, self._task = experiment.model(), experiment.task
    self._key = jax.random.key(experiment.settings.seed)
    self._check()
    self._step = jax.jit(self._rows, static_argnames=('size', 'maps'))
    network = averages.make_network(self._model, self._task, experiment.preprocess, self.options)
    self._network = jax.jit(network, static_argnames='size')
    self._sizes: set[tuple[int, ...]] = set()  # input shapes they are compiled for

  @property
  def variables(self) -> dict[str, Any] | None:
    """{'params': ..., 'batch_stats': ...} on the device; None frees its memory."""
    return self._variables

  @variables.setter
  def variables(self, variables: dict[str, Any] | None) -> None:
    self._variables = jax.device_put(variables)

  def _predict(self, image: Any, maps: bool) -> dict[str, Any]:
    image = self._input(image)
    if self._detects_objects and self._needs_tiles(image.shape[:2], self.frame()):
      return self._task.of_objects(self._joined_objects(image), self.options.score)
    if not self._is_plain(image.shape[:2]):
      return super()._predict(image, maps)
    prediction = self._plain(image, maps=maps and self._task.maps)
    if self.options.score is not None:
      return self._task.of_objects(prediction['detections'], self.options.score)
    if 'probabilities' not in prediction:
      return prediction
    band = self._tempered(self._band(prediction))
    return prediction | {'probabilities': band.probabilities, 'uncertainty': band.uncertainty}

  def row(self, image: np.ndarray, *, maps: bool = False) -> dict[str, np.ndarray]:
    """Returns the result of a plain pass on the canvas, one row of the task's `predict`.

    Unlike elsewhere, the image's contrast is that of the run's source already.
    """
    image = checked(image, self.experiment.data)
    frame, size = self.frame(), image.shape[:2]
    extent = np.array([frame.extent(size)], np.float32)
    options = dict(size=frame.canvas(size), maps=maps)
    rows = self._step(
      self.variables, self._limit_programs(frame.place(image)[None]), extent, **options
    )
    return {name: values[0] for name, values in jax.device_get(rows).items()}

  def frame(self, scale: float | None = None) -> Frame:
    """Returns how images are placed on the canvas; `scale` defaults to the first of the options'."""
    scale = self.options.scales[0] if scale is None else scale
    return self.experiment.frame(self._model, scale=scale, multiple=self.options.multiple)

  def canvas(self, height: int, width: int) -> Size:
    return self.frame().output(self._trained_size or (height, width))

  @functools.cached_property
  def entries(self) -> frozenset[str]:
    return entries_of(self.experiment)

  def comes_in_bands(self, size: Size) -> bool:
    return self._task.maps and not self._is_plain(size)

  def replace(self, **options: Any) -> Predictor:
    return Predictor(
      self.experiment, self.variables, self.classes, replace(self.options, **options)
    )

  def _input(self, image: Any) -> np.ndarray:
    image, percentiles = super()._input(image), self.experiment.data.percentiles
    return contrast.stretch(image, percentiles) if percentiles else image

  def _limit_programs(self, placed: np.ndarray) -> np.ndarray:
    """Clears the compiled programs, megabytes each, when there are too many; returns its argument."""
    self._sizes.add(placed.shape)
    if len(self._sizes) > PROGRAMS:
      self._step.clear_cache()
      self._network.clear_cache()
      self._sizes = {placed.shape}
    return placed

  def _check(self) -> None:
    options = self.options
    if options.score is not None and not self._detects_objects:
      raise UserError(
        f'score={options.score:g} is for networks that find objects: config.task='
        f'{self.experiment.settings.task} predicts {", ".join(sorted(self.entries))}'
      )
    if options.min_area > 1 and not self._task.maps:
      raise UserError(
        f'min_area={options.min_area} is for masks of pixels: config.task={self.experiment.settings.task} '
        'predicts objects; give a score'
      )
    untiled = replace(options, tile=None, tile_step=None) if self._detects_objects else options
    if not self._task.maps and not untiled.is_one_pass:
      raise UserError(
        f'{options.describe()}: config.task={self.experiment.settings.task} predicts no maps that '
        'could be averaged or joined: leave out scales, flips, rotations, samples and tiles'
      )
    if options.tile:
      tiling = tiles.make_tiling(self.frame(), options.tile, options.tile_step)
      if self._detects_objects:
        seams.check(tiling)
    if options.samples:
      averages.check_dropout(self._model, self.variables, self.experiment.channels)

  def _rows(
    self, variables: dict, image: jax.Array, extent: jax.Array, *, size: Size, maps: bool
  ) -> dict:
    experiment = self.experiment
    step = make_predict_step(self._model, self._task, experiment.preprocess, size=size, maps=maps)
    return step(variables, predict_batch(self._task, image, extent))

  @property
  def _detects_objects(self) -> bool:
    return hasattr(self._task, 'of_objects')

  @property
  def _trained_size(self) -> Size | None:
    """The fixed size that images are resized to, config.data.image_size; None if there is none."""
    size = self.experiment.data.image_size
    return tuple(size) if size and self._task.maps else None

  def _is_plain(self, size: Size) -> bool:
    """Whether an image of this size is predicted in a single pass, not resized or tiled."""
    resized = self._trained_size not in (None, size)
    return self.options.is_one_pass and not resized and not self._needs_tiles(size, self.frame())

  def _needs_tiles(self, size: Size, frame: Frame) -> bool:
    return needs_tiles(self._task, self.options, size, frame)

  def _plain(self, image: np.ndarray, *, maps: bool) -> dict[str, Any]:
    """Returns the task's prediction of one pass, before the temperature."""
    return self._task.in_image(self.row(image, maps=maps), self.frame(), image.shape[:2])

  def _joined_objects(self, image: np.ndarray) -> Detections:
    """Returns the objects detected in overlapping tiles of an image, merged."""
    size, frame = image.shape[:2], self.frame()
    tiling = self._tiling(size, frame)
    detected = [
      seams.Tile(top, left, window, self._plain(part, maps=False)['detections'])
      for top, left, window, part in seams.windows(image, tiling, frame.scale)
    ]
    return seams.join(detected, size)

  def _band(self, prediction: Mapping[str, np.ndarray]) -> Band:
    return Band(0, prediction['mask'], prediction['probabilities'], self._task.num_classes)

  def _bands(self, image: np.ndarray) -> Iterator[Band]:
    options, num_classes = self.options, self._task.num_classes
    in_bands = options.rotations == 1 and options.scales == (1.0,) and not options.long_side
    if self._trained_size not in (None, image.shape[:2]):
      yield Band.of_maps(0, self._resized_maps(image), num_classes)
    elif self._is_plain(image.shape[:2]):
      yield self._band(self._plain(image, maps=True))
    elif in_bands and self._needs_tiles(image.shape[:2], self.frame()):
      tiling = self._tiling(image.shape[:2], self.frame())
      for top, maps in tiles.bands(self._run(tiling), image, tiling):
        yield Band.of_maps(top, maps, num_classes)
    else:
      average = averages.over_rotations(self._over_scales, options.rotations)
      yield Band.of_maps(0, average(image), num_classes)

  def _resized_maps(self, image: np.ndarray) -> np.ndarray:
    """Predicts at the training size; returns the maps resized to the image, [h, w, k]."""
    bands = self._bands(geometry.resize_image(image, self._trained_size))
    maps = np.concatenate([band.maps for band in bands])
    return geometry.resize_image(maps, image.shape[:2])

  def _over_scales(self, image: np.ndarray) -> np.ndarray:
    scales = self.options.scales
    return sum(self._maps(image, scale) for scale in scales) / np.float32(len(scales))

  def _maps(self, image: np.ndarray, scale: float) -> np.ndarray:
    """Returns the averaged network's maps for the image at a scale, float32 [h, w, k]."""
    size = image.shape[:2]
    if self.options.long_side:
      scale *= self.options.long_side / max(size)
    frame = self.frame(scale)
    if not self._needs_tiles(size, frame):
      placed = self._limit_programs(frame.place(image)[None])
      maps = self._network(self.variables, placed, self._key, size=frame.canvas(size))
      return frame.cut(np.asarray(maps)[0], size)
    scaled = geometry.resize_image(image, tuple(max(1, round(side * scale)) for side in size))
    tiling = self._tiling(size, frame)
    return geometry.resize_image(tiles.joined(self._run(tiling), scaled, tiling), size)

  def _tiling(self, size: Size, frame: Frame) -> tiles.Tiling:
    tile = self.options.tile or (frame.rule.at_least(AUTO_TILE),) * 2
    even = self.options.windows == 'even'
    return tiles.make_tiling(frame, tile, self.options.tile_step, size, even=even)

  def _run(self, tiling: tiles.Tiling) -> tiles.Run:
    """Returns the averaged network for one tile; every tile gets its own dropout key."""
    numbers = itertools.count()

    def run(tile: np.ndarray) -> jax.Array:
      key = jax.random.fold_in(self._key, next(numbers))
      return self._network(
        self.variables, self._limit_programs(tile[None]), key, size=tiling.output
      )[0]

    return run


def needs_tiles(task: Any, options: Options, size: Size, frame: Frame) -> bool:
  """Whether an image of this size is cut into tiles."""
  pixels = np.prod(frame.input(size), dtype=np.int64)
  fits = task.maps or (hasattr(task, 'of_objects') and not frame.short_side)
  return fits and bool(options.tile or pixels > options.max_pixels)


def entries_of(experiment: Experiment) -> frozenset[str]:
  """Returns BasePredictor.entries for an experiment, by tracing its network without running it."""
  model, task, size = experiment.model(), experiment.task, (32, 32)
  frame = experiment.frame(model)
  image = frame.place(np.zeros((*size, experiment.channels), experiment.data.dtype))
  step = make_predict_step(
    model, task, experiment.preprocess, size=frame.canvas(size), maps=task.maps
  )
  batch = predict_batch(task, image[None], np.zeros((1, 4), np.float32))
  rows = jax.eval_shape(step, experiment.variable_shapes, batch)
  row = {name: np.zeros(values.shape[1:], values.dtype) for name, values in rows.items()}
  return frozenset(task.in_image(row, frame, size))
