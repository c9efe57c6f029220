"""Evaluates a trained workdir: scores, a table per class, and eval/<split>.json (or _<mode>).

python launch/evaluate.py --workdir=DIR [--split=test] [--step=N|best] [--scores=boundary,confidence]
    [--groups=PATTERN|COLUMN] [--scales=.5,1,1.5 --flip --rotations=7 --samples=N --tile=H,W]
python launch/evaluate.py --workdir=DIR,DIR,DIR [...]      averages the probabilities of several runs
python launch/evaluate.py --workdir=DIR,DIR,DIR --out_of_fold     each image by the run that held it out
python launch/evaluate.py --workdir=DIR --fit_temperature         then --temperature, also to predict
"""

from jaxseg import console
from jaxseg.predict import options


def main(parser: console.Parser) -> None:
  add = parser.add_argument
  parser.add_runs()
  add('--split', help="default: the config's eval_split")
  add(
    '--scores',
    type=console.names,
    default=(),
    help="of jaxseg/metrics, beside the task's and the data set's own: boundary (of SegNet's paper, slow), "
    "components (COCO's AP of the mask's), matching (objects found, missed, made up), seg, dice, neurites, "
    'confidence (calibration, and does uncertainty find errors), error_breakdown (by object size, outlines, borders)',
  )
  add('--groups', help="by group: a file name's part in parentheses, as in '^(.*)_', or a column")
  add('--out_of_fold', action='store_true', help='each image by the run of the fold without it')
  add('--fit_temperature', action='store_true', help='on --split; kept in the (first) workdir')
  options.add_flags(parser)
  parser.add_hosts()
  flags = parser.parse()
  from jaxseg.train.devices import hosts

  with hosts.join(flags.coordinator, flags.processes, flags.process):
    from jaxseg.predict import evaluate

    common = dict(split=flags.split, step=flags.step, options=options.from_flags(flags))
    if flags.fit_temperature:
      evaluate.fit_temperature(flags.workdir, **common)
      return
    scores = dict(extra=flags.scores, groups=flags.groups, out_of_fold=flags.out_of_fold)
    evaluate.evaluate_workdir(flags.workdir, **scores, **common)
