"""Run by `jaxseg.export.write` in a process of its own: do the exported files work without this package?

    python check.py FOLDER EXPECTED.npz

Needs JAX, NumPy, safetensors and flatbuffers. EXPECTED.npz holds, for each number of an image, 'N
image' uint8 [h,w,c] and 'N OUTPUT' for what is expected. Prints one line of JSON: for every program
how many images it took, the largest difference of a probability, or of a box as a share of the
image's side (1 where there is only a class, and it is another), and the number of pixels (or
detections) with another class.
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
  """Runs single images and compares with all that is expected of them."""
  call, differences, changed = jax.jit(program.call), [], 0
  for example in examples:
    image = example['image']
    outputs = call(weights, image[None])
    for name in example.keys() - {'image'}:
      actual, expected = np.asarray(outputs[name])[0], example[name]
      if np.issubdtype(expected.dtype, np.integer):
        changed += int((actual != expected).sum())
      else:
        difference = np.abs(actual - expected).max(initial=0.0)
        differences.append(difference / (max(image.shape) if name == 'boxes' else 1))
  largest = float(np.max(differences or [changed > 0]))  # nan where one is
  return {'images': len(examples), 'largest_difference': largest, 'changed_pixels': changed}


def main(folder: pathlib.Path, file: pathlib.Path) -> dict:
  card = json.loads((folder / 'card.json').read_text(encoding='utf-8'))
  weights, examples, results = load_file(folder / card['weights']), {}, {}
  with np.load(file) as arrays:
    for key in arrays.files:
      number, name = key.split()
      examples.setdefault(number, {})[name] = arrays[key]
  for entry in card['programs']:
    program = export.deserialize(bytearray((folder / entry['file']).read_bytes()))
    fitting = [e for e in examples.values() if fits(e['image'].shape, entry)]
    results[entry['file']] = compare(program, weights, fitting)
  return results


def fits(shape, entry) -> bool:
  """Whether an image is of the size that a card's entry names: numbers, 'any' or '32*h'."""
  return all(
    rule == 'any' or (n == rule if isinstance(rule, int) else n % int(rule.split('*')[0]) == 0)
    for rule, n in zip((entry['height'], entry['width']), shape[:2], strict=True)
  )


if __name__ == '__main__':
  print(json.dumps(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))))
