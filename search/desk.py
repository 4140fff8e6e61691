"""The desk through which every call to a model goes: batching, audit trail and token counts.

Parts of a search are generators that yield lists of `Ask` and are sent the replies. The desk runs many of them in
lockstep, one batch per model and round, so rollouts, siblings and peer checks share batches while the order of
everything stays a matter of arithmetic, not of timing.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Generic, TypeVar

from search.models.language_model import (
    ChoiceScores,
    GenerateRequest,
    Generation,
    LanguageModel,
    Prompt,
    ScoreRequest,
    prompt_text,
)
from search.problem import Models
from search.trajectory import ModelCall, Tokens

GENERATOR, PEER, VALUE = "generator", "peer", "value"
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


def together(parts: Sequence[Part[T]]) -> Part[list[T]]:
    """Runs parts in lockstep within one part and returns what they returned, in order."""
    running = [Running(part) for part in parts]
    while not all(r.done for r in running):
        replies = iter((yield [ask for r in running for ask in r.asks]))
        for r in (r for r in running if not r.done):
            r.send([next(replies) for _ in r.asks])
    return [r.result for r in running]


def samples_of(replies: Sequence[Reply]) -> list[Generation]:
    """Returns replies that must be samples."""
    if not all(isinstance(r, Generation) for r in replies):
        raise TypeError("a sample was asked for")
    return [r for r in replies if isinstance(r, Generation)]


def scores_of(reply: Reply) -> ChoiceScores:
    """Returns a reply that must be scores."""
    if not isinstance(reply, ChoiceScores):
        raise TypeError("likelihoods were asked for")
    return reply


class PrefixCount:
    """Counts distinct prompt tokens: the nodes that each prompt adds to a prefix trie.

    Sequences are kept sorted, as bytes, which compare faster than numbers; the longest prefix shared with any earlier
    one is shared with a neighbour.
    """

    def __init__(self) -> None:
        self._sorted: list[bytes] = []
        self._packed: dict[tuple[int, ...], bytes] = {}

    def add(self, ids: tuple[int, ...]) -> int:
        """Adds a sequence and returns how many of its tokens no earlier one held as a prefix."""
        if ids in self._packed:
            return 0
        packed = self._packed[ids] = _pack(ids)
        at = bisect_left(self._sorted, packed)
        shared = 0
        for other in self._sorted[max(at - 1, 0) : at + 1]:
            shared = shared_prefix(packed, other, shared)
        shared //= _WIDTH
        if shared < len(ids):
            self._sorted.insert(at, packed)
        return len(ids) - shared

    def extend(self, ids: tuple[int, ...], more: tuple[int, ...]) -> None:
        """Adds a sequence that goes on from one added before."""
        insort(self._sorted, self._packed[ids] + _pack(more))


_WIDTH = 8  # bytes of a packed id


def _pack(ids: tuple[int, ...]) -> bytes:
    return struct.pack(f"{len(ids)}q", *ids)


Ids = TypeVar("Ids", tuple[int, ...], bytes)


def shared_prefix(a: Ids, b: Ids, least: int = 0) -> int:
    """Returns the length of the longest common prefix, or `least` if that is more; by bisection over slices."""
    low, high = least, min(len(a), len(b))
    if a[:low] != b[:low]:
        return low
    if a[:high] == b[:high]:
        return max(low, high)
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, slots=True)
class _Told:
    """A prompt and its text: samples of one prompt come in a row."""

    prompt: Prompt
    text: str


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
    _last: _Told = field(default_factory=lambda: _Told((), ""))
    _prefixes: dict[int, PrefixCount] = field(default_factory=lambda: defaultdict(PrefixCount))

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
        for model in self.models.distinct:
            generate: dict[int, GenerateRequest] = {}
            score: dict[int, ScoreRequest] = {}
            for i, ask in enumerate(asks):
                if self._model(ask.role) is model:
                    if isinstance(ask.request, GenerateRequest):
                        generate[i] = ask.request
                    else:
                        score[i] = ask.request
            if generate:
                replies.update(zip(generate, model.generate(list(generate.values())), strict=True))
            if score:
                replies.update(zip(score, model.score(list(score.values())), strict=True))
        ordered = [replies[i] for i in range(len(asks))]
        for ask, reply in zip(asks, ordered, strict=True):
            self._note(ask, reply)
        return ordered

    def _model(self, role: str) -> LanguageModel:
        if role == VALUE and self.models.value is not None:
            return self.models.value
        return self.models.peer if role == PEER else self.models.generator

    def _note(self, ask: Ask, reply: Reply) -> None:
        prefixes = self._prefixes[id(self._model(ask.role))]
        if ask.request.prompt != self._last.prompt:
            self._last = _Told(ask.request.prompt, prompt_text(ask.request.prompt))
        new = prefixes.add(reply.prompt_ids)
        self.tokens.prefilled += new
        self.tokens.reused += len(reply.prompt_ids) - new
        completions: tuple[str, ...]
        ids: tuple[tuple[int, ...], ...]
        logprobs: tuple[float, ...]
        if isinstance(reply, Generation):
            self.tokens.sampled += len(reply.token_ids)
            prefixes.extend(reply.prompt_ids, reply.token_ids)
            completions, ids, logprobs = (reply.text,), (reply.token_ids,), (reply.logprob,)
        else:
            assert isinstance(ask.request, ScoreRequest)
            completions, ids, logprobs = _scored(ask.request, reply)
        seed = ask.request.seed if isinstance(ask.request, GenerateRequest) else None
        self.calls.append(
            ModelCall(ask.role, ask.purpose, self._last.text, reply.prompt_ids, completions, ids, logprobs, seed)
        )


def _scored(
    request: ScoreRequest, reply: ChoiceScores
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """Returns the choices that were scored, with their ids and ln p: where leaders were wanted not all may be."""
    if request.leaders is None:
        return request.choices, reply.choice_ids, reply.logprobs
    scored = [logprob > -math.inf for logprob in reply.logprobs]
    choices, ids = tuple(compress(request.choices, scored)), tuple(compress(reply.choice_ids, scored))
    return choices, ids, tuple(compress(reply.logprobs, scored))
