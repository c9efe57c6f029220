"""One file over a connection that does what connections do: a server on the loopback address."""

import concurrent.futures
import contextlib
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from jaxseg.files import download
from jaxseg.types import UserError

DATA = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
DIGEST = f'sha256:{hashlib.sha256(DATA).hexdigest()}'
KNOWN = dict(size=len(DATA), digest=DIGEST)


class Server(http.server.ThreadingHTTPServer):
  """Gives DATA in the manner that a path names, and notes each request as (path, range).

  /good       with ranges
  /plain      without ranges
  /wrong      other bytes of the same length
  /short      the first 100,000 bytes of what is asked for, then no more
  /cut        the same, without ranges
  /once       503 at first, good after that
  /404, /503  that state
  /html       a web page
  /longer     a file that is longer
  /endless    more bytes than DATA, without a length
  /dead       a connection on which nothing comes
  /slow       a byte now and then
  """

  daemon_threads = True

  def __init__(self):
    self.asked, self.over = [], threading.Event()
    super().__init__(('127.0.0.1', 0), Handler)

  def url(self, path):
    return f'http://127.0.0.1:{self.server_port}/{path}'

  def handle_error(self, *_):
    pass  # whoever asked has left


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def do_GET(self):
    kind, ranged = self.path.strip('/'), self.headers['Range']
    self.server.asked.append((kind, ranged))
    if kind in ('404', '503') or (kind == 'once' and len(self.server.asked) == 1):
      self.send_error(404 if kind == '404' else 503)
      return
    data = {'wrong': DATA[::-1], 'longer': DATA + b'x', 'html': b'<html>'}.get(kind, DATA)
    start = (
      int(ranged.removeprefix('bytes=').rstrip('-'))
      if ranged and kind not in ('plain', 'cut')
      else 0
    )
    if start >= len(data):
      self.send_error(416)
      return
    self.send_response(206 if start else 200)
    if start:
      self.send_header('Content-Range', f'bytes {start}-{len(data) - 1}/{len(data)}')
    if kind == 'html':
      self.send_header('Content-Type', 'text/html; charset=utf-8')
    if kind != 'endless':
      self.send_header('Content-Length', str(len(data) - start))
    self.end_headers()
    self.close_connection = True
    if kind == 'dead':
      self.server.over.wait(20)
    elif kind == 'slow':
      for byte in data[start:]:
        self.wfile.write(bytes([byte]))
        if self.server.over.wait(0.02):
          return
    elif kind == 'endless':
      self.wfile.write(DATA * 2)
    else:
      self.wfile.write(data[start : start + 100_000] if kind in ('short', 'cut') else data[start:])


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv('no_proxy', '127.0.0.1')
  monkeypatch.setattr(download, '_PAUSES', (0.0, 0.01, 0.01))
  with Server() as server:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()


def fetch(server, path, *kinds, **known):
  return download.download([server.url(kind) for kind in kinds], path, **(known or KNOWN))


def names(folder):
  return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize('known', [KNOWN, {'size': len(DATA)}, {'digest': DIGEST}, {'size': None}])
def test_a_file_is_whole_and_alone(server, tmp_path, known):
  seen = []
  watch = lambda done, total: seen.append((done, total))  # noqa: E731
  origin = fetch(server, tmp_path / 'f', 'good', watch=watch, **known)
  assert (tmp_path / 'f').read_bytes() == DATA and names(tmp_path) == ['f']
  assert origin == download.Origin(server.url('good'), len(DATA), DIGEST.removeprefix('sha256:'))
  assert seen[-1] == (len(DATA), len(DATA)) and seen == sorted(seen)


@pytest.mark.parametrize(
  'digest',
  [
    DIGEST[: len('sha256:') + 8],
    f'md5:{hashlib.md5(DATA).hexdigest()}',
    f'sha1:{hashlib.sha1(DATA).hexdigest()}',
  ],
)
def test_of_a_digest_the_first_digits_or_another_kind_are_enough(server, tmp_path, digest):
  fetch(server, tmp_path / 'f', 'good', digest=digest)
  with pytest.raises(download.NotFetched, match='its bytes do not have the checksum'):
    fetch(server, tmp_path / 'g', 'wrong', digest=digest)
  assert names(tmp_path) == ['f']


@pytest.mark.parametrize('digest', ['sha256:0676', 'sha256:0676ba6x', 'crc:00000000', '0676ba61'])
def test_what_is_no_digest_is_a_mistake_of_the_manifest(tmp_path, digest):
  with pytest.raises(ValueError, match='is no digest'):
    download.download(['/nowhere'], tmp_path / 'f', digest=digest)


@pytest.mark.parametrize('kind', ['good', 'plain'])
def test_half_a_file_goes_on_where_the_server_knows_ranges(server, tmp_path, kind):
  (tmp_path / 'f.part').write_bytes(DATA[:120_000])
  fetch(server, tmp_path / 'f', kind)
  assert server.asked == [(kind, 'bytes=120000-')]
  assert (tmp_path / 'f').read_bytes() == DATA and names(tmp_path) == ['f']


