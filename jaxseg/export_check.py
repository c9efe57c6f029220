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


def compare(program, weights, examples) -> dict:
  """Runs single images [h,w,c] and compares with probabilities [h,w,k] and classes [h,w]."""
  call, differences, changed = jax.jit(program.call), [], 0
  for image, probabilities, classes in examples:
    result = {k: np.asarray(v)[0] for k, v in call(weights, image[None]).items()}
    differences.append(float(np.abs(result['probabilities'] - probabilities).max()))
    changed += int((result['classes'] != classes).sum())
  worst = max(differences, key=lambda d: d if d == d else float('inf'))
  return {'images': len(examples), 'largest_difference': worst, 'changed_pixels': changed}


def main(folder: pathlib.Path, file: pathlib.Path) -> dict:
  card = json.loads((folder / 'card.json').read_text(encoding='utf-8'))
  weights = load_file(folder / card['weights'])
  with np.load(file) as arrays:
    names = ('image', 'probabilities', 'classes')
    examples = [[arrays[f'{n}{i}'] for n in names] for i in range(len(arrays.files) // len(names))]
  results = {}
  for entry in card['programs']:
    program = export.deserialize(bytearray((folder / entry['file']).read_bytes()))
    fitting = [e for e in examples if _fits(entry['height'], entry['width'], e[0])]
    results[entry['file']] = compare(program, weights, fitting)
  return results


def _fits(height, width, image) -> bool:
  """Whether an image is of a size that a card's entry names: a number, 'any' or '32*h'."""
  return all(
    str(rule) == 'any' or (n == rule if isinstance(rule, int) else n % int(rule.split('*')[0]) == 0)
    for rule, n in zip((height, width), image.shape[:2], strict=True)
  )


if __name__ == '__main__':
  print(json.dumps(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))))
