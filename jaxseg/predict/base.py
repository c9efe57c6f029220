"""The interface of predictors of one network (predictor.py) or several (ensemble.py)."""

from __future__ import annotations

import abc
import dataclasses
import os
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from PIL import Image

from jaxseg import files
from jaxseg.data import image_files, pages
from jaxseg.data.geometry import Size
from jaxseg.data.options import Data
from jaxseg.metrics.temperature import tempered
from jaxseg.predict.averages import Band
from jaxseg.predict.options import Options
from jaxseg.predict.specks import without_specks
from jaxseg.train.build import Experiment
from jaxseg.train.run_folder import Classes
from jaxseg.types import Detections, UserError


class BasePredictor(abc.ABC):
  """Maps images to the predictions of a run's task: `mask = predictor(image)`.

  An image is an array [h, w, c] or [h, w] of the dtype and channels that the run trained on, a Pillow
  image or a file's path; the last two are converted as in training, see `checked`.

  Attributes:
    experiment: of the (first) run.
    classes: names and colours of the classes.
    options: averaging, tiling and temperature.
  """

  experiment: Experiment
  classes: Classes
  options: Options

  def __call__(self, image: np.ndarray) -> np.ndarray:
    """Returns the class of each pixel, uint8 [h, w]."""
    return self.predict(image)['mask']

  def predict(self, image: np.ndarray, *, maps: bool = False) -> dict[str, Any]:
    """Returns the task's prediction as numpy arrays: 'mask' uint8 [h, w], and the task's further entries.

    Args:
      image: see the class.
      maps: adds 'probabilities' float32 [h, w, num_classes] and 'uncertainty' float32 [h, w] if the
        task has maps.
    """
    prediction = self._predict(image, maps)
    return {**prediction, 'mask': self.cleaned(prediction['mask'])}

  def cleaned(self, mask: np.ndarray) -> np.ndarray:
    """Returns a mask of `bands` as `predict` has it: without parts below options.min_area."""
    least = self.options.min_area
    return without_specks(mask, least) if least > 1 else mask

  def probabilities(self, image: np.ndarray) -> np.ndarray:
    """Returns float32 [h, w, num_classes]. Raises UserError if the task has no maps."""
    return self._joined(image, 'probabilities')['probabilities']

  def uncertainty(self, image: np.ndarray) -> np.ndarray:
    """Returns float32 [h, w], see Band. Raises UserError if the task has no maps."""
    return self._joined(image, 'uncertainty')['uncertainty']

  def instances(self, image: np.ndarray) -> Detections:
    """Returns the detected objects, best first. Raises UserError if the task detects none."""
    prediction = self.predict(image)
    if 'detections' not in prediction:
      raise UserError(
        f'config.task={self.experiment.settings.task} predicts {", ".join(prediction)} and no '
        'detections: load a run whose task detects objects'
      )
    return prediction['detections']

  def bands(self, image: np.ndarray) -> Iterator[Band]:
    """Returns the prediction in bands, from top to bottom.

    With tiles at one scale and without rotations, each row of tiles yields a band, so that memory holds
    little more than the image; otherwise there is one band.

    Raises:
      UserError: the task has no maps.
    """
    if not self.experiment.task.maps:
      raise UserError(
        f'config.task={self.experiment.settings.task} predicts {", ".join(sorted(self.entries))} and '
        'no probability or uncertainty of pixels'
      )
    return map(self._tempered, self._bands(self._input(image)))

  @property
  @abc.abstractmethod
  def entries(self) -> frozenset[str]:
    """Keys of a prediction, such as 'mask' and 'detections'."""

  @abc.abstractmethod
  def canvas(self, height: int, width: int) -> Any:
    """Returns a key that is equal for image sizes that share compiled programs."""

  @abc.abstractmethod
  def comes_in_bands(self, size: Size) -> bool:
    """Whether an image of this size has to be predicted through `bands`."""

  @abc.abstractmethod
  def replace(self, **options: Any) -> Self:
    """Returns the same networks with other options."""

  @abc.abstractmethod
  def _bands(self, image: np.ndarray) -> Iterator[Band]:
    """Yields the bands of an image [h, w, c] at temperature 1."""

  def _input(self, image: Any) -> np.ndarray:
    """Returns an image as the run's source would give it, see `checked`."""
    return checked(image, self.experiment.data)

  def _predict(self, image: Any, maps: bool) -> dict[str, Any]:
    """As `predict`, before small parts are removed."""
    return self._joined(image, 'mask', *['probabilities', 'uncertainty'] * maps)

  def _tempered(self, band: Band) -> Band:
    """Applies the temperature to a band's probabilities; mask and variance stay."""
    if self.options.temperature == 1:
      return band
    probabilities = tempered(band.probabilities, self.options.temperature)
    maps = np.concatenate([probabilities, band.maps[..., band.num_classes :]], axis=-1)
    return dataclasses.replace(band, maps=maps)

  def _joined(self, image: np.ndarray, *names: str) -> dict[str, np.ndarray]:
    """Returns the named entries, concatenated over the bands."""
    bands = [[getattr(band, name) for name in names] for band in self.bands(image)]
    return {name: np.concatenate(rows) for name, *rows in zip(names, *bands, strict=True)}


def checked(image: Any, data: Data) -> np.ndarray:
  """Converts an image to the network's input format, [h, w, data.channels] of data.dtype.

  Args:
    image: a file's path, a Pillow image, or an array [h, w] or [h, w, c].
    data: of the run's config.

  Raises:
    UserError: it cannot be read, or has other channels or another dtype.
  """
  wanted = dict(channels=data.channels, dtype=data.dtype)
  if isinstance(image, (str, os.PathLike)):
    return image_files.read_image(files.to_path(image), **wanted)
  if isinstance(image, Image.Image):
    return image_files.as_image(pages.of_picture(image), **wanted)
  if isinstance(image, np.ma.MaskedArray):
    raise UserError('a masked array: what is masked has a value too, give image.filled(VALUE)')
  image = np.asarray(image)
  if image.ndim not in (2, 3) or 0 in image.shape:
    raise UserError(f'image has the shape {image.shape}: (h, w) or (h, w, channels) is taken')
  return image_files.fitted(image, **wanted)
