"""Loads published weights into our networks: reads a file, translates its names and reports the result."""

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
