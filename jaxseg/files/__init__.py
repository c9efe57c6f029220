"""Reads whole files and writes files; the only code that does.

`paths` handles local paths and buckets, `reading` reads untrusted files, `writing` writes atomically.
"""

from jaxseg.files.paths import (
  absolute,
  is_remote,
  local_copy,
  own_folder,
  remove_folder,
  to_path,
  to_utf8_path,
  walk,
  within,
)
from jaxseg.files.reading import opened, parsed, read_bytes, read_json, read_text
from jaxseg.files.writing import (
  FULL,
  Appended,
  explain_full_disk,
  new_file,
  remove_stale,
  scratch_folder,
  whole_file,
  write_bytes,
  write_text,
)

__all__ = [
  'FULL',
  'Appended',
  'absolute',
  'explain_full_disk',
  'is_remote',
  'local_copy',
  'new_file',
  'opened',
  'own_folder',
  'parsed',
  'read_bytes',
  'read_json',
  'read_text',
  'remove_folder',
  'remove_stale',
  'scratch_folder',
  'to_path',
  'to_utf8_path',
  'walk',
  'whole_file',
  'within',
  'write_bytes',
  'write_text',
]
