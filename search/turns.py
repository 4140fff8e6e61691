"""Making turns: for each kind of action, the calls it needs and the turns that come of them.

Each maker is a part for the desk: it yields asks and returns turns. A FINISH turn comes with its conclusion.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from clinical_data.catalogue import CatalogueItem
from clinical_data.chart import AnswerState
from clinical_data.vocabulary import normalise
from search import prompts, votes
from search.actions import Action, ActionKind
from search.desk import GENERATOR, Ask, Part, samples_of, scores_of
from search.models.language_model import (
    ChoiceScores,
    GenerateRequest,
    Generation,
    Leaders,
    Prompt,
    Sampling,
    ScoreRequest,
    Segment,
)
from search.problem import SearchProblem
from search.seeds import derive_random, derive_seed
from search.settings import SearchSettings
from search.trajectory import Conclusion, Turn
from search.wording import Wording, wording


@dataclass(frozen=True, slots=True)
class Spot:
    """Where turns are made: the turns so far, the prompt they make, and a label that seeds derive from."""

    turns: tuple[Turn, ...]
    prompt: Prompt
    label: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """An item that a REQUEST asks for, with ln likelihood and number of tokens of its name."""

    item: CatalogueItem
    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class TurnMaker:
    """Makes turns for one role of one problem.

    Attributes:
        opening: the prompt before any turn.
        seed: the seed that all seeds of this search derive from.
        role: who is asked.
        priors: role -> ln p of each answer without a case; filled by `prepare`.
    """

    problem: SearchProblem
    settings: SearchSettings
    opening: Prompt
    seed: int
    role: str = GENERATOR
    priors: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def begin(cls, problem: SearchProblem, settings: SearchSettings, seed: int) -> TurnMaker:
        """Returns the generator's maker for a problem; its seed derives from the run's, the case and the step."""
        own_seed = derive_seed(seed, problem.case_id, problem.step, problem.occurrence)
        return cls(problem, settings, wording(problem.language).opening(problem, settings), own_seed)

    @property
    def words(self) -> Wording:
        """The words in which this problem is put."""
        return wording(self.problem.language)

    def prepare(self, roles: Sequence[str]) -> Part[None]:
        """Asks each role for the likelihood of the answers without a case, where votes are exact and calibrated."""
        if self.settings.calibration == "none" or not votes.is_exact(self.problem, self.settings):
            return
        prompt = self.words.without_case(self.opening, prompts.answer_cue(self.problem))
        request = ScoreRequest(prompt, self.problem.vocabulary.choices)
        replies = yield [Ask(role, "prior", request) for role in roles]
        for role, reply in zip(roles, replies, strict=True):
            self.priors[role] = scores_of(reply).likelihoods(self.settings.likelihood)

    def spot(self, turns: tuple[Turn, ...], label: str) -> Spot:
        """Returns the spot after some turns."""
        return Spot(turns, prompts.extend(self.opening, turns), label)

    def items_left(self, turns: Sequence[Turn]) -> list[CatalogueItem]:
        """Returns what may still be requested after some turns; the opening items are answered already."""
        asked = {t.action.item_id for t in turns} | {i.item_id for i in self.problem.opening}
        return [i for i in self.problem.items if i.item_id not in asked]

    def sampling(self) -> Sampling:
        """Returns the sampling of this search."""
        s = self.settings
        return Sampling(s.turn_tokens, s.temperature, s.top_p)

    def ask(self, purpose: str, prompt: Prompt, *seed: object) -> Ask:
        """Returns an ask for one sample whose seed derives from this search's seed and `seed`."""
        return Ask(
            self.role, purpose, GenerateRequest(prompt, self.sampling(), derive_seed(self.seed, self.role, *seed))
        )

    def make(self, kind: ActionKind, spot: Spot) -> Part[list[tuple[Turn, Conclusion | None]]]:
        """Makes the children of one slot."""
        if kind is ActionKind.FINISH:
            turn, conclusion = yield from self.finish(spot)
            return [(turn, conclusion)]
        if kind is ActionKind.REQUEST:
            turns = yield from self.request(spot)
        elif kind is ActionKind.ASK:
            turns = yield from self.question(spot)
        elif kind is ActionKind.REASK:
            turns = yield from self.reask(spot)
        else:
            count = self.settings.think if kind is ActionKind.THINK else 1
            turns = yield from self.write(kind, spot, count)
        return [(turn, None) for turn in turns]

    def write(self, kind: ActionKind, spot: Spot, count: int, cue_text: str = "") -> Part[list[Turn]]:
        """Samples `count` thoughts or rephrasings."""
        cue = Segment(cue_text or self.words.CUES[kind])
        replies = yield [self.ask(kind.value, (*spot.prompt, cue), spot.label, kind.value, i) for i in range(count)]
        return [_written(kind, (cue,), g) for g in samples_of(replies)]

    def question(self, spot: Spot) -> Part[list[Turn]]:
        """Samples sub-questions, and for each a reply by majority (ASK)."""
        cue, reply_cue = Segment(self.words.CUES[ActionKind.ASK]), Segment(self.words.REPLY_CUE)
        drawn = yield [self.ask("ask", (*spot.prompt, cue), spot.label, "ask", i) for i in range(self.settings.ask)]
        written = samples_of(drawn)
        questions = _distinct(written) if self.settings.merge == "equal" else written
        stems = [(cue, Segment(q.text, q.token_ids), reply_cue) for q in questions]
        replies = yield from self._replies(spot, stems, "ask-reply")
        turns = [_voted(ActionKind.ASK, stem, drawn) for stem, drawn in zip(stems, replies, strict=True)]
        return [replace(t, text=f"{q.text.strip()} {t.text}") for q, t in zip(questions, turns, strict=True)]

    def reask(self, spot: Spot) -> Part[list[Turn]]:
        """Answers the last sub-question again (REASK)."""
        cue = Segment(self.words.REASK_CUE)
        (drawn,) = yield from self._replies(spot, [(cue,)], "reask")
        return [_voted(ActionKind.REASK, (cue,), drawn)]

    def _replies(self, spot: Spot, stems: Sequence[tuple[Segment, ...]], purpose: str) -> Part[list[list[Generation]]]:
        """Draws `ask_votes` replies after each stem."""
        draws = self.settings.ask_votes
        drawn = yield [
            self.ask(purpose, (*spot.prompt, *stem), spot.label, purpose, i, vote)
            for i, stem in enumerate(stems)
            for vote in range(draws)
        ]
        texts = samples_of(drawn)
        return [texts[i * draws : (i + 1) * draws] for i in range(len(stems))]

    def request(self, spot: Spot) -> Part[list[Turn]]:
        """Chooses distinct items and opens the chart for each (REQUEST)."""
        wanted = yield from self.choose_items(spot)
        return [self.opened(w.item, w.logprob, w.tokens) for w in wanted]

    def choose_items(self, spot: Spot) -> Part[list[Wanted]]:
        """Draws distinct items by their likelihood, without replacement."""
        items, s = self.items_left(spot.turns), self.settings
        random = derive_random(self.seed, self.role, spot.label, "request")
        noise = tuple(gumbel(random.random()) for _ in items)
        leaders = Leaders(s.request, s.likelihood, max(s.temperature, 1e-6), noise)
        scores = yield from self.score_items(spot, items, leaders)
        sizes = [len(ids) for ids in scores.choice_ids]
        merits = [leaders.merit(i, scores.logprobs[i], sizes[i]) for i in range(len(items))]
        order = sorted(range(len(items)), key=lambda i: (-merits[i], items[i].item_id))
        return [Wanted(items[i], scores.logprobs[i], sizes[i]) for i in order[: s.request]]

    def score_items(
        self, spot: Spot, items: Sequence[CatalogueItem], leaders: Leaders | None = None
    ) -> Part[ChoiceScores]:
        """Returns the likelihood of each item after the request cue, or of those that lead."""
        prompt = (*spot.prompt, Segment(self.words.CUES[ActionKind.REQUEST]))
        choices = tuple(f" {item.display}" for item in items)
        (reply,) = yield [Ask(self.role, "request", ScoreRequest(prompt, choices, leaders))]
        return scores_of(reply)

    def opened(self, item: CatalogueItem, logprob: float = 0.0, tokens: int = 0) -> Turn:
        """Returns the turn that opens the chart for an item; `logprob` and `tokens` are those of its name."""
        answer = self.problem.chart.request(item)
        action = Action(ActionKind.REQUEST, item.item_id)
        segments = self.words.request_segments(item.display, answer, self.settings)
        return Turn(action, item.display, segments, answer, logprob=logprob, tokens=tokens)

    def vote(self, spot: Spot) -> Part[votes.Outcome]:
        """Holds the vote on the answer after some turns."""
        poll = votes.Poll(
            self.problem,
            self.settings,
            self.role,
            (*spot.prompt, prompts.answer_cue(self.problem)),
            derive_seed(self.seed, self.role, spot.label, "vote"),
            self.priors.get(self.role, self.priors.get(GENERATOR)),
            supporting(spot.turns),
        )
        return votes.hold(poll)

    def finish(self, spot: Spot) -> Part[tuple[Turn, Conclusion]]:
        """Concludes by a vote (FINISH)."""
        outcome = yield from self.vote(spot)
        words = outcome.conclusion.words
        segments = (prompts.answer_cue(self.problem), Segment(f" {words}"))
        turn = Turn(Action(ActionKind.FINISH), words, segments, logprob=outcome.logprob, tokens=outcome.tokens)
        return turn, outcome.conclusion


