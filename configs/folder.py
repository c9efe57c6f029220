"""A U-Net on your own images: DIR/{train,val,test}/{images,masks}.

    python launch/train.py --config=configs/folder.py --workdir=RUN \\
        --config.data_dir=DIR --config.num_classes=3

Images are PNG or JPEG of any size; a mask has its image's name and holds class indices, palette
indices, or the colours listed in DIR/classes.txt (`name r g b` per line); 255 is void. Padding, crops
and flips suit photographs; `jaxseg/config` documents where every option is.

bare    same-padding U-Net with batch norm, width 32, crops of 256x256.
:small  width 16 and crops of 128x128, for a CPU.
:smoke  seconds, on generated shapes.
"""

from jaxseg.config import base, on_shapes, variants


def get_config(variant=None):
  chosen = variants(variant, small=False, smoke=False)
  config = base()
  config.num_classes = 2
  config.num_steps = 5000
  config.batch_size = 8

  config.data = dict(name='folder')
  config.augment = augment(256)
  config.model = dict(name='unet', width=32, padding='same', batch_norm=True, dropout_rate=0.2)
  config.loss = dict(class_weights='median_frequency')
  config.optim = dict(name='adam', learning_rate=1e-3, schedule='cosine', warmup_steps=50)

  if chosen.small:
    config.num_steps = 600
    config.augment = augment(128)
    config.model.width = 16
    config.eval.every = config.log.checkpoint_every = 200
  if chosen.smoke:
    on_shapes(config, size=64, num_classes=2)
    config.augment = augment(48)
    config.model = dict(name='unet', width=4, depth=2, padding='same', batch_norm=True)
  return config


def augment(size):
  return (
    ('crop', dict(size=(size, size), scale=(0.75, 1.5))),
    ('flip', {}),
    ('photometric', dict(brightness=0.2, contrast=0.2, saturation=0.2)),
  )
