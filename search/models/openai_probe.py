"""What a server can do, found out once by a few tiny requests: documentation differs from servers, and servers from
each other; a parameter that a server does not know it often ignores in silence.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from dataclasses import dataclass, field, replace

from clinical_data.errors import ModelError
from search.models.language_model import Constraint
from search.models.openai_answers import Answer, Token, last_tokens, read_answer
from search.models.openai_client import ServerClient, ServerRefused
from search.models.openai_constraints import DIALECTS, named_choices

PROMPT = "The capital of France is"
UNLIKELY = (" zebra", " quartz")
OPEN_PROMPT = "Some words:"
TOLERANCE = 0.1  # in ln p, between two ways of asking for the same likelihood; batches of bf16 differ by less
GREEDY = 8  # tokens that an echo is compared over
FORCE = 100.0  # logit bias that makes a token certain

# Turns off what servers apply beside temperature and top-p, unless told not to: the first form that is not refused.
NEUTRAL: tuple[dict[str, object], ...] = (
    {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0},
    {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0},
    {},
)
# Statuses that say "I cannot"; the Python server of llama.cpp says 500. Others may pass.
UNABLE = (400, 404, 405, 422, 500, 501)


@dataclass(frozen=True, slots=True)
class Tokeniser:
    """A server's way of giving token ids.

    Attributes:
        path: below the server's root.
        parameter: name of the text's parameter.
        more: further parameters.
        before: ids that it puts before any text.
    """

    path: str
    parameter: str
    more: dict[str, object] = field(default_factory=dict)
    before: tuple[int, ...] = ()


# vLLM and SGLang; llama.cpp; its Python server.
TOKENISERS = (
    Tokeniser("/tokenize", "prompt", {"add_special_tokens": False}),
    Tokeniser("/tokenize", "content", {"add_special": False}),
    Tokeniser("/extras/tokenize", "input"),
)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a server can do.

    Attributes:
        neutral: parameters that turn off the server's own sampling rules; empty where it refuses them.
        seed: equal seeds give equal samples, also side by side, and others other ones.
        many: several different samples in one request.
        logprobs: ln p of each token.
        token_ids: parameters that make it send token ids beside the texts; None where it cannot.
        dialect: one of `DIALECTS` that it obeys, or an empty string.
        tokeniser: how it gives token ids; None where it does not.
        scoring: `stepwise` (each token of a choice forced, and its ln p read), `echo` (ln p of prompt and choice, read
            back), or `draws` (how often a choice is drawn).
        backend: what the server says it is.
        revision: what it says of the model's version.
        greedy: what it says first, by which other weights under the same name are told apart.
    """

    neutral: dict[str, object] = field(default_factory=dict)
    seed: bool = False
    many: bool = False
    logprobs: bool = False
    token_ids: dict[str, object] | None = None
    dialect: str = ""
    tokeniser: Tokeniser | None = None
    scoring: str = "draws"
    backend: str = ""
    revision: str = ""
    greedy: str = ""

    def to_extra(self) -> dict[str, str]:
        """Returns what a record keeps of it."""
        real_ids = self.tokeniser is not None
        return {
            "sampling_rules": "off" if self.neutral else "server's own",
            "seed": "honoured" if self.seed else "ignored",
            "n": _yes(self.many),
            "logprobs": _yes(self.logprobs),
            "scoring": self.scoring,
            "constraint": self.dialect or "free text, matched by names",
            "prompt_ids": "server" if real_ids else "words",
            "token_ids": "server" if self.token_ids is not None else "token texts" if self.logprobs else "words",
            "greedy_sha256": hashlib.sha256(self.greedy.encode()).hexdigest()[:16],
        }


def _yes(able: bool) -> str:
    return "yes" if able else "no"


async def probe(client: ServerClient) -> Abilities:
    """Asks a server a few tiny things and returns what it can do.

    Raises:
        ModelError: no answer to a plain request.
    """
    return await _Probe(client).run()


