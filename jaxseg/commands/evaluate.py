"""Evaluates a trained workdir: its scores, a table by class, and eval/<split>.json (or _<mode>).

python launch/evaluate.py --workdir=DIR [--split=test] [--step=N|best] [--bf --instances]
    [--scales=.5,1,1.5 --flip --rotations=7 --samples=N --tile=H,W]
"""

from jaxseg import console
from jaxseg.predict import options


def main(parser: console.Parser) -> None:
  add = parser.add_argument
  add('--workdir', required=True, help='a folder that launch/train.py has written')
  add('--split', help="default: the config's eval_split")
  add('--step', default='best', help='a step that has a checkpoint, or best, or latest')
  extra = dict(dest='extra', action='append_const', default=[])
  add('--bf', const='boundary', **extra, help="also the boundary measure of SegNet's paper (slow)")
  add(
    '--neurites', const='neurites', **extra, help="also ISBI's measures; isbi2012 has them anyway"
  )
  add('--instances', const='components', **extra, help="also COCO's AP of the mask's components")
  options.add_flags(parser)
  parser.add_hosts()
  flags = parser.parse()
  from jaxseg.train.devices import hosts

  with hosts.joined(flags.coordinator, flags.processes, flags.process):
    from jaxseg.predict import evaluate

    evaluate.evaluate_workdir(
      flags.workdir,
      split=flags.split,
      step=flags.step,
      extra=flags.extra,
      options=options.from_flags(flags),
    )
