"""RoIAlign and non-maximum suppression alone, at the sizes that a config has for one image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxseg.nn.detection import nms
from jaxseg.nn.layers.roi_align import level_of, roi_align
from jaxseg.tools.benchmark import timing
from jaxseg.tools.benchmark.torch_process import TorchProcess
from jaxseg.train import build
from jaxseg.types import UserError

OPERATIONS = ('roi_align', 'suppress')
_THRESHOLD = 0.7  # of the proposals
_BINS = 7  # of the box head


def table(
  config: ConfigDict,
  size: tuple[int, int],
  *,
  torch: bool = False,
  trials: int = 5,
  say: Callable[[str], None] = print,
) -> dict[str, Any]:
  """Times both, in turn with PyTorch's where asked for.

  RoIAlign: value and gradient, of as many boxes as train the box head. Suppression: of a level's
  candidates in training.

  Args:
    config: of a Mask R-CNN.
    size: (height, width) of the image.
    torch: whether PyTorch is timed too.
    trials: rounds of which medians are taken.
    say: gets a line for each.

  Returns:
    operation -> {'seconds': {side: ...}, 'ratio': {...}, 'ratio_cpu': {...}}.

  Raises:
    UserError: the config finds no instances.
  """
  if config.task != 'instance':
    raise UserError("--mode=detection is for config.task='instance': use configs/mask_rcnn_*.py")
  arrays = example(config, size)
  ours = Operations(arrays)
  theirs = TorchProcess(config, arrays, part='detection') if torch else None
  result = {}
  for name in OPERATIONS:
    programs = {'ours': getattr(ours, name)}
    if theirs:
      programs['torch'] = theirs.program(name)
    times = timing.in_turn(programs, trials)
    record = {'seconds': {side: dataclasses.asdict(t) for side, t in times.items()}}
    line = f'{name:9} ours {times["ours"].wall:.4g} s ({times["ours"].cpu:.4g} CPU-s)'
    if theirs:
      base, other = times['ours'], times['torch']
      record['ratio'] = {'torch': base.wall / other.wall}
      record['ratio_cpu'] = {'torch': base.cpu / max(other.cpu, 1e-9)}
      line += (
        f'; torch {other.wall:.4g} s ({other.cpu:.4g} CPU-s); ours takes '
        f'{record["ratio"]["torch"]:.2f} of its time ({record["ratio_cpu"]["torch"]:.2f} of its CPU time)'
      )
    say(line)
    result[name] = record
  return result


def example(config: ConfigDict, size: tuple[int, int]) -> dict[str, Any]:
  """Returns random maps and boxes (numpy) of one image, half to twice the anchors' size."""
  model, rng = build.model_from(config), np.random.default_rng(0)
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
  """Both, compiled, on the arrays of `example`."""

  def __init__(self, arrays: dict[str, Any]):
    on_device = {k: jax.tree.map(jnp.asarray, v) for k, v in arrays.items() if k != 'strides'}
    self._maps, self._weight = [m[0] for m in on_device['maps']], on_device['weight']
    boxes, levels = on_device['boxes'], on_device['levels']

    def aligned(maps):
      return roi_align(maps, arrays['strides'], boxes, levels, arrays['size'])

    def both(maps, weight):
      value, pull = jax.vjp(aligned, maps)
      return value, pull(weight)

    self._align = jax.jit(both)
    scores = jnp.arange(len(arrays['candidates']), 0, -1, dtype=jnp.float32)
    self._suppress = jax.jit(lambda boxes: nms.suppress(boxes, scores, arrays['threshold']))
    self._candidates = on_device['candidates']

  def roi_align(self) -> None:
    """Value and the gradient of the maps; returns when done."""
    jax.block_until_ready(self._align(self._maps, self._weight))

  def suppress(self) -> None:
    """Returns when done."""
    jax.block_until_ready(self._suppress(self._candidates))
