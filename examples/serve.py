"""Serves an exported folder over HTTP. Needs pillow, tifffile and the runtime's packages; not jaxseg.

python examples/serve.py FOLDER [PORT] [jax|onnx|iree]
curl --data-binary @photo.jpg http://localhost:8000 > mask.png    # one class number a pixel

Networks of objects answer JSON: class, score and box of each. Errors are JSON too: 400 what is no image
of the network's type, 408 too slow, 411 no length, 413 too large, 503 too many at once. Pictures are
predicted one after the other, whole; there is no TLS and nobody is asked who they are: put it behind a
server that does.
"""

import contextlib
import http.server
import io
import json
import pathlib
import socket
import sys
import threading
import time

import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_BYTES, MOST_PIXELS = 32 << 20, 1 << 24  # of a request, of a picture
MOST_HELD = 8 * MOST_BYTES  # of all requests at once
SECONDS = 10  # that a client may take to send it
FORMATS = ('PNG', 'JPEG', 'TIFF', 'BMP')  # no other decoder sees what a stranger sends
MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr')  # of one meaning as RGB or grey
TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
BITS, KIND, TURN, SAMPLES, SIGNED, NODATA = 258, 262, 274, 277, 339, 42113  # TIFF's tags
KINDS = (1, 2, 5)  # grey where 0 is black, RGB, CMYK: pixels that are sent on as they are stored
Image.MAX_IMAGE_PIXELS = None  # check_size has a limit of its own


class Refused(Exception):
  """status, reason"""


def read(data, channels, dtype):
  """Returns the picture [h,w,channels] of a type, upright, with the values of the file."""
  if data[:4] in TIFF and (dtype != 'uint8' or channels not in (1, 3)):
    with tifffile.TiffFile(io.BytesIO(data)) as file:
      page = file.pages[0]
      check_size(page.imagelength, page.imagewidth, page.nbytes)
      if len(file.pages) > 1 or file.series[0].size != page.size:
        raise Refused(400, 'it holds several pictures (pages are no bands): send one')
      tags = {tag.code: tag.value for tag in page.tags}
      few = np.min(tags.get(BITS, 1)) < 8
      if few or tags.get(TURN, 1) != 1 or tags.get(KIND, 1) not in KINDS or NODATA in tags:
        raise Refused(
          400,
          'it is turned, of fewer than 8 bits, shows 0 as white, has a palette or marks no data: send plain values',
        )
      values = page.asarray()
    if page.planarconfig == 2 and values.ndim == 3:
      values = np.moveaxis(values, 0, -1)
  else:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
      check_size(image.height, image.width)
      if getattr(image, 'n_frames', 1) > 1 and image.format != 'MPO':  # whose others are views
        raise Refused(400, f'it holds {image.n_frames} pictures (pages are no bands): send one')
      tags = dict(getattr(image, 'tag_v2', {}))
      deep = image.mode.startswith(('I', 'F')) or image.format == 'PNG' and data[24] == 16
      if (deep or max(tags.get(BITS, (8,))) > 8) and dtype == 'uint8':
        raise Refused(400, 'more than 8 bits a channel; this network takes 8')
      if np.any(np.asarray(tags.get(SIGNED, 1)) != 1) and dtype == 'uint8':
        raise Refused(400, 'signed numbers in a TIFF; this network takes 0 to 255')
      if deep and not image.mode.startswith(('I', 'F')):
        raise Refused(400, 'colours of 16 bits in a PNG; send TIFF')
      bands = tags.get(SAMPLES, len(image.getbands()))
      if not deep and (image.mode not in MODES or bands != len(image.getbands())):
        raise Refused(400, f'{bands} bands of the kind {image.mode}; send RGB or grey')
      image = ImageOps.exif_transpose(image)
      values = np.asarray(image if deep else image.convert('RGB' if channels == 3 else 'L'))
  values = values[..., None] if values.ndim == 2 else values
  if values.dtype.kind == 'f' and not np.isfinite(values).all():
    raise Refused(400, 'it holds values that are no numbers')
  if values.shape[2:] != (channels,) or dtype != 'float32' and values.dtype != dtype:
    found = f'{values.dtype} {list(values.shape)}'
    raise Refused(400, f'a picture of {found}; this network takes {dtype} with {channels} channels')
  return values.astype(dtype)


def check_size(height, width, nbytes=0):
  if height * width > MOST_PIXELS or nbytes > 4 * MOST_BYTES:
    raise Refused(413, f'{height} x {width} pixels; at most {MOST_PIXELS:,} are taken')


