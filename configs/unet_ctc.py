"""U-Net on two sets of the Cell Tracking Challenge, grey images (arXiv:1505.04597, table 2).

    python launch/train.py --config=configs/unet_ctc.py:u373 --workdir=DIR

:u373   PhC-C2DH-U373, glioblastoma cells in phase contrast; also the bare config.
:hela   DIC-C2DH-HeLa, HeLa cells in differential interference contrast, densely packed.
:small  for 15 minutes on two CPU cores: same padding, a quarter of the width, as unet_dsb2018.py:small;
        not run, as the data were not available.
:smoke  seconds, on generated shapes.

The paper's scores, 92.03 and 77.56, are "IOU" (the challenge's SEG: a Jaccard index per object, see
jaxseg.metrics.seg; for U373 with its field of interest and minimum area, seg_field) on test sequences
with hidden labels: not scorable here. It trains on 35 and 20 partially annotated images; releases
differ. Here sequence 01 is for training and 02 is held out.

Network and set-up are the paper's: valid convolutions, one 572x572 tile per step, momentum 0.99, elastic
deformation, rotation, border weight map. It states neither learning rate nor number of steps: those here
are ours. About ten minutes on one A100 by NVIDIA's published throughput of this network, not measured.
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('u373', 'hela')  # rows of docs/results.md

SEG = {'u373': 0.9203, 'hela': 0.7756}


def get_config(variant=None):
  chosen = variants(variant, u373=False, hela=False, small=False, smoke=False)
  cells = 'hela' if chosen.hela else 'u373'
  config = base()
  config.num_classes = 2
  config.num_steps = 20_000
  config.batch_size = 1

  config.data = dict(
    name='ctc', options=dict(cells=cells, border_weight=True), mean=(127.5,), std=(127.5,)
  )
  config.augment = augment(size=572, mirror=92, sigma=10.0)
  config.model = dict(name='unet', padding='valid')
  config.loss = dict(pixel_weights=True)
  config.optim = dict(name='sgd', learning_rate=1e-3, momentum=0.99)
  config.eval = dict(every=1000, scores=('seg',) if chosen.hela else ('seg', 'seg_field'))
  config.log = dict(checkpoint_every=1000)
  config.paper = dict(
    params=31_030_658,
    seg=SEG[cells],
    split='hidden',
    source='arXiv:1505.04597, table 2 (test labels are hidden: not scorable here)',
  )

  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def augment(size, mirror, sigma):
  return (
    ('elastic', dict(sigma=sigma)),
    ('rotate', dict(degrees=180.0, fill=None)),
    ('crop', dict(size=(size, size), mirror=mirror)),
    ('flip', dict(vertical=True)),
    ('photometric', dict(brightness=0.1, contrast=0.1)),
  )


def small(config):
  config.num_steps = 600
  config.batch_size = 8
  config.augment = augment(size=192, mirror=0, sigma=10.0)
  config.model = dict(name='unet', width=16, padding='same', batch_norm=True, dropout_rate=0.2)
  config.optim = dict(name='adam', learning_rate=2e-3, schedule='cosine', warmup_steps=20)
  config.eval.every = config.log.checkpoint_every = 200
  config.paper = None


def smoke(config):
  on_shapes(config, size=64, num_classes=2, channels=1, border_weight=True)
  config.augment = augment(size=76, mirror=20, sigma=4.0)
  config.model = dict(name='unet', width=4, depth=2, padding='valid')
  config.eval.scores = ()  # the shapes have no instance ids
