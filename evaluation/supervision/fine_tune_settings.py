"""How a model is tuned: every choice in one place, without loading anything heavy."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from clinical_data.errors import UsageError
from evaluation.supervision.tuning_rows import TARGETS, Method

# (method, full) -> learning rate. LoRA starts from nothing and bears a larger one; DPO moves what is there already.
LEARNING_RATES = {
    ("sft", False): 5e-4,
    ("sft", True): 5e-5,
    ("dpo", False): 5e-5,
    ("dpo", True): 5e-6,
    ("ttrl", False): 5e-5,
    ("ttrl", True): 5e-6,
    ("stepwise", False): 5e-4,
}
_WORDS = {"labels": ("vote", "peer"), "save_dtype": ("fp32", "bf16"), "target": tuple(TARGETS)}
SEEDS = 1 << 32  # seeds that every generator of random numbers takes
CHECK_EVERY = 50  # most steps between two checkpoints, and between two looks at the tuning rows


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Settings of one tuning.

    Attributes:
        method: `sft` (learn the completion), `dpo` (prefer one completion to another), `ttrl` (the vote as reward),
            `stepwise` (say what a turn is worth).
        base: SPEC of the model to tune.
        full: tune all weights instead of a LoRA adapter.
        rank, alpha, dropout: of the adapter; its scale is alpha / rank.
        epochs: passes over the rows.
        lr: highest learning rate; None takes that of `LEARNING_RATES`. It rises over the first 5 % of the steps (of at
            most 20 steps it begins with) and falls to 0 in a straight line.
        batch_size, accumulate: rows in one pass, and passes to one step; of SFT, a row that another one begins with is
            learned in that one's pass and does not count.
        by_length: SFT alone: rows of like length share a batch, so that little is spent on padding; batches are then
            less mixed.
        max_length: most tokens of a row; longer ones are left out, never cut.
        seed: of the adapter's first weights, of the order of rows and of dropout.
        dtype, device: as in `search.models.local_weights`.
        patience: looks at the tuning rows without improvement after which training ends; 0: never.
        beta: DPO alone: how strongly the model is held to its base.
        group, temperature: TTRL alone: answers drawn to a prompt, and how boldly.
        least_share: TTRL alone: a vote below this share of a group rewards nothing.
        labels: TTRL alone: `vote` (of the group), or `peer` (answers of the set whose label source is `peer`; in an
            exported sft set they agreed with the record too). Prompts without one go by the vote.
        save_dtype: of the adapter's numbers on disk, `fp32` or `bf16`.
        target: stepwise alone: `value` (share of the rollouts through a turn that ended well) or `label` (some did).
    """

    method: Method = "sft"
    base: str = "embedded"
    full: bool = False
    rank: int = 16
    alpha: float = 32
    dropout: float = 0.0
    epochs: float = 3.0
    lr: float | None = None
    batch_size: int = 8
    accumulate: int = 1
    by_length: bool = False
    max_length: int = 1024
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    patience: int = 3
    beta: float = 0.1
    group: int = 8
    temperature: float = 1.0
    least_share: float = 0.5
    labels: str = "vote"
    save_dtype: str = "fp32"
    target: str = "value"

    def __post_init__(self) -> None:
        """Raises UsageError for a value that cannot be."""
        self._check_words()
        for name in ("rank", "batch_size", "accumulate", "max_length"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
        for name in ("alpha", "epochs", "beta", "learning_rate"):
            if not (0 < getattr(self, name) < math.inf):
                raise UsageError(f"--{'lr' if name == 'learning_rate' else name} must be a number above 0")
        if not 0 <= self.dropout < 1:
            raise UsageError("--dropout must be at least 0 and below 1")
        if self.patience < 0:
            raise UsageError("--patience must not be negative")
        if not 0 <= self.seed < SEEDS:
            raise UsageError(f"--seed must be between 0 and {SEEDS - 1}")
        if self.group < 2:
            raise UsageError("--group must be at least 2")
        if not 0 < self.temperature < math.inf or not 0 < self.least_share <= 1:
            raise UsageError("--temperature must be above 0, --least-share above 0 and at most 1")

    def _check_words(self) -> None:
        if (self.method, self.full) not in LEARNING_RATES:
            raise UsageError(f"--full is not for {self.method}: it tunes an adapter")
        for name, known in _WORDS.items():
            if getattr(self, name) not in known:
                message = f"--{name.replace('_', '-')} {getattr(self, name)} is unknown"
                raise UsageError(message, hint=f"known: {', '.join(known)}")

    @property
    def learning_rate(self) -> float:
        """The highest learning rate."""
        return LEARNING_RATES[self.method, self.full] if self.lr is None else self.lr

    def schedule(self, rows: int) -> tuple[int, int]:
        """Returns the number of steps for some rows, and how many lie between two checkpoints.

        Checkpoints divide an epoch evenly, so that each epoch ends with one.
        """
        an_epoch = max(math.ceil(math.ceil(rows / self.batch_size) / self.accumulate), 1)
        every = math.ceil(an_epoch / math.ceil(an_epoch / CHECK_EVERY))
        return max(math.ceil(self.epochs * an_epoch), 1), every

    def row(self) -> dict[str, Any]:
        """Returns the settings as JSON, the learning rate filled in; `target` only where it says something."""
        found = {**asdict(self), "lr": self.learning_rate}
        if self.method != "stepwise":
            del found["target"]
        return found


_OF_ONE = {
    "beta": ("dpo",),
    "group": ("ttrl",),
    "temperature": ("ttrl",),
    "least_share": ("ttrl",),
    "labels": ("ttrl",),
    "patience": ("sft", "dpo", "stepwise"),
    "by_length": ("sft",),
    "target": ("stepwise",),
}
"""Setting -> the methods that use it, where not all do."""


def used_by(method: str) -> frozenset[str]:
    """Returns the names of the settings that a method uses."""
    return frozenset(f.name for f in fields(TuneSettings) if method in _OF_ONE.get(f.name, (method,)))


class TuneWatcher(Protocol):
    """What wants to know how a tuning goes."""

    def started(self, steps: int, done: int) -> None:
        """Training begins; `done` of `steps` were done before it was stopped."""

    def step(self, done: int, loss: float) -> None:
        """A step is done, with the loss of its rows."""

    def evaluated(self, done: int, loss: float) -> None:
        """The tuning rows were looked at."""

    def remark(self, text: str) -> None:
        """Something that a person should know."""


class SilentWatcher:
    """Wants to know nothing."""

    def started(self, steps: int, done: int) -> None:
        """Does nothing."""

    def step(self, done: int, loss: float) -> None:
        """Does nothing."""

    def evaluated(self, done: int, loss: float) -> None:
        """Does nothing."""

    def remark(self, text: str) -> None:
        """Does nothing."""
