"""The chips of a slice that this machine does not have, for the TPU's compiler (package libtpu)."""

import importlib.util
import os
from collections.abc import Sequence

import jax

from jaxseg.tools.slices import Slice
from jaxseg.types import UserError

_QUIET = {  # else libtpu looks for the machine that it is on; two may compile at once
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
_OPTIONS = {'v4': {'chip_config_name': 'megacore'}}  # one device a chip, as JAX has it on a VM


def prepare() -> None:
  """Makes this process compile only: the devices it computes on are the CPU's.

  Call it before JAX starts: a TPU of this machine, and a training on it, are left alone.

  Raises:
    UserError: libtpu is not installed.
  """
  if not importlib.util.find_spec('libtpu'):
    raise UserError(
      "compiling for a TPU needs its compiler, libtpu: pip install 'jaxseg[compile]' (in a clone: "
      "pip install -e '.[compile]')"
    )
  os.environ |= {'JAX_PLATFORMS': 'cpu', **_QUIET}
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_enable_compilation_cache', False)  # what is not run cannot be read back


def devices(rented: Slice) -> Sequence[jax.Device]:
  """Returns the slice's chips: to compile for, not to compute on.

  Raises:
    UserError: an older libtpu, which does not know the slice.
  """
  from jax.experimental import topologies

  options = dict(_OPTIONS.get(rented.kind, {}))
  if rented.hosts == 1:  # of more than four chips the compiler would make two hosts
    options['chips_per_host_bounds'] = [*map(int, rented.shape.split('x')), 1][:3]
  name = f'{rented.kind}:{rented.shape}'
  try:
    return topologies.get_topology_desc(platform='tpu', topology_name=name, **options).devices
  except jax.errors.JaxRuntimeError as error:
    raise UserError(
      f'--topology={rented.name}: the libtpu that is installed knows no such slice ({error}); 0.0.52 '
      'does: pip install --no-deps libtpu==0.0.52'
    ) from None
