"""Baselines under the same scorer.

    majority_class        the commonest class of the train split, with class frequencies as probabilities; of a set the
                          items that half of its labels hold
    logistic_regression   TF-IDF and logistic regression on the visible facts (evaluation.regression)
    full_information      all visible facts in one prompt, no search: a run of its own
    recorded_clinicians   the emergency department's first diagnosis against the principal one of the stay (MIMIC)

Whatever answers here becomes a record and goes through `RecordScorer` like that of a search.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Engine, select

from clinical_data.errors import UsageError
from clinical_data.ground_truth import GroundTruth, Strength
from clinical_data.splits import PATIENT_SCHEME, TRAIN
from clinical_data.store.engine import reading
from clinical_data.store.tables import cases, patient_splits
from clinical_data.vocabulary import Vocabulary
from evaluation.matching import (
    answer_class,
    in_vocabulary,
    key_level,
    label_classes,
    principal_label,
)
from evaluation.metrics import Metric, ScoredStep, mean_metric
from evaluation.record import RankedAnswer, RunRecord
from evaluation.record_scoring import RecordScorer
from evaluation.store.run_store import Run, RunStore
from evaluation.visible_text import Passage, VisibleText
from search.answers import rank, rank_set
from search.trajectory import Status

logger = logging.getLogger(__name__)

MAJORITY, FULL_INFORMATION = "majority_class", "full_information"
REGRESSION, CLINICIANS = "logistic_regression", "recorded_clinicians"
FULL_INFORMATION_STRATEGY = "full-information"
_MIMIC = ("mimic-iv", "fhir", "meds")  # sources that MIMIC-IV comes in
_ADMISSION, _DISCHARGE = "admission_diagnosis", "discharge_diagnosis"


@dataclass(frozen=True, slots=True)
class TrainLabel:
    """The label of a case of the train split.

    Attributes:
        source, patient_id, case_id: what it belongs to.
        classes: class of the principal label per level.
        every: classes of all its labels that some answer names, at the level of the answer key.
    """

    source: str
    patient_id: str
    classes: dict[str, str]
    case_id: str = ""
    every: frozenset[str] = frozenset()


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
    answers = {source: _answer_codes(vocabulary) for source, vocabulary in vocabularies.items()}
    found = []
    for case_id, source, patient_id in sorted(tuple(r) for r in rows):
        vocabulary, truth = vocabularies.get(source), truths.get(case_id)
        if vocabulary is None or truth is None or not in_vocabulary(truth, vocabulary):
            continue
        if (label := principal_label(truth, vocabulary)) is not None:
            level = key_level(vocabulary)
            all_classes = {label_classes(one, vocabulary).get(level) for one in truth.labels}
            every = frozenset(name for name in all_classes if name in answers[source])
            found.append(TrainLabel(source, patient_id, label_classes(label, vocabulary), case_id, every))
    return found


def majority_marks(train: Sequence[TrainLabel], scored: Sequence[ScoredStep], level: str) -> dict[int, int]:
    """Returns what always giving the commonest class of the train split would score.

    Per source. The labels of the patient at hand are left out of the count (leave one patient out), so that a case of
    the train split does not vote for its own answer. On train cases the figure reads low where classes are about
    equally common, since what is left out is always a vote for the right class. Of equally common classes the first in
    order of name is given.

    Returns:
        Index in `scored` -> 1 or 0, for case-steps whose label has a class at this level and for which a label of
        another patient is left to count.
    """
    counts, own = _class_counts(train, dict.fromkeys((label.source for label in train), level))
    marks = {}
    for index, step in enumerate(scored):
        if level not in step.match:
            continue
        left = counts[step.source] - own[step.source, step.patient_id]
        if left:
            commonest = min(left, key=lambda name: (-left[name], name))
            marks[index] = int(commonest == step.classes.get(level))
    return marks


def _class_counts(
    train: Sequence[TrainLabel], levels: Mapping[str, str]
) -> tuple[dict[str, Counter[str]], dict[tuple[str, str], Counter[str]]]:
    """Returns how often each class is a label, at the level of the source: per source, and per patient of a source."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    own: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for label in train:
        name = label.classes.get(levels.get(label.source, ""))
        if name is not None:
            counts[label.source][name] += 1
            own[label.source, label.patient_id][name] += 1
    return counts, own


