"""jaxseg: FCN, SegNet and U-Net in JAX and Flax, trained end to end as in the papers."""

__version__ = '0.1.0'


def load(workdir, step='best'):
  """Returns the predictor of a trained workdir: `mask = jaxseg.load(workdir)(image)`."""
  from jaxseg import inference  # JAX starts only when a network is wanted

  return inference.load(workdir, step)
