"""jaxseg: FCN, SegNet, U-Net, PSPNet and Mask R-CNN in JAX and Flax, trained end to end as in the papers.

From Python, what the commands do:

    jaxseg.list_configs()                                       # names, each with its variants
    config = jaxseg.load_config('unet_shapes', num_steps=100)
    jaxseg.train(config, 'runs/shapes')                         # trains, or resumes
    mask = jaxseg.load('runs/shapes')(image)                    # predicts
"""

from typing import Any

__version__ = '0.1.0'


def load(workdir, step='best', **options):
  """Returns the predictor of a trained workdir: `mask = jaxseg.load(workdir)(image)`.

  A list of workdirs gives the mean of their probabilities. Options are those of
  `jaxseg.predict.options.Options`, as in `load(workdir, flip=True)`.
  """
  from jaxseg.predict import ensemble

  return ensemble.load(workdir, step, **options)


def load_config(name: str, *overrides: str, **keys: Any):
  """Returns a config, as `--config` does.

  Args:
    name: of one that comes with jaxseg, or a file; with variants: 'segnet_camvid:basic,small'.
    *overrides: 'group.key=value' each.
    **keys: of those on top, such as num_steps=100.

  Raises:
    UserError: no such config, variant or key, or a value of another type.
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
  """Trains a config in a folder, or goes on there from the newest checkpoint; `jaxseg.train` is this.

  Args:
    config: of `load_config`, or the same as nested dicts.
    workdir: gets config, log, checkpoints, figures and report.
    stop_at: save and return at this step.
    profile: (first, last) of the steps that are traced into workdir/profile.
    report: whether figures and the report are made.

  Returns:
    The last evaluation's numbers, such as 'mean_iou'.

  Raises:
    UserError: anything that the user can mend, in one line.
  """
  from jaxseg import report as reports
  from jaxseg.train.train import train

  hooks = reports.hooks() if report else ()
  return train(config, workdir, stop_at=stop_at, profile=profile, hooks=hooks)


def list_models() -> list[str]:
  """Returns the names of the networks that come with jaxseg; `config.model.name` may be a module of your own."""
  from jaxseg.config import parts

  return parts.names('models')


def list_datasets() -> list[str]:
  """Returns the names of the datasets; `config.data.name` may be a module of your own."""
  from jaxseg.config import parts

  return parts.names('datasets')


def list_configs() -> dict[str, tuple[str, ...]]:
  """Returns the names of the configs that come with jaxseg, and what may stand after a colon in each."""
  from jaxseg.config import config_files

  return config_files.listed()


def __getattr__(name: str) -> Any:
  if name == 'train':  # a package that can be called
    import importlib

    return importlib.import_module('jaxseg.train')
  raise AttributeError(f'module jaxseg has no attribute {name!r}')
