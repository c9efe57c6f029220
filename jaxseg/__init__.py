"""jaxseg: FCN, SegNet, U-Net, PSPNet and Mask R-CNN in JAX and Flax, trained end to end as in the papers.

The commands, from Python:

    jaxseg.list_configs()                                       # names, each with its variants
    config = jaxseg.load_config('unet_shapes', num_steps=100)
    jaxseg.train(config, 'runs/shapes')                         # trains, or resumes
    mask = jaxseg.load('runs/shapes')(image)                    # predicts
"""

from typing import Any

__version__ = '0.1.0'


def load(workdir, step='best', **options):
  """Returns the predictor of a trained workdir: `mask = jaxseg.load(workdir)(image)`.

  The probabilities of a list of workdirs are averaged. Options are those of
  `jaxseg.predict.options.Options`, as in `load(workdir, flip=True)`.
  """
  from jaxseg.predict import ensemble

  return ensemble.load(workdir, step, **options)


def load_config(name: str, *overrides: str, **keys: Any):
  """Returns a config, as `--config` does.

  Args:
    name: of one included in jaxseg, or a file; with variants: 'segnet_camvid:basic,small'.
    *overrides: 'group.key=value' each.
    **keys: top-level keys, such as num_steps=100.

  Raises:
    UserError: no such config, variant or key, or a value of the wrong type.
  """
  from jaxseg import config

  return config.load(name, (*overrides, *(f'{key}={value}' for key, value in keys.items())))


def run(
  config,
  workdir,
  *,
  stop_at: int | None = None,
  profile: tuple[int, int] | None = None,
  report: bool = True,
) -> dict[str, Any]:
  """Trains a config in a folder, or resumes from its newest checkpoint; also called `jaxseg.train`.

  Args:
    config: from `load_config`, or the same as nested dicts.
    workdir: for config, log, checkpoints, figures and report.
    stop_at: save and return at this step.
    profile: (first, last) step to trace into workdir/profile.
    report: whether to write figures and the report.

  Returns:
    The last evaluation's scores, such as 'mean_iou'.

  Raises:
    UserError: any error that the user can fix, in one line.
  """
  from jaxseg import report as reports
  from jaxseg.train.train import train

  hooks = reports.hooks() if report else ()
  return train(config, workdir, stop_at=stop_at, profile=profile, hooks=hooks)


def list_models() -> list[str]:
  """Returns the names of the included networks; `config.model.name` may be your own module."""
  from jaxseg.config import parts

  return parts.names('models')


def list_datasets() -> list[str]:
  """Returns the names of the datasets; `config.data.name` may be your own module."""
  from jaxseg.config import parts

  return parts.names('datasets')


def list_configs() -> dict[str, tuple[str, ...]]:
  """Returns the names of the included configs, each with the variants that may follow a colon."""
  from jaxseg.config import config_files

  return config_files.shipped()


def __getattr__(name: str) -> Any:
  if name == 'train':  # a callable package
    import importlib

    return importlib.import_module('jaxseg.train')
  raise AttributeError(f'module jaxseg has no attribute {name!r}')