def test_half_of_what_nobody_can_check_is_received_anew(server, tmp_path):
  (tmp_path / 'f.part').write_bytes(b'x' * 1000)
  fetch(server, tmp_path / 'f', 'good', size=None)
  assert server.asked == [('good', None)] and (tmp_path / 'f').read_bytes() == DATA


@pytest.mark.parametrize('left', [b'x' * 120_000, b'x' * 300_000, DATA + b'x'])
def test_half_of_another_file_is_given_up(server, tmp_path, left):
  (tmp_path / 'f.part').write_bytes(left)
  fetch(server, tmp_path / 'f', 'good')
  assert (tmp_path / 'f').read_bytes() == DATA and server.asked[-1] == ('good', None)


def test_a_whole_file_without_its_name_gets_it(server, tmp_path):
  (tmp_path / 'f.part').write_bytes(DATA)
  fetch(server, tmp_path / 'f', 'good')
  assert names(tmp_path) == ['f'] and not server.asked


def test_a_connection_that_breaks_off_is_made_again(server, tmp_path):
  fetch(server, tmp_path / 'f', 'short')
  assert server.asked == [
    ('short', None),
    ('short', 'bytes=100000-'),
    ('short', 'bytes=200000-'),
  ]
  assert (tmp_path / 'f').read_bytes() == DATA


def test_what_breaks_off_and_cannot_be_checked_is_no_file(server, tmp_path):
  with pytest.raises(download.NotFetched, match='broke off at 100,000 of 300,000 bytes'):
    fetch(server, tmp_path / 'f', 'cut', size=None)
  assert not (tmp_path / 'f').exists()
  fetch(server, tmp_path / 'f', 'short', size=None)
  assert (tmp_path / 'f').read_bytes() == DATA


@pytest.mark.parametrize('bad', ['404', '503', 'wrong', 'html', 'longer', 'endless'])
def test_the_next_address_gives_what_the_first_does_not(server, tmp_path, bad):
  origin = fetch(server, tmp_path / 'f', bad, 'good')
  assert origin.address == server.url('good') and (tmp_path / 'f').read_bytes() == DATA


def test_a_state_that_passes_is_asked_again(server, tmp_path):
  fetch(server, tmp_path / 'f', 'once')
  assert [kind for kind, _ in server.asked] == ['once', 'once']


def test_all_reasons_are_told_and_a_refusal_is_final(server, tmp_path):
  with pytest.raises(download.NotFetched) as error:
    fetch(server, tmp_path / 'f', '404', '503', 'wrong')
  assert error.value.reasons == {
    server.url('404'): 'HTTP 404 Not Found',
    server.url('503'): 'HTTP 503 Service Unavailable',
    server.url('wrong'): 'its bytes do not have the checksum of this file',
  }
  assert [kind for kind, _ in server.asked] == ['404', '503', 'wrong', '503', '503']
  assert names(tmp_path) == []


def test_a_dead_connection_is_left(server, tmp_path, monkeypatch):
  monkeypatch.setattr(download, '_TIMEOUT', 0.2)
  assert fetch(server, tmp_path / 'f', 'dead', 'good').address == server.url('good')
  monkeypatch.setattr(download, '_PAUSES', (0.0,))
  with pytest.raises(download.NotFetched, match=r'nothing came for 0\.2 seconds'):
    fetch(server, tmp_path / 'g', 'dead')


def test_a_slow_address_is_left_for_another_and_kept_where_there_is_none(
  server, tmp_path, monkeypatch
):
  monkeypatch.setattr(download, '_WATCHED', 0.1)
  assert fetch(server, tmp_path / 'f', 'slow', 'good').address == server.url('good')
  assert int(server.asked[-1][1].removeprefix('bytes=').rstrip('-')) > 0  # went on with its bytes
  done = []

  def watch(now, total):
    done.append(time.monotonic())
    if done[-1] - done[0] > 0.5:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    fetch(server, tmp_path / 'g', 'slow', watch=watch, **KNOWN)
  assert (tmp_path / 'g.part').stat().st_size > 1


def test_no_server_and_no_host(tmp_path, monkeypatch):
  monkeypatch.setenv('no_proxy', '*')
  monkeypatch.setattr(download, '_PAUSES', (0.0, 0.01, 0.01))
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'http://127.0.0.1:{free.getsockname()[1]}/f'
    with pytest.raises(download.NotFetched, match='refused'):
      download.download([address], tmp_path / 'f', **KNOWN)
  with pytest.raises(download.NotFetched, match='no such host, or no connection'):
    download.download(['http://nowhere.invalid/f'], tmp_path / 'f', **KNOWN)
  assert names(tmp_path) == []


