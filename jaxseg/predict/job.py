"""The prediction job: reads, predicts and writes concurrently, and continues past unreadable files.

For every image it writes <stem>.png, the class of each pixel as a palette PNG of the image's size, and
on request <stem>_overlay.png, <stem>_probabilities.npy (float16 [h, w, k]), <stem>_uncertainty.npy
(float32 [h, w]) and <stem>_uncertainty.png. Files are written atomically.

If predictions have detections, it also writes <stem>_instances.png (16 bit, the number of each pixel's
object, the best on top) and, for all images together, detections.json in COCO's result format. An
interrupted job continues with `skip_existing`.
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
from jaxseg.console import say
from jaxseg.data import threads
from jaxseg.data.problems import abbreviate
from jaxseg.draw import labels, objects
from jaxseg.predict import coco_json
from jaxseg.predict.base import BasePredictor
from jaxseg.predict.ensemble import load_runs
from jaxseg.predict.inputs import (
  IN_THE_WAY,
  InputImage,
  any_size,
  header_size,
  list_items,
  plan_outputs,
  read_image,
  writing,
)
from jaxseg.predict.options import Options
from jaxseg.predict.predictor import entries_of
from jaxseg.predict.progress import ProgressLine
from jaxseg.predict.runs import Run, Workdirs, open_runs
from jaxseg.train.build import Experiment, set_up_jax
from jaxseg.train.run_folder import Classes
from jaxseg.types import UserError

MANY_PROGRAMS = 8  # image sizes; with more, a hint says that each costs a compilation
PROBABILITY = np.dtype('<f2')


@dataclasses.dataclass(frozen=True)
class OutputFiles:
  """Which files are written beside the masks."""

  overlay: bool = False
  probabilities: bool = False
  uncertainty: bool = False
  instances: bool = False

  @property
  def endings(self) -> tuple[str, ...]:
    """The output files' names after the stem."""
    return (
      '.png',
      *['_overlay.png'] * self.overlay,
      *['_probabilities.npy'] * self.probabilities,
      *['_uncertainty.npy', '_uncertainty.png'] * self.uncertainty,
      *['_instances.png'] * self.instances,
    )

  def check(self, experiment: Experiment) -> None:
    """Raises UserError for outputs that the experiment's task does not predict."""
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
  outputs: OutputFiles = OutputFiles(),
  options: Options | None = None,
  overwrite: bool = False,
  skip_existing: bool = False,
) -> dict[str, str]:
  """Predicts the images that inputs.list_items finds in `source`.

  Args:
    workdirs: of the trained network, or of several whose probabilities are averaged.
    source, output: the images, and the folder for the results, created if absent.
    step, outputs, options: see ensemble.load, OutputFiles, Options.
    overwrite: replace existing files.
    skip_existing: keep existing files, and predict only images that lack some.

  Returns:
    {image: reason} for those that could not be predicted.

  Raises:
    UserError: inputs.py refuses the files, or no image could be predicted.
  """
  if overwrite and skip_existing:
    raise UserError('--overwrite replaces what --skip_existing keeps: give one of them')
  items, folder, runs = list_items(source, output), files.to_path(output), open_runs(workdirs)
  experiment = runs[0].experiment
  outputs.check(experiment)
  plan = functools.partial(plan_outputs, items, folder, overwrite=overwrite, keep=skip_existing)
  plan(outputs.endings)  # before the network is loaded
  set_up_jax(experiment.settings)
  detects = len(runs) == 1 and 'detections' in entries_of(experiment)
  outputs = dataclasses.replace(outputs, instances=detects)
  open_network = functools.partial(load_runs, runs, step, **vars(options or Options()))
  predictor = None if skip_existing else open_network()  # there may be nothing to do
  log_context = contextlib.nullcontext()
  if outputs.instances:
    plan(outputs.endings, shared=[coco_json.NAME])
    log_context = coco_json.Log(folder, [item.stem for item in items], goes_on=skip_existing)
  with log_context as log, any_size():
    todo = [i for i in items if not (skip_existing and _is_done(i, folder, outputs, log))]
    existing = 'replace' if overwrite else 'keep' if skip_existing else 'refuse'
    failed = {}
    if todo:
      predictor = predictor or open_network()
      todo = in_programs(predictor, todo)
      _tell_numbers(runs[0].classes)
      failed = _Job(predictor, folder, outputs, log, existing).run(todo)
  if len(failed) == len(items):
    first = next(iter(failed.values()))
    raise UserError(f'none of {len(items)} images could be predicted; the first: {first}')
  if log:
    coco_json.write(folder, items, log.results, runs[0].classes.names, _category_ids(runs[0]))
  skipped = f', {len(items) - len(todo)} were there already' if skip_existing else ''
  say(f'{len(todo) - len(failed)} of {len(items)} images predicted into {output}{skipped}')
  say(*(f'  not {reason}' for reason in failed.values()))
  return failed


