"""Exports of somebody else's, renewed: nothing that they name is run, nothing that they claim is believed."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxseg.export import write
from jaxseg.export.read import read_export
from jaxseg.types import UserError
from tests import tiny_runs
from tests.test_launch import launch


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  folder = tmp_path_factory.mktemp('received')
  workdir = tiny_runs.make_workdir(folder / 'run', tiny_runs.make_experiment())
  write.export_workdir(workdir, folder / 'exported')
  return folder / 'exported'


def changed(exported, folder, change):
  """Copies an export with another card."""
  folder = shutil.copytree(exported, folder)
  card = json.loads((folder / 'card.json').read_text())
  change(card)
  (folder / 'card.json').write_text(json.dumps(card))
  return folder


OWN = {
  'task': lambda c: c.update(task='strange.task'),
  'model': lambda c: c['model'].update(name='strange.net'),
  'data': lambda c: c['data'].update(name='strange.data'),
  'loss': lambda c: c['loss'].update(name='strange.loss'),
  'augment': lambda c: c.update(augment=[['strange.Turn', {}]]),
  'scores': lambda c: c['eval'].update(scores=['strange.score']),
}


@pytest.mark.parametrize('part', OWN)
def test_it_imports_nothing(part, exported, tmp_path, monkeypatch, capsys):
  (tmp_path / 'strange.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
  monkeypatch.syspath_prepend(tmp_path)
  folder = changed(exported, tmp_path / 'e', lambda card: OWN[part](card['config']))
  before = {p.name: p.read_bytes() for p in folder.iterdir()}
  with pytest.raises(SystemExit) as stop:
    launch('export', f'--renew={folder}')
  error = capsys.readouterr().err
  assert stop.value.code == 2 and 'names code outside jaxseg (strange.' in error
  assert error.count('\n') == 1 and not (tmp_path / 'ran').exists()
  assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def _everywhere(shape):
  return lambda card: [entry.update(shape=shape) for entry in card['programs']]


CARDS = [
  (lambda c: c.pop('config'), 'is of another format'),
  (lambda c: c.update(format='jaxseg export, version 99'), 'another format .*version 99'),
  (lambda c: c.update(config=[]), 'is not as it was written'),
  (lambda c: c['config'].pop('model'), "the config has no group 'model'"),
  (lambda c: c.pop('programs'), "KeyError 'programs'"),
  (lambda c: c.update(programs=[]), 'no program has a fixed size'),
  (lambda c: c.update(programs=[3]), 'TypeError'),
  (_everywhere(['b', 'h', 'w', 3]), 'no program has a fixed size'),
  (_everywhere([1, 0, 9, 3]), 'a program for 0 x 9 pixels'),
  (_everywhere([1, 10**9, 10**9, 3]), r'1000000000 pixels; at most 16,777,216'),
  (_everywhere([1, 9, 3]), 'not enough values'),
  (lambda c: c.update(classes=[]), 'the names of the classes must be words'),
  (lambda c: c.update(classes=c['classes'][1:]), r'3 classes, 4 in its config'),
  (lambda c: c['classes'][0].update(color=[0, 0, 256]), 'three whole numbers from 0 to 255'),
  (lambda c: c.update(temperature=0), 'temperature 0: above 0'),
  (lambda c: c.update(temperature='1'), "temperature '1': above 0"),
  (lambda c: c.update(trained={}), "KeyError 'step'"),
  (lambda c: c.update(metrics=3), 'TypeError'),
  (lambda c: c.update(weights='none'), 'none'),
]


@pytest.mark.parametrize(('change', 'message'), CARDS)
def test_what_a_card_claims_is_checked(change, message, exported, tmp_path):
  folder = changed(exported, tmp_path / 'e', change)
  with pytest.raises((UserError, FileNotFoundError), match=message):
    read_export(folder, None)


WEIGHTS = {
  'gone': lambda w: w.pop(min(w)),
  'other': lambda w: w.update({'params/x/kernel': np.zeros(3, np.float32)}),
  'shape': lambda w: w.update({min(w): np.zeros((9, 9), np.float32)}),
  'nan': lambda w: w.update({min(w): w[min(w)] * np.nan}),
}


@pytest.mark.parametrize('kind', WEIGHTS)
def test_its_weights_are_those_of_the_network(kind, exported, tmp_path):
  folder = shutil.copytree(exported, tmp_path / 'e')
  weights = load_file(folder / 'weights.safetensors')
  WEIGHTS[kind](weights)
  save_file(weights, folder / 'weights.safetensors')
  with pytest.raises(UserError, match=r"safetensors does not hold the card's network"):
    read_export(folder, None)
  (folder / 'weights.safetensors').write_bytes(b'broken')
  with pytest.raises(UserError, match=r"safetensors does not hold the card's network"):
    read_export(folder, None)


def test_an_asked_size_goes_before_the_cards(exported):
  assert read_export(exported, (9, 7)).size == (9, 7)
  assert read_export(exported, None).size == tuple(
    next(
      e['shape'][1:3]
      for e in json.loads((exported / 'card.json').read_text())['programs']
      if type(e['shape'][1]) is int
    )
  )
