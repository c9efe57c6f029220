"""Prints a table of trained and evaluated workdirs, or updates it in a Markdown file (--output).

python launch/results.py DIR [DIR ...] --split=test [--modes]
python launch/results.py DIR [DIR ...] --output=docs/results.md [--table=NAME --pictures=docs]
python launch/results.py --baselines [DIR ...]     every config's published number next to ours
"""

from jaxseg import console


def main(parser: console.Parser) -> None:
  parser.add_argument('workdirs', nargs='*', help='folders that launch/train.py has written')
  parser.add_argument('--split', default='test', help='the split whose eval/<split>.json is shown')
  parser.add_argument('--output', help='Markdown file whose table is replaced; default: print')
  parser.add_argument('--table', help='of several in the file; default: the one named as the split')
  parser.add_argument('--modes', action='store_true', help='also of flips, ensembles, temperatures')
  parser.add_argument('--pictures', help='folder for one picture a run')
  parser.add_argument('--baselines', action='store_true', help="the table of the papers' recipes")
  flags = parser.parse()
  from jaxseg.report import tables
  from jaxseg.types import UserError

  if flags.baselines:
    tables.write_baselines(flags.output, flags.workdirs)
    return
  if not flags.workdirs:
    raise UserError('no workdir is given: name at least one, or --baselines')
  options = dict(table=flags.table, modes=flags.modes, pictures=flags.pictures)
  tables.write(flags.workdirs, flags.output, flags.split, **options)
