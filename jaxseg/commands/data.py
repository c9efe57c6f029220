"""Looks at a config's data, builds its records, or writes a config for a folder of your own.

python launch/data.py check --config=configs/segnet_camvid.py [--output=FOLDER]
python launch/data.py prepare --config=configs/segnet_camvid.py
python launch/data.py plan --folder=DIR --output=FILE
"""

from jaxseg import config, console


def main(parser: console.Parser) -> None:
  parser.add_argument('job', choices=('check', 'prepare', 'plan'))
  parser.add_argument('--config', help='configs/NAME.py[:variant,...], for check and prepare')
  parser.add_argument(
    '--folder', help='for plan: DIR/{train,val}/{images,masks} or DIR/{images,masks}'
  )
  parser.add_argument(
    '--output', help='for check: folder for pictures; for plan: the new config file'
  )
  parser.add_argument('--overwrite', action='store_true', help='for plan: replace the file')
  flags = parser.parse()
  if flags.job == 'plan':
    parser.require(flags, 'folder', 'output')
    from jaxseg.prepare import plan

    plan.plan(flags.folder, flags.output, overwrite=flags.overwrite)
    return
  parser.require(flags, 'config')
  settings = config.load(flags.config, flags.overrides)
  from jaxseg.prepare import check
  from jaxseg.train import build

  experiment = build.experiment(settings)
  if flags.job == 'check':
    check.check(experiment, flags.output or 'data_check')
  else:
    check.prepare(experiment)
