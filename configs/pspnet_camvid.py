"""PSPNet50 on CamVid, 11 classes (arXiv:1612.01105, which has no CamVid).

    python launch/train.py --config=configs/pspnet_camvid.py --workdir=DIR \\
        --config.init_from=RESNET50

bare     the paper's recipe on the 367 training images: whole frames for crops, 218 passes (as many
         as its street scenes get, near enough), from ImageNet weights for the deep stem.
:torchvision  the 7x7 stem, for torchvision's resnet50.
:small   not the paper: what learns most in 15 minutes on two CPU cores (half size, a fifth of the
         width, from scratch, Adam), beside configs/fcn_camvid.py:small and segnet_camvid.py:basic,small.
:smoke   seconds, on generated shapes.

Nobody has published PSPNet trained on these 367 images: there is no number to reach. By operation
count about half an hour on one data-centre GPU, not measured.
"""

from jaxseg.config import base, variants

BASELINES = ('',)  # rows of docs/results.md

# ResNet-50 with the deep stem 23,631,808; pyramid 4,198,400; its head 18,881,035; the auxiliary
# head 2,362,635.
PARAMS = 49_073_878


def get_config(variant=None):
  chosen = variants(variant, torchvision=False, small=False, smoke=False)
  config = base()

  config.dataset = 'camvid'
  config.num_classes = 11
  config.mean = (123.675, 116.28, 103.53)
  config.std = (58.395, 57.12, 57.375)

  config.scale = (0.5, 2.0)
  config.rotate, config.rotate_share = 10.0, 0.5
  config.blur = 0.5
  config.flip = True
  config.crop = (361, 481)

  config.model = 'pspnet'
  config.model_options = dict(backbone='resnet50', width=64, deep_stem=not chosen.torchvision)
  config.aux_weight = 0.4
  config.paper = dict(
    params=PARAMS - 123_776 * chosen.torchvision, split='test', source='arXiv:1612.01105'
  )

  config.batch_size = 16
  config.optimizer = 'sgd'
  config.learning_rate = 0.01
  config.momentum = 0.9
  config.weight_decay = 1e-4
  config.schedule = 'poly'
  config.schedule_power = 0.9
  config.multipliers = ((r'^(ppm|cls|aux)_', 10.0, 1.0),)
  config.init_new = ('ppm_.*', 'cls_.*', 'aux_.*')
  config.num_steps = 5000
  config.eval_every = config.checkpoint_every = 500

  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def small(config):
  config.paper = None
  config.model_options.width = 12
  config.class_weights = 'median_frequency'
  config.resize = 0.5
  config.eval_scales = (0.5,)
  config.crop = (193, 257)
  config.scale = (0.75, 1.5)
  config.rotate, config.blur = 0.0, 0.0
  config.brightness = config.contrast = 0.2
  config.batch_size = 8
  config.optimizer = 'adam'
  config.learning_rate = 2e-3
  config.weight_decay = 0.0
  config.multipliers = ()
  config.init_new = ()
  config.warmup_steps = 30
  config.num_steps = 1000
  config.eval_every = config.checkpoint_every = 250


def smoke(config):
  config.paper = None
  config.dataset = 'shapes'
  config.dataset_options = dict(size=33, count=16, num_classes=4)
  config.num_classes = 4
  config.class_weights = ()
  config.resize, config.scale, config.eval_scales = 0.0, (0.5, 2.0), (1.0,)
  config.crop = (33, 33)
  config.model_options.width = 4
  config.model_options.stage_sizes = (1, 1, 1, 1)
  config.batch_size = 8
  config.num_steps = config.eval_every = config.checkpoint_every = 6
  config.log_every = 2
