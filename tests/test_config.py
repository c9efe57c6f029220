"""Variants, overrides, and what a user reads after a mistake."""

import importlib.util
import py_compile
from pathlib import Path

import pytest

from jaxseg import config as configs
from jaxseg.types import UserError

ROOT = Path(__file__).resolve().parent.parent
SHAPES = str(ROOT / 'configs' / 'unet_shapes.py')


def test_variants_are_flags_and_values():
  chosen = configs.variants('nvidia,fold=3', nvidia=False, small=False, fold=0)
  assert (chosen.nvidia, chosen.small, chosen.fold) == (True, False, 3)
  assert configs.variants(None, small=False).small is False


@pytest.mark.parametrize('text', ['smal', 'fold', 'small=1', 'fold=x'])
def test_a_wrong_variant_names_the_right_ones(text):
  with pytest.raises(UserError, match='small|fold'):
    configs.variants(text, small=False, fold=0)


# --- flags


def overridden(*assignments):
  return configs.plain(configs.load(SHAPES, assignments))


@pytest.mark.parametrize(
  ('assignment', 'key', 'value'),
  [
    ('num_steps=7', 'num_steps', 7),
    ('deterministic=true', 'deterministic', True),
    ('dtype=bfloat16', 'dtype', 'bfloat16'),
    ('data_dir=a=b', 'data_dir', 'a=b'),
    ('cache_dir=7', 'cache_dir', '7'),
    ('paper=None', 'paper', None),
  ],
)
def test_a_setting_takes_the_type_that_it_has(assignment, key, value):
  config = overridden(assignment)
  assert config[key] == value and type(config[key]) is type(value)


def test_options_of_groups():
  config = overridden(
    'model.width=8',
    'model.remat=True',
    'optim.learning_rate=1',
    'data.options.size=32,48',
    'eval.score.f_scores.Roads=2',
    'eval.score.f_scores.Roads=0.5',
    'init.new=score_.*,conv1',
  )
  assert config['model']['width'] == 8 and config['model']['remat'] is True
  assert config['model']['depth'] == 3  # as the file has it
  assert config['optim']['learning_rate'] == 1
  assert config['data']['options'] == {'size': (32, 48)}
  assert config['eval']['score'] == {'f_scores': {'Roads': 0.5}}
  assert config['init'] == {'new': 'score_.*,conv1'}  # the receiver splits words


def test_a_word_for_a_whole_group_names_its_part():
  config = overridden('model=segnet', 'model.bayesian=True', 'optim=sgd')
  assert config['model'] == {'name': 'segnet', 'bayesian': True}
  assert config['optim'] == {'name': 'sgd'}


STEPS = (('crop', {'size': (64, 64)}), ('flip', {}))


@pytest.mark.parametrize(
  ('assignments', 'steps'),
  [
    (['flip.vertical=True'], (STEPS[0], ('flip', {'vertical': True}))),
    (['crop.size=32,48'], (('crop', {'size': (32, 48)}), STEPS[1])),
    (['crop=False'], (STEPS[1],)),
    (['flip=True'], STEPS),
    (['rotate90=True'], (*STEPS, ('rotate90', {}))),
    (['blur.share=0.5', 'flip=false'], (STEPS[0], ('blur', {'share': 0.5}))),
    (['pad.size=9,9', 'pad.label=0'], (*STEPS, ('pad', {'size': (9, 9), 'label': 0}))),
  ],
)
def test_transforms_are_changed_added_and_taken_out(assignments, steps):
  config = configs.base()
  config.augment = STEPS
  for assignment in assignments:
    configs.override(config, f'augment.{assignment}')
  assert configs.plain(config.augment) == steps
  assert STEPS == (('crop', {'size': (64, 64)}), ('flip', {}))  # the file's own stay


def test_all_transforms_are_taken_out():
  assert overridden('augment=()')['augment'] == ()


@pytest.mark.parametrize(
  ('assignment', 'message'),
  [
    ('num_step=1', "unknown config key 'num_step'; did you mean 'num_steps'"),
    ('optm.name=sgd', "unknown config key 'optm.name'; did you mean 'optim'"),
    ('num_steps=many', "--config.num_steps='many': expected a whole number, as in 1000"),
    ('num_steps=7.5', 'expected a whole number'),
    ('deterministic=maybe', 'expected true or false'),
    ('num_steps=0', 'config.num_steps=0: must be at least 1'),
    ('seed=-1', 'config.seed=-1: must be at least 0'),
    ('num_steps', '--config.num_steps needs a value'),
    ('dtype=float16', "--config.dtype='float16': choose one of float32, bfloat16"),
    ('accumulate=3', 'config.batch_size=16 does not divide into accumulate=3 parts'),
    ('model=3', "'model' is a group: set one of its keys, --config.model.NAME=value"),
    ('eval=zero', "'eval' is a group"),
    ('model.width.x=3', "'width' is no group"),
    ('optim.learning_rate=True', 'optim.learning_rate=True: expected a number, as in 0.00'),
    ('augment=flip', '--config.augment=flip: name a transform, as in --config.augment.flip=True'),
    ('augment.flip=maybe', '--config.augment.flip=maybe: switch it with True or False'),
    ('augment.crop.size.x=3', '--config.augment.crop.ARGUMENT=value'),
    # keys that had another place in version 0.1
    ('learning_rate=1', "unknown config key 'learning_rate': it is now optim.learning_rate"),
    ('model_options.width=3', "'model_options.width': it is now model.width"),
    ('dataset_options.size=3', 'it is now data.options.size'),
    ('dataset=camvid', 'it is now data.name'),
    ('crop=64,64', 'it is now augment.crop.size'),
    ('vertical_flip=True', 'it is now augment.flip.vertical'),
    ('class_weights=1,2', 'it is now loss.class_weights'),
    ('min_area=3', 'it is now loss.min_area'),
    ('absent=zero', 'it is now eval.score.absent'),
    ('seg=True', "it is now eval.scores=('seg',)"),
    ('channels=1', 'it is now given by the number of values of data.mean'),
  ],
)
def test_a_mistake_is_one_line(assignment, message):
  with pytest.raises(UserError) as error:
    configs.load(SHAPES, [assignment])
  assert message in str(error.value) and '\n' not in str(error.value)


