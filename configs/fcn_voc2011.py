"""FCN on PASCAL VOC 2011 with SBD's labels, 21 classes (arXiv:1411.4038 and 1605.06211).

    python launch/train.py --config=configs/fcn_voc2011.py:32s --workdir=RUN32
    python launch/train.py --config=configs/fcn_voc2011.py:16s --workdir=RUN16 \\
        --config.init_from=RUN32

:32s, :16s, :8s  the stages of the reference release (fcn.berkeleyvision.org), 100,000 steps each;
        each starts from the last checkpoint of the one before, the first from VGG16's ImageNet weights.
:atonce FCN-8s trained at once, 300,000 steps, from VGG16; also the bare config.
:small  for 15 minutes on two CPU cores, from scratch, as fcn_camvid.py:small; not run, as the data were
        not available.
:smoke  seconds, on generated shapes.

To reach, mIoU on the 736 images of seg11valid: 63.6, 65.0, 65.5 and 65.4. Others measured 63.6, 65.0,
65.5 and 65.4 with the released weights, and 62.8 to 65.5 with their own training.

One whole image per step, drawn at random with replacement, no augmentation; the loss is summed over its
pixels (float32, weight decay is negligible in comparison), momentum 0.99, fixed bilinear upsampling. By
operation count an hour or two per stage on one data-centre GPU, not measured; the images have hundreds of
sizes, and each compiles once: --config.augment.pad.size=500,500 pads all to one size, unlike the release.
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('32s', '16s', '8s', 'atonce')  # rows of docs/results.md

# Learnable parameters with 21 classes: VGG16 with fc6 and fc7 has 134,260,544, and each
# score layer (channels + 1) * 21: 86,037 of fc7, 10,773 of pool4, 5,397 of pool3.
PARAMS = {32: 134_346_581, 16: 134_357_354, 8: 134_362_751}
RATES = {32: 1e-10, 16: 1e-12, 8: 1e-14}
MEAN_IOU = {32: 0.636, 16: 0.650, 8: 0.655}
NEW = {32: 'score_fr', 16: 'score_pool4', 8: 'score_pool3'}


def get_config(variant=None):
  names = ('32s', '16s', '8s', 'atonce', 'small', 'smoke')
  chosen = variants(variant, **dict.fromkeys(names, False))
  stage = next((s for s in (32, 16, 8) if getattr(chosen, f'{s}s')), None)
  stride = stage or 8
  config = base()
  config.num_classes = 21
  config.num_steps = 100_000 if stage else 300_000
  config.batch_size = 1
  config.eval_split = 'seg11valid'

  config.data = dict(
    name='voc',
    options=dict(year=2011),
    train_split='sbd_train',
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
  config.init = dict(new=(NEW[stage],) if stage else ('score_.*',), step='latest')
  config.eval = dict(every=4000)
  config.log = dict(checkpoint_every=4000)
  config.paper = dict(
    params=PARAMS[stride],
    mean_iou=MEAN_IOU[stage] if stage else 0.654,
    split='seg11valid',
    source='arXiv:1605.06211, as the reference release states it',
  )

  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def small(config):
  config.init_from = ''
  config.num_steps = 1000
  config.batch_size = 8
  config.data.update(std=(63.75, 63.75, 63.75), channel_order='rgb', replacement=False)
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
  config.optim = dict(name='adam', learning_rate=2e-3, schedule='cosine', warmup_steps=30)
  config.init = {}
  config.eval = dict(every=500, scales=(0.5,))
  config.log = dict(checkpoint_every=250)
  config.paper = None


def smoke(config):
  on_shapes(config, size=32)
  config.model.width = 4
  config.model.aligned = True  # the released net's padding of 100 is too slow for a smoke test
