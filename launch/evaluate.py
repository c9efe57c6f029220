"""Evaluates a trained workdir: the four numbers, a table by class, and eval/<split>.json (or _<mode>).

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
  add('--bf', action='store_true', help="also the boundary measure of SegNet's paper (slow)")
  add('--neurites', action='store_true', default=None, help="ISBI's measures; isbi2012 has them")
  add('--instances', action='store_true', help="COCO's AP of the mask's connected components")
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
      boundaries=flags.bf,
      neurites=flags.neurites,
      precision=flags.instances,
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
