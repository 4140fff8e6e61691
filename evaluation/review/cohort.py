"""What the first page shows beyond a score: the patients, how each case-step compares with its label, other runs.

All of it derives from labels or serves to set them out: no blind report has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine

from clinical_data.case import Coding
from clinical_data.codes import icd_classes, is_icd10
from clinical_data.codes_icd import icd10_ancestors
from clinical_data.errors import UsageError
from clinical_data.ground_truth import GroundTruth
from clinical_data.store.case_reader import CaseReader
from clinical_data.vocabulary import Vocabulary
from evaluation import matching
from evaluation.metrics import ScoredStep
from evaluation.metrics.information_value import ends_of
from evaluation.metrics.request_cut import CutCase, CutPoint, cut_curve
from evaluation.record import RankedAnswer, RunRecord
from evaluation.record_scoring import RecordScorer
from evaluation.scoring import score_run
from evaluation.store.run_store import Key, Run, RunStore, StoredRecord
from evaluation.watching import Watch, unwatched
from search.trajectory import Status

SEED = 0
"""Of every interval of the first page, as of `score_run`."""
_ROUND = re.compile(r"(?P<base>.+)-round(?P<number>\d+)-(?P<what>tuning|train)")


@dataclass(frozen=True, slots=True)
class Person:
    """What subgroups are made of. `sex`: as recorded; `hospital`: empty where the source names none."""

    age: int | None
    sex: str
    source: str
    hospital: str


@dataclass(frozen=True, slots=True)
class Judged:
    """One labelled case-step beside its label.

    Attributes:
        scored: as metrics know it.
        level: at which it is headlined (`matching.headline_levels`, the first).
        right: key of every answer that a rollout gave -> 1 if it is right at that level, else 0.
        recorded, answered: names of the classes of label and first answer, for ICD the chapters; `answered` is empty
            without an answer, `recorded` where the label has no class among the possible answers.
    """

    scored: ScoredStep
    level: str
    right: Mapping[str, int]
    recorded: str
    answered: str


@dataclass(frozen=True, slots=True)
class Further:
    """A run beside the one reported, or that one itself: `label` names it in a plot, `steps` is of `score_run`."""

    label: str
    name: str
    steps: Mapping[str, Any]
    curves: Mapping[str, Sequence[CutPoint]]


@dataclass(frozen=True, slots=True)
class Cohort:
    """Everything of a run that only a report with labels may show.

    Attributes:
        judged: labelled case-steps of the run.
        people: case id -> person; cases that are no longer in the database are left out.
        curves: step -> accuracy against requests.
        further: the run itself among others, in order; empty where there are no others.
    """

    judged: Mapping[Key, Judged]
    people: Mapping[str, Person]
    curves: Mapping[str, Sequence[CutPoint]] = field(default_factory=dict)
    further: tuple[Further, ...] = ()


def gather(
    engine: Engine,
    run: Run,
    records: Sequence[StoredRecord],
    score: Mapping[str, Any],
    compare: Sequence[str] = (),
    watch: Watch = unwatched,
) -> Cohort:
    """Returns what the first page of a run shows beyond its score.

    Args:
        engine: the database of cases and runs.
        run: the run.
        records: its case-steps.
        score: result of `score_run`.
        compare: names of further runs to set beside it. A round of an evolution (`NAME-roundN-tuning`) has its other
            rounds beside it without being asked.
        watch: told how far it is.

    Raises:
        UsageError: a run to compare with does not exist, is of another pathway, or is named twice.
    """
    judged = dict(judge(RecordScorer(engine, run), records))
    curves = curves_of(records, judged)
    names = _beside(RunStore(engine), run, compare)
    further = []
    for number, (label, name) in enumerate(names, 1):
        watch("figures of further runs", number, len(names))
        if name == run.name:
            further.append(Further(label, name, score["steps"], curves))
        else:
            further.append(_further(engine, label, name))
    return Cohort(judged, _people(engine, {s.record.case_id for s in records}), curves, tuple(further))


def judge(scorer: RecordScorer, records: Iterable[StoredRecord]) -> Iterator[tuple[Key, Judged]]:
    """Yields every labelled case-step of some records beside its label."""
    for stored in records:
        scored, record = scorer.scored(stored), stored.record
        truth, vocabulary = scorer.label_and_list(record)
        if scored.labelled and vocabulary is not None:
            level = matching.headline_levels(vocabulary)[0]
            right = {key: _mark(record, key, truth, vocabulary, level) for key in _answers(record)}
            recorded, answered = _classes(record, truth, vocabulary)
            yield scored.key, Judged(scored, level, right, recorded, answered)


def curves_of(records: Iterable[StoredRecord], judged: Mapping[Key, Judged]) -> dict[str, list[CutPoint]]:
    """Returns step -> accuracy against requests, of steps with one answer that were searched by a tree."""
    cases: dict[str, list[CutCase]] = {}
    for stored in records:
        record = stored.record
        found = judged.get((record.case_id, record.step, record.occurrence))
        if found is None or found.scored.answer_set is not None or found.level not in found.scored.match:
            continue
        prices = {r.item: r.cost for r in record.requests}
        case = CutCase(record.patient_id, record.tree, prices, found.right.__getitem__)
        cases.setdefault(record.step, []).append(case)
    curves = {step: cut_curve(own, SEED) for step, own in cases.items()}
    return {step: curve for step, curve in curves.items() if curve}


def _further(engine: Engine, label: str, name: str) -> Further:
    score = score_run(engine, name, regression=False)
    store = RunStore(engine)
    run = store.get(name)
    scorer = RecordScorer(engine, run)
    records = list(store.records(run.run_id))
    return Further(label, name, score["steps"], curves_of(records, dict(judge(scorer, records))))


def _beside(store: RunStore, run: Run, compare: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (label, name) of the runs to set beside a run, itself among them; empty where there are none."""
    if len({*compare, run.name}) <= len(compare):
        raise UsageError("a run is compared with others, each named once", hint="see --compare")
    others = [store.get(name) for name in compare]
    wrong = next((o for o in others if o.pathway != run.pathway), None)
    if wrong is not None:
        raise UsageError(
            f"run {wrong.name} is of pathway {wrong.pathway}, not {run.pathway}", hint="compare runs of one pathway"
        )
    rounds = _rounds(store, run)
    named = [(o.name, o.name) for o in others if o.name not in {name for _, name in rounds}]
    if rounds:
        return [*rounds, *named]
    return [*named, (run.name, run.name)] if named else []


