"""U-Net on ISBI 2012: membranes in electron microscopy, 30 sections 512x512 (arXiv:1505.04597).

    python launch/train.py --config=configs/unet_isbi2012.py --workdir=DIR

bare    the paper's network and training set-up: valid convolutions, one 572x572 tile a step of
        momentum 0.99, elastic deformation, rotation, border weight map. The paper gives neither
        learning rate nor number of steps: those here are ours, and so are the mirrored images and
        the division of its weighted sum by the weights. Sections 0..23 train, 24..29 are
        held out (contiguous: neighbours look alike); the paper's own scores are on hidden labels.
:nvidia,fold=0  to fold=4: NVIDIA's published run (DeepLearningExamples, TensorFlow2 UNet_Medical):
        five-fold cross-validation, mean DICE 0.8902 (mixed precision; TF32 0.8900), 8.6 and 21.3
        minutes a fold on one A100. Sections resized to 388x388 on a canvas of 572x572, Adam,
        cross-entropy + (1 - Dice), batch 8, 6,400 steps; scored at 388x388 as DICE of the
        probabilities over both classes (jaxseg.metrics.dice), at the end: --step=latest. Folds are
        drawn from all sections, so neighbours of what is scored have been trained on. Labels are
        resized (and cut) to the nearest pixel, NVIDIA's bilinearly with a threshold; Adam's epsilon
        is 1e-8, Keras' 1e-7.
fold=0  to fold=4 alone: those sections with any other variant.
:small  not the paper: what learns most in 15 minutes on two CPU cores (width 24, same padding,
        batch norm, Adam).
:smoke  seconds, on generated shapes.
"""

from jaxseg.config import base, variants

BASELINES = ('', *(f'nvidia,fold={fold}' for fold in range(5)))  # rows of docs/results.md


def get_config(variant=None):
  chosen = variants(variant, nvidia=False, fold=-1, small=False, smoke=False)
  config = base()

  config.dataset = 'isbi2012'
  config.dataset_options = dict(border_weight=True)
  config.num_classes = 2
  config.channels = 1
  config.mean = (127.5,)
  config.std = (127.5,)

  config.model = 'unet'
  config.model_options = dict(width=64, padding='valid')
  config.pixel_weights = True
  config.paper = dict(
    params=31_030_658,
    pixel_error=0.0611,
    rand_error=0.0382,
    warping_error=0.000353,
    split='hidden',
    source='arXiv:1505.04597, table 1 (test labels are hidden: not scorable here)',
  )

  config.crop = (572, 572)
  config.mirror = 92
  config.elastic = 10.0
  config.rotate = 180.0
  config.flip = config.vertical_flip = True
  config.brightness = config.contrast = 0.1

  config.num_steps = 20_000
  config.batch_size = 1
  config.optimizer = 'sgd'
  config.learning_rate = 1e-3
  config.momentum = 0.99
  config.eval_every = 1000
  config.checkpoint_every = 1000

  if chosen.nvidia:
    nvidia(config)
  if chosen.small:
    small(config)
  if chosen.nvidia or chosen.fold >= 0:
    config.dataset_options.fold = max(chosen.fold, 0)
  if chosen.smoke:
    smoke(config, chosen.nvidia)
  return config


def nvidia(config):
  config.model_options.variant = 'nvidia'
  config.paper = dict(
    params=34_512_258,
    dice=0.8902,
    split='val',
    source='NVIDIA DeepLearningExamples, TensorFlow2 UNet_Medical, mean of 5 folds',
  )
  config.dataset_options = {}
  config.pixel_weights = False
  config.image_size = (388, 388)
  config.pad, config.pad_label = (572, 572), 0
  config.crop, config.mirror, config.elastic, config.rotate = (), 0, 0.0, 0.0
  config.sides = 0.3
  config.brightness = config.contrast = 0.0
  config.shift = 0.1  # 0.2 where images are -1..1
  config.loss = 'softmax_dice'
  config.dice = True
  config.batch_size = 8
  config.optimizer = 'adam'
  config.learning_rate = 1e-4
  config.weight_decay = 5e-4  # half the square of every parameter, added to the loss
  config.num_steps = 6400
  config.eval_every = config.checkpoint_every = 800


def small(config):
  config.paper = None
  config.model_options = dict(width=24, padding='same', batch_norm=True, dropout_rate=0.0)
  config.dataset_options = {}
  config.pixel_weights = False
  config.mirror = 0
  config.crop = (256, 256)
  config.rotate = config.elastic = 0.0  # so few steps learn sharp membranes better
  # The labels lie about a pixel above the membranes: turned or upside down they would lie elsewhere.
  config.flip, config.vertical_flip = True, False
  config.brightness = config.contrast = 0.2
  config.class_weights = (1.5, 1.0)  # membranes are a fifth of the pixels
  config.batch_size = 4
  config.optimizer = 'adam'
  config.learning_rate = 2e-3
  config.schedule = 'cosine'
  config.warmup_steps = 20
  config.num_steps = 800
  config.eval_every = config.checkpoint_every = 200


def smoke(config, is_nvidia):
  config.paper = None
  config.dataset = 'shapes'
  config.dataset_options = dict(size=64, count=16, num_classes=2, channels=1, border_weight=True)
  config.model_options = dict(width=4, depth=2, padding='valid')
  if is_nvidia:
    config.image_size, config.pad, config.batch_size = (36, 36), (76, 76), 2
  else:
    config.crop, config.mirror, config.elastic = (76, 76), 20, 4.0
  config.num_steps = config.eval_every = config.checkpoint_every = 6
  config.log_every = 2
