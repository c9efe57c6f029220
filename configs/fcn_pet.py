"""A light FCN-8s on Oxford-IIIT Pet's trimaps: pet, background, border.

    python launch/train.py --config=configs/fcn_pet.py --workdir=DIR \\
        --config.init_from=mobilenet_v2.pth

bare      MobileNetV2 with 1x1 scores of its last features at strides 32, 16 and 8, added after fixed
          bilinear upsampling.
:resnet50 the same head on ResNet-50 (--config.init_from=resnet50.pth).
:smoke    seconds, on generated shapes.

Nobody has published this baseline, so there is no number to reach. Nine in ten images of trainval
train, the tenth is 'val'; launch/evaluate.py --split=test scores the published test images. The
recipe starts from torchvision's ImageNet weights; without them leave init_from out and train
longer. By operation count minutes on one data-centre GPU, not measured.
"""

from jaxseg.config import base, variants

BASELINES = ('',)  # rows of docs/results.md


def get_config(variant=None):
  chosen = variants(variant, resnet50=False, smoke=False)
  config = base()

  config.dataset = 'pet'
  config.num_classes = 3
  config.mean = (123.675, 116.28, 103.53)
  config.std = (58.395, 57.12, 57.375)

  config.model = 'fcn'
  config.model_options = dict(
    stride=8, backbone='resnet50' if chosen.resnet50 else 'mobilenet_v2', head='light'
  )
  config.paper = None

  config.crop = (256, 256)
  config.scale = (0.5, 1.25)
  config.flip = True
  config.brightness = config.contrast = config.saturation = 0.2

  config.num_steps = 5000
  config.batch_size = 16
  config.optimizer = 'adam'
  config.learning_rate = 1e-3
  config.schedule = 'cosine'
  config.warmup_steps = 100
  config.init_new = ('score_.*',)
  config.eval_every = 500
  config.checkpoint_every = 500

  if chosen.smoke:
    smoke(config)
  return config


def smoke(config):
  config.dataset = 'shapes'
  config.dataset_options = dict(size=32, count=16, num_classes=3)
  config.model_options = dict(stride=8, backbone='vgg16', head='light', width=4)
  config.crop = (32, 32)
  config.scale = ()
  config.batch_size = 8
  config.num_steps = config.eval_every = config.checkpoint_every = 6
  config.log_every = 2
