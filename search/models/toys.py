"""Models without weights: `random:SEED` for engine tests and load, `scripted:FILE.json` for exact ones.

Their tokens are words; ids derive from the words, so the counts behave like those of a real model.
"""

from __future__ import annotations

import json
import math
import random
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from clinical_data.errors import BadInputError, ModelError
from clinical_data.vocabulary import normalise
from search.models.language_model import (
    ChoiceScores,
    Constraint,
    GenerateRequest,
    Generation,
    ModelIdentity,
    Prompt,
    ScoreRequest,
    Work,
    prompt_text,
)
from search.seeds import derive_seed

WORDS = (
    "the", "patient", "has", "fever", "pain", "breath", "pressure", "acute", "likely", "because", "heart", "lung",
    "kidney", "infection", "bleeding", "chronic", "result", "suggests", "consider", "exclude", "recent", "raised",
)  # fmt: skip


@lru_cache(maxsize=65536)
def word_ids(text: str) -> tuple[int, ...]:
    """Returns one id per word, with its leading space or line break."""
    return tuple(zlib.crc32(word.encode()) for word in text.replace("\n", " \n ").split(" ") if word)


def prompt_ids(prompt: Prompt) -> tuple[int, ...]:
    """Returns the ids of a prompt, segment by segment."""
    return tuple(i for s in prompt for i in (s.token_ids if s.token_ids is not None else word_ids(s.text)))


class _WordModel:
    """Counters and bookkeeping that both share."""

    def __init__(self, identity: ModelIdentity) -> None:
        self._identity = identity
        self._work = Work()

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is."""
        return self._identity

    @property
    def work(self) -> Work:
        """Words handled; nothing is reused, since nothing is computed."""
        return self._work

    def release(self) -> None:
        """Keeps nothing, so has nothing to forget."""

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Returns the ids of a prompt."""
        return prompt_ids(prompt)

    def choice_ids(self, choice: str) -> tuple[int, ...]:
        """Returns the ids of a choice."""
        return word_ids(choice)

    def _sample(
        self, request: GenerateRequest, text: str, logprob: float, ids: tuple[int, ...] | None = None
    ) -> Generation:
        words = word_ids(text)[: request.sampling.max_new_tokens] if ids is None else ids
        before = prompt_ids(request.prompt)
        self._work.sampled += len(words)
        self._work.prefilled += len(before)
        self._work.computed += len(words) + len(before)
        return Generation(text, before, words, logprob, "stop")

    def _named(self, request: GenerateRequest, chosen: Sequence[int], logprobs: Sequence[float]) -> Generation:
        """Returns the sample that names some choices, as many of them as it has room for.

        Args:
            request: a constrained one.
            chosen: indices of the choices, in order; nothing is named twice, and no more than `most`.
            logprobs: ln likelihood of every choice of the constraint.
        """
        constraint = request.constraint
        assert constraint is not None
        wanted = tuple(dict.fromkeys(chosen))[: constraint.most]
        ids: tuple[int, ...] = ()
        named: list[int] = []
        for i in wanted:
            more = (word_ids(constraint.separator) if named else ()) + word_ids(constraint.choices[i])
            if len(ids) + len(more) > request.sampling.max_new_tokens:
                break
            ids += more
            named.append(i)
        text = constraint.separator.join(constraint.choices[i] for i in named)
        sample = self._sample(request, text, sum(logprobs[i] for i in named), ids)
        return replace(sample, chosen=tuple(named), finish="stop" if len(named) == len(wanted) else "length")

    def _scored(self, request: ScoreRequest, logprobs: Sequence[float]) -> ChoiceScores:
        before = prompt_ids(request.prompt)
        choices = tuple(word_ids(c) for c in request.choices)
        self._work.prefilled += len(before)
        self._work.scored += sum(map(len, choices))
        self._work.computed += len(before) + sum(map(len, choices))
        return ChoiceScores(before, choices, tuple(logprobs))


