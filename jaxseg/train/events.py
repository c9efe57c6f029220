"""TensorBoard event files, written synchronously.

tensorboardX writes in a thread of its own; when the disk is full that thread dies, and training waits
for it for ever. Here a failed write raises at once.
"""

import os
import socket
import struct
import time
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from jaxseg import files


class Events:
  """A new event file in `folder`; it makes TensorBoard discard older events from `first_step` on."""

  def __init__(self, folder: Path, first_step: int):
    name = f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}'
    self._file = files.Appended(folder / name)
    self._write(Event(file_version='brain.Event:2'))
    self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

  def scalars(self, step: int, values: dict[str, float]) -> None:
    """Writes scalars by name."""
    for name, value in values.items():
      self._write(Event(step=step, summary=summary.scalar(name, value)))

  def picture(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes a uint8 [h, w, 3] picture."""
    self._write(Event(step=step, summary=summary.image(name, image, dataformats='HWC')))

  def sync(self) -> None:
    self._file.sync()

  def close(self) -> None:
    self._file.close()

  def _write(self, event: Event) -> None:
    event.wall_time = time.time()
    data = event.SerializeToString()
    length = struct.pack('<Q', len(data))
    self._file.write(length + _checksum(length) + data + _checksum(data))


def _checksum(data: bytes) -> bytes:
  return struct.pack('<I', masked_crc32c(data))
