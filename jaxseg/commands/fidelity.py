"""Compares a network with its paper, layer by layer; exit status 0 if all is equal, else 2.

python launch/fidelity.py --config=configs/fcn_camvid.py:8s
python launch/fidelity.py --config=configs/unet_isbi2012.py --config.model.variant=release

Kernel, stride, padding, output size, parameters, initial values, learning-rate and decay multipliers
are traced; the paper's values were written down by hand. Initial values are named by what was measured:
'normal 2/in' has variance 2 / fan-in (He, MSRA), 'uniform 1/in' is Xavier, 'normal sd 0.01' has that
standard deviation.
"""

from jaxseg import config, console


def main(parser: console.Parser) -> None:
  parser.add_argument('--config', required=True, help='configs/NAME.py[:variant,...]')
  flags = parser.parse()
  settings = config.load(flags.config, flags.overrides)
  from jaxseg.tools import fidelity

  raise SystemExit(fidelity.report(settings))
