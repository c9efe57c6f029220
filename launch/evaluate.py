"""Evaluates a trained workdir: the four numbers, a table by class, and eval/<split>.json.

python launch/evaluate.py --workdir=DIR [--split=test] [--step=N|best]
"""

from jaxseg import command


def main() -> None:
  parser = command.Parser(__doc__)
  parser.add_argument('--workdir', required=True, help='a folder that launch/train.py has written')
  parser.add_argument('--split', help="default: the config's eval_split")
  parser.add_argument(
    '--step', default='best', help='a step that has a checkpoint, or best, or latest'
  )
  flags = parser.parse()
  from jaxseg.train import evaluate

  evaluate.evaluate_workdir(flags.workdir, split=flags.split, step=flags.step)


if __name__ == '__main__':
  command.run(main)
