"""Exports a trained workdir, to run without jaxseg: StableHLO, ONNX, safetensors and a card.

python launch/export.py --workdir=DIR --output=FOLDER [--step=N|best|latest] [--onnx] [--iree] [--size=H,W] [--python=PYTHON] [--temperature]
python launch/export.py --renew=FOLDER

docs/export.md describes the folder and how to run its programs.
"""

from jaxseg import console
from jaxseg.predict import options


def main(parser: console.Parser) -> None:
  parser.add_argument('--workdir', help='a folder that launch/train.py has written')
  parser.add_argument('--output', help='a new folder, or one of an earlier export')
  parser.add_argument('--step', help='a step that has a checkpoint, or best (default), or latest')
  parser.add_argument(
    '--onnx', action='store_true', help='also ONNX models, checked in ONNX Runtime'
  )
  parser.add_argument('--iree', action='store_true', help='compile and check the MLIR with IREE')
  parser.add_argument(
    '--size', type=console.size, help='of the programs with a fixed size; default: the first image'
  )
  parser.add_argument(
    '--python', default='', help='interpreter that has what --onnx and --iree need'
  )
  options.add_temperature(parser)
  parser.add_argument('--renew', help='export again what this folder holds, from its own weights')
  flags = parser.parse()
  given = [f'--{key}' for key in ('workdir', 'output', 'step') if getattr(flags, key) is not None]
  given += ['--temperature'] * (flags.temperature != 1)
  if flags.renew and given:
    parser.error(f'--renew takes all from the folder that it renews: leave out {", ".join(given)}')
  if not flags.renew and not (flags.workdir and flags.output):
    parser.error('give --workdir and --output, or --renew')
  from jaxseg.export import write

  forms = write.Forms(flags.onnx, flags.iree, flags.size, flags.python, flags.temperature)
  if flags.renew:
    write.renew(flags.renew, forms)
  else:
    write.export_workdir(flags.workdir, flags.output, step=flags.step or 'best', forms=forms)
