"""ADE20K: scenes of all kinds, 150 classes, 20210 / 2000 images (the MIT scene parsing benchmark).

Zhou et al., CVPR 2017. In ade20k/, or data_dir itself, as published, unpacked or not:

  ADEChallengeData2016/images/{training,validation}/ADE_train_00000001.jpg ...
  ADEChallengeData2016/annotations/{training,validation}/ADE_train_00000001.png ...

(ADEChallengeData2016.zip). Label 0, which the benchmark ignores, becomes void; labels 1 to 150 become
0 to 149. The test labels are hidden. The images are for non-commercial research.
"""

from jaxseg.data import archives, classlist, raw_files, records
from jaxseg.data.problems import check_split
from jaxseg.data.source import DatasetInfo, Source
from jaxseg.types import VOID

_NAMES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf,
house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub,
railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink,
skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill,
bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade
machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth,
television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman,
bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food,
step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket,
sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate,
monitor, bulletin board, shower, radiator, glass, clock, flag
"""
CLASS_NAMES = tuple(' '.join(_NAMES.split()).split(', '))
NUM_CLASSES = len(CLASS_NAMES)
# The benchmark's first five colours; the rest are our own, all distinct.
_PUBLISHED = ((120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50), (4, 200, 3))
PALETTE = (*_PUBLISHED, *classlist.voc_palette(NUM_CLASSES + 1)[len(_PUBLISHED) + 1 :])
SPLITS = ('train', 'val')

_FOLDERS = {'train': 'training', 'val': 'validation'}
_TABLE = {0: VOID, **{i + 1: i for i in range(NUM_CLASSES)}}


def source(split: str, *, data_dir: str | None = None, cache_dir: str | None = None) -> Source:
  """Returns 'train' or 'val'; images are of many sizes."""
  check_split('ade20k', split, SPLITS, 'the test labels are hidden')
  find = archives.finder(['ade20k'], data_dir, cache_dir)
  folder = find(['ADEChallengeData2016'], ['ADEChallengeData2016.zip'])
  images = raw_files.list_images(folder / 'images' / _FOLDERS[split], ('.jpg',))
  labels = folder / 'annotations' / _FOLDERS[split]
  return records.open_source(
    DatasetInfo('ade20k', CLASS_NAMES, PALETTE),
    split,
    [records.Raw(path, labels / f'{path.stem}.png', path.name) for path in images],
    records.read_ids,
    cache_dir,
    options={'table': _TABLE},
  )
