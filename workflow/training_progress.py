"""The progress bar of a tuning, on stderr: steps, loss, time left."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from workflow.progress import LINE_EVERY

SMOOTH = 0.9  # share of the loss shown that comes from earlier steps


class TrainingBar:
    """Shows how a tuning goes. Where stderr is no terminal, a plain line every half minute."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("steps  {task.fields[note]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("loading", total=None, note="")
        self._steps = self._first = 0
        self._loss: float | None = None
        self._tuning: float | None = None
        self._began = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def started(self, steps: int, done: int) -> None:
        """Sets the length of the bar."""
        self._steps, self._first, self._began = steps, done, time.monotonic()
        self._bar.reset(self._task, total=steps, completed=done, description="tuning")

    def step(self, done: int, loss: float) -> None:
        """Moves the bar by one step."""
        self._loss = loss if self._loss is None else SMOOTH * self._loss + (1 - SMOOTH) * loss
        self._bar.update(self._task, completed=done, note=self._note())
        now = time.monotonic()
        if not self._console.is_terminal and (now - self._last_line >= LINE_EVERY or done == self._steps):
            self._last_line = now
            each = (now - self._began) / max(done - self._first, 1)
            left = f"{each:.1f} s a step, {each * (self._steps - done) / 60:.0f} min left"
            self._console.print(f"{done} of {self._steps} steps, {self._note()}, {left}", highlight=False)

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
