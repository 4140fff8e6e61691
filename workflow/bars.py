"""Progress on stderr: a bar; a plain line now and then where no terminal is there; JSON lines with `--log-json`."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from workflow import logs

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
            disable=not console.is_terminal or console.quiet or logs.as_json(),
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
        if (not self._console.is_terminal or logs.as_json()) and (at_once or now - self._last_line >= LINE_EVERY):
            self._last_line = now
            if logs.as_json():
                logs.event("progress", text)
            else:
                self._console.print(text, highlight=False)


class CountBar(Bar):
    """Shows how many of so many are done; a new description begins a new count.

    Args:
        console: where to draw.
        unit: what is counted, in the plural.
    """

    def __init__(self, console: Console, unit: str) -> None:
        super().__init__(console, unit)
        self._unit, self._what, self._began = unit, "", time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Moves the bar.

        Args:
            what: what is going on.
            done: how many are done.
            total: of how many; 0: not known.
        """
        if what != self._what:
            self._what, self._began = what, time.monotonic()
            self._bar.reset(self._task, total=total or None, completed=done, description=what)
        self._bar.update(self._task, completed=done, total=total or None, description=what)
        left = (time.monotonic() - self._began) * (total - done) / done if 0 < done < total else 0.0
        of = f" of {total:,}" if total else ""
        self._line(f"{what}: {done:,}{of} {self._unit}" + (f", {left:.0f} s left" if left else ""))
