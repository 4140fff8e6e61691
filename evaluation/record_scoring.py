"""Scores the records of one run against the labels in the database: from a stored record to what metrics know of it."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Engine

from clinical_data.catalogue import ITEM_SYSTEM, Catalogue, load_catalogue
from clinical_data.chart import AnswerState
from clinical_data.clocks import labels_hold
from clinical_data.errors import UsageError
from clinical_data.ground_truth import GroundTruth
from clinical_data.splits import PATIENT_SCHEME, TRAIN
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.truth_store import TruthStore
from clinical_data.vocabulary import Vocabulary, load_vocabulary
from evaluation import matching
from evaluation.clinical_lists import MUST_NOT_MISS, REQUIRED_ITEMS, clinical_list
from evaluation.metrics import ScoredStep, SetAnswer, brier_score, log_score
from evaluation.metrics.sets import DDX_FLOOR
from evaluation.record import RunRecord
from evaluation.step_rules import SET, StepRule, step_rules
from evaluation.store.run_store import Run, RunStore, StoredRecord
from search.trajectory import Status
from search.value import GROUND_TRUTH

logger = logging.getLogger(__name__)

_ADMISSION = "admission_diagnosis"
_MISSED: dict[str, Any] = {"right": 0, "brier": 1.0, "credit": 0.0, "log_score": log_score({}, None)}
_FIRST = 5  # answers of a differential that a reader takes in


class RecordScorer:
    """Looks up labels and vocabularies of one run and scores its records.

    Attributes:
        rules: step -> how the run's pathway asks and scores it.
        used: step -> source -> vocabulary, of the records scored so far.
        split_scheme: what the run's split was drawn by.
    """

    def __init__(self, engine: Engine, run: Run) -> None:
        self._engine = engine
        self._run = run
        self._truths = TruthStore(engine)
        self._of_step: dict[str, dict[str, GroundTruth]] = {}
        self._vocabularies: dict[str, Vocabulary] = {}
        self._catalogues: dict[str, Catalogue] = {}
        self._warned: set[str] = set()
        self._train: frozenset[str] | None = None
        self.rules: dict[str, StepRule] = step_rules(run.config)
        self.used: dict[str, dict[str, Vocabulary]] = defaultdict(dict)
        self.split_scheme: str = run.config.get("split_scheme", PATIENT_SCHEME)

    def truths(self, step: str) -> dict[str, GroundTruth]:
        """Returns case id -> labels of a step of the pathway, over all cases of the database."""
        rule = self.rules.get(step)
        return self.truths_named(rule.truth if rule else step)

    def truths_named(self, truth: str) -> dict[str, GroundTruth]:
        """Returns case id -> labels stored under a name."""
        if truth not in self._of_step:
            self._of_step[truth] = self._truths.truth_of_step(truth)
        return self._of_step[truth]

    def marks(self, stored: StoredRecord) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Returns labels as rows and marks of a stored case-step as they are today."""
        record, truth, vocabulary = self._of(stored.record)
        rows: list[dict[str, Any]] = [dict(row) for row in matching.truth_rows(truth)]
        if vocabulary is None:  # failed before its vocabulary was known: a miss at every level it was marked at
            return rows, dict.fromkeys(stored.match, 0)
        return rows, matching.match(record, truth, vocabulary)

    def of_baseline(self, record: RunRecord) -> ScoredStep:
        """Returns what metrics need to know of a case-step that a baseline answered, which nobody has marked yet."""
        return self.scored(StoredRecord(record, [], {}))

    def scored(self, stored: StoredRecord) -> ScoredStep:
        """Returns what metrics need to know of a stored case-step.

        Raises:
            UsageError: recorded labels steered the search of a case outside of the train split.
        """
        self.refuse_steered(stored.record)
        record, truth, vocabulary = self._of(stored.record)
        _, marks = self.marks(stored)
        common: dict[str, Any] = {**_of_search(record), "match": marks, "labelled": bool(marks)}
        if not marks or vocabulary is None:
            return ScoredStep(**common, **(_MISSED if marks else {}))
        label = matching.principal_label(truth, vocabulary)
        wanted = matching.truth_class(truth, vocabulary)
        several = self.takes_sets(record)
        shares = _probabilities(record, vocabulary)
        first = matching.answer_class(record.ranked[0].code, vocabulary) if _answers(record) else None
        found: dict[str, Any] = {}
        if not several:
            found["brier"] = brier_score(shares, wanted)
            found["log_score"] = log_score(shares, wanted)
            found["confidence"] = min(shares.get(first or record.ranked[0].code, 0.0), 1.0) if shares else None
            found["credit"] = matching.credit(record, truth, vocabulary) if vocabulary.half_credit else None
            found["urgency"] = _urgency(first, wanted, vocabulary)
        elif truth is not None:
            found["answer_set"] = self._answer_set(record, truth, vocabulary, shares)
        return ScoredStep(
            **common,
            **found,
            classes=matching.label_classes(label, vocabulary) if label else {},
            rank=matching.rank_of_truth(record, truth, vocabulary),
            right=marks.get(matching.key_level(vocabulary)),
            must_not_miss=_must_not_miss(record, truth, vocabulary, several),
            required=self._required(record, truth, vocabulary),
            outside=not matching.in_vocabulary(truth, vocabulary),
        )

    def label_and_list(self, record: RunRecord) -> tuple[GroundTruth | None, Vocabulary | None]:
        """Returns the labels and the list of answers that a record is scored by; None where there are none."""
        _, truth, vocabulary = self._of(record)
        return truth, vocabulary

    def refuse_steered(self, record: RunRecord) -> None:
        """Raises UsageError for a search that recorded labels steered outside of the train split; warns within it.

        Both the split that the run was asked for and that of the case itself must be train.
        """
        if record.settings.get("value") != GROUND_TRUTH:
            return
        name = self._run.name
        if self._train is None:
            self._train = frozenset(CaseReader(self._engine).case_ids(split=TRAIN, scheme=self.split_scheme))
        if self._run.config.get("split") != TRAIN or record.case_id not in self._train:
            raise UsageError(
                f"run {name} was steered by recorded labels of cases outside of the train split: it has no metrics",
                hint="replay it with another --value",
            )
        if GROUND_TRUTH not in self._warned:
            self._warned.add(GROUND_TRUTH)
            logger.warning("run %s was steered by recorded labels: its figures say nothing of other cases", name)

    def key_of(self, step: str) -> str:
        """Returns the level of the answer key of a step, of the records scored so far."""
        return next((matching.key_level(v) for v in self.used.get(step, {}).values()), matching.CODE)

    def takes_sets(self, record: RunRecord) -> bool:
        """Says whether a set of answers is asked for."""
        rule = self.rules.get(record.step)
        return bool(record.chosen) or (rule is not None and rule.form == SET)

    def most(self, record: RunRecord) -> int:
        """Returns the most answers of a set."""
        rule = self.rules.get(record.step)
        return max(rule.most if rule else 1, len(record.chosen), 1)

    def _of(self, record: RunRecord) -> tuple[RunRecord, GroundTruth | None, Vocabulary | None]:
        rule = self.rules.get(record.step)
        holds = labels_hold(rule.truth if rule else record.step, record.occurrence)
        truth = self.truths(record.step).get(record.case_id) if holds else None
        return record, truth, self._vocabulary(record)

    def _vocabulary(self, record: RunRecord) -> Vocabulary | None:
        if not record.vocabulary:
            return None
        rule = self.rules.get(record.step)
        name = (rule.vocabularies if rule else {}).get(record.source, record.vocabulary)
        found = self._load(name)
        if record.hashes.get("vocabulary", found.sha256) != found.sha256 and name not in self._warned:
            self._warned.add(name)
            logger.warning("vocabulary %s has changed since the run; records are scored by the present one", name)
        self.used[record.step][record.source] = found
        return found

    def _load(self, name: str) -> Vocabulary:
        if name not in self._vocabularies:
            self._vocabularies[name] = load_vocabulary(name)
        return self._vocabularies[name]

    def _answer_set(
        self, record: RunRecord, truth: GroundTruth, vocabulary: Vocabulary, shares: dict[str, float]
    ) -> SetAnswer:
        """Returns the chosen and the recorded set of a set-valued step per level."""
        given = record.chosen if _answers(record) else ()
        chosen: dict[str, set[str]] = defaultdict(set)
        recorded: dict[str, set[str]] = defaultdict(set)
        for level in matching.levels_of(vocabulary):
            for code in given:
                chosen[level].add(matching.answer_classes(code, vocabulary).get(level, code))
            for label in truth.labels:
                own = f"{label.coding.system}|{label.coding.code}"
                recorded[level].add(matching.label_classes(label, vocabulary).get(level, own))
        wanted = recorded[matching.key_level(vocabulary)]
        return SetAnswer(
            {level: frozenset(classes) for level, classes in chosen.items()},
            {level: frozenset(classes) for level, classes in recorded.items()},
            len(wanted & _first_classes(record, vocabulary)) / len(wanted),
            frozenset(name for name, share in shares.items() if share > DDX_FLOOR),
            self._cost(record, given) if vocabulary.system == ITEM_SYSTEM else None,
        )

    def _cost(self, record: RunRecord, items: Iterable[str]) -> float:
        catalogue = self._catalogue(record.step)
        return sum(item.cost_usd for item in catalogue.named(tuple(items)))

    def _catalogue(self, step: str) -> Catalogue:
        rule = self.rules.get(step)
        name = rule.catalogue if rule else "v1"
        if name not in self._catalogues:
            self._catalogues[name] = load_catalogue(name)
        return self._catalogues[name]

    def _required(self, record: RunRecord, truth: GroundTruth | None, vocabulary: Vocabulary) -> tuple[int, int] | None:
        """Returns how many of the items that a guideline requires were asked for or chosen, and how many there are.

        The recorded diagnosis decides what is required: the label of the step itself, of a work-up the recorded
        admission diagnosis. What the opening answers need not be asked for.
        """
        rule = self.rules.get(record.step)
        if vocabulary.system == ITEM_SYSTEM:
            admission = next((r for r in self.rules.values() if r.truth == _ADMISSION), None)
            name = admission.vocabularies.get(record.source) if admission else None
            if name is None:
                return None
            truth, vocabulary = self.truths_named(_ADMISSION).get(record.case_id), self._load(name)
        label = matching.principal_label(truth, vocabulary)
        if label is None:
            return None
        items = clinical_list(REQUIRED_ITEMS).items(label, vocabulary) - set(rule.opening if rule else ())
        asked = {r.item for r in record.requests} | set(record.chosen)
        return (len(items & asked), len(items)) if items else None