def majority_metric(train: Sequence[TrainLabel], scored: Sequence[ScoredStep], level: str, seed: int) -> Metric:
    """Returns the accuracy of the majority class at a level; see `majority_marks`."""
    if not any(level in label.classes for label in train):
        return Metric(None, None, None, 0, "no label of the train split in this database")
    marks = majority_marks(train, scored, level)
    return mean_metric([float(m) for m in marks.values()], [scored[i].patient_id for i in marks], seed, share=True)


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


def regression_records(
    scorer: RecordScorer,
    records: Sequence[RunRecord],
    train: Sequence[TrainLabel],
    texts: Mapping[Passage, VisibleText],
) -> list[RunRecord] | str:
    """Returns the case-steps of one step as the regression on visible facts answers them, or why there are none.

    Each occurrence of a step that repeats has a regression of its own, on what the train cases showed by then.

    Args:
        scorer: of the run.
        records: the labelled case-steps of one step.
        train: labels of the train split of that step.
        texts: (case id, occurrence) -> visible text at that clock, of train and scored cases.
    """
    from evaluation import regression  # here: it loads scikit-learn, which takes a second or two

    found: list[RunRecord] = []
    reasons = []
    for source, occurrence in sorted({(r.source, r.occurrence) for r in records}):
        vocabulary = scorer.used[records[0].step].get(source)
        passed = [r for r in records if (r.source, r.occurrence) == (source, occurrence)]
        own = [r for r in passed if (r.case_id, occurrence) in texts]
        if vocabulary is None or not own:
            reasons.append(f"{source}: the step's clock applies to none of the cases")
            continue
        several = scorer.takes_sets(own[0])
        known = [
            regression.TrainCase(t.patient_id, texts[t.case_id, occurrence].text, _classes(t, vocabulary, several))
            for t in train
            if t.source == source and (t.case_id, occurrence) in texts
        ]
        asked = [regression.Asked(r.patient_id, texts[r.case_id, occurrence].text) for r in own]
        shares = regression.predict(known, asked, several)
        if isinstance(shares, str):
            reasons.append(f"{source}: {shares}")
            continue
        found += [_answered(r, s, vocabulary, scorer) for r, s in zip(own, shares, strict=True)]
    return found or "; ".join(dict.fromkeys(reasons))


def frequency_records(
    scorer: RecordScorer, records: Sequence[RunRecord], train: Sequence[TrainLabel]
) -> list[RunRecord]:
    """Returns the case-steps of one step as class frequencies of the train split answer them: all alike.

    Whatever knows no more than how common each class is has these probabilities; a log score or a Brier score says
    little until it is held against theirs. One is added to the count of each answer (Laplace), so that a class without
    a train case keeps a probability. The labels of the patient at hand are left out of the count.

    Source: Laplace's rule of succession; climatology as the reference of a forecast: Murphy 1973, J. Appl. Meteorol.
        12:595-600.
    """
    levels = {r.source: key_level(v) for r in records if (v := scorer.used[r.step].get(r.source)) is not None}
    counts, own = _class_counts(train, levels)
    found = []
    for record in records:
        vocabulary = scorer.used[record.step].get(record.source)
        left = counts[record.source] - own[record.source, record.patient_id]
        if vocabulary is None or not left:
            continue
        names = list(_answer_codes(vocabulary))
        total = left.total() + len(names)
        shares = {name: (left[name] + 1) / total for name in names}
        found.append(_answered(record, shares, vocabulary, scorer))
    return found


