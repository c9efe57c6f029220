"""Predicts images of any size with a trained workdir: a palette PNG for each, of the image's size.

python launch/predict.py --workdir=DIR[,DIR...] --input=FILE|FOLDER|'PATTERN'|LIST.txt --output=FOLDER
    [--overlay --probabilities --uncertainty] [--skip_existing] [--overwrite] [--step=N|best]
    [--scales=.5,1,1.5 --flip --rotations=7 --samples=N --tile=H,W --temperature --score=.5]
Several workdirs average their probabilities. For instance segmentation it also writes
<name>_instances.png and one detections.json (COCO's format).
"""

from jaxseg import console
from jaxseg.predict import options
from jaxseg.types import LONGEST

_SOME = 3  # exit status if some, but not all images could be predicted


def main(parser: console.Parser) -> None:
  add = parser.add_argument
  parser.add_runs()
  add(
    '--input',
    required=True,
    help="an image, a folder of images (with those below it), a pattern as 'DIR/**/*.tif', or a .txt "
    'with a path a line',
  )
  add('--output', required=True, help='a folder for <name>.png and what else is asked for')
  add('--overlay', action='store_true', help='also <name>_overlay.png: the image, tinted')
  add('--probabilities', action='store_true', help='also <name>_probabilities.npy, float16')
  add('--uncertainty', action='store_true', help='also <name>_uncertainty.png and .npy')
  add('--overwrite', action='store_true', help='replace results that are there')
  add('--skip_existing', action='store_true', help='keep them, and predict what is missing')
  options.add_flags(parser)
  add(
    '--multiple',
    type=console.integer(0, LONGEST),
    default=0,
    help="share programs between sizes rounded up to it, at other numbers than evaluation's",
  )
  add(
    '--score',
    type=console.number(0, 1),
    help='leave out objects below it; default: all are listed, those from 0.5 drawn',
  )
  flags = parser.parse()
  from jaxseg.predict import job

  bad = job.predict_files(
    flags.workdir,
    flags.input,
    flags.output,
    step=flags.step,
    overwrite=flags.overwrite,
    skip_existing=flags.skip_existing,
    outputs=job.OutputFiles(flags.overlay, flags.probabilities, flags.uncertainty),
    options=options.from_flags(flags),
  )
  if bad:
    raise SystemExit(_SOME)