def by_step(scored: Iterable[ScoredStep]) -> dict[str, list[ScoredStep]]:
    """Returns step -> its case-steps, in order."""
    found: dict[str, list[ScoredStep]] = defaultdict(list)
    for one in scored:
        found[one.step].append(one)
    return dict(found)


def without_search(record: RunRecord) -> RunRecord:
    """Returns a record without what fills memory and scores nothing: its tree, trajectories and opening."""
    return record.model_copy(update={"tree": None, "candidates": (), "opening": ()})


def rescored(store: RunStore, run: Run, scorer: RecordScorer) -> Iterator[tuple[RunRecord, ScoredStep]]:
    """Yields the case-steps of a run as scored today, their records without the search, and stores what changed of
    labels and marks."""
    for stored in store.records(run.run_id):
        truth, marks = scorer.marks(stored)
        if (truth, marks) != (stored.truth, stored.match):
            record = stored.record
            store.rescore(run.run_id, (record.case_id, record.step, record.occurrence), truth, marks)
        yield without_search(stored.record), scorer.scored(stored)


def _of_search(record: RunRecord) -> dict[str, Any]:
    """Returns what needs no label."""
    opened = record.requests
    said: Counter[str] = Counter()
    for candidate in record.candidates:
        said[candidate.answer_key or ""] += candidate.multiplicity
    return {
        "case_id": record.case_id,
        "step": record.step,
        "occurrence": record.occurrence,
        "source": record.source,
        "patient_id": record.patient_id,
        "status": record.status,
        "parseable": bool(record.ranked),
        "peer_agreement": record.peer_agreement,
        "requests": len(opened),
        "unanswered": sum(r.state != AnswerState.RECORDED for r in opened),
        "states": dict(Counter(r.state for r in opened)),
        "cost": sum(r.cost for r in opened),
        "draws": record.draws,
        "unparseable_draws": record.unparseable,
        "majority": max(said.values()) / total if (total := said.total()) > 1 else None,
        "tokens": record.tokens,
        "seconds": record.seconds,
    }


