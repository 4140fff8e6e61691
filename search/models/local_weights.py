"""From a SPEC to weights on this machine: `embedded`, a local folder, or `hf:ORG/NAME`."""

from __future__ import annotations

import platform
from typing import Any

from clinical_data.errors import ModelError, UsageError
from search.models.adapters import merge_adapter
from search.models.embedded import go_offline
from search.models.language_model import ModelIdentity
from search.models.weight_files import Found, find_weights

go_offline()

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

__all__ = ["Found", "choose_device", "choose_dtype", "find_weights", "load_weights"]

DTYPES = {
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "float32": torch.float32,
}


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
