"""From a SPEC on the command line to a model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinical_data.errors import ModelError, UsageError, did_you_mean
from search.models.adapters import HEAD, is_adapter
from search.models.language_model import LanguageModel
from search.models.toys import RandomModel, ScriptedModel

LOCAL_OPTIONS: dict[str, type] = {"dtype": str, "device": str, "threads": int, "max_batch": int, "cache_mb": float}
SERVED_OPTIONS: dict[str, type] = {"timeout": float, "retries": int, "concurrency": int}
OPTIONS = {**LOCAL_OPTIONS, **SERVED_OPTIONS}


def check_options(options: Mapping[str, Any]) -> None:
    """Raises UsageError for an option that no back-end has, or a value of another type."""
    for name, value in options.items():
        if name not in OPTIONS:
            near = did_you_mean(name, OPTIONS)
            raise UsageError(f"unknown model option {name}{near}", hint=f"known: {', '.join(OPTIONS)}")
        words = {int: "a whole number", float: "a number", str: "a word"}[OPTIONS[name]]
        fits = isinstance(value, int | float) if OPTIONS[name] is float else isinstance(value, OPTIONS[name])
        if not fits or isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
            raise UsageError(f"model option {name} must be {words}")
        if name == "threads" and value < 1:
            raise UsageError("model option threads must be at least 1")


def load_model(spec: str, *, allowed_hosts: Sequence[str] = (), **options: Any) -> LanguageModel:
    """Loads a model.

    Args:
        spec: `embedded`, `embedded:NAME` (a bundled adapter of it), `hf:ORG/NAME`, a local folder,
            `openai:MODEL@URL`, `scripted:FILE.json` or `random:SEED`.
        allowed_hosts: hosts besides this machine that a served model may be on.
        options: of `OPTIONS`; each back-end takes those that it has.

    Raises:
        UsageError: the SPEC names no kind of model, or a host that is not allowed; an option that cannot be.
        ModelError: the model is not there or cannot be loaded.
    """
    check_options(options)
    local = {name: value for name, value in options.items() if name in LOCAL_OPTIONS}
    served = {name: value for name, value in options.items() if name in SERVED_OPTIONS}
    kind, _, rest = spec.partition(":")
    if kind == "random" and re.fullmatch("-?[0-9]{1,4000}", rest):
        return RandomModel(int(rest))
    if kind == "scripted" and rest:
        return ScriptedModel.load(Path(rest))
    if kind == "openai" and rest:
        from search.models.openai_compatible import OpenAIModel  # its client only when it is needed

        return OpenAIModel.load(spec, allowed_hosts=allowed_hosts, **served)
    if (Path(spec) / HEAD).is_file():
        raise UsageError(f"{spec} values trajectories and writes none", hint=f"use it as --value model:{spec}")
    if kind == "embedded" or (kind == "hf" and rest) or Path(spec).is_dir():
        from search.models.transformers import TransformersModel  # torch only when it is needed

        model: LanguageModel = TransformersModel.load(spec, **local)
        return model
    raise UsageError(
        f"no model {spec}",
        hint="embedded, embedded:NAME, hf:ORG/NAME, a local folder, openai:MODEL@URL, scripted:FILE.json, random:SEED",
    )


def load_value_model(spec: str, **options: Any) -> LanguageModel:
    """Loads the model of `--value model:SPEC`.

    Args:
        spec: a folder of `wardstar train stepwise`; or `random:SEED` or `scripted:FILE.json`, for tests.
        options: as of `load_model`.

    Raises:
        UsageError: an option that cannot be.
        ModelError: no such folder, one without a head, or weights that cannot be loaded.
    """
    if spec.partition(":")[0] in ("random", "scripted"):
        return load_model(spec)
    check_options(options)
    folder = Path(spec)
    if not is_adapter(folder) or not (folder / HEAD).is_file():
        hint = "`wardstar train stepwise` makes one"
        raise ModelError(f"{spec} is no value model: it is no adapter with a {HEAD}", hint=hint)
    from search.models.value_head import ValueModel  # torch only when it is needed

    return ValueModel.with_head(folder, **{name: v for name, v in options.items() if name in LOCAL_OPTIONS})
