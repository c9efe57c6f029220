"""The prediction job: reads, runs and writes at the same time, and goes on past files that are bad.

For every image <stem>.png, the class of each pixel as a palette PNG of the image's own size, and if
asked for <stem>_overlay.png, <stem>_probabilities.npy (float16 [h, w, k]), <stem>_uncertainty.npy
(float32 [h, w]) and <stem>_uncertainty.png. A file appears whole or not at all.

A network of instances writes <stem>_instances.png too (16 bit, the number of each pixel's instance,
the best on top) and, for all images together, detections.json in COCO's result format. A run that
was interrupted goes on with `skip_existing`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxseg import files
from jaxseg.data import threads
from jaxseg.draw import labels, objects
from jaxseg.metrics.coco import results_of
from jaxseg.predict import coco_json
from jaxseg.predict.inputs import (
  Item,
  any_size,
  header_size,
  list_items,
  plan_outputs,
  read_image,
  whole_file,
)
from jaxseg.predict.instance_predictor import InstancePredictor, painted
from jaxseg.predict.predictor import Options, Predictor, load
from jaxseg.train import build
from jaxseg.train.run_folder import load_classes, load_config
from jaxseg.train.writer import Progress, duration
from jaxseg.types import UserError

AnyPredictor = Predictor | InstancePredictor

MAX_PROGRAMS = 8  # different image sizes that are each compiled for as they are; with more ...
BUCKET = 64  # ... sizes are rounded up to a multiple of this
_ROWS = 1024  # that an overlay is blended in at a time


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What is written beside the masks."""

  overlay: bool = False
  probabilities: bool = False
  uncertainty: bool = False
  instances: bool = False

  @property
  def endings(self) -> tuple[str, ...]:
    """Returns what follows the stem in the names of the files."""
    return (
      '.png',
      *['_overlay.png'] * self.overlay,
      *['_probabilities.npy'] * self.probabilities,
      *['_uncertainty.npy', '_uncertainty.png'] * self.uncertainty,
      *['_instances.png'] * self.instances,
    )


def predict_files(
  workdir: str | Path,
  source: str | Path,
  output: str | Path,
  *,
  step: str = 'best',
  wanted: Wanted = Wanted(),
  options: Options | None = None,
  overwrite: bool = False,
  skip_existing: bool = False,
) -> dict[str, str]:
  """Predicts a file, a folder of images or the files that a LIST.txt names.

  Args:
    workdir: of the trained network.
    source: see imagefiles.list_items.
    output: folder for the results, made if it is absent.
    step: 'best' | 'latest' | a number.
    wanted: what is written beside the masks.
    options: see predictor.Options; with `multiple` 0 images of up to MAX_PROGRAMS different sizes
      are run as they are, more with sizes rounded up to multiples of BUCKET.
    overwrite: whether files that are there may be replaced.
    skip_existing: whether they stay, and only images that lack some are predicted; detections.json
      is written anew, with what is known of the others.

  Returns:
    The images that could not be predicted and why, {} where all could.

  Raises:
    UserError: no image, a name that two inputs would write, a file in the way, a folder that cannot
      be written, or nothing at all that could be predicted.
  """
  if overwrite and skip_existing:
    raise UserError('--overwrite replaces what --skip_existing keeps: give one of them')
  items, config, folder = list_items(source), load_config(workdir), files.place(output)
  if config.task == 'instance':
    wanted = for_instances(wanted)
    coco_json.refuse_present(folder, overwrite=overwrite or skip_existing)
  plan_outputs(items, folder, wanted.endings, overwrite=overwrite, keep=skip_existing)
  stems = [item.stem for item in items]
  known = coco_json.Log(folder, stems, goes_on=skip_existing) if wanted.instances else None
  with known or contextlib.nullcontext():
    todo = [i for i in items if not (skip_existing and _is_done(i, folder, wanted, known))]
    bad = {}
    if todo:
      build.set_up_jax(config)
      with any_size():
        predictor = _predictor(workdir, step, options or Options(), items)
        bad = _Job(predictor, folder, wanted, known, keep=skip_existing).run(todo)
  if len(bad) == len(items):
    reason = next(iter(bad.values()))
    raise UserError(f'none of {len(items)} images could be predicted; the first: {reason}')
  if known:
    coco_json.write(folder, config, items, known.found, load_classes(workdir).names)
  kept = f', {len(items) - len(todo)} were there already' if skip_existing else ''
  print(f'{len(todo) - len(bad)} of {len(items)} images predicted into {output}{kept}')
  for reason in bad.values():
    print(f'  not {reason}')
  return bad


