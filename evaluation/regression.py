"""Baseline: TF-IDF and logistic regression on the visible facts, fitted on the train split only.

What a search must beat to be worth its cost: no language model, the same chart at the same clock in the same words, the
same answers, the same scorer. Per source and step. Nothing is tuned on the cases that are scored.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

FOLDS = 5
LEAST_CASES = 10  # of a train split, to fit anything
# Inverse strength of the L2 penalty, and least texts that hold a word: chosen by cross-validation over the patients of
# the train split of the eICU demo, admission diagnosis (docs/metrics.md). Figures of a run over that split are
# a little too good by it.
PENALTY, LEAST_DOCUMENTS = 3.0, 2


@dataclass(frozen=True, slots=True)
class TrainCase:
    """A labelled case of the train split: its patient, its visible text and its classes (one, or those of a set)."""

    patient_id: str
    text: str
    classes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A case to be answered: its patient and its visible text."""

    patient_id: str
    text: str


def predict(train: Sequence[TrainCase], asked: Sequence[Asked], several: bool) -> list[dict[str, float]] | str:
    """Returns class -> probability for each case asked, or why nothing can be fitted.

    Words are weighted by (1 + ln tf) idf and scaled to length 1; those count that stand in at least two texts. The
    regression is multinomial with an L2 penalty; of a set one regression per class, whose probabilities are marginals.

    A case whose patient is in the train split is answered by a model that saw no case of that patient: the patients of
    the train split are spread over five folds by hash, and the model of a fold is fitted on the other four.

    Args:
        train: cases of one source and step.
        asked: cases of the same source and step.
        several: the answer is a set.

    Source: Salton and Buckley 1988, Term-weighting approaches in automatic text retrieval, Information Processing and
        Management 24:513-523; scikit-learn, TfidfVectorizer and LogisticRegression.
    """
    if len(train) < LEAST_CASES:
        return f"only {len(train)} labelled cases of the train split; {LEAST_CASES} are needed"
    if len({name for case in train for name in case.classes}) < 2:
        return "the train split has one class alone"
    trained = {case.patient_id for case in train}
    groups: dict[int | None, list[int]] = {}
    for index, one in enumerate(asked):
        groups.setdefault(fold_of(one.patient_id) if one.patient_id in trained else None, []).append(index)
    found: list[dict[str, float]] = [{} for _ in asked]
    for fold, indices in groups.items():
        own = [case for case in train if fold is None or fold_of(case.patient_id) != fold]
        try:
            with threadpool_limits(1), warnings.catch_warnings():  # small matrices: threads only wait for each other
                warnings.filterwarnings("ignore", message="The number of unique classes", category=UserWarning)
                fitted = _fitted(own, [asked[i].text for i in indices], several)
        except ValueError:  # of scikit-learn, for texts without a common word and folds of one class
            return "the texts or classes of the train split are too few to fit anything"
        for index, shares in zip(indices, fitted, strict=True):
            found[index] = shares
    return found


def fold_of(patient_id: str) -> int:
    """Returns the fold of a patient, by hash and therefore the same everywhere."""
    return int(hashlib.sha256(f"fold:{patient_id}".encode()).hexdigest()[:8], 16) % FOLDS


def _fitted(train: Sequence[TrainCase], texts: Sequence[str], several: bool) -> list[dict[str, float]]:
    words = TfidfVectorizer(sublinear_tf=True, min_df=LEAST_DOCUMENTS, token_pattern=r"(?u)\b\w+\b")
    seen, new = words.fit_transform([case.text for case in train]), words.transform(texts)
    if several:
        names = sorted({name for case in train for name in case.classes})
        columns = {n: _column(seen, np.array([n in c.classes for c in train]), new) for n in names}
        return [{n: float(column[i]) for n, column in columns.items()} for i in range(len(texts))]
    model = _model().fit(seen, [next(iter(case.classes)) for case in train])
    shares = model.predict_proba(new)
    return [dict(zip(map(str, model.classes_), map(float, row), strict=True)) for row in shares]


def _model() -> LogisticRegression:
    return LogisticRegression(C=PENALTY, solver="newton-cg", max_iter=1000)


def _column(seen: csr_matrix, has: NDArray[np.bool_], new: csr_matrix) -> NDArray[np.float64]:
    """Returns the probability of one class of a set for each new text; its share where all or no cases have it."""
    if has.all() or not has.any():
        return np.full(new.shape[0], float(has.mean()))
    model = _model().fit(seen, has)
    return np.asarray(model.predict_proba(new)[:, 1], dtype=float)
