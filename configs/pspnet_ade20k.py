"""PSPNet50 on ADE20K, 150 classes (arXiv:1612.01105, table 1).

    python launch/train.py --config=configs/pspnet_ade20k.py --workdir=DIR

bare     a deep stem of three 3x3 convolutions, with ImageNet weights from MIT (CSAILVision) for the
         network that the authors' PyTorch release (hszhao/semseg) also starts from; the release's own
         cannot be downloaded automatically.
:torchvision  the 7x7 stem, for torchvision's resnet50; 123,776 parameters fewer.
:caffe   the Caffe release's network and multipliers: stride on the first 1x1, no weight decay in batch
         norms, score biases at twenty times the rate, MSRA initialisation, running averages of 0.95, BGR.
         Its ImageNet weights were not published: train from scratch, or with --config.init_from=FILE. The
         release computes its loss at an eighth of the size, this at full size; evaluate with
         --flip_by=logits. The bare recipe has the paper's steps with semseg's network and multipliers.
:small   for 15 minutes on two CPU cores, from scratch, as pspnet_camvid.py:small; not run, as the data
         were not available.
:smoke   seconds, on generated shapes.

To reach on val, single scale: 41.68 mIoU and 80.04 pixel accuracy (the PyTorch release: 41.89).
As tested in the paper, with mirrored windows that overlap by a third, and optionally six scales:

    python launch/evaluate.py --workdir=DIR --long_side=512 --flip --tile=473,473 --tile_step=316,316
        --windows=even [--scales=.5,.75,1,1.25,1.5,1.75]

150,000 steps of 16 crops of 473 x 473, batch norm over all of them; SGD with a poly schedule of power
0.9, everything outside the ResNet at ten times the rate; the auxiliary loss has weight 0.4. By operation
count about a day on one data-centre GPU, not measured.
"""

from jaxseg.config import base, on_shapes, variants

BASELINES = ('',)  # rows of docs/results.md

# ResNet-50 with the deep stem 23,631,808; pyramid 4,198,400; its head 18,952,342; the auxiliary
# head 2,398,358.
PARAMS = 49_180_908


def get_config(variant=None):
  chosen = variants(variant, torchvision=False, caffe=False, small=False, smoke=False)
  config = base()
  config.num_classes = 150
  config.num_steps = 150_000
  config.batch_size = 16

  config.data = dict(name='ade20k', mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
  config.augment = augment(473, 473)
  config.model = dict(name='pspnet', backbone='resnet50', deep_stem=not chosen.torchvision)
  config.loss = dict(aux_weight=0.4)
  config.optim = dict(
    name='sgd',
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=1e-4,
    multipliers=((r'^(ppm|cls|aux)_', 10.0, 1.0),),
    schedule='poly',
    schedule_power=0.9,
  )
  config.init_from = 'imagenet'
  config.init = dict(new=('ppm_.*', 'cls_.*', 'aux_.*'))
  config.eval = dict(every=15_000, batch_size=8)
  config.log = dict(checkpoint_every=5000)
  config.paper = dict(
    params=PARAMS - 123_776 * chosen.torchvision,
    pixel_accuracy=0.8004,
    mean_iou=0.4168,
    split='val',
    source='arXiv:1612.01105, table 1',
  )

  if chosen.caffe:
    caffe(config)
  if chosen.small:
    small(config)
  if chosen.smoke:
    smoke(config)
  return config


def augment(height, width):
  return (
    ('rotate', dict(degrees=10.0, share=0.5)),
    ('crop', dict(size=(height, width), scale=(0.5, 2.0))),
    ('flip', {}),
    ('blur', dict(share=0.5)),
  )


def caffe(config):
  config.init_from = ''
  config.data.update(mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0), channel_order='bgr')
  config.model.release = 'caffe'
  config.optim.multipliers = (
    (r'^(cls|aux)_4/bias', 20.0, 1.0),
    (r'^(ppm_features_\d_2|cls_1|aux_1)/', 10.0, 0.0),
    (r'^(ppm|cls|aux)_', 10.0, 1.0),
    (r'^backbone/.*(bn\d|downsample_1)/', 1.0, 0.0),
  )


def small(config, scale=0.5):
  config.init_from = ''
  config.num_steps = 1000
  config.batch_size = 8
  config.augment = (
    ('resize', dict(scale=scale)),
    ('crop', dict(size=(193, 257), scale=(0.75, 1.5))),
    ('flip', {}),
    ('photometric', dict(brightness=0.2, contrast=0.2)),
  )
  config.model.width = 12
  config.loss = dict(class_weights='median_frequency')
  config.optim = dict(name='adam', learning_rate=2e-3, schedule='poly', warmup_steps=30)
  config.init = {}
  config.eval = dict(every=500, scales=(scale,))
  config.log = dict(checkpoint_every=250)
  config.paper = None


def smoke(config):
  on_shapes(config, size=33)
  config.batch_size = 8
  config.augment = augment(33, 33)
  config.model.width = 4
  config.model.stage_sizes = (1, 1, 1, 1)
  config.eval.scales = (1.0,)
