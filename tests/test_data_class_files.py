"""Lists of classes in the forms that tools write; each line's reading is written out."""

import json

import pytest

from jaxseg.data import class_files, class_places, classlist
from jaxseg.data.class_files import Entry
from jaxseg.types import VOID, UserError

CAT, ROAD = Entry('cat', (48, 112, 32)), Entry('road works', (255, 0, 10))
FORMS = {
  'name r g b': 'cat 48 112 32\nroad works 255 0 10\n',
  'tabs': '# mine\n\ncat\t48\t112\t32\nroad works\t255\t0\t10\n',
  'name,r,g,b': 'cat,48,112,32\nroad works, 255, 0, 10\n',
  'a header': 'name,r,g,b\ncat,48,112,32\nroad works,255,0,10\n',
  'other columns': 'r;g;b;Class\n48;112;32;cat\n255;0;10;"road works"\n',
  "CVAT's": '# label:color_rgb:parts:actions\ncat:48,112,32::\nroad works:255,0,10::a,b\n',
  'with a colon': 'cat: (48, 112, 32)\nroad works: (255, 0, 10)\n',
  "CamVid's": '48 112 32\tcat\n255 0 10\t\troad works\n',
  'hexadecimal': 'cat #307020\nroad works #FF000A\n',
  'an opacity': 'cat 48 112 32 255\nroad works,255,0,10,255\n',
  'an opacity in front of names': '48 112 32 255 cat\n255 0 10 255 road works\n',
  'commas behind': '"cat": (48, 112, 32),\nroad works: [255, 0, 10],\n',
  'comments': '// r g b\ncat 48 112 32\n// roads\nroad works 255 0 10\n',
  'JSON, colours by name': '{"cat": [48, 112, 32], "road works": "#ff000a"}',
  'JSON, objects': json.dumps(
    {
      'classes': [
        {'title': 'cat', 'color': '#307020'},
        {'name': 'road works', 'color': [255, 0, 10]},
      ]
    }
  ),
  'JSON, of a run': json.dumps(
    {'names': ['cat', 'road works'], 'palette': [[48, 112, 32], [255, 0, 10]]}
  ),
}
NUMBERED = {
  'id name': '0 cat\n3 road works\n',
  'id: name': '0: cat\n3: road works\n',
  'name,id': 'cat,0\nroad works,3\n',
  "Roboflow's": 'Pixel Value, Class\n0, cat\n3, road works\n',
  'YAML, names by id': 'names:\n  0: cat\n  3: road works\nnc: 2\n',
  'JSON, ids by name': '{"cat": 0, "road works": 3}',
  'JSON, names by id': '{"0": "cat", "3": "road works"}',
  'id. name, in any order': '3. road works\n0. cat\n',
  'id) name': '0) cat\n3) road works\n',
  'id | name': '3|road works\n0|cat\n',
  'id - name': '3 - road works\n0 -> cat\n',
  'columns that say more': 'id,category,name\n3,way,road works\n0,animal,cat\n',
  "JSON, Hugging Face's": json.dumps(
    {'id2label': {'0': 'cat', '3': 'road works'}, 'label2id': {'cat': 0, 'road works': 3}}
  ),
  'JSON, of a run with ids': json.dumps(
    {'names': ['road works', 'cat'], 'palette': [], 'ids': [3, 0]}
  ),
  "JSON, COCO's": json.dumps(
    {'categories': [{'id': 0, 'name': 'cat'}, {'id': 3, 'name': 'road works'}]}
  ),
}
NAMED = {
  'names': '\ufeffcat\nroad works\n',
  'names that end in numbers': 'cat\nroad works\nzone 2\n',
  'names under a header': 'Name\ncat\nroad works\n',
  'names under two words': 'Class Name\ncat\nroad works\n',
  'names under a colon': 'Classes:\ncat\nroad works\n',
  'YAML': 'names:\n- cat\n- road works\n',
  'YAML, in one line': 'names: [cat, road works]\nnc: 2\n',
  'a list of dashes': '- cat\n- road works\n',
  'JSON': '["cat", "road works"]',
  "CVAT's without colours": 'cat:::\nroad works:::\n',
}


