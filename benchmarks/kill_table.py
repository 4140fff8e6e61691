"""`make bench-kill`: kills a replay with SIGKILL at random moments, resumes it, and says what that cost.

    python -m benchmarks.kill_table [--kills 100] [--seed 1] [--generator random:7] [--cases 4] [--rollouts 4] [--json]

Each run is a replay of bundled cases in a process of its own. It is killed once or twice (the second time while it
resumes), then resumed to its end and compared with an undisturbed run: bytes of records (without `seconds`, the wall
time) and of prompts with their token ids. Half of the moments are drawn evenly over the duration of a session; half are
aimed at a phase (loading, commit, checkpoint, search), at a random one of its occurrences and a random moment within
it, as commits and checkpoints are too short to be hit often by chance. The generations of the `random` model are kept
here, as those of a real model are, so that calls can be counted.

A forked process runs the command line, so what is killed has its libraries loaded already: a kill before that touches
nothing. Exit code 1 if anything was lost, done twice, called again or recorded differently.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.kill_marks import CHECKPOINT, COMMIT, LOADING, PHASES, SEARCH, Marks, watch

RUN = "one"
STEPS = ("admission_diagnosis", "discharge_diagnosis")
AIMS = (COMMIT, CHECKPOINT, LOADING, SEARCH)


@dataclass(frozen=True)
class Kill:
    """One kill: where it hit, steps that had to be done again, and what became of the run it was in."""

    where: str
    steps_redone: int
    calls_lost: int
    resuming: bool
    identical: bool = False
    steps_twice: int = 0
    calls_repeated: int = 0


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: its bytes, duration, calls to the model, and marks."""

    rows: tuple[bytes, bytes]
    seconds: float
    calls: int
    times: list[int]
    phase_seconds: list[float]


