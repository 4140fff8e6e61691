"""A language model on an OpenAI-compatible server: vLLM, SGLang, llama.cpp, or any other with a completions endpoint.

What a server can do is found out when the model is loaded (`openai_probe`), and what it lacks is worked around:

- seeds ignored: samples of one prompt come in one request, and `repeatable` is False;
- no way to read the likelihood of a given answer: answers are drawn, and counted;
- no structured output: the text is free, and matched to the choices by their names.

Prompts are sent as text. Ids of prompts and choices come from the server's tokeniser, segment by segment, where it has
one; else there is one per word (`toys.word_ids`).
"""

from __future__ import annotations

import asyncio
import math
import zlib
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from clinical_data.errors import ModelError
from search.models.language_model import (
    ChoiceScores,
    Constraint,
    GenerateRequest,
    Generation,
    ModelIdentity,
    Prompt,
    Sampling,
    ScoreRequest,
    Work,
    prompt_text,
)
from search.models.openai_answers import Answer, Sample, Token, kept_tokens, last_tokens, read_answer
from search.models.openai_client import ServerClient, parse_server
from search.models.openai_constraints import DIALECTS, named_choices
from search.models.openai_probe import FORCE, Abilities, probe, tokenise
from search.models.toys import word_ids
from search.seeds import derive_seed

DRAWS = 32  # samples that a likelihood is estimated from, where it cannot be read
PRIOR_COUNT = 0.5  # added to the count of each choice (Krichevsky and Trofimov 1981)
SEED_BITS = 0x7FFF_FFFF  # llama.cpp takes 32 bits, and gives the largest a meaning of its own

Ids = tuple[int, ...]
T = TypeVar("T")


