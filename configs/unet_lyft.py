"""The tutorials' U-Net on the Lyft-Udacity challenge's rendered streets, 13 classes.

    python launch/train.py --config=configs/unet_lyft.py --workdir=DIR

bare       all 13 classes. The network is the padded Keras U-Net of course work (16 channels,
           3x3 up-convolutions, dropout after poolings and concatenations); no score has been
           published for it here, so there is no number to reach.
:challenge lane lines count as road and the camera car's hood as nothing, as in the challenge: its
           scores, F0.5 of Roads, F2 of Vehicles and their mean, are part of the evaluation.
:small     for 15 minutes on two CPU cores: at a quarter of the size, batches of 8; not run, as the data
           were not available.
:smoke     seconds, on generated shapes.

Folders A to D are for training, E is held out. Half size (300x400), crops of 288x384, Adam at 1e-3. Well
under an hour on one data-centre GPU by operation count, not measured.
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('',)  # rows of docs/results.md


def get_config(variant=None):
  chosen = variants(variant, challenge=False, small=False, smoke=False)
  config = base()
  config.num_classes = 13
  config.num_steps = 6000
  config.batch_size = 32

  config.data = dict(
    name='lyft',
    options=dict(remove_hood=chosen.challenge, merge_lanes=chosen.challenge),
    mean=(0.0, 0.0, 0.0),
    std=(255.0, 255.0, 255.0),
  )
  config.augment = (
    ('resize', dict(scale=0.5)),
    ('crop', dict(size=(288, 384))),
    ('flip', {}),
  )
  config.model = dict(name='unet', variant='keras', width=16)
  config.optim = dict(name='adam', learning_rate=1e-3)
  config.eval = dict(scales=(0.5,))
  if chosen.challenge:
    config.eval.score = dict(f_scores=dict(Roads=0.5, Vehicles=2.0))
  # The tutorial's net with one channel in and one out has 2,158,417; two further input channels add
  # 2 * 9 * 16, twelve further classes 12 * (16 + 1).
  config.paper = dict(params=2_158_909, source='the Keras tutorial net; no score is published')

  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def small(config):
  config.num_steps = 1000
  config.batch_size = 8
  config.augment = (('resize', dict(scale=0.25)), ('crop', dict(size=(144, 192))), ('flip', {}))
  config.optim = dict(name='adam', learning_rate=2e-3, schedule='cosine', warmup_steps=30)
  config.eval.update(every=250, scales=(0.25,))
  config.log = dict(checkpoint_every=250)
  config.paper = None


def smoke(config):
  on_shapes(config, size=64)
  config.batch_size = 8
  config.augment = (('resize', dict(scale=0.5)), ('crop', dict(size=(32, 32))), ('flip', {}))
  config.model = dict(name='unet', variant='keras', width=4, depth=2)
  config.eval.score = {}  # the shapes have neither roads nor vehicles
