"""From a config to its parts: each group is checked by what receives it, and a saved config is complete."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxseg import config as configs
from jaxseg.data.transforms import Crop, Flip
from jaxseg.train import build
from jaxseg.types import UserError
from tests.tiny_runs import make_experiment

ROOT = Path(__file__).resolve().parent.parent


def test_the_parts_of_a_config():
  experiment = make_experiment(
    'augment.crop.size=16,24', 'augment.flip=True', 'optim.name=sgd', 'dtype=bfloat16'
  )
  crop, flip = experiment.transforms
  assert crop == Crop(size=(16, 24), fill=(128, 128, 128)) and flip == Flip()  # the mean's colour
  model = experiment.model('data')
  assert (model.width, model.num_classes, model.dtype) == (4, 4, np.dtype('bfloat16'))
  assert model.norm.keywords == {'axis_name': 'data'}
  assert experiment.optim.name == 'sgd' and experiment.task.num_classes == 4
  assert experiment.source('val').num_classes == 4


def test_a_saved_config_names_every_default_and_builds_the_same():
  experiment = make_experiment('augment.flip=True', 'eval.score.absent=zero')
  saved = json.loads(json.dumps(experiment.config))
  assert saved['model']['padding'] == 'same' and saved['optim']['momentum'] == 0.9
  assert saved['augment'] == [['flip', {'horizontal': True, 'vertical': False}]]
  again = build.experiment(saved)
  assert again == experiment and again.config == experiment.config


def test_another_network_is_chosen_with_its_own_options():
  segnet = make_experiment('model=segnet', 'model.width=4').config['model']
  assert segnet == make_experiment(model={'name': 'segnet', 'width': 4}).config['model']
  with pytest.raises(UserError) as refused:
    make_experiment('model.name=segnet')
  assert str(refused.value) == (
    'config.model.batch_norm: segnet has no such option, fcn has: --config.model=segnet takes that network '
    'without the options of another'
  )


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (['model.widht=3'], r"config.model.widht: no such option; .*did you mean 'width'\?"),
    (['model=unett'], r"no model 'unett': choose one of .*did you mean 'unet'\?"),
    (['data.options.sise=3'], r"config.data.options.sise: no such option; .*did you mean 'size'\?"),
    (['data.name=shape'], r"no dataset 'shape'.*did you mean 'shapes'\?"),
    (['optim.momentun=0'], r"config.optim.momentun: no such option; .*did you mean 'momentum'\?"),
    (['optim.name=adm'], "config.optim.name='adm': choose one of sgd, caffe_sgd, adam, adamw"),
    (['augment.flipp=True'], r"config.augment.flipp: no such transform; .*did you mean 'flip'\?"),
    (
      ['loss.normalise=sum'],
      r"config.loss.normalise: no such option; .*did you mean 'normalize'\?",
    ),
    (['loss.name=sigmoid'], "config.loss.name='sigmoid' is for 2 classes, got 4"),
    (['loss.class_weights=1,2'], '2 numbers for 4 classes'),
    (
      ['eval.scales=0'],
      r'config.eval.scales=\(0.0,\): one or more numbers, each between 0.01 and 16',
    ),
    (['eval.score.absent=no'], "config.eval.score.absent='no': choose one of skip, zero"),
    (['eval.short_side=64'], 'are only for tasks that tell objects apart'),
    (['log.every=0'], 'config.log.every=0: must be at least 1'),
    (['init.ignore=colour'], 'some of mean, std, channel_order, network'),
    (
      ['data.image_size=8,8', 'data.percentiles=1,99'],
      'contrast is that of the image before resizing, so use config.augment.resize',
    ),
    (
      ['data.image_size=8,8', 'augment.resize.scale=.5'],
      'leave out augment.resize, augment.short_side',
    ),
    (['data.std=1,0,1'], 'every value must be above 0'),
    (['data.mean=1,2'], 'one value for each of the 2 channels'),
    (['task=semantics'], r"no task 'semantics': .*did you mean 'semantic'\?"),
  ],
)
def test_a_mistake_is_one_line(overrides, message):
  with pytest.raises(UserError, match=message) as error:
    make_experiment(*overrides).source('val')
  assert '\n' not in str(error.value)


def test_classes_and_channels_are_compared_with_the_data():
  with pytest.raises(UserError, match='config.num_classes=3, but shapes has 4: add --config.num_'):
    make_experiment('num_classes=3').source('val')
  with pytest.raises(UserError, match='channels=1, but shapes has 3: give 3 values'):
    make_experiment('data.mean=1,', 'data.std=1,').source('val')


def test_class_weights_of_the_training_labels():
  """Median of the frequencies over each: the rarest class weighs most."""
  experiment = make_experiment('loss.class_weights=median_frequency')
  weights = experiment.task_for(experiment.source('train')).class_weights
  assert len(weights) == 4 and min(weights) < 1 < max(weights)
  assert make_experiment().task_for(None).class_weights is None


def test_what_evaluation_sees():
  experiment = make_experiment('eval.scales=0.5')
  frame = experiment.frame(experiment.model())
  assert frame.input((30, 40)) == (16, 20) and frame.canvas((30, 40)) == (32, 40)
  assert experiment.frame(experiment.model(), scale=1.0).input((30, 40)) == (32, 40)


def test_a_run_of_flat_keys_is_read(tmp_path):
  flat = {
    'model': 'unet',
    'model_options': {'width': 4, 'depth': 2, 'padding': 'same'},
    'dataset': 'shapes',
    'dataset_options': {'size': 32},
    'num_classes': 4,
    'channels': 3,
    'flip': True,
    'crop': [16, 16],
    'learning_rate': 0.5,
    'loss': 'softmax',
    'absent': 'zero',
    'seed': 3,
  }
  (tmp_path / 'config.json').write_text(json.dumps(flat))
  experiment = build.load_experiment(tmp_path)
  assert experiment.settings.seed == 3 and experiment.optim.learning_rate == 0.5
  assert experiment.transforms == (Crop(size=(16, 16), fill=(128, 128, 128)), Flip())
  assert experiment.config['eval']['score'] == {'absent': 'zero', 'f_scores': None}


def test_every_baseline_is_complete():
  config = configs.load(f'{ROOT}/configs/unet_shapes.py')
  assert set(build.experiment(config).config) == {*configs.GROUPS, *vars(configs.Settings())}
