"""The regression baseline: fitted on the train split alone, deterministic, and never on the patient's own cases."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from evaluation.regression import FOLDS, Asked, TrainCase, fold_of, predict

WORDS = {"sepsis": "fever lactate", "stroke": "aphasia hemiparesis", "mi": "chest troponin"}


def train_cases(number=30, start=0):
    names = sorted(WORDS)
    return [
        TrainCase(f"p{i}", f"patient {WORDS[names[i % 3]]} day {i % 5}", frozenset({names[i % 3]}))
        for i in range(start, start + number)
    ]


def test_it_learns_words_and_gives_probabilities():
    found = predict(train_cases(), [Asked("new", "fever with high lactate"), Asked("x", "hemiparesis")], False)
    assert [max(shares, key=shares.get) for shares in found] == ["sepsis", "stroke"]
    assert all(sum(shares.values()) == pytest.approx(1) and set(shares) == set(WORDS) for shares in found)


def test_it_is_what_scikit_learn_gives():
    train, asked = train_cases(), ["fever day 1", "troponin"]
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b\w+\b")
    model = LogisticRegression(C=3.0, solver="newton-cg", max_iter=1000)
    model.fit(words.fit_transform([c.text for c in train]), [min(c.classes) for c in train])
    theirs = model.predict_proba(words.transform(asked))
    ours = predict(train, [Asked(f"n{i}", text) for i, text in enumerate(asked)], False)
    assert np.array([[row[c] for c in model.classes_] for row in ours]) == pytest.approx(theirs)
    assert predict(train, [Asked("n", "troponin")], False) == predict(train, [Asked("n", "troponin")], False)


def test_a_train_patient_is_answered_without_any_case_of_the_patient():
    # The word stands in two cases of one patient alone: a model that saw them would know it.
    own = [TrainCase("own", "unheard-of-sign zzz", frozenset({"mi"})) for _ in range(2)]
    train = [*train_cases(), *own]
    (without,) = predict(train, [Asked("own", "zzz")], False)
    (with_it,) = predict(train, [Asked("other", "zzz")], False)
    assert with_it["mi"] > without["mi"] + 0.1
    rest = [c for c in train_cases() if fold_of(c.patient_id) != fold_of("own")]
    assert without == predict(rest, [Asked("nobody", "zzz")], False)[0]
    assert 0 < len(rest) < 30


def test_folds_are_fixed_and_spread():
    folds = [fold_of(f"p{i}") for i in range(200)]
    assert folds == [fold_of(f"p{i}") for i in range(200)]
    assert set(folds) == set(range(FOLDS))


def test_why_nothing_can_be_fitted():
    assert "only 9 labelled" in predict(train_cases(9), [Asked("n", "fever")], False)
    one = [TrainCase(f"p{i}", "fever", frozenset({"sepsis"})) for i in range(12)]
    assert "one class" in predict(one, [Asked("n", "fever")], False)
    nothing = [TrainCase(f"p{i}", f"word{i}", frozenset({"a" if i % 2 else "b"})) for i in range(12)]
    assert "too few" in predict(nothing, [Asked("n", "fever")], False)


def test_sets_get_one_marginal_per_class():
    train = [
        TrainCase(f"p{i}", text, frozenset(classes))
        for i, (text, classes) in enumerate(
            [("fever cough", {"culture", "x-ray"}), ("fever", {"culture"}), ("cough", {"x-ray"}), ("pain", {"x-ray"})]
            * 8
        )
    ]
    (found,) = predict(train, [Asked("n", "fever")], True)
    assert found["culture"] > 0.5 > found["x-ray"]
    always = [TrainCase(c.patient_id, c.text, c.classes | {"blood"}) for c in train]
    assert predict(always, [Asked("n", "fever")], True)[0]["blood"] == 1.0
