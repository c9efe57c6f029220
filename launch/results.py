"""Renews the table of docs/results.md from trained and evaluated workdirs.

python launch/results.py DIR [DIR ...] --split=test --output=docs/results.md [--table=NAME --pictures=docs]
"""

from jaxseg import command


def main() -> None:
  parser = command.Parser(__doc__)
  parser.add_argument('workdirs', nargs='+', help='folders that launch/train.py has written')
  parser.add_argument('--split', default='test', help='the split whose eval/<split>.json is shown')
  parser.add_argument('--output', default='docs/results.md', help='Markdown file with the markers')
  parser.add_argument('--table', help='of several in the file; default: the one named as the split')
  parser.add_argument('--pictures', help='folder for one picture a run')
  flags = parser.parse()
  from jaxseg import results

  results.write(
    flags.workdirs, flags.output, flags.split, table=flags.table, pictures=flags.pictures
  )


if __name__ == '__main__':
  command.run(main)
