"""What the loop knows about its run: figures so far, the best evaluation, time."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.training.checkpoint import NotFinite
from abaw_jax.training.writers import Writer


@dataclasses.dataclass
class Progress:
    """What a checkpoint says beside the state, so that a resumed run goes on as if never stopped.

    run: the caller's JSON values. sums: name -> [sum, weight] since the last line of the log.
    last, best: {'step', 'metrics'} of the last and the best evaluation, or None.
    stale: evaluations since the best.
    """

    run: dict[str, Any]
    sums: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    last: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    stale: int = 0

    def dump(self) -> dict[str, Any]:
        """As JSON values."""
        return dataclasses.asdict(self)

    @staticmethod
    def load(saved: dict[str, Any], run: dict[str, Any], source: str) -> "Progress":
        """From a checkpoint's metadata. Raises InputError where its `run` is not the caller's."""
        now = json.loads(json.dumps(run))
        for key in sorted(saved["run"].keys() | now.keys()):
            old, new = saved["run"].get(key), now.get(key)
            if old != new:
                raise InputError(
                    f"{source}: was trained with {key} {old!r}, now it is {new!r}; give the "
                    "old value, or another workdir"
                )
        fields = [field.name for field in dataclasses.fields(Progress)]
        return Progress(**{name: saved[name] for name in fields})

    def evaluated(self, step: int, figures: dict[str, float], best: str | None) -> None:
        """Take note of an evaluation. Of equals the first is the best."""
        self.last = {"step": step, "metrics": figures}
        if best is None:
            return
        if best not in figures:
            raise InputError(
                f"best: '{best}'; expected one of what the evaluation gives: {', '.join(figures)}"
            )
        if not math.isfinite(figures[best]):
            raise NotFinite(f"step {step}: evaluation's {best} is {figures[best]}")
        better = self.best is None or figures[best] > self.best["metrics"][best]
        self.stale = 0 if better else self.stale + 1
        self.best = self.last if better else self.best

    def exhausted(self, patience: int | None) -> bool:
        """Whether `patience` evaluations in a row brought nothing better."""
        return patience is not None and self.stale >= patience


class Clock:
    """Training time: from `start` on, less what is spent inside `pause`."""

    def __init__(self):
        self._begun = time.perf_counter()
        self._paused = 0.0

    def elapsed(self) -> float:
        """Seconds of training so far."""
        return time.perf_counter() - self._begun - self._paused

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out what happens inside: evaluating, saving."""
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start


class LateMetrics:
    """Reads each step's metrics one step late, so that the devices never wait for the host."""

    def __init__(
        self, progress: Progress, writer: Writer, *, step: int, every: int, size: int, unit: str
    ):
        self.clock = Clock()
        self._progress, self._writer = progress, writer
        self._every, self._size, self._unit = every, size, unit
        self._waiting: tuple[int, Any] | None = None
        self._first = self._line = (step, 0.0)

    def push(self, step: int, metrics: Any) -> None:
        """Keep this step's metrics and read those of the step before."""
        before, self._waiting = self._waiting, (step, metrics)
        if before is not None:
            self._read(*before)

    def drain(self) -> None:
        """Read what is kept. Raises NotFinite, naming the step and the metric."""
        before, self._waiting = self._waiting, None
        if before is not None:
            self._read(*before)

    def busy(self) -> bool:
        """Whether the devices still work on the last step."""
        if self._waiting is None:
            return False
        return not all(leaf.is_ready() for leaf in jax.tree.leaves(self._waiting[1]))

    def rate(self) -> float:
        """Examples a second over the whole of this process's training time."""
        return (self._line[0] - self._first[0]) * self._size / max(self._line[1], 1e-9)

    def _read(self, step: int, metrics: Any) -> None:
        sums = self._progress.sums
        for name, (value, weight) in jax.device_get(metrics).items():
            if not np.isfinite(value).all():
                raise NotFinite(f"step {step}: {name} is {value / max(weight, 1)}")
            if np.ndim(value) == 0:
                total = sums.setdefault(name, [0.0, 0.0])
                total[0] += float(value)
                total[1] += float(weight)
        loss = sums["loss"][0] / max(sums["loss"][1], 1e-9)
        rate = self._rate_since_line(step)
        self._writer.progress(step, loss=f"{loss:.4f}", speed=f"{rate:.1f} {self._unit}/s")
        if step % self._every == 0:
            self.write_line(step)

    def _rate_since_line(self, step: int) -> float:
        seconds = self.clock.elapsed() - self._line[1]
        return (step - self._line[0]) * self._size / max(seconds, 1e-9)

    def write_line(self, step: int) -> None:
        """Write the means since the last line. What had no weight (no labels) is left out."""
        sums = self._progress.sums
        means = {name: total / weight for name, (total, weight) in sums.items() if weight}
        if means:
            rate = self._rate_since_line(step)
            self._writer.write(step, {**means, f"{self._unit}_per_second": rate})
        sums.clear()
        self._line = (step, self.clock.elapsed())