def test_a_path_is_an_address_too(tmp_path):
  (tmp_path / 'mirror').write_bytes(DATA)
  (tmp_path / 'f.part').write_bytes(DATA[:1000])
  gone, there = tmp_path / 'gone', tmp_path / 'mirror'
  origin = download.download([str(gone), f'file://{there}'], tmp_path / 'f', **KNOWN)
  assert origin.address == f'file://{there}' and (tmp_path / 'f').read_bytes() == DATA
  with pytest.raises(download.NotFetched, match='No such file'):
    download.download([str(gone)], tmp_path / 'g', **KNOWN)


def test_a_pipe_is_no_address(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises(UserError, match='pipe: it is a pipe, not a file'):
    download.download([str(tmp_path / 'pipe')], tmp_path / 'a')
  assert [path.name for path in tmp_path.iterdir()] == ['pipe']


def test_several_at_once_receive_it_once(server, tmp_path, monkeypatch):
  monkeypatch.setattr('jaxseg.files.part._WAIT', 0.01)
  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    origins = list(pool.map(lambda _: fetch(server, tmp_path / 'f', 'good'), range(6)))
  assert len(server.asked) == 1 and names(tmp_path) == ['f']
  assert sorted(origin.address for origin in origins) == [''] * 5 + [server.url('good')]
  assert {origin.sha256 for origin in origins} == {DIGEST.removeprefix('sha256:')}


HOLD = """
import fcntl, sys, time
from jaxseg.files.part import claimed
from pathlib import Path
with claimed(Path(sys.argv[1]), print) as file:
  file.write(b'half')
  print('mine', flush=True)
  time.sleep(60)
"""


def test_another_process_is_waited_for_and_its_half_taken_over(server, tmp_path, monkeypatch):
  monkeypatch.setattr('jaxseg.files.part._WAIT', 0.01)
  other = subprocess.Popen(
    [sys.executable, '-c', HOLD, tmp_path / 'f'],
    stdout=subprocess.PIPE,
    env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[1])},
  )
  seen = []

  def watch(done, total):
    seen.append(done)
    if len(seen) == 3:
      other.kill()

  with contextlib.closing(other.stdout):
    assert other.stdout.readline() == b'mine\n'
    fetch(server, tmp_path / 'f', 'good', watch=watch, **KNOWN)
    other.wait()
  assert seen[:3] == [4, 4, 4] and (tmp_path / 'f').read_bytes() == DATA


def test_a_disk_with_too_little_room_is_told_before(server, tmp_path):
  with pytest.raises(UserError, match='f has 9,000,000,000,000,000 bytes, .* make room there'):
    fetch(server, tmp_path / 'f', 'good', size=9 * 10**15)
  assert not server.asked and names(tmp_path) == []


LIES = {
  'length 9': {'Content-Length': '9' * 5000},
  'length \xb2': {'Content-Length': '\xb2'},
  'range': {'Content-Range': f'bytes 0-1/{"9" * 5000}'},
  'ipv6': {'Location': 'http://[::1/x'},
  'host': {'Location': f'http://{"a" * 70}.invalid/x'},
  'file': {'Location': 'file:///etc/passwd'},
  'circle': {'Location': '/circle'},
  'nothing': {'Content-Length': '0'},
  'no range': {},
}


@pytest.mark.parametrize('lie', LIES)
def test_headers_that_lie_are_one_line(tmp_path, lie):
  class Liar(Handler):
    def do_GET(self):
      states = {'Location': 302, 'Content-Range': 206, 'Content-Length': 200}
      self.send_response(next((states[name] for name in LIES[lie]), 416))
      for name, value in LIES[lie].items():
        self.send_header(name, value)
      self.end_headers()
      self.close_connection = True

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Liar) as lying:
    threading.Thread(target=lying.serve_forever, daemon=True).start()
    try:
      with pytest.raises(download.NotFetched, match='cannot fetch f: ') as told:
        download.download([f'http://127.0.0.1:{lying.server_port}/circle'], tmp_path / 'f')
    finally:
      lying.shutdown()
  assert len(str(told.value)) < 400 and '\n' not in str(told.value)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('kind', ['link', 'dangling', 'circle', 'hard link', 'pipe', 'folder'])
def test_what_lies_in_the_place_of_a_part_is_not_written_through(server, tmp_path, kind):
  folder, victim = tmp_path / 'data', tmp_path / 'victim'
  folder.mkdir()
  victim.write_bytes(b'precious')
  part = folder / 'f.part'
  make = {
    'link': lambda: part.symlink_to(victim),
    'dangling': lambda: part.symlink_to(tmp_path / 'none'),
    'circle': lambda: part.symlink_to(part),
    'hard link': lambda: part.hardlink_to(victim),
    'pipe': lambda: os.mkfifo(part),
    'folder': part.mkdir,
  }
  make[kind]()
  with pytest.raises(UserError, match=r'f\.part is .*: remove it'):
    download.download([server.url('good')], folder / 'f', **KNOWN)
  assert victim.read_bytes() == b'precious' and not (tmp_path / 'none').exists()
