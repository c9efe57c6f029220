"""Published weights into our networks: read a file, translate its names, load it, report it."""

from jaxseg.pretrained.load import LoadReport, flatten, load_into, matches, open_weights
from jaxseg.pretrained.names import Converted, convert, pixels
from jaxseg.pretrained.readers import read

__all__ = [
  'Converted',
  'LoadReport',
  'convert',
  'flatten',
  'load_into',
  'matches',
  'open_weights',
  'pixels',
  'read',
]
