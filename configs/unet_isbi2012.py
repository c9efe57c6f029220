"""U-Net on ISBI 2012: membranes in electron microscopy, 30 sections 512x512 (arXiv:1505.04597).

    python launch/train.py --config=configs/unet_isbi2012.py --workdir=DIR

bare    the paper's network and training set-up: valid convolutions, one 572x572 tile per step,
        momentum 0.99, elastic deformation, rotation, border weight map. The paper states neither
        learning rate nor number of steps: those here are ours, and so are mirrored images and the
        division of its weighted sum by the weights. Sections 0..23 are for training, 24..29 are
        held out (contiguous, as neighbours look alike); the paper's scores are on hidden labels.
:nvidia,fold=0  to fold=4: NVIDIA's published run (DeepLearningExamples, TensorFlow2 UNet_Medical):
        five-fold cross-validation, mean DICE 0.8902 (mixed precision; TF32 0.8900), 8.6 and 21.3
        minutes a fold on one A100. Sections resized to 388x388 on a canvas of 572x572, Adam,
        cross-entropy + (1 - Dice), batch 8, 6,400 steps; scored at 388x388 as DICE of the
        probabilities over both classes (jaxseg.metrics.dice), at the end: --step=latest. Folds are
        drawn from all sections, so neighbours of scored sections are trained on. Labels are resized
        bilinearly and thresholded at a half, as NVIDIA's (once, after its crops); Adam's epsilon is
        1e-8, Keras' 1e-7.
fold=0  to fold=4 alone: those sections with any other variant.
:small  not the paper: tuned for 15 minutes on two CPU cores (width 24, same padding,
        batch norm, Adam). :nvidia,small,fold=0 scores such a network (width 16, 300 steps) with
        NVIDIA's folds, sizes and DICE.
:smoke  seconds, on generated shapes.
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('', *(f'nvidia,fold={fold}' for fold in range(5)))  # rows of docs/results.md


def get_config(variant=None):
  chosen = variants(variant, nvidia=False, fold=-1, small=False, smoke=False)
  config = base()
  config.num_classes = 2
  config.num_steps = 20_000
  config.batch_size = 1

  config.data = dict(name='isbi2012', options=dict(border_weight=True), mean=(127.5,), std=(127.5,))
  config.augment = augment(size=572, mirror=92, sigma=10.0)
  config.model = dict(name='unet', padding='valid')
  config.loss = dict(pixel_weights=True)
  config.optim = dict(name='sgd', learning_rate=1e-3, momentum=0.99)
  config.eval = dict(every=1000)
  config.log = dict(checkpoint_every=1000)
  config.paper = dict(
    params=31_030_658,
    pixel_error=0.0611,
    rand_error=0.0382,
    warping_error=0.000353,
    split='hidden',
    source='arXiv:1505.04597, table 1 (test labels are hidden: not scorable here)',
  )

  if chosen.nvidia:
    nvidia(config)
  if chosen.small:
    small(config, chosen.nvidia)
  if chosen.nvidia or chosen.fold >= 0:
    config.data.options.fold = max(chosen.fold, 0)
  if chosen.smoke:
    smoke(config, chosen.nvidia)
  return config


def augment(size, mirror, sigma):
  return (
    ('elastic', dict(sigma=sigma)),
    ('rotate', dict(degrees=180.0, fill=None)),
    ('crop', dict(size=(size, size), mirror=mirror)),
    ('flip', dict(vertical=True)),
    ('photometric', dict(brightness=0.1, contrast=0.1)),
  )


def nvidia(config):
  config.num_steps = 6400
  config.batch_size = 8
  config.data.options = {}
  config.data.image_size = (388, 388)
  config.data.resize_labels = 'shares'
  config.augment = (
    ('pad', dict(size=(572, 572), label=0)),
    ('sides', dict(amount=0.3, labels='shares')),
    ('flip', dict(vertical=True)),
    ('photometric', dict(shift=0.1)),  # 0.2 for images in -1..1
  )
  config.model.variant = 'nvidia'
  config.loss = dict(name='softmax_dice')
  # The decay is half the square of every parameter, added to the loss.
  config.optim.update(name='adam', learning_rate=1e-4, weight_decay=5e-4)
  config.eval = dict(every=800, mirror_border=False, scores=('dice',))
  config.log = dict(checkpoint_every=800)
  config.paper = dict(
    params=34_512_258,
    dice=0.8902,
    split='val',
    source='NVIDIA DeepLearningExamples, TensorFlow2 UNet_Medical, mean of 5 folds',
  )


def small(config, is_nvidia):
  config.num_steps = 800
  config.batch_size = 4
  config.data.options = {}
  # The labels are about a pixel above the membranes, which rotations and vertical flips would change.
  # Without elastic deformation, so few steps learn sharper membranes.
  config.augment = (
    ('crop', dict(size=(256, 256))),
    ('flip', {}),
    ('photometric', dict(brightness=0.2, contrast=0.2)),
  )
  config.model = dict(name='unet', width=24, padding='same', batch_norm=True, dropout_rate=0.0)
  config.loss = dict(class_weights=(1.5, 1.0))  # membranes are a fifth of the pixels
  config.optim.update(name='adam', learning_rate=2e-3, schedule='cosine', warmup_steps=20)
  config.eval.every = config.log.checkpoint_every = 200
  if is_nvidia:  # NVIDIA's sizes, labels, scores and published number, with this network
    config.num_steps = 300
    config.model.width = 16
    config.loss = dict(name='softmax_dice')
    config.optim.average = 0.99
    config.eval.every = config.log.checkpoint_every = 100
    del config.paper['params']  # another network
  else:
    config.paper = None


def smoke(config, is_nvidia):
  on_shapes(config, size=64, num_classes=2, channels=1, border_weight=True)
  config.model = dict(name='unet', width=4, depth=2, padding='valid')
  if is_nvidia:
    config.batch_size = 2
    config.data.image_size = (36, 36)
    config.augment = (('pad', dict(size=(76, 76), label=0)), *config.augment[1:])
  else:
    config.augment = augment(size=76, mirror=20, sigma=4.0)
