"""From votes to conclusions, when two conclusions agree, and where an answer is mentioned."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from clinical_data.case import Coding
from clinical_data.codes import fault, is_icd10, standard
from clinical_data.vocabulary import Vocabulary, normalise
from search.models.language_model import ChoiceScores
from search.trajectory import Conclusion, Hypothesis

HALF = 0.5  # least marginal of an item of a set


def softmax(logits: Sequence[float]) -> list[float]:
    """Returns probabilities that sum to 1; logits that are not finite get 0 (all of them: uniform)."""
    exp, isfinite = math.exp, math.isfinite
    finite = [x for x in logits if isfinite(x)]
    if not finite:
        return [1.0 / len(logits)] * len(logits)
    top = max(finite)
    weights = [exp(x - top) if isfinite(x) else 0.0 for x in logits]
    total = sum(weights)
    return [w / total for w in weights]


def exact_vote(
    scores: ChoiceScores,
    vocabulary: Vocabulary,
    supporting: tuple[str, ...] = (),
    prior: Sequence[float] | None = None,
    likelihood: str = "mean",
) -> Conclusion:
    """Returns the vote over a whole closed vocabulary without drawing one.

    Each answer's share is its length-normalised sequence likelihood, normalised over the vocabulary:
    p(a) proportional to exp(mean over tokens of ln p(token | prompt, earlier tokens of a)), divided, if a prior is
    given, by the same likelihood without a case: small models favour some words whatever they are asked. With
    `likelihood` sum it is the plain sequence likelihood: p(a) proportional to p(tokens of a | prompt).

    Args:
        scores: likelihoods of the answers after the prompt.
        vocabulary: the answers, in the order of the scores.
        supporting: ids of the findings seen.
        prior: ln p of each answer after a prompt without a case, of the same kind.
        likelihood: `mean` or `sum` over the tokens of an answer.

    Source: search.md, "Answers"; length normalisation as in Brown et al. 2020 (arXiv 2005.14165), section 2.4;
    contextual calibration, Zhao et al. 2021 (arXiv 2102.09690).
    """
    logits = scores.likelihoods(likelihood)
    if prior is not None:
        logits = tuple([given - alone for given, alone in zip(logits, prior, strict=True)])
    if not all(map(math.isfinite, logits)):
        return Conclusion((), None, supporting)
    shares = softmax(logits)
    return rank(dict(zip([e.code for e in vocabulary.entries], shares, strict=True)), vocabulary, supporting)


def rank(
    shares: Mapping[str, float],
    vocabulary: Vocabulary,
    supporting: tuple[str, ...] = (),
    first: Collection[str] = (),
) -> Conclusion:
    """Returns shares by key as a ranked conclusion; ties go by key.

    Args:
        shares: probability per key: a code of the vocabulary, or the words of an answer outside it.
        vocabulary: gives words and system.
        supporting: ids of findings.
        first: keys that stand before all others (the answer of a search).
    """
    order = sorted(sorted(shares), key=shares.__getitem__, reverse=True)  # stable: equal shares stay in order of keys
    if first:
        order.sort(key=lambda key: key not in first)
    system, entries = vocabulary.system, vocabulary.by_code
    ranked = tuple(
        [
            Hypothesis(key, entries[key].display, system, key, shares[key])
            if key in entries
            else Hypothesis(key, key, probability=shares[key])
            for key in order
        ]
    )
    return Conclusion(ranked, ranked[0].key if ranked else None, supporting)


def rank_set(
    marginals: Mapping[str, float],
    vocabulary: Vocabulary,
    most: int,
    supporting: tuple[str, ...] = (),
) -> Conclusion:
    """Returns marginals by key as the conclusion of a set-valued step.

    The set holds the items with a marginal of at least 0.5: the top one in any case, at most `most` of them.

    Args:
        marginals: share of the draws that hold an item, per key.
        most: most items of the set, at least 1.

    Source: search.md, "Set-valued steps".
    """
    conclusion = rank(marginals, vocabulary, supporting)
    leading = [h.key for h in conclusion.ranked if h.probability >= HALF]
    chosen = tuple(leading[:most]) or tuple(h.key for h in conclusion.ranked[:1])
    return replace(conclusion, answer_key=set_key(chosen), chosen=chosen)


def set_key(keys: Iterable[str]) -> str | None:
    """Returns the canonical key of a set of answers: its keys, sorted, joined by " + "; None for the empty set."""
    return " + ".join(sorted(set(keys))) or None


def key_of_text(text: str, vocabulary: Vocabulary) -> str | None:
    """Returns the key of the answer that a free text names; None when it holds no word.

    A text is matched whole, never in part: to an entry by its display, a synonym or its code, then, in an ICD-10
    vocabulary, by the category of an ICD-10 code. Any other text is a class of its own, whose key is its normalised
    words.

    Source: search.md, "Answers".
    """
    words = normalise(text)
    if not words:
        return None
    return vocabulary.key_of(text) or _same_category(text, vocabulary) or words


def _same_category(text: str, vocabulary: Vocabulary) -> str | None:
    """Returns the first entry in the 3-character category of a text that is an ICD-10 code."""
    written = Coding(vocabulary.system, text.strip().rstrip("."))
    if not is_icd10(vocabulary.system) or fault(written):
        return None
    category = standard(written).code[:3]
    return next((e.code for e in vocabulary.entries if e.code[:3] == category), None)


def agreement(one: Conclusion, other: Conclusion) -> float:
    """Returns how far two conclusions agree, in [0, 1]: 1 for equal keys, else 0; of sets the Jaccard index.

    Where either has no answer it is 0.

    Source: search.md, "Set-valued steps"; Jaccard 1912, The distribution of the flora in the alpine zone.
    """
    if one.answer_key is None or other.answer_key is None:
        return 0.0
    if one.chosen and other.chosen:
        return jaccard(one.chosen, other.chosen)
    return float(one.answer_key == other.answer_key)


def jaccard(one: Iterable[str], other: Iterable[str]) -> float:
    """Returns the size of the intersection over that of the union; 0 for two empty sets."""
    first, second = set(one), set(other)
    union = first | second
    return len(first & second) / len(union) if union else 0.0


def mentions(text: str, code: str, vocabulary: Vocabulary) -> bool:
    """Says whether a text names an answer, by any of its names."""
    entry = vocabulary.entry(code)
    padded = f" {normalise(text)} "
    for name in (code,) if entry is None else (entry.display, *entry.synonyms):
        known = normalise(name)
        if known and f" {known} " in padded:
            return True
    return False


def redact(text: str, code: str, vocabulary: Vocabulary) -> str:
    """Returns a text with every name of an answer blanked out."""
    entry = vocabulary.entry(code)
    for name in sorted((code,) if entry is None else (entry.display, *entry.synonyms), key=len, reverse=True):
        words = r"[^\w]+".join(re.escape(w) for w in normalise(name).split())
        if words:
            text = re.sub(rf"(?<!\w){words}(?!\w)", "___", text, flags=re.IGNORECASE)
    return text
