"""Runs as they are kept below docs/results/records: what scoring needs of each case-step, and nothing of a chart.

One file per run, JSON lines: the head says what the run was, each following line is a case-step. A table is made from
such files alone, so that its arms may have been run on several days, and anybody can make it again. What two baselines
answer to the same case-steps is kept in the same form.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from clinical_data.errors import BadInputError
from clinical_data.splits import TRAIN
from clinical_data.store.case_reader import CaseReader
from evaluation.metrics import ScoredStep
from evaluation.record import RunRecord
from evaluation.step_runs import baseline_steps, stored_step_run
from evaluation.store.run_store import Run, RunStore
from evaluation.taught_patients import TaughtPatients
from search.trajectory import Status

ROUNDED = 6  # digits after the point
_NOT_KEPT = ("seconds", "urgency", "answer_set", "required")  # other steps', or not the same twice


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run at one step, or a baseline on its case-steps.

    Attributes:
        head: `name`, `step`, `split` of all its cases, `failed` case-steps; of a run also `strategy`, `generator`,
            `peer`, `seed`, `settings`, `dtype`, `prompts` (hash) and `taught`, the case-steps of patients that a model
            of it was tuned on; of a baseline `n_train`, the labelled stays of the train split.
        steps: those with a recorded label, by case.
        hospitals: of each.
        train_stays: stays of that hospital in the train split, whether or not anything was learned from them.
        ranked: first five answers of each, with their shares.
    """

    head: Mapping[str, Any]
    steps: Sequence[ScoredStep]
    hospitals: Sequence[str]
    train_stays: Sequence[int]
    ranked: Sequence[Sequence[Sequence[Any]]]


def keep(engine: Engine, run_name: str, step: str, level: str | None = None) -> dict[str, KeptRun]:
    """Returns what is kept of a run: itself as `run`, and baselines on its case-steps by name.

    Args:
        engine: the database of cases and runs.
        run_name: the run.
        step: the step.
        level: of the majority class; None: no baselines, which are the same for every run over the same cases.
    """
    reader = CaseReader(engine)
    homes = hospitals(reader)
    trained = Counter(homes[i] for i in reader.case_ids(split=TRAIN))
    scorer, own = stored_step_run(engine, run_name, step)
    common = {
        "step": step,
        "split": _split(reader, own.labelled),
        "failed": sum(r.status == Status.FAILED for r in own.records),
    }

    def kept(pairs: Iterable[tuple[RunRecord, ScoredStep]], **head: Any) -> KeptRun:
        ordered = sorted(pairs, key=lambda pair: pair[1].case_id)
        of_each = [homes[scored.case_id] for _, scored in ordered]
        ranked = [[[a.code, round(a.probability, 4)] for a in record.ranked[:5]] for record, _ in ordered]
        stays = [trained[home] for home in of_each]
        return KeptRun({**common, **head}, [scored for _, scored in ordered], of_each, stays, ranked)

    taught = TaughtPatients(run_name).count(own.records)
    labelled = zip(own.labelled_records, own.labelled, strict=True)
    found = {"run": kept(labelled, name=run_name, **_head(RunStore(engine).get(run_name), taught))}
    if level is not None:
        for name, pairs in baseline_steps(engine, scorer, own, level).items():
            found[name] = kept(pairs, name=name, n_train=len(own.train))
    return found


def hospitals(reader: CaseReader) -> dict[str, str]:
    """Returns case id -> hospital, of all cases; those that name none share one."""
    cases = reader.without_findings(reader.case_ids(), _damaged)
    return {case.case_id: case.attributes.get("hospital_id", "") for case in cases}


def write_kept(kept: KeptRun, path: Path) -> None:
    """Writes a file; it is there whole, or as it was before."""
    rows = zip(kept.steps, kept.hospitals, kept.train_stays, kept.ranked, strict=True)
    lines = [dict(kept.head)]
    for step, hospital, train_stays, ranked in rows:
        lines.append({**_bare(step), "hospital": hospital, "hospital_train_stays": train_stays, "ranked": ranked})
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines), encoding="utf-8")
    new.replace(path)


def read_kept(path: Path) -> KeptRun:
    """Reads a file.

    Raises:
        BadInputError: it is none.
    """
    try:
        head, *rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        names = {f.name for f in fields(ScoredStep)}
        steps = [_step({k: v for k, v in row.items() if k in names}) for row in rows]
        return KeptRun(
            head,
            steps,
            [row["hospital"] for row in rows],
            [row["hospital_train_stays"] for row in rows],
            [row["ranked"] for row in rows],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path} holds no kept run ({type(error).__name__})") from error


def _step(row: Mapping[str, Any]) -> ScoredStep:
    """Returns a case-step; JSON knows no tuples."""
    return ScoredStep(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})


def _head(run: Run, taught: Mapping[str, int | None]) -> dict[str, Any]:
    config = run.config
    return {
        "strategy": config["strategy"],
        "generator": _model(config["generator"]),
        "peer": _model(config["peer"]),
        "seed": config["seed"],
        "settings": config["settings"],
        "dtype": config["models"].get("dtype", "auto"),
        "prompts": config["hashes"]["prompts"],
        "taught": dict(taught),
    }


def _model(spec: str | None) -> str | None:
    """Returns a SPEC without the folders above a tuned model."""
    return spec if spec is None else Path(spec).name


def _split(reader: CaseReader, steps: Sequence[ScoredStep]) -> str:
    splits = sorted({reader.split(step.case_id) for step in steps})
    return splits[0] if len(splits) == 1 else f"several ({', '.join(splits)})"


def _bare(step: ScoredStep) -> dict[str, Any]:
    """Returns a case-step without what has its usual value."""
    usual = {f.name: f.default_factory() if f.default_factory is not MISSING else f.default for f in fields(step)}
    row = {k: v for k, v in asdict(step).items() if k not in _NOT_KEPT and v != usual[k]}
    return {k: round(v, ROUNDED) if isinstance(v, float) else v for k, v in row.items()}


def _damaged(case_id: str, error: Exception) -> None:
    raise error
