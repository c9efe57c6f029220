"""Compiles a config for a TPU slice without having one: does it fit, and where are its cycles spent?

python launch/compile.py --config=configs/unet_dsb2018.py --topology=v5e-8 [--mode=train] [--batch=64]
    [--crop=256,256] [--layers=stock] [--json=FILE] [--config.dtype=bfloat16 ...]
python launch/compile.py --all --topology=v5e-8,v4-8 --mode=train,eval --json=FILE [--minutes=60] [--output=FILE.md]
    [--config.dtype=bfloat16]     every baseline, in tables; continues with what --json lacks
python launch/compile.py --layers=each --topology=v5e-1 --batch=8      every layer compared with Flax's own

Nothing is run or allocated. Times are estimates of the TPU's own compiler, which the extra `compile` installs.
If a program does not fit, the command ends with status 2 and says what would fit.
"""

import functools

from jaxseg import console


def main(parser: console.Parser) -> None:
  add, words = parser.add_argument, console.names
  add('--config', help='configs/NAME.py[:variant,...]')
  add('--all', action='store_true', help='every baseline of configs/; with --config only its row')
  add('--topology', type=words, required=True, help='slices such as v5e-8; several with --all')
  add('--mode', type=words, default=('train',), help='of train,eval,predict; several with --all')
  add('--batch', type=console.integer(1), help="images over all chips; default: the config's")
  add('--crop', type=console.size, help="size of the images; default: the training's")
  add('--layers', default='ours', help="ours, stock (Flax's and lax's), or each: a table of both")
  add('--price-per-chip-hour', type=console.number(0, 1e6), help='adds the cost of the steps')
  add('--program', help="write the compiled program, XLA's text, to this file")
  add('--json', help='write the figures to this file; with --all, go on where it ends')
  add('--minutes', type=console.number(0, 1e6), help='with --all: begin nothing after so many')
  add('--memory-only', action='store_true', help='bytes without estimates, in a tenth of the time')
  add('--output', help='with --all: Markdown file whose tables are replaced; default: print')
  flags = parser.parse(every='all')
  from jaxseg.report import tables
  from jaxseg.tools.compile import session

  session.run(
    flags.config,
    flags.overrides,
    every_baseline=flags.all,
    slices=flags.topology,
    modes=flags.mode,
    batch=flags.batch,
    size=flags.crop,
    layers=flags.layers,
    program_file=flags.program,
    json_file=flags.json,
    price_per_chip_hour=flags.price_per_chip_hour,
    minutes=flags.minutes,
    memory_only=flags.memory_only,
    show=functools.partial(tables.show, flags.output),
  )
