"""Writes an offline HTML report of a trained workdir, or one that compares several.

python launch/report.py DIR [--output=FILE] [--step=N|best|latest]
python launch/report.py DIR DIR [DIR ...] --output=comparison.html
"""

from jaxseg import console


def main(parser: console.Parser) -> None:
  parser.add_argument('workdirs', nargs='+', help='folders that launch/train.py has written')
  parser.add_argument(
    '--output', help='default: report.html in the folder, comparison.html beside the first'
  )
  parser.add_argument(
    '--step', default='best', help='a step that has a checkpoint, or best, or latest'
  )
  flags = parser.parse()
  from jaxseg import report

  console.say(report.write(flags.workdirs, flags.output, step=flags.step))
