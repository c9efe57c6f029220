"""Five trained networks in JAX, ONNX Runtime and IREE, each runtime in an environment with nothing else.

`pytest -n 0 -m export` makes the environments with pip. EXPORT_TABLE=docs/export.md renews the table there.
"""

import importlib.metadata
import subprocess
import sys
import venv
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxseg import config as configs
from jaxseg.data.loader import train_batches
from jaxseg.export import program, trial, write
from jaxseg.nn.layers import local_response_norm
from jaxseg.predict.averages import Options
from jaxseg.predict.predictor import Predictor
from jaxseg.train import build
from jaxseg.train.state import make_init
from jaxseg.train.step import make_train_step
from jaxseg.types import UserError
from tests import documents, tiny_runs

pytestmark = pytest.mark.export

ROOT = Path(__file__).resolve().parent.parent
SIZE = (37, 51)  # odd
STEPS = 100
WEIGHTS = 'loss.class_weights=median_frequency'  # else it says background everywhere
NETS = {
  'FCN-8s': ('fcn_camvid.py:smoke', 'model.batch_norm=True', 'model.dropout_rate=0.0', WEIGHTS),
  'SegNet-Basic': ('segnet_camvid.py:basic,smoke', 'model.width=8', 'eval.scales=(0.5,)'),
  'U-Net': ('unet_shapes.py:smoke',),
  'PSPNet': ('pspnet_camvid.py:smoke',),
  'Mask R-CNN': ('mask_rcnn_dsb2018.py:smoke', 'model.score=0.01'),
}
JUMPING = ('SegNet-Basic', 'Mask R-CNN')  # see trial._own, which the export itself asks
PACKAGES = {
  'onnx': ('onnxruntime',),
  'iree': ('iree-base-compiler', 'iree-base-runtime', 'safetensors'),
}


@pytest.fixture(scope='module')
def pythons(tmp_path_factory):
  """An interpreter for each runtime; the package onnx, which writes the models, lies in none of them."""
  folder, found = tmp_path_factory.mktemp('environments'), {'jax': sys.executable}
  for runtime in ('onnx', 'iree'):
    venv.create(folder / runtime)
    found[runtime] = str(folder / runtime / 'bin' / 'python')
    install(f'--python={found[runtime]}', 'install', '--no-compile', *PACKAGES[runtime])
  try:
    import onnx  # noqa: F401
  except ModuleNotFoundError:
    install('install', f'--target={folder / "onnx_writer"}', 'onnx')
    sys.path.append(str(folder / 'onnx_writer'))
  return found


def install(*words):
  subprocess.run([sys.executable, '-m', 'pip', '-q', *words], check=True)


@pytest.fixture(scope='module')
def table():
  """Largest differences by network."""
  rows = {}
  yield rows
  if len(rows) == len(NETS):
    heads = (
      'network',
      'StableHLO in JAX',
      'ONNX in ONNX Runtime',
      'ONNX of any size',
      'MLIR in IREE',
    )
    lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    lines += [f'| {name} | {" | ".join(row)} |' for name, row in rows.items()]
    documents.renew('EXPORT_TABLE', 'The same numbers', 'runtimes', '\n'.join(lines))


def trained(spec, *overrides):
  """The predictor of a small network that has learned a few batches, without a run."""
  fast = ('optim.name=adam', 'optim.learning_rate=0.01', 'optim.schedule=constant', 'batch_size=4')
  config = configs.load(str(ROOT / 'configs' / spec), [*fast, *overrides])
  experiment = build.experiment(config)
  model, source = experiment.model(), experiment.source('train')
  task, optim = experiment.task_for(source), experiment.optim
  tx = optim.make_optimizer(optim.make_schedule(STEPS))
  batches = train_batches(source, experiment.transforms, seed=0, batch_size=4, num_threads=0)
  batch = {key: value for key, value in next(iter(batches)).items() if key != 'index'}
  state = jax.jit(make_init(model, tx, batch['image'].shape))(jax.random.key(0))
  step = jax.jit(make_train_step(model, task, tx, experiment.preprocess))
  for _ in range(STEPS):
    state, metrics = step(state, batch, jax.random.key(1))
  assert float(metrics['finite']) == 1
  count = experiment.settings.num_classes
  classes = tiny_runs.CLASSES.names[:count], tiny_runs.CLASSES.palette[:count]
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  options = Options(max_pixels=sys.maxsize, multiple=1)
  image = np.asarray(source[0]['image'])
  return Predictor(experiment, variables, tiny_runs.Classes(*classes), options), image


