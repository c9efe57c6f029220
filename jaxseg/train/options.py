"""Config groups shared by several parts of a run: evaluation, initial weights and output."""

import dataclasses

from jaxseg.config.fields import check_fields, patterns, within, words
from jaxseg.types import LARGEST, LONGEST, SCALES, UserError

IGNORABLE = ('mean', 'std', 'channel_order', 'network', 'dtype', 'percentiles')


@dataclasses.dataclass(frozen=True)
class EvalOptions:
  """How a run is scored.

  Attributes:
    every: steps between two evaluations.
    patience: training ends after this many consecutive evaluations without a better headline score;
      0: never.
    batch_size: over all devices; 0: that of training.
    scales: factors by which images are resized for the network; scores are at the labels' size.
      launch/evaluate.py averages several.
    short_side: for instance segmentation: images are resized to this shorter side, with the longer at
      most `long_side`; 0: not resized. Objects are returned at the image's original size.
    mirror_border: whether to pad images by reflection; None: if the network crops a margin.
    score: options of the task's score.
    scores: further scores, by their file names in jaxseg/metrics.
    population_pass: recompute BatchNorm's population statistics over the training set (SegNet).
  """

  every: int = within(1, LARGEST, default=500)
  patience: int = within(0, LARGEST, default=0)
  batch_size: int = within(0, 1 << 16, default=0)
  scales: tuple[float, ...] = within(*SCALES, some=True, default=(1.0,))
  short_side: int = within(0, LONGEST, default=0)
  long_side: int = within(1, LONGEST, default=1333)
  mirror_border: bool | None = None
  score: dict = dataclasses.field(default_factory=dict)
  scores: tuple[str, ...] = ()
  population_pass: bool = False

  def __post_init__(self):
    check_fields(self, 'config.eval')
    if self.short_side > self.long_side:
      raise UserError(
        f'config.eval.short_side={self.short_side}: at most config.eval.long_side={self.long_side}'
      )


@dataclasses.dataclass(frozen=True)
class InitOptions:
  """What may differ between a network and its initial weights (`init_from`).

  Attributes:
    new: patterns of parameter names to initialise randomly; all others must be in the weights.
    unused: patterns of names in the weights that the network need not have.
    ignore: differences to accept: 'mean', 'std', 'channel_order', 'dtype', 'percentiles' (preprocessing)
      and 'network' (its options).
    step: which checkpoint of a workdir: 'best' | 'latest' | a number.
  """

  new: tuple[str, ...] = patterns(default=())
  unused: tuple[str, ...] = patterns(default=())
  ignore: tuple[str, ...] = words(*IGNORABLE, default=())
  step: str = 'best'

  def __post_init__(self):
    check_fields(self, 'config.init')


@dataclasses.dataclass(frozen=True)
class LogOptions:
  """What a run writes.

  Attributes:
    every: steps between lines of the log.
    checkpoint_every: steps between checkpoints; every evaluation saves one too.
    keep: number of newest checkpoints to keep, beside the best.
    figures: number of validation images to draw at every evaluation.
    wandb: Weights & Biases project that gets metrics and pictures too (extra 'wandb'); '' is off.
  """

  every: int = within(1, LARGEST, default=20)
  checkpoint_every: int = within(1, LARGEST, default=500)
  keep: int = within(1, LARGEST, default=2)
  figures: int = within(0, 1000, default=6)
  wandb: str = ''

  def __post_init__(self):
    check_fields(self, 'config.log')
