"""From likelihoods to conclusions, and where an answer is mentioned."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from clinical_data.vocabulary import Vocabulary, normalise
from search.models.language_model import ChoiceScores
from search.trajectory import Conclusion, Hypothesis


def choices(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Returns the answers as continuations of the answer cue, in the order of the vocabulary."""
    return tuple(f" {e.display}" for e in vocabulary.entries)


def softmax(logits: Sequence[float]) -> list[float]:
    """Returns probabilities that sum to 1; logits that are not finite get 0 (all of them: uniform)."""
    finite = [x for x in logits if math.isfinite(x)]
    if not finite:
        return [1.0 / len(logits)] * len(logits)
    top = max(finite)
    weights = [math.exp(x - top) if math.isfinite(x) else 0.0 for x in logits]
    total = sum(weights)
    return [w / total for w in weights]


def exact_vote(
    scores: ChoiceScores,
    vocabulary: Vocabulary,
    supporting: tuple[str, ...] = (),
    prior: Sequence[float] | None = None,
) -> Conclusion:
    """Returns the vote over a whole closed vocabulary without drawing one.

    Each answer's share is its length-normalised sequence likelihood, normalised over the vocabulary:
    p(a) proportional to exp(mean over tokens of ln p(token | prompt, earlier tokens of a)), divided, if a prior is
    given, by the same likelihood without a case: small models favour some words whatever they are asked.

    Args:
        scores: likelihoods of the answers after the prompt.
        vocabulary: the answers, in the order of the scores.
        supporting: ids of the findings seen.
        prior: mean ln p of each answer after a prompt without a case.

    Source: search.md, "Answers"; length normalisation as in Brown et al. 2020 (arXiv 2005.14165), section 2.4;
    contextual calibration, Zhao et al. 2021 (arXiv 2102.09690).
    """
    logits = scores.mean_logprobs
    if prior is not None:
        logits = tuple(given - alone for given, alone in zip(logits, prior, strict=True))
    if not all(map(math.isfinite, logits)):
        return Conclusion((), None, supporting)
    shares = softmax(logits)
    return rank(dict(zip((e.code for e in vocabulary.entries), shares, strict=True)), vocabulary, supporting)


def rank(
    shares: dict[str, float],
    vocabulary: Vocabulary,
    supporting: tuple[str, ...] = (),
    first: dict[str, float] | None = None,
) -> Conclusion:
    """Returns shares by code as a ranked conclusion; ties go by code.

    Args:
        shares: probability per code.
        vocabulary: gives words and system.
        supporting: ids of findings.
        first: scores that rank before the shares (class scores of a search).
    """
    before = first or {}
    order = sorted(shares, key=lambda code: (-before.get(code, 0.0), -shares[code], code))
    ranked = tuple(_hypothesis(code, shares[code], vocabulary) for code in order)
    return Conclusion(ranked, ranked[0].key if ranked else None, supporting)


def _hypothesis(code: str, share: float, vocabulary: Vocabulary) -> Hypothesis:
    entry = vocabulary.entry(code)
    return Hypothesis(code, entry.display if entry else code, vocabulary.system, code, share)


def mentions(text: str, code: str, vocabulary: Vocabulary) -> bool:
    """Says whether a text names an answer, by any of its names."""
    entry = vocabulary.entry(code)
    names = (code,) if entry is None else (entry.display, *entry.synonyms)
    padded = f" {normalise(text)} "
    return any(f" {normalise(name)} " in padded for name in names if normalise(name))


def redact(text: str, code: str, vocabulary: Vocabulary) -> str:
    """Returns a text with every name of an answer blanked out."""
    entry = vocabulary.entry(code)
    for name in sorted((code,) if entry is None else (entry.display, *entry.synonyms), key=len, reverse=True):
        words = r"[^\w]+".join(re.escape(w) for w in normalise(name).split())
        if words:
            text = re.sub(rf"(?<!\w){words}(?!\w)", "___", text, flags=re.IGNORECASE)
    return text
