"""A value model: an adapter with a head that says how likely a trajectory ends well.

`wardstar train stepwise` makes one. The head reads the last hidden state of a prompt, which the shared-prefix passes
keep for every token anyway, so that judging a path whose beginning is known costs its new tokens alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from clinical_data.errors import ModelError
from search.models.adapters import HEAD
from search.models.embedded import go_offline
from search.models.language_model import ChoiceScores, GenerateRequest, Generation, ScoreRequest
from search.models.weight_files import with_head

go_offline()

import torch  # noqa: E402
from safetensors import SafetensorError  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor  # noqa: E402

from search.models.kv_cache import Ids  # noqa: E402
from search.models.prefix_engine import Scoring  # noqa: E402
from search.models.transformers import TransformersModel  # noqa: E402

NO_NUMBER = (-math.inf, -math.inf)


class ValueModel(TransformersModel):
    """A `LanguageModel` that judges and never writes. Use `with_head` to make one.

    Its choices are always the two ways in which a trajectory may end, well and badly, in that order. They are no text:
    they have no tokens, and their ln p come from the head instead of the vocabulary.
    """

    _weight: Tensor  # [hidden_size], float64
    _bias: float

    @classmethod
    def with_head(cls, folder: Path, **options: Any) -> ValueModel:
        """Loads a value model.

        Args:
            folder: an adapter with a head.
            options: as of `TransformersModel.load`.

        Raises:
            UsageError, ModelError: as there, or the head cannot be read or does not fit.
        """
        model = cls.load(str(folder), **options)
        assert isinstance(model, ValueModel)
        weight, bias = load_head(folder)
        size = model._model.config.get_text_config().hidden_size
        if weight.shape != (size,):
            raise ModelError(f"{folder / HEAD} does not fit its base model: {weight.numel()} weights, not {size}")
        model._weight, model._bias = weight.double().to(model._model.device), float(bias)
        model._identity = replace(model._identity, revision=with_head(model._identity.revision, folder / HEAD))
        return model

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Writes nothing.

        Raises:
            ModelError: always.
        """
        raise ModelError(f"{self._identity.name} values trajectories and writes none")

    def score(self, requests: Sequence[ScoreRequest]) -> list[ChoiceScores]:
        """Returns ln p of ending well, and of ending badly, after each prompt; minus infinity where it is no number.

        Raises:
            ModelError: another number of choices, an empty or overlong prompt, or the back-end failed.
        """
        if any(len(request.choices) != 2 for request in requests):
            raise ModelError(f"{self._identity.name} knows two choices: to end well, and to end badly")
        with self._lock:
            wanted = [self.prompt_ids(request.prompt) for request in requests]
            for ids in wanted:
                self._check_length(len(ids), 0)
            found: dict[Ids, tuple[float, float]] = {}

            def judge(jobs: Sequence[Scoring]) -> None:
                hidden = torch.stack([self._engine.cache.last_hidden(job.prompt_ids) for job in jobs])
                logits = (hidden.double() * self._weight).sum(-1) + self._bias  # [G]
                found.update(zip((job.prompt_ids for job in jobs), map(_log_shares, logits.tolist()), strict=True))

            self._in_batches([Scoring(ids, {}) for ids in sorted(set(wanted))], judge)
            return [ChoiceScores(ids, ((), ()), found[ids]) for ids in wanted]

    def choice_ids(self, choice: str) -> Ids:
        """Returns no token: a choice is no text here."""
        return ()


def save_head(weight: Tensor, bias: Tensor, folder: Path) -> None:
    """Writes a head beside its adapter: weight [hidden_size], bias [1], in fp32."""
    tensors = {"bias": bias, "weight": weight}
    save_file({name: t.detach().to("cpu", torch.float32).contiguous() for name, t in tensors.items()}, folder / HEAD)


def load_head(folder: Path) -> tuple[Tensor, Tensor]:
    """Returns weight [hidden_size] and bias [1] of a head.

    Raises:
        ModelError: not readable, not a head, or not finite.
    """
    try:
        tensors = load_file(folder / HEAD)
        weight, bias = tensors["weight"], tensors["bias"]
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / HEAD} cannot be read as a value head: {error}") from error
    if weight.dim() != 1 or bias.shape != (1,):
        raise ModelError(f"{folder / HEAD} is no value head: one weight for each hidden number and one bias")
    if not bool(weight.isfinite().all() and bias.isfinite().all()):
        raise ModelError(f"{folder / HEAD} holds numbers that are not finite")
    return weight, bias


def _log_shares(logit: float) -> tuple[float, float]:
    """Returns ln sigmoid(x) and ln sigmoid(-x), without overflow."""
    if not math.isfinite(logit):
        return NO_NUMBER
    below = -math.log1p(math.exp(-abs(logit)))  # of the likelier ending
    return (below, below - logit) if logit >= 0 else (below + logit, below)
