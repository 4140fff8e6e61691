"""The rows that others read: `wardstar prompts` and `wardstar records` (architecture.md, "Contracts")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evaluation.matching import LEVELS
from evaluation.record import RunRecord
from evaluation.store.run_store import Run, RunStore


def prompt_rows(store: RunStore, run: Run, tokens: bool = False) -> Iterator[dict[str, Any]]:
    """Yields every prompt of a run as it was sent: `{case_id, source_id, step, occurrence, role, model, text}`.

    Args:
        store: where the run is.
        run: the run.
        tokens: add `prompt_ids`, `completion_ids` (one list per completion) and `seed` (None: choices were scored).
    """
    names: dict[str, str] = {}
    current: tuple[str, str, int] | None = None
    for case_id, source_id, step, occurrence, call in store.calls(run.run_id):
        if current != (case_id, step, occurrence):
            current = (case_id, step, occurrence)
            names = model_names(store.record(run.run_id, *current).record)
        row: dict[str, Any] = {
            "case_id": case_id,
            "source_id": source_id,
            "step": step,
            "occurrence": occurrence,
            "role": call.role,
            "model": names.get(call.role, ""),
            "text": call.text,
        }
        if tokens:
            row["prompt_ids"] = list(call.prompt_ids)
            row["completion_ids"] = [list(ids) for ids in call.completion_ids]
            row["seed"] = call.seed
        yield row


def record_rows(store: RunStore, run: Run) -> Iterator[dict[str, Any]]:
    """Yields one row per case-step of a run, with labels and marks.

    Where a set was asked for, `chosen` holds the codes of its items, with which `ranked` begins, and a probability is
    the share of the drawn lists that name an item; else it is empty.
    `review` is what became of the question to a clinician, where the step asks one: `{state, answer, display}`.
    `draws` counts the samples of all votes, `unparseable` those of them that named no answer.
    """
    for stored in store.records(run.run_id):
        record = stored.record
        yield {
            "case_id": record.case_id,
            "source_id": record.source_id,
            "step": record.step,
            "occurrence": record.occurrence,
            "status": record.status,
            "reason": record.reason,
            "review": record.review.model_dump(exclude={"outdated"}) if record.review else None,
            "chosen": list(record.chosen),
            "draws": record.draws,
            "unparseable": record.unparseable,
            "ranked": [answer.model_dump() for answer in record.ranked],
            "truth": stored.truth,
            "match": stored.match,
            "requests": [r.model_dump(include={"item", "state", "cost", "on_path"}) for r in record.requests],
            "peer_agreement": record.peer_agreement,
            "rollouts": record.rollouts,
            "tokens": {name: record.tokens.get(name, 0) for name in ("prefilled", "sampled", "reused")},
            "seconds": record.seconds,
            "repeatable": record.repeatable,
        }


def result_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Returns the main cells of a row of `record_rows` for a table: `{"answer", "share", "recorded", "match"}`.

    A set shows all its items, the mean of their shares, and all that was recorded; no level says that it matches.
    """
    size = max(1, len(row["chosen"]))
    answers, truth = row["ranked"][:size], row["truth"]
    share = sum(a["probability"] for a in answers) / len(answers) if answers else 0.0
    level = next((name for name in LEVELS if row["match"].get(name)), "")  # finest first
    if row["chosen"]:
        level = ""
        recorded = "; ".join(t["display"] or t["code"] for t in truth)
    else:
        recorded = truth[0]["display"] if truth else ""
    return {
        "answer": "; ".join(a["display"] for a in answers),
        "share": f"{share:.2f}",
        "recorded": recorded,
        "match": f"same {level}" if level else "",
    }


def model_names(record: RunRecord) -> dict[str, str]:
    """Returns role -> `name@revision` of the models of a record; weights in two roles have one name."""
    names = {}
    for role, identity in record.models.items():
        name, revision = identity.get("name") or identity.get("spec", ""), identity.get("revision", "")
        names[role] = f"{name}@{revision}" if revision else str(name)
    return names
