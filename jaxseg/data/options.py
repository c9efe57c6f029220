"""The config's group `data`: the dataset, the format of its images, and how to read it."""

import dataclasses
from typing import Any, Literal

from jaxseg.config.fields import check_fields, checked, within
from jaxseg.types import LARGEST, LONGEST, UserError


@dataclasses.dataclass(frozen=True)
class Data:
  """The data of a run.

  Attributes:
    name: a module of jaxseg.datasets, or the import path of your own.
    options: keyword arguments of its `source`.
    train_split: split to train on.
    image_size: (height, width) to which every image and label is resized, in training and
      evaluation; () leaves them as they are.
    resize_labels: to `image_size`, see geometry.resize_label.
    percentiles: lower and upper; every image's contrast is stretched to them, see contrast.stretch, in
      training, evaluation and prediction (mean and std are then of such images); () leaves it as it is.
    dtype: of the images, which are never scaled; float32 accepts images of any dtype, unscaled.
    mean: subtracted from the image, one value per channel in the image's units, red first.
    std: divides it afterwards, likewise.
    channel_order: 'bgr' if Caffe's weights require it.
    replacement: draw training images with replacement instead of by epochs.
    num_threads: threads that decode and augment.
    timeout: seconds without any finished example after which a run stops; 0 waits for ever.
    changed: whether a run may be resumed with other files than before.
    memory_mb: a set whose decoded examples fit in this many MB is decoded only once.
  """

  name: str = 'shapes'
  options: dict[str, Any] = dataclasses.field(default_factory=dict)
  train_split: str = 'train'
  image_size: tuple[int, int] | tuple[()] = checked(
    lambda v: len(v) in (0, 2) and all(0 < side <= LONGEST for side in v),
    f'(height, width) in pixels, at most {LONGEST}, or () for none',
    default=(),
  )
  resize_labels: Literal['nearest', 'shares'] = 'nearest'
  percentiles: tuple[float, float] | tuple[()] = checked(
    lambda v: len(v) == 0 or len(v) == 2 and 0 <= v[0] < v[1] <= 100,
    '(lower, upper), from 0 to 100 and increasing, or () for none',
    default=(),
  )
  dtype: Literal['uint8', 'uint16', 'int16', 'float32'] = 'uint8'
  mean: tuple[float, ...] = within(-1e9, 1e9, some=True, default=(127.5, 127.5, 127.5))
  std: tuple[float, ...] = checked(
    lambda v: all(0 < s <= 1e9 for s in v),
    'every value must be above 0, at most 1e9',
    default=(127.5, 127.5, 127.5),
  )
  channel_order: Literal['rgb', 'bgr'] = 'rgb'
  replacement: bool = False
  changed: bool = False
  num_threads: int = within(1, 1024, default=2)
  timeout: float = within(0, 1e6, default=60.0)
  memory_mb: int = within(0, LARGEST, default=4096)

  def __post_init__(self):
    check_fields(self, 'config.data')
    if len(self.std) != self.channels:
      raise UserError(
        f'config.data.std={self.std}: one value for each of the {self.channels} channels of '
        'config.data.mean'
      )

  @property
  def channels(self) -> int:
    """Channels of the image."""
    return len(self.mean)
