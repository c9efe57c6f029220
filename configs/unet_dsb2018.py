"""U-Net on the nuclei of the 2018 Data Science Bowl: foreground, touching nuclei kept apart.

    python launch/train.py --config=configs/unet_dsb2018.py --workdir=DIR

Nobody has published a U-Net baseline for this selection, so there is no number to reach. The recipe
is arXiv:1505.04597's: the weight map (w0 = 10, sigma = 5, computed from the instances when the
records are built) makes the gaps between nuclei count; elastic deformation makes the few images many.

bare    same padding with batch norm, width 64, crops of 256x256 from images of seven sizes.
:small  what learns most in 15 minutes on two CPU cores (width 16, crops of 192x192).
:smoke  seconds, on generated shapes.
"""

from jaxseg.config import base, variants

BASELINES = ('',)  # rows of docs/results.md


def get_config(variant=None):
  chosen = variants(variant, small=False, smoke=False)
  config = base()

  config.dataset = 'dsb2018'
  config.dataset_options = dict(border_weight=True)
  config.num_classes = 2

  config.model = 'unet'
  config.model_options = dict(width=64, padding='same', batch_norm=True)
  config.pixel_weights = True

  config.crop = (256, 256)
  config.scale = (0.75, 1.5)
  config.elastic = 8.0
  config.flip = config.vertical_flip = config.rotate90 = True
  config.brightness = config.contrast = 0.2

  config.num_steps = 10_000
  config.batch_size = 16
  config.optimizer = 'adam'
  config.learning_rate = 1e-3
  config.schedule = 'cosine'
  config.warmup_steps = 100
  config.eval_every = 1000
  config.checkpoint_every = 1000
  config.seg = True  # nuclei, not only pixels

  if chosen.small:
    config.model_options.width = 16
    config.model_options.dropout_rate = 0.2
    config.crop = (192, 192)
    config.batch_size = 8
    config.num_steps = 600
    config.learning_rate = 2e-3
    config.warmup_steps = 20
    config.eval_every = config.checkpoint_every = 200
  if chosen.smoke:
    config.seg = False  # the shapes are not numbered
    config.dataset = 'shapes'
    config.dataset_options = dict(size=64, count=16, num_classes=2, border_weight=True)
    config.model_options = dict(width=4, depth=2, padding='same', batch_norm=True)
    config.crop = (48, 48)
    config.batch_size = 8
    config.num_steps = config.eval_every = config.checkpoint_every = 6
    config.log_every = 2
  return config
