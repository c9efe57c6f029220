"""Benchmarks RoIAlign and non-maximum suppression alone, at a config's sizes for one image."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.console import say
from jaxseg.nn.detection import nms
from jaxseg.nn.layers.roi_align import level_of, roi_align
from jaxseg.tools.benchmark import timing
from jaxseg.tools.benchmark.process import Process
from jaxseg.train.build import Experiment
from jaxseg.types import UserError

OPERATIONS = ('roi_align', 'suppress')
_THRESHOLD = 0.7  # of the proposals
_BINS = 7  # of the box head


def table(
  experiment: Experiment,
  size: tuple[int, int],
  *,
  torch: bool = False,
  trials: int = 5,
) -> dict[str, Any]:
  """Times both, optionally alternating with PyTorch's, and prints a line for each side.

  RoIAlign: value and gradient, with as many boxes as train the box head. Suppression: with a level's
  training candidates.

  Args:
    experiment: of a Mask R-CNN.
    size: (height, width) of the image.
    torch: whether to time PyTorch too.
    trials: rounds, of which the median is taken.

  Returns:
    operation -> {'seconds': {side: ...}, 'ratio': {...}, 'ratio_cpu': {...}}.

  Raises:
    UserError: a network without proposals.
  """
  arrays = example(experiment, size)
  ours = Operations(arrays)
  theirs = Process('torch_detection.TorchOperations', arrays) if torch else None
  result = {}
  for name in OPERATIONS:
    programs = {'ours': getattr(ours, name)}
    if theirs:
      programs['torch'] = theirs.program(name)
    times = timing.alternate(programs, trials)
    for side in programs:
      say(f'{name:9} {side:5} {timing.line(times[side], times["ours"])}')
    result[name] = timing.record(times, tuple(programs))
  return result


def example(experiment: Experiment, size: tuple[int, int]) -> dict[str, Any]:
  """Returns random maps and boxes (numpy) of one image, the boxes half to twice the anchors' size."""
  model, rng = experiment.model(), np.random.default_rng(0)
  if not hasattr(model, 'anchor_sizes'):
    name = experiment.config['model']['name']
    raise UserError(f'--mode=detection: {name} has no proposals: use configs/mask_rcnn_*.py')
  strides = [4 * 2**i for i in range(len(model.anchor_sizes))]

  def boxes(count: int) -> np.ndarray:
    centre = rng.uniform(0, 1, (count, 2)) * size[::-1]
    side = rng.choice(model.anchor_sizes, (count, 1)) * rng.uniform(0.5, 2, (count, 2))
    corners = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    return np.clip(corners, 0, [*size[::-1]] * 2).astype(np.float32)

  maps = [
    rng.standard_normal((1, -(-size[0] // s), -(-size[1] // s), model.features), np.float32)
    for s in strides
  ]
  rois = boxes(model.roi_samples)
  levels = level_of(rois, len(maps), canonical_size=model.canonical_size)
  return {
    'maps': maps,
    'strides': strides,
    'size': _BINS,
    'boxes': rois,
    'levels': np.asarray(levels).astype(np.int64),
    'weight': rng.standard_normal((len(rois), _BINS, _BINS, model.features), np.float32),
    'candidates': boxes(model.pre_nms[0]),
    'threshold': _THRESHOLD,
  }


class Operations:
  """Both operations, compiled, on the arrays of `example`."""

  def __init__(self, arrays: dict[str, Any]):
    self._maps = [jnp.asarray(m[0]) for m in arrays['maps']]
    self._weight, self._candidates, boxes, levels = (
      jnp.asarray(arrays[k]) for k in ('weight', 'candidates', 'boxes', 'levels')
    )

    def value_and_gradient(maps, weight):
      aligned = lambda maps: roi_align(maps, arrays['strides'], boxes, levels, arrays['size'])  # noqa: E731
      value, pull = jax.vjp(aligned, maps)
      return value, pull(weight)

    self._align = jax.jit(value_and_gradient)
    scores = jnp.arange(len(self._candidates), 0, -1, dtype=jnp.float32)
    self._suppress = jax.jit(lambda boxes: nms.suppress(boxes, scores, arrays['threshold']))

  def roi_align(self) -> None:
    """Computes the value and the maps' gradient, and waits for them."""
    jax.block_until_ready(self._align(self._maps, self._weight))

  def suppress(self) -> None:
    """Computes the kept boxes, and waits for them."""
    jax.block_until_ready(self._suppress(self._candidates))
