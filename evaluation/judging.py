"""Says how right a conclusion is while a search runs: for training data alone, where recorded labels steer it."""

from __future__ import annotations

from clinical_data.ground_truth import GroundTruth
from clinical_data.vocabulary import Vocabulary
from evaluation import matching
from search.answers import jaccard
from search.trajectory import Conclusion
from search.value import Judge


def judge_of(truth: GroundTruth | None, vocabulary: Vocabulary) -> Judge | None:
    """Returns a function from a conclusion to how right it is, in [0, 1]; None where no label was recorded.

    One answer: 1 in the class of the principal label, at the level of the answer key; 0.5 for a near miss that the
    vocabulary lists; else 0. A set: the Jaccard index of its items' classes and those of all labels.
    """
    label = matching.principal_label(truth, vocabulary)
    if truth is None or label is None:
        return None
    level = matching.key_level(vocabulary)
    principal = matching.label_classes(label, vocabulary).get(level)
    recorded = {c for one in truth.labels if (c := matching.label_classes(one, vocabulary).get(level)) is not None}

    def rightness(conclusion: Conclusion) -> float:
        if conclusion.answer_key is None:
            return 0.0
        if conclusion.chosen:
            chosen = {matching.answer_class(code, vocabulary) or code for code in conclusion.chosen}
            return jaccard(chosen, recorded)
        given = matching.answer_class(conclusion.answer_key, vocabulary)
        if given is None or principal is None:
            return 0.0
        return 1.0 if given == principal else 0.5 * (frozenset((given, principal)) in vocabulary.half_credit)

    return rightness
