"""Mask R-CNN, ResNet-50 with a feature pyramid, on COCO 2017 (arXiv:1703.06870).

    python launch/train.py --config=configs/mask_rcnn_coco.py --workdir=DIR

bare     90,000 steps ("1x"), from torchvision's resnet50.
:3x      270,000 steps.
:resnet101  ResNet-101, from torchvision's resnet101; its published number is for 3x.
:torchvision  anchors and RoIAlign as in torchvision's maskrcnn_resnet50_fpn, for its published
         weights: --config.init_from=torchvision:maskrcnn_resnet50_fpn '--config.init.new=()'
:small   for 15 minutes on two CPU cores: the network of mask_rcnn_dsb2018.py:small with COCO's images at
         a quarter of their size; not run, as the data were not available.
:smoke   seconds, on generated shapes.

This is Detectron2's end-to-end recipe, which reaches 35.2 mask and 38.6 box AP on val2017 with 1x, 37.2
and 41.0 with 3x, R101-FPN with 3x 38.6 and 42.9: the numbers to reach. The paper, which trains in two
stages, has 33.6 mask AP for R50-FPN and 35.4 for R101-FPN (table 2a, 5,000 images of val2014: the images
of val2017); torchvision's own weights have 34.6 and 37.9.

The recipe: 16 images, SGD 0.02 with momentum 0.9 and weight decay 1e-4, warmed up over 1000 steps from
1/1000 of the rate, divided by ten at 60,000 and at 80,000; horizontal flips; batch norm, the stem and the
first stage frozen. The shorter side is one of 640, 672 ... 800 pixels, the longer at most 1333.
Differences: Detectron2's backbone is MSRA's (stride on the first 1x1, BGR, standard deviation 1), and its
batches, of either wide or tall images, are padded to their largest image, ours to 800 x 1344 or 1344 x
800, so that there are only two shapes. Hours are not measured; if 16 images do not fit in memory:
--config.model.remat=True.
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('',)  # rows of docs/results.md

PARAMS = {'resnet50': 44_396_336, 'resnet101': 63_388_464}


def get_config(variant=None):
  chosen = variants(
    variant, resnet101=False, torchvision=False, small=False, smoke=False, **{'3x': False}
  )
  long = getattr(chosen, '3x')
  backbone = 'resnet101' if chosen.resnet101 else 'resnet50'
  config = base()
  config.task = 'instance'
  config.num_classes = 81
  config.num_steps = 270_000 if long else 90_000
  config.batch_size = 16
  config.parallel = 'mesh'

  config.data = dict(name='coco', mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
  config.augment = (
    ('short_side', dict(sides=(640, 672, 704, 736, 768, 800), longest=1333)),
    ('crop', dict(size=(800, 1344), turned=True)),
    ('flip', {}),
  )
  config.model = dict(name='mask_rcnn', backbone=backbone)
  if chosen.torchvision:
    config.model.update(aligned=False, anchors_rounded=True)
  config.optim = dict(
    name='sgd',
    learning_rate=0.02,
    momentum=0.9,
    weight_decay=1e-4,
    multipliers=(
      (r'^backbone/(conv1|layer1_)', 0.0, 0.0),
      (r'^backbone/.*(bn\d|downsample_1)/', 0.0, 0.0),
    ),
    schedule='step',
    schedule_steps=(210_000, 250_000) if long else (60_000, 80_000),
    warmup_steps=1000,
  )
  config.init_from = 'imagenet'
  config.init = dict(new=('fpn', 'rpn', 'box_head', 'mask_head'))
  config.eval = dict(every=10_000, short_side=800, long_side=1333)
  config.log = dict(checkpoint_every=5000)
  row, numbers = _published(long, chosen.resnet101, chosen.torchvision)
  config.paper = dict(params=PARAMS[backbone], **numbers, source=row)

  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def _published(long, resnet101, torchvision):
  """Returns the source of the published numbers on val2017 for this recipe, and the numbers."""
  if torchvision:
    row = 'torchvision, maskrcnn_resnet50_fpn COCO_V1', 0.346, 0.379
  elif resnet101:  # R101 with 1x has not been published
    row = "Detectron2's model zoo, R101-FPN 3x", 0.386, 0.429
  elif long:
    row = "Detectron2's model zoo, R50-FPN 3x", 0.372, 0.410
  else:
    row = "Detectron2's model zoo, R50-FPN 1x", 0.352, 0.386
  source, masks, boxes = row
  return source, dict(mask_ap=masks, box_ap=boxes)


def small(config):
  config.init_from = ''
  config.num_steps = 900
  config.batch_size = 4
  config.parallel = 'pmap'
  config.augment = (
    ('short_side', dict(sides=(160, 176, 192), longest=320)),
    ('crop', dict(size=(192, 256))),
    ('flip', {}),
  )
  config.model = dict(
    name='mask_rcnn',
    width=16,
    stage_sizes=(2, 2, 2, 2),
    features=64,
    frozen_norm=False,
    frozen_stages=0,
    anchor_sizes=(12, 24, 48, 96),
    pre_nms=(300, 500),
    post_nms=(200, 300),
    rpn_samples=128,
    roi_samples=96,
    box_features=256,
    mask_features=64,
    mask_layers=2,
  )
  config.optim = dict(
    name='adam', learning_rate=1e-3, schedule='cosine', warmup_steps=50, clip_norm=10.0
  )
  config.init = {}
  config.eval = dict(every=900, short_side=192, long_side=320)
  config.log = dict(checkpoint_every=300)
  config.paper = None


def smoke(config):
  on_shapes(config, size=64)
  config.batch_size = 8
  config.augment = (('crop', dict(size=(64, 64))), ('flip', {}))
  config.model.update(
    width=4,
    stage_sizes=(1, 1, 1),
    frozen_norm=False,
    frozen_stages=0,
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
  config.optim.update(learning_rate=0.01, multipliers=(), schedule='constant', warmup_steps=2)
  config.eval.short_side = 0