class Field:
    """A database with cases, copies of it to be replayed, and the commands for that."""

    def __init__(self, folder: Path, generator: str, cases: int, rollouts: int, bundles: Path | None = None) -> None:
        import workflow.runner  # noqa: F401  (loaded here, so that each session begins at once)
        from clinical_data.case import Coding
        from clinical_data.codes_icd import icd_classes
        from clinical_data.demo import bundle_folder
        from workflow.cli import main
        from workflow.importing import import_cases

        self._main = main
        icd_classes(Coding("http://hl7.org/fhir/sid/icd-10-cm", "J18.9"))  # the hierarchy loads
        self._fresh, self._used = folder / "fresh.db", folder / "used.db"
        some = folder / "bundles"
        some.mkdir()
        for path in sorted(Path(bundles or bundle_folder()).glob("*.json.gz"))[:cases]:
            shutil.copy(path, some)
        import_cases(f"sqlite:///{self._fresh}", "fhir", some)
        self.url = f"sqlite:///{self._used}"
        own = ["--pathway", "inpatient", "--steps", ",".join(STEPS), "--generator", generator]
        own += ["--seed", "5", "--rollouts", str(rollouts)]
        self.replay = ["replay", "--db", self.url, "--run", RUN, *own]
        self.resume = ["resume", "--db", self.url, "--run", RUN]
        self.marks = Marks()
        self._log = folder / "log.txt"

    def renew(self) -> None:
        """Starts from the imported cases again: no run, no generation, no checkpoint."""
        for path in self._used.parent.glob(f"{self._used.name}*"):
            path.unlink()
        shutil.copy(self._fresh, self._used)

    def begin(self, command: list[str]) -> int:
        """Starts a command in a process of its own and returns its id."""
        self.marks.clear()
        gc.freeze()
        pid = os.fork()
        if pid:
            return pid
        try:
            log = os.open(self._log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            for stream in (1, 2):
                os.dup2(log, stream)
            watch(self.marks)
            self._main(command)
        except SystemExit as left:
            os._exit(int(left.code or 0))
        finally:
            os._exit(99)

    def end(self, pid: int) -> None:
        """Waits for a process that must end well.

        Raises:
            RuntimeError: it did not; what it said is in the message.
        """
        _, state = os.waitpid(pid, 0)
        if state:
            raise RuntimeError(f"a session ended with {state}: {self._log.read_text(errors='replace')}")

    def stored(self) -> dict[tuple[str, str], str]:
        """Returns (case, step) -> when it was stored; none before the run is begun."""
        from sqlalchemy import select

        from clinical_data.store.engine import reading
        from evaluation.store import existing_database
        from evaluation.store.tables import case_steps as table

        with existing_database(self.url) as engine, reading(engine) as connection:
            return {(r.case_id, r.step): r.created for r in connection.execute(select(table))}

    def begun(self) -> bool:
        """Says whether the row of the run is stored."""
        from evaluation.store import existing_database
        from evaluation.store.run_store import RunStore

        with existing_database(self.url) as engine:
            return bool(RunStore(engine).runs())

    def rows(self) -> tuple[bytes, bytes]:
        """Returns records without `seconds`, and prompts with token ids, as bytes."""
        from evaluation.rows import prompt_rows, record_rows
        from evaluation.store import existing_database
        from evaluation.store.run_store import RunStore

        with existing_database(self.url) as engine:
            store = RunStore(engine)
            run = store.get(RUN)
            records = [{k: v for k, v in row.items() if k != "seconds"} for row in record_rows(store, run)]
            return _lines(records), _lines(prompt_rows(store, run, tokens=True))


def _lines(rows: Any) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def undisturbed(field: Field) -> Whole:
    """Runs a replay to its end; twice, as the first one warms up."""
    field.renew()
    field.end(field.begin(field.replay))
    field.renew()
    began = time.perf_counter()
    field.end(field.begin(field.replay))
    seconds, marks = time.perf_counter() - began, field.marks.read()
    return Whole(field.rows(), seconds, marks.calls, list(marks.times), list(marks.seconds))


def moment(field: Field, whole: Whole, dice: random.Random, aim: int | None) -> Callable[[int], bool]:
    """Returns a function that waits for a random moment of a session; it says whether the session was alive then."""
    if aim is None:
        wait = dice.uniform(0, whole.seconds)
        nth = 0
    else:
        nth = dice.randint(1, max(whole.times[aim], 1))
        mean = whole.phase_seconds[aim] / max(whole.times[aim], 1)
        wait = dice.uniform(0, mean or 0.02)

    def reached(pid: int) -> bool:
        while nth and field.marks.read().times[aim or 0] < nth:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return False
            time.sleep(0.0002)
        time.sleep(wait)
        return not os.waitpid(pid, os.WNOHANG)[0]

    return reached


def disturbed(field: Field, whole: Whole, dice: random.Random, aims: list[int | None]) -> list[Kill]:
    """Replays once, kills as often as there are aims, resumes to the end, and returns the kills that came in time."""
    field.renew()
    kills: list[Kill] = []
    calls = lost = twice = 0
    before = field.stored()
    for aim in aims:
        command = field.resume if field.begun() else field.replay
        pid = field.begin(command)
        alive = moment(field, whole, dice, aim)(pid)
        if alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        marks, now = field.marks.read(), field.stored()
        twice += sum(now.get(key) != created for key, created in before.items())
        done = len(now) - len(before)
        calls, lost = calls + marks.calls, lost + marks.lost_calls(done)
        if alive:
            redone, again = marks.steps - done, command == field.resume
            kills.append(Kill(PHASES[marks.phase], redone, marks.lost_calls(done), again))
        before = now
    field.end(field.begin(field.resume if field.begun() else field.replay))
    calls += field.marks.read().calls
    now = field.stored()
    twice += sum(now.get(key) != created for key, created in before.items())
    same, repeated = field.rows() == whole.rows, calls - lost - whole.calls
    return [Kill(k.where, k.steps_redone, k.calls_lost, k.resuming, same, twice, repeated) for k in kills]


def measure(
    kills: int, seed: int, generator: str, cases: int, rollouts: int, tell: Callable[[str], None] = lambda text: None
) -> tuple[Whole, list[Kill]]:
    """Kills so many times and returns an undisturbed run, and the kills."""
    with tempfile.TemporaryDirectory(prefix="wardstar-kill-") as name:
        field = Field(Path(name), generator, cases, rollouts)
        dice, whole = random.Random(seed), undisturbed(field)
        found: list[Kill] = []
        turn = 0
        while len(found) < kills:
            aims: list[int | None] = []
            for _ in range(min(dice.randint(1, 2), kills - len(found))):
                aims.append(None if turn % 2 else AIMS[turn // 2 % len(AIMS)])
                turn += 1
            found += disturbed(field, whole, dice, aims)
            tell(f"{len(found)} of {kills} kills")
        return whole, found


def table(found: list[Kill]) -> list[dict[str, Any]]:
    """Returns a row per phase, and one for all."""
    by_phase: dict[str, list[Kill]] = defaultdict(list)
    for kill in found:
        by_phase[kill.where].append(kill)
    groups = [(p, by_phase[p]) for p in PHASES if by_phase[p]] + [("all", found)]
    return [
        {
            "where the kill hit": phase,
            "kills": len(some),
            "while resuming": sum(k.resuming for k in some),
            "records identical": sum(k.identical for k in some),
            "case-steps redone": sum(k.steps_redone for k in some),
            "calls of these": sum(k.calls_lost for k in some),
            "case-steps stored twice": max((k.steps_twice for k in some), default=0),
            "stored calls repeated": max((k.calls_repeated for k in some), key=abs, default=0),
        }
        for phase, some in groups
    ]


def main() -> int:
    """Kills as the command line says and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--generator", default="random:7")
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    own = (chosen.kills, chosen.seed, chosen.generator, chosen.cases, chosen.rollouts)
    whole, found = measure(*own, tell=lambda text: print(f"\r{text}", end="", file=sys.stderr, flush=True))
    print(file=sys.stderr)
    if chosen.json:
        print(json.dumps({"seconds": whole.seconds, "calls": whole.calls, "kills": [asdict(k) for k in found]}))
    else:
        from workflow.commands.common import out_console, show_table

        rows = table(found)
        show_table(list(rows[0]), [list(r.values()) for r in rows])
        out_console().print(f"an undisturbed run: {whole.seconds:.2f} s, {whole.calls} calls to the model")
    return int(not all(k.identical and not k.steps_twice and not k.calls_repeated for k in found))


if __name__ == "__main__":
    sys.exit(main())
