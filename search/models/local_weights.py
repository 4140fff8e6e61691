"""From a SPEC to weights on this machine: `embedded`, a local folder, or `hf:ORG/NAME`."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

from clinical_data.errors import ModelError, UsageError
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


def load_weights(spec: str, dtype: str, attention: str, device: str = "auto") -> tuple[Any, Any, ModelIdentity]:
    """Loads a model for inference.

    Args:
        spec: `embedded`, a local folder, or `hf:ORG/NAME` (from the local hub cache, unless HF_HUB_OFFLINE=0).
        dtype: `auto`, `fp32`, `bf16` or `fp16`.
        attention: name of the attention implementation.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        Model, tokenizer and identity.

    Raises:
        UsageError: an unknown dtype, or a device that is not there.
        ModelError: the weights are missing or cannot be read.
    """
    place = choose_device(device)
    wanted = choose_dtype(dtype, place)
    folder, name, revision = _find(spec)
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=wanted, attn_implementation=attention
        )
        model = model.to(place).eval().requires_grad_(False)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"cannot load {spec}: {error}") from error
    identity = ModelIdentity(
        spec=spec,
        name=name,
        revision=revision,
        dtype=str(wanted).removeprefix("torch."),
        backend=f"transformers {transformers.__version__} torch {torch.__version__}",
        device=str(place),
        extra={"hardware": _hardware(place)},
    )
    return model, tokenizer, identity


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


def _find(spec: str) -> tuple[Path, str, str]:
    """Returns folder, name and revision of the weights that `spec` names."""
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
        hint = "merge the adapter into its base model first" if (folder / "adapter_config.json").is_file() else ""
        raise ModelError(f"{spec} holds no model (no config.json)", hint=hint)
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
    for path in sorted(p for pattern in HUB_FILES for p in folder.glob(pattern)):
        digest.update(f"{path.name}:{file_sha256(path)}\n".encode())
    return digest.hexdigest()
