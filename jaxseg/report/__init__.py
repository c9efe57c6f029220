"""One offline HTML file about a run, or about several side by side: no script, no request, no data.

`write` reads a workdir as training left it (config.json, run.json, metrics.jsonl, eval/*.json and the
best checkpoint) and scores images of the evaluation split one by one for the worst and the best.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from jaxseg import files
from jaxseg.report import comparison, images, single
from jaxseg.report.collect import Run, collect
from jaxseg.train.writer import Progress
from jaxseg.types import StuckError, UserError

__all__ = ['Run', 'after_training', 'collect', 'write']


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
    step: whose predictions are shown: 'best' | 'latest' | a number.
    max_images: images of the evaluation split that are scored, evenly drawn; 0: none.
    seconds: no further image is begun after so many.
    progress: one that is open already (a terminal shows one live line); None: its own.

  Returns:
    The file.

  Raises:
    UserError: a folder without a run or checkpoint, or a file that cannot be written.
  """
  folders = [files.absolute(w) for w in workdirs]
  if len(set(folders)) < len(folders):
    raise UserError('a folder is given twice: give each run once')
  if len(folders) == 1:
    run, found = collect(folders[0]), None
    with contextlib.nullcontext(progress) if progress else Progress() as shown:
      if max_images:
        found = images.score(run, step, max_images, seconds, shown.show)
    text, default = single.page(run, found), folders[0] / 'report.html'
  else:
    text = comparison.page([collect(folder) for folder in folders])
    default = folders[0].parent / 'comparison.html'
  file = files.absolute(output) if output else default
  try:
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(file, text)
  except OSError as e:
    raise UserError(f'--output={file}: {e.strerror}; choose a file that can be written') from e
  return file


def after_training(workdir: Path, progress: Progress) -> None:
  """Writes the report of a run that has reached its last step; a failure is told, never raised.

  With `config.figures` 0 no image is scored.

  Raises:
    StuckError: a read that is stuck: the process would never end.
  """
  try:
    run = collect(workdir)
    if run.last_step < run.config.num_steps:
      return
    count = images.MAX_IMAGES if run.config.figures else 0
    progress.say(f'report    {write([workdir], max_images=count, seconds=60.0, progress=progress)}')
  except StuckError:  # its thread is still there: see jaxseg.console.run
    raise
  except Exception as e:  # whatever it is, the training is done and saved
    reason = ' '.join(str(e).split())[:160]
    progress.say(f'no report: {type(e).__name__}: {reason}; try python launch/report.py {workdir}')
