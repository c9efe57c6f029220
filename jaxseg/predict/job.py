"""The prediction job: reads, runs and writes at the same time, and goes on past files that are bad.

For every image <stem>.png, the class of each pixel as a palette PNG of the image's own size, and if
asked for <stem>_overlay.png, <stem>_probabilities.npy (float16 [h, w, k]), <stem>_uncertainty.npy
(float32 [h, w]) and <stem>_uncertainty.png. A file appears whole or not at all.

Where predictions have detections, there are <stem>_instances.png too (16 bit, the number of each
pixel's object, the best on top) and, for all images together, detections.json in COCO's result
format. A run that was interrupted goes on with `skip_existing`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, BinaryIO, Literal

import jax
import numpy as np

from jaxseg import files
from jaxseg.config import parts
from jaxseg.data import threads
from jaxseg.draw import labels, objects
from jaxseg.predict import coco_json
from jaxseg.predict.base import BasePredictor
from jaxseg.predict.ensemble import load
from jaxseg.predict.inputs import (
  IN_THE_WAY,
  Item,
  any_size,
  header_size,
  list_items,
  plan_outputs,
  read_image,
  writing,
)
from jaxseg.predict.options import Options
from jaxseg.predict.progress import Countdown
from jaxseg.predict.runs import Workdirs, open_runs
from jaxseg.train.build import Experiment, set_up_jax
from jaxseg.types import UserError

MAX_PROGRAMS = 8  # different image sizes that are each compiled for as they are; with more ...
BUCKET = 64  # ... sizes are rounded up to a multiple of this
PROBABILITY = np.dtype('<f2')
_ROWS = 1024  # that an overlay is blended in at a time


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What is written beside the masks; instances are where predictions have detections."""

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

  def check(self, experiment: Experiment) -> None:
    """Raises UserError for what the experiment's task does not predict."""
    if (self.probabilities or self.uncertainty) and not experiment.task.maps:
      raise UserError(
        f'config.task={experiment.settings.task} predicts no probability or uncertainty of pixels: '
        'leave out --probabilities and --uncertainty'
      )


