"""SegNet on SUN RGB-D, colour only, 37 classes at 360x480 (arXiv:1511.00561, table 4).

    python launch/train.py --config=configs/segnet_sunrgbd.py --workdir=DIR

bare      the table's row with median-frequency balancing, 180,000 steps of 4 images: 71.75 global,
          44.85 class average, 32.08 mIoU, 14.06 BF on the 5050 test images. Score it with
          launch/evaluate.py --step=latest: there is no validation split, so no best step.
:bayesian the released solver's 60,000 steps, for Monte-Carlo prediction (arXiv:1511.02680); no
          figure is stated here for it.
:small    for 15 minutes on two CPU cores, as segnet_camvid.py:basic,small; not run, as the data were not
          available.
:smoke    seconds, on generated shapes.

By operation count three to six hours on one data-centre GPU, not measured. In both, as released,
the deep half has dropout in training. Images are BGR, 0..255, no mean subtracted; images and labels
are resized to 360x480, at which scores are computed; the loss is weighted and divided by the number of
pixels. The released net has a 38th output for void, which is never a target; here there are 37 (the
release's 38: 29,464,934 parameters).
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('', 'bayesian')  # rows of docs/results.md

# The release's, for its labels 0 (void, ignored) to 37; ours start at its 1.
RELEASED_WEIGHTS = (
  0.351185, 0.382592, 0.447844, 0.634237, 0.375678, 0.582794, 0.476692, 0.776787, 0.980661,
  1.020118, 0.623396, 2.596563, 0.974491, 0.920240, 0.663878, 1.173357, 0.861062, 0.919955,
  2.147320, 1.190958, 1.164314, 1.854754, 1.446550, 2.853078, 0.768276, 1.651721, 4.456313,
  2.205633, 1.116695, 2.781543, 0.705917, 4.005834, 2.208329, 0.967071, 1.475710, 5.347752,
  0.745528, 4.017548,
)  # fmt: skip


def get_config(variant=None):
  chosen = variants(variant, bayesian=False, small=False, smoke=False)
  config = base()
  config.num_classes = 37
  config.num_steps = 60_000 if chosen.bayesian else 180_000
  config.batch_size = 4
  config.eval_split = 'test'

  config.data = dict(
    name='sunrgbd',
    image_size=(360, 480),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    channel_order='bgr',
  )
  config.model = dict(name='segnet', variant='vgg16', bayesian=True)
  config.loss = dict(normalize='pixels', class_weights=RELEASED_WEIGHTS[1:])
  config.optim = dict(
    name='caffe_sgd',
    learning_rate=1e-3,
    momentum=0.9,
    weight_decay=5e-4,
    multipliers=((r'_bn/bias', 1.0, 0.0), (r'/bias', 2.0, 0.0)),
  )
  config.init_from = 'imagenet'
  config.init = dict(new=('.*_bn', '.*_D'), ignore=('mean',))
  config.eval = dict(every=10_000, score=dict(absent='zero'), population_pass=True)
  config.log = dict(checkpoint_every=5000)
  # SegNet with 11 classes has 29,449,355, and each further class 64 * 9 + 1 in the classifier.
  config.paper = dict(params=29_464_357, split='test', source='arXiv:1511.02680')
  if not chosen.bayesian:
    config.paper.update(
      pixel_accuracy=0.7175,
      mean_accuracy=0.4485,
      mean_iou=0.3208,
      boundary_f1=0.1406,
      source='arXiv:1511.00561, table 4, median frequency balancing',
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
  config.data.image_size = (180, 240)
  config.augment = (('flip', {}), ('photometric', dict(brightness=0.2, contrast=0.2)))
  config.model = dict(name='segnet', variant='basic', width=24)
  config.loss = dict(class_weights=tuple(w**0.5 for w in RELEASED_WEIGHTS[1:]))
  config.optim = dict(name='adam', learning_rate=2e-3, schedule='cosine', warmup_steps=30)
  config.init = {}
  config.eval = dict(every=500, score=dict(absent='zero'))
  config.log = dict(checkpoint_every=250)
  config.paper = None


def smoke(config):
  on_shapes(config, size=32)
  config.data.image_size = (24, 32)
  config.model.width = 4
  config.loss.class_weights = 'median_frequency'