def _predictor(
  workdir: str | Path, step: str, options: Options, items: Sequence[Item]
) -> AnyPredictor:
  """Returns what predicts all of the images, whichever of them are still to do."""
  predictor = load(workdir, step, **vars(options))
  return predictor if options.multiple else share_programs(predictor, items)


def _is_done(item: Item, folder: Path, wanted: Wanted, known: coco_json.Log | None) -> bool:
  """Whether all that is wanted of an image is there."""
  paths = (folder / f'{item.stem}{ending}' for ending in wanted.endings)
  return (known is None or item.stem in known.found) and all(path.exists() for path in paths)


def for_instances(wanted: Wanted) -> Wanted:
  """Returns what a network of instances writes. Raises UserError for what it has not."""
  if wanted.probabilities or wanted.uncertainty:
    raise UserError(
      'a network of instances has no probability or uncertainty of pixels: leave out --probabilities '
      'and --uncertainty; scores are in detections.json'
    )
  return dataclasses.replace(wanted, instances=True)


def share_programs(predictor: AnyPredictor, items: Sequence[Item]) -> AnyPredictor:
  """Returns a predictor that needs few programs for these images, and says so if it rounds sizes."""
  few = len(items) <= MAX_PROGRAMS or predictor.options.tile
  options = dict(name=lambda item: item.name, timeout=predictor.config.data_timeout)
  sizes = () if few else {*threads.results(header_size, items, **options)} - {None}
  canvases = {predictor.canvas(*size) for size in sizes}
  if len(canvases) <= MAX_PROGRAMS:
    return predictor
  print(f'{len(canvases)} image sizes: rounded up to multiples of {BUCKET} to share programs')
  return predictor.replace(multiple=BUCKET)


@dataclasses.dataclass
class _Found:
  """What was predicted for one image and is still to be written."""

  image: np.ndarray
  mask: np.ndarray
  uncertainty: np.ndarray | None = None
  instances: np.ndarray | None = None  # uint16 [h, w]