def _tell_numbers(classes: Classes) -> None:
  """Says which number a class has in predicted masks, if the data's masks have others."""
  named = enumerate(zip(classes.names, classes.ids or range(len(classes.names)), strict=True))
  if renumbered := [f'{i} is {name} ({own})' for i, (name, own) in named if own != i]:
    say(f'note      masks number the classes from 0: {abbreviate(renumbered)} in your data')


def _category_ids(run: Run) -> Sequence[int | str]:
  """Returns the class ids of the raw data; older runs did not save COCO's."""
  dataset = parts.load('datasets', run.experiment.data.name)
  count = len(run.classes.names)
  ids = run.classes.ids or getattr(dataset, 'CATEGORY_IDS', ())
  return ids if len(ids) == count else range(count)


def _is_done(
  item: InputImage, folder: Path, outputs: OutputFiles, log: coco_json.Log | None
) -> bool:
  """Whether all outputs of an image exist."""
  paths = (folder / f'{item.stem}{ending}' for ending in outputs.endings)
  return (log is None or item.stem in log.results) and all(path.exists() for path in paths)


def in_programs(predictor: BasePredictor, items: Sequence[InputImage]) -> list[InputImage]:
  """Orders images so that those that share a compiled program are consecutive."""
  if len(items) < 2 or predictor.options.tile:
    return list(items)
  options = dict(name=lambda item: item.name, timeout=predictor.experiment.data.timeout)
  sizes = threads.results(header_size, items, **options)
  canvases = [predictor.canvas(*size) if size else () for size in sizes]
  count = len(set(canvases))
  if count > MANY_PROGRAMS and not predictor.options.multiple:
    say(
      f'{count} image sizes, each compiled for by itself as in evaluation: --multiple=64 would share '
      'programs, with other numbers where padding reaches'
    )
  first = {canvas: i for i, canvas in reversed(list(enumerate(canvases)))}
  order = sorted(range(len(items)), key=lambda i: first[canvases[i]])
  return [items[i] for i in order]


