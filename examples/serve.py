"""Serves an exported folder over HTTP. Needs jax, flatbuffers, safetensors, pillow; not jaxseg.

python examples/serve.py FOLDER 8000
curl --data-binary @photo.jpg http://localhost:8000 > mask.png    # one class number a pixel

It answers what launch/predict.py writes, one request after the other, and 400 for what is no image.
It does not cut large images into tiles, refuse floating-point files, read later pages of a TIFF or
serve networks of instances; it has no limits and no TLS: put it behind a server that has.
"""

import http.server
import io
import json
import pathlib
import sys

import jax
import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import load_file

folder, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
card = json.loads((folder / 'card.json').read_text())
weights = jax.device_put(load_file(folder / card['weights']))
program = jax.export.deserialize(bytearray((folder / card['programs'][0]['file']).read_bytes()))
run = jax.jit(program.call)  # compiles once for each size of image


def predict(data: bytes) -> Image.Image:
  image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))  # upright
  if image.mode[0] == 'I':  # 16 bits; Pillow alone would clip them at 255
    grey = np.asarray(image, np.float32) * np.float32(255 / card['input']['white_of_16_bits'])
    image = Image.fromarray(np.rint(grey.clip(0, 255)).astype(np.uint8))
  image = image.convert('RGB' if card['input']['channels'] == 3 else 'L')
  pixels = np.asarray(image).reshape(1, image.height, image.width, -1)
  mask = Image.fromarray(np.asarray(run(weights, pixels)['classes'][0]))
  mask.putpalette([value for entry in card['classes'] for value in entry['color']])
  return mask


class Handler(http.server.BaseHTTPRequestHandler):
  error_message_format, error_content_type = '%(explain)s\n', 'text/plain'

  def do_POST(self):
    try:
      mask = predict(self.rfile.read(int(self.headers['Content-Length'])))
    except Exception as error:
      return self.send_error(400, explain=f'cannot predict this: {" ".join(str(error).split())}')
    self.send_response(200)
    self.send_header('Content-Type', 'image/png')
    self.end_headers()
    mask.save(self.wfile, 'PNG')


http.server.HTTPServer(('localhost', port), Handler).serve_forever()
