"""What a run says of itself: metrics.jsonl, TensorBoard and a progress bar, from process 0."""

import json
import math
import pathlib
import sys

import tqdm
from tensorboardX import SummaryWriter

from abaw_jax.files import atomic_write


class Writer:
    """One writer for the three. On any process but 0 every method does nothing.

    metrics.jsonl has one JSON object a line, each with its `step`. Opened again at step n it keeps
    the lines up to n: what a killed run wrote after its last checkpoint will be written again.
    """

    def __init__(
        self, workdir: pathlib.Path, *, start: int, steps: int, label: str, active: bool = True
    ):
        self.active = active
        if not active:
            return
        path = workdir / "metrics.jsonl"
        _truncate(path, start)
        self._file = open(path, "a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
        # In a log file a line every 30 s is enough; a terminal gets a live bar.
        self._bar = tqdm.tqdm(
            total=steps,
            initial=start,
            desc=label,
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            dynamic_ncols=True,
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Record figures of a step. What is not finite is written as null."""
        if not self.active:
            return
        safe = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **safe}, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def progress(self, step: int, **shown: str) -> None:
        """Move the bar to `step`; tqdm itself adds steps/s and the time left."""
        if self.active:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Flush and close all three."""
        if self.active:
            self._bar.close()
            self._board.close()
            self._file.close()


def _truncate(path: pathlib.Path, step: int) -> None:
    """Drop the lines after `step`, and a last line that a killed process left unfinished."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            whole = line.endswith("\n") and json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            whole = False
        if whole:
            kept.append(line)
    with atomic_write(path, "w") as file:
        file.writelines(kept)
