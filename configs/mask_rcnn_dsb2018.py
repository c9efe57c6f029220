"""Mask R-CNN on the nuclei of the 2018 Data Science Bowl: a box and a mask for each nucleus.

    python launch/train.py --config=configs/mask_rcnn_dsb2018.py --workdir=DIR \\
        --config.init_from=RESNET50

Nobody has published a Mask R-CNN baseline for this selection, so there is no number to reach. The
recipe is arXiv:1703.06870's, for objects from 5 to 90 pixels across: anchors from 8 to 128 pixels, the
finest map (stride 4) for boxes up to 56 pixels, and more rows than COCO needs, for an image may show 300
nuclei.

bare    ResNet-50 from torchvision's ImageNet weights, crops of 256x256 from images of seven sizes.
:small  what learns most in 15 minutes on two CPU cores: a narrow ResNet, pyramid and heads, from
        scratch, batch norm learning.
:smoke  seconds, on generated shapes.
"""

from jaxseg.config import base, variants

BASELINES = ('',)  # rows of docs/results.md


def get_config(variant=None):
  chosen = variants(variant, small=False, smoke=False)
  config = base()

  config.dataset = 'dsb2018'
  config.dataset_options = dict(border_weight=False)
  config.num_classes = 2
  config.task = 'instance'
  config.max_instances = 400
  config.min_area = 4
  config.mean = (123.675, 116.28, 103.53)
  config.std = (58.395, 57.12, 57.375)

  config.crop = (256, 256)
  config.scale = (0.75, 1.5)
  config.flip = config.vertical_flip = config.rotate90 = True
  config.brightness = config.contrast = 0.2

  config.model = 'mask_rcnn'
  config.model_options = dict(
    backbone='resnet50',
    anchor_sizes=(8, 16, 32, 64, 128),
    post_nms=(1000, 1000),
    rpn_samples=256,
    roi_samples=256,
    detections=400,
  )
  config.init_new = ('fpn', 'rpn', 'box_head', 'mask_head')
  config.multipliers = (
    (r'^backbone/(conv1|layer1_)', 0.0, 0.0),
    (r'^backbone/.*(bn\d|downsample_1)/', 0.0, 0.0),
  )

  config.num_steps = 10_000
  config.batch_size = 16
  config.optimizer = 'sgd'
  config.learning_rate = 0.02
  config.weight_decay = 1e-4
  config.schedule = 'cosine'
  config.warmup_steps = 500
  config.eval_every = 1000
  config.checkpoint_every = 1000

  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def from_scratch(config, **options):
  """A small network: nothing is loaded, nothing frozen."""
  config.model_options.update(frozen_norm=False, frozen_stages=0, **options)
  config.init_new = config.multipliers = ()
  config.mean = config.std = (127.5, 127.5, 127.5)
  config.optimizer = 'adam'
  config.weight_decay = 0.0


def small(config):
  from_scratch(
    config,
    width=16,
    stage_sizes=(2, 2, 2, 2),
    features=64,
    anchor_sizes=(12, 24, 48, 96),
    pre_nms=(300, 500),
    post_nms=(200, 400),
    rpn_samples=128,
    roi_samples=96,
    box_features=256,
    mask_features=64,
    mask_layers=2,
    detections=300,
    candidates=600,
  )
  config.batch_size = 4
  config.learning_rate = 1e-3
  config.clip_norm = 10.0
  config.num_steps = 900
  config.warmup_steps = 50
  config.eval_every = config.checkpoint_every = 450


def smoke(config):
  config.dataset = 'shapes'
  config.dataset_options = dict(size=64, count=16, num_classes=2)
  config.crop = (64, 64)
  from_scratch(
    config,
    width=4,
    stage_sizes=(1, 1, 1),
    features=16,
    anchor_sizes=(12, 24, 48),
    pre_nms=(100, 100),
    post_nms=(60, 60),
    rpn_samples=64,
    roi_samples=32,
    box_features=32,
    mask_features=8,
    mask_layers=1,
    detections=20,
    candidates=100,
  )
  config.learning_rate = 1e-3
  config.batch_size = 8
  config.num_steps = config.eval_every = config.checkpoint_every = 6
  config.warmup_steps = 2
  config.log_every = 2
