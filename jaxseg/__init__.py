"""jaxseg: FCN, SegNet, U-Net, PSPNet and Mask R-CNN in JAX and Flax, trained end to end as in the papers."""

__version__ = '0.1.0'


def load(workdir, step='best', **options):
  """Returns the predictor of a trained workdir: `mask = jaxseg.load(workdir)(image)`.

  A list of workdirs gives the mean of their probabilities.   Options are those of `jaxseg.predict.options.Options`, as in `load(workdir, flip=True)`.
  """
  from jaxseg.predict import ensemble  # JAX starts only when a network is wanted

  return ensemble.load(workdir, step, **options)
