"""U-Net on an ImageNet encoder, CamVid, 11 classes at 360x480 (arXiv:1511.00561 has the protocol).

    pip install 'jaxseg[lite]'
    python launch/train.py --config=configs/unet_camvid.py --workdir=DIR

bare    EfficientNet-Lite 0 with ImageNet weights and their batch statistics, a decoder of 16 to 128
        channels, for two CPU cores. Not from a paper: shows the gain of a pretrained encoder, test
        mIoU 63.2 (docs/results.md).
:small  the same from scratch, at about two thirds of the size for fewer steps: test mIoU 51.1 in 24
        minutes on two CPU cores.
:smoke  seconds, on generated shapes, from scratch.

Crops of 192x256 at 0.6 to 1.5 times the size, rejecting those of nearly one class; whole images at
original size in evaluation. AdamW, the encoder at a third of the rate, soft Dice and cross-entropy with
the square roots of the class weights of SegNet's release, weight averaging. Trained on the 367 images,
monitored on the 101 of val; the last step is scored on the 233 of test.
"""

from jaxseg.config import base, on_shapes, variants

# The square roots of RELEASED_WEIGHTS in segnet_camvid.py: halfway to median-frequency balancing.
CLASS_WEIGHTS = (0.509, 0.427, 2.136, 0.376, 0.951, 0.619, 3.106, 1.357, 0.826, 2.500, 2.713)


def get_config(variant=None):
  chosen = variants(variant, small=False, smoke=False)
  config = base()
  config.num_classes = 11
  config.num_steps = 5000
  config.batch_size = 8
  config.init_from = 'imagenet'

  config.data = dict(name='camvid', mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
  config.augment = (
    ('crop', dict(size=(192, 256), scale=(0.6, 1.5), most=0.75)),
    ('flip', {}),
    ('photometric', dict(brightness=0.3, contrast=0.3, saturation=0.3)),
  )
  config.model = dict(
    name='unet',
    backbone='efficientnet_lite0',
    width=8,
    batch_norm=True,
    dropout_rate=0.2,
    frozen_norm=True,
  )
  config.loss = dict(name='softmax_dice', class_weights=CLASS_WEIGHTS)
  config.optim = dict(
    name='adamw',
    learning_rate=2e-3,
    weight_decay=1e-2,
    multipliers=(
      (r'^backbone/.*kernel', 0.3, 1.0),
      (r'^backbone/', 0.3, 0.0),
      (r'/(scale|bias)$', 1.0, 0.0),
    ),
    schedule='poly',
    warmup_steps=100,
    average=0.998,
  )
  config.init = dict(new=('dec.*', 'score'))
  config.eval = dict(every=1000)
  config.log = dict(checkpoint_every=250, figures=3)

  if chosen.small:
    small(config)
  if chosen.small or chosen.smoke:
    config.init_from, config.init = '', {}
    config.optim.multipliers = ((r'/(scale|bias)$', 1.0, 0.0),)
    config.model.frozen_norm = False
  if chosen.smoke:
    smoke(config)
  return config


def small(config):
  """At about two thirds of the size: from scratch more steps matter more than resolution."""
  config.num_steps = 4000
  config.augment = (
    ('crop', dict(size=(128, 160), scale=(0.4, 1.0), most=0.75)),
    *config.augment[1:],
  )
  config.eval.scales = (0.7,)


def smoke(config):
  on_shapes(config, size=64)
  config.batch_size = 4
  config.augment = ()
  config.loss.class_weights = None
  config.model.update(backbone='vgg16', width=2, backbone_width=4)  # compiles in seconds
