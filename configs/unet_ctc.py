"""U-Net on two sets of the Cell Tracking Challenge, grey images (arXiv:1505.04597, table 2).

    python launch/train.py --config=configs/unet_ctc.py:u373 --workdir=DIR

:u373   PhC-C2DH-U373, glioblastoma cells in phase contrast; also the bare config.
:hela   DIC-C2DH-HeLa, HeLa cells in differential interference contrast, densely packed.
:smoke  seconds, on generated shapes.

The paper's scores, 92.03 and 77.56, are "IOU" (the challenge's SEG: a Jaccard index an object, see
jaxseg.metrics.cells) on test sequences whose labels are hidden: not scorable here. It trains on
35 and 20 partially annotated images; releases differ. Here sequence 01 trains and 02 is held out.

Network and set-up are the paper's: valid convolutions, one 572x572 tile a step of momentum 0.99,
elastic deformation, rotation, the border weight map. It gives neither learning rate nor number of
steps: those here are ours. About ten minutes on one A100 by NVIDIA's published throughput of this
network, not measured.
"""

from jaxseg.config import base, variants

BASELINES = ('u373', 'hela')  # rows of docs/results.md

SEG = {'u373': 0.9203, 'hela': 0.7756}


def get_config(variant=None):
  chosen = variants(variant, u373=False, hela=False, smoke=False)
  cells = 'hela' if chosen.hela else 'u373'
  config = base()

  config.dataset = 'ctc'
  config.dataset_options = dict(cells=cells, border_weight=True)
  config.num_classes = 2
  config.channels = 1
  config.mean = (127.5,)
  config.std = (127.5,)

  config.model = 'unet'
  config.model_options = dict(width=64, padding='valid')
  config.pixel_weights = True
  config.paper = dict(
    params=31_030_658,
    seg=SEG[cells],
    split='hidden',
    source='arXiv:1505.04597, table 2 (test labels are hidden: not scorable here)',
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
  config.seg = True

  if chosen.smoke:
    smoke(config)
  return config


def smoke(config):
  config.paper = None
  config.seg = False  # the shapes are not numbered
  config.dataset = 'shapes'
  config.dataset_options = dict(size=64, count=16, num_classes=2, channels=1, border_weight=True)
  config.model_options = dict(width=4, depth=2, padding='valid')
  config.crop, config.mirror, config.elastic = (76, 76), 20, 4.0
  config.num_steps = config.eval_every = config.checkpoint_every = 6
  config.log_every = 2