class OpenAIModel:
    """A `LanguageModel` on a server. Use `load` to make one.

    Args:
        client: the line to the server.
        abilities: what it can do.
    """

    def __init__(self, client: ServerClient, abilities: Abilities) -> None:
        self._client, self._abilities = client, abilities
        self._work = Work()
        self._ids: dict[str, Ids] = {}
        server = client.server
        self._identity = ModelIdentity(
            spec=server.spec,
            name=server.model,
            revision=abilities.revision,
            backend=f"openai-compatible {abilities.backend}".strip(),
            device=server.host,
            extra=abilities.to_extra(),
        )

    @classmethod
    def load(
        cls,
        spec: str,
        *,
        allowed_hosts: Sequence[str] = (),
        timeout: float = 600.0,
        retries: int = 4,
        concurrency: int = 8,
    ) -> OpenAIModel:
        """Finds out what a server can do.

        Args:
            spec: `openai:MODEL@URL`.
            allowed_hosts: hosts besides this machine that may be sent prompts.
            timeout: seconds one request may take.
            retries: times a failed request is sent again.
            concurrency: most requests in flight.

        Raises:
            UsageError: a wrong SPEC or option, or a host that is not allowed.
            ModelError: the server cannot be reached or refuses.
        """
        server = parse_server(spec, allowed_hosts)
        client = ServerClient(server, timeout=timeout, retries=retries, concurrency=concurrency)
        try:
            return cls(client, client.run(probe(client)))
        finally:
            client.close()

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is; `extra` says what the server can do."""
        return self._identity

    @property
    def work(self) -> Work:
        """Running counters, as the server reports them: 0 where it reports none, and for its passes."""
        return self._work

    @property
    def repeatable(self) -> bool:
        """Says whether equal seeds gave equal samples when the server was tried."""
        return self._abilities.seed

    def release(self) -> None:
        """Forgets token ids and closes all connections; the next call opens them again."""
        self._ids.clear()
        self._client.close()

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Returns one sample per request, in order.

        Raises:
            ModelError: an empty prompt, or the server failed; names host and status, never a prompt.
        """
        return self._client.run(self._generate(requests))

    def score(self, requests: Sequence[ScoreRequest]) -> list[ChoiceScores]:
        """Returns the likelihoods of the choices of each request, in order.

        Where the server does not tell likelihoods, each choice counts as one token whose probability is the share of
        `DRAWS` samples that named it, smoothed; `identity.extra["scoring"]` says `draws`.

        Raises:
            ModelError: an empty prompt, or the server failed; names host and status, never a prompt.
        """
        return self._client.run(self._score(requests))

    # Samples

    async def _generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        await self._learn_ids(r.prompt for r in requests)
        groups = self._groups(requests)
        parts = await _together(self._sample(requests[group[0]], len(group)) for group in groups)
        done = {i: g for group, part in zip(groups, parts, strict=True) for i, g in zip(group, part, strict=True)}
        return [done[i] for i in range(len(requests))]

    def _groups(self, requests: Sequence[GenerateRequest]) -> list[list[int]]:
        """Returns which requests go as one: none where a seed decides; else those that differ in nothing else."""
        if self._abilities.seed or not self._abilities.many:
            return [[i] for i in range(len(requests))]
        groups: dict[object, list[int]] = {}
        for i, r in enumerate(requests):
            groups.setdefault((prompt_text(r.prompt), r.sampling, r.constraint), []).append(i)
        return list(groups.values())

    async def _sample(self, request: GenerateRequest, count: int) -> list[Generation]:
        before = self._prompt_ids(request.prompt)
        if request.sampling.max_new_tokens <= 0:
            return [Generation("", before, (), 0.0, "length")] * count
        samples = await self._draw(
            prompt_text(request.prompt), request.sampling, request.seed, count, request.constraint
        )
        return [self._generation(sample, before, request.constraint) for sample in samples]

    def _generation(self, sample: Sample, before: Ids, constraint: Constraint | None) -> Generation:
        text, ids, logprob, finish = kept_tokens(sample)
        self._work.sampled += len(ids)
        return Generation(
            text, before, ids, logprob, finish, named_choices(text, constraint) if constraint is not None else ()
        )

    async def _draw(
        self, prompt: str, sampling: Sampling, seed: int, count: int, constraint: Constraint | None
    ) -> tuple[Sample, ...]:
        """Draws samples of one prompt, in one request."""
        body: dict[str, object] = {
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed & SEED_BITS,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if count > 1:
            body["n"] = count
        if constraint is not None and self._abilities.dialect:
            body |= DIALECTS[self._abilities.dialect](constraint, sampling.stop[0] if sampling.stop else "")
        samples = (await self._complete(prompt, body)).samples
        if len(samples) < count:
            raise ModelError(f"{self._client.server.host} sent {len(samples)} of {count} samples")
        return samples[:count]

    async def _complete(self, prompt: str, body: dict[str, object]) -> Answer:
        if not prompt:
            raise ModelError("an empty prompt")
        abilities, server = self._abilities, self._client.server
        wanted = {"logprobs": 1} if abilities.logprobs else {}
        sent = {"model": server.model, "prompt": prompt, **abilities.neutral, **wanted, **(abilities.token_ids or {})}
        answer = read_answer(await self._client.call("/completions", {**sent, **body}), server.host)
        self._count(answer)
        return answer

    def _count(self, answer: Answer) -> None:
        new = max((answer.prompt_tokens or 0) - answer.cached_tokens, 0)
        self._work.prefilled += new
        self._work.reused += answer.cached_tokens
        self._work.computed += new + (answer.sampled_tokens or 0)

    # Likelihoods

    async def _score(self, requests: Sequence[ScoreRequest]) -> list[ChoiceScores]:
        await self._learn_ids(r.prompt for r in requests)
        if self._abilities.scoring == "stepwise":
            await self._learn_texts(c for r in requests for c in r.choices)
        ways = {"stepwise": self._score_stepwise, "echo": self._score_echo, "draws": self._score_draws}
        return await _together(ways[self._abilities.scoring](r) for r in requests)

    async def _score_stepwise(self, request: ScoreRequest) -> ChoiceScores:
        """Forces the tokens of all choices one by one and reads the ln p of each; shared beginnings count once."""
        prompt = prompt_text(request.prompt)
        wanted = {c: self._ids[c] for c in request.choices}
        known: dict[Ids, tuple[str, float]] = {(): ("", 0.0)}  # ids so far -> their text and ln p
        for length in range(1, max(map(len, wanted.values()), default=0) + 1):
            # a dictionary keeps the order of the choices
            steps = list({ids[:length]: choice for choice, ids in wanted.items() if len(ids) >= length}.items())
            tokens = await _together(self._step(prompt, choice, known[ids[:-1]][0], ids[-1]) for ids, choice in steps)
            for (ids, _), token in zip(steps, tokens, strict=True):
                text, logprob = known[ids[:-1]]
                known[ids] = (text + token.text, logprob + (token.logprob or 0.0))
        return ChoiceScores(
            self._prompt_ids(request.prompt),
            tuple(wanted[c] for c in request.choices),
            tuple(known[wanted[c]][1] for c in request.choices),
        )

    async def _step(self, prompt: str, choice: str, before: str, token_id: int) -> Token:
        body = {"max_tokens": 1, "temperature": 0.0, "logit_bias": {str(token_id): FORCE}}
        answer = await self._complete(prompt + before, body)
        self._work.scored += 1
        tokens = answer.samples[0].tokens
        if not tokens or tokens[0].logprob is None or not choice.startswith(before + tokens[0].text):
            raise ModelError(f"{self._client.server.host} did not take a forced token")
        return tokens[0]

    async def _score_echo(self, request: ScoreRequest) -> ChoiceScores:
        """Reads the ln p of each choice from the echo of prompt and choice."""
        found = await _together(self._echo(prompt_text(request.prompt), c) for c in request.choices)
        return ChoiceScores(
            self._prompt_ids(request.prompt),
            tuple(tuple(t.token_id for t in tokens) for tokens in found),
            tuple(sum(t.logprob or 0.0 for t in tokens) for tokens in found),
        )

    async def _echo(self, prompt: str, choice: str) -> tuple[Token, ...]:
        # servers read "no new tokens" differently, so one is asked for and dropped
        answer = await self._complete(prompt + choice, {"max_tokens": 1, "temperature": 0.0, "echo": True})
        tokens = answer.samples[0].tokens or ()
        new = 1 if answer.sampled_tokens is None else answer.sampled_tokens
        found = last_tokens(tokens[: len(tokens) - new], choice)
        if found is None:
            raise ModelError(f"{self._client.server.host} sent no likelihoods of a choice")
        self._work.scored += len(found)
        self._work.prefilled -= len(found)
        return found

    async def _score_draws(self, request: ScoreRequest) -> ChoiceScores:
        """Draws answers and counts them: ln p = ln((count + 1/2) / (named draws + choices / 2))."""
        prompt, constraint = prompt_text(request.prompt), Constraint(request.choices)
        sampling = Sampling(max(map(len, request.choices), default=0) + 2, temperature=1.0, top_p=1.0)
        size = DRAWS if self._abilities.many else 1
        seeds = [derive_seed("score", prompt, *request.choices, i) for i in range(DRAWS // size)]
        drawn = await _together(self._draw(prompt, sampling, seed, size, constraint) for seed in seeds)
        named = Counter(i for samples in drawn for s in samples for i in named_choices(s.text, constraint))
        total = sum(named.values()) + PRIOR_COUNT * len(request.choices)
        return ChoiceScores(
            self._prompt_ids(request.prompt),
            tuple((zlib.crc32(c.encode()),) for c in request.choices),
            tuple(math.log((named[i] + PRIOR_COUNT) / total) for i in range(len(request.choices))),
        )

    # Token ids

    async def _learn_ids(self, prompts: Iterable[Prompt]) -> None:
        await self._learn_texts(s.text for prompt in prompts for s in prompt if s.token_ids is None)

    async def _learn_texts(self, texts: Iterable[str]) -> None:
        """Fetches the ids of texts that are not known yet."""
        tokeniser = self._abilities.tokeniser
        new = [t for t in dict.fromkeys(texts) if t not in self._ids]
        if tokeniser is None:
            self._ids |= {text: word_ids(text) for text in new}
        else:
            found = await _together(tokenise(self._client, tokeniser, text) for text in new)
            self._ids |= dict(zip(new, found, strict=True))

    def _prompt_ids(self, prompt: Prompt) -> Ids:
        return tuple(i for s in prompt for i in (self._ids[s.text] if s.token_ids is None else s.token_ids))


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Runs coroutines side by side; the first error cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except* ModelError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
    return [task.result() for task in tasks]