BOTH = (
  '0 cat 48 112 32\n3 road works 255 0 10\n',
  '0,48,112,32,cat\n3,255,0,10,road works\n',
  'cat;0;48;112;32\nroad works;3;255;0;10\n',
  'id,r,g,b,name\n0,48,112,32,cat\n3,255,0,10,road works\n',
)


@pytest.mark.parametrize('text', BOTH)
def test_numbers_and_colours(text, tmp_path):
  (tmp_path / 'list').write_text(text)
  expected = [Entry('cat', CAT.color, 0), Entry('road works', ROAD.color, 3)]
  assert class_files.read(tmp_path / 'list') == expected


def test_numbers_that_belong_to_names_stay(tmp_path):
  (tmp_path / 'list').write_text('zone 1 0 0 9\nzone 2 9 0 0\n')
  assert class_files.read(tmp_path / 'list') == [
    Entry('zone 1', (0, 0, 9)),
    Entry('zone 2', (9, 0, 0)),
  ]


@pytest.mark.parametrize('form', [*FORMS, *NUMBERED, *NAMED])
def test_a_form(form, tmp_path):
  file = tmp_path / 'list'
  file.write_text((FORMS | NUMBERED | NAMED)[form], encoding='utf-8')
  if form in FORMS:
    assert class_files.read(file) == [CAT, ROAD]
    found = classlist.read_file(file)
    assert found.names == ('cat', 'road works') and dict(found.colors) == {
      CAT.color: 0,
      ROAD.color: 1,
    }
  elif form in NUMBERED:
    found = sorted(class_files.read(file), key=lambda entry: entry.id)
    assert found == [Entry('cat', None, 0), Entry('road works', None, 3)]
    assert dict(classlist.read_file(file).ids) == {0: 0, 3: 1, 255: VOID}
  else:
    assert class_files.read(file)[:2] == [Entry('cat'), Entry('road works')]


def test_labelmes_ignored_class_has_no_number(tmp_path):
  (tmp_path / 'labels.txt').write_text('__ignore__\n_background_\ncat\n')
  found = classlist.read_file(tmp_path / 'labels.txt')
  assert found.names == ('_background_', 'cat')
  assert dict(found.ids) == {0: 0, 1: 1, 255: VOID}


def test_names_that_begin_with_a_hash_are_told(tmp_path, capsys):
  (tmp_path / 'list').write_text('# mine\ncat\n#1 bolt\ndog\n')
  assert [entry.name for entry in class_files.read(tmp_path / 'list')] == ['cat', 'dog']
  assert 'lines that begin with # are no classes: #1 bolt' in capsys.readouterr().err


def test_a_class_may_have_the_id_255(tmp_path):
  (tmp_path / 'list').write_text('0,background\n255,crack\n')
  assert dict(classlist.read_file(tmp_path / 'list').ids) == {0: 0, 255: 1}


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('cat\nwall, door\n', "line 2: got 'wall, door'; a line is name, name r g b"),
    ('cat,1,2\ndog,3,4\n', "line 1: got 'cat,1,2'"),
    ('name,r,g,b\ncat,1,2,x\ndog,1,2,3\n', r'line 2: .* is no colour'),
    ('name,r,g,b\ncat,1,2,300\ndog,1,2,3\n', r'line 2: colour \(1, 2, 300\) is outside of 0..255'),
    ('id,name\na,cat\n', "line 2: id 'a' of cat is no whole number"),
    ('0,cat\n0,dog\n', 'two classes have one id'),
    ('{"cat": [1, 2]}', r'\[1, 2\].* is no colour'),
    ('[1, 2]', 'a class has no name'),
    ('["cat", ', 'is no JSON'),
    ('class 2: dog\nclass 1: cat\n', "names such as 'class 2: dog' ids"),
    ('3 road\n5 car\n0 3D model\n', "names such as '3 road' ids"),
    ('0 road\n3 car\n5 3D model\n', "names such as '0 road' ids"),
    ('1. road\n2. car\n3. 100%\n', "names such as '1. road' ids"),
    ('road 1\ntraffic light 2\n', "names such as 'road 1' ids"),
    ('road: 1\nother:misc: 5\n', "names such as 'road: 1' ids"),
    ('A,40,205,186,1\nb,159,94,239,0\n', "which number of 'A' is its id"),
    ('214 160 194 1 road\n9 146 67 0 car\n', "which number of 'road' is its id"),
    ('R2,34,99,89,1\nlabel,68,85,85,0\n', "names such as 'R2,34' ids"),
    ('| id | name |\n|---|---|\n| 0 | cat |\n', 'line 2: a class has no name'),
    ('0,cat,1\n1,dog,2\n', "line 1: got '0,cat,1'"),
    ('id,name\n0,cat,big\n1,dog\n', "line 2: '0,cat,big' has more cells"),
    ('index,class_id,name\n0,1,cat\n1,0,dog\n', 'line 2: index, class_id number the class'),
    ('[{"name": "cat", "id": 0, "index": 1}]', 'id, index number the class differently'),
    ('id,name,id\n0,cat,1\n1,dog,0\n', "has the column 'id' twice"),
    ('{"0": "cat", "1": "dog", "1": "cow"}', "has the key '1' twice"),
    ('names:\n  0: cat\n  1: dog\n  1: cow\n', "it has the key '1' twice"),
    ('{"names": ["cat", "dog"], "palette": [[0, 0, 0]]}', 'must be of one length'),
    ('{"cat": {"weight": 1}, "dog": {"weight": 2}}', 'has no name, colour or id'),
    ('caf\u00e9\ncafe\u0301\n', 'the class names must differ'),
    ('cat\ncat\u200b\n', 'the class names must differ'),
  ],
)
def test_a_line_that_is_no_class_is_named(text, message, tmp_path):
  (tmp_path / 'list').write_text(text)
  with pytest.raises(UserError, match=message):
    classlist.read_file(tmp_path / 'list')


