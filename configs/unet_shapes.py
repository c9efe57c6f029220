"""U-Net on generated shapes: the one-minute tour, no download, any machine.

    python launch/train.py --config=configs/unet_shapes.py --workdir=/tmp/shapes

Textured, overlapping shapes on a textured ground; colour alone does not tell them apart. Not a paper
baseline: a small same-padding U-Net with BatchNorm that reaches mIoU 0.90 in about a minute on two
CPU cores; `:smoke` takes seconds.
"""

from jaxseg.config import base, variants


def get_config(variant=None):
  chosen = variants(variant, smoke=False)
  config = base()
  config.num_classes = 4
  config.num_steps = 180
  config.batch_size = 16

  config.data = dict(name='shapes', options=dict(size=64))
  config.augment = (('flip', {}),)
  config.model = dict(
    name='unet', width=16, depth=3, padding='same', batch_norm=True, dropout_rate=0.0
  )
  config.optim = dict(name='adam', learning_rate=3e-3, schedule='cosine', warmup_steps=20)
  config.eval = dict(every=60)
  config.log = dict(checkpoint_every=60)

  if chosen.smoke:
    config.num_steps = config.eval.every = config.log.checkpoint_every = 10
    config.batch_size = 8
    config.data.options = dict(size=32, count=16)
    config.model.update(width=4, depth=2)
    config.log.every = 5
  return config