def answer(outputs, card, size):
  """Returns type and bytes: a PNG of classes in their colours, or what objects there are."""
  if 'boxes' not in outputs:
    mask, file = Image.fromarray(np.asarray(outputs['classes'][0])), io.BytesIO()
    mask.putpalette([value for entry in card['classes'] for value in entry['color']])
    mask.save(file, 'PNG')
    return 'image/png', file.getvalue()
  high = np.tile(size[::-1], 2)
  rows = zip(*(np.asarray(outputs[k][0]) for k in ('classes', 'scores', 'boxes')), strict=True)
  found = [
    {'class': card['classes'][c]['name'], 'score': float(s), 'box': np.clip(b, 0, high).tolist()}
    for c, s, b in rows
    if s > 0
  ]
  return 'application/json', json.dumps({'objects': found}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
  """Answers for a server with `predict` and `card`, and `lock`: one picture at a time."""

  late = False

  def setup(self):
    """Whoever has not sent all in time finds the ear shut; the mouth can still say so."""
    super().setup()
    self.clock = threading.Timer(SECONDS, self.shut)
    self.clock.daemon = True
    self.clock.start()

  def shut(self):
    self.late = True
    with contextlib.suppress(OSError):  # it may have gone
      self.connection.shutdown(socket.SHUT_RD)

  def finish(self):
    """Hears out who was refused, for a while: on a closed line the answer would be lost."""
    self.clock.cancel()
    end = time.monotonic() + SECONDS
    with contextlib.suppress(OSError):
      self.wfile.flush()
      self.connection.shutdown(socket.SHUT_WR)
      self.connection.settimeout(SECONDS)
      while self.rfile.read1(1 << 16) and time.monotonic() < end:
        pass
    super().finish()

  def reply(self, code, kind, content):
    self.send_response(code)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(content)))
    with contextlib.suppress(ConnectionError):  # who asked may have gone
      self.end_headers()
      self.wfile.write(content)

  def send_error(self, code, message=None, explain=None):
    code, message = (408, f'not sent in {SECONDS} s') if self.late else (code, message)
    error = {'error': ' '.join(str(message).split())}
    self.reply(code, 'application/json', json.dumps(error).encode() + b'\n')

  def length(self):
    length = self.headers['Content-Length'] or ''
    if not (length.isdecimal() and length.isascii()):
      raise Refused(411, 'say Content-Length')
    if len(length) > 20 or int(length) > MOST_BYTES:
      raise Refused(413, f'{length[:20]} bytes; at most {MOST_BYTES:,} are taken')
    return int(length)

  def body(self, length):
    data = self.rfile.read(length)
    self.clock.cancel()
    if len(data) < length:
      raise Refused(400, f'{len(data)} of {length} bytes came')
    return data

  def do_POST(self):
    try:
      card, length = self.server.card, self.length()
      with self.server.room(length):
        data = self.body(length)
        with self.server.lock:
          image = read(data, card['input']['channels'], card['input']['dtype'])
          kind, content = answer(self.server.predict(image[None]), card, image.shape[:2])
    except Refused as refused:
      return self.send_error(*refused.args)
    except UnidentifiedImageError:
      return self.send_error(400, 'cannot predict this: no PNG, JPEG, TIFF or BMP that can be read')
    except Exception as error:
      return self.send_error(400, f'cannot predict this: {error}')
    self.reply(200, kind, content)


class Server(http.server.ThreadingHTTPServer):
  """Holds no more of its clients' bytes than MOST_HELD."""

  request_queue_size = 128  # connections that wait to be taken
  held, holding = 0, threading.Lock()

  @contextlib.contextmanager
  def room(self, length):
    with self.holding:
      if self.held + length > MOST_HELD:
        raise Refused(503, f'{self.held:,} bytes of others are in the way: try again')
      self.held += length
    try:
      yield
    finally:
      with self.holding:
        self.held -= length


def main(folder, port='8000', runtime='jax'):
  sys.path.insert(0, folder)
  sys.dont_write_bytecode = True  # nothing is added to the folder
  from run import load

  card = json.loads((pathlib.Path(folder) / 'card.json').read_text(encoding='utf-8'))
  predict = load(folder, runtime)
  shape = next(e['shape'] for e in card['programs'] if e['runtime'] == runtime)
  predict(
    np.zeros([n if isinstance(n, int) else 32 for n in (1, *shape[1:])], card['input']['dtype'])
  )
  server = Server(('localhost', int(port)), Handler)
  server.predict, server.card, server.lock = predict, card, threading.Lock()
  print(f'serving {folder} in {runtime} on http://localhost:{port}', flush=True)
  server.serve_forever()


if __name__ == '__main__':
  if not 2 <= len(sys.argv) <= 4:
    sys.exit('usage: python serve.py FOLDER [PORT] [jax|onnx|iree]')
  try:
    main(*sys.argv[1:])
  except (ImportError, OSError, ValueError) as error:
    sys.exit(f'error: {error}')
