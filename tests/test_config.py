"""Variants, overrides, and what a user reads after a mistake."""

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


@pytest.mark.parametrize(
  ('assignment', 'key', 'value'),
  [
    ('num_steps=7', 'num_steps', 7),
    ('learning_rate=1', 'learning_rate', 1.0),
    ('flip=false', 'flip', False),
    ('crop=64,48', 'crop', (64, 48)),
    ('crop=()', 'crop', ()),
    ('dtype=bfloat16', 'dtype', 'bfloat16'),
    ('class_weights=median_frequency', 'class_weights', 'median_frequency'),
    ('class_weights=1,2,3,4', 'class_weights', (1, 2, 3, 4)),
    ('data_dir=a=b', 'data_dir', 'a=b'),
  ],
)
def test_overrides_take_the_type_of_the_key(assignment, key, value):
  config = configs.load(SHAPES, [assignment])
  assert config[key] == value and type(config[key]) is type(value)


def test_an_option_of_a_group_can_be_set_and_added():
  config = configs.load(SHAPES, ['model_options.width=8', 'model_options.remat=True'])
  assert config.model_options.width == 8 and config.model_options.remat is True


@pytest.mark.parametrize(
  ('assignment', 'message'),
  [
    ('lerning_rate=1', "unknown config key 'lerning_rate'; did you mean 'learning_rate'"),
    ('num_steps=many', 'expected a value of type int'),
    ('flip=maybe', 'expected true or false'),
    ('num_steps=0', 'must be at least 1'),
    ('num_steps', 'needs a value'),
    ('model_options=3', 'is a group'),
    ('modle_options.width=3', "did you mean 'model_options'"),
    ('dtype=float16', 'choose one of float32, bfloat16'),
    ('mean=1,2', 'one value for each of 3 channels'),
    ('class_weights=1,2', '2 values for 4 classes'),
    ('class_weights=median', 'median_frequency'),
    ('loss=sigmoid', 'for 2 classes, not 4'),
    ('accumulate=3', 'does not divide'),
    ('crop=64', 'height, width'),
  ],
)
def test_a_mistake_is_one_line(assignment, message):
  with pytest.raises(UserError) as error:
    configs.load(SHAPES, [assignment])
  assert message in str(error.value) and '\n' not in str(error.value)


def test_a_missing_config_names_a_near_one():
  with pytest.raises(UserError, match='unet_shapes.py'):
    configs.load(SHAPES.replace('shapes', 'shape'))


def test_a_broken_config_is_told_in_one_line(tmp_path):
  (tmp_path / 'broken.py').write_text('def get_config(variant): return missing\n')
  with pytest.raises(UserError, match='NameError'):
    configs.load(str(tmp_path / 'broken.py'))


def test_json_keeps_everything():
  config = configs.load(str(ROOT / 'configs' / 'segnet_camvid.py') + ':basic')
  again = configs.from_json(configs.to_json(config))
  assert configs.to_json(again) == configs.to_json(config)
  assert again.class_weights == config.class_weights and isinstance(again.multipliers[0], tuple)


def test_a_config_is_locked():
  with pytest.raises(AttributeError):
    configs.load(SHAPES).new_key = 1


def test_differences_name_what_matters():
  old, new = configs.load(SHAPES), configs.load(SHAPES, ['seed=1', 'log_every=5', 'parallel=mesh'])
  assert configs.differences(old, new) == {'seed': (0, 1)}
  longer = configs.load(SHAPES, ['num_steps=999'])
  assert configs.differences(old, longer) == {'num_steps': (180, 999)}  # the cosine would change
  constant = [configs.load(SHAPES, ['schedule=constant', f'num_steps={n}']) for n in (10, 20)]
  assert configs.differences(*constant) == {}
