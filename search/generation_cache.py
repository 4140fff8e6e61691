"""Answers from generations that were stored before, so that a repeated run makes no call to a model.

`CachedModel` stands before a model. What it computes anew it keeps in memory until the worker takes it, to be committed
with the record of the case-step; a step that broke or was killed leaves nothing.

**Keys.** The key of a request covers the model's identity (weights, dtype, back-end version, device), the code of the
back-ends, the prompt with the ids of sampled text, sampling, constraint, choices and seed. Text stands for its token
ids, which the revision of the weights fixes.

A local model computes a request in a batch, and on keys and values that earlier requests left behind; both change its
last bits (in bf16 13 of 800 sampled tokens). So its keys cover besides everything asked since the last `release`: a hit
is the same request under the same circumstances. Where a case-step leaves a known course, the model first does again
what the cache had answered, and computes from there what it would have computed without a cache. Hence a cache changes
no record, whoever filled it.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from search import models
from search.models.language_model import (
    ChoiceScores,
    GenerateRequest,
    Generation,
    LanguageModel,
    ModelIdentity,
    Prompt,
    ScoreRequest,
    Work,
)

logger = logging.getLogger(__name__)

Request = TypeVar("Request", GenerateRequest, ScoreRequest)
Reply = TypeVar("Reply", Generation, ChoiceScores)


class GenerationCache(Protocol):
    """Where generations are stored, by key. `evaluation/store/generations.py` implements it."""

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Returns key -> value of those keys that are stored."""