def predict_files(
  workdirs: Workdirs,
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
    workdirs: of the trained network, or of several whose probabilities are averaged.
    source, output: see inputs.list_items, and the folder for the results, made if it is absent.
    step: 'best' | 'latest' | a number.
    wanted: what is written beside the masks.
    options: see predict.options and, where `multiple` is 0, share_programs.
    overwrite: whether files that are there may be replaced.
    skip_existing: whether they stay, and only images that lack some are predicted; detections.json
      is written anew, with what is known of the others.

  Returns:
    The images that could not be predicted and why, {} where all could.

  Raises:
    UserError: what inputs.py refuses, or nothing at all that could be predicted.
  """
  items, folder = list_items(source), files.place(output)
  if overwrite and skip_existing:
    raise UserError('--overwrite replaces what --skip_existing keeps: give one of them')
  experiment = open_runs(workdirs)[0].experiment
  wanted.check(experiment)
  plan = functools.partial(plan_outputs, items, folder, overwrite=overwrite, keep=skip_existing)
  plan(wanted.endings)  # before the network is loaded
  set_up_jax(experiment.settings)
  predictor = load(workdirs, step, **vars(options or Options()))
  wanted = dataclasses.replace(wanted, instances='detections' in predictor.entries)
  log = contextlib.nullcontext()
  if wanted.instances:
    plan(wanted.endings, shared=[coco_json.NAME])
    log = coco_json.Log(folder, [item.stem for item in items], goes_on=skip_existing)
  with log as known, any_size():
    todo = [i for i in items if not (skip_existing and _is_done(i, folder, wanted, known))]
    if todo and not predictor.options.multiple:
      predictor = share_programs(predictor, items)  # alike, whichever of them are still to do
    existing = 'replace' if overwrite else 'keep' if skip_existing else 'refuse'
    bad = _Job(predictor, folder, wanted, known, existing).run(todo) if todo else {}
  if len(bad) == len(items):
    first = next(iter(bad.values()))
    raise UserError(f'none of {len(items)} images could be predicted; the first: {first}')
  if known:
    coco_json.write(folder, items, known.results, predictor.classes.names, _category_ids(predictor))
  print(f'{len(todo) - len(bad)} of {len(items)} images predicted into {output}', end='')
  print(f', {len(items) - len(todo)} were there already' if skip_existing else '')
  for reason in bad.values():
    print(f'  not {reason}')
  return bad


def _category_ids(predictor: BasePredictor) -> Sequence[int | str]:
  """Returns the data's own numbers of the classes; runs of before keep none of COCO's."""
  dataset = parts.load('datasets', predictor.experiment.data.name)
  count = len(predictor.classes.names)
  ids = predictor.classes.ids or getattr(dataset, 'CATEGORY_IDS', ())
  return ids if len(ids) == count else range(count)


def _is_done(item: Item, folder: Path, wanted: Wanted, known: coco_json.Log | None) -> bool:
  """Whether all that is wanted of an image is there."""
  paths = (folder / f'{item.stem}{ending}' for ending in wanted.endings)
  return (known is None or item.stem in known.results) and all(path.exists() for path in paths)


def share_programs(predictor: BasePredictor, items: Sequence[Item]) -> BasePredictor:
  """Returns a predictor that needs few programs for these images, and says so if it rounds sizes.

  Images of up to MAX_PROGRAMS different sizes are run as they are, more with sizes rounded up to
  multiples of BUCKET.
  """
  few = len(items) <= MAX_PROGRAMS or predictor.options.tile
  options = dict(name=lambda item: item.name, timeout=predictor.experiment.data.timeout)
  sizes = () if few else {*threads.results(header_size, items, **options)} - {None}
  canvases = {predictor.canvas(*size) for size in sizes}
  if len(canvases) <= MAX_PROGRAMS:
    return predictor
  print(f'{len(canvases)} image sizes: rounded up to multiples of {BUCKET} to share programs')
  return predictor.replace(multiple=BUCKET)


class _Job:
  """One run over many images: a reader's threads, this one at the device, a writer's threads.

  Args:
    predictor: of all images.
    output: a folder.
    wanted: what is written beside the masks.
    log: gets the detections.
    existing: what is done where a file is there by the time that its successor is whole: 'replace' it,
      'keep' it, or 'refuse' to go on.
  """

  def __init__(
    self,
    predictor: BasePredictor,
    output: Path,
    wanted: Wanted,
    log: coco_json.Log | None = None,
    existing: Literal['replace', 'keep', 'refuse'] = 'refuse',
  ):
    self._predictor, self._output, self._wanted = predictor, output, wanted
    self._log, self._existing = log, existing

  def run(self, items: Sequence[Item]) -> dict[str, str]:
    """Returns what could not be predicted, by name, with the reason."""
    bad: dict[str, str] = {}
    options = dict(name=lambda item: item.name, timeout=self._predictor.experiment.data.timeout)
    try:
      with Countdown('predicted', len(items)) as show, threads.Backlog() as backlog:
        for done, (item, image) in enumerate(
          threads.futures(self._read, items, **options), start=1
        ):
          problem = self._predict_or_tell(item, image, backlog)
          bad |= {item.name: problem} if problem else {}
          show(done, f'{len(bad)} bad' if bad else '')
    except KeyboardInterrupt:
      raise KeyboardInterrupt(
        'the same command with --skip_existing goes on with what is missing'
      ) from None
    return bad

  def _read(self, item: Item) -> np.ndarray:
    data = self._predictor.experiment.data
    return read_image(item, channels=data.channels, dtype=data.dtype)

  def _predict_or_tell(self, item: Item, reading: Future, backlog: threads.Backlog) -> str:
    """Returns what is wrong with this image, '' where it is being written."""
    try:
      image = reading.result()
    except UserError as error:
      return str(error)
    except MemoryError:
      return f'{item.name}: this machine has too little memory to decode it'
    try:
      prediction = self._predict(item, image)
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      whole = self._predictor.experiment.eval.short_side  # what the network sees is not larger
      way = 'a smaller copy of it' if whole else '--tile=512,512'
      return f'{item.name}: the device has too little memory for it: try {way}'
    backlog.submit(self._write, item, image, prediction)
    return ''

  def _predict(self, item: Item, image: np.ndarray) -> dict[str, Any]:
    """Runs the network; probabilities go to disk as they come, detections to the log."""
    maps = self._wanted.probabilities or self._wanted.uncertainty
    prediction = self._predict_bands(item, image) if maps else {}
    if self._wanted.instances or not maps:
      prediction |= self._predictor.predict(image)
    if self._log:
      self._log.add(item.stem, prediction['detections'])
    return prediction

  def _predict_bands(self, item: Item, image: np.ndarray) -> dict[str, np.ndarray]:
    size = image.shape[:2]
    mask, uncertainty = np.empty(size, np.uint8), np.empty(size, np.float32)
    with self._probabilities(item, size) as probabilities:
      for band in self._predictor.bands(image):
        rows = slice(band.top, band.top + len(band.mask))
        mask[rows], uncertainty[rows] = band.mask, band.uncertainty
        if probabilities is not None:
          probabilities.write(np.ascontiguousarray(band.probabilities, PROBABILITY))
    return {'mask': mask, 'uncertainty': uncertainty}

  @contextlib.contextmanager
  def _probabilities(self, item: Item, size: tuple[int, int]) -> Iterator[BinaryIO | None]:
    """Gives the open file of an array [h, w, k], which wants its rows, None where it is not wanted."""
    file = self._output / f'{item.stem}_probabilities.npy'
    if not self._wanted.probabilities or self._stays(file):
      yield None
      return
    shape = (*size, self._predictor.experiment.settings.num_classes)
    header = {'descr': PROBABILITY.str, 'fortran_order': False, 'shape': shape}
    with self._new(file) as part:  # not mapped into memory: a full disk would end the process
      np.lib.format.write_array_header_1_0(part, header)
      yield part

  @contextlib.contextmanager
  def _new(self, file: Path) -> Iterator[BinaryIO]:
    """Gives an open file that appears under its name once it is whole."""
    with writing(file):
      try:
        with files.new_file(file, replace=self._existing == 'replace') as part:
          yield part
      except FileExistsError:
        if self._existing == 'refuse':
          raise UserError(f'{file} {IN_THE_WAY}') from None

  def _stays(self, file: Path) -> bool:
    return self._existing == 'keep' and file.exists()

  def _write(self, item: Item, image: np.ndarray, prediction: dict[str, Any]) -> None:
    for ending, save in self._writers(image, prediction):
      file = self._output / f'{item.stem}{ending}'
      if not self._stays(file):
        with self._new(file) as part:
          save(part)

  def _writers(
    self, image: np.ndarray, prediction: dict[str, Any]
  ) -> Iterator[tuple[str, Callable[[BinaryIO], None]]]:
    """Yields endings and what writes such a file; the mask is the last: all the rest is there."""
    classes, mask = self._predictor.classes, prediction['mask']
    if self._wanted.overlay:
      yield '_overlay.png', lambda part: labels.save(part, self._overlay(image, prediction))
    if self._wanted.uncertainty:
      sampled, uncertainty = self._predictor.options.samples > 0, prediction['uncertainty']
      picture = functools.partial(heat, uncertainty, len(classes.names), sampled=sampled)
      yield '_uncertainty.npy', lambda part: np.save(part, uncertainty)
      yield '_uncertainty.png', lambda part: labels.save(part, picture())
    if self._wanted.instances:
      yield '_instances.png', lambda part: objects.save_numbers(part, prediction['ids'])
    yield '.png', lambda part: labels.save_palette_png(part, mask, classes.palette)

  def _overlay(self, image: np.ndarray, prediction: dict[str, Any]) -> np.ndarray:
    """Blends some rows at a time: the blend needs ten times the memory of the image."""
    if 'ids' in prediction:
      return objects.overlay(image, prediction['ids'])
    palette, mask = self._predictor.classes.palette, prediction['mask']
    mixed = np.empty((*mask.shape, 3), np.uint8)
    for top in range(0, len(mixed), _ROWS):
      rows = slice(top, top + _ROWS)
      mixed[rows] = labels.overlay(image[rows], mask[rows], palette)
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
