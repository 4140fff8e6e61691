"""From a SPEC on the command line to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clinical_data.errors import UsageError
from search.models.language_model import LanguageModel
from search.models.toys import RandomModel, ScriptedModel


def load_model(spec: str, **options: Any) -> LanguageModel:
    """Loads a model.

    Args:
        spec: `embedded`, `hf:ORG/NAME`, a local folder, `scripted:FILE.json` or `random:SEED`.
        options: passed to the transformers back-end (dtype, threads, max_batch, cache_tokens).

    Raises:
        UsageError: the SPEC names no kind of model.
        ModelError: the model is not there or cannot be loaded.
    """
    kind, _, rest = spec.partition(":")
    if kind == "random" and rest.lstrip("-").isdigit():
        return RandomModel(int(rest))
    if kind == "scripted" and rest:
        return ScriptedModel.load(Path(rest))
    if kind == "openai" and rest:
        raise UsageError("served models (openai:MODEL@URL) are not available yet")
    if spec == "embedded" or (kind == "hf" and rest) or Path(spec).is_dir():
        from search.models.transformers import TransformersModel  # torch only when it is needed

        model: LanguageModel = TransformersModel.load(spec, **options)
        return model
    raise UsageError(
        f"no model {spec}",
        hint="embedded, hf:ORG/NAME, a local folder, scripted:FILE.json or random:SEED",
    )
