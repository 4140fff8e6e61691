"""What comparing readings needs to know of the case-steps that were read: patient, vocabulary, answer, label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from clinical_data.clocks import labels_hold
from clinical_data.errors import UsageError
from clinical_data.ground_truth import GroundTruth
from clinical_data.store.truth_store import TruthStore
from clinical_data.vocabulary import Vocabulary, load_vocabulary
from evaluation import matching
from evaluation.reading.form import Key, Review
from evaluation.record import RunRecord
from evaluation.step_rules import SET, StepRule, step_rules
from evaluation.store.run_store import Run, RunStore, canonical_json
from search.answers import HALF, jaccard
from search.trajectory import Status


@dataclass(frozen=True, slots=True)
class ReadStep:
    """One case-step that was read.

    Attributes:
        patient_id: whose.
        vocabulary: the closed list of answers; None where the step has none for this source.
        several: a set of answers is asked for.
        model: codes of the model's answer; empty without one.
        truth: the recorded labels.
        record_hash: of what the search found; empty: not asked.
    """

    patient_id: str
    vocabulary: Vocabulary | None
    several: bool = False
    model: tuple[str, ...] = ()
    truth: GroundTruth | None = None
    record_hash: str = ""

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels at which answers are compared, finest first."""
        return () if self.vocabulary is None else matching.levels_of(self.vocabulary)

    @property
    def scale(self) -> tuple[str, ...]:
        """The codes of an ordered vocabulary (triage), most urgent first; empty for any other."""
        entries = () if self.vocabulary is None else self.vocabulary.entries
        return tuple(e.code for e in entries) if all(e.code.isdigit() for e in entries) else ()

    def classes(self, codes: Sequence[str], level: str) -> frozenset[str]:
        """Returns the classes of some answers at a level; a code that has none there stands for itself."""
        assert self.vocabulary is not None
        return frozenset(matching.answer_classes(code, self.vocabulary).get(level, code) for code in codes)

    def same(self, one: Sequence[str], other: Sequence[str]) -> bool:
        """Says whether two answers are one at the level of the answer key; no answer is like no other."""
        if self.vocabulary is None or not one or not other:
            return False
        level = matching.key_level(self.vocabulary)
        return self.classes(one, level) == self.classes(other, level)

    def right(self, codes: Sequence[str]) -> bool | None:
        """Says whether an answer agrees with the record at the level of the answer key; None without a label.

        A set agrees from a Jaccard index of a half, as in training sets. No answer is a miss.
        """
        if self.vocabulary is None or matching.principal_label(self.truth, self.vocabulary) is None:
            return None
        level = matching.key_level(self.vocabulary)
        given = self.classes(codes, level)
        if not self.several:
            return given == {matching.truth_class(self.truth, self.vocabulary)}
        assert self.truth is not None
        found = (matching.label_classes(label, self.vocabulary).get(level) for label in self.truth.labels)
        return bool(given) and jaccard(given, {c for c in found if c is not None}) >= HALF


def read_steps(engine: Engine, run: Run, keys: Iterable[Key]) -> dict[Key, ReadStep]:
    """Returns what is known of case-steps of a run; those that the run does not hold (any more) are left out.

    Raises:
        StorageError: a record cannot be read.
        UsageError, BadInputError: an answer vocabulary cannot be loaded.
    """
    store, truths, rules = RunStore(engine), TruthStore(engine), step_rules(run.config)
    of_selector: dict[str, dict[str, GroundTruth]] = {}
    found: dict[Key, ReadStep] = {}
    for key in dict.fromkeys(keys):
        try:
            record = store.record(run.run_id, *key).record
        except UsageError:
            continue
        rule = rules.get(record.step, StepRule(record.step))
        if rule.truth not in of_selector:
            of_selector[rule.truth] = truths.truth_of_step(rule.truth)
        truth = of_selector[rule.truth].get(record.case_id) if labels_hold(rule.truth, record.occurrence) else None
        name = rule.vocabularies.get(record.source)
        vocabulary = None if name is None else load_vocabulary(name)
        found[key] = ReadStep(
            record.patient_id, vocabulary, rule.form == SET, answer_of(record), truth, record_hash(record)
        )
    return found


def answer_of(record: RunRecord) -> tuple[str, ...]:
    """Returns the codes of the answer that a record gives: one, those of a set, or none where it abstains."""
    if record.status not in (Status.VERIFIED, Status.UNVERIFIED):
        return ()  # what leads there was shown to readers as no answer
    return record.chosen or tuple(answer.code for answer in record.ranked[:1])


def record_hash(record: RunRecord) -> str:
    """Returns the sha256 of what a search found: status, answers and trajectories.

    A resumed run may take a case-step again, with the same configuration and another outcome: readings of the earlier
    one say nothing of it.
    """
    found = [
        str(record.status),
        [[answer.code, answer.probability] for answer in record.ranked],
        list(record.chosen),
        [[c.node, c.answer_key, [[t.kind, t.item, t.text] for t in c.turns]] for c in record.candidates],
    ]
    return hashlib.sha256(canonical_json(found).encode("utf-8", "replace")).hexdigest()


def is_of(review: Review, found: str) -> bool:
    """Says whether a reading judged what a search found, by its `record_hash`; one that names none is taken to."""
    return review.record_hash in ("", found)


def independent(reviews: Sequence[Review]) -> list[Review]:
    """Returns the readings without adjudications; of two by one reader of one case-step the later."""
    latest = {(review.key, review.reviewer): review for review in reviews if not review.adjudicates}
    return list(latest.values())
