"""Two baselines under the same scorer: the majority class of the train split, and full information without search."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, select

from clinical_data.errors import UsageError
from clinical_data.ground_truth import GroundTruth
from clinical_data.splits import PATIENT_SCHEME, TRAIN
from clinical_data.store.engine import reading
from clinical_data.store.tables import cases, patient_splits
from clinical_data.vocabulary import Vocabulary
from evaluation.matching import in_vocabulary, label_classes, principal_label
from evaluation.metrics import Metric, ScoredStep, accuracy, mean_metric
from evaluation.store.run_store import Run, RunStore

logger = logging.getLogger(__name__)

MAJORITY, FULL_INFORMATION = "majority_class", "full_information"
FULL_INFORMATION_STRATEGY = "full-information"


@dataclass(frozen=True, slots=True)
class TrainLabel:
    """The principal label of a case of the train split: its source, its patient, and its class per level."""

    source: str
    patient_id: str
    classes: dict[str, str]


def train_labels(
    engine: Engine,
    truths: Mapping[str, GroundTruth],
    vocabularies: Mapping[str, Vocabulary],
    scheme: str = PATIENT_SCHEME,
) -> list[TrainLabel]:
    """Returns the labels of the train split that some answer of the vocabulary names.

    A label outside the vocabulary cannot be given as an answer, so it cannot be the majority answer either.

    Args:
        engine: the database, whose patients carry their split.
        truths: case id -> truth of one step, of all cases of the database.
        vocabularies: source -> vocabulary.
        scheme: what the split was drawn by.
    """
    own = cases.join(patient_splits, patient_splits.c.patient_id == cases.c.patient_id)
    query = select(cases.c.case_id, cases.c.source, cases.c.patient_id).select_from(own)
    query = query.where(patient_splits.c.scheme == scheme, patient_splits.c.split == TRAIN)
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    found = []
    for case_id, source, patient_id in sorted(tuple(r) for r in rows):
        vocabulary, truth = vocabularies.get(source), truths.get(case_id)
        if vocabulary is None or truth is None or not in_vocabulary(truth, vocabulary):
            continue
        if (label := principal_label(truth, vocabulary)) is not None:
            found.append(TrainLabel(source, patient_id, label_classes(label, vocabulary)))
    return found


def majority_marks(train: Sequence[TrainLabel], scored: Sequence[ScoredStep], level: str) -> dict[int, int]:
    """Returns what always giving the commonest class of the train split would score.

    Per source. The labels of the patient at hand are left out of the count (leave one patient out), so that a case of
    the train split does not vote for its own answer. Of equally common classes the first in order of name is given.

    Returns:
        Index in `scored` -> 1 or 0, for case-steps whose label has a class at this level and for which a label of
        another patient is left to count.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    own: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for label in train:
        if level in label.classes:
            counts[label.source][label.classes[level]] += 1
            own[label.source, label.patient_id][label.classes[level]] += 1
    marks = {}
    for index, step in enumerate(scored):
        if level not in step.match:
            continue
        left = counts[step.source] - own[step.source, step.patient_id]
        if left:
            commonest = min(left, key=lambda name: (-left[name], name))
            marks[index] = int(commonest == step.classes.get(level))
    return marks


def majority_metric(train: Sequence[TrainLabel], scored: Sequence[ScoredStep], level: str, seed: int) -> Metric:
    """Returns the accuracy of the majority class at a level; see `majority_marks`."""
    if not any(level in label.classes for label in train):
        return Metric(None, None, None, 0, "no label of the train split in this database")
    marks = majority_marks(train, scored, level)
    return mean_metric([float(m) for m in marks.values()], [scored[i].patient_id for i in marks], seed)


def find_companion(store: RunStore, run: Run, name: str | None) -> tuple[Run | None, str]:
    """Returns the run that holds the full-information baseline of a run, or None and why there is none.

    Args:
        store: where the runs are.
        run: the run to compare.
        name: name of the baseline run; None looks for `RUN-full-information`.

    Raises:
        UsageError: a run was named that does not exist or is no such baseline.
    """
    wanted = name or f"{run.name}-{FULL_INFORMATION_STRATEGY}"
    if name is None and run.config.get("strategy") == FULL_INFORMATION_STRATEGY:
        return None, "this run is the full-information baseline itself"
    if name is None and wanted not in {r.name for r in store.runs()}:
        return None, f"no run named {wanted}"
    companion = store.get(wanted)
    reason = ""
    if companion.config.get("strategy") != FULL_INFORMATION_STRATEGY:
        reason = f"run {wanted} has another strategy than {FULL_INFORMATION_STRATEGY}"
    elif (companion.pathway, companion.config.get("pathway")) != (run.pathway, run.config.get("pathway")):
        reason = f"run {wanted} replayed another pathway"
    if reason and name is not None:
        raise UsageError(reason, hint="name a run of strategy full-information over the same pathway")
    if reason:
        logger.warning("run %s: no full-information baseline: %s", run.name, reason)
    return (None, reason) if reason else (companion, "")


def in_common(scored: Sequence[ScoredStep], other: Sequence[ScoredStep]) -> tuple[list[ScoredStep], list[ScoredStep]]:
    """Returns the labelled case-steps that two runs share, in the same order."""
    theirs = {s.key: s for s in other if s.labelled}
    pairs = [(s, theirs[s.key]) for s in scored if s.labelled and s.key in theirs]
    return [mine for mine, _ in pairs], [their for _, their in pairs]


def full_information_metric(companion: Sequence[ScoredStep], level: str, seed: int) -> Metric:
    """Returns the accuracy of the full-information run over its case-steps that are shared (see `in_common`)."""
    if not companion:
        return Metric(None, None, None, 0, "the full-information run shares no case-step with a recorded label")
    return accuracy(companion, level, seed)
