"""Downloads a config's data and weights, checks them, builds records, or writes a config for your own folder.

python launch/data.py get --config=configs/fcn_voc2011.py [--yes --mirror=gs://BUCKET/FOLDER]
python launch/data.py get voc coco torchvision:resnet50 [--data_dir=DIR]
python launch/data.py check --config=configs/segnet_camvid.py [--output=FOLDER]
python launch/data.py prepare --config=configs/segnet_camvid.py
python launch/data.py plan --folder=DIR --output=FILE [--model=NETWORK --folds=5]
  [--images=GLOB --masks=GLOB | --list=FILE.csv] [--config.data.options.NAME=VALUE]
"""

from jaxseg import config, console


def main(parser: console.Parser) -> None:
  add = parser.add_argument
  add('job', choices=('get', 'check', 'prepare', 'plan'))
  add('names', nargs='*', help='for get: datasets and weights of jaxseg/fetch/manifest.toml')
  add('--config', help='configs/NAME.py[:variant,...], for get, check and prepare')
  add('--output', help='for check: folder for pictures; for plan: the new config file')
  parser.add_fetching()
  plans = parser.add_argument_group('for plan')
  plans.add_argument('--folder', default='', help='that holds images and masks; how, is found out')
  plans.add_argument('--images', default='', help='pattern of the images, such as x/*_rgb.tif')
  plans.add_argument('--masks', default='', help='of the masks; the signs stand for the name')
  plans.add_argument('--list', default='', help='CSV file: image, mask and perhaps split')
  plans.add_argument('--model', default='', help='network; default: one that suits the data')
  plans.add_argument(
    '--folds', type=console.integer(0, 1000), default=0, help='parts, each to be held out once'
  )
  plans.add_argument('--overwrite', action='store_true', help='replace the file')
  flags = parser.parse(without_config='plan')
  if flags.job == 'get':
    from jaxseg.prepare import get

    get.get(flags.names, flags.config, flags.overrides, flags.data_dir, flags.mirror, flags.yes)
    return
  if flags.names:
    parser.error(f'{flags.job} takes no name: {flags.names[0]!r}')
  if flags.job == 'plan':
    parser.require(flags, 'output')
    from jaxseg.prepare import own_data, plan

    given = {k: getattr(flags, k) for k in ('folder', 'images', 'masks', 'model', 'folds')}
    options = config.options('data.options', flags.overrides)
    request = own_data.Request(listed=flags.list, options=options, **given)
    plan.plan(request, flags.output, overwrite=flags.overwrite)
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
