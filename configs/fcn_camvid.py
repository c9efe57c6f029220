"""FCN on CamVid, 11 classes (arXiv:1411.4038 and 1605.06211; CamVid figures in arXiv:1511.00561).

    python launch/train.py --config=configs/fcn_camvid.py --workdir=DIR

bare    FCN-8s on VGG16, trained at once from ImageNet weights.
:32s, :16s, :8s  the stages; each starts from the last checkpoint of the one before:
        --config.init_from=WORKDIR.
:small  not the paper: tuned for 15 minutes on two CPU cores (half size, a quarter of the
        width, batch norm, aligned same padding, Adam, mean loss, augmentation).
:smoke  seconds, on generated shapes.

The recipe is the reference release's for PASCAL VOC: one whole image a step, the loss summed over its
pixels (float32), momentum 0.99, fixed bilinear upsampling. FCN trained on these 367 images alone has not
been published; on 3,433 images arXiv:1511.00561, table 3, has 49.8 mIoU.
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('32s', '16s', '8s', '')  # rows of docs/results.md

# 134,260,544 in VGG16 with fc6 and fc7, then (channels + 1) * 11 in each score layer.
PARAMS = {32: 134_305_611, 16: 134_311_254, 8: 134_314_081}
RATES = {32: 1e-10, 16: 1e-12, 8: 1e-14}
# Layers that each stage adds to the one before: all score layers in the first, and when trained at once.
NEW = {32: ('score_.*',), 16: ('score_pool4',), 8: ('score_pool3',)}


def get_config(variant=None):
  chosen = variants(variant, **{'32s': False, '16s': False, '8s': False}, small=False, smoke=False)
  stage = next((s for s in (32, 16, 8) if getattr(chosen, f'{s}s')), None)
  stride = stage or 8
  config = base()
  config.num_classes = 11
  config.num_steps = 100_000 if stage else 300_000
  config.batch_size = 1

  config.data = dict(
    name='camvid',
    mean=(122.67892, 116.66877, 104.00699),
    std=(1.0, 1.0, 1.0),
    channel_order='bgr',
    replacement=True,
  )
  config.model = dict(name='fcn', stride=stride, at_once=stage is None)
  config.loss = dict(normalize='sum')
  config.optim = dict(
    name='caffe_sgd',
    learning_rate=RATES[stage or 32],
    momentum=0.99,
    weight_decay=5e-4,
    multipliers=((r'/bias', 2.0, 0.0),),
  )
  if stage in (None, 32):
    config.init_from = 'imagenet'
  config.init = dict(new=NEW[stage or 32], step='latest')
  config.eval = dict(every=4000)
  config.log = dict(checkpoint_every=4000)
  config.paper = dict(params=PARAMS[stride], split='test', source='arXiv:1605.06211')

  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def small(config):
  config.init_from = ''
  config.num_steps = 1000
  config.batch_size = 8
  config.data = dict(name='camvid', std=(63.75, 63.75, 63.75))
  config.augment = (
    ('resize', dict(scale=0.5)),
    ('crop', dict(size=(192, 256), scale=(0.75, 1.5))),
    ('flip', {}),
    ('photometric', dict(brightness=0.2, contrast=0.2)),
  )
  config.model = dict(
    name='fcn',
    stride=config.model.stride,
    width=16,
    batch_norm=True,
    aligned=True,
    dropout_rate=0.2,
  )
  config.loss = dict(class_weights='median_frequency')
  config.optim.update(
    name='adam',
    learning_rate=2e-3,
    weight_decay=0.0,
    multipliers=(),
    schedule='cosine',
    warmup_steps=30,
  )
  config.eval = dict(every=250, scales=(0.5,))
  config.log = dict(checkpoint_every=250)
  config.paper = None


def smoke(config):
  on_shapes(config, size=32)
  config.augment = ()
  config.model.width = 4
  config.model.aligned = True  # the released net's padding of 100 is too slow for a smoke test
  config.eval.scales = (1.0,)
