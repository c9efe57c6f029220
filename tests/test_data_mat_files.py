"""MATLAB's files: what scipy writes is read, whatever it is packed in, and damage ends in a ValueError."""

import io

import numpy as np
import pytest
import scipy.io

from jaxseg.data.mat_files import read_matrix

NAMES = ('GTcls', 'Segmentation')
SEGMENTATION = np.arange(30, dtype=np.uint8).reshape(5, 6)


def written(segmentation=SEGMENTATION, **options):
  """As SBD has it: sparse boundaries first, then the matrix, then a list."""
  boundaries = np.empty((2, 1), object)
  boundaries[:, 0] = [scipy.sparse.csc_matrix(np.eye(3)), np.zeros((0, 0))]
  content = dict(
    Boundaries=boundaries, Segmentation=segmentation, CategoriesPresent=np.array([3, 4])
  )
  file = io.BytesIO()
  scipy.io.savemat(file, {'other': np.arange(3), 'GTcls': content}, **options)
  return file.getvalue()


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('dtype', [np.uint8, np.int16, np.uint16, np.float64])
def test_read_as_scipy_reads(compressed, dtype):
  data = written(SEGMENTATION.astype(dtype), do_compression=compressed)
  found = read_matrix(data, NAMES)
  np.testing.assert_array_equal(found, SEGMENTATION)
  theirs = scipy.io.loadmat(io.BytesIO(data))['GTcls'][0]['Segmentation'][0]
  assert found.dtype == theirs.dtype and found.shape == theirs.shape == (5, 6)
  np.testing.assert_array_equal(read_matrix(data, ('other',)), [[0, 1, 2]])


def test_matrices_of_one_row_and_of_a_few_bytes():
  for shape in ((1, 1), (1, 3), (2, 2), (7, 1)):
    matrix = np.ones(shape, np.uint8)
    np.testing.assert_array_equal(read_matrix(written(matrix), NAMES), matrix)


def test_what_is_missing_is_told():
  data = written()
  for names, words in (
    (('GTinst',), 'no variable GTinst'),
    (('GTcls', 'Mask'), 'it has no Mask'),
    (('GTcls',), 'no matrix of numbers'),
    (('GTcls', 'Boundaries'), 'no matrix of numbers'),
    (('other', 'a'), 'other is no struct'),
  ):
    with pytest.raises(ValueError, match=words):
      read_matrix(data, names)
  for damaged in (b'', b'text', data[:100], data[:-20], data[:200]):
    with pytest.raises(ValueError):
      read_matrix(damaged, NAMES)


@pytest.mark.parametrize('compressed', [False, True])
def test_flipped_bits_never_end_the_process(compressed):
  data, rng = written(do_compression=compressed), np.random.default_rng(0)
  refused = 0
  for _ in range(2000):
    damaged = bytearray(data)
    damaged[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    try:
      read_matrix(bytes(damaged), NAMES)
    except ValueError:
      refused += 1
  assert refused > 200