class _Probe:
    def __init__(self, client: ServerClient) -> None:
        self._client = client
        self._neutral: dict[str, object] = {}

    async def run(self) -> Abilities:
        plain = await self._first()
        backend, revision = await self._about()
        tokeniser = await self._tokeniser()
        greedy = await self._try(PROMPT, logprobs=1, max_tokens=GREEDY)
        logprobs = greedy is not None and bool(greedy.samples[0].tokens)
        return Abilities(
            neutral=self._neutral,
            seed=await self._seed(),
            many=await self._many(),
            logprobs=logprobs,
            token_ids=await self._token_ids() if logprobs else None,
            dialect=await self._dialect(),
            tokeniser=tokeniser,
            scoring=await self._scoring(greedy, tokeniser) if greedy is not None and logprobs else "draws",
            backend=backend,
            revision=revision,
            greedy=plain.samples[0].text,
        )

    async def _first(self) -> Answer:
        """Returns the answer to a plain request, and keeps the sampling parameters that were not refused."""
        for self._neutral in NEUTRAL[:-1]:
            try:
                return await self._ask(PROMPT, retries=None, max_tokens=GREEDY)
            except ServerRefused as refused:
                if refused.status not in (400, 422):
                    raise
        self._neutral = NEUTRAL[-1]
        return await self._ask(PROMPT, retries=None, max_tokens=GREEDY)

    async def _ask(self, prompt: str, *, retries: int | None, **more: object) -> Answer:
        raw = await self._raw(prompt, retries, more)
        return read_answer(raw, self._client.server.host)

    async def _raw(self, prompt: str, retries: int | None, more: dict[str, object]) -> object:
        body = {"model": self._client.server.model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0}
        return await self._client.call("/completions", {**body, **self._neutral, **more}, retries=retries)

    async def _try(self, prompt: str, **more: object) -> Answer | None:
        """Returns the answer, or None where the server cannot give it."""
        try:
            return await self._ask(prompt, retries=0, **more)
        except ServerRefused as refused:
            if refused.status in UNABLE:
                return None
        return await self._ask(prompt, retries=None, **more)

    async def _about(self) -> tuple[str, str]:
        """Returns what the server says of itself and of the model; empty strings where it says nothing."""
        listed = await _get(self._client, "/models")
        entries = [e for e in _items(listed.get("data")) if isinstance(e, dict)]
        entry = next((e for e in entries if e.get("id") == self._client.server.model), entries[0] if entries else {})
        meta = entry.get("meta")
        size = f"{meta.get('n_params')} parameters, {meta.get('size')} bytes" if isinstance(meta, dict) else ""
        version = (await _get(self._client, self._client.server.root + "/version")).get("version", "")
        return f"{entry.get('owned_by', '')} {version}".strip(), str(entry.get("root") or size)

    async def _seed(self) -> bool:
        """Asks the same side by side and once more alone: batches must not change a seeded sample either."""
        wanted = {"max_tokens": 12, "temperature": 1.0}
        beside = [self._try(OPEN_PROMPT, seed=seed, **wanted) for seed in (11, 11, 12, 13)]
        answers = [*await asyncio.gather(*beside), await self._try(OPEN_PROMPT, seed=11, **wanted)]
        texts = [a.samples[0].text for a in answers if a is not None]
        if len(texts) < len(answers):
            return False
        first, again, *others, alone = texts
        return first == again == alone and any(text != first for text in others)

    async def _many(self) -> bool:
        answer = await self._try(OPEN_PROMPT, max_tokens=12, temperature=1.0, n=3, seed=11)
        return answer is not None and len(answer.samples) == 3 and len({s.text for s in answer.samples}) > 1

    async def _token_ids(self) -> dict[str, object] | None:
        """llama.cpp sends ids unasked, vLLM and SGLang when asked; other servers send none."""
        asked: tuple[dict[str, object], ...] = ({}, {"return_token_ids": True})
        for more in asked:
            answer = await self._try(PROMPT, logprobs=1, **more)
            if answer is not None and answer.samples[0].server_ids:
                return more
        return None

    async def _dialect(self) -> str:
        """Returns the form of constraint that makes the server say what it never would."""
        constraint = Constraint(UNLIKELY)
        for name, form in DIALECTS.items():
            answer = await self._try(PROMPT, max_tokens=16, stop=["\n"], **form(constraint, "\n"))
            if answer is not None and named_choices(answer.samples[0].text, constraint):
                return name
        return ""

    async def _tokeniser(self) -> Tokeniser | None:
        for tokeniser in TOKENISERS:
            try:
                if await tokenise(self._client, tokeniser, PROMPT):
                    return replace(tokeniser, before=await tokenise(self._client, tokeniser, ""))
            except ModelError:
                continue
        return None

    async def _scoring(self, greedy: Answer, tokeniser: Tokeniser | None) -> str:
        """Returns the first way of scoring whose figures agree with those of a plain request.

        (Measured: the echo of llama-cpp-python 0.3.36 gives each token the ln p of the place after it.)
        """
        plain = greedy.samples[0].tokens or ()
        if any(t.logprob is None for t in plain) or not plain[0].text:
            return "draws"
        if tokeniser is not None and await self._steps(tokeniser, plain[0].text, plain[0].logprob):
            return "stepwise"
        text = "".join(t.text for t in plain)
        answer = await self._try(PROMPT + text, logprobs=1, echo=True)
        tokens = answer.samples[0].tokens if answer is not None else None
        found = last_tokens(tokens[:-1], text) if tokens else None
        same = found is not None and len(found) == len(plain)
        return "echo" if found and same and all(map(_near, found, plain)) else "draws"

    async def _steps(self, tokeniser: Tokeniser, likely: str, logprob: float | None) -> bool:
        """Says whether a forced token comes, with the ln p that it has unforced."""
        for text, expected in ((likely, logprob), (UNLIKELY[0], None)):
            ids = await tokenise(self._client, tokeniser, text)
            answer = await self._try(PROMPT, logprobs=1, logit_bias={str(ids[0]): FORCE})
            tokens = answer.samples[0].tokens if answer is not None else None
            if not tokens or tokens[0].logprob is None or not math.isfinite(tokens[0].logprob):
                return False
            if not text.startswith(tokens[0].text) or (expected is not None and len(ids) > 1):
                return False
            if abs(tokens[0].logprob - expected) > TOLERANCE if expected is not None else tokens[0].logprob > -1:
                return False
        return True


def _near(token: Token, other: Token) -> bool:
    return token.text == other.text and abs((token.logprob or 0.0) - (other.logprob or 0.0)) < TOLERANCE


async def tokenise(client: ServerClient, tokeniser: Tokeniser, text: str) -> tuple[int, ...]:
    """Returns the server's token ids of a text.

    Raises:
        ModelError: the server gave none.
    """
    body = {"model": client.server.model, tokeniser.parameter: text, **tokeniser.more}
    raw = await client.call(client.server.root + tokeniser.path, body)
    tokens = _items(raw.get("tokens")) if isinstance(raw, dict) else [None]
    ids = tuple(t for t in tokens if isinstance(t, int))
    if len(ids) < len(tokens) or (text and not ids):
        raise ModelError(f"{client.server.host} sent no token ids")
    return ids[len(tokeniser.before) :] if ids[: len(tokeniser.before)] == tokeniser.before else ids


async def _get(client: ServerClient, path: str) -> dict[str, object]:
    try:
        found = await client.call(path, retries=0)
    except ModelError:
        return {}
    return found if isinstance(found, dict) else {}


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []
