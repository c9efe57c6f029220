"""Published weights into our networks: read a file, translate its names, load it, report it."""

from jaxseg.nn.preprocessing import Preprocessing
from jaxseg.pretrained.conversion import Converted, convert
from jaxseg.pretrained.load import Report, flatten, load_file, load_into, matches
from jaxseg.pretrained.reader import read

__all__ = [
  'Converted',
  'Preprocessing',
  'Report',
  'convert',
  'flatten',
  'load_file',
  'load_into',
  'matches',
  'read',
]
