"""A user's own folder: every way to save a mask, and every way to get it wrong."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.data import classlist
from jaxseg.data.division import Division
from jaxseg.data.pairing import Layout
from jaxseg.data.problems import BadFiles, MissingSplit
from jaxseg.datasets import folder
from jaxseg.types import VOID, UserError

IDS = np.array([[0, 1, 2, 1], [2, 2, 0, 255], [1, 1, 0, 0]], np.uint8)
SIZES = (('train', 9), ('val', 2))
RGB = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)


def _add(root, split, stem, mask, image=RGB, suffix='png'):
  for kind in ('images', 'masks'):
    (root / split / kind).mkdir(parents=True, exist_ok=True)
  Image.fromarray(image).save(root / split / 'images' / f'{stem}.{suffix}')
  mask = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
  mask.save(root / split / 'masks' / f'{stem}.png')


def _source(root, split='train', **options):
  return folder.source(split, data_dir=root, cache_dir=root.parent / 'cache', **options)


@pytest.fixture
def root(tmp_path):
  (tmp_path / 'mine').mkdir()
  return tmp_path / 'mine'


def _palette(ids, colors):
  image = Image.fromarray(ids)
  image.putpalette([v for c in colors for v in c])
  return image


def test_index_masks_of_all_depths(root):
  (root / 'classes.txt').write_text('# my classes\nsky\nroad works\n\ncar\n')
  _add(root, 'train', 'grey', IDS)
  _add(root, 'train', 'palette', _palette(IDS, [(i, 0, 0) for i in range(256)]))
  _add(root, 'train', 'wide', IDS.astype(np.uint16), suffix='jpg')
  source = _source(root)
  assert source.class_names == ('sky', 'road works', 'car') and source.num_classes == 3
  assert source.palette == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
  names = [source.file_name(i) for i in range(len(source))]
  assert names == ['grey.png', 'palette.png', 'wide.jpg']
  for i in range(3):
    np.testing.assert_array_equal(source[i]['label'], IDS, err_msg=names[i])
  np.testing.assert_array_equal(source[0]['image'], RGB)


def test_images_of_all_modes(root):
  alpha = np.dstack([RGB, np.full((3, 4), 9, np.uint8)])
  for stem, image in (('a', alpha), ('b', RGB[..., 0])):
    _add(root, 'train', stem, IDS, image=image)
  source = _source(root, classes=3)
  grey = RGB[..., [0, 0, 0]]
  for i, expected in enumerate((RGB, grey)):
    np.testing.assert_array_equal(source[i]['image'], expected)
  assert _source(root, classes=3, channels=1)[0]['image'].shape == (3, 4, 1)
  _add(root, 'train', 'b', IDS, image=RGB[..., 0].astype(np.uint16) * 257)
  with pytest.raises(
    UserError, match=r'b\.png is uint16, and uint8 is expected: set config.data.dtype'
  ):
    _source(root, classes=3)


def test_number_of_classes_is_inferred_over_all_splits_and_said(root, capsys):
  _add(root, 'train', 'a', np.minimum(IDS, 1))
  _add(root, 'val', 'a', np.where(IDS == 255, 4, IDS).astype(np.uint8))
  for split in ('train', 'val'):
    assert _source(root, split).num_classes == 5
  assert capsys.readouterr().err.count('5 classes, the highest mask id + 1') == 1
  assert _source(root, classes=['a', 'b']).class_names == ('a', 'b')


def test_an_id_beyond_the_configs_classes_is_a_mistake_of_its_file(root, capsys):
  """One pixel of id 7 does not make eight classes, and the file is named."""
  stray = np.where(IDS == 255, 7, IDS).astype(np.uint8)
  for stem, mask in (('a', IDS), ('b', stray), ('c', stray)):
    _add(root, 'train', stem, mask)
  _add(root, 'val', 'a', IDS)
  with pytest.raises(BadFiles, match=r'b\.png: label ids 7 .* 3 classes, 0\.\.2,') as error:
    _source(root, num_classes=3)
  assert [p.split('.png')[0][-1] for p in error.value.problems] == ['b', 'c']
  assert all('if it is right, add --config.num_classes=8' in p for p in error.value.problems)
  assert not capsys.readouterr().err
  assert _source(root, 'val', num_classes=3).class_names == ('class 0', 'class 1', 'class 2')
  assert _source(root, num_classes=8).num_classes == 8
  assert _source(root, num_classes=9).num_classes == 8  # the config is told, see source_from
  _add(root, 'val', 'a', np.where(IDS == 2, np.uint16(300), IDS))
  with pytest.raises(BadFiles, match=r'a\.png: label ids 300 .*: correct the mask$'):
    _source(root, 'val', num_classes=3)


def test_inference_refuses_what_are_no_class_ids(root):
  _add(root, 'train', 'a', np.array([[0, 80, 160, 240]] * 3, np.uint8))
  with pytest.raises(UserError, match='cannot tell the classes from mask ids 0, 80, 160, 240'):
    _source(root)


def _two_valued():
  return np.where(IDS == 1, np.uint8(255), np.uint8(0))


@pytest.mark.parametrize('told', ['nothing', 'two', 'binary'])
def test_masks_of_0_and_255_have_two_classes(root, told):
  _add(root, 'train', 'a', _two_valued())
  options = {'nothing': {}, 'two': {'classes': 2}, 'binary': {'classes': 2, 'binary': True}}[told]
  source = _source(root, **options)
  assert source.num_classes == 2
  np.testing.assert_array_equal(source[0]['label'], IDS == 1)


def test_masks_of_0_and_1_beside_masks_of_0_and_255_are_asked_about(root):
  _add(root, 'train', 'a', _two_valued())
  _add(root, 'val', 'b', np.minimum(IDS, 1))
  with pytest.raises(
    UserError, match=r'0 and 1 \(such as .*b.png\), .*a.png\): .*binary=True reads'
  ):
    _source(root, classes=2)
  np.testing.assert_array_equal(_source(root, classes=2, binary=True)[0]['label'], IDS == 1)
  label = _source(root, classes=2, binary=False)[0]['label']
  np.testing.assert_array_equal(label, _two_valued())


def test_binary_false_keeps_void(root):
  _add(root, 'train', 'a', _two_valued())
  label = _source(root, classes=2, binary=False)[0]['label']
  np.testing.assert_array_equal(label, _two_valued())


def test_0_255_masks_with_more_classes_are_refused(root):
  _add(root, 'train', 'a', _two_valued())
  with pytest.raises(UserError, match='only 0 and 255, and with 3 classes .* nothing would be'):
    _source(root, classes=3)
  with pytest.raises(UserError, match='binary masks have two classes, but 3 are listed'):
    _source(root, classes=3, binary=True)


def test_one_bit_masks(root):
  _add(root, 'train', 'a', Image.fromarray(_two_valued()).convert('1'))
  np.testing.assert_array_equal(_source(root, classes=2)[0]['label'], IDS == 1)


COLORS = 'ground 10 20 30\ntree 0 200 0\nvoid 255 255 255\ncar 5 5 5\n'


def test_colour_masks(root):
  (root / 'classes.txt').write_text(COLORS)
  table = np.array([(10, 20, 30), (0, 200, 0), (255, 255, 255), (5, 5, 5)], np.uint8)
  ids = np.array([[0, 1, 2, 3]] * 3, np.uint8)
  _add(root, 'train', 'a', table[ids])
  _add(root, 'train', 'b', _palette(ids[:, ::-1], table))
  _add(root, 'train', 'c', ids)  # grey: by the line of the list
  source = _source(root)
  assert source.class_names == ('ground', 'tree', 'car')
  assert source.palette == ((10, 20, 30), (0, 200, 0), (5, 5, 5))
  expected = np.array([[0, 1, VOID, 2]] * 3)
  for i, truth in enumerate((expected, expected[:, ::-1], expected)):
    np.testing.assert_array_equal(source[i]['label'], truth)


def test_unlisted_colour_is_named(root):
  (root / 'classes.txt').write_text(COLORS)
  mask = np.full((3, 4, 3), 5, np.uint8)
  mask[0, 0] = 1, 2, 3
  _add(root, 'train', 'a', mask)
  with pytest.raises(UserError, match=r'a\.png: colours \(1, 2, 3\) are not in .* \(10, 20, 30\)'):
    _source(root)


def test_voc_style_palette_keeps_its_void_border(root):
  (root / 'classes.txt').write_text('background 0 0 0\naeroplane 128 0 0\n')
  colors = [*classlist.voc_palette(255), (224, 224, 192)]
  _add(root, 'train', 'a', _palette(np.array([[0, 1, 255, 0]] * 3, np.uint8), colors))
  assert _source(root)[0]['label'].tolist() == [[0, 1, VOID, 0]] * 3


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('only\n', 'got 1 classes'),
    ('a\na\n', 'must differ'),
    ('a 1 2 3\nb\n', 'every class a colour'),
    ('a 1 2 3\nb 1 2 3\n', 'one colour'),
    ('a 1 2 300\nb 1 2 3\n', r'line 1: colour \(1, 2, 300\) is outside'),
  ],
)
def test_class_lists_that_cannot_be(root, text, message):
  _add(root, 'train', 'a', IDS)
  (root / 'classes.txt').write_text(text)
  with pytest.raises(UserError, match=message):
    _source(root)


def test_partners_and_names(root):
  _add(root, 'train', 'a', IDS)
  options = dict(classes=3)
  with pytest.raises(UserError, match=r"no split 'val'; splits found: train; .*folds=5 holds"):
    _source(root, 'val', **options)
  with pytest.raises(UserError, match="no split 'valid'"):
    _source(root, 'valid', **options)
  (root / 'train/images/a.jpg').write_bytes((root / 'train/images/a.png').read_bytes())
  with pytest.raises(UserError, match=r'a\.png and a\.jpg have one name'):
    _source(root, **options)
  (root / 'train/images/a.jpg').rename(root / 'train/images/b.jpg')
  with pytest.raises(BadFiles, match=r'b\.jpg has no mask: add or remove one'):
    _source(root, **options)
  (root / 'train/images/b.jpg').unlink()
  (root / 'train/images/a.png').rename(root / 'a.png')
  with pytest.raises(UserError, match='no masks were found for images such as a.png'):
    _source(root, **options)
  (root / 'a.png').unlink()
  (root / 'train/masks/a.png').unlink()
  with pytest.raises(UserError, match='mine holds no image'):
    _source(root, **options)


def test_what_has_no_partner_is_left_out_where_that_is_asked_for(root, capsys):
  for stem in 'abc':
    _add(root, 'train', stem, IDS)
  (root / 'train/masks/b.png').unlink()
  (root / 'train/images/c.png').unlink()
  with pytest.raises(BadFiles, match='b.png has no mask: .*unpaired=leave_out') as error:
    _source(root, classes=3)
  assert len(error.value.problems) == 2 and 'c.png has no image' in error.value.problems[1]
  source = _source(root, classes=3, unpaired='leave_out')
  assert [source.file_name(i) for i in range(len(source))] == ['a.png']
  told = capsys.readouterr().err
  assert '1 images without a mask (train/images/b.png), 1 masks without an image' in told


def test_folds_hold_each_image_out_once(root):
  for i in range(7):
    _add(root, 'train' if i < 5 else 'val', f'{i}', IDS)
  _add(root, 'test', '7', IDS)
  held_out = []
  for fold in range(3):
    of = {s: _source(root, s, classes=3, folds=3, fold=fold) for s in ('train', 'val', 'test')}
    names = {s: [v.file_name(i) for i in range(len(v))] for s, v in of.items()}
    assert sorted(names['train'] + names['val']) == [f'{i}.png' for i in range(7)]
    assert names['test'] == ['7.png']
    held_out += names['val']
  assert sorted(held_out) == [f'{i}.png' for i in range(7)]
  with pytest.raises(UserError, match='holds 7 pairs .* at least 9 are needed'):
    _source(root, classes=3, folds=9)
  with pytest.raises(UserError, match='got folds 3 and fold 3'):
    _source(root, classes=3, folds=3, fold=3)


def test_a_list_of_pairs_and_patterns_are_taken_as_they_are(root):
  _add(root, 'a/b', '1', IDS)
  (root / 'a/list.csv').write_text('b/images/1.png,b/masks/1.png,train\n')
  for options in (
    dict(listed='a/list.csv'),
    dict(images='a/{split}/**/*.png', masks='a/**/masks/*.png', folds=0),
  )[:1]:
    source = _source(root, classes=3, **options)
    assert source.file_name(0) == 'b/images/1.png'


def test_bad_masks_are_named(root):
  _add(root, 'train', 'a', IDS)
  with pytest.raises(UserError, match=r'a\.png: label ids 2 are not .* 0, 1, 255 \(void\)'):
    _source(root, classes=2)
  Image.fromarray(IDS).save(root / 'train/masks/a.jpg')
  (root / 'train/masks/a.png').unlink()
  with pytest.raises(UserError, match=r'a\.jpg is a JPEG'):
    _source(root, classes=3)
  (root / 'train/masks/a.jpg').unlink()
  Image.fromarray(IDS[:, :3]).save(root / 'train/masks/a.png')
  with pytest.raises(UserError, match=r'a\.png is 3 x 3 pixels, .* 4 x 3'):
    _source(root, classes=3)
  assert not list((root.parent / 'cache' / 'folder').glob('records-*'))


def test_a_folder_without_splits_is_divided_by_names(root):
  for i in range(11):
    _add(root, '', f'{i}', IDS)
  names = {s: [_source(root, s, classes=3).file_name(i) for i in range(n)] for s, n in SIZES}
  assert len(_source(root, 'train', classes=3)) == 9 and len(_source(root, 'val', classes=3)) == 2
  assert sorted(names['train'] + names['val']) == sorted(f'{i}.png' for i in range(11))
  _add(root, '', 'new', IDS)  # moves at most itself: 12 // 5 is still 2
  val = _source(root, 'val', classes=3)
  assert len({val.file_name(i) for i in range(2)} & set(names['val'])) >= 1
  with pytest.raises(MissingSplit, match=r"'test'; splits found: train, val$"):
    _source(root, 'test', classes=3)


def test_one_image_cannot_be_divided(root):
  _add(root, '', 'a', IDS)
  with pytest.raises(UserError, match='at least 2 are needed'):
    _source(root, classes=3)


def test_all_bad_masks_are_listed(root):
  for stem, mask in (('a', IDS + 3), ('b', IDS), ('c', IDS + 9)):
    _add(root, 'train', stem, mask)
  with pytest.raises(BadFiles, match=r'a\.png: label ids .* \(and 1 more like it') as error:
    _source(root, classes=3)
  assert [p.split('.png')[0][-1] for p in error.value.problems] == ['a', 'c']


def test_names_match_whatever_way_accents_are_written(root):
  _add(root, 'train', 'caf\u00e9', IDS)
  (root / 'train/masks/caf\u00e9.png').rename(root / 'train/masks/cafe\u0301.png')
  assert len(_source(root, classes=3)) == 1


@pytest.mark.parametrize('name', ['images/b.ppm', 'masks/a.PGM', 'images/b.heic', 'masks/b.npy'])
def test_images_that_would_be_left_out_are_told(root, name):
  _add(root, 'train', 'a', IDS)
  (root / 'train' / name).write_bytes(b'')
  with pytest.raises(UserError, match=f'{name} would be left out: save it as one of .png'):
    _source(root, classes=3)


def test_images_that_a_pattern_leaves_out_are_told(root):
  _add(root, 'train', 'a', IDS)
  (root / 'old').mkdir()
  (root / 'old' / 'b.avif').write_bytes(b'')
  pairs = Division(Layout('train/images/*', 'train/masks/*')).pairs(root)
  assert pairs.left_out() == '1 other files (old/b.avif)'


def test_images_to_leave_out_must_exist(root):
  for split, stem in (('train', 'a'), ('train', 'b'), ('val', 'c'), ('val', 'd')):
    _add(root, split, stem, IDS)
  without = ('b.png', 'c.png')
  assert [len(_source(root, s, classes=3, without=without)) for s in ('train', 'val')] == [1, 1]
  with pytest.raises(
    UserError, match=r'without names b, z.png, but images .* such as a.png, b.png'
  ):
    _source(root, classes=3, without=('c.png', 'b', 'z.png'))


@pytest.mark.parametrize('on_mask', [False, True])
def test_a_photograph_turned_by_exif_turns_its_mask(root, on_mask):
  """Orientation 6: viewers turn the stored pixels to the right by 90 degrees."""
  ids = np.minimum(IDS, 2)
  _add(root, 'train', 'a', ids)
  for kind, array in (('images', RGB), ('masks', ids)):
    exif = Image.Exif()
    exif[0x0112] = 6
    tag = {'exif': exif} if kind == 'images' or on_mask else {}
    Image.fromarray(array).save(root / 'train' / kind / 'a.png', **tag)
  example = _source(root, classes=3)[0]
  np.testing.assert_array_equal(example['label'], np.rot90(ids, -1))
  np.testing.assert_array_equal(example['image'], np.rot90(RGB, -1))


def test_a_mask_drawn_on_the_upright_photograph_stays(root):
  ids = np.minimum(IDS, 2)
  _add(root, 'train', 'a', np.rot90(ids, -1).copy())
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(RGB).save(root / 'train/images/a.png', exif=exif)
  np.testing.assert_array_equal(_source(root, classes=3)[0]['label'], np.rot90(ids, -1))


def test_where_sizes_do_not_tell_exif_is_asked_about(root):
  ids = np.minimum(IDS, 2)
  _add(root, 'train', 'a', ids)
  exif = Image.Exif()
  exif[0x0112] = 3  # upside down
  Image.fromarray(RGB).save(root / 'train/images/a.png', exif=exif)
  with pytest.raises(UserError, match='a.png has the EXIF orientation 3, .*exif=stored'):
    _source(root, classes=3)
  np.testing.assert_array_equal(_source(root, classes=3, exif='upright')[0]['label'], ids)
  stored = _source(root, classes=3, exif='stored')[0]['label']
  np.testing.assert_array_equal(stored, ids[::-1, ::-1])
