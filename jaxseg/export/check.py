"""Run by `jaxseg.export.write` in a process of its own: do the exported files work without this package?

    python export_check.py FOLDER IMAGES.npz

Needs JAX, NumPy, safetensors and flatbuffers. Prints one line of JSON: for every program how many
images it took, the largest difference of a probability, or of a box as a share of the image's side,
and the number of pixels (or detections) with another class.
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
  """Runs single images [h,w,c] and compares with all that is expected of them."""
  call, differences, changed = jax.jit(program.call), [], 0
  for example in examples:
    image = example['image']
    result = {k: np.asarray(v)[0] for k, v in call(weights, image[None]).items()}
    changed += int((result['classes'] != example['classes']).sum())
    for name in example.keys() - {'image', 'classes'}:
      difference = np.abs(result[name] - example[name]).max(initial=0.0)
      differences.append(float(difference) / (max(image.shape) if name == 'boxes' else 1))
  worst = max(differences, key=lambda d: d if d == d else float('inf'))
  return {'images': len(examples), 'largest_difference': worst, 'changed_pixels': changed}


def main(folder: pathlib.Path, file: pathlib.Path) -> dict:
  card = json.loads((folder / 'card.json').read_text(encoding='utf-8'))
  weights = load_file(folder / card['weights'])
  with np.load(file) as arrays:
    names = {name.rstrip('0123456789') for name in arrays.files}
    count = len(arrays.files) // len(names)
    examples = [{name: arrays[f'{name}{i}'] for name in names} for i in range(count)]
  results = {}
  for entry in card['programs']:
    program = export.deserialize(bytearray((folder / entry['file']).read_bytes()))
    fitting = [e for e in examples if _fits(entry['height'], entry['width'], e['image'])]
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
