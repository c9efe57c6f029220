"""PSPNet50 on CamVid, 11 classes (arXiv:1612.01105, which has no CamVid).

    python launch/train.py --config=configs/pspnet_camvid.py --workdir=DIR

bare     the paper's recipe on the 367 training images: whole frames as crops, 218 epochs (about as
         many as its street scenes get), from ImageNet weights for the deep stem.
:torchvision  the 7x7 stem, for torchvision's resnet50.
:small   not the paper: tuned for 15 minutes on two CPU cores (half size, a fifth of the
         width, from scratch, Adam), like configs/fcn_camvid.py:small and segnet_camvid.py:basic,small.
:smoke   seconds, on generated shapes.

PSPNet trained on these 367 images has not been published: there is no number to reach. By operation
count about half an hour on one data-centre GPU, not measured.
"""

from jaxseg.config import base, config_module, variants

BASELINES = ('',)  # rows of docs/results.md
ade20k = config_module('pspnet_ade20k')  # for shared settings

# ResNet-50 with the deep stem 23,631,808; pyramid 4,198,400; its head 18,881,035; the auxiliary
# head 2,362,635.
PARAMS = 49_073_878


def get_config(variant=None):
  chosen = variants(variant, torchvision=False, small=False, smoke=False)
  config = base()
  config.num_classes = 11
  config.num_steps = 5000
  config.batch_size = 16

  config.data = dict(name='camvid', mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
  config.augment = ade20k.augment(361, 481)
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
  config.paper = dict(
    params=PARAMS - 123_776 * chosen.torchvision, split='test', source='arXiv:1612.01105'
  )

  if chosen.small:
    ade20k.small(config)
    config.eval.every = 250
  if chosen.smoke:
    ade20k.smoke(config)
  return config
