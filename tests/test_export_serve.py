"""examples/serve.py: one process, outside of the repository, with jaxseg made impossible to import."""

import io
import json
import runpy
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from jaxseg.export import write
from tests import tiny_runs
from tests.test_launch import launch

ROOT = Path(__file__).resolve().parent.parent
SERVE = ROOT / 'examples' / 'serve.py'


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  """A server with small limits, of a run that is there too."""
  folder = tmp_path_factory.mktemp('serve')
  workdir = tiny_runs.make_workdir(folder / 'run', tiny_runs.make_experiment())
  write.export_workdir(workdir, folder / 'exported')
  (folder / 'jaxseg.py').write_text('raise ImportError("the example may not need this")')
  text = SERVE.read_text()
  for limit, lower in (
    ('32 << 20', '1 << 16'),
    ('1 << 24', '1 << 14'),
    ('SECONDS = 10', 'SECONDS = 2'),
  ):
    assert text.count(limit) == 1
    text = text.replace(limit, lower)
  (folder / 'serve.py').write_text(text)
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  command = [sys.executable, 'serve.py', str(folder / 'exported'), str(port)]
  with (folder / 'errors').open('w') as errors:
    process = subprocess.Popen(
      command, cwd=folder, stderr=errors, stdout=subprocess.PIPE, text=True
    )
  try:
    assert process.stdout.readline().startswith('serving ')
    yield SimpleNamespace(workdir=workdir, folder=folder, port=port)
  finally:
    process.kill()
    process.wait()
    process.stdout.close()
  assert 'Traceback' not in (folder / 'errors').read_text()
  assert not (folder / 'exported' / '__pycache__').exists()


def post(server, data):
  """Returns status and content."""
  request = urllib.request.Request(f'http://localhost:{server.port}', data)
  try:
    with urllib.request.urlopen(request, timeout=60) as answer:
      return answer.status, answer.read()
  except urllib.error.HTTPError as refused:
    with refused:
      return refused.code, refused.read()


def encoded(pixels, kind='PNG', **options):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind, **options)
  return file.getvalue()


def test_it_answers_what_predict_writes(server, tmp_path):
  image = tiny_runs.random_image(21, 45)
  exif = Image.Exif()
  exif[0x0112] = 6  # to be turned a quarter to the right
  (folder := tmp_path / 'in').mkdir()
  (folder / 'plain.png').write_bytes(encoded(image))
  (folder / 'grey.bmp').write_bytes(encoded(image[..., 0], 'BMP'))
  (folder / 'packed.tif').write_bytes(encoded(image, 'TIFF', compression='tiff_lzw'))
  (folder / 'turned.jpg').write_bytes(encoded(image, 'JPEG', quality=95, exif=exif))
  launch('predict', f'--workdir={server.workdir}', f'--input={folder}', f'--output={tmp_path}/out')
  for file in sorted(folder.iterdir()):
    status, content = post(server, file.read_bytes())
    answer, written = (
      Image.open(io.BytesIO(content)), Image.open(tmp_path / 'out' / f'{file.stem}.png')
    )  # fmt: skip
    assert status == 200
    assert answer.size == written.size == ((21, 45) if file.stem == 'turned' else (45, 21))
    np.testing.assert_array_equal(np.asarray(answer), np.asarray(written), file.name)
    assert answer.getpalette()[:12] == written.getpalette()[:12]


GREY = np.zeros((8, 8), np.uint8)
PNG = encoded(tiny_runs.random_image(60, 64))


def tiff(pixels, **options):
  file = io.BytesIO()
  tifffile.imwrite(file, pixels, **{'photometric': 'rgb', **options})
  return file.getvalue()


def several(kind):
  """Two pictures in a file, which predict refuses or gives a mask each."""
  return encoded(
    tiny_runs.random_image(8, 9), kind, save_all=True, append_images=[Image.new('RGB', (9, 8))]
  )


def huge(side):
  """A PNG of few bytes that says it has side x side pixels."""
  data = bytearray(encoded(tiny_runs.random_image(8, 9)))
  data[16:24] = struct.pack('>II', side, side)
  data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
  return bytes(data)


@pytest.mark.parametrize(
  ('data', 'status', 'words'),
  [
    (b'no image', 400, 'cannot predict this: no PNG, JPEG, TIFF or BMP that can be read'),
    (PNG[:300], 400, 'cannot predict this: '),
    (encoded(GREY, 'GIF'), 400, 'cannot predict this: no PNG, JPEG, TIFF or BMP that'),
    (encoded(GREY.astype(np.uint16)), 400, 'more than 8 bits a channel; this network takes 8'),
    (encoded(np.zeros((129, 128), np.uint8)), 413, '129 x 128 pixels; at most 16,384 are taken'),
    (bytes((1 << 16) + 1), 413, '65537 bytes; at most 65,536 are taken'),
    (several('PNG'), 400, 'it holds 2 pictures (pages are no bands): send one'),
    (several('TIFF'), 400, 'it holds 2 pictures (pages are no bands): send one'),
    (tiff(np.zeros((8, 9, 3), np.uint16)), 400, 'more than 8 bits a channel; this network takes 8'),
    (
      tiff(np.zeros((8, 9, 4), np.uint8), extrasamples=['unspecified']),
      400,
      '4 bands of the kind RGB',
    ),
    (
      tiff(np.zeros((8, 9, 5), np.uint8), photometric='minisblack', planarconfig='contig'),
      400,
      'cannot predict this: no PNG,',
    ),
    (tiff(np.zeros((8, 9, 3), np.uint8), photometric='cielab'), 400, '3 bands of the kind LAB'),
    (tiff(GREY.astype(np.int8), photometric='minisblack'), 400, 'signed numbers in a TIFF'),
    (huge(60000), 413, '60000 x 60000 pixels; at most 16,384 are taken'),
  ],
)
def test_what_is_refused_is_told_in_json(data, status, words, server):
  code, content = post(server, data)
  assert code == status and json.loads(content)['error'].startswith(words)


