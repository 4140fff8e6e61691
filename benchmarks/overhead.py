"""What LangGraph, store and records cost beside the search, in time and memory.

    python -m benchmarks.overhead        prints one line of JSON; a section of `make bench`

- Case-steps a second with `random:1`, one worker, SQLite: `greedy` (one path, one conclusion, as little search as there
  is, so that the rest shows) and `rstar` with one rollout; also by processor time of the whole session, which says what
  a core gives that nobody shares. Copies of the bundled cases, two steps of the pathway `inpatient`.
- Share of graph, store and records: wall time of the cases outside `run_search`, over their whole wall time; with the
  embedded model on one case of two steps, two rollouts each; parts of it by name.
- Peak resident memory of a greedy replay of 100 and of 500 cases.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from clinical_data.case import Case, make_finding_id, make_id, sort_findings
from clinical_data.demo import bundle_folder
from clinical_data.ground_truth import LabelledCase
from clinical_data.store.case_store import CaseStore
from evaluation.store import open_database

STEPS_CASES, FEW, MANY = 100, 100, 500
STEPS = ("admission_diagnosis", "discharge_diagnosis")
ROOT = Path(__file__).parents[1]


def copies(url: str, number: int) -> None:
    """Fills a new database with copies of the bundled cases, as patients of their own."""
    from workflow.importing import import_cases

    with tempfile.TemporaryDirectory(prefix="wardstar-copies-") as name:
        bundled = f"sqlite:///{name}/bundled.db"
        import_cases(bundled, "fhir", Path(bundle_folder()))
        engine = open_database(bundled, create=False)
        store = CaseStore(engine)
        found = [LabelledCase(store.get(i), store.truth(i)) for i in store.case_ids()]
        engine.dispose()
    engine = open_database(url, create=True)
    CaseStore(engine).put_many(_copy(found[i % len(found)], i) for i in range(number))
    engine.dispose()


def _copy(one: LabelledCase, number: int) -> LabelledCase:
    case: Case = one.case
    source_id = f"copy{number:05d}"
    patient = replace(case.patient, patient_id=make_id(case.source, source_id), source_id=source_id)
    findings = [replace(f, finding_id=make_finding_id(case.source, source_id, f.finding_id)) for f in case.findings]
    case_id = make_id(case.source, source_id)
    made = replace(
        case, case_id=case_id, source_id=source_id, patient=patient, findings=sort_findings(findings)
    )  # fmt: skip
    return LabelledCase(made, {step: replace(truth, case_id=case_id) for step, truth in one.truth.items()})


class Clock:
    """Wall time by part of the work; parts are told apart by the function that is entered."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Times the parts while the block runs."""
        from evaluation import recording
        from evaluation.store.run_store import RunStore
        from workflow import case_worker, step

        places = [
            (case_worker.CaseWorker, "run", "cases"),
            (step, "run_search", "search"),
            (case_worker.CaseReader, "get", "reading cases"),
            (RunStore, "put", "storing"),
            (recording, "make_record", "records"),
            (case_worker, "run_case", "graph and all in it"),
        ]
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
        for (owner, name, part), (_, _, call) in zip(places, before, strict=True):
            setattr(owner, name, self._timed(part, call))
        try:
            yield
        finally:
            for owner, name, call in before:
                setattr(owner, name, call)

    def _timed(self, part: str, call: Any) -> Any:
        def timed(*args: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **named)
            finally:
                self.seconds[part] += time.perf_counter() - began

        return timed


def run(url: str, name: str, **options: Any) -> tuple[Clock, int]:
    """Replays in this process; returns the times and the number of case-steps."""
    from workflow.config import ReplayOptions
    from workflow.runner import replay

    clock = Clock()
    with clock.watching():
        began = time.process_time()
        summary = replay(url, name, ReplayOptions(steps=STEPS, seed=1, **options), cache=True)
    clock.seconds["processor"] = time.process_time() - began
    if summary.statuses["failed"]:
        raise RuntimeError("case-steps failed")
    return clock, sum(summary.statuses.values())


def peak_mb(url: str, limit: int) -> float:
    """Returns the peak resident memory of a replay in a process of its own."""
    code = "import sys; from benchmarks.overhead import child; child(sys.argv[1], int(sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-c", code, url, str(limit)], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return float(done.stdout)


def child(url: str, limit: int) -> None:
    """Replays greedily and prints its peak resident memory in MB."""
    run(url, f"peak{limit}", generator="random:1", strategy="greedy", limit=limit)
    status = Path("/proc/self/status").read_text().splitlines()  # getrusage would tell of the parent's memory too
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024)


def measure(*, embedded: bool = True, few: int = FEW, many: int = MANY) -> dict[str, float]:
    """Returns the figures."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="wardstar-overhead-") as name:
        url = f"sqlite:///{name}/cases.db"
        copies(url, many)
        run(url, "warm", generator="random:1", strategy="greedy", limit=5)
        for strategy, settings in (("greedy", {}), ("rstar", {"rollouts": 1})):
            own: dict[str, Any] = {"strategy": strategy, "settings": settings, "limit": min(STEPS_CASES, many)}
            clock, steps = run(url, strategy, generator="random:1", **own)
            found[f"case_steps_per_second_{strategy}"] = round(steps / clock.seconds["cases"], 1)
            found[f"case_steps_per_processor_second_{strategy}"] = round(steps / clock.seconds["processor"], 1)
            outside = clock.seconds["cases"] - clock.seconds["search"]
            found[f"milliseconds_beside_search_{strategy}"] = round(1000 * outside / steps, 2)
            if strategy == "greedy":
                found |= _parts(clock, steps)
        if embedded:
            clock, _ = run(url, "embedded", generator="embedded", settings={"rollouts": 2}, limit=1)
            outside = clock.seconds["cases"] - clock.seconds["search"]
            found["share_beside_search_embedded"] = round(outside / clock.seconds["cases"], 5)
        found[f"peak_mb_{few}_cases"] = round(peak_mb(url, few), 1)
        found[f"peak_mb_{many}_cases"] = round(peak_mb(url, many), 1)
    return found


def _parts(clock: Clock, steps: int) -> dict[str, float]:
    """Returns the parts of a case-step in milliseconds; of the graph what is left of it."""
    own = dict(clock.seconds)
    inside = own["search"] + own["storing"] + own["records"]
    parts = {
        "search": own["search"],
        "reading_cases": own["reading cases"],
        "storing": own["storing"],
        "records": own["records"],
        "graph_and_checkpoints": own["graph and all in it"] - inside,
    }
    return {f"milliseconds_greedy_{name}": round(1000 * seconds / steps, 2) for name, seconds in parts.items()}


if __name__ == "__main__":
    print(json.dumps(measure()))
