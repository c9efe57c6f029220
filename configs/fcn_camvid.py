"""FCN on CamVid, 11 classes (arXiv:1411.4038 and 1605.06211; CamVid figures in arXiv:1511.00561).

    python launch/train.py --config=configs/fcn_camvid.py --workdir=DIR

bare    FCN-8s on VGG16, trained at once from ImageNet weights: --config.init_from=FILE.
:32s, :16s, :8s  the stages; each starts from the one before: --config.init_from=WORKDIR.
:small  not the paper: what learns most in 15 minutes on two CPU cores (half size, a quarter of the
        width, batch norm, aligned same padding, Adam, mean loss, augmentation).
:smoke  seconds, on generated shapes.

The recipe is the reference release's for PASCAL VOC: one whole image a step, the loss summed over
its pixels (float32), momentum 0.99, fixed bilinear upsampling. Nobody has published FCN trained on
these 367 images alone; on 3,433 images arXiv:1511.00561, table 3, has 49.8 mIoU.
"""

from jaxseg.config import base, variants

BASELINES = ('32s', '16s', '8s', '')  # rows of docs/results.md

# 134,260,544 in VGG16 with fc6 and fc7, then (channels + 1) * 11 in each score layer.
PARAMS = {32: 134_305_611, 16: 134_311_254, 8: 134_314_081}
RATES = {32: 1e-10, 16: 1e-12, 8: 1e-14}
# What each stage adds to the one before; trained at once, and in the first stage, every score.
NEW = {32: ('score_.*',), 16: ('score_pool4',), 8: ('score_pool3',)}


def get_config(variant=None):
  chosen = variants(variant, **{'32s': False, '16s': False, '8s': False}, small=False, smoke=False)
  stage = next((s for s in (32, 16, 8) if getattr(chosen, f'{s}s')), None)
  stride = stage or 8
  config = base()

  config.dataset = 'camvid'
  config.num_classes = 11
  config.mean = (122.67892, 116.66877, 104.00699)
  config.std = (1.0, 1.0, 1.0)
  config.channel_order = 'bgr'

  config.model = 'fcn'
  config.model_options = dict(stride=stride, at_once=stage is None, backbone='vgg16', width=64)
  config.normalize = 'sum'
  config.paper = dict(params=PARAMS[stride], split='test', source='arXiv:1605.06211')

  config.batch_size = 1
  config.replacement = True
  config.optimizer = 'caffe_sgd'
  config.learning_rate = RATES[stage or 32]
  config.momentum = 0.99
  config.weight_decay = 5e-4
  config.multipliers = ((r'/bias', 2.0, 0.0),)
  config.num_steps = 300_000 if stage is None else 100_000
  config.init_new = NEW[stage or 32]
  config.eval_every = 4000
  config.checkpoint_every = 4000

  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def small(config):
  config.paper = None
  config.mean = (127.5, 127.5, 127.5)
  config.std = (63.75, 63.75, 63.75)
  config.channel_order = 'rgb'
  config.model_options = dict(
    stride=config.model_options.stride,
    backbone='vgg16',
    width=16,
    batch_norm=True,
    aligned=True,
    dropout_rate=0.2,
  )
  config.normalize = 'weights'
  config.class_weights = 'median_frequency'
  config.resize = 0.5
  config.eval_scales = (0.5,)
  config.crop = (192, 256)
  config.scale = (0.75, 1.5)
  config.flip = True
  config.brightness = config.contrast = 0.2
  config.batch_size = 8
  config.replacement = False
  config.optimizer = 'adam'
  config.learning_rate = 2e-3
  config.weight_decay = 0.0
  config.multipliers = ()
  config.schedule = 'cosine'
  config.warmup_steps = 30
  config.num_steps = 1000
  config.eval_every = config.checkpoint_every = 250


def smoke(config):
  config.paper = None
  config.dataset = 'shapes'
  config.dataset_options = dict(size=32, count=16, num_classes=4)
  config.num_classes = 4
  config.class_weights = ()
  config.model_options.width = 4
  config.model_options.aligned = True  # the released net pads by 100: not for seconds on a CPU
  config.resize, config.crop, config.scale, config.eval_scales = 0.0, (), (), (1.0,)
  config.num_steps = config.eval_every = config.checkpoint_every = 6
  config.log_every = 2
