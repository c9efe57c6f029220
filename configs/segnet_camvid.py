"""SegNet on CamVid, 11 classes at 360x480 (arXiv:1511.00561, tables 1 and 3).

    python launch/train.py --config=configs/segnet_camvid.py:basic --workdir=DIR

bare      SegNet on VGG16: 40,000 steps of 4 images as in the released solver, about 2 hours on one
          data-centre GPU. It starts from VGG16's ImageNet weights, as in the paper.
          For the 367 training images alone the paper has no number; its 60.1 mIoU took 3,433 images.
:basic    SegNet-Basic from scratch, 10,000 steps of 4 as in the released solver. Table 1, with
          median-frequency balancing, gives 82.7 global, 62.0 class average, 47.7 mIoU on test, for the
          network of :paper, not for the released one.
:paper    SegNet-Basic as in table 1: local contrast normalisation of the input, batches of 12, and
          weights by the paper's formula. The paper trains until the loss converges and chooses among
          every 1000 steps by global accuracy on val; here it is 10,000 steps, and best is by mean IoU
          (launch/evaluate.py). The 9x9 window of the normalisation is Jarrett's: the paper states none.
:bayesian with dropout in the deep half, for Monte-Carlo prediction (arXiv:1511.02680).
:small    not the paper: tuned for 15 minutes on two CPU cores (half size, narrower, Adam,
          mean loss, augmentation).
:smoke    seconds, on generated shapes.

The class weights are those of the release (SegNet-Tutorial), which its own formula does not
reproduce; --config.loss.class_weights=median_frequency computes the formula. Images are BGR, 0..255,
no mean subtracted; the loss is weighted and divided by the number of pixels, as caffe-segnet does.
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('', 'basic', 'paper', 'bayesian', 'basic,bayesian')  # rows of docs/results.md

# Sky, Building, Pole, Road, Pavement, Tree, SignSymbol, Fence, Car, Pedestrian, Bicyclist
RELEASED_WEIGHTS = (
  0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614,
)  # fmt: skip


def get_config(variant=None):
  chosen = variants(variant, basic=False, paper=False, bayesian=False, small=False, smoke=False)
  basic = chosen.basic or chosen.paper
  config = base()
  config.num_classes = 11
  config.batch_size = 4

  config.data = dict(name='camvid', mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), channel_order='bgr')
  config.model = dict(
    name='segnet', variant='basic' if basic else 'vgg16', bayesian=chosen.bayesian
  )
  config.loss = dict(normalize='pixels', class_weights=RELEASED_WEIGHTS)
  config.optim = dict(name='caffe_sgd', momentum=0.9, weight_decay=5e-4)
  config.eval = dict(every=1000, score=dict(absent='zero'), population_pass=True)
  config.log = dict(checkpoint_every=1000)
  if basic:
    config.num_steps = 10_000
    config.optim.learning_rate = 0.1
    config.optim.multipliers = ((r'^conv\w*(?<!_bn)/bias', 2.0, 0.0),)  # BN: Caffe's default 1, 1
    config.paper = dict(
      params=1_416_587,
      pixel_accuracy=0.827,
      mean_accuracy=0.620,
      mean_iou=0.477,
      split='test',
      source=f'arXiv:1511.00561, table 1{"" if chosen.paper else ", of the network of :paper"}',
    )
  else:
    config.num_steps = 60_000 if chosen.bayesian else 40_000
    config.optim.learning_rate = 1e-3
    config.optim.multipliers = ((r'_bn/bias', 1.0, 0.0), (r'/bias', 2.0, 0.0))
    config.init_from = 'imagenet'
    config.init = dict(
      new=(r'.*_bn', r'.*_D'),  # VGG16 has neither batch norm nor a decoder
      ignore=('mean',),  # as released: the batch norm after conv1_1 absorbs the shift
    )
    config.paper = dict(params=29_449_355, split='test', source='arXiv:1511.00561')
  if chosen.paper:
    config.batch_size = 12
    config.model.input_norm = 'contrast'
    config.loss.class_weights = 'median_frequency'
  if chosen.bayesian:
    pixel_accuracy, mean_iou = (0.816, 0.558) if basic else (0.869, 0.631)
    config.paper = dict(
      params=config.paper.params,
      pixel_accuracy=pixel_accuracy,
      mean_iou=mean_iou,
      split='test',
      source='arXiv:1511.02680, as later papers quote it',
    )

  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def small(config):
  config.init_from = ''
  config.num_steps = 1000
  config.augment = (
    ('resize', dict(scale=0.5)),
    ('crop', dict(size=(180, 240), scale=(0.75, 1.5))),
    ('flip', {}),
    ('photometric', dict(brightness=0.2, contrast=0.2)),
  )
  config.model.width = 24 if config.model.variant == 'basic' else 16
  config.loss = dict(class_weights=tuple(w**0.5 for w in RELEASED_WEIGHTS))
  config.optim = dict(name='adam', learning_rate=2e-3, schedule='cosine', warmup_steps=30)
  config.eval = dict(every=250, scales=(0.5,), score=dict(absent='zero'))
  config.log = dict(checkpoint_every=250)
  config.paper = None


def smoke(config):
  on_shapes(config, size=32)
  config.augment = ()
  config.model.width = 4
  config.loss.class_weights = 'median_frequency'
  config.eval.scales = (1.0,)
