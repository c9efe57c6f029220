"""A report of a workdir that came from anybody: its page obeys nothing, and damage is told or left out."""

import html.parser
import json

import pytest

from jaxseg import report
from jaxseg.predict import result_file
from jaxseg.report import render
from jaxseg.train.run_folder import Classes
from jaxseg.train.writer import keep_lines, read_log, read_records
from jaxseg.types import UserError
from tests.tiny_runs import make_experiment, make_workdir

EVIL = '"/><meta http-equiv="refresh" content="0;url=http://evil"><script>alert(1)</script>'
GOOD = {'split': 'val', 'step': 1, 'images': 2, 'mode': '', 'mean_iou': 0.5}
TAGS = 'html head meta title link style body main footer'  # all that stand outside of the content


class Page(html.parser.HTMLParser):
  """Collects what a browser would act on."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.addresses, self.policies = [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.append(tag)
    self.addresses += [
      v for k, v in attrs.items() if k in ('src', 'href', 'action', 'data', 'poster')
    ]
    if tag == 'meta' and 'http-equiv' in attrs:
      self.policies.append((attrs['http-equiv'], attrs['content']))
    assert not [name for name in attrs if name.startswith('on') or name == 'style']


@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
  """A workdir whose every word is hostile where words may be anything."""
  classes = Classes((EVIL, '&amp;<b>', 'square', "'`${x}"), ((0, 0, 0), (1, 2, 3)) * 2)
  paper = {'source': EVIL, 'split': EVIL, 'mean_iou': 0.5}
  folder = tmp_path_factory.mktemp('runs') / 'a"><img src=x onerror=alert(1)>'
  path = make_workdir(folder, make_experiment(paper=paper), classes)
  facts = dict.fromkeys(('started', 'command', 'git', 'devices', 'hardware', 'system'), EVIL)
  (path / 'run.json').write_text(json.dumps(facts | {'versions': {EVIL: EVIL}}))
  (path / 'eval').mkdir()
  table = {name: 0.5 for name in classes.names}
  result = GOOD | {
    'mode': EVIL,
    'per_class_iou': table,
    EVIL: 0.1,
    f'by_{EVIL}': {EVIL: {EVIL: 1.0}},
  }
  result |= {'origin': EVIL, 'confusion': [[1, 2, 3, 4]] * 4}
  (path / 'eval' / f'val_{EVIL[:3]}.json'.replace('/', '')).write_text(json.dumps(result))
  lines = [json.dumps({'step': i, f'eval/{EVIL}': 0.1, 'eval/mean_iou': 0.2}) for i in range(3)]
  (path / 'metrics.jsonl').write_text('\n'.join(lines))
  return path


def test_a_page_has_no_tag_that_acts(hostile, tmp_path):
  for folders, name in (([hostile], 'one.html'), ([hostile, make_second(tmp_path)], 'two.html')):
    page = Page(report.write(folders, tmp_path / name, max_images=0).read_text(encoding='utf-8'))
    assert not {'script', 'iframe', 'object', 'embed', 'form', 'base', 'a'} & set(page.tags)
    assert all(address.startswith('data:') for address in page.addresses)
    [(kind, policy)] = page.policies
    assert kind == 'Content-Security-Policy' and policy.startswith("default-src 'none';")
    assert page.tags.count('meta') == 4 and page.tags.count('link') == 1


def make_second(folder):
  return make_workdir(folder / 'second', make_experiment())


@pytest.mark.parametrize('color', [(EVIL, 0, 0), (0, 0, '0)'), '<x>'])
def test_even_unchecked_colours_are_escaped(color):
  text = render._templates().from_string(
    "{% from 'parts.html' import named %}{{ named(name, color) }}"
  )
  page = Page(text.render(name=EVIL, color=color))
  assert page.tags == ['span', 'svg', 'rect', 'span']


def test_damaged_lines_are_left_out_and_told(tmp_path):
  run = make_second(tmp_path)
  good = [b'{"step": 1, "eval/mean_iou": 0.25}', b'{"step": 2, "eval/mean_iou": 0.5}']
  bad = [
    b'{"step": 3, "eval/mean_iou": 0.\xff}',
    b'{"step": 3, "eval/mean_iou": NaN}',
    b'{"step": 3, "eval/mean_iou": 1e999}',
    b'{"step": 3, "eval/mean_iou": "0.9"}',
    b'{"step": 3, "eval/mean_iou": true}',
    b'{"step": 3.5}',
    b'{"step": -1}',
    b'{"step": 1' + b'0' * 400 + b'}',
    b'{"eval/mean_iou": 0.9}',
    b'[]',
    b'null',
    b'',
    b'[' * 5000,
    b'{"step": 4, "eval/mean_iou": 0',
  ]
  (run / 'metrics.jsonl').write_bytes(b'\n'.join([good[0], *bad[:7], good[1], *bad[7:]]))
  assert read_log(run) == ([json.loads(line) for line in good], len(bad))
  page = report.write([run], max_images=0).read_text(encoding='utf-8')
  assert f'{len(bad)} damaged lines are left out' in page
  keep_lines(run / 'metrics.jsonl', 1)
  assert (run / 'metrics.jsonl').read_bytes() == good[0] + b'\n'
  assert read_records(tmp_path) == []


@pytest.mark.parametrize(
  'change',
  [
    {'step': None},
    {'step': '1'},
    {'step': 1 << 70},
    {'images': -1},
    {'split': 3},
    {'mode': ['x']},
    {'confusion': [[1, 2], [3]]},
    {'confusion': [[1, -2], [3, 4]]},
    {'confusion': [[1.5]]},
    {'confusion': {'a': 1}},
    {'mean_iou': float('nan')},
    {'confusion': [[1, 2], [3, 4]]},  # of two classes, and the run has four
    {'by_camera': {'a': 0.5}},
    {'by_camera': {'a': {'iou': [0.5]}}},
    {'by_camera': {'a': {'iou': 10**400}}},
    {'by_camera': ['a']},
    {'reliability': {'confidence': [0.5], 'accuracy': [0.5]}},
    {'reliability': {'confidence': [0.5], 'accuracy': [0.5, 1], 'share': [1]}},
    {'reliability': {'confidence': ['0.5'], 'accuracy': [0.5], 'share': [1]}},
    {'reliability': 'high'},
    {'risk_coverage': {'coverage': [], 'risk': []}},
    {'risk_coverage': {'coverage': [1.0], 'risk': [{}]}},
  ],
)
def test_a_damaged_evaluation_is_one_line(change, hostile, tmp_path):
  run = make_second(tmp_path)
  (run / 'eval').mkdir()
  (run / 'eval' / 'val.json').write_text(json.dumps(GOOD | change))
  with pytest.raises(UserError, match=r'eval/val\.json .*'):
    report.collect(run)
  for text in ('null', '[]', '{', '{"step": 1, "x": [[[NaN]]]}'):
    (run / 'eval' / 'val.json').write_text(text)
    with pytest.raises(UserError, match=r'val\.json'):
      result_file.read(run / 'eval' / 'val.json')


def test_a_good_evaluation_is_read_as_it_is(tmp_path):
  more = {'curve': {'x': [0.5, 1, None]}, 'by_camera': {'a': {'iou': 0.1, 'images': 3}}}
  saved = GOOD | {
    'confusion': [[1, 2], [3, 4]],
    'paper': {'source': 'x'},
    'runs': ['a', 'b'],
    'reliability': {'confidence': [0.5, 1], 'accuracy': [0.5, 0], 'share': [0.25, 0.75]},
    'risk_coverage': {'coverage': [1.0], 'risk': [0.5]},
    **more,
  }
  (tmp_path / 'val.json').write_text(json.dumps(saved))
  assert result_file.read(tmp_path / 'val.json') == saved
