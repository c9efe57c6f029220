"""U-Net on the nuclei of the 2018 Data Science Bowl: foreground, touching nuclei kept apart.

    python launch/train.py --config=configs/unet_dsb2018.py --workdir=DIR

No U-Net baseline has been published for this selection, so there is no number to reach. The recipe
is arXiv:1505.04597's: the weight map (w0 = 10, sigma = 5, computed from the instances when the
records are built) emphasises the gaps between nuclei, and elastic deformation augments the few images.

bare    same padding with batch norm, width 64, crops of 256x256 from images of seven sizes.
:small  tuned for 15 minutes on two CPU cores (width 16, crops of 192x192).
:fluorescence  with any other: only grey nuclei on a dark ground, 380 to train on and 67 to score by
        the matching of arXiv:1806.03535, whose own choice of 67 is not published; contrast stretched
        image by image. With `small` images are twice as large, on EfficientNet-Lite 0 with ImageNet
        weights, 40 minutes on two CPU cores: F1 0.849 by `evaluate --min_area=20` (docs/results.md).
:smoke  seconds, on generated shapes.
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('',)  # rows of docs/results.md


def get_config(variant=None):
  chosen = variants(variant, small=False, fluorescence=False, smoke=False)
  config = base()
  config.num_classes = 2
  config.num_steps = 10_000
  config.batch_size = 16

  config.data = dict(name='dsb2018', options=dict(border_weight=True))
  config.augment = augment(256)
  config.model = dict(name='unet', padding='same', batch_norm=True)
  config.loss = dict(pixel_weights=True)
  config.optim = dict(name='adam', learning_rate=1e-3, schedule='cosine', warmup_steps=100)
  config.eval = dict(every=1000, scores=('seg',))  # score nuclei, not only pixels
  config.log = dict(checkpoint_every=1000)

  if chosen.small and not chosen.fluorescence:
    small(config)
  if chosen.fluorescence:
    config.data.train_split, config.eval_split = 'fluorescence_train', 'fluorescence_val'
    config.data.percentiles = (1.0, 99.8)  # as StarDist: the brightest pixel is 22 to 255
    config.eval.scores = ('matching',)
  if chosen.fluorescence and chosen.small:
    small_fluorescence(config)
  if chosen.smoke:
    smoke(config)
  return config


def augment(size, scale=(0.75, 1.5)):
  return (
    ('elastic', dict(sigma=8.0)),
    ('crop', dict(size=(size, size), scale=scale)),
    ('flip', dict(vertical=True)),
    ('rotate90', {}),
    ('photometric', dict(brightness=0.2, contrast=0.2)),
  )


def small(config):
  config.num_steps = 600
  config.batch_size = 8
  config.augment = augment(192)
  config.model.update(width=16, dropout_rate=0.2)
  config.optim.update(learning_rate=2e-3, warmup_steps=20)
  config.eval.every = config.log.checkpoint_every = 200


def small_fluorescence(config):
  """Images twice as large, on a pretrained encoder, whose scores have half the resolution."""
  config.num_steps = 4000
  config.batch_size = 8
  config.init_from, config.init = 'imagenet', dict(new=('dec.*', 'score'))
  config.data.update(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
  config.augment = augment(192, scale=(1.5, 3.0))
  config.model = dict(
    name='unet', backbone='efficientnet_lite0', width=8, batch_norm=True, frozen_norm=True
  )
  config.optim = dict(
    name='adamw',
    learning_rate=2e-3,
    weight_decay=1e-2,
    multipliers=(
      (r'^backbone/.*kernel', 0.3, 1.0),
      (r'^backbone/', 0.3, 0.0),
      (r'/(scale|bias)$', 1.0, 0.0),
    ),
    schedule='poly',
    warmup_steps=100,
    average=0.998,
  )
  config.eval.update(every=1000, scales=(2.0,))
  config.log.checkpoint_every = 250


def smoke(config):
  on_shapes(config, size=64, num_classes=2, border_weight=True)
  config.batch_size = 8
  config.augment = augment(48)
  config.model = dict(name='unet', width=4, depth=2, padding='same', batch_norm=True)
  config.eval.scores = ()  # the shapes have no instance ids
