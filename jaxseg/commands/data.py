"""Looks at a config's data, builds its records, or writes a config for a folder of your own.

python launch/data.py check --config=configs/segnet_camvid.py [--output=FOLDER]
python launch/data.py prepare --config=configs/segnet_camvid.py
python launch/data.py plan --folder=DIR --output=FILE [--model=NETWORK --folds=5]
  [--images=GLOB --masks=GLOB | --list=FILE.csv] [--config.data.options.NAME=VALUE]
"""

from jaxseg import config, console


def main(parser: console.Parser) -> None:
  add = parser.add_argument
  add('job', choices=('check', 'prepare', 'plan'))
  add('--config', help='configs/NAME.py[:variant,...], for check and prepare')
  add('--output', help='for check: folder for pictures; for plan: the new config file')
  plans = parser.add_argument_group('for plan')
  plans.add_argument('--folder', default='', help='that holds images and masks; how, is found out')
  plans.add_argument('--images', default='', help='pattern of the images, such as x/*_rgb.tif')
  plans.add_argument(
    '--masks', default='', help='of the masks; what the signs stand for is the name'
  )
  plans.add_argument('--list', default='', help='CSV file: image, mask and perhaps split')
  plans.add_argument('--model', default='', help='network; default: one that suits the data')
  plans.add_argument(
    '--folds', type=console.whole(0, 1000), default=0, help='parts, each to be held out once'
  )
  plans.add_argument('--overwrite', action='store_true', help='replace the file')
  flags = parser.parse(without_config='plan')
  if flags.job == 'plan':
    parser.require(flags, 'output')
    from jaxseg.prepare import own_data, plan

    given = {k: getattr(flags, k) for k in ('folder', 'images', 'masks', 'model', 'folds')}
    options = config.options('data.options', flags.overrides)
    wish = own_data.Wish(listed=flags.list, options=options, **given)
    plan.plan(wish, flags.output, overwrite=flags.overwrite)
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
