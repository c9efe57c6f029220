"""What `import jaxseg` gives: names of what there is, configs, training and prediction."""

import numpy as np
import pytest

import jaxseg
from jaxseg.types import UserError


def test_what_there_is_has_names():
  assert {'fcn', 'mask_rcnn', 'pspnet', 'segnet', 'unet'} == set(jaxseg.list_models())
  assert {'camvid', 'folder', 'objects', 'voc'} <= set(jaxseg.list_datasets())
  configs = jaxseg.list_configs()
  assert configs['segnet_camvid'] == ('basic', 'paper', 'bayesian', 'small', 'smoke')
  assert 'fold=...' in configs['unet_isbi2012']


def test_a_config_is_trained_and_its_run_predicts(tmp_path):
  """`jaxseg.train` is a package, and is called."""
  config = jaxseg.load_config(
    'unet_shapes:smoke', 'model.width=2', 'model.depth=1', 'data.options.size=16', num_steps=2,
    cpu_devices=1, compile_cache='',
  )  # fmt: skip
  summary = jaxseg.train(config, tmp_path / 'run', report=False)
  assert 0 <= summary['mean_iou'] <= 1
  mask = jaxseg.load(tmp_path / 'run')(np.zeros((16, 16, 3), np.uint8))
  assert mask.shape == (16, 16)
  with pytest.raises(UserError, match="did you mean 'num_steps'"):
    jaxseg.load_config('unet_shapes', num_step=3)
