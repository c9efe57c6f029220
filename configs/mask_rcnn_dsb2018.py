"""Mask R-CNN on the nuclei of the 2018 Data Science Bowl: a box and a mask for each nucleus.

    python launch/train.py --config=configs/mask_rcnn_dsb2018.py --workdir=DIR

No Mask R-CNN baseline has been published for this selection, so there is no number to reach. The
recipe is arXiv:1703.06870's, for objects from 5 to 90 pixels across: anchors from 8 to 128 pixels, the
finest map (stride 4) for boxes up to 56 pixels, and more rows than for COCO, as an image may show 300
nuclei.

bare    ResNet-50 from torchvision's ImageNet weights, crops of 256x256 from images of seven sizes.
:small  tuned for 15 minutes on two CPU cores: a narrow ResNet, pyramid and heads, from
        scratch, with trained batch norm.
:smoke  seconds, on generated shapes.
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('',)  # rows of docs/results.md


def get_config(variant=None):
  chosen = variants(variant, small=False, smoke=False)
  config = base()
  config.task = 'instance'
  config.num_classes = 2
  config.num_steps = 10_000
  config.batch_size = 16

  config.data = dict(
    name='dsb2018',
    options=dict(border_weight=False),
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
  )
  config.augment = augment(256)
  config.model = dict(
    name='mask_rcnn',
    backbone='resnet50',
    anchor_sizes=(8, 16, 32, 64, 128),
    roi_samples=256,
    detections=400,
  )
  config.loss = dict(max_instances=400, min_area=4)
  config.optim = dict(
    name='sgd',
    learning_rate=0.02,
    weight_decay=1e-4,
    multipliers=(
      (r'^backbone/(conv1|layer1_)', 0.0, 0.0),
      (r'^backbone/.*(bn\d|downsample_1)/', 0.0, 0.0),
    ),
    schedule='cosine',
    warmup_steps=500,
  )
  config.init_from = 'imagenet'
  config.init = dict(new=('fpn', 'rpn', 'box_head', 'mask_head'))
  config.eval = dict(every=1000)
  config.log = dict(checkpoint_every=1000)

  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def augment(size):
  return (
    ('crop', dict(size=(size, size), scale=(0.75, 1.5))),
    ('flip', dict(vertical=True)),
    ('rotate90', {}),
    ('photometric', dict(brightness=0.2, contrast=0.2)),
  )


def from_scratch(config, **options):
  """A small network, with nothing pretrained or frozen."""
  config.data = dict(name='dsb2018', options=dict(border_weight=False))
  config.model.update(frozen_norm=False, frozen_stages=0, **options)
  config.init = {}


def small(config):
  config.init_from = ''
  config.num_steps = 900
  config.batch_size = 4
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
  config.optim = dict(
    name='adam', learning_rate=1e-3, schedule='cosine', warmup_steps=50, clip_norm=10.0
  )
  config.eval.every = config.log.checkpoint_every = 450


def smoke(config):
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
  on_shapes(config, size=64, num_classes=2)
  config.batch_size = 8
  config.augment = augment(64)
  config.optim = dict(name='adam', learning_rate=1e-3, schedule='cosine', warmup_steps=2)
