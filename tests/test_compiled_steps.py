"""Steps compiled with options of XLA: which, and that a step with some is the step without."""

import types

import jax
import numpy as np
import pytest

from jaxseg.train.devices import compiled, parallel

HARMLESS = {'xla_embed_ir_in_executable': False}


def chips(platform):
  return [types.SimpleNamespace(platform=platform)]


@pytest.mark.parametrize(
  ('platform', 'images', 'given', 'told'),
  [
    ('tpu', 1, '', False),
    ('tpu', 2, '', True),
    ('tpu', 7, '', True),
    ('tpu', 8, '', False),
    ('cpu', 2, '', False),
    ('gpu', 2, '', False),
    ('tpu', 2, '--xla_a=1', True),
    ('tpu', 2, '--xla_tpu_run_space_to_batch=true', False),  # the user has chosen
  ],
)
def test_a_tpu_keeps_two_to_seven_images_whole(platform, images, given, told, monkeypatch):
  monkeypatch.setenv('LIBTPU_INIT_ARGS', given)
  options = compiled.options(chips(platform), images)
  assert bool(options) == told and not any(options.values())


def test_images_are_those_of_a_device(monkeypatch):
  asked = []
  monkeypatch.setattr(compiled, 'options', lambda devices, images: asked.append(images) or {})
  for kind, mesh in (('pmap', ''), ('mesh', ''), ('mesh', 'data:1'), ('mesh', 'data:1,spatial:2')):
    parallel.build(kind, mesh, 6, jax.devices()[:2])
  assert asked == [3, 3, 6, 6]


def step(state, batch):
  total = state + batch['image'].sum()
  return total, {'loss': total * 2}


@pytest.mark.parametrize('kind', ['pmap', 'mesh'])
def test_a_step_with_options_is_the_step_without(kind, capsys):
  def run(options, images):
    wrapper = parallel.build(kind, '', 4, jax.devices()[:2])
    wrapper = type(wrapper)(wrapper.devices if kind == 'pmap' else wrapper.mesh, options)
    wrapped = wrapper.wrap_eval(lambda state, batch: step(state, batch)[1])
    return [wrapped(np.float32(1), wrapper.place_batch({'image': np.ones((n, 2))})) for n in images]

  expected = run({}, (4, 2))
  for options in (HARMLESS, {'no_such_option': 1}):
    found = run(options, (4, 2, 4))  # another shape is another program
    assert [float(np.ravel(f['loss'])[0]) for f in found[:2]] == [
      float(np.ravel(e['loss'])[0]) for e in expected
    ]
    assert float(np.ravel(found[2]['loss'])[0]) == float(np.ravel(found[0]['loss'])[0])
    unknown = 'compiler  does not know all of no_such_option: its defaults are taken'
    assert (unknown in capsys.readouterr().out) == ('no_such_option' in options)


@pytest.mark.parametrize('kind', ['pmap', 'mesh'])
def test_a_training_step_with_options_gives_its_state_away(kind):
  wrapper = parallel.build(kind, '', 4, jax.devices()[:2])
  wrapper = type(wrapper)(wrapper.devices if kind == 'pmap' else wrapper.mesh, HARMLESS)
  wrapped = wrapper.wrap_train(lambda state, batch, key: step(state, batch))
  state, key = wrapper.place_state(np.ones((64, 64), np.float32)), jax.random.key(0)
  batch = wrapper.place_batch({'image': np.ones((4, 2), np.float32)})
  after, metrics = wrapped(state, batch, key)
  # pmap's step sees the images of a device, the mesh's all
  assert state.is_deleted() and float(after[0, 0]) == (5 if kind == 'pmap' else 9)
  assert wrapped(after, batch, key)[0].shape == (64, 64)
