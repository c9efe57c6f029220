"""The same objects in every layout: equal records and equal scores; and what is refused, in one line."""

import numpy as np
import pytest

from jaxseg.data import annotations, records
from jaxseg.datasets import objects
from jaxseg.metrics.coco import Score
from jaxseg.types import Detections, UserError
from tests import documents
from tests.object_layouts import LAYOUTS, Writer

NAMES = ('cat', 'dog')


def rectangle(size, top, left, bottom, right):
  mask = np.zeros(size, bool)
  mask[top:bottom, left:right] = True
  return mask


def miniature():
  """Three images: two objects that touch, none, one at the border."""
  rng = np.random.default_rng(0)
  image = [
    rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((20, 30), (16, 16), (24, 18))
  ]
  first = [(1, rectangle((20, 30), 2, 3, 9, 14)), (2, rectangle((20, 30), 9, 3, 15, 10))]
  last = [(2, rectangle((24, 18), 0, 10, 5, 18))]
  return [('a', image[0], first), ('b', image[1], []), ('c', image[2], last)]


def sources(root, layout, images, names=NAMES):
  for split in ('train', 'val'):
    getattr(Writer(root / layout, names), layout)(split, images)
  return {
    split: objects.source(split, data_dir=root / layout, cache_dir=root / 'cache')
    for split in ('train', 'val')
  }


def score(source, predictions):
  total = Score(source.class_names)
  for example, found in zip(source, predictions, strict=True):
    total.add(example, {'detections': found})
  return total.compute()


def shifted(example):
  """Detections a pixel to the right of the truth, and one that is nowhere."""
  layers = np.moveaxis(example['instances'], -1, 0)
  count = len(example['instance_classes'])
  masks = [np.roll((layers == i + 1).any(axis=0), 1, axis=1) for i in range(count)]
  masks.append(np.zeros(layers.shape[1:], bool))
  classes = np.array([*example['instance_classes'], 1], np.int32)
  boxes = np.concatenate([example['instance_boxes'] + [1, 0, 1, 0], [[0, 0, 1, 1]]])
  scores = np.linspace(0.9, 0.5, count + 1)
  return Detections(boxes.astype(np.float32), scores, classes, np.array(masks))


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_gives_these_records(tmp_path, layout, capsys):
  images = miniature()
  both = sources(tmp_path, layout, images)
  for source in both.values():
    assert source.class_names == ('background', *NAMES) and len(source) == 3
    assert source.category_ids == ((0, 10, 20) if layout in ('coco', 'runs') else ())
    for example, (name, image, truth) in zip(source, images, strict=True):
      assert example['file_name'] == f'{name}.png'
      np.testing.assert_array_equal(example['image'], image)
      expected = np.zeros(image.shape[:2], np.uint16)
      for number, (_, mask) in enumerate(truth, start=1):
        expected[mask] = number
      np.testing.assert_array_equal(example['instances'], expected[..., None])
      kinds = [kind for kind, _ in truth]
      assert example['instance_classes'].tolist() == kinds
      np.testing.assert_array_equal(example['label'], np.array([0, *kinds])[expected])
      assert example['area'].tolist() == [mask.sum() for _, mask in truth]
      assert example['crowd'].tolist() == [False] * len(truth)
  assert both['val'][0]['instance_boxes'].tolist() == [[3, 2, 14, 9], [3, 9, 10, 15]]
  lines = capsys.readouterr().err.splitlines()
  assert lines[0].startswith(f'{tmp_path / layout}: ')  # what was found, in one line


def test_images_to_leave_out_must_exist(tmp_path):
  raws = [records.Raw(tmp_path / f'{n}.png', tmp_path / 'a.json', f'{n}.png') for n in 'abc']
  layout = annotations.AnnotatedFolder('', {'train': raws[:2], 'val': raws[2:]}, (), None)
  assert objects.divided(layout, without=('a.png', 'c.png')) == {'train': [raws[1]], 'val': []}
  with pytest.raises(
    UserError, match='without names a, but images have names such as a.png, b.png'
  ):
    objects.divided(layout, without=('a', 'b.png'))


def test_every_layout_gives_this_score(tmp_path):
  """A pixel to the right: 77 pixels of 11 x 7 share 70 of 84, 42 of 7 x 6 share 36 of 48, 40 share 35."""
  found = {}
  for layout in LAYOUTS:
    source = sources(tmp_path, layout, miniature())['val']
    found[layout] = score(source, [shifted(example) for example in source])
  first = found['coco']
  # IoU .833: 7 of 10 thresholds; IoU .75 and (cut at the border) .778: 6; classes are averaged.
  assert first['mask_ap'] == pytest.approx((0.7 + 0.6) / 2, abs=0.01)
  for layout, summary in found.items():
    assert summary == first, layout


def test_another_class_in_the_table_is_read_anew(tmp_path):
  """objects.csv is no file of an image, and names and number of the classes stay."""
  source = sources(tmp_path, 'ids', miniature())['val']
  assert source[0]['instance_classes'].tolist() == [1, 2]
  table = tmp_path / 'ids' / 'objects.csv'
  table.write_text(table.read_text().replace('a,1,cat', 'a,1,dog').replace('c,1,dog', 'c,1,cat'))
  again = objects.source('val', data_dir=tmp_path / 'ids', cache_dir=tmp_path / 'cache')
  assert again[0]['instance_classes'].tolist() == [2, 2]


