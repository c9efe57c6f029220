"""U-Net on an ImageNet encoder, CamVid, 11 classes at 360x480 (arXiv:1511.00561 has the protocol).

    pip install 'jaxseg[lite]'
    python launch/train.py --config=configs/unet_camvid.py --workdir=DIR

bare    EfficientNet-Lite 0 with ImageNet weights, a decoder of 16 to 128 channels, for two CPU cores.
        No paper: what an encoder that was trained before gives. Test 47.6 mIoU, see docs/results.md.
:small  the same from scratch; not run.
:smoke  seconds, on generated shapes, from scratch.

Crops of 192x256 at 0.6 to 1.5 times the size, whole images at their own size in evaluation. AdamW, the
encoder at a third of the rate, cross-entropy and soft Dice, averages of the weights. Trained on the 367
images, watched on the 101 of val, the last step scored on the 233 of test.
"""

from jaxseg.config import base, on_shapes, variants


def get_config(variant=None):
  chosen = variants(variant, small=False, smoke=False)
  config = base()
  config.num_classes = 11
  config.num_steps = 1000
  config.batch_size = 8
  config.init_from = 'imagenet'

  config.data = dict(name='camvid', mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
  config.augment = (
    ('crop', dict(size=(192, 256), scale=(0.6, 1.5))),
    ('flip', {}),
    ('photometric', dict(brightness=0.3, contrast=0.3, saturation=0.3)),
  )
  config.model = dict(
    name='unet', backbone='efficientnet_lite0', width=8, batch_norm=True, dropout_rate=0.2
  )
  config.loss = dict(name='softmax_dice')
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
    warmup_steps=50,
    average=0.99,
  )
  config.init = dict(new=('dec.*', 'score'))
  config.eval = dict(every=400)
  config.log = dict(checkpoint_every=200, figures=3)

  if chosen.small or chosen.smoke:
    config.init_from, config.init = '', {}
    config.optim.multipliers = ((r'/(scale|bias)$', 1.0, 0.0),)
  if chosen.smoke:
    smoke(config)
  return config


def smoke(config):
  on_shapes(config, size=64)
  config.batch_size = 4
  config.augment = ()
  config.model.update(backbone='vgg16', width=2, backbone_width=4)  # compiled in seconds