@pytest.mark.parametrize('names', [('zone 1', 'zone 2', 'zone 3'), ('0-10 cm', '10-20 cm')])
def test_numbers_that_rise_may_be_of_the_names(names, tmp_path):
  (tmp_path / 'list').write_text('\n'.join(names))
  assert classlist.read_file(tmp_path / 'list').names == names


def test_a_negative_id_is_no_name(tmp_path):
  (tmp_path / 'list').write_text('-1 void\n0 cat\n1 dog\n')
  assert dict(classlist.read_file(tmp_path / 'list').ids) == {-1: VOID, 0: 0, 1: 1, 255: VOID}


@pytest.mark.parametrize(
  ('lists', 'wrong'),
  [
    ({'classes.txt': 'bg\ncat\ndog\n', 'labels.txt': 'bg\ndog\ncat\n'}, 'cat'),
    ({'classes.txt': 'bg\ncat\ndog\n', 'classes.json': '{"bg": 0, "dog": 1, "cat": 2}'}, 'cat'),
    ({'a/_classes.csv': 'id,name\n1,a\n2,b\n', 'b/_classes.csv': 'id,name\n1,b\n2,a\n'}, 'a'),
    (
      {'classes.txt': 'a 0 0 0\nb 1 1 1\n', 'class_dict.csv': 'name,r,g,b\na,0,0,0\nb,9,9,9\n'},
      'b',
    ),
    ({'classes.txt': 'bg\ncat\ncow\ndog\n', 'labels.txt': 'bg\ncat\ndog\n'}, 'cow'),
    ({'classes.txt': 'bg\ncat\ndog\n', 'labels.txt': 'BG\nDog\nCat\n'}, 'cat'),
    (
      {'classes.txt': 'a 0 0 0\nb 1 1 1\n', 'class_dict.csv': 'name,r,g,b\na,0,0,0\nc,1,1,1\n'},
      'b',
    ),
    ({'classes.txt': 'bg\ncat\ndog\n', 'labels.txt': 'BG\nCat\nDog\ncow\n'}, ''),
    ({'classes.txt': 'bg\ncat\ndog\n', 'labels.txt': '0 bg\n1 cat\n2 dog\n'}, ''),
    ({'classes.txt': 'bg\ncat\ndog\n', 'labels.txt': '__ignore__\nbg\ncat\ndog\n'}, ''),
    ({'classes.txt': 'bg\ncat\ndog\n', 'labels.txt': 'cat\ndog\n', 'names.txt': 'a.png\n'}, ''),
    ({'a/_classes.csv': 'id,name\n1,a\n2,b\n', 'b/_classes.csv': 'id,name\n1,a\n3,c\n'}, ''),
    ({'classes.txt': 'a 0 0 0\nb 1 1 1\n', 'class_dict.csv': 'name,r,g,b\nb,1,1,1\na,0,0,0\n'}, ''),
  ],
)
def test_lists_that_contradict_each_other_are_refused(lists, wrong, tmp_path):
  for name, text in lists.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
  if not wrong:
    assert class_places.find(tmp_path) == next(iter(lists))
    return
  first, second = lists
  with pytest.raises(UserError, match=f'{first} and .*{second} disagree on the class {wrong!r}'):
    class_places.find(tmp_path)


