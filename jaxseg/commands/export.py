"""Exports a trained workdir: StableHLO for cpu, cuda and tpu, safetensors and a card.

python launch/export.py --workdir=DIR --output=FOLDER [--step=N|best|latest]
"""

from jaxseg import console


def main(parser: console.Parser) -> None:
  parser.add_argument('--workdir', required=True, help='a folder that launch/train.py has written')
  parser.add_argument('--output', required=True, help='a new folder, or one of an earlier export')
  parser.add_argument(
    '--step', default='best', help='a step that has a checkpoint, or best, or latest'
  )
  flags = parser.parse()
  from jaxseg.export import write

  write.export_workdir(flags.workdir, flags.output, step=flags.step)
