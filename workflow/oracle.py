"""The recorded labels of earlier steps as the words that a later step reads, for `--predecessors recorded`.

An oracle: it measures how much the mistakes of earlier steps cost the later ones, and is no way to use the system. The
runner looks labels up here and hands words to a step; search and step never see a label.

Source: clinical.md, "Recorded label per step"; docs/pathways.md, "Earlier conclusions".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from clinical_data.ground_truth import GroundTruth, Label
from clinical_data.vocabulary import Vocabulary, load_vocabulary, normalise
from evaluation.matching import BLOCK, CHAPTER, answer_class, key_level, label_classes, principal_label
from workflow.pathway_model import SET, Pathway, Step

_WIDE = (BLOCK, CHAPTER)  # diagnoses that agree here alone are not the same


class Oracle:
    """Words the recorded labels of a pathway's steps.

    Raises:
        UsageError, BadInputError: a vocabulary that does not exist or cannot be read.
    """

    def __init__(self, pathway: Pathway) -> None:
        self._steps = pathway.steps
        names = {name for step in pathway.steps for name in step.answer.vocabulary.values()}
        self._vocabularies = {name: load_vocabulary(name) for name in sorted(names)}

    def words(self, source: str, truth: Mapping[str, GroundTruth]) -> dict[str, tuple[str, ...]]:
        """Returns step name -> the recorded answers of the steps before it in the pathway.

        Left out are steps without a label, steps with the same labels as the one that reads, and every label that is
        also one of the labels that the reading step is scored against (see `same`).

        Args:
            source: source of the case.
            truth: labels of the case by name.
        """
        found = {}
        for place, step in enumerate(self._steps):
            told = ((earlier, self._told(earlier, step, source, truth)) for earlier in self._steps[:place])
            found[step.name] = tuple(f"{earlier.title}: {words}" for earlier, words in told if words)
        return found

    def _told(self, earlier: Step, step: Step, source: str, truth: Mapping[str, GroundTruth]) -> str:
        recorded, vocabulary = truth.get(earlier.truth), self._vocabulary(earlier, source)
        if recorded is None or vocabulary is None or earlier.truth == step.truth:
            return ""
        scored = truth.get(step.truth)
        lists = [v for v in (vocabulary, self._vocabulary(step, source)) if v is not None]
        hidden = scored.labels if scored else ()
        shown = [
            _words(label, vocabulary)
            for label in _answers(recorded, earlier, vocabulary)
            if not any(same(label, other, lists) for other in hidden)
        ]
        return "; ".join(dict.fromkeys(shown))

    def _vocabulary(self, step: Step, source: str) -> Vocabulary | None:
        name = step.answer.vocabulary.get(source)
        return None if name is None else self._vocabularies[name]


def same(one: Label, other: Label, vocabularies: Iterable[Vocabulary]) -> bool:
    """Says whether two labels name the same answer: by their words or codes, or as either step would compare them.

    Of ICD codes the same category or CCSR group is enough; the same block or chapter is not.
    """
    if _names(one) & _names(other):
        return True
    for vocabulary in vocabularies:
        classes, others = label_classes(one, vocabulary), label_classes(other, vocabulary)
        if any(classes[level] == others.get(level) for level in classes if level not in _WIDE):
            return True
    return False


def _names(label: Label) -> set[str]:
    """Returns a label's code and words, of a recorded path also its last level."""
    coding = label.coding
    texts = (coding.code, coding.display, coding.code.rpartition("|")[2], coding.display.rpartition("|")[2])
    return {normalise(text) for text in texts} - {""}


def _answers(recorded: GroundTruth, step: Step, vocabulary: Vocabulary) -> tuple[Label, ...]:
    """Returns the labels that answer a step: the principal one, of a set as many as its answer may hold."""
    if step.answer.form == SET:
        return recorded.labels[: step.answer.most]
    principal = principal_label(recorded, vocabulary)
    return () if principal is None else (principal,)


def _words(label: Label, vocabulary: Vocabulary) -> str:
    """Returns a label as the step's own answer would word it; as recorded where it is none of its answers."""
    wanted = label_classes(label, vocabulary).get(key_level(vocabulary))
    named = (e.display for e in vocabulary.entries if wanted is not None and answer_class(e.code, vocabulary) == wanted)
    return next(named, label.coding.display or label.coding.code)
