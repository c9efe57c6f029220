"""A U-Net on your own images: DIR/{train,val,test}/{images,masks}.

    python launch/train.py --config=configs/folder.py --workdir=RUN \\
        --config.data_dir=DIR --config.num_classes=3

Images are PNG or JPEG of any size; a mask has its image's name and holds class indices, palette
indices, or the colours that DIR/classes.txt lists (`name r g b` a line); 255 is void. Padding, crops
and flips suit photographs; see jaxseg/config.py for every key.

bare    same-padding U-Net with batch norm, width 32, crops of 256x256.
:small  width 16 and crops of 128x128, for a CPU.
:smoke  seconds, on generated shapes.
"""

from jaxseg.config import base, variants


def get_config(variant=None):
  chosen = variants(variant, small=False, smoke=False)
  config = base()

  config.dataset = 'folder'
  config.num_classes = 2

  config.model = 'unet'
  config.model_options = dict(width=32, padding='same', batch_norm=True, dropout_rate=0.2)
  config.class_weights = 'median_frequency'

  config.crop = (256, 256)
  config.scale = (0.75, 1.5)
  config.flip = True
  config.brightness = config.contrast = config.saturation = 0.2

  config.num_steps = 5000
  config.batch_size = 8
  config.optimizer = 'adam'
  config.learning_rate = 1e-3
  config.schedule = 'cosine'
  config.warmup_steps = 50
  config.eval_every = 500
  config.checkpoint_every = 500

  if chosen.small:
    config.model_options.width = 16
    config.crop = (128, 128)
    config.num_steps = 600
    config.eval_every = config.checkpoint_every = 200
  if chosen.smoke:
    config.dataset = 'shapes'
    config.dataset_options = dict(size=64, count=16, num_classes=2)
    config.model_options = dict(width=4, depth=2, padding='same', batch_norm=True)
    config.crop = (48, 48)
    config.num_steps = config.eval_every = config.checkpoint_every = 6
    config.log_every = 2
  return config
