"""The desk through which every call to a model goes: batching, audit trail and token counts.

Parts of a search are generators that yield lists of `Ask` and are sent the replies. The desk runs many of them in
lockstep, one batch per model and round, so rollouts, siblings and peer checks share batches while the order of
everything stays a matter of arithmetic, not of timing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from search.models.language_model import (
    ChoiceScores,
    GenerateRequest,
    Generation,
    LanguageModel,
    ScoreRequest,
    prompt_text,
)
from search.problem import Models
from search.trajectory import ModelCall, Tokens

GENERATOR, PEER = "generator", "peer"
Reply = Generation | ChoiceScores


@dataclass(frozen=True, slots=True)
class Ask:
    """One call wanted: who is asked, what for, and the request."""

    role: str
    purpose: str
    request: GenerateRequest | ScoreRequest


T = TypeVar("T")
Part = Generator[list[Ask], list[Reply], T]


class Running(Generic[T]):
    """A part in progress. `result` is there once `done`."""

    def __init__(self, part: Part[T]) -> None:
        self._part = part
        self.done = False
        self._result: list[T] = []
        self.asks: list[Ask] = []
        self._advance(None)

    @property
    def result(self) -> T:
        """What the part returned."""
        return self._result[0]

    def send(self, replies: list[Reply]) -> None:
        """Hands the replies to the part and takes its next asks."""
        self._advance(replies)

    def _advance(self, replies: list[Reply] | None) -> None:
        try:
            self.asks = next(self._part) if replies is None else self._part.send(replies)
        except StopIteration as stop:
            self.done, self.asks = True, []
            self._result.append(stop.value)


class PrefixCount:
    """Counts distinct prompt tokens: the nodes that each prompt adds to a prefix trie.

    Sequences are kept sorted; the longest prefix shared with any earlier one is shared with a neighbour.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[int, ...]] = []

    def add(self, ids: tuple[int, ...]) -> int:
        """Adds a sequence and returns how many of its tokens no earlier one held as a prefix."""
        at = bisect_left(self._seen, ids)
        near = self._seen[max(at - 1, 0) : at + 1]
        shared = max((shared_prefix(ids, other) for other in near), default=0)
        if shared < len(ids):
            insort(self._seen, ids)
        return len(ids) - shared


def shared_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Returns the length of the longest common prefix, by bisection over slices."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(slots=True)
class Desk:
    """Sends asks to models and keeps the audit trail of one case-step.

    Attributes:
        models: who answers for which role.
        calls: every call so far, in canonical order.
        tokens: logical counts so far.
    """

    models: Models
    calls: list[ModelCall] = field(default_factory=list)
    tokens: Tokens = field(default_factory=Tokens)
    _running: list[Running[object]] = field(default_factory=list)
    _prefixes: dict[int, PrefixCount] = field(default_factory=dict)

    def start(self, part: Part[T]) -> Running[T]:
        """Starts a part; it goes on with every round until it is done."""
        running = Running(part)
        if not running.done:
            self._running.append(running)  # type: ignore[arg-type]
        return running

    def run(self, part: Part[T]) -> T:
        """Runs a part to its end and returns what it returned."""
        running = self.start(part)
        while not running.done:
            self.round()
        return running.result

    def finish(self) -> None:
        """Runs all parts to their end."""
        while self._running:
            self.round()

    def round(self) -> None:
        """Answers the outstanding asks of all parts, in one batch per model and kind."""
        asks = [ask for running in self._running for ask in running.asks]
        replies = iter(self._answer(asks))
        for running in list(self._running):
            running.send([next(replies) for _ in running.asks])
        self._running = [r for r in self._running if not r.done]

    def _answer(self, asks: list[Ask]) -> list[Reply]:
        replies: dict[int, Reply] = {}
        for model in dict.fromkeys((self.models.generator, self.models.peer)):
            mine = [i for i, ask in enumerate(asks) if self._model(ask.role) is model]
            generate = [(i, asks[i].request) for i in mine if isinstance(asks[i].request, GenerateRequest)]
            score = [(i, asks[i].request) for i in mine if isinstance(asks[i].request, ScoreRequest)]
            if generate:
                results = model.generate([r for _, r in generate if isinstance(r, GenerateRequest)])
                replies.update(zip((i for i, _ in generate), results, strict=True))
            if score:
                scores = model.score([r for _, r in score if isinstance(r, ScoreRequest)])
                replies.update(zip((i for i, _ in score), scores, strict=True))
        ordered = [replies[i] for i in range(len(asks))]
        for ask, reply in zip(asks, ordered, strict=True):
            self._note(ask, reply)
        return ordered

    def _model(self, role: str) -> LanguageModel:
        return self.models.peer if role == PEER else self.models.generator

    def _note(self, ask: Ask, reply: Reply) -> None:
        prefixes = self._prefixes.setdefault(id(self._model(ask.role)), PrefixCount())
        new = prefixes.add(reply.prompt_ids)
        self.tokens.prefilled += new
        self.tokens.reused += len(reply.prompt_ids) - new
        completions: tuple[str, ...]
        ids: tuple[tuple[int, ...], ...]
        logprobs: tuple[float, ...]
        if isinstance(reply, Generation):
            self.tokens.sampled += len(reply.token_ids)
            prefixes.add(reply.prompt_ids + reply.token_ids)
            completions, ids, logprobs = (reply.text,), (reply.token_ids,), (reply.logprob,)
        else:
            assert isinstance(ask.request, ScoreRequest)
            completions, ids, logprobs = ask.request.choices, reply.choice_ids, reply.logprobs
        seed = ask.request.seed if isinstance(ask.request, GenerateRequest) else None
        text = prompt_text(ask.request.prompt)
        self.calls.append(ModelCall(ask.role, ask.purpose, text, reply.prompt_ids, completions, ids, logprobs, seed))
