"""The progress bar of a tuning, on stderr: steps, loss, time left."""

from __future__ import annotations

import time

from rich.console import Console

from workflow.bars import Bar

SMOOTH = 0.9  # share of the loss shown that comes from earlier steps


class TrainingBar(Bar):
    """Shows how a tuning goes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "steps")
        self._steps = self._first = 0
        self._loss: float | None = None
        self._tuning: float | None = None
        self._began = time.monotonic()

    def started(self, steps: int, done: int) -> None:
        """Sets the length of the bar."""
        self._steps, self._first, self._began = steps, done, time.monotonic()
        self._bar.reset(self._task, total=steps, completed=done, description="tuning")

    def step(self, done: int, loss: float) -> None:
        """Moves the bar by one step."""
        self._loss = loss if self._loss is None else SMOOTH * self._loss + (1 - SMOOTH) * loss
        self._bar.update(self._task, completed=done, note=self._note())
        each = (time.monotonic() - self._began) / max(done - self._first, 1)
        left = f"{each:.1f} s a step, {each * (self._steps - done) / 60:.0f} min left"
        self._line(f"{done} of {self._steps} steps, {self._note()}, {left}", at_once=done == self._steps)

    def evaluated(self, done: int, loss: float) -> None:
        """Shows the loss of the tuning rows."""
        self._tuning = loss
        self._bar.update(self._task, note=self._note())

    def remark(self, text: str) -> None:
        """Writes a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _note(self) -> str:
        parts = (("loss", self._loss), ("tuning rows", self._tuning))
        return "  ".join(f"{name} {value:.3f}" for name, value in parts if value is not None)
