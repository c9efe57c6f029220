"""U-Net on generated shapes: the two-minute tour, no download, any machine.

    python launch/train.py --config=configs/unet_shapes.py --workdir=/tmp/shapes

Textured, overlapping shapes on a textured ground; colour alone does not tell them apart. Not a paper
baseline: a small same-padding U-Net with BatchNorm that reaches mIoU 0.90 in about a minute on two
CPU cores.
"""

from jaxseg.config import base, variants


def get_config(variant=None):
  chosen = variants(variant, smoke=False)
  config = base()

  config.dataset = 'shapes'
  config.dataset_options = dict(size=64)
  config.num_classes = 4

  config.model = 'unet'
  config.model_options = dict(width=16, depth=3, padding='same', batch_norm=True, dropout_rate=0.0)

  config.num_steps = 180
  config.batch_size = 16
  config.flip = True
  config.optimizer = 'adam'
  config.learning_rate = 3e-3
  config.schedule = 'cosine'
  config.warmup_steps = 20

  config.eval_every = 60
  config.checkpoint_every = 60

  if chosen.smoke:
    config.model_options = dict(width=4, depth=2, padding='same', batch_norm=True, dropout_rate=0.0)
    config.dataset_options = dict(size=32, count=16)
    config.batch_size = 8
    config.num_steps = config.eval_every = config.checkpoint_every = 10
    config.log_every = 5
  return config