def test_lists_that_differ_in_capitals_are_refused(tmp_path):
  for name in ('classes.txt', 'Classes.txt'):
    (tmp_path / name).write_text('')
  if len(list(tmp_path.iterdir())) > 1:  # a disk that tells them apart
    with pytest.raises(UserError, match='both list classes'):
      class_places.find(tmp_path)


def test_the_background_has_many_names(tmp_path):
  (tmp_path / 'classes.txt').write_text('background\ncat\n')
  (tmp_path / 'labels.txt').write_text('_background_\ncat\n')
  assert class_places.find(tmp_path) == 'classes.txt'
  (tmp_path / 'labels.txt').write_text('cat\n_background_\n')
  with pytest.raises(UserError, match='disagree on the class'):
    class_places.find(tmp_path)


def test_colours_in_another_list_than_the_one_that_is_taken_are_told(tmp_path, capsys):
  (tmp_path / 'labelmap.txt').write_text('background:0,0,0::\ncat:9,0,0::\n')
  assert class_places.find(tmp_path) == 'labelmap.txt'
  assert not capsys.readouterr().err
  (tmp_path / 'classes.txt').write_text('background\ncat\n')
  assert class_places.find(tmp_path) == 'classes.txt'
  told = capsys.readouterr().err
  assert 'classes.txt numbers the classes; the colours in labelmap.txt are not read' in told
  assert '--config.data.options.class_list=labelmap.txt' in told


def test_a_folders_list_is_found(tmp_path):
  assert class_places.find(tmp_path) == ''
  (tmp_path / 'train').mkdir()
  (tmp_path / 'train' / '_classes.csv').write_text('')
  assert class_places.find(tmp_path) == 'train/_classes.csv'
  (tmp_path / 'labelmap.txt').write_text('')
  assert class_places.find(tmp_path) == 'labelmap.txt'


@pytest.mark.parametrize(
  ('first', 'second', 'wrong'),
  [
    ('bg\ncat\ndog\n', 'bg\ndog\ncat\n', 'cat'),
    ('_background_\ncat\ndog\n', '_background_\nzebra crossing\n', 'cat'),
    ('ground\ncat\n', 'soil\ndog\n', 'ground'),
    ('a 0 0 0\nb 1 1 1\n', 'b 0 0 0\na 1 1 1\n', 'a'),
    ('bg\ncat\n', 'bg\ncat\ndog\n', ''),
    ('b 1 1 1\na 0 0 0\n', 'a 0 0 0\nb 1 1 1\nc 2 2 2\n', ''),
  ],
)
@pytest.mark.parametrize('name', ['classes.txt', 'labelmap.txt', 'label_names.txt'])
def test_lists_in_the_folders_of_masks_must_agree(first, second, wrong, name, tmp_path):
  """Sites, splits and examples that are exported one by one have lists of their own."""
  masks = [tmp_path / site / 'masks' / '0.png' for site in ('one', 'two')]
  for mask, text in zip(masks, (first, second), strict=True):
    mask.parent.mkdir(parents=True)
    (mask.parents[1] / name).write_text(text)
  assert class_places.find(tmp_path) == class_places.find(tmp_path, masks[:0]) == ''
  assert class_places.find(tmp_path, masks[1:]) == f'two/{name}'
  if wrong:
    with pytest.raises(UserError, match=f'one/{name} and .*two/{name} disagree on .*{wrong!r}'):
      class_places.find(tmp_path, masks)
    return
  assert class_places.find(tmp_path, masks) == f'one/{name}'
  (tmp_path / 'classes.txt').write_text(first)
  assert class_places.find(tmp_path, masks) == 'classes.txt'