class _Job:
  """One pass over many images: threads read and write, this one predicts.

  Args:
    predictor: of all images.
    folder: of the results.
    outputs: outputs beside the masks.
    log: collects the detections.
    existing: 'replace' or 'keep' a file that exists once its new version is complete, or 'refuse' to
      continue.
  """

  def __init__(
    self,
    predictor: BasePredictor,
    folder: Path,
    outputs: OutputFiles,
    log: coco_json.Log | None = None,
    existing: Literal['replace', 'keep', 'refuse'] = 'refuse',
  ):
    self._predictor, self._folder, self._outputs = predictor, folder, outputs
    self._log, self._existing = log, existing
    self._progress: Callable[[float], None] = lambda fraction: None  # of the current image

  def run(self, items: Sequence[InputImage]) -> dict[str, str]:
    """Predicts the images; returns {name: reason} of those that failed."""
    failed: dict[str, str] = {}
    options = dict(name=lambda item: item.name, timeout=self._predictor.experiment.data.timeout)
    try:
      with ProgressLine('predicted', len(items)) as show, threads.Backlog() as backlog:
        for done, (item, image) in enumerate(threads.futures(self._read, items, **options)):
          note = f'{len(failed)} bad' if failed else ''
          self._progress = lambda fraction, done=done, note=note: show(done + fraction, note)
          problem = self._predict_or_explain(item, image, backlog)
          failed |= {item.name: problem} if problem else {}
          show(done + 1, f'{len(failed)} bad' if failed else '')
    except KeyboardInterrupt:
      raise KeyboardInterrupt(
        'the same command with --skip_existing goes on with what is missing'
      ) from None
    return failed

  def _read(self, item: InputImage) -> np.ndarray:
    data = self._predictor.experiment.data
    return read_image(item, channels=data.channels, dtype=data.dtype)

  def _predict_or_explain(self, item: InputImage, reading: Future, backlog: threads.Backlog) -> str:
    """Predicts an image and queues its files; returns the error message, '' on success."""
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
      resized = self._predictor.experiment.eval.short_side  # the network's input is no larger
      remedy = 'a smaller copy of it' if resized else '--tile=512,512'
      return f'{item.name}: the device has too little memory for it: try {remedy}'
    backlog.submit(self._write, item, image, prediction)
    return ''

  def _predict(self, item: InputImage, image: np.ndarray) -> dict[str, Any]:
    """Runs the network; streams probabilities to disk, and logs detections."""
    maps = self._outputs.probabilities or self._outputs.uncertainty
    if maps or self._predictor.comes_in_bands(image.shape[:2]):
      return self._predict_bands(item, image)
    prediction = self._predictor.predict(image)
    if self._log:
      self._log.add(item.stem, prediction['detections'])
    return prediction

  def _predict_bands(self, item: InputImage, image: np.ndarray) -> dict[str, np.ndarray]:
    size = image.shape[:2]
    prediction = {'mask': np.empty(size, np.uint8)}
    if self._outputs.uncertainty:
      prediction['uncertainty'] = np.empty(size, np.float32)
    with self._probabilities(item, size) as probabilities:
      for band in self._predictor.bands(image):
        rows = slice(band.top, band.top + len(band.mask))
        for name, array in prediction.items():
          array[rows] = getattr(band, name)
        if probabilities is not None:
          probabilities.write(np.ascontiguousarray(band.probabilities, PROBABILITY))
        self._progress(rows.stop / size[0])
    return {**prediction, 'mask': self._predictor.cleaned(prediction['mask'])}

  @contextlib.contextmanager
  def _probabilities(self, item: InputImage, size: tuple[int, int]) -> Iterator[BinaryIO | None]:
    """Yields an open .npy file for the rows of an array [h, w, k]; None if not requested."""
    file = self._folder / f'{item.stem}_probabilities.npy'
    if not self._outputs.probabilities or self._is_kept(file):
      yield None
      return
    shape = (*size, self._predictor.experiment.settings.num_classes)
    header = {'descr': PROBABILITY.str, 'fortran_order': False, 'shape': shape}
    with self._new_file(file) as part:  # no memory map: on a full disk it would crash the process
      np.lib.format.write_array_header_1_0(part, header)
      yield part

  @contextlib.contextmanager
  def _new_file(self, file: Path) -> Iterator[BinaryIO]:
    """Yields an open file that gets its name once it is complete."""
    with writing(file):
      try:
        with files.new_file(file, replace=self._existing == 'replace') as part:
          yield part
      except FileExistsError:
        if self._existing == 'refuse':
          raise UserError(f'{file} {IN_THE_WAY}') from None

  def _is_kept(self, file: Path) -> bool:
    return self._existing == 'keep' and file.exists()

  def _write(self, item: InputImage, image: np.ndarray, prediction: dict[str, Any]) -> None:
    for ending, save in self._writers(image, prediction):
      file = self._folder / f'{item.stem}{ending}'
      if not self._is_kept(file):
        with self._new_file(file) as part:
          save(part)

  def _writers(
    self, image: np.ndarray, prediction: dict[str, Any]
  ) -> Iterator[tuple[str, Callable[[BinaryIO], None]]]:
    """Yields (ending, function that writes the file); the mask comes last, to mark the image as done."""
    classes, mask = self._predictor.classes, prediction['mask']
    if self._outputs.overlay:
      overlay = functools.partial(labels.overlay, image, mask, classes.palette)
      if 'ids' in prediction:
        overlay = functools.partial(objects.overlay, image, prediction['ids'])
      yield '_overlay.png', lambda part: labels.save(part, overlay())
    if self._outputs.uncertainty:
      sampled, uncertainty = self._predictor.options.samples > 0, prediction['uncertainty']
      picture = functools.partial(labels.heat, uncertainty, len(classes.names), sampled=sampled)
      yield '_uncertainty.npy', lambda part: np.save(part, uncertainty)
      yield '_uncertainty.png', lambda part: labels.save(part, picture())
    if self._outputs.instances:
      yield '_instances.png', lambda part: objects.save_numbers(part, prediction['ids'])
    yield '.png', lambda part: labels.save_palette_png(part, mask, classes.palette)
