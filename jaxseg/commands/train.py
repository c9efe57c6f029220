"""Trains a network; the same command again resumes where it stopped.

python launch/train.py --config=configs/unet_shapes.py --workdir=/tmp/shapes
python launch/train.py --config=configs/segnet_camvid.py:basic,small --workdir=DIR --config.seed=1
python launch/train.py --config=... --workdir=... --coordinator=10.0.0.2:8476 --processes=2 --process=0
    on each of several hosts, with its own --process; TPU pods and Slurm need none of the three
"""

from jaxseg import config, console


def main(parser: console.Parser) -> None:
  parser.add_argument('--config', required=True, help='configs/NAME.py[:variant,...]')
  parser.add_argument(
    '--workdir', required=True, help='folder for checkpoints, metrics and figures'
  )
  parser.add_argument(
    '--stop_at',
    type=console.integer(1),
    help='stop (and save) at this step; the same command without it goes on',
  )
  parser.add_argument(
    '--profile',
    type=console.step_range,
    help='FIRST:LAST: trace these steps into WORKDIR/profile (XProf)',
  )
  parser.add_hosts()
  flags = parser.parse()
  settings = config.load(flags.config, flags.overrides)
  from jaxseg.train import build
  from jaxseg.train.devices import hosts

  build.experiment(settings).check_data()  # before JAX starts and hosts wait for each other
  with hosts.join(flags.coordinator, flags.processes, flags.process):
    from jaxseg import report
    from jaxseg.train.train import train

    options = dict(stop_at=flags.stop_at, profile=flags.profile)
    train(settings, flags.workdir, hooks=report.hooks(), **options)