@runtime_checkable
class Tokenising(Protocol):
    """A model that can say token ids without a pass, so that they need not be stored."""

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Returns the ids of a prompt."""

    def choice_ids(self, choice: str) -> tuple[int, ...]:
        """Returns the ids of a choice."""


@dataclass(slots=True)
class CacheChanges:
    """What a case-step means to the cache.

    Attributes:
        new: key -> value of what a model computed.
        used: keys that the cache answered.
    """

    new: dict[bytes, bytes] = field(default_factory=dict)
    used: set[bytes] = field(default_factory=set)


class CachedModel:
    """A `LanguageModel` that asks the cache first.

    Args:
        model: computes what the cache lacks.
        cache: where to look.
        in_context: results depend on batch and earlier requests, as those of local weights do (see above). False for a
            served model, whose batches are not ours: there every request has a key of its own, a batch goes out
            without what is known, and equal requests go out once.

    Attributes:
        hits, misses: requests that the cache answered, and those that the model did (again, if a case-step left its
            known course).
    """

    def __init__(self, model: LanguageModel, cache: GenerationCache, *, in_context: bool = True) -> None:
        self._model, self._cache, self._in_context = model, cache, in_context
        self._origin = _origin(model.identity)
        self._history = self._origin
        self._replayed: list[tuple[int, Callable[[], object]]] = []  # requests, and how to do them again
        self._changes = CacheChanges()
        self.hits = 0
        self.misses = 0

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is."""
        return self._model.identity

    @property
    def work(self) -> Work:
        """Running counters of the model's work; a hit adds nothing."""
        return self._model.work

    @property
    def repeatable(self) -> bool:
        """Says whether the model itself would repeat its answers; only a served one may not."""
        return bool(getattr(self._model, "repeatable", True))

    def release(self) -> None:
        """Forgets what was asked, as the model forgets keys and values; called when a case-step ends."""
        self._model.release()
        self._history = self._origin
        self._replayed.clear()

    def take(self) -> CacheChanges:
        """Returns what came of the cache since the last call, and forgets it."""
        changes, self._changes = self._changes, CacheChanges()
        return changes

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Returns one sample per request, in order."""
        return self._answer(requests, self._model.generate, _read_generation)

    def score(self, requests: Sequence[ScoreRequest]) -> list[ChoiceScores]:
        """Returns the likelihoods of the choices of each request, in order."""
        return self._answer(requests, self._model.score, _read_scores)

    def _answer(
        self,
        requests: Sequence[Request],
        compute: Callable[[Sequence[Request]], list[Reply]],
        read: Callable[[dict[str, Any], Request, LanguageModel], Reply],
    ) -> list[Reply]:
        keys = self._keys(requests)
        replies = self._look_up(keys, requests, read)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in replies}
        if missing and self._in_context:
            self._catch_up()
            replies, missing = {}, dict(zip(keys, requests, strict=True))
        self.hits += sum(key in replies for key in keys)
        self.misses += sum(key in missing for key in keys)
        self._changes.used.update(replies)
        if missing:
            computed = dict(zip(missing, compute(list(missing.values())), strict=True))
            self._changes.new.update({k: pack(r, missing[k], self._model) for k, r in computed.items()})
            replies.update(computed)
        elif self._in_context:
            self._replayed.append((len(keys), partial(compute, requests)))
        return [replies[key] for key in keys]

    def _keys(self, requests: Sequence[Request]) -> list[bytes]:
        digests = [sha256(_canonical(r)).digest() for r in requests]
        if not self._in_context:
            return [sha256(self._origin + d).digest() for d in digests]
        self._history = sha256(self._history + b"".join(digests)).digest()
        return [sha256(self._history + index.to_bytes(4, "big")).digest() for index in range(len(digests))]

    def _look_up(
        self,
        keys: Sequence[bytes],
        requests: Sequence[Request],
        read: Callable[[dict[str, Any], Request, LanguageModel], Reply],
    ) -> dict[bytes, Reply]:
        known = self._changes.new
        values = {**self._cache.find([k for k in keys if k not in known]), **{k: known[k] for k in keys if k in known}}
        replies = {}
        for key, request in zip(keys, requests, strict=True):
            if key in values and key not in replies:
                try:
                    replies[key] = read(json.loads(zlib.decompress(values[key])), request, self._model)
                except (zlib.error, ValueError, KeyError, TypeError):
                    logger.warning("generation %s in the cache is damaged: computed again", key.hex()[:16])
        return replies

    def _catch_up(self) -> None:
        """Does again what the cache has answered since the last `release`, so that the model stands where it would."""
        for count, compute in self._replayed:
            compute()
            self.hits -= count
            self.misses += count
        self._replayed.clear()


def pack(reply: Generation | ChoiceScores, request: GenerateRequest | ScoreRequest, model: LanguageModel) -> bytes:
    """Returns a reply as compressed JSON; ids that the model can tell from the request are left out.

    Floats are written so that they read back as the same 64 bits.
    """
    data = _fields(reply)
    if reply.prompt_ids == _prompt_ids(request, model):
        del data["prompt_ids"]
    if isinstance(request, ScoreRequest) and data["choice_ids"] == _choice_ids(request, model):
        del data["choice_ids"]
    return zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 9)


def _read_generation(data: dict[str, Any], request: GenerateRequest, model: LanguageModel) -> Generation:
    return Generation(
        text=str(data["text"]),
        prompt_ids=tuple(data["prompt_ids"]) if "prompt_ids" in data else _prompt_ids(request, model),
        token_ids=tuple(data["token_ids"]),
        logprob=float(data["logprob"]),
        finish=str(data["finish"]),
        chosen=tuple(data["chosen"]),
    )


def _read_scores(data: dict[str, Any], request: ScoreRequest, model: LanguageModel) -> ChoiceScores:
    stored = "choice_ids" in data
    scores = ChoiceScores(
        prompt_ids=tuple(data["prompt_ids"]) if "prompt_ids" in data else _prompt_ids(request, model),
        choice_ids=tuple(map(tuple, data["choice_ids"])) if stored else _choice_ids(request, model),
        logprobs=tuple(map(float, data["logprobs"])),
    )
    if not len(scores.choice_ids) == len(scores.logprobs) == len(request.choices):
        raise ValueError("another number of choices")
    return scores


def _prompt_ids(request: GenerateRequest | ScoreRequest, model: LanguageModel) -> tuple[int, ...]:
    return model.prompt_ids(request.prompt) if isinstance(model, Tokenising) else ()


def _choice_ids(request: ScoreRequest, model: LanguageModel) -> tuple[tuple[int, ...], ...]:
    return tuple(model.choice_ids(c) for c in request.choices) if isinstance(model, Tokenising) else ()


def _origin(identity: ModelIdentity) -> bytes:
    return sha256(json.dumps([identity, _code_hash()], default=_fields, sort_keys=True).encode()).digest()


@cache
def _code_hash() -> str:
    """Returns the hash of the back-ends' own code: it decides replies, and changes more often than a version number."""
    digest = sha256()
    for path in sorted(Path(models.__path__[0]).glob("*.py")):
        digest.update(f"{path.name}:{sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _canonical(request: GenerateRequest | ScoreRequest) -> bytes:
    """Returns a request as JSON that equal requests, and no others, have in common."""
    named = [type(request).__name__, request]
    return json.dumps(named, default=_fields, sort_keys=True, separators=(",", ":")).encode()


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}