class RandomModel(_WordModel):
    """Legal actions, catalogue items and answers at random, decided by prompt and seed alone.

    A likelihood has one part that depends on the opening of the prompt only, so that different paths of one case
    agree more often than chance and a peer has something to agree with.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(ModelIdentity(f"random:{seed}", "random", str(seed), backend="words"))
        self._seed = seed

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Returns a few random words per request; under a constraint, a few of its choices by their likelihood."""
        return [self._draw(r) if r.constraint is None else self._choose(r, r.constraint) for r in requests]

    def _draw(self, request: GenerateRequest) -> Generation:
        noise = random.Random(derive_seed(self._seed, request.seed, prompt_text(request.prompt)))
        count = noise.randint(3, max(3, min(12, request.sampling.max_new_tokens)))
        text = "".join(f" {noise.choice(WORDS)}" for _ in range(count))
        return self._sample(request, text, -2.0 * count)

    def _choose(self, request: GenerateRequest, constraint: Constraint) -> Generation:
        """Draws choices without replacement, each with a chance that grows with its mean likelihood."""
        noise = random.Random(derive_seed(self._seed, request.seed, prompt_text(request.prompt)))
        means = self._means(request.prompt, len(constraint.choices))
        warmth = request.sampling.temperature
        count = noise.randint(1, constraint.most)
        logits = [m - warmth * math.log(max(noise.expovariate(1.0), 1e-300)) for m in means]  # Gumbel noise
        order = sorted(range(len(means)), key=lambda i: (-logits[i], i))
        return self._named(request, order[:count], self._logprobs(means, constraint.choices))

    def score(self, requests: Sequence[ScoreRequest]) -> list[ChoiceScores]:
        """Returns random likelihoods of the choices."""
        return [self._score(r) for r in requests]

    def _score(self, request: ScoreRequest) -> ChoiceScores:
        means = self._means(request.prompt, len(request.choices))
        return self._scored(request, self._logprobs(means, request.choices))

    def _means(self, prompt: Prompt, count: int) -> list[float]:
        """Returns the mean ln p of so many choices after a prompt."""
        case = random.Random(derive_seed(self._seed, "case", prompt_text(prompt[:2]), count))
        path = random.Random(derive_seed(self._seed, "path", prompt_text(prompt)))
        return [-4.0 * case.random() - 2.0 * path.random() for _ in range(count)]

    @staticmethod
    def _logprobs(means: Sequence[float], choices: Sequence[str]) -> list[float]:
        return [mean * max(len(word_ids(choice)), 1) for mean, choice in zip(means, choices, strict=True)]


class ScriptedModel(_WordModel):
    """Says what a file tells it to say; for tests that pin a whole tree.

    The file: `{"generate": [{"if": "text in the prompt", "ends": "end of the prompt", "texts": [...]}],
    "score": [{"if": ..., "ends": ..., "scores": {"choice": mean_logprob}}], "text": "default", "mean_logprob": -9}`.
    The first rule that fits is taken; of several texts the request's seed picks one. Under a constraint the text is
    read as a list of choices (` sepsis; heart failure`); what is no choice is left out.
    """

    def __init__(self, script: dict[str, object], name: str = "script") -> None:
        raw = json.dumps(script, sort_keys=True).encode()
        super().__init__(ModelIdentity(f"scripted:{name}", "scripted", sha256(raw).hexdigest()[:16], backend="words"))
        self._generate = _rules(script, "generate")
        self._score_rules = _rules(script, "score")
        self._text = str(script.get("text", " nothing"))
        self._mean = float(str(script.get("mean_logprob", -9.0)))

    @classmethod
    def load(cls, path: Path) -> ScriptedModel:
        """Reads a script.

        Raises:
            ModelError: no such file.
            BadInputError: the file is no script.
        """
        if not path.is_file():
            raise ModelError(f"no script {path}")
        try:
            script = json.loads(path.read_text(encoding="utf-8"))
            return cls(script, str(path))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise BadInputError(f"not a model script ({error})", file=path) from error

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Returns the text of the first rule that fits each prompt."""
        return [self._say(r) for r in requests]

    def _say(self, request: GenerateRequest) -> Generation:
        text, constraint = self._text_for(request), request.constraint
        if constraint is None:
            return self._sample(request, text, -1.0)
        places = {normalise(choice): i for i, choice in enumerate(constraint.choices)}
        parts = (normalise(part) for part in text.split(constraint.separator))
        return self._named(request, [places[p] for p in parts if p in places], [-1.0] * len(places))

    def _text_for(self, request: GenerateRequest) -> str:
        rule = _fitting(self._generate, prompt_text(request.prompt))
        if rule is None:
            return self._text
        texts = rule["texts"]
        assert isinstance(texts, list)
        return str(texts[request.seed % len(texts)])

    def score(self, requests: Sequence[ScoreRequest]) -> list[ChoiceScores]:
        """Returns the likelihoods of the first rule that fits each prompt."""
        results = []
        for request in requests:
            rule = _fitting(self._score_rules, prompt_text(request.prompt)) or {}
            means = rule.get("scores", {})
            assert isinstance(means, dict)
            logprobs = [float(means.get(c.strip(), self._mean)) * max(len(word_ids(c)), 1) for c in request.choices]
            results.append(self._scored(request, logprobs))
        return results


def _rules(script: dict[str, object], name: str) -> list[dict[str, object]]:
    rules = script.get(name, [])
    if not isinstance(rules, list) or not all(isinstance(r, dict) for r in rules):
        raise TypeError(f"{name} must be a list of rules")
    return rules


def _fitting(rules: list[dict[str, object]], text: str) -> dict[str, object] | None:
    return next((r for r in rules if str(r.get("if", "")) in text and text.endswith(str(r.get("ends", "")))), None)