GREY16 = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000
TURNED = dict(extratags=[(274, 'H', 1, 6, True)])
COLOURS16 = np.zeros((6, 8, 3), np.uint16)


def test_values_come_as_they_are_stored_or_not_at_all():
  """Of networks that take other pictures than 8-bit RGB, to which a viewer's conversion would be silent."""
  serve = runpy.run_path(str(SERVE))
  read, refused = serve['read'], serve['Refused']
  np.testing.assert_array_equal(
    read(tiff(GREY16, photometric='minisblack'), 1, 'uint16')[..., 0], GREY16
  )
  for data in (
    tiff(GREY16, photometric='minisblack', **TURNED),
    tiff(GREY16, photometric='miniswhite'),
    tiff(GREY > 0, photometric='minisblack'),
    tiff(GREY16, photometric='minisblack', extratags=[(42113, 's', 5, '-999', True)]),
    tiff(GREY, photometric='palette', colormap=np.zeros((3, 256), np.uint16)),
  ):
    with pytest.raises(refused, match='it is turned, of fewer than 8 bits, shows 0'):
      read(data, 1, 'float32')
  planes = np.arange(3 * 16 * 3, dtype=np.uint16).reshape(3, 16, 3)  # as wide as it has bands
  np.testing.assert_array_equal(
    read(tiff(planes, planarconfig='separate'), 3, 'uint16'), np.moveaxis(planes, 0, -1)
  )
  for rows, channels in ((np.zeros((3, 9, 4), np.uint16), 3), (COLOURS16[:1], 1)):  # no planes
    with pytest.raises(refused, match=f'this network takes uint16 with {channels} channels'):
      read(tiff(rows), channels, 'uint16')
  colours = cv2.imencode('.png', COLOURS16)[1].tobytes()
  with pytest.raises(refused, match='colours of 16 bits in a PNG'):
    read(colours, 3, 'float32')


def test_slow_and_odd_clients_are_ended_and_block_nobody(server):
  idle, slow, silent, lasting = (
    socket.create_connection(('localhost', server.port), timeout=30) for _ in range(4)
  )
  with idle, slow, silent, lasting:
    lasting.sendall(b'POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx')
    assert b' 400 ' in lasting.recv(4096)
    slow.sendall(b'POST / HTTP/1.0\r\nContent-Length: 100\r\n\r\nhalf of it')
    silent.sendall(b'POST / HTTP/1.0\r\n\r\n')
    start = time.monotonic()
    assert post(server, PNG)[0] == 200
    assert time.monotonic() - start < 2 or idle.recv(1) == b''  # not after the others' time
    head, _, body = b''.join(iter(lambda: slow.recv(4096), b'')).partition(b'\r\n\r\n')
    assert b' 408 ' in head and json.loads(body) == {'error': 'not sent in 2 s'}
    assert b' 411 ' in silent.recv(4096)
    assert idle.recv(1) == b''  # it is hung up, in time
    with pytest.raises(OSError):  # who goes on sending after the answer is hung up on too
      for _ in range(100):
        lasting.sendall(b'x')
        time.sleep(0.05)


def test_it_holds_no_more_than_its_limit():
  example = runpy.run_path(str(SERVE))
  server, most = object.__new__(example['Server']), example['MOST_HELD']
  with server.room(most - 1), server.room(1):
    with pytest.raises(example['Refused'], match='503.*try again'), server.room(1):
      pass
  with pytest.raises(ZeroDivisionError), server.room(most):
    raise ZeroDivisionError
  with server.room(most):
    pass


def test_who_has_gone_leaves_no_traceback(server):
  """The fixture looks for one in the log."""
  client = socket.create_connection(('localhost', server.port), timeout=30)
  client.sendall(b'POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n' % len(PNG) + PNG)
  client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
  client.close()  # with a reset
  assert post(server, PNG)[0] == 200


@pytest.mark.parametrize(('length', 'status'), [('9' * 5000, b' 413 '), ('\xb2', b' 411 ')])
def test_lengths_that_are_no_numbers(length, status, server):
  with socket.create_connection(('localhost', server.port), timeout=30) as client:
    client.sendall(f'POST / HTTP/1.0\r\nContent-Length: {length}\r\n\r\nx'.encode('latin1'))
    assert status in client.recv(4096)


def test_without_arguments_it_is_one_line(monkeypatch, tmp_path):
  monkeypatch.setattr(sys, 'argv', ['serve.py'])
  with pytest.raises(
    SystemExit, match=r'^usage: python serve\.py FOLDER \[PORT\] \[jax\|onnx\|iree\]$'
  ):
    runpy.run_path(str(SERVE), run_name='__main__')
  monkeypatch.setattr(sys, 'argv', ['serve.py', str(tmp_path)])
  monkeypatch.delitem(sys.modules, 'run', raising=False)
  with pytest.raises(SystemExit, match="^error: No module named 'run'$"):
    runpy.run_path(str(SERVE), run_name='__main__')