def _rounds(store: RunStore, run: Run) -> list[tuple[str, str]]:
    """Returns (number, name) of the rounds of the evolution that a run belongs to, in order; empty of any other run."""
    own = _ROUND.fullmatch(run.name)
    if own is None:
        return []
    found = []
    for other in store.runs():
        part = _ROUND.fullmatch(other.name)
        if part and part["base"] == own["base"] and part["what"] == own["what"] and store.done(other.run_id):
            found.append((int(part["number"]), other.name))
    return [(str(number), name) for number, name in sorted(found)] if len(found) > 1 else []


def _people(engine: Engine, ids: set[str]) -> dict[str, Person]:
    """Returns who was treated; a case that cannot be read (its record can) is in no subgroup."""
    reader = CaseReader(engine)
    known = sorted(ids & set(reader.case_ids()))
    return {
        c.case_id: Person(c.age, c.patient.sex, c.source, c.attributes.get("hospital_id", ""))
        for c in reader.without_findings(known, lambda case_id, error: None)
    }


def _answers(record: RunRecord) -> list[str]:
    return sorted({e.answer for e in ends_of(record.tree) if e.answer is not None}) if record.tree else []


def _mark(record: RunRecord, key: str, truth: GroundTruth | None, vocabulary: Vocabulary, level: str) -> int:
    """Returns whether an answer would be right: scored as the first answer of the record."""
    ranked = (RankedAnswer(system=vocabulary.system, code=key, display="", probability=1.0),)
    given = record.model_copy(update={"ranked": ranked, "status": Status.VERIFIED.value})
    return matching.match(given, truth, vocabulary).get(level, 0)


def _classes(record: RunRecord, truth: GroundTruth | None, vocabulary: Vocabulary) -> tuple[str, str]:
    """Returns the names of the classes of label and first answer; see `Judged`."""
    label = matching.principal_label(truth, vocabulary)
    answers = record.status not in (Status.FAILED, Status.NOT_APPLICABLE) and record.ranked
    first = record.ranked[0].code if answers else None
    if is_icd10(vocabulary.system):
        recorded = _chapter(label.coding) if label else ""
        return recorded, _chapter(Coding(vocabulary.system, first)) if first else ""
    level = matching.key_level(vocabulary)
    recorded_class = matching.label_classes(label, vocabulary).get(level) if label else None
    return _name(recorded_class, vocabulary), _name(first, vocabulary)


def _name(code: str | None, vocabulary: Vocabulary) -> str:
    if code is None:
        return ""
    entry = vocabulary.entry(code)
    return entry.display if entry else code


def _chapter(coding: Coding) -> str:
    """Returns the name of the ICD-10-CM chapter of a diagnosis; empty where it has none."""
    classes = icd_classes(coding)
    if classes is None or classes.chapter is None:
        return ""
    return icd10_ancestors(classes.mapped_to or classes.coding.code)[-1].display
