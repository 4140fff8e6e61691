"""Where the weights of a SPEC lie on this machine, and what their revision is; loads none, and needs no torch."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from clinical_data.errors import ModelError
from search.models import adapters as tuned
from search.models.adapters import CARD, HEAD, Adapter, folder_of, is_adapter, read_adapter
from search.models.embedded import (
    INSTALL_HINT,
    MODEL_NAME,
    embedded_folder,
    file_sha256,
    go_offline,
    is_installed,
    read_revision,
)

go_offline()

from huggingface_hub import snapshot_download  # noqa: E402

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


def find_weights(spec: str) -> Found:
    """Finds the weights that a SPEC names, and those that they stand on.

    Raises:
        ModelError: not here, or an adapter's base is not the one it was tuned on.
    """
    if (folder := folder_of(spec)).parent == tuned.BUNDLED and not is_adapter(folder):
        raise ModelError(
            f"no bundled adapter {folder.name}", hint=f"bundled: {', '.join(bundled_adapters()) or 'none'}"
        )
    adapters: list[Adapter] = []
    while spec != "embedded" and not spec.startswith("hf:") and is_adapter(folder_of(spec)):
        adapter = read_adapter(folder_of(spec))
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


def find_value_weights(spec: str) -> Found:
    """Finds the weights of a value model; its revision is that under which records name it.

    Raises:
        ModelError: as `find_weights`, or it has no head.
    """
    found, head = find_weights(spec), folder_of(spec) / HEAD
    if not head.is_file():
        raise ModelError(f"{spec} is no value model: it is no adapter with a {HEAD}")
    return replace(found, revision=with_head(found.revision, head))


def with_head(revision: str, head: Path) -> str:
    """Returns the revision of an adapter together with its head, of which its own knows nothing."""
    return hashlib.sha256(f"{revision}\n{file_sha256(head)}".encode()).hexdigest()


def bundled_adapters() -> list[str]:
    """Returns the names of the adapters that come with the package."""
    return sorted(path.name for path in tuned.BUNDLED.glob("*") if is_adapter(path))


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
