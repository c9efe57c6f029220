"""Evaluates a trained workdir: its scores, a table by class, and eval/<split>.json (or _<mode>).

python launch/evaluate.py --workdir=DIR [--split=test] [--step=N|best] [--bf --instances]
    [--scales=.5,1,1.5 --flip --rotations=7 --samples=N --tile=H,W]
"""

from jaxseg import console


def main() -> None:
  parser = console.Parser(__doc__)
  add = parser.add_argument
  add('--workdir', required=True, help='a folder that launch/train.py has written')
  add('--split', help="default: the config's eval_split")
  add('--step', default='best', help='a step that has a checkpoint, or best, or latest')
  extra = dict(dest='extra', action='append_const', default=[])
  add('--bf', const='boundary', **extra, help="also the boundary measure of SegNet's paper (slow)")
  add(
    '--neurites', const='neurites', **extra, help="also ISBI's measures; isbi2012 has them anyway"
  )
  add('--instances', const='components', **extra, help="also COCO's AP of the mask's components")
  add('--scales', type=console.numbers, default=(), help="average these; default: the config's")
  add('--flip', action='store_true', help='average with the image mirrored left to right')
  add('--rotations', type=int, default=1, help='average this many rotations (U-Net: 7)')
  add('--samples', type=int, default=0, help='Monte-Carlo dropout: average this many draws')
  add('--tile', type=console.size, help='input size of tiles; default: only beyond 4 megapixels')
  add('--tile_step', type=console.size, help='distance of tiles; default: half, or what joins')
  parser.add_hosts()
  flags = parser.parse()
  from jaxseg.train.devices import hosts

  with hosts.joined(flags.coordinator, flags.processes, flags.process):
    from jaxseg.predict import evaluate

    evaluate.evaluate_workdir(
      flags.workdir,
      split=flags.split,
      step=flags.step,
      extra=flags.extra,
      options=evaluate.Options(
        scales=flags.scales,
        flip=flags.flip,
        rotations=flags.rotations,
        samples=flags.samples,
        tile=flags.tile,
        tile_step=flags.tile_step,
      ),
    )


if __name__ == '__main__':
  console.run(main)
