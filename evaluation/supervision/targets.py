"""What the record says a case-step should have concluded, and how near a stored vote came to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clinical_data.codes import is_icd10
from clinical_data.ground_truth import GroundTruth
from clinical_data.vocabulary import Entry, Vocabulary
from evaluation import matching
from evaluation.record import CandidateRecord
from evaluation.supervision.traces import CallBook
from search.answers import HALF, exact_vote, jaccard, key_of_text, rank
from search.models.language_model import ChoiceScores
from search.trajectory import Conclusion, ModelCall

NO_LABEL = "no recorded label"


@dataclass(frozen=True, slots=True)
class Target:
    """The answer that a case-step is to be taught, in the words of its vocabulary.

    Attributes:
        classes: class of each recorded answer at the level of the answer key; one where one answer is asked for.
        entries: for each class the entry that is written.
        vocabulary: the closed list of answers.
        several: a set is asked for.
    """

    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    vocabulary: Vocabulary
    several: bool = False

    @property
    def words(self) -> str:
        """The answer as the search writes it after its cue, leading space included."""
        return " " + "; ".join(entry.display for entry in self.entries)

    @property
    def code(self) -> str:
        """The answer as counts show it."""
        return " + ".join(entry.code for entry in self.entries)

    def rightness(self, keys: Iterable[str]) -> float:
        """Returns how right an answer is: 1 or 0, of a set the Jaccard index of its classes with the recorded ones."""
        given = {matching.answer_class(key, self.vocabulary) or key for key in keys}
        return jaccard(given, self.classes)

    def agrees(self, keys: Sequence[str]) -> bool:
        """Says whether an answer agrees with the record; a set does from a Jaccard index of a half."""
        return bool(keys) and self.rightness(keys) >= (HALF if self.several else 1.0)

    def likelihood(self, conclusion: Conclusion) -> float:
        """Returns the share of a vote on one answer for the recorded one, in [0, 1]."""
        codes = (h.code for h in conclusion.ranked if h.code)
        right = {c for c in codes if matching.answer_class(c, self.vocabulary) == self.classes[0]}
        return sum(conclusion.probability_of(code) for code in right)


def target_of(truth: GroundTruth | None, vocabulary: Vocabulary, most: int | None) -> tuple[Target | None, str]:
    """Returns the recorded answer of a case-step, or None and why there is none to teach.

    Args:
        truth: the recorded labels.
        vocabulary: the closed list of answers.
        most: most answers of a set; None where one answer is asked for.
    """
    principal = matching.principal_label(truth, vocabulary)
    if truth is None or principal is None:
        return None, NO_LABEL
    labels = [principal] if most is None else sorted(truth.labels, key=lambda label: label.rank)
    level, found = matching.key_level(vocabulary), dict[str, Entry]()
    for label in labels:
        named = matching.label_classes(label, vocabulary).get(level)
        entry = _entry_of(named, label.coding.code if is_icd10(vocabulary.system) else "", vocabulary)
        if named and entry:
            found.setdefault(named, entry)
    target = _target(found, vocabulary, most)
    return target, "" if target else "label outside the vocabulary"


def target_of_codes(codes: Sequence[str], vocabulary: Vocabulary, most: int | None) -> Target | None:
    """Returns an answer that a reader or a model gave by its codes; None where one of them is not in the vocabulary.

    Args:
        codes: the answer.
        vocabulary: the closed list of answers.
        most: most answers of a set; None where one answer is asked for.
    """
    found = dict[str, Entry]()
    for code in codes:
        named = matching.answer_class(code, vocabulary) or code
        entry = vocabulary.entry(code) or _entry_of(named, code, vocabulary)
        if entry is None:
            return None
        found.setdefault(named, entry)
    return _target(found, vocabulary, most)


def _entry_of(named: str | None, code: str, vocabulary: Vocabulary) -> Entry | None:
    """Returns the entry of a class that is written: the one of that very code, else the first."""
    members = [e for e in vocabulary.entries if named and matching.answer_class(e.code, vocabulary) == named]
    return next((e for e in members if e.code == code), members[0] if members else None)


def _target(found: dict[str, Entry], vocabulary: Vocabulary, most: int | None) -> Target | None:
    kept = list(found.items())[: most or 1]
    if not kept:
        return None
    return Target(tuple(c for c, _ in kept), tuple(e for _, e in kept), vocabulary, most is not None)


def keys_of(candidate: CandidateRecord) -> tuple[str, ...]:
    """Returns the keys of a stored answer: one, those of a set, or none."""
    return candidate.chosen or (() if candidate.answer_key is None else (candidate.answer_key,))


def vote_after(book: CallBook, role: str, prompt: str, vocabulary: Vocabulary) -> Conclusion | None:
    """Returns the stored vote of a role on one answer after a prompt, cue included; None where there was none.

    Votes by likelihood are worked out as the search did; drawn ones are counted, over all draws after this prompt.
    """
    calls = book.find(role, "vote", prompt)
    if not calls:
        return None
    first = calls[0]
    if first.seed is None:
        prior = book.prior(role)
        alone = None if prior is None else _scores(prior).likelihoods(book.likelihood)
        return exact_vote(_scores(first), vocabulary, prior=alone, likelihood=book.likelihood)
    keys = [key_of_text(call.completions[0], vocabulary) for call in calls]
    shares = {key: keys.count(key) / len(keys) for key in keys if key is not None}
    return rank(shares, vocabulary)


def _scores(call: ModelCall) -> ChoiceScores:
    return ChoiceScores(call.prompt_ids, call.completion_ids, call.logprobs)