def _written(kind: ActionKind, stem: tuple[Segment, ...], sample: Generation) -> Turn:
    segments = (*stem, Segment(sample.text, sample.token_ids))
    text = sample.text.strip()
    return Turn(Action(kind), text, segments, logprob=sample.logprob, tokens=len(sample.token_ids))


def _voted(kind: ActionKind, stem: tuple[Segment, ...], drawn: Sequence[Generation]) -> Turn:
    """Returns the turn of the majority among replies, with its share of them."""
    return replace(_written(kind, stem, majority(drawn)), confidence=agreement(drawn))


def _distinct(samples: Sequence[Generation]) -> list[Generation]:
    return list({normalise(s.text): s for s in reversed(samples)}.values())[::-1]


def majority(samples: Sequence[Generation]) -> Generation:
    """Returns a sample of the most frequent text; among equals the one of highest mean likelihood, then the first.

    Source: rStar, arXiv 2408.06195, section 3.1 (action A3).
    """
    counts = Counter(normalise(s.text) for s in samples)

    def merit(at: int) -> tuple[int, float, int]:
        sample = samples[at]
        mean = sample.logprob / max(len(sample.token_ids), 1)
        return counts[normalise(sample.text)], mean if math.isfinite(mean) else -math.inf, -at

    return samples[max(range(len(samples)), key=merit)]


def agreement(samples: Sequence[Generation]) -> float:
    """Returns the share of samples that say the same as their majority.

    Source: RAP, arXiv 2305.14992, section 3.2, "Confidence of the state".
    """
    return max(Counter(normalise(s.text) for s in samples).values()) / len(samples)


def supporting(turns: Sequence[Turn]) -> tuple[str, ...]:
    """Returns the ids of the findings that a path revealed, in order, each once."""
    opened = [t.answer for t in turns if t.answer is not None and t.answer.state is AnswerState.RECORDED]
    return tuple(dict.fromkeys(f.finding_id for answer in opened for f in answer.findings))


def gumbel(uniform: float) -> float:
    """Returns standard Gumbel noise from a uniform number: the largest of logits plus noise is a draw by softmax.

    Source: Gumbel-max; without replacement, Kool et al. 2019 (arXiv 1903.06059).
    """
    return -math.log(-math.log(min(max(uniform, 1e-300), 1 - 1e-16)))