def _answers(record: RunRecord) -> bool:
    return bool(record.ranked) and record.status not in (Status.FAILED, Status.NOT_APPLICABLE)


def _probabilities(record: RunRecord, vocabulary: Vocabulary) -> dict[str, float]:
    """Returns class -> probability at the level of the answer key; empty when the step gave no answer."""
    found: dict[str, float] = defaultdict(float)
    if _answers(record):
        for answer in record.ranked:
            found[matching.answer_class(answer.code, vocabulary) or answer.code] += answer.probability
    return dict(found)


def _first_classes(record: RunRecord, vocabulary: Vocabulary, most: int = _FIRST) -> set[str]:
    """Returns the classes of the first answers, at the level of the answer key."""
    if not _answers(record):
        return set()
    return {matching.answer_class(a.code, vocabulary) or a.code for a in record.ranked[:most]}


def _urgency(first: str | None, wanted: str | None, vocabulary: Vocabulary) -> tuple[int | None, int] | None:
    """Returns answered and recorded level of a vocabulary whose codes are numbers, most urgent first; else None."""
    if wanted is None or not all(e.code.isdigit() for e in vocabulary.entries):
        return None
    return (int(first) if first is not None and first.isdigit() else None), int(wanted)


def _must_not_miss(
    record: RunRecord, truth: GroundTruth | None, vocabulary: Vocabulary, several: bool
) -> tuple[float, float] | None:
    """Returns the shares of must-not-miss labels that the answer and its first five name; None without such a label."""
    label, listed = matching.principal_label(truth, vocabulary), clinical_list(MUST_NOT_MISS)
    if truth is None or label is None or not listed.speaks_of(vocabulary):
        return None
    labels = truth.labels if several else (label,)
    level = matching.key_level(vocabulary)
    wanted = {matching.label_classes(one, vocabulary).get(level) for one in labels if listed.covers(one, vocabulary)}
    if not wanted:
        return None
    if several:
        named = {matching.answer_class(c, vocabulary) or c for c in record.chosen} if _answers(record) else set()
    else:
        named = _first_classes(record, vocabulary, 1)
    return len(wanted & named) / len(wanted), len(wanted & _first_classes(record, vocabulary)) / len(wanted)