def majority_set_steps(
    scorer: RecordScorer, records: Sequence[RunRecord], train: Sequence[TrainLabel]
) -> list[ScoredStep]:
    """Returns the set-valued case-steps of one step as the frequencies of the train split answer them.

    The set holds the items of at least half of the labelled cases of the source, the commonest in any case. The cases
    of the patient at hand are left out of the count.
    """
    found = []
    for record in records:
        vocabulary = scorer.used[record.step].get(record.source)
        others = [t.every for t in train if t.source == record.source and t.patient_id != record.patient_id]
        if vocabulary is None or not others:
            continue
        counts = Counter(name for classes in others for name in classes)
        shares = {name: number / len(others) for name, number in counts.items()}
        found.append(scorer.of_baseline(_answered(record, shares, vocabulary, scorer)))
    return found


def clinician_steps(scorer: RecordScorer, labelled: Sequence[ScoredStep]) -> list[ScoredStep] | None:
    """Returns the case-steps as clinicians had answered them; None for a step about which they recorded nothing.

    Only the discharge diagnosis of MIMIC: the diagnosis that the emergency department billed first, against the
    principal diagnosis. A label of another kind (an admission diagnosis of a synthetic record, an APACHE term) is no
    clinician's answer to the same question.

    Source: clinical.md, "Metrics": recorded clinicians.
    """
    if not labelled:
        return None
    rule = scorer.rules.get(labelled[0].step)
    if (rule.truth if rule else labelled[0].step) != _DISCHARGE:
        return None
    found = []
    for step in labelled:
        vocabulary = scorer.used[step.step].get(step.source)
        truth = scorer.truths_named(_ADMISSION).get(step.case_id)
        if vocabulary is None or step.source not in _MIMIC or (label := principal_label(truth, vocabulary)) is None:
            continue
        if label.strength is not Strength.PROXY:
            continue
        answered = label_classes(label, vocabulary)
        match = {
            level: int(level in step.classes and answered.get(level) == step.classes[level]) for level in step.match
        }
        key = key_level(vocabulary)
        found.append(replace(_bare(step), match=match, right=match.get(key)))
    return found or None


def _bare(step: ScoredStep) -> ScoredStep:
    """Returns a case-step with its label and without anything of the run's answer."""
    return ScoredStep(
        step.case_id, step.step, step.occurrence, step.source, step.patient_id, Status.UNVERIFIED,
        classes=step.classes, labelled=True, outside=step.outside,
    )  # fmt: skip


def _answered(
    record: RunRecord, shares: Mapping[str, float], vocabulary: Vocabulary, scorer: RecordScorer
) -> RunRecord:
    """Returns the record of a case-step with another answer in place of the run's own, and nothing of its search."""
    codes = _answer_codes(vocabulary)
    given = {codes[name]: share for name, share in shares.items() if name in codes}
    several = scorer.takes_sets(record)
    conclusion = rank_set(given, vocabulary, scorer.most(record)) if several else rank(given, vocabulary)
    ranked = tuple(
        RankedAnswer(system=h.system, code=h.code or h.key, display=h.display, probability=h.probability)
        for h in conclusion.ranked
    )
    return RunRecord(
        case_id=record.case_id,
        source=record.source,
        source_id=record.source_id,
        patient_id=record.patient_id,
        step=record.step,
        occurrence=record.occurrence,
        status=Status.UNVERIFIED.value,
        strategy="baseline",
        ranked=ranked,
        chosen=conclusion.chosen,
        vocabulary=record.vocabulary or vocabulary.name,  # a step can fail before it has one
        hashes=record.hashes,
    )


def _classes(label: TrainLabel, vocabulary: Vocabulary, several: bool) -> frozenset[str]:
    return label.every if several else frozenset({label.classes[key_level(vocabulary)]})


def _answer_codes(vocabulary: Vocabulary) -> dict[str, str]:
    """Returns class at the level of the answer key -> code of the first answer in that class."""
    return {answer_class(e.code, vocabulary) or e.code: e.code for e in reversed(vocabulary.entries)}