@pytest.mark.parametrize('name', NETS)
def test_a_network_is_the_same_in_every_runtime(name, pythons, table, tmp_path):
  predictor, image = trained(*NETS[name])
  images = {'odd': tiny_runs.random_image(*SIZE, image.shape[2])}
  maps = predictor.experiment.task.maps
  forms = write.Forms(onnx=True, size=SIZE, python=pythons['onnx'])
  folder = tmp_path / 'out'
  card = write.write_export(folder, predictor, images, {}, forms)
  results = (
    card['check']['programs']
    | trial.check(folder, predictor, images, {'iree': pythons['iree']})['programs']
  )
  free = {f'any_size.{kind}' for kind in ('jax_export', 'onnx')} if maps else set()
  fixed = {f'37x51.{kind}' for kind in ('jax_export', 'onnx', 'mlirbc')}
  assert set(results) == free | fixed
  for file, result in results.items():
    if name not in JUMPING:
      assert result['largest_difference'] <= 1e-4 and result['changed_pixels'] == 0, file
    assert result['spread'] > 0.1 and result['images'] >= (2 if file in free else 1), file
    assert result['kinds'] > 1 or not maps, f'{file}: all outputs are of one class'
  table[name] = [
    f'{results[file]["largest_difference"]:.1e}' if file in results else 'fixed size only'
    for file in ('37x51.jax_export', '37x51.onnx', 'any_size.onnx', '37x51.mlirbc')
  ]


def test_an_environment_of_its_own_holds_its_runtime_alone(pythons):
  """What the programs were run with; JAX is in neither."""
  for runtime in ('onnx', 'iree'):
    for module in ('jax', 'jaxseg', 'flax', 'onnx'):
      code = f'import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)'
      assert subprocess.run([pythons[runtime], '-I', '-c', code]).returncode == 1
  assert importlib.metadata.version('jax')


def turns(x):
  """A loop that ends for each row of a batch when its own number is reached."""
  count = lambda limit: lax.while_loop(lambda n: n < limit, lambda n: n * 2 + 1, jnp.int32(0))  # noqa: E731
  return jax.vmap(count)(x.astype(jnp.int32)[:, 0, 0, 0])


def carried(x):
  """Running sums from the end, and what was there before each."""
  return lax.scan(lambda total, row: (total + row, total * row), x[0, 0], x[0], reverse=True)


