"""RoIAlign and non-maximum suppression in plain PyTorch, without compiled extensions."""

import os

import torch
import torch.nn.functional as F


def roi_align(maps, strides, boxes, levels, size, samples=2):
  """Samples boxes by bilinear interpolation; pixels are areas; the border's value is used outside.

  Args:
    maps: [1, c, h, w] of each level; strides: image pixels per cell; boxes: [n, 4] in pixels; levels:
      [n], index of the map; size: bins along a side; samples: points along a side of a bin.

  Returns:
    [n, c, size, size].
  """
  out = maps[0].new_zeros(len(boxes), maps[0].shape[1], size, size)
  steps = (torch.arange(size * samples) + 0.5) / (size * samples)
  for level, (features, stride) in enumerate(zip(maps, strides, strict=True)):
    chosen = torch.nonzero(levels == level)[:, 0]
    if not len(chosen):
      continue
    height, width = features.shape[2:]
    corners = boxes[chosen] / stride
    sides = corners[:, 2:] - corners[:, :2]
    points = corners[:, None, :2] + steps[None, :, None] * sides[:, None]
    x, y = 2 * points[..., 0] / width - 1, 2 * points[..., 1] / height - 1
    count = size * samples
    grid = torch.stack(
      [x[:, None].expand(-1, count, -1), y[:, :, None].expand(-1, -1, count)], dim=-1
    )
    grid = grid.reshape(1, -1, count, 2)  # all boxes in one grid, so that the map is read once
    values = F.grid_sample(features, grid, padding_mode='border', align_corners=False)
    bins = F.avg_pool2d(values, samples)
    bins = bins.reshape(bins.shape[1], len(chosen), size, size).transpose(0, 1)
    out = out.index_copy(0, chosen, bins)
  return out


def suppress(boxes, threshold):
  """Greedy NMS of boxes [n, 4], sorted by descending score; returns which to keep."""
  area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
  low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
  high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
  shared = (high - low).clamp(min=0).prod(dim=-1)
  over = shared > threshold * (area[:, None] + area[None] - shared)
  kept = torch.ones(len(boxes), dtype=torch.bool)
  for i in range(len(boxes)):
    if kept[i]:
      kept[i + 1 :] &= ~over[i, i + 1 :]
  return kept


class TorchOperations:
  """Both operations on one image's arrays; see detection.Operations."""

  def __init__(self, arrays):
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    maps = (torch.from_numpy(m).permute(0, 3, 1, 2) for m in arrays['maps'])
    self._maps = [m.contiguous(memory_format=torch.channels_last).requires_grad_() for m in maps]
    self._strides, self._size = arrays['strides'], arrays['size']
    self._boxes, self._levels, self._sorted, self._weight = (
      torch.from_numpy(arrays[k]) for k in ('boxes', 'levels', 'candidates', 'weight')
    )
    self._weight = self._weight.permute(0, 3, 1, 2)
    self._threshold = arrays['threshold']

  def roi_align(self):
    """Computes the value and the maps' gradient, and waits for them."""
    for features in self._maps:
      features.grad = None
    out = roi_align(self._maps, self._strides, self._boxes, self._levels, self._size)
    out.backward(self._weight)

  def suppress(self):
    """Computes the kept boxes, and waits for them."""
    with torch.inference_mode():
      suppress(self._sorted, self._threshold)
