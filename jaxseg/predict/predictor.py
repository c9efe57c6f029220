"""Prediction on single images of any size, with the network, scale and colours of a run."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxseg.config import parts
from jaxseg.data import geometry
from jaxseg.data.frame import Frame
from jaxseg.data.geometry import Size
from jaxseg.predict import averages, tiles
from jaxseg.predict.averages import Band
from jaxseg.predict.options import Options
from jaxseg.train.build import Experiment, load_experiment
from jaxseg.train.initial import load_variables
from jaxseg.train.run_folder import Classes, load_classes
from jaxseg.train.step import make_predict_step
from jaxseg.types import Detections, UserError

AUTO_TILE = 1024  # side of the tiles of large images, or the next larger that the network takes


class Predictor:
  """Maps images uint8 [h, w, c] or [h, w] to what a run's task predicts: `mask = predictor(image)`.

  One plain pass does what evaluation in training does: the image is placed by the experiment's frame,
  and the task reads the outputs. Averages and tiles are for tasks that predict maps.

  Args:
    experiment: of the run.
    variables: {'params': ..., 'batch_stats': ...}.
    classes: names and colours of the classes.
    options: see Options.

  Raises:
    UserError: averages or tiles that the task or the network cannot take, samples without dropout.
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

  @property
  def variables(self) -> dict[str, Any] | None:
    """{'params': ..., 'batch_stats': ...} on the device; None frees its memory."""
    return self._variables

  @variables.setter
  def variables(self, variables: dict[str, Any] | None) -> None:
    self._variables = jax.device_put(variables)

  def __call__(self, image: np.ndarray) -> np.ndarray:
    """Returns the class of each pixel, uint8 [h, w]."""
    return self.predict(image)['mask']

  def predict(self, image: np.ndarray, *, maps: bool = False) -> dict[str, Any]:
    """Returns the task's prediction, numpy: 'mask' uint8 [h, w], and what else the task gives.

    Args:
      image: uint8 [h, w, c] or [h, w].
      maps: whether 'probabilities' float32 [h, w, num_classes] are wanted, where the task has maps.
    """
    image = checked(image, self.experiment.channels)
    if self._is_plain(image):
      row = self.row(image, maps=maps and self._task.maps)
      return self._task.in_image(row, self.frame(), image.shape[:2])
    return self._joined(image, 'mask', *['probabilities'] * maps)

  def probabilities(self, image: np.ndarray) -> np.ndarray:
    """Returns float32 [h, w, num_classes]. Raises UserError where the task has no maps."""
    return self._joined(image, 'probabilities')['probabilities']

  def uncertainty(self, image: np.ndarray) -> np.ndarray:
    """Returns float32 [h, w], see Band. Raises UserError where the task has no maps."""
    return self._joined(image, 'uncertainty')['uncertainty']

  def instances(self, image: np.ndarray) -> Detections:
    """Returns the objects of the image, best first. Raises UserError where the task finds none."""
    prediction = self.predict(image)
    if 'detections' not in prediction:
      raise UserError(
        f'config.task={self.experiment.settings.task} predicts {", ".join(prediction)} and no '
        'detections: load a run whose task tells objects apart'
      )
    return prediction['detections']

  def bands(self, image: np.ndarray) -> Iterator[Band]:
    """Returns the prediction from the top down.

    In tiles, at one scale and without rotations, a band is what one row of tiles finishes, so that
    memory holds little more than the image; else there is one band.

    Raises:
      UserError: the task has no maps.
    """
    if not self._task.maps:
      raise UserError(
        f'config.task={self.experiment.settings.task} predicts {", ".join(sorted(self.entries))} and '
        'no probability or uncertainty of pixels'
      )
    return self._bands(checked(image, self.experiment.channels))

  def row(self, image: np.ndarray, *, maps: bool = False) -> dict[str, np.ndarray]:
    """Returns what one plain pass gives on the canvas, a row of the task's `predict`."""
    image = checked(image, self.experiment.channels)
    options = dict(size=self.frame().canvas(image.shape[:2]), maps=maps)
    rows = self._step(self.variables, self.frame().place(image)[None], **options)
    return {name: values[0] for name, values in jax.device_get(rows).items()}

  def frame(self, scale: float | None = None) -> Frame:
    """Returns where images lie in what the network gets, at the first of the scales unless given."""
    scale = self.options.scales[0] if scale is None else scale
    return self.experiment.frame(self._model, scale=scale, multiple=self.options.multiple)

  def canvas(self, height: int, width: int) -> Size:
    """Returns the size of the program, in pixels of its output, that an image of this size runs in."""
    return self.frame().output(self._trained_size or (height, width))

  @functools.cached_property
  def entries(self) -> frozenset[str]:
    """What predictions hold, such as 'mask' and 'detections'; the network is only traced."""
    image, frame = np.zeros((32, 32, self.experiment.channels), np.uint8), self.frame()
    step = functools.partial(self._step, size=frame.canvas((32, 32)), maps=self._task.maps)
    rows = jax.eval_shape(step, self.variables, frame.place(image)[None])
    row = {name: np.zeros(values.shape[1:], values.dtype) for name, values in rows.items()}
    return frozenset(self._task.in_image(row, frame, (32, 32)))

  def replace(self, **options: Any) -> Predictor:
    """Returns the same network with other options."""
    return Predictor(
      self.experiment, self.variables, self.classes, replace(self.options, **options)
    )

  def _check(self) -> None:
    options = self.options
    if not self._task.maps and not options.is_one_pass:
      raise UserError(
        f'{options.describe()}: config.task={self.experiment.settings.task} predicts no maps that '
        'could be averaged or joined: leave out scales, flips, rotations, samples and tiles'
      )
    if options.tile:
      tiles.make_tiling(self.frame(), options.tile, options.tile_step)
    if options.samples:
      averages.check_dropout(self._model, self.variables, self.experiment.channels)

  def _rows(self, variables: dict, image: jax.Array, *, size: Size, maps: bool) -> dict:
    experiment = self.experiment
    step = make_predict_step(self._model, self._task, experiment.preprocess, size=size, maps=maps)
    return step(variables, {'image': image})

  @property
  def _trained_size(self) -> Size | None:
    """The only size that images may have, as config.data.image_size says; None for any."""
    size = self.experiment.data.image_size
    return tuple(size) if size and self._task.maps else None

  def _is_plain(self, image: np.ndarray) -> bool:
    """Whether one pass over the image as it is gives the prediction."""
    size = image.shape[:2]
    resized = self._trained_size not in (None, size)
    return self.options.is_one_pass and not resized and not self._needs_tiles(size, self.frame())

  def _needs_tiles(self, size: Size, frame: Frame) -> bool:
    pixels = np.prod(frame.input(size), dtype=np.int64)
    return self._task.maps and bool(self.options.tile or pixels > self.options.max_pixels)

  def _joined(self, image: np.ndarray, *names: str) -> dict[str, np.ndarray]:
    """Returns entries of the image's bands, joined; what is not asked for is not kept."""
    bands = [[getattr(band, name) for name in names] for band in self.bands(image)]
    return {name: np.concatenate(rows) for name, *rows in zip(names, *bands, strict=True)}

  def _bands(self, image: np.ndarray) -> Iterator[Band]:
    options, num_classes = self.options, self._task.num_classes
    streams = options.rotations == 1 and options.scales == (1.0,)
    if self._trained_size not in (None, image.shape[:2]):
      yield Band.of_maps(0, self._resized_maps(image), num_classes)
    elif self._is_plain(image):
      prediction = self.predict(image, maps=True)
      yield Band(0, prediction['mask'], prediction['probabilities'], num_classes)
    elif streams and self._needs_tiles(image.shape[:2], self.frame()):
      tiling = self._tiling(image.shape[:2], self.frame())
      for top, maps in tiles.bands(self._run(tiling), image, tiling):
        yield Band.of_maps(top, maps, num_classes)
    else:
      average = averages.over_rotations(self._over_scales, options.rotations)
      yield Band.of_maps(0, average(image), num_classes)

  def _resized_maps(self, image: np.ndarray) -> np.ndarray:
    """Returns the maps [h, w, k] at the size of training, resized to the image's."""
    bands = self._bands(geometry.resize_image(image, self._trained_size))
    maps = np.concatenate([band.maps for band in bands])
    return geometry.resize_image(maps, image.shape[:2])

  def _over_scales(self, image: np.ndarray) -> np.ndarray:
    scales = self.options.scales
    return sum(self._maps(image, scale) for scale in scales) / np.float32(len(scales))

  def _maps(self, image: np.ndarray, scale: float) -> np.ndarray:
    """Returns the averaged network's maps of the image at a scale, float32 [h, w, k]."""
    frame, size = self.frame(scale), image.shape[:2]
    if not self._needs_tiles(size, frame):
      placed = frame.place(image)[None]
      maps = self._network(self.variables, placed, self._key, size=frame.canvas(size))
      return frame.cut(np.asarray(maps)[0], size)
    scaled = geometry.resize_image(image, tuple(max(1, round(side * scale)) for side in size))
    tiling = self._tiling(size, frame)
    return geometry.resize_image(tiles.joined(self._run(tiling), scaled, tiling), size)

  def _tiling(self, size: Size, frame: Frame) -> tiles.Tiling:
    if self.options.tile:
      return tiles.make_tiling(frame, self.options.tile, self.options.tile_step)
    largest = frame.rule.at_least(AUTO_TILE)
    return tiles.make_tiling(frame, tuple(min(largest, side) for side in frame.input(size)))

  def _run(self, tiling: tiles.Tiling) -> tiles.Run:
    """Returns the averaged network of one tile; every tile draws its own dropout."""
    numbers = itertools.count()

    def run(tile: np.ndarray) -> jax.Array:
      key = jax.random.fold_in(self._key, next(numbers))
      return self._network(self.variables, tile[None], key, size=tiling.output)[0]

    return run


def checked(image: np.ndarray, channels: int) -> np.ndarray:
  """Returns an image as [h, w, c]. Raises UserError where a network of `channels` cannot take it."""
  image = image[..., None] if image.ndim == 2 else image
  if image.dtype != np.uint8 or image.shape[-1] != channels:
    raise UserError(
      f'image is {image.dtype} with {image.shape[-1]} channels; this network takes uint8 with '
      f'{channels}'
    )
  return image


def load(workdir: str | Path, step: str = 'best', **options: Any) -> Predictor:
  """Returns the predictor of a trained workdir.

  Args:
    workdir: written by training.
    step: 'best' (by the task's headline score) | 'latest' | a number.
    **options: fields of Options, as in `load(workdir, scales=(0.5, 1), flip=True)`.

  Raises:
    UserError: no run or step, or options that there are not or that do not fit the network.
  """
  options = Options(**parts.arguments(Options, options, 'prediction'))
  variables, _ = load_variables(workdir, step)
  return Predictor(load_experiment(workdir), variables, load_classes(workdir), options)