def conv(x, *options, kernel=(3, 2), channels=4, **more):
  kernel = jnp.asarray(tiny_runs.random_image(*kernel, 3 * channels), jnp.float32) / 99
  kernel = kernel.reshape(*kernel.shape[:2], 3 // more.get('feature_group_count', 1), -1)
  more = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')} | more
  return lax.conv_general_dilated(x, kernel, *options, **more)


def picked(x):
  index = jnp.int32([[0, 4, 2], [1, 1, -9]])[..., None]
  rows = jnp.take_along_axis(x[:2, 0, :, :1], index, axis=1, mode='clip')
  return rows, x[0, jnp.int32([1, 3]), :, jnp.int32([2, 0])], x[:, jnp.int32([[2], [0]])]


# Functions of float32 [2,5,6,3] with small whole numbers, equal ones among them.
PRIMITIVES = {
  'convolution': lambda x: conv(x, (2, 1), [(1, 0), (0, 2)], rhs_dilation=(1, 2)),
  'convolution that cuts': lambda x: conv(x, (1, 1), [(-1, 2), (0, -1)]),
  'convolution in groups': lambda x: conv(x, (1, 1), 'SAME', feature_group_count=3, channels=1),
  'transposed convolution': lambda x: conv(x, (1, 1), [(2, 3), (0, 1)], lhs_dilation=(2, 3)),
  'transposed beyond reach': lambda x: conv(x, (1, 1), [(4, 2), (3, 1)], lhs_dilation=(2, 2)),
  'pooling': lambda x: lax.reduce_window(
    x, -jnp.inf, lax.max, (1, 3, 2, 1), (1, 2, 2, 1), [(0, 0), (1, 1), (0, 1), (0, 0)]
  ),
  'sums of windows': lambda x: local_response_norm(x, size=3),
  'padding': lambda x: lax.pad(x, jnp.float32(7), [(0, 0, 0), (1, -2, 1), (-1, 2, 2), (0, 1, 0)]),
  'slices': lambda x: (x[:, 4:0:-2, 1::3], jnp.flip(x, (1, 3))),
  'slices that move': lambda x: lax.dynamic_slice(
    x, (0, x[0, 0, 0, 0].astype(int), 9, 0), (1, 2, 3, 3)
  ),
  'indices': picked,
  'products': lambda x: (jnp.einsum('bhwc,bhvc->hbwv', x, x), x @ jnp.ones((3, 2))),
  'narrow integers': lambda x: (
    x.astype(jnp.uint8) - jnp.uint8(250), lax.pad(x.astype(jnp.int16), jnp.int16(-9), [(0, 0, 0)] * 3 + [(1, 1, 0)])
  ),
  'whole numbers': lambda x: (lax.div(-x.astype(int), 3), lax.rem(-x.astype(int), 4), jnp.round(x / 2)),
  'choices': lambda x: (
    jnp.where(x > 3, x < 5, x == 1), lax.select_n((x.astype(int) % 3), x, -x, x * 9), jnp.clip(x, 2, 4)
  ),
  'reductions': lambda x: ((x > 7).any(2), (x >= 0).all((1, 3)), x.sum(1), x.min(3), x.prod((1, 2))),
  'of equal ones the first': lambda x: (jnp.argmax(x, 2), jnp.argmin(x, 1), *lax.top_k(x[0, :, :, 0], 4)),
  'stacks': lambda x: (jnp.stack([x, -x], 2), *(part * 2 for part in jnp.split(x, [1, 3], 1))),
  'functions': lambda x: (
    jnp.exp(-x), jnp.log2(x + 1), lax.rsqrt(x + 1), jax.nn.sigmoid(x), x**3, (x + 1) ** -0.75, jnp.tanh(x)
  ),
  'turns of a loop': turns,
  'a scan': carried,
}  # fmt: skip

# The same of [b,h,w,3].
FREE = {
  'steps': lambda x: x[:, 1::2, ::3],
  'mirrors': lambda x: jnp.take(x, jnp.arange(x.shape[1] + 3) % x.shape[1], axis=1, mode='clip'),
  'lengths': lambda x: jnp.pad(x, ((0, 0), (0, 4 * ((x.shape[1] + 3) // 4) - x.shape[1]), (0, 0), (0, 0)))
  .reshape(x.shape[0], -1, 4, x.shape[2], 3)
  .max(2),
  'double': lambda x: program.resize_image(x.astype(jnp.uint8), (x.shape[1] * 2, x.shape[2] * 2)),
  'places': lambda x: x + jnp.arange(x.shape[2])[None, None, :, None] / x.shape[2],
}  # fmt: skip

COMPARE = """
import pathlib, sys
import numpy as np, onnxruntime
for file in sorted(pathlib.Path(sys.argv[1]).glob('*.onnx')):
  session, arrays = onnxruntime.InferenceSession(str(file)), np.load(file.with_suffix('.npz'))
  for name, actual in zip((o.name for o in session.get_outputs()), session.run(None, {'image': arrays['image']})):
    assert actual.dtype == arrays[name].dtype, (file.stem, name, actual.dtype)
    np.testing.assert_allclose(actual, arrays[name], 1e-5, 1e-6, err_msg=file.stem)
"""


def by_letter(function, _, image):
  return dict(zip('abcdefgh', jax.tree.leaves(function(image)), strict=False))


def test_primitives_one_by_one(pythons, tmp_path):
  from jaxseg.export.to_onnx.jaxpr import make_model

  x = np.random.default_rng(0).integers(0, 8, (2, 5, 6, 3)).astype(np.float32)
  free = jax.ShapeDtypeStruct(jax.export.symbolic_shape('b, h, w, 3'), x.dtype)
  fixed = jax.ShapeDtypeStruct(x.shape, x.dtype)
  cases = [(n, f, fixed) for n, f in PRIMITIVES.items()] + [(n, f, free) for n, f in FREE.items()]
  for name, function, shape in cases:
    named = partial(by_letter, function)
    (tmp_path / f'{name}.onnx').write_bytes(make_model(named, {}, shape).SerializeToString())
    np.savez(tmp_path / f'{name}.npz', image=x, **jax.jit(named)({}, x))
  subprocess.run([pythons['onnx'], '-I', '-c', COMPARE, str(tmp_path)], check=True)


def test_a_primitive_without_a_form_is_named(pythons):
  from jaxseg.export.to_onnx.jaxpr import make_model

  image = jax.ShapeDtypeStruct((3, 4), np.float32)
  for function, words in (
    (lambda _, x: {'y': jnp.sort(x)}, 'no ONNX form of the primitive sort is known'),
    (lambda _, x: {'y': lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x)}, 'of a branch that depends on'),
    (lambda _, x: {'y': jnp.take(x, x[0].astype(int), axis=0)}, 'indices that are filled outside'),
  ):
    with pytest.raises(UserError, match=words):
      make_model(function, {}, image)
