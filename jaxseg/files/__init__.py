"""Reads whole files and writes files; the only code that does.

`places` handles local paths and buckets, `reading` reads untrusted files, `writing` writes atomically.
"""

from jaxseg.files.places import (
  absolute,
  for_libraries,
  is_remote,
  local_copy,
  own_folder,
  place,
  remove_folder,
  walk,
  within,
)
from jaxseg.files.reading import opened, parsed, read_bytes, read_json, read_text
from jaxseg.files.writing import (
  FULL,
  Appended,
  full_disk_told,
  new_file,
  remove_stale,
  whole_file,
  write_bytes,
  write_text,
)

__all__ = [
  'FULL',
  'Appended',
  'absolute',
  'for_libraries',
  'full_disk_told',
  'is_remote',
  'local_copy',
  'new_file',
  'opened',
  'own_folder',
  'parsed',
  'place',
  'read_bytes',
  'read_json',
  'read_text',
  'remove_folder',
  'remove_stale',
  'walk',
  'whole_file',
  'within',
  'write_bytes',
  'write_text',
]
