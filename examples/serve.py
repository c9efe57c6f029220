"""Serves an exported folder over HTTP. Needs jax, flatbuffers, safetensors, pillow; not jaxseg.

python examples/serve.py FOLDER 8000
curl --data-binary @photo.jpg http://localhost:8000 > mask.png    # one class number a pixel
"""

import http.server
import io
import json
import pathlib
import sys

import jax
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
card = json.loads((folder / 'card.json').read_text())
weights = jax.device_put(load_file(folder / card['weights']))
program = jax.export.deserialize(bytearray((folder / card['programs'][0]['file']).read_bytes()))
run = jax.jit(program.call)  # compiles once for each size of image
palette = [value for entry in card['classes'] for value in entry['color']]


class Handler(http.server.BaseHTTPRequestHandler):
  def do_POST(self):
    body = io.BytesIO(self.rfile.read(int(self.headers['Content-Length'])))
    image = Image.open(body).convert('RGB' if card['input']['channels'] == 3 else 'L')
    pixels = np.asarray(image).reshape(1, image.height, image.width, -1)
    mask = Image.fromarray(np.asarray(run(weights, pixels)['classes'][0]))
    mask.putpalette(palette)
    self.send_response(200)
    self.send_header('Content-Type', 'image/png')
    self.end_headers()
    mask.save(self.wfile, 'PNG')


http.server.HTTPServer(('localhost', port), Handler).serve_forever()
