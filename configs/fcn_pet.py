"""A light FCN-8s on Oxford-IIIT Pet's trimaps: pet, background, border.

    python launch/train.py --config=configs/fcn_pet.py --workdir=DIR

bare      MobileNetV2 with 1x1 scores of its last features at strides 32, 16 and 8, added after fixed
          bilinear upsampling.
:resnet50 the same head on ResNet-50.
:small    for 15 minutes on two CPU cores: from scratch, VGG16 at a quarter of its width, as in
          fcn_camvid.py:small; not run, as the data were not available.
:smoke    seconds, on generated shapes.

This baseline has not been published, so there is no number to reach. Nine tenths of trainval are for
training, the rest is 'val'; launch/evaluate.py --split=test scores the published test images. The
recipe starts from torchvision's ImageNet weights; without them (--config.init_from=) train longer. By
operation count minutes on one data-centre GPU, not measured.
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('',)  # rows of docs/results.md


def get_config(variant=None):
  chosen = variants(variant, resnet50=False, small=False, smoke=False)
  config = base()
  config.num_classes = 3
  config.num_steps = 5000
  config.batch_size = 16

  config.data = dict(name='pet', mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
  config.augment = (
    ('crop', dict(size=(256, 256), scale=(0.5, 1.25))),
    ('flip', {}),
    ('photometric', dict(brightness=0.2, contrast=0.2, saturation=0.2)),
  )
  backbone = 'resnet50' if chosen.resnet50 else 'mobilenet_v2'
  config.model = dict(name='fcn', backbone=backbone, head='light')
  config.optim = dict(name='adam', learning_rate=1e-3, schedule='cosine', warmup_steps=100)
  config.init_from = 'imagenet'
  config.init = dict(new=('score_.*',))

  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def small(config):
  config.init_from = ''
  config.num_steps = 1000
  config.batch_size = 8
  config.augment = (
    ('resize', dict(scale=0.5)),
    ('crop', dict(size=(192, 256), scale=(0.75, 1.5))),
    ('flip', {}),
    ('photometric', dict(brightness=0.2, contrast=0.2)),
  )
  config.model = dict(
    name='fcn', stride=8, width=16, batch_norm=True, aligned=True, dropout_rate=0.2
  )
  config.loss = dict(class_weights='median_frequency')
  config.optim = dict(name='adam', learning_rate=2e-3, schedule='cosine', warmup_steps=30)
  config.init = {}
  config.eval = dict(every=500, scales=(0.5,))
  config.log = dict(checkpoint_every=250)
  config.paper = None


def smoke(config):
  on_shapes(config, size=32, num_classes=3)
  config.batch_size = 8
  config.augment = (('crop', dict(size=(32, 32))), *config.augment[1:])
  config.model = dict(name='fcn', head='light', width=4)
