"""Benchmarks a config: images per second, compile time, memory, FLOPs, and the bottleneck.

python launch/benchmark.py --config=configs/unet_isbi2012.py [--mode=train,infer] [--batch=8]
    [--crop=H,W] [--compare=torch,flax] [--json=FILE]
python launch/benchmark.py --config=configs/unet_isbi2012.py --mode=fit --batch=1,2,4,8 --crop=572,572
python launch/benchmark.py --config=configs/unet_isbi2012.py --mode=spatial --batch=1 --crop=2048,1024
    --config.model.padding=same --config.cpu_devices=8
python launch/benchmark.py --mode=scale --images=1000,10000     whole commands on that many generated images
python launch/benchmark.py --mode=reading                       safe readers compared with plain ones
"""

from jaxseg import config, console
from jaxseg.types import LONGEST


def main(parser: console.Parser) -> None:
  add, words = parser.add_argument, console.names
  count, side = console.integer(1), console.integer(0, LONGEST)
  add('--config', help='configs/NAME.py[:variant,...]; all modes but scale and reading need it')
  add(
    '--mode',
    type=words,
    default=(),
    help='of train,infer,memory,input,loop (default: all), or fit, spatial, detection, scale, reading',
  )
  add('--compare', type=words, default=(), help='of torch,flax: timed in turn with ours')
  add('--batch', type=console.list_of(count), default=(), help="images; default: the config's")
  add('--crop', type=console.size, action='append', default=[], help='size of the images')
  add('--trials', type=count, default=5, help='rounds of which medians are taken')
  add('--steps', type=count, default=20, help='of the training loop, and batches of input alone')
  add('--json', help='write the figures to this file')
  add('--matmul', type=side, default=0, help="side of the yardstick's matrix product")
  add('--images', type=console.list_of(count), default=(1000, 10000), help='for --mode=scale')
  flags = parser.parse()
  if flags.mode == ('scale',):
    from jaxseg.tools.benchmark import scale

    scale.run(flags.images, flags.json)
    return
  if flags.mode == ('reading',):
    from jaxseg.tools.benchmark import reading

    reading.run(flags.trials, flags.json)
    return
  if not flags.config:
    parser.error('--config=configs/NAME.py is needed by all modes but scale and reading')
  settings = config.load(flags.config, flags.overrides)
  from jaxseg.tools.benchmark import session  # JAX starts only after the config is checked

  session.run(
    settings,
    modes=flags.mode,
    compare=flags.compare,
    batches=flags.batch,
    sizes=flags.crop,
    trials=flags.trials,
    steps=flags.steps,
    matmul_side=flags.matmul,
    json_file=flags.json,
  )
