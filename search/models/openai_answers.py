"""What an OpenAI-compatible server answers: samples, their tokens, and what it says it worked on."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

from pydantic import BaseModel, Field, ValidationError

from clinical_data.errors import ModelError
from search.models.toys import word_ids


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a sample or an echoed prompt.

    Attributes:
        text: its text.
        token_id: the server's id, else CRC-32 of its text.
        logprob: ln p at temperature 1; None for the first token of a prompt.
    """

    text: str
    token_id: int
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample as the server sent it.

    Attributes:
        text: its text, without the stop string.
        tokens: its tokens, with those of an echoed prompt and of the stop string; None where the server sent none.
        finish: `stop`, `length` or `error`.
        server_ids: whether the ids of the tokens are the server's.
    """

    text: str
    tokens: tuple[Token, ...] | None
    finish: str
    server_ids: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's answer to one request: samples, and tokens of the prompt, of all samples, and cached ones."""

    samples: tuple[Sample, ...]
    prompt_tokens: int | None
    sampled_tokens: int | None
    cached_tokens: int


class _Entry(BaseModel):
    """llama.cpp gives tokens in the form of the chat endpoint."""

    token: str
    logprob: float
    id: int | None = None


class _Logprobs(BaseModel):
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    content: list[_Entry] | None = None


class _Choice(BaseModel):
    text: str
    index: int = 0
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: list[int] | None = None


class _Cached(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None


class _Body(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def read_answer(raw: object, host: str) -> Answer:
    """Returns the answer of the completions endpoint.

    Raises:
        ModelError: no such answer, or one without a sample.
    """
    try:
        body = _Body.model_validate(raw)
    except ValidationError:  # quotes what was sent
        raise ModelError(f"{host} sent an answer that is none of the completions endpoint") from None
    usage = body.usage or _Usage()
    details = usage.prompt_tokens_details or _Cached()
    samples = tuple(_sample(c) for c in sorted(body.choices, key=lambda c: c.index))
    return Answer(samples, usage.prompt_tokens, usage.completion_tokens, details.cached_tokens or 0)


def _sample(choice: _Choice) -> Sample:
    finish = choice.finish_reason if choice.finish_reason in ("stop", "length") else "error"
    given = choice.logprobs
    ids: list[int | None]
    if given is not None and given.content is not None:
        texts = [e.token for e in given.content]
        logprobs: list[float | None] = [e.logprob for e in given.content]
        ids = [e.id for e in given.content]
    elif given is not None and given.tokens is not None and given.token_logprobs is not None:
        texts, logprobs = given.tokens, given.token_logprobs
        own = choice.token_ids
        ids = [*own] if own is not None and len(own) == len(texts) else [None] * len(texts)
    else:
        return Sample(choice.text, None, finish)
    tokens = tuple(
        Token(text, zlib.crc32(text.encode()) if i is None else i, p)
        for text, i, p in zip(texts, ids, logprobs, strict=False)
    )
    return Sample(choice.text, tokens, finish, bool(ids) and None not in ids)


def kept_tokens(sample: Sample) -> tuple[str, tuple[int, ...], float, str]:
    """Returns text, ids, sum of ln p and finish of a sample, cut before the first token that holds its stop string.

    Servers cut the text at the stop string but count the token that held it. Without tokens the ids are those of the
    words and the sum is 0.
    """
    if sample.tokens is None:
        return sample.text, word_ids(sample.text), 0.0, sample.finish
    text, kept = "", []
    for token in sample.tokens:
        over = len(text) + len(token.text) > len(sample.text)
        if over or (sample.finish == "stop" and len(text) == len(sample.text)):  # an end may have no text
            break
        text += token.text
        kept.append(token)
    if not sample.text.startswith(text):  # pieces of one character, or a space dropped: only the whole is sure
        text, kept = sample.text, list(sample.tokens)
    total = sum(t.logprob if t.logprob is not None else 0.0 for t in kept)
    finish = sample.finish if math.isfinite(total) else "error"
    return text, tuple(t.token_id for t in kept), total if finish != "error" else 0.0, finish


def last_tokens(tokens: tuple[Token, ...], text: str) -> tuple[Token, ...] | None:
    """Returns the fewest last tokens that cover a text, or None where they do not end with it or one has no ln p."""
    covered, count = "", 0
    while len(covered) < len(text) and count < len(tokens):
        count += 1
        covered = tokens[-count].text + covered
    found = tokens[len(tokens) - count :]
    sure = covered.endswith(text) and all(t.logprob is not None and math.isfinite(t.logprob) for t in found)
    return found if sure and found else None
