"""What the first page of a report shows: results per step, the list of case-steps, and the run's own figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from evaluation.record import RunRecord
from evaluation.review import page_data as data
from evaluation.review import set_compare, words
from evaluation.store.run_store import Run, StoredRecord

_BASELINES = {
    "majority_class": "Always the most frequent answer",
    "full_information": "Whole chart at once, no search",
    "logistic_regression": "Regression on the same facts",
    "recorded_clinicians": "Emergency department's diagnosis",
}
_ONE_ANSWER = ("accuracy_", "top_", "mrr", "half_credit", "brier", "log_score", "truth_outside", "gain_over_")
"""Beginnings of the names of figures that compare one first answer; they say nothing of a set."""
_AGAINST_LABELS = (*_ONE_ANSWER, "set_", "recall_at_")
_COUNTED = ("verified", "unverified", "abstain", "failed", "not_applicable")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure with its 95 % interval; empty when it was not computed."""

    value: str = ""
    interval: str = ""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Results of one step: a row per figure, a column per method; `missing` says why some are empty or not shown."""

    step: str
    several: bool
    labelled: int
    methods: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Figure, ...]], ...]
    missing: tuple[str, ...]
    further: tuple[tuple[str, Figure], ...]


@dataclass(frozen=True, slots=True)
class StepCounts:
    """How the case-steps of one step ended."""

    step: str
    total: int
    agreed: int
    disagreed: int
    unchecked: int
    abstained: int
    not_applicable: int
    failed: int


@dataclass(frozen=True, slots=True)
class Row:
    """One case-step in the list. `size`: items of its set, else 0. Blind, `recorded` and `match` are empty."""

    href: str
    case_id: str
    vignette: str
    step: str
    size: int
    answer: str
    share: str
    status: str
    recorded: str = ""
    match: str = ""


@dataclass(frozen=True, slots=True)
class IndexPage:
    """Everything the first page's template needs."""

    name: str
    pathway: str
    cases: int
    case_steps: int
    results: tuple[StepResult, ...]
    counts: tuple[StepCounts, ...]
    rows: tuple[Row, ...]
    excluded: tuple[str, ...]
    sets: bool
    same_weights: bool
    notes: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, list[tuple[str, str]]], ...]


def build(
    run: Run,
    records: Sequence[StoredRecord],
    score: Mapping[str, Any] | None,
    vocabularies: set_compare.Lookup,
    *,
    blind: bool,
) -> IndexPage:
    """Returns the first page.

    Args:
        run: the run.
        records: its case-steps, in the order in which they are listed.
        score: result of `score_run`; None shows no results. Not read when `blind`.
        vocabularies: gives the possible answers, by which a set is compared with the recorded one.
        blind: leave out every figure that comes from recorded labels.
    """
    plain = [s.record for s in records]
    sets = {r.step for r in plain if r.chosen}
    return IndexPage(
        name=words.short(run.name, 120),
        pathway=words.short(run.pathway, 120),
        cases=len({r.case_id for r in plain}),
        case_steps=len(plain),
        results=() if blind or not score else tuple(_results(score, sets)),
        counts=tuple(_counts(plain)),
        rows=tuple(_row(s, vocabularies, blind) for s in records),
        excluded=tuple(_excluded(records, blind)),
        sets=bool(sets),
        same_weights=any(r.peer_is_generator for r in plain),
        notes=tuple(_notes(plain)),
        figures=tuple(_figures(run, plain)),
        facts=_facts(run, plain),
    )


def _results(score: Mapping[str, Any], sets: Set[str]) -> list[StepResult]:
    return [_result(step, of_step, step in sets) for step, of_step in score["steps"].items()]


def _result(step: str, of_step: Mapping[str, Any], several: bool) -> StepResult:
    """One step of `evaluation.scoring.score_run`: figures against labels in the table, the others further down."""
    metrics, baselines, n = of_step["metrics"], of_step["baselines"], int(of_step["n"])
    columns = [metrics, *(b.get("levels", {}) for b in baselines.values())]
    rows = [
        (words.metric_text(name), tuple(_figure(name, column.get(name), n) for column in columns))
        for name in metrics
        if name.startswith(_AGAINST_LABELS) and not (several and name.startswith(_ONE_ANSWER))
    ]
    methods = {name: _BASELINES.get(name, words.title_of(name)) for name in baselines}
    missing = [
        f"{methods[name]}: {words.short(str(b.get('reason') or 'not computed'), 200)}."
        for name, b in baselines.items()
        if b.get("value") is None and not several
    ]
    if several:
        missing.append(
            "This step asks for a set of answers. Figures that compare one first answer say nothing of a set and are "
            "left out; each page shows the set beside the recorded one."
        )
    further = [
        (words.metric_text(name), _figure(name, metric, n))
        for name, metric in metrics.items()
        if not name.startswith(_AGAINST_LABELS) and name not in _COUNTED and metric.get("value") is not None
    ]
    return StepResult(
        words.title_of(step),
        several,
        n,
        ("This run", *methods.values()),
        tuple(row for row in rows if any(figure.value for figure in row[1])),
        tuple(missing),
        tuple(further),
    )


def _figure(name: str, metric: Mapping[str, Any] | None, labelled: int) -> Figure:
    if not metric or metric.get("value") is None:
        return Figure()
    low, high, n = metric.get("low"), metric.get("high"), metric.get("n", labelled)
    between = "" if low is None else f"{words.metric_value(name, low)} to {words.metric_value(name, high)}"
    note = f"n = {n}" if n != labelled and name.startswith(_AGAINST_LABELS) else ""
    return Figure(words.metric_value(name, metric["value"]), ", ".join(filter(None, (between, note))))


