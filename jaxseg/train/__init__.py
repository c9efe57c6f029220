"""Training: from a config to parts, a step, a loop, checkpoints. `jaxseg.train(config, workdir)` does it all."""

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
  """This package, which `jaxseg.train` is, can be called; see `jaxseg.run`."""

  def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
    import jaxseg

    return jaxseg.run(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
