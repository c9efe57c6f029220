"""Eight CPU devices, no silent broadcasting, compiled programs and paths that every test shares."""

import gc
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import jaxlib.version

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Tiny networks take longer to optimise than to run; processes that a test starts get the same. Before
# jaxlib 0.11 a third of a compilation's time can be spared, later there is no choice; a TPU's compiler,
# where one is installed, reads the flags too and may not know this one.
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  + ' --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
  + ' --xla_cpu_use_fusion_emitters=false'
  * (jaxlib.version.__version_info__ < (0, 11) and not find_spec('libtpu'))
)
# Many tests compile the same programs: what one worker or process has compiled, the others load.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='jaxseg_tests_')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')

import jax
import pytest

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.devices()  # from here on a launcher that runs in this process cannot change their number

gc.set_threshold(100_000, 20, 50)  # tracing makes and drops millions of small objects

ROOT = Path(__file__).resolve().parent.parent


def pytest_xdist_auto_num_workers():
  """One worker more than cores: some tests wait for processes that they start."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  return cores + 1


def pytest_collection_finish():
  """Leaves what imports made, which stays, out of the collector's work: a tenth of the suite's time."""
  gc.collect()
  gc.freeze()


def pytest_unconfigure(config):
  """Removes the compiled programs when the process ends that made their folder."""
  folder = os.environ['JAX_COMPILATION_CACHE_DIR']
  if not hasattr(config, 'workerinput') and Path(folder).name.startswith('jaxseg_tests_'):
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=['default', 'tpu'])
def form(request, monkeypatch):
  """What is computed on other platforms, or what a TPU's program would hold, on this machine."""

  def chosen(*args, default, **forms):
    return forms.get(request.param, default)(*args)

  monkeypatch.setattr(jax.lax, 'platform_dependent', chosen)
  return request.param


@pytest.fixture
def root(tmp_path) -> Path:
  """A folder for data of one's own; caches go beside it."""
  return tmp_path / 'own'


@pytest.fixture(scope='session')
def shared_data() -> Path:
  """The folder of real data beside the checkout; tests that need it skip where it is absent."""
  folder = Path(os.environ.get('JAXSEG_DATA', ROOT.parent / 'shared' / 'data'))
  if not (folder / 'camvid').is_dir():
    pytest.skip(f'no real data in {folder}: set JAXSEG_DATA to the folder that holds camvid/')
  return folder
