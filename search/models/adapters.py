"""LoRA adapters as `wardstar train` and PEFT write them: a folder of two small matrices for each linear layer.

An adapter is merged into its base once, when it is loaded: afterwards it costs nothing, and the search sees an
ordinary model. PEFT itself is not needed for that.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_data.errors import ModelError
from search.models.embedded import file_sha256

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
HEAD = "value_head.safetensors"  # beside the adapter of a value model, see `search.models.value_head`
CARD = "card.json"  # what `wardstar train` notes about a folder; it decides no result
PREFIX = "base_model.model."
NAMED = ("embedded", "hf")  # kinds of SPEC that name a model wherever they are read
BUNDLED = Path(__file__).with_name("bundled")
"""Adapters of the embedded model that come with the package; `make adapters` makes them."""

# Fields of PEFT's configuration that change what is added to the base, and the values under which it is plain LoRA.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    "layer_replication": (None, []),
}


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter folder.

    Attributes:
        folder: where it is.
        base: SPEC of the model it was tuned on; of a local folder, its path seen from `folder`.
        base_revision: revision of that model; empty when whoever made the adapter did not say.
        alpha: numerator of the scale.
        rank_stabilised: the scale is alpha / sqrt(rank) instead of alpha / rank.
        config: PEFT's configuration.
    """

    folder: Path
    base: str
    base_revision: str
    alpha: float
    rank_stabilised: bool
    config: Mapping[str, Any]

    @property
    def base_spec(self) -> str:
        """The SPEC under which this machine finds the base."""
        if self.base.partition(":")[0] in NAMED:
            return self.base
        local = self.folder / self.base
        if local.is_dir() or self.base.startswith((".", "/")):
            return str(local.resolve())
        return f"hf:{self.base}"  # PEFT's own spelling of a model of the hub

    def revision(self, base_revision: str) -> str:
        """Returns what decides the results: SHA-256 over the base's revision, the weights and how they are added.

        Where the base lies and what the training library noted besides does not count.
        """
        parts = [base_revision, file_sha256(self.folder / WEIGHTS), repr(self.alpha), repr(self.rank_stabilised)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def scale(self, rank: int) -> float:
        """Returns the factor of B A."""
        return self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def folder_of(spec: str) -> Path:
    """Returns the folder that a SPEC names: of `embedded:NAME` that of a bundled adapter, else the path itself."""
    kind, _, name = spec.partition(":")
    return BUNDLED / name if kind == "embedded" and name and "/" not in name else Path(spec)


def is_adapter(folder: Path) -> bool:
    """Says whether a folder holds an adapter rather than a whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def read_adapter(folder: Path) -> Adapter:
    """Reads the configuration of an adapter.

    Raises:
        ModelError: not readable, without weights or base, or another kind than plain LoRA.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        alpha, base = float(config["lora_alpha"]), str(config["base_model_name_or_path"] or "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / CONFIG} is no configuration of a LoRA adapter") from error
    for name, allowed in PLAIN.items():
        if config.get(name, allowed[0]) not in allowed:
            hint = "merge it into its base with the library that made it, and give the folder of the whole model"
            raise ModelError(f"{folder} is not a plain LoRA adapter: {name} is {config[name]!r}", hint=hint)
    if not base:
        raise ModelError(f"{folder / CONFIG} names no base model")
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} holds no weights ({WEIGHTS})", hint="was the training stopped? train with --resume")
    return Adapter(
        folder, base, str(config.get("revision") or ""), alpha, bool(config.get("use_rslora", False)), config
    )


def merge_adapter(model: Any, adapter: Adapter) -> None:
    """Adds scale * B A to the weights of a model, in place: W [out, in], B [out, rank], A [rank, in].

    Args:
        model: the base in fp32.
        adapter: what to add.

    Raises:
        ModelError: weights not readable, not finite, or of another architecture.

    Source: LoRA, arXiv 2106.09685, section 4.1.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(adapter.folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{adapter.folder / WEIGHTS} cannot be read: {error}") from error
    parameters = dict(model.named_parameters())
    stems = {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")}
    if 2 * len(stems) != len(tensors) or not stems:
        raise ModelError(f"{adapter.folder / WEIGHTS} holds other weights than those of LoRA")
    with torch.no_grad():
        for stem in sorted(stems):
            weight = parameters.get(stem.removeprefix(PREFIX) + ".weight")
            a, b = tensors[f"{stem}.lora_A.weight"], tensors.get(f"{stem}.lora_B.weight")
            if weight is None or b is None or (b.shape[0], a.shape[1]) != weight.shape or a.shape[0] != b.shape[1]:
                raise ModelError(f"{adapter.folder} does not fit its base model: {stem.removeprefix(PREFIX)}")
            delta = (b.float() @ a.float()) * adapter.scale(a.shape[0])
            if not bool(torch.isfinite(delta).all()):
                raise ModelError(f"{adapter.folder} holds numbers that are not finite")
            weight.add_(delta.to(weight.device))
