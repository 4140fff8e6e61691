"""Progress on stderr: a bar, or a plain line now and then; of a replay cases, rollouts, speed and time left."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from workflow.case_worker import CaseReport
from workflow.runner import Listener

LINE_EVERY = 30.0  # seconds between lines where no terminal is there to draw a bar


class Bar:
    """A progress bar with one task. Where stderr is no terminal, a plain line every half minute.

    Args:
        console: where to draw.
        unit: what is counted, in the plural.
    """

    def __init__(self, console: Console, unit: str) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn(f"{unit}  {{task.fields[note]}}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("loading", total=None, note="")
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def _line(self, text: str, *, at_once: bool = False) -> None:
        """Writes a plain line where there is no bar, if the last one is half a minute old or it must be `at_once`."""
        now = time.monotonic()
        if not self._console.is_terminal and (at_once or now - self._last_line >= LINE_EVERY):
            self._last_line = now
            self._console.print(text, highlight=False)


class ProgressBar(Bar, Listener):
    """Shows how a run goes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "cases")
        self._steps = self._rollouts = self._current = self._computed = 0
        self._cases = self._finished = 0
        self._began: float | None = None

    def started(self, cases: int, done: int, steps: int) -> None:
        """Sets the length of the bar."""
        self._cases, self._finished = cases, done
        self._bar.update(self._task, total=cases, completed=done, description="loading")
        self._bar.reset(self._task, total=cases, completed=done, description="loading")

    def rollout(self, rollouts: int, computed: int) -> None:
        """Shows the rollouts of the step at work."""
        self._current = rollouts
        self._computed = max(self._computed, computed)
        self._show()

    def finished(self, report: CaseReport) -> None:
        """Moves the bar by one case."""
        self._finished += 1
        self._steps += len(report.statuses)
        self._rollouts += report.rollouts
        self._current = 0
        self._bar.update(self._task, completed=self._finished)
        self._show(report.work.get("computed", 0))

    def _show(self, computed: int = 0) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = now
        elapsed = now - self._began
        speed = f"  {self._computed / elapsed:,.0f} tokens/s" if elapsed > 1 and self._computed else ""
        note = f"{self._steps} steps  {self._rollouts + self._current} rollouts{speed}"
        self._bar.update(self._task, description="replaying", note=note)
        self._line(f"{self._finished} of {self._cases} cases, {note}")
