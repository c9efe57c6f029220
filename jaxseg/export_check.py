"""Run by `jaxseg.export` in a process of its own: do the exported files work without this package?

    python export_check.py FOLDER IMAGES.npz

Needs JAX, NumPy, safetensors and flatbuffers. Prints one line of JSON: for every program how many
images it took, the largest difference of a probability and the number of pixels with another class.
"""

import json
import pathlib
import sys

# Neither our package nor Flax may be needed; an import of either fails from here on.
sys.modules['jaxseg'] = sys.modules['flax'] = None

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax import export  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402


def compare(program, weights, images, expected) -> dict:
  """Runs single images [h,w,c] and compares with probabilities [h,w,k]."""
  call, difference, changed = jax.jit(program.call), 0.0, 0
  for image, wanted in zip(images, expected, strict=True):
    result = {k: np.asarray(v)[0] for k, v in call(weights, image[None]).items()}
    difference = max(difference, float(np.abs(result['probabilities'] - wanted).max()))
    changed += int((result['classes'] != wanted.argmax(-1)).sum())
  return {'images': len(images), 'largest_difference': difference, 'changed_pixels': changed}


def main(folder: pathlib.Path, file: pathlib.Path) -> dict:
  card = json.loads((folder / 'card.json').read_text(encoding='utf-8'))
  weights = load_file(folder / card['weights'])
  with np.load(file) as arrays:
    count = len(arrays.files) // 2
    images = [arrays[f'image{i}'] for i in range(count)]
    expected = [arrays[f'probabilities{i}'] for i in range(count)]
  results = {}
  for entry in card['programs']:
    program = export.deserialize(bytearray((folder / entry['file']).read_bytes()))
    fits = [i for i in range(count) if _fits(entry['height'], entry['width'], images[i])]
    results[entry['file']] = compare(
      program, weights, [images[i] for i in fits], [expected[i] for i in fits]
    )
  return results


def _fits(height, width, image) -> bool:
  """Whether an image is of a size that a card's entry names: a number, 'any' or '32*h'."""
  return all(
    str(rule) == 'any' or (n == rule if isinstance(rule, int) else n % int(rule.split('*')[0]) == 0)
    for rule, n in zip((height, width), image.shape[:2], strict=True)
  )


if __name__ == '__main__':
  print(json.dumps(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))))
