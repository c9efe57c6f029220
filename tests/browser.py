"""Headless Chromium through chromedriver's own protocol (W3C WebDriver over HTTP), no package."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest


class Browser:
  """One page at a time, of a given width; `errors` and `requests` are of the page opened last."""

  def __init__(self, width: int, height: int = 844):
    chromium, driver = shutil.which('chromium'), shutil.which('chromedriver')
    if not (chromium and driver):
      pytest.skip('no chromium or chromedriver: apt-get install chromium chromium-driver')
    with socket.socket() as probe:
      probe.bind(('127.0.0.1', 0))
      port = probe.getsockname()[1]
    self._driver = subprocess.Popen(
      [driver, f'--port={port}'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    self._url = f'http://127.0.0.1:{port}'
    metrics = {'width': width, 'height': height, 'pixelRatio': 1.0, 'mobile': width < 500}
    options = {
      'binary': chromium,
      'args': ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
      'mobileEmulation': {'deviceMetrics': metrics},
    }
    wanted = {
      'browserName': 'chrome',
      'goog:chromeOptions': options,
      'goog:loggingPrefs': {'browser': 'ALL', 'performance': 'ALL'},
    }
    self._wait_for_driver()
    session = self._post('/session', {'capabilities': {'alwaysMatch': wanted}})
    self._session = f'/session/{session["sessionId"]}'

  def __enter__(self):
    return self

  def __exit__(self, *_):
    try:
      urllib.request.urlopen(
        urllib.request.Request(self._url + self._session, method='DELETE'), timeout=30
      )
    finally:
      self._driver.kill()
      self._driver.wait()

  def open(self, file: Path) -> None:
    self._post(f'{self._session}/url', {'url': file.absolute().as_uri()})
    messages = [json.loads(e['message'])['message'] for e in self._log('performance')]
    self.requests = [
      m['params']['request']['url'] for m in messages if m['method'] == 'Network.requestWillBeSent'
    ]
    self.errors = [entry['message'] for entry in self._log('browser')]

  def run(self, script: str):
    """Returns what a script's `return` gives."""
    return self._post(f'{self._session}/execute/sync', {'script': script, 'args': []})

  def screenshot(self, file: Path) -> None:
    """Writes the whole page, not only what is in view."""
    command = {'cmd': 'Page.captureScreenshot', 'params': {'captureBeyondViewport': True}}
    result = self._post(f'{self._session}/goog/cdp/execute', command)
    file.write_bytes(base64.b64decode(result['data']))

  def _log(self, kind: str) -> list[dict]:
    return self._post(f'{self._session}/se/log', {'type': kind})

  def _wait_for_driver(self) -> None:
    for _ in range(200):
      try:
        urllib.request.urlopen(f'{self._url}/status', timeout=5).read()
        return
      except (urllib.error.URLError, ConnectionError):
        time.sleep(0.05)
    raise AssertionError('chromedriver does not answer')

  def _post(self, path: str, body: dict):
    request = urllib.request.Request(
      self._url + path, json.dumps(body).encode(), {'Content-Type': 'application/json'}
    )
    try:
      with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)['value']
    except urllib.error.HTTPError as e:
      raise AssertionError(json.load(e)['value']['message']) from None
