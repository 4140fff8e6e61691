"""The functions that tune a model, loaded only when they are needed: their libraries are heavy and optional."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clinical_data.errors import UsageError

Tune = Callable[..., dict[str, Any]]


def training_functions() -> dict[str, Tune]:
    """Returns method -> the function that tunes by it.

    Raises:
        UsageError: the libraries for training are not installed.
    """
    try:
        from evaluation.supervision.fine_tune import fine_tune
        from evaluation.supervision.stepwise_trainer import train_stepwise
        from evaluation.supervision.ttrl import train_ttrl
    except ImportError as error:
        hint = "pip install 'wardstar[train]'"
        raise UsageError(f"training needs a library that is not installed: {error.name}", hint=hint) from error
    return {"sft": fine_tune, "dpo": fine_tune, "stepwise": train_stepwise, "ttrl": train_ttrl}
