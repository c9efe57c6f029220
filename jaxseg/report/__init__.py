"""A self-contained HTML report of one run, or of several side by side, without scripts or requests.

`write` reads a workdir (config.json, run.json, metrics.jsonl, eval/*.json and the best checkpoint), and
scores images of the evaluation split one by one to show the worst and the best. The layout is in
templates/. `hooks` show figures during training and the report at its end.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxseg import files
from jaxseg.console import Progress, command
from jaxseg.report import comparison, images, single
from jaxseg.report.baseline import Baseline
from jaxseg.report.figures import Figures
from jaxseg.report.runs import RunSummary, collect
from jaxseg.train.journal import Hook, RunView
from jaxseg.types import UserError

_BEGIN, _MARK = b'<!doctype html>', b'<footer>Written by jaxseg.'  # the mark ends every page
_END = 400  # bytes that hold the mark

__all__ = ['RunSummary', 'collect', 'hooks', 'write']


def write(
  workdirs: Sequence[str | Path],
  output: str | Path | None = None,
  *,
  step: str = 'best',
  max_images: int = images.MAX_IMAGES,
  seconds: float = images.SECONDS,
  progress: Progress | None = None,
) -> Path:
  """Writes the report of one run, or the comparison of several.

  Args:
    workdirs: written by jaxseg.train.train.train.
    output: default report.html in the workdir, comparison.html beside the first of several.
    step: checkpoint of each run to show predictions of: 'best' | 'latest' | a number.
    max_images: number of images of the evaluation split to score, randomly drawn; 0: none.
    seconds: time limit after which no further image is started.
    progress: an open one (a terminal shows one live line); None: a new one.

  Returns:
    The report's path.

  Raises:
    UserError: a folder without a run or checkpoint, or a file that cannot be written.
  """
  folders = [files.absolute(w) for w in workdirs]
  if len(set(folders)) < len(folders):
    raise UserError('a folder is given twice: give each run once')
  default = (
    folders[0] / 'report.html' if len(folders) == 1 else folders[0].parent / 'comparison.html'
  )
  file = files.absolute(output) if output else default
  replace = _is_report(file)
  runs = [collect(folder) for folder in folders]
  with contextlib.nullcontext(progress) if progress else Progress() as shown:
    scored, limits = None, (step, max_images, seconds, shown)
    if len(runs) == 1:
      if max_images:
        scored = images.score(runs[0], *limits)
      text = single.page(runs[0], scored)
    else:
      named = comparison.by_name(runs)
      if max_images and comparison.share_images(runs):
        scored = images.compare(named, *limits)
      text = comparison.page(named, scored)
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(file, text, replace=replace)
  except OSError as e:
    raise UserError(f'--output={file}: {e.strerror}; choose a file that can be written') from e
  return file


def _is_report(file: Path) -> bool:
  """Whether the file is an earlier report. Raises UserError if it is anything else."""
  try:
    page = files.read_bytes(file)
    if page.startswith(_BEGIN) and _MARK in page[-_END:]:
      return True
  except FileNotFoundError:
    return False
  raise UserError(f'--output={file} exists and is not a report: choose another name')


def hooks() -> list[Hook]:
  """Returns the hooks of training: figures at every evaluation, baseline and report at the end."""
  return [Figures(), Baseline(), Report()]


class Report:
  """Writes the report of a finished run; with config.log.figures=0 without scored images."""

  remedy = f'{command("report")} writes it'

  def on_evaluation(self, run: RunView, step: int, variables: Any, summary: dict[str, Any]) -> None:
    """Does nothing."""

  def on_end(self, run: RunView) -> None:
    if not collect(run.folder).is_finished:
      return
    count = images.MAX_IMAGES if run.experiment.log.figures else 0
    file = write([run.folder], max_images=count, seconds=60.0, progress=run.progress)
    run.say(f'report    {file}')
