"""What the search asks of a language model: continuations, and likelihoods of given answers.

A prompt is a sequence of segments, each tokenised on its own, so that a prompt which extends another one extends its
token ids as well: every distinct token of a tree needs computing once. Sampled text keeps the ids it was sampled as.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt.

    Attributes:
        text: its text.
        token_ids: the ids it was sampled as; None means "tokenise the text".
    """

    text: str
    token_ids: tuple[int, ...] | None = None


Prompt = tuple[Segment, ...]


def prompt_text(prompt: Prompt) -> str:
    """Returns the text of a prompt, verbatim."""
    return "".join([s.text for s in prompt])


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample: temperature 0 is greedy. A sample ends at the first token that holds a stop string;
    that token is dropped."""

    max_new_tokens: int = 40
    temperature: float = 0.8
    top_p: float = 0.95
    stop: tuple[str, ...] = ("\n",)


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a sample may say: one of some choices, or a list of distinct ones that ends with the sample's stop.

    Each choice, and the separator, is tokenised on its own, as in scoring; only tokens that continue one of them are
    drawn.

    Attributes:
        choices: texts, each as a continuation of the prompt, leading space included.
        most: most choices of one sample. With 1 the sample ends where its choice ends.
        separator: text between two choices.
    """

    choices: tuple[str, ...]
    most: int = 1
    separator: str = ";"


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sample wanted. `seed` (64 bit) alone decides its noise, whatever else is in the batch."""

    prompt: Prompt
    sampling: Sampling
    seed: int
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One sample.

    Attributes:
        text: decoded `token_ids`; may be empty.
        prompt_ids, token_ids: ids of the prompt, and of the sample without its stop token.
        logprob: sum of the natural logarithms of the probabilities of `token_ids` at temperature 1, no top-p.
        finish: `stop`, `length` or `error` (numbers that are not finite).
        chosen: indices of the choices that a constrained sample named in full, in order; empty for any other.
    """

    text: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprob: float
    finish: str
    chosen: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Leaders:
    """Which of several choices are wanted: those of the highest `likelihood / temperature + noise`.

    Attributes:
        count: how many.
        likelihood: `mean` or `sum` of ln p over the tokens of a choice.
        temperature: above 0.
        noise: what is added, for each choice.
    """

    count: int
    likelihood: str
    temperature: float
    noise: tuple[float, ...]

    def merit(self, at: int, logprob: float, tokens: int) -> float:
        """Returns what choice `at` is ranked by, from its ln p and its number of tokens."""
        likelihood = logprob if self.likelihood == "sum" else logprob / (tokens or 1)
        return likelihood / self.temperature + self.noise[at]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Likelihood wanted of each of several continuations of one prompt.

    Attributes:
        leaders: only the choices that lead by this rule are needed; a model may leave out the others, and may not.
    """

    prompt: Prompt
    choices: tuple[str, ...]
    leaders: Leaders | None = None


@dataclass(frozen=True, slots=True)
class ChoiceScores:
    """Log-likelihood of each choice after the prompt.

    Attributes:
        prompt_ids: ids of the prompt.
        choice_ids: ids of each choice.
        logprobs: for each choice, sum over its tokens of ln p (temperature 1); -inf where only leaders were wanted and
            this one was left out.
    """

    prompt_ids: tuple[int, ...]
    choice_ids: tuple[tuple[int, ...], ...]
    logprobs: tuple[float, ...]

    def likelihoods(self, kind: str) -> tuple[float, ...]:
        """Returns ln p of each choice: `mean` over its tokens, or their `sum`."""
        return self.logprobs if kind == "sum" else self.mean_logprobs

    @property
    def mean_logprobs(self) -> tuple[float, ...]:
        """Length-normalised: each sum divided by its number of tokens."""
        return tuple([p / (len(ids) or 1) for p, ids in zip(self.logprobs, self.choice_ids, strict=True)])


@dataclass(slots=True)
class Work:
    """Token positions a model really worked on since it was made, for figures of the run.

    Attributes:
        computed: positions that went through a forward pass, padding and unused draws included.
        prefilled: positions of prompts among them.
        sampled: tokens sampled and kept.
        scored: positions spent on the likelihood of given choices.
        reused: prompt positions whose keys and values were already there.
        passes: forward passes.
    """

    computed: int = 0
    prefilled: int = 0
    sampled: int = 0
    scored: int = 0
    reused: int = 0
    passes: int = 0


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What a record must say to find the same model again."""

    spec: str
    name: str
    revision: str
    dtype: str = ""
    backend: str = ""
    device: str = ""
    extra: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class LanguageModel(Protocol):
    """A language model as the search sees it. Implementations raise `ModelError` when they fail."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is."""

    @property
    def work(self) -> Work:
        """Running counters of the work really done."""

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Returns one sample per request, in order."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[ChoiceScores]:
        """Returns the likelihoods of the choices of each request, in order."""

    def release(self) -> None:
        """Forgets keys and values kept for earlier prompts; called when a case-step ends."""
