"""PSPNet101 on PASCAL VOC 2012 with SBD's labels, 21 classes (arXiv:1612.01105, table 6).

    python launch/train.py --config=configs/pspnet_voc2012.py --workdir=DIR

The recipe and the variants :torchvision, :caffe, :small and :smoke are those of pspnet_ade20k.py, with a
ResNet-101 (:small keeps the ResNet-50) and a fifth of the steps.

The paper has 82.6 mIoU on the test set, whose labels are hidden (85.4 with COCO's images). To reach
on val, as the PyTorch release scores it: 79.07 at one scale, 79.63 at six:

    python launch/evaluate.py --workdir=DIR --long_side=512 --flip --tile=473,473 --tile_step=316,316
        --windows=even [--scales=.5,.75,1,1.25,1.5,1.75]

30,000 steps of 16 crops of 473 x 473 from the 10,582 images of trainaug. By operation count some six hours
on one data-centre GPU, not measured.
"""

from jaxseg.config import base, config_module, variants

BASELINES = ('',)  # rows of docs/results.md
ade20k = config_module('pspnet_ade20k')  # for shared settings

# ResNet-101 with the deep stem 42,623,936; pyramid 4,198,400; its head 18,886,165; the auxiliary
# head 2,365,205.
PARAMS = 68_073_706


def get_config(variant=None):
  chosen = variants(variant, torchvision=False, caffe=False, small=False, smoke=False)
  config = base()
  config.num_classes = 21
  config.num_steps = 30_000
  config.batch_size = 16

  config.data = dict(
    name='voc',
    options=dict(year=2012),
    train_split='trainaug',
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
  )
  config.augment = ade20k.augment(473, 473)
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
  config.eval = dict(every=5000, batch_size=8)
  config.log = dict(checkpoint_every=2500)
  config.paper = dict(
    params=PARAMS - 123_776 * chosen.torchvision,
    mean_iou=0.826,
    split='test',
    source='arXiv:1612.01105, table 6',
  )

  if chosen.caffe:
    ade20k.caffe(config)
  if chosen.small:
    ade20k.small(config)
    config.model.backbone = 'resnet50'
  if chosen.smoke:
    ade20k.smoke(config)
  return config
