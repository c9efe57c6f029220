"""Runs this export, without jaxseg. Each runtime needs NumPy and

jax    jax, flatbuffers, safetensors
onnx   onnxruntime                                        (of an export with --onnx)
iree   iree-base-compiler, iree-base-runtime, safetensors

from run import load
predict = load('FOLDER', 'onnx')
outputs = predict(images)    # [b,h,w,c] of the card's type -> {'classes': ...}; see card.json
"""

import functools
import json
import pathlib

import numpy as np

PROGRAMS_KEPT = 8  # compiled programs, one per image size


def load(folder, runtime, file=None):
  """Returns a function of images, which compiles for each new size. `file` selects one program."""
  folder = pathlib.Path(folder)
  card = json.loads((folder / 'card.json').read_text(encoding='utf-8'))
  entries = [e for e in card['programs'] if e['runtime'] == runtime and file in (None, e['file'])]
  if not entries:
    raise ValueError(f'{folder} holds no program for {runtime}; see its card.json')
  start = functools.cache(lambda number: _START[runtime](folder, card, entries[number]))

  def predict(images):
    fitting = [i for i, entry in enumerate(entries) if fits(images.shape, entry)]
    if not fitting or images.dtype != card['input']['dtype']:
      shapes = ' or '.join(str(entry['shape']) for entry in entries)
      raise ValueError(
        f'images are {images.dtype} {list(images.shape)}; {runtime} takes {card["input"]["dtype"]} {shapes}'
      )
    return start(fitting[0])(stretched(images, card['input'].get('percentiles')))

  return predict


def fits(shape, entry):
  """Whether images [b,h,w,c] fit an entry's shape: numbers, letters if free, or '32*h'."""
  return all(
    n == side if isinstance(side, int) else '*' not in side or n % int(side.split('*')[0]) == 0
    for n, side in zip(shape, entry['shape'], strict=True)
  )


def stretched(images, percentiles):
  """Gives each image the contrast of training: percentiles of it become 0 and its type's maximum."""
  if not percentiles:
    return images
  axes = tuple(range(1, images.ndim))
  lows, highs = np.percentile(images, percentiles, axes, method='nearest', keepdims=True).astype(
    float
  )
  is_integer = images.dtype.kind in 'ui'
  most = np.iinfo(images.dtype).max if is_integer else 1.0
  scaled = np.clip((images - lows) / np.maximum(highs - lows, 1e-30) * most, 0, most)
  scaled = np.rint(scaled) if is_integer else scaled
  return np.where(lows == highs, images, scaled).astype(images.dtype)


def _jax(folder, card, entry):
  import jax
  from safetensors.numpy import load_file

  weights = jax.device_put(load_file(folder / card['weights']))
  program = jax.export.deserialize(bytearray((folder / entry['file']).read_bytes()))

  @functools.lru_cache(maxsize=PROGRAMS_KEPT)
  def compiled(shape):
    images = jax.ShapeDtypeStruct(shape, card['input']['dtype'])
    return jax.jit(program.call).lower(weights, images).compile()

  return lambda images: compiled(images.shape)(weights, images)


def _onnx(folder, card, entry):
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3  # errors
  providers = onnxruntime.get_available_providers()
  session = onnxruntime.InferenceSession(str(folder / entry['file']), options, providers=providers)
  names = [output.name for output in session.get_outputs()]
  return lambda images: dict(zip(names, session.run(None, {'image': images}), strict=True))


def _iree(folder, card, entry):
  import iree.compiler
  import iree.runtime
  from safetensors.numpy import load_file

  weights = load_file(folder / card['weights'])
  for_this_cpu = ['--iree-llvmcpu-target-cpu=host']
  binary = iree.compiler.compile_file(
    str(folder / entry['file']), target_backends=['llvm-cpu'], extra_args=for_this_cpu
  )
  config = iree.runtime.Config('local-task')
  module = iree.runtime.VmModule.copy_buffer(config.vm_instance, binary)
  main = iree.runtime.load_vm_module(module, config).main
  names = [argument['name'] for argument in entry['arguments']]
  on_device = functools.partial(iree.runtime.asdevicearray, config.device)
  held = [None if name == 'image' else on_device(weights[name]) for name in names]

  def predict(images):
    outputs = main(*(images if value is None else value for value in held))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return {n: o.to_host() for n, o in zip(entry['outputs'], outputs, strict=True)}

  return predict


_START = {'jax': _jax, 'onnx': _onnx, 'iree': _iree}