def _counts(records: Sequence[RunRecord]) -> list[StepCounts]:
    counts = []
    for step in dict.fromkeys(r.step for r in records):
        own = [r for r in records if r.step == step]
        short = Counter(data.status_text(r)[0] for r in own)
        counts.append(
            StepCounts(
                words.title_of(step),
                len(own),
                short["check agreed"],
                short["check disagreed"],
                short["not checked"],
                short["no answer"],
                short["not applicable"],
                short["failed"],
            )
        )
    return counts


def _row(stored: StoredRecord, vocabularies: set_compare.Lookup, blind: bool) -> Row:
    record = stored.record
    answer = data.answer_text(record)
    share = data.share_text(record) if answer else "–"
    row = Row(
        href=f"cases/{data.page_name(record)}",
        case_id=words.short(record.case_id, 60),
        vignette=words.short(data.vignette(record), 90),
        step=words.title_of(record.step) + (f" ({record.occurrence})" if record.occurrence != 1 else ""),
        size=len(record.chosen),
        answer=answer,
        share=share,
        status=data.status_text(record)[0],
    )
    if blind:
        return row
    truth = data.truth_of(stored)
    if record.chosen:
        names = "; ".join(label.display for label in truth.labels)
        compared = set_compare.compare(record, stored.truth, vocabularies(record))
        return replace(row, recorded=words.short(names, 300) or "none recorded", match=compared.short)
    same = [name for name, agrees in truth.marks if agrees]
    match = "not scored" if not truth.marks else same[0] if same else "different"
    return replace(row, recorded=truth.labels[0].display if truth.labels else "none recorded", match=match)


def _excluded(records: Sequence[StoredRecord], blind: bool) -> list[str]:
    plain = [s.record for s in records]
    late = Counter(words.sentence(r.reason) for r in plain if r.status == "not_applicable")
    failed = sum(r.status == "failed" for r in plain)
    lines = [f"{words.count(n, 'case-step')} not asked. {reason}".strip() for reason, n in sorted(late.items())]
    if failed:
        lines.append(f"{words.count(failed, 'case-step')} failed and gave no answer.")
    if not blind and (bare := sum(not s.truth for s in records)):
        lines.append(f"{words.count(bare, 'case-step')} without a recorded diagnosis: shown, not scored.")
    if not lines:
        lines.append("None: every case-step of the run was asked, ended, and is listed here.")
    return lines


def _notes(records: Sequence[RunRecord]) -> list[str]:
    """What the settings of the run mean for its reading."""
    notes = []
    access = sorted({str(r.settings.get("chart_access")) for r in records if r.settings.get("chart_access")})
    if "hindsight" in access:
        notes.append(
            "Every branch of the search read the recorded answer to its own requests (chart access: hindsight). "
            "The costs of a case count the winning branch; the other branches are listed on its page."
        )
    if "prospective" in access:
        notes.append("Only the committed request opened the chart; what branches imagined is marked as imagined.")
    if any(r.settings.get("predecessors") == "recorded" for r in records):
        notes.append(
            "Oracle: later steps were shown the recorded answers of earlier ones. These figures tell how much mistakes "
            "of earlier steps cost; they are not those of a system in use."
        )
    if asked := [r.review.state for r in records if r.review is not None]:
        told = ", ".join(f"{n} {state}" for state, n in sorted(Counter(asked).items()))
        notes.append(f"At {words.count(len(asked), 'case-step')} a clinician was to answer as well: {told}.")
    if any(not r.repeatable for r in records):
        notes.append("Some case-steps were computed in mixed batches and may not repeat byte for byte.")
    return notes


def _figures(run: Run, records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    tokens: Counter[str] = Counter()
    for record in records:
        tokens.update(record.tokens)
    models = sorted(
        {
            f"{words.title_of(role)}: {words.short(str(identity.get('name') or identity.get('spec') or '–'), 120)}"
            for r in records
            for role, identity in r.models.items()
        }
    )
    answered = [r for r in records if r.status not in ("not_applicable", "failed")]
    seconds = sum(r.seconds for r in records)
    mean = f", {words.seconds_text(seconds / len(answered))} for each case-step" if answered else ""
    rollouts = sum(r.rollouts for r in records)
    rows = [("Models", "; ".join(models) or "–")]
    rows.append(("Strategy", ", ".join(sorted({words.short(r.strategy, 60) for r in records})) or "–"))
    if (seed := run.config.get("seed")) is not None:
        rows.append(("Seed", words.short(str(seed), 60)))
    rows.append(("Rollouts", f"{rollouts:,}"))
    if drawn := words.draws_text(sum(r.draws for r in records), sum(r.unparseable for r in records)):
        rows.append(("Draws of votes", drawn))
    rows += [(f"Tokens {words.short(name, 40)}", f"{number:,}") for name, number in sorted(tokens.items())]
    rows.append(("Time in the case-steps", words.seconds_text(seconds) + mean))
    rows.append(("Begun", words.short(run.created, 60)))
    rows.append(("Ended", words.short(run.finished or "not yet", 60)))
    rows.append(("State of the run", words.short(run.status, 60)))
    return rows


def _facts(run: Run, records: Sequence[RunRecord]) -> tuple[tuple[str, list[tuple[str, str]]], ...]:
    hashes: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.hashes.items():
            hashes.setdefault(name, set()).add(value)
    shared = {n: next(iter(v)) if len(v) == 1 else f"{len(v)} different, see the pages" for n, v in hashes.items()}
    blocks = (
        ("Configuration", [("hash", words.short(run.config_hash, 80)), *data.flatten(run.config)]),
        ("Hashes (sha256)", data.flatten(shared)),
        ("Versions", data.flatten(run.versions)),
        ("Work done", data.flatten(run.work or {})),
    )
    return tuple((title, rows) for title, rows in blocks if rows)
