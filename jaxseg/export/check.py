"""Run by `jaxseg.export.trial` in a separate process: do the exported files work without this package?

    python check.py FOLDER RUNTIME EXPECTED.npz TOLERANCE

EXPECTED.npz holds, for the N-th image, 'N image' [h,w,c] and the expected outputs as 'N OUTPUT'.
Prints one line of JSON: for every program of the runtime the number of images, the largest difference of
a probability, or of a box relative to the image's side (1 for a wrong class without probabilities), the
share of values that differ by more than the tolerance, the number of pixels (or detections) whose class
differs, the number of distinct classes, and the range of the probabilities.
"""

import json
import pathlib
import sys

import numpy as np


def compare(predict, examples, tolerance) -> dict:
  """Runs single images and compares their outputs with the expected ones."""
  largest, spread, classes, changed, beyond, count = 0.0, 0.0, set(), 0, 0, 0
  for example in examples:
    image = example['image']
    outputs = predict(image[None])
    for name in example.keys() - {'image'}:
      actual, expected = np.asarray(outputs[name])[0], example[name]
      if np.issubdtype(expected.dtype, np.integer):
        difference = (actual != expected).astype(float)
        changed += int(difference.sum())
        if 'probabilities' in example:
          difference *= _margin(example['probabilities'], expected, actual)
        classes.update(np.unique(actual).tolist())
      else:
        difference = np.abs(actual - expected) / (max(image.shape) if name == 'boxes' else 1)
        spread = max(spread, float(np.ptp(actual)) if actual.size else 0.0)
      if name != 'classes' or len(example) == 2:
        largest = float(np.maximum(largest, difference.max(initial=0.0)))  # propagates nan
      beyond += int((~(difference <= tolerance)).sum())
      count += difference.size
  return {
    'images': len(examples),
    'largest_difference': largest,
    'beyond': beyond / max(count, 1),
    'changed_pixels': changed,
    'kinds': len(classes),
    'spread': spread,
  }


def _margin(probabilities, expected, actual):
  """How far two classes' probabilities are from their mean: within the tolerance either may win."""
  pair = np.stack([expected, actual], -1).astype(int)
  high, low = np.moveaxis(np.take_along_axis(probabilities, pair, -1), -1, 0)
  return (high - low) / 2


def main(folder: pathlib.Path, runtime: str, file: pathlib.Path, tolerance: float) -> dict:
  blocked = {'jaxseg', 'flax', 'onnx'} | ({'jax'} if runtime != 'jax' else set())
  sys.modules.update(dict.fromkeys(blocked))  # importing any of them fails from here on
  sys.path.insert(0, str(folder))
  sys.dont_write_bytecode = True
  from run import fits, load

  card = json.loads((folder / 'card.json').read_text(encoding='utf-8'))
  examples = {}
  with np.load(file) as arrays:
    for key in arrays.files:
      number, name = key.split()
      examples.setdefault(number, {})[name] = arrays[key]
  return {
    entry['file']: compare(
      load(folder, runtime, entry['file']),
      [e for e in examples.values() if fits((1, *e['image'].shape), entry)],
      tolerance,
    )
    for entry in card['programs']
    if entry['runtime'] == runtime
  }


if __name__ == '__main__':
  folder, runtime, file, tolerance = sys.argv[1:]
  print(json.dumps(main(pathlib.Path(folder), runtime, pathlib.Path(file), float(tolerance))))
