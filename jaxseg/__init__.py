"""jaxseg: FCN, SegNet, U-Net, PSPNet and Mask R-CNN in JAX and Flax, trained end to end as in the papers."""

__version__ = '0.1.0'


def load(workdir, step='best', **options):
  """Returns the predictor of a trained workdir: `mask = jaxseg.load(workdir)(image)`.

  Options are those of `jaxseg.predict.options.Options`, as in `load(workdir, flip=True)`.
  """
  from jaxseg.predict import predictor  # JAX starts only when a network is wanted

  return predictor.load(workdir, step, **options)
