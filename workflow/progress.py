"""How a replay goes, on stderr: cases, rollouts, speed and time left."""

from __future__ import annotations

import time

from rich.console import Console

from workflow import logs
from workflow.bars import LINE_EVERY, Bar
from workflow.case_worker import CaseReport
from workflow.runner import Listener

__all__ = ["LINE_EVERY", "Bar", "ProgressBar"]


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
        words = f"case {report.case_id} done"
        logs.event("case", words, case_id=report.case_id, statuses=report.statuses, rollouts=report.rollouts)
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