def test_a_table_names_images_with_dots(tmp_path):
  images = [(f'v1.{i}', image, truth) for i, (_, image, truth) in enumerate(miniature())]
  both = sources(tmp_path, 'ids', images)
  expected = [[kind for kind, _ in truth] for *_, truth in images]
  assert [e['instance_classes'].tolist() for e in both['train']] == expected
  table = tmp_path / 'ids' / 'objects.csv'
  table.write_text(table.read_text().replace('v1.0,', 'v1.0.PNG,'))
  again = objects.source('train', data_dir=tmp_path / 'ids', cache_dir=tmp_path / 'cache')
  assert [e['instance_classes'].tolist() for e in again] == expected


@pytest.mark.parametrize(
  ('row', 'words'),
  [
    ('image,id,class,class', "has the column 'class' twice"),
    ('a,1,cat,big', 'more cells than the first line'),
    ('a,1,', 'in every row'),
  ],
)
def test_a_row_of_the_table_that_is_wrong(tmp_path, row, words):
  sources(tmp_path, 'ids', miniature())
  table = tmp_path / 'ids' / 'objects.csv'
  old = 'image,id,class' if row.startswith('image') else 'a,1,cat'
  table.write_text(table.read_text().replace(old, row))
  with pytest.raises(UserError, match=words):
    objects.source('val', data_dir=tmp_path / 'ids', cache_dir=tmp_path / 'cache')


NUCLEI_IOU = 0.93  # of each nucleus of 12 pixels or more, its polygon filled again


EXACT = ('runs', 'ids', 'files')  # they hold pixels
TABLE = 'LAYOUTS_TABLE'


def of_bowl(shared_data, chosen, side):
  """Images of the Data Science Bowl, cut to `side` pixels at most, as (name, image, objects)."""
  from jaxseg.datasets import dsb2018

  source = dsb2018.source('val', data_dir=shared_data, border_weight=False, separate=False)
  images = []
  for number, example in enumerate(chosen(source)):
    ids, image = example['instances'][:side, :side], example['image'][:side, :side].copy()
    truth = [(1, ids == i) for i in range(1, int(ids.max()) + 1)]
    images.append((f'n{number:02d}', image, [(k, m) for k, m in truth if m.sum() >= 12]))
  return images


def of_three_sizes(source):
  chosen = {}
  for i in range(40):
    example = source[i]
    chosen.setdefault(example['image'].shape, example)
  return list(chosen.values())[:3]


def compared(images, folder):
  """Returns the overlap of each nucleus with what was written, and the score, of each layout.

  The detections are the same for all: images are, so that a network's would be, too.
  """
  found, predictions = {}, None
  for layout in LAYOUTS:
    source = sources(folder, layout, images, ('nucleus',))['val']
    predictions = predictions or [shifted(example) for example in source]
    overlaps = []
    for example, (_, image, truth) in zip(source, images, strict=True):
      np.testing.assert_array_equal(example['image'], image)
      assert len(example['instance_classes']) == len(truth)
      layers = np.moveaxis(example['instances'], -1, 0)
      for number, (_, mask) in enumerate(truth, start=1):
        again = (layers == number).any(axis=0)
        overlaps.append((again & mask).sum() / (again | mask).sum())
    found[layout] = np.array(overlaps), score(source, predictions)
  for layout, (overlaps, summary) in found.items():
    exact = layout in EXACT
    assert overlaps.min() == 1 if exact else overlaps.min() > NUCLEI_IOU
    for name in ('mask_ap', 'mask_ap50', 'box_ap', 'box_ap50'):
      tolerance = 1e-9 if exact else 0.03
      assert summary[name] == pytest.approx(found['runs'][1][name], abs=tolerance), (layout, name)
  return found


def test_nuclei_are_the_same_in_every_layout(shared_data, tmp_path):
  compared(of_bowl(shared_data, of_three_sizes, 128), tmp_path)


@pytest.mark.slow
def test_whole_images_of_nuclei_are_the_same_in_every_layout(shared_data, tmp_path):
  """LAYOUTS_TABLE=docs/reliability.md pytest -m slow -n0 tests/test_datasets_objects.py writes the figures."""
  images = of_bowl(shared_data, lambda source: [source[i] for i in range(0, 96, 4)], 1 << 16)
  found = compared(images, tmp_path)
  number = len(found['ids'][0])
  lines = [
    f'{number:,} nuclei of {len(images)} whole images, written in each layout and read again; the same detections are scored',
    f'against each. `{TABLE}=docs/reliability.md pytest -m slow -n0 tests/test_datasets_objects.py`.',
    '',
    '| layout | least IoU of a nucleus | mean IoU | mask AP | box AP |',
    '|---|---|---|---|---|',
  ]
  lines += [
    f'| {layout} | {overlaps.min():.3f} | {overlaps.mean():.4f} | {s["mask_ap"]:.4f} | {s["box_ap"]:.4f} |'
    for layout, (overlaps, s) in found.items()
  ]
  documents.renew(TABLE, 'Layouts of objects', 'layouts', '\n'.join(lines))
