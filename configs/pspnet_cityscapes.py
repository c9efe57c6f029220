"""PSPNet101 on Cityscapes, 19 classes, on a mesh of devices (arXiv:1612.01105, table 7).

    python launch/train.py --config=configs/pspnet_cityscapes.py --workdir=DIR

bare     a deep stem of three 3x3 convolutions, with ImageNet weights from MIT (CSAILVision) for the
         network that the authors' PyTorch release (hszhao/semseg) also starts from; the release's own
         cannot be downloaded automatically.
:torchvision  the 7x7 stem, for torchvision's resnet101; 123,776 parameters fewer.
:caffe   the Caffe release's network and multipliers: stride on the first 1x1, no weight decay in batch
         norms, score biases at twenty times the rate, MSRA initialisation, running averages of 0.95, BGR.
         Its ImageNet weights were not published: train from scratch, or with --config.init_from=FILE. The
         release computes its loss at an eighth of the size, this at full size; evaluate with
         --flip_by=logits. The bare recipe has the paper's steps with semseg's network and multipliers.
:spatial not the paper: two devices share the rows of each crop, on any even number of devices N * 2
         (--config.mesh=data:N,spatial:2). For rows to split evenly, crops are 704 x 704 and bilinear
         upsampling treats pixels as areas; the parameters are the same.
:small   for 15 minutes on two CPU cores, from scratch at a quarter of the size, else as
         pspnet_camvid.py:small; not run, as the data were not available.
:smoke   seconds, on generated shapes.

The paper has 78.4 mIoU on the test set, whose labels are hidden, for training on the fine labels
(80.2 with the coarse ones too). To reach on val: the released Caffe network has 79.70 mIoU and 96.38
pixel accuracy at one scale, 80.91 at six; the PyTorch release 78.63 and 79.29:

    python launch/evaluate.py --workdir=DIR --flip --tile=713,713 --tile_step=476,476 --windows=even
        [--scales=.5,.75,1,1.25,1.5,1.75]

90,000 steps of 16 crops of 713 x 713, batch norm over all of them; SGD with a poly schedule of power 0.9,
everything outside the ResNet at ten times the rate; the auxiliary loss has weight 0.4. One program runs
on a mesh of as many devices as divide the batch. By operation count two days on one data-centre GPU, not
measured; if 16 crops do not fit in memory: --config.model.remat=True.
"""

from jaxseg.config import base, config_module, variants

BASELINES = ('',)  # rows of docs/results.md
ade20k = config_module('pspnet_ade20k')  # for shared settings

# ResNet-101 with the deep stem 42,623,936; pyramid 4,198,400; its head 18,885,139; the auxiliary
# head 2,364,691.
PARAMS = 68_072_166


def get_config(variant=None):
  chosen = variants(
    variant, torchvision=False, caffe=False, spatial=False, small=False, smoke=False
  )
  config = base()
  config.num_classes = 19
  config.num_steps = 90_000
  config.batch_size = 16
  config.parallel = 'mesh'

  config.data = dict(name='cityscapes', mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
  config.augment = ade20k.augment(713, 713)
  config.model = dict(name='pspnet', backbone='resnet101', deep_stem=not chosen.torchvision)
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
  config.eval = dict(every=10_000, batch_size=8)
  config.log = dict(checkpoint_every=5000)
  config.paper = dict(
    params=PARAMS - 123_776 * chosen.torchvision,
    mean_iou=0.784,
    split='test',
    source='arXiv:1612.01105, table 7',
  )

  if chosen.caffe:
    ade20k.caffe(config)
  if chosen.small:
    ade20k.small(config, scale=0.25)
    config.model.backbone = 'resnet50'
    config.parallel = 'pmap'
  if chosen.smoke:
    ade20k.smoke(config)
  elif chosen.spatial:
    config.mesh = 'data:4,spatial:2'
    config.augment = ade20k.augment(704, 704)
    config.model.align_corners = False
  return config
