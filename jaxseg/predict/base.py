"""What every predictor offers, of one network or of several; see predictor.py and ensemble.py."""

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
from jaxseg.train.build import Experiment
from jaxseg.train.run_folder import Classes
from jaxseg.types import Detections, UserError


class BasePredictor(abc.ABC):
  """Maps images to what a run's task predicts: `mask = predictor(image)`.

  An image is an array [h, w, c] or [h, w] of the type and channels that the run trained on, an image
  of Pillow's or the path of a file; the last two are read as training reads files, see `checked`.

  Attributes:
    experiment: of the run; of several that of the first.
    classes: names and colours of the classes.
    options: what is averaged and cut, and the temperature.
  """

  experiment: Experiment
  classes: Classes
  options: Options

  def __call__(self, image: np.ndarray) -> np.ndarray:
    """Returns the class of each pixel, uint8 [h, w]."""
    return self.predict(image)['mask']

  def predict(self, image: np.ndarray, *, maps: bool = False) -> dict[str, Any]:
    """Returns the task's prediction, numpy: 'mask' uint8 [h, w], and what else the task gives.

    Args:
      image: see the class.
      maps: whether 'probabilities' float32 [h, w, num_classes] and 'uncertainty' float32 [h, w] are
        wanted, where the task has maps.
    """
    return self._joined(image, 'mask', *['probabilities', 'uncertainty'] * maps)

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
    if not self.experiment.task.maps:
      raise UserError(
        f'config.task={self.experiment.settings.task} predicts {", ".join(sorted(self.entries))} and '
        'no probability or uncertainty of pixels'
      )
    return map(self._tempered, self._bands(checked(image, self.experiment.data)))

  @property
  @abc.abstractmethod
  def entries(self) -> frozenset[str]:
    """What predictions hold, such as 'mask' and 'detections'."""

  @abc.abstractmethod
  def canvas(self, height: int, width: int) -> Any:
    """Returns what is the same for images, of these sizes, that run in the same programs."""

  @abc.abstractmethod
  def comes_in_bands(self, size: Size) -> bool:
    """Whether an image of this size is predicted in parts, or only as maps."""

  @abc.abstractmethod
  def replace(self, **options: Any) -> Self:
    """Returns the same networks with other options."""

  @abc.abstractmethod
  def _bands(self, image: np.ndarray) -> Iterator[Band]:
    """Yields the bands of an image [h, w, c] at temperature 1."""

  def _tempered(self, band: Band) -> Band:
    """Returns the band at the options' temperature, which changes no mask and no variance."""
    if self.options.temperature == 1:
      return band
    probabilities = tempered(band.probabilities, self.options.temperature)
    maps = np.concatenate([probabilities, band.maps[..., band.num_classes :]], axis=-1)
    return dataclasses.replace(band, maps=maps)

  def _joined(self, image: np.ndarray, *names: str) -> dict[str, np.ndarray]:
    """Returns entries of the image's bands, joined; what is not asked for is not kept."""
    bands = [[getattr(band, name) for name in names] for band in self.bands(image)]
    return {name: np.concatenate(rows) for name, *rows in zip(names, *bands, strict=True)}


def checked(image: Any, data: Data) -> np.ndarray:
  """Returns an image as a run's network takes it, [h, w, data.channels] of data.dtype.

  Args:
    image: the path of a file, an image of Pillow's, or an array [h, w] or [h, w, c].
    data: of the run's config.

  Raises:
    UserError: it cannot be read, or has other channels or another type.
  """
  wanted = dict(channels=data.channels, dtype=data.dtype)
  if isinstance(image, (str, os.PathLike)):
    return image_files.read_image(files.place(image), **wanted)
  if isinstance(image, Image.Image):
    return image_files.as_image(pages.of_picture(image), **wanted)
  if isinstance(image, np.ma.MaskedArray):
    raise UserError('a masked array: what is masked has a value too, give image.filled(VALUE)')
  image = np.asarray(image)
  if image.ndim not in (2, 3) or 0 in image.shape:
    raise UserError(f'image has the shape {image.shape}: (h, w) or (h, w, channels) is taken')
  return image_files.fitted(image, **wanted)
