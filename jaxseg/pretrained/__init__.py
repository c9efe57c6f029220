"""Published weights into our networks: read a file, translate its names, load it, report it."""

from jaxseg.pretrained.load import Report, flatten, load_file, load_into, matches
from jaxseg.pretrained.names import Converted, convert
from jaxseg.pretrained.readers import read

__all__ = [
  'Converted',
  'Report',
  'convert',
  'flatten',
  'load_file',
  'load_into',
  'matches',
  'read',
]