# --- files


def written(folder, body):
  file = folder / 'own.py'
  file.write_text(f'from jaxseg.config import base\n\n\ndef get_config(variant=None):\n{body}')
  return str(file)


def test_a_missing_config_names_a_near_one():
  with pytest.raises(UserError, match='unet_shapes.py'):
    configs.load(SHAPES.replace('shapes', 'shape'))


@pytest.mark.parametrize(
  ('body', 'message'),
  [
    ('  return missing\n', "own.py, line 5: NameError: name 'missing' is not defined"),
    ('  return 3\n', 'get_config returned 3: return what jaxseg.config.base() gave'),
    ('  c = base()\n  c.optm = 1\n  return c\n', "key 'optm'; did you mean 'optim'"),
    ('  c = base()\n  c.crop = 1, 1\n  return c\n', "key 'crop': it is now augment.crop.size"),
    ('  c = base()\n  c.model = "unet"\n  return c\n', "config.model='unet': expected a group"),
    ('  c = base()\n  del c.log\n  return c\n', "no group 'log'"),
    ('  c = base()\n  c.seed = 0.5\n  return c\n', 'config.seed=0.5: expected a whole number'),
  ],
)
def test_a_broken_config_is_answered_in_one_line(body, message, tmp_path):
  with pytest.raises(UserError) as error:
    configs.load(written(tmp_path, body))
  assert message in str(error.value) and '\n' not in str(error.value)


def test_a_config_is_locked():
  with pytest.raises(AttributeError):
    configs.load(SHAPES).new_key = 1


def test_the_keys_of_a_config_one_by_one():
  """Of transforms their order too, and of two alike each."""
  steps = (('light', {'gain': 1}), ('flip', {}), ('light', {'gain': 2}))
  config = {'seed': 0, 'data': {'options': {'size': 8}, 'empty': {}}, 'augment': steps}
  assert configs.flattened(config) == {
    'seed': 0,
    'data.options.size': 8,
    'augment': ('light', 'flip', 'light'),
    'augment.light.gain': 1,
    'augment.light.2.gain': 2,
  }


@pytest.mark.parametrize('augment', [('flip',), (('flip',),), (('flip', 3),)])
def test_transforms_that_are_no_pairs(augment):
  config = configs.base()
  config.augment = augment
  with pytest.raises(UserError, match=r'config.augment: give \(name, dict\(...\)\) for each'):
    configs.settings(configs.plain(config))


def test_a_path_may_hold_colons(tmp_path):
  folder = tmp_path / 'a:b'
  folder.mkdir()
  body = "  c = base()\n  c.seed = 7 if variant == 'x,y' else 1\n  return c\n"
  path = written(folder, body)
  assert configs.load(path).seed == 1 and configs.load(f'{path}:x,y').seed == 7
  (folder / 'own.py').rename(folder / 'own:x.py')
  assert configs.load(f'{folder}/own:x.py').seed == 1
  with pytest.raises(UserError, match='no config file'):
    configs.load(f'{folder}/gone.py:x')


def test_a_config_needs_no_ending(tmp_path):
  path = written(tmp_path, '  return base()\n')
  (tmp_path / 'own.py').rename(tmp_path / 'recipe')
  assert configs.load(path.removesuffix('own.py') + 'recipe').seed == 0


def test_a_config_is_its_text_whatever_bytecode_lies_beside_it(tmp_path):
  path = written(tmp_path, '  return base()\n')
  bytecode = Path(importlib.util.cache_from_source(path))
  bytecode.parent.mkdir()
  (tmp_path / 'other.py').write_text("raise SystemExit('the bytecode ran')")
  unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
  py_compile.compile(str(tmp_path / 'other.py'), str(bytecode), invalidation_mode=unchecked)
  assert configs.load(path).seed == 0
  bytecode.unlink()
  configs.load(path)
  assert not bytecode.exists()


@pytest.mark.parametrize(
  'spec', ['', ':', '*', 'u*', '[', '\x00', 'a' * 5000, 'x/' * 3000, '/', '..', 'configs', ':smoke']
)
def test_a_config_that_is_no_file(spec):
  with pytest.raises(UserError, match='no config file') as error:
    configs.load(spec)
  assert '\n' not in str(error.value)
