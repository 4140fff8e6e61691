"""How a FINISH comes to its conclusion: by the likelihood of every answer, or by samples that are counted.

| `vote` | one answer | a set of answers |
|---|---|---|
| `exact` | likelihood of every answer of the vocabulary | lists that can name answers only |
| `drawn` | samples that can name one answer only | the same |
| `free` | free text, matched to the vocabulary afterwards | the same |

There is no exact vote over sets: a vocabulary of 60 answers has more sets of five than could be scored. The marginal
of each item is estimated from `votes` sampled lists instead, whatever the vote is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from search import answers
from search.desk import Ask, Part, samples_of, scores_of
from search.models.language_model import Constraint, GenerateRequest, Generation, Prompt, Sampling, ScoreRequest
from search.problem import SearchProblem
from search.seeds import derive_seed
from search.settings import SearchSettings
from search.trajectory import Conclusion

ROUND = 4  # draws at once, after which a settled vote ends

Ballot = tuple[str, ...]  # keys that one draw names, each once; empty when it names none


@dataclass(frozen=True, slots=True)
class Poll:
    """One vote to be held.

    Attributes:
        problem, settings: form of the answer, and how to vote.
        role: who is asked.
        prompt: the prompt, answer cue included.
        seed: the seed of each draw derives from it.
        prior: ln p of each answer without a case; None when the vote is not calibrated. Drawn votes never are.
        supporting: ids of the findings seen.
    """

    problem: SearchProblem
    settings: SearchSettings
    role: str
    prompt: Prompt
    seed: int
    prior: Sequence[float] | None = None
    supporting: tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        """A set of answers is asked for."""
        return self.problem.form == "set"

    @property
    def free(self) -> bool:
        """Draws are free text."""
        return self.settings.vote == "free" and not self.several

    def draws(self, numbers: Sequence[int]) -> list[Ask]:
        """Returns the asks of some draws, by their numbers."""
        s, names = self.settings, self.problem.vocabulary.choices
        most = min(self.problem.most, len(names)) if self.several else 1
        sampling = Sampling(s.turn_tokens * most, s.temperature, s.top_p)
        constraint = None if self.free else Constraint(names, most)
        seeds = [derive_seed(self.seed, i) for i in numbers]
        return [Ask(self.role, "vote", GenerateRequest(self.prompt, sampling, seed, constraint)) for seed in seeds]

    def ballot(self, sample: Generation) -> Ballot:
        """Returns what a draw names; one that broke down names nothing."""
        if sample.finish == "error":
            return ()
        vocabulary = self.problem.vocabulary
        if self.free:
            key = answers.key_of_text(sample.text, vocabulary)
            return () if key is None else (key,)
        return tuple(dict.fromkeys(vocabulary.entries[i].code for i in sample.chosen))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a vote came to.

    Attributes:
        logprob: ln likelihood of the conclusion's words; of a drawn vote, of the first draw that comes nearest to it.
        tokens: tokens of that draw; 0 when the vote was exact.
    """

    conclusion: Conclusion
    logprob: float
    tokens: int = 0


def is_exact(problem: SearchProblem, settings: SearchSettings) -> bool:
    """Says whether votes on a problem are exact: one answer is asked for, and `vote` is `exact`."""
    return settings.vote == "exact" and problem.form != "set"


def hold(poll: Poll) -> Part[Outcome]:
    """Holds a vote, in the way that its settings and the form of its answer ask for."""
    outcome = yield from (exact(poll) if is_exact(poll.problem, poll.settings) else drawn(poll))
    return outcome


def exact(poll: Poll) -> Part[Outcome]:
    """Asks for the likelihood of every answer of the vocabulary, in one pass."""
    vocabulary = poll.problem.vocabulary
    (reply,) = yield [Ask(poll.role, "vote", ScoreRequest(poll.prompt, vocabulary.choices))]
    scores = scores_of(reply)
    conclusion = answers.exact_vote(scores, vocabulary, poll.supporting, poll.prior, poll.settings.likelihood)
    codes = [e.code for e in vocabulary.entries]
    key = conclusion.answer_key
    return Outcome(conclusion, scores.logprobs[codes.index(key)] if key in codes else 0.0)


def drawn(poll: Poll) -> Part[Outcome]:
    """Draws samples and counts what they name.

    The share of an answer is the number of draws that name it over that of all draws; a draw that names none counts
    only below the line. Unless `vote_stop` is `never` draws come in rounds of 4 and end as soon as those left could
    not change the answer.

    Source: Wang et al. 2022 (arXiv 2203.11171); adaptive stop after Aggarwal et al. 2023 (arXiv 2305.11860), here only
    where it is certain.
    """
    votes, most = poll.settings.votes, poll.problem.most if poll.several else None
    at_once = votes if poll.settings.vote_stop == "never" else ROUND
    samples: list[Generation] = []
    ballots: list[Ballot] = []
    while len(ballots) < votes and not settled(ballots, votes, most):
        numbers = range(len(ballots), min(len(ballots) + at_once, votes))
        samples += samples_of((yield poll.draws(numbers)))
        ballots += [poll.ballot(sample) for sample in samples[len(ballots) :]]
    conclusion = count(ballots, poll)
    wanted = conclusion.chosen or (conclusion.answer_key or "",)
    nearest = max(range(len(ballots)), key=lambda i: (answers.jaccard(ballots[i], wanted), -i))
    return Outcome(conclusion, samples[nearest].logprob, len(samples[nearest].token_ids))


def count(ballots: Sequence[Ballot], poll: Poll) -> Conclusion:
    """Returns the conclusion of some ballots: the leading answer, or the set of items with marginals of 0.5 or more."""
    shares = {key: n / len(ballots) for key, n in tally(ballots).items()}
    vocabulary = poll.problem.vocabulary
    if poll.several:
        conclusion = answers.rank_set(shares, vocabulary, poll.problem.most, poll.supporting)
    else:
        conclusion = answers.rank(shares, vocabulary, poll.supporting)
    return replace(conclusion, draws=len(ballots), unparseable=sum(not b for b in ballots))


def tally(ballots: Sequence[Ballot]) -> Mapping[str, int]:
    """Returns how many ballots name each key."""
    return Counter(key for ballot in ballots for key in ballot)


def settled(ballots: Sequence[Ballot], votes: int, most: int | None = None) -> bool:
    """Says whether the draws left, whatever they name, can change neither the leading answer nor the set.

    One answer: its lead exceeds the number of draws left. A set: each item is sure to reach half of all draws or sure
    to miss it, and where the number of items decides (none reaches it, or more than `most` do) the last one in leads
    the first one out by more than the draws left.

    Args:
        ballots: draws so far.
        votes: all draws.
        most: most items of a set; None where one answer is asked for.
    """
    left = votes - len(ballots)
    counts = sorted(tally(ballots).values(), reverse=True)
    if most is None:
        return _leads(counts, 1, left)
    if any(2 * n < votes <= 2 * (n + left) for n in counts) or 2 * left >= votes:
        return False
    reached = sum(2 * n >= votes for n in counts)
    size = min(max(reached, 1), most)
    return size == reached or _leads(counts, size, left)


def _leads(counts: Sequence[int], size: int, left: int) -> bool:
    """Says whether the last of the first `size` counts exceeds the next one by more than what is left."""
    padded = [*counts, *[0] * (size + 1)]
    return padded[size - 1] - padded[size] > left