class _Job:
  """One run over many images: a reader's threads, this one at the device, a writer's threads.

  Args:
    predictor: of all images.
    output: a folder.
    wanted: what is written beside the masks.
    known: gets what a network of instances finds.
    keep: whether files that are there stay as they are.
  """

  def __init__(
    self,
    predictor: AnyPredictor,
    output: Path,
    wanted: Wanted,
    known: coco_json.Log | None = None,
    *,
    keep: bool = False,
  ):
    self._predictor, self._output, self._wanted = predictor, output, wanted
    self._known, self._keep = known, keep

  def run(self, items: Sequence[Item]) -> dict[str, str]:
    """Returns what could not be predicted, by name, with the reason."""
    try:
      return self._run(items)
    except KeyboardInterrupt:
      raise KeyboardInterrupt(
        'the same command with --skip_existing goes on with what is missing'
      ) from None

  def _run(self, items: Sequence[Item]) -> dict[str, str]:
    bad: dict[str, str] = {}
    begin, shown = time.perf_counter(), 0.0
    interval = 0.25 if sys.stdout.isatty() else 10.0
    timeout = self._predictor.config.data_timeout
    with Progress() as progress, threads.Backlog() as writing:
      started = threads.started(self._read, items, name=lambda item: item.name, timeout=timeout)
      for done, (item, reading) in enumerate(started, start=1):
        found = self._predict_or_tell(item, reading)
        if isinstance(found, str):
          bad[item.name] = found
        else:
          writing.submit(self._write, item, found)
        seconds = time.perf_counter() - begin
        if seconds - shown >= interval or done == len(items):
          shown = seconds
          progress.show(_line(done, len(items), len(bad), seconds))
    return bad

  def _read(self, item: Item) -> np.ndarray:
    config = self._predictor.config
    white = config.dataset_options.get('white', 65535)
    return read_image(item, channels=config.channels, white=white)

  def _predict_or_tell(self, item: Item, reading) -> _Found | str:
    """Returns what was found, or what is wrong with this image."""
    try:
      image = reading.result()
    except UserError as error:
      return str(error)
    except MemoryError:
      return f'{item.name}: this machine has too little memory to decode it'
    try:
      return self._predict(item, image)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      way = 'a smaller copy of it' if self._wanted.instances else '--tile=512,512'
      return f'{item.name}: the device has too little memory for it: try {way}'

  def _predict(self, item: Item, image: np.ndarray) -> _Found:
    """Runs the network; probabilities go to disk as they come."""
    if self._wanted.instances:
      found = self._predictor.instances(image)
      self._known.add(item.stem, results_of(found))
      instances, mask = painted(found)
      return _Found(image, mask, instances=instances)
    if not (self._wanted.probabilities or self._wanted.uncertainty):
      return _Found(image, self._predictor(image))
    size = image.shape[:2]
    found = _Found(image, np.empty(size, np.uint8), np.empty(size, np.float32))
    with self._probabilities(item, size) as probabilities:
      for band in self._predictor.bands(image):
        rows = slice(band.top, band.top + len(band.mask))
        found.mask[rows] = band.mask
        found.uncertainty[rows] = band.uncertainty
        if probabilities is not None:
          probabilities[rows] = band.probabilities
    return found

  @contextlib.contextmanager
  def _probabilities(self, item: Item, size: tuple[int, int]) -> Iterator[np.ndarray | None]:
    """Gives an array [h, w, k] that lies in the output file, None where it is not wanted."""
    file = self._output / f'{item.stem}_probabilities.npy'
    if not self._wanted.probabilities or self._stays(file):
      yield None
      return
    shape = (*size, self._predictor.config.num_classes)
    with whole_file(file) as part:
      array = np.lib.format.open_memmap(part, mode='w+', dtype=np.float16, shape=shape)
      yield array
      array.flush()

  def _stays(self, file: Path) -> bool:
    return self._keep and file.exists()

  def _write(self, item: Item, found: _Found) -> None:
    for ending, save in self._pictures(found):
      file = self._output / f'{item.stem}{ending}'
      if not self._stays(file):
        with whole_file(file) as part:
          save(part)

  def _pictures(self, found: _Found) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yields endings and what writes such a file; the mask is the last: all the rest is there."""
    options, classes = self._predictor.options, self._predictor.classes
    if self._wanted.overlay:
      yield '_overlay.png', lambda part: labels.save(part, self._overlay(found))
    if self._wanted.uncertainty:
      sampled, count = options.samples > 0, len(classes.names)
      yield '_uncertainty.npy', lambda part: np.save(part, found.uncertainty)
      yield (
        '_uncertainty.png',
        lambda part: labels.save(part, heat(found.uncertainty, count, sampled=sampled)),
      )
    if self._wanted.instances:
      yield '_instances.png', lambda part: objects.save_numbers(part, found.instances)
    yield '.png', lambda part: labels.save_palette_png(part, found.mask, classes.palette)

  def _overlay(self, found: _Found) -> np.ndarray:
    """Blends some rows at a time: the blend needs ten times the memory of the image."""
    if found.instances is not None:
      return objects.overlay(found.image, found.instances)
    palette, mixed = self._predictor.classes.palette, np.empty((*found.mask.shape, 3), np.uint8)
    for top in range(0, len(mixed), _ROWS):
      rows = slice(top, top + _ROWS)
      mixed[rows] = labels.overlay(found.image[rows], found.mask[rows], palette)
    return mixed


def heat(uncertainty: np.ndarray, num_classes: int, *, sampled: bool) -> np.ndarray:
  """Draws uncertainty [h, w] as uint8 [h, w, 3], from black (0) to pale yellow.

  Entropy is drawn up to log k, its largest possible value, alike for all images. The variance of
  samples depends on the network's dropout by orders of magnitude: its square root is drawn, up to
  the image's own largest; the numbers are in the .npy file.
  """
  from matplotlib import colormaps

  if sampled:
    shown = np.sqrt(uncertainty / max(float(uncertainty.max()), 1e-9))
  else:
    shown = uncertainty / np.log(num_classes)
  table = (np.asarray(colormaps['inferno'].colors) * 255).round().astype(np.uint8)
  return table[np.clip(shown * 255, 0, 255).astype(np.uint8)]


def _line(done: int, total: int, bad: int, seconds: float) -> str:
  rate = done / max(seconds, 1e-9)
  told = f' . {bad} bad' if bad else ''
  return f'{done}/{total} images . {rate:.3g} img/s{told} . ETA {duration((total - done) / rate)}'
