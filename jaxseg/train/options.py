"""Options of a run that several of its parts read: evaluation, first weights, and what is written."""

import dataclasses

from jaxseg.config.fields import check_fields, patterns, within, words
from jaxseg.types import LARGEST, LONGEST, SCALES, UserError

IGNORABLE = ('mean', 'std', 'channel_order', 'network', 'dtype')


@dataclasses.dataclass(frozen=True)
class EvalOptions:
  """How a run is scored.

  Attributes:
    every: steps between two evaluations.
    patience: evaluations in a row without a better headline score after which the training is finished;
      0: it goes on.
    batch_size: over all devices; 0: that of training.
    scales: the network sees images of this size; scores are at the labels' own size. Several are
      averaged by launch/evaluate.py.
    short_side: for networks of objects: the shorter side of what the network sees, at most
      `long_side` the longer; 0: images as they are. Objects are given back in the image's own size.
    mirror_border: whether images are mirrored outwards; None: where the network eats a margin.
    score: options of the task's own score.
    scores: further scores, by the names of their files in jaxseg/metrics.
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
  """What may differ between a network and the weights that it starts from (`init_from`).

  Attributes:
    new: patterns of parameter names that start anew; anything else must be in the weights.
    unused: patterns of names in the weights that this network may do without.
    ignore: of 'mean', 'std', 'channel_order' (of the pixels) and 'network' (its options).
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
    every: steps between two lines of the log.
    checkpoint_every: steps between two checkpoints; each evaluation makes one too.
    keep: newest checkpoints kept, beside the best.
    figures: validation images drawn at every evaluation.
    wandb: project of Weights & Biases that gets metrics and pictures too (extra 'wandb'); '' is off.
  """

  every: int = within(1, LARGEST, default=20)
  checkpoint_every: int = within(1, LARGEST, default=500)
  keep: int = within(1, LARGEST, default=2)
  figures: int = within(0, 1000, default=6)
  wandb: str = ''

  def __post_init__(self):
    check_fields(self, 'config.log')
