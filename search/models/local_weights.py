"""From a SPEC to weights on this machine: `embedded`, a local folder, or `hf:ORG/NAME`."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_data.errors import ModelError, UsageError
from search.models.adapters import CARD, Adapter, is_adapter, merge_adapter, read_adapter
from search.models.embedded import (
    INSTALL_HINT,
    MODEL_NAME,
    embedded_folder,
    file_sha256,
    go_offline,
    is_installed,
    read_revision,
)
from search.models.language_model import ModelIdentity

go_offline()

import torch  # noqa: E402
import transformers  # noqa: E402
from huggingface_hub import snapshot_download  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

DTYPES = {
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "float32": torch.float32,
}
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


@dataclass(frozen=True, slots=True)
class Found:
    """Weights on this machine.

    Attributes:
        folder: the whole model.
        name, revision: of the model with its adapters.
        adapters: merged into it in this order.
    """

    folder: Path
    name: str
    revision: str
    adapters: tuple[Adapter, ...] = ()


def load_weights(spec: str, dtype: str, attention: str, device: str = "auto") -> tuple[Any, Any, ModelIdentity]:
    """Loads a model for inference.

    Args:
        spec: `embedded`, a local folder, or `hf:ORG/NAME` (from the local hub cache, unless HF_HUB_OFFLINE=0). An
            adapter's folder stands for its base with the adapter merged into it, in fp32, before any rounding.
        dtype: `auto`, `fp32`, `bf16` or `fp16`.
        attention: name of the attention implementation.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        Model, tokenizer and identity.

    Raises:
        UsageError: an unknown dtype, or a device that is not there.
        ModelError: the weights are missing or cannot be read, or an adapter was tuned on others.
    """
    place = choose_device(device)
    wanted = choose_dtype(dtype, place)
    found = find_weights(spec)
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(found.folder, local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            found.folder,
            local_files_only=True,
            dtype=torch.float32 if found.adapters else wanted,
            attn_implementation=attention,
        )
        for adapter in found.adapters:
            merge_adapter(model, adapter)
        if found.adapters:
            _round(model, wanted)
        model = model.to(place).eval().requires_grad_(False)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"cannot load {spec}: {error}") from error
    identity = ModelIdentity(
        spec=spec,
        name=found.name,
        revision=found.revision,
        dtype=str(wanted).removeprefix("torch."),
        backend=f"transformers {transformers.__version__} torch {torch.__version__}",
        device=str(place),
        extra={"hardware": _hardware(place)},
    )
    return model, tokenizer, identity


def _round(model: Any, dtype: torch.dtype) -> None:
    """Rounds the weights of a model, and not its buffers: rotary frequencies stay in fp32, as after loading."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _hardware(device: torch.device) -> str:
    """Returns what decides the kernels, and so the last bits: the name of a GPU, the instructions of a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    matrix_units = " AMX" if torch.cpu.get_capabilities().get("amx_bf16") else ""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}{matrix_units}"


def choose_device(device: str) -> torch.device:
    """Returns the device asked for; `auto` is the CUDA device if there is one, else the processor.

    Raises:
        UsageError: an unknown name, or no such device here.
    """
    devices = torch.cuda.device_count()
    if device == "auto":
        return torch.device("cuda" if devices else "cpu")
    known = ["cpu", *(["cuda"] if devices else []), *(f"cuda:{i}" for i in range(devices))]
    if device not in known:
        raise UsageError(f"no device {device}", hint=f"auto, {', '.join(known)}")
    return torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Returns the dtype asked for; `auto` is bf16 where the processor computes it faster, else fp32.

    On a CPU that takes matrix units (AMX). Vector instructions alone (AVX512-BF16) are no gain: measured on a Xeon with
    its AMX masked, products of 32 rows and more took 1.5 to 2 times as long as in fp32.

    Raises:
        UsageError: an unknown name.
    """
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise UsageError(f"no dtype {dtype}", hint=f"auto, {', '.join(DTYPES)}")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else torch.float32


def find_weights(spec: str) -> Found:
    """Finds the weights that a SPEC names, and those that they stand on.

    Raises:
        ModelError: not here, or an adapter's base is not the one it was tuned on.
    """
    adapters: list[Adapter] = []
    while spec != "embedded" and not spec.startswith("hf:") and is_adapter(Path(spec)):
        adapter = read_adapter(Path(spec))
        if adapter.folder.resolve() in [a.folder.resolve() for a in adapters]:
            raise ModelError(f"{spec} is its own base")
        adapters.append(adapter)
        spec = adapter.base_spec
    folder, name, revision = _find(spec)
    for adapter in reversed(adapters):
        if adapter.base_revision and adapter.base_revision != revision:
            raise ModelError(
                f"{adapter.folder} was tuned on another model than {name} is now: revision {revision[:12]}, "
                f"recorded {adapter.base_revision[:12]}",
                hint="install the base it was tuned on, or train again",
            )
        name, revision = f"{name}+{adapter.folder.resolve().name}", adapter.revision(revision)
    return Found(folder, name, revision, tuple(reversed(adapters)))


def _find(spec: str) -> tuple[Path, str, str]:
    """Returns folder, name and revision of the whole model that `spec` names."""
    if spec == "embedded":
        folder = embedded_folder()
        if not is_installed(folder):
            raise ModelError(f"the embedded model is not installed in {folder}", hint=INSTALL_HINT)
        return folder, MODEL_NAME, read_revision(folder)
    if spec.startswith("hf:"):
        folder = _hub_snapshot(spec.removeprefix("hf:"))
        return folder, spec.removeprefix("hf:"), folder.name  # a snapshot's folder is named by its commit
    folder = Path(spec)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{spec} holds no model (no config.json) and no adapter (no adapter_config.json)")
    return folder, folder.resolve().name, _folder_sha256(folder)


def _hub_snapshot(name: str) -> Path:
    offline = os.environ.get("HF_HUB_OFFLINE", "1") != "0"
    try:
        return Path(snapshot_download(name, local_files_only=offline, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        hint = "fetch it on a networked machine, or set HF_HUB_OFFLINE=0 to permit the download"
        raise ModelError(f"{name} is not in the local hub cache", hint=hint) from error


def _folder_sha256(folder: Path) -> str:
    """Hashes what decides the results of a model: weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in HUB_FILES for p in folder.glob(pattern) if p.name != CARD):
        digest.update(f"{path.name}:{file_sha256(path)}\n".encode())
    return digest.hexdigest()
