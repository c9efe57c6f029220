"""load_into: everything matches or the surprise is named; values, dtypes and patterns by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import pretrained
from jaxseg.types import UserError


def network():
  """A backbone's convolution with batch norm, and a head."""
  return {
    'params': {
      'conv1_1': {'kernel': jnp.zeros((1, 1, 2, 2)), 'bias': jnp.zeros(2)},
      'bn1_1': {'scale': jnp.ones(2), 'bias': jnp.zeros(2)},
      'score_fr': {'kernel': jnp.full((1, 1, 2, 3), 0.5), 'bias': jnp.full(3, 0.25)},
    },
    'batch_stats': {'bn1_1': {'mean': jnp.zeros(2), 'var': jnp.ones(2)}},
  }


def tensors(**changes):
  given = {
    'params/conv1_1/kernel': np.array([[[[1, 2], [3, 4]]]], np.float16),
    'params/conv1_1/bias': np.array([5, 6], np.float32),
    'params/bn1_1/scale': np.array([7, 8], np.float64),
    'params/bn1_1/bias': np.array([9, 10], np.float32),
    'params/score_fr/kernel': np.ones((1, 1, 2, 3), np.float32),
    'params/score_fr/bias': np.ones(3, np.float32),
    'batch_stats/bn1_1/mean': np.array([11, 12], np.float32),
    'batch_stats/bn1_1/var': np.array([13, 14], np.float32),
  }
  for name, values in changes.items():
    given[name.replace('__', '/')] = values
  return {name: values for name, values in given.items() if values is not None}


def test_everything_matches():
  before = network()
  loaded, report = pretrained.load_into(before, tensors())
  assert loaded['params']['conv1_1']['kernel'].tolist() == [[[[1, 2], [3, 4]]]]
  assert loaded['params']['bn1_1']['scale'].tolist() == [7, 8]
  assert loaded['batch_stats']['bn1_1']['var'].tolist() == [13, 14]
  assert {a.dtype for a in jax.tree.leaves(loaded)} == {np.dtype(np.float32)}
  assert jax.tree.structure(loaded) == jax.tree.structure(before)
  assert float(before['params']['conv1_1']['bias'].sum()) == 0  # not written to
  assert len(report.matched) == 8 and report.num_problems == 0 and not report.new
  assert report.matched['params/conv1_1/kernel'] == (1, 1, 2, 2)
  assert str(report).startswith('weights: 8 matched, 0 new, 0 unused')


def test_a_missing_name():
  given = tensors(params__bn1_1__scale=None)
  with pytest.raises(UserError, match=r'1 missing in the weights: params/bn1_1/scale \(2,\)'):
    pretrained.load_into(network(), given)
  loaded, report = pretrained.load_into(network(), given, allow_new=['bn1_1/scale'])
  assert loaded['params']['bn1_1']['scale'].tolist() == [1, 1]
  assert report.new == {'params/bn1_1/scale': (2,)} and len(report.matched) == 7


def test_an_unexpected_name():
  given = tensors(params__fc8__bias=np.zeros(1000))
  with pytest.raises(UserError, match=r'1 unknown to the network: params/fc8/bias \(1000,\)'):
    pretrained.load_into(network(), given)
  _, report = pretrained.load_into(network(), given, allow_unused=['fc8'])
  assert report.unused == {'params/fc8/bias': (1000,)}
  assert 'unused params/fc8/bias (1000,)' in str(report)


def test_another_shape():
  given = tensors(params__score_fr__bias=np.zeros(21))
  pattern = r'1 of another shape: params/score_fr/bias \(21,\) where the network has \(3,\)'
  with pytest.raises(UserError, match=pattern):
    pretrained.load_into(network(), given)


def test_what_is_new_is_never_loaded():
  """Even where the weights have it, of the right shape or not: a fresh head is a fresh head."""
  given = tensors(params__score_fr__bias=np.zeros(21))
  loaded, report = pretrained.load_into(network(), given, allow_new=('score_.*',))
  assert loaded['params']['score_fr']['kernel'].tolist() == np.full((1, 1, 2, 3), 0.5).tolist()
  assert loaded['params']['score_fr']['bias'].tolist() == [0.25] * 3
  assert set(report.new) == {'params/score_fr/kernel', 'params/score_fr/bias'}
  assert set(report.unused) == set(report.new)


@pytest.mark.parametrize(
  'pattern, count',
  [
    ('score_fr', 2),
    ('score_fr/bias', 1),
    ('params/score_fr', 2),
    ('params/score_fr/bias', 1),
    ('bn1_1', 4),
    ('params/bn1_1', 2),
    ('(bn|score).*', 6),
    ('.*/bias', 3),
  ],
)
def test_patterns(pattern, count):
  _, report = pretrained.load_into(network(), tensors(), allow_new=(pattern,))
  assert len(report.new) == count


@pytest.mark.parametrize(
  'patterns, message',
  [
    (('score',), 'network has no such name; its layers are bn1_1, conv1_1, score_fr'),
    (('bias',), 'no such name'),
    (('(',), 'no regular expression'),
    ('score_fr', 'give a tuple'),
  ],
)
def test_patterns_that_cannot_be_meant(patterns, message):
  with pytest.raises(UserError, match=message):
    pretrained.load_into(network(), tensors(), allow_new=patterns)


def test_values_that_are_not_finite():
  with pytest.raises(UserError, match='params/conv1_1/bias holds values that are not finite'):
    pretrained.load_into(network(), tensors(params__conv1_1__bias=np.array([1, np.nan])))
  with pytest.raises(UserError, match='not finite'):  # finite in the file, not in the network
    pretrained.load_into(network(), tensors(params__conv1_1__bias=np.array([1, 1e300])))


def test_long_complaints_are_cut():
  given = {f'params/other{i}/bias': np.zeros(1) for i in range(20)}
  with pytest.raises(UserError) as caught:
    pretrained.load_into(network(), given)
  message = str(caught.value)
  assert '8 missing' in message and '20 unknown' in message and 'and 14 more' in message
  assert '\n' not in message and 'config.init.new' in message


def test_another_runs_variables_are_flattened_and_loaded():
  other = jax.tree.map(lambda a: a + 1, network())
  flat = pretrained.flatten(other)
  assert flat['batch_stats/bn1_1/mean'].tolist() == [1, 1]
  loaded, _ = pretrained.load_into(network(), flat)
  assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), loaded, other))


def test_abstract_variables_fill_up():
  loaded, _ = pretrained.load_into(jax.eval_shape(network), tensors())
  assert loaded['params']['conv1_1']['bias'].tolist() == [5, 6]
