"""Checkpoints that survive a kill: each is sealed by the hashes of its files once all of them are written.

The training library writes a checkpoint file by file. One without a seal, or with a file that differs from it, was cut
off; training goes on from the last one that is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from clinical_data.errors import BadInputError, StorageError, UsageError
from evaluation.supervision.cards import read_card

FOLDER = "checkpoints"
SEAL = "seal.json"
PLAN = "plan.json"


def seal(checkpoint: Path) -> None:
    """Writes the hashes of a checkpoint's files beside them.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        hashes = {path.name: _sha256(path) for path in sorted(checkpoint.iterdir()) if path.is_file()}
    except OSError as error:
        raise StorageError(f"{checkpoint}: cannot be read ({error.strerror})") from error
    write_json(checkpoint / SEAL, hashes)


def damage(checkpoint: Path) -> str:
    """Returns what is wrong with a checkpoint: a file that is missing or differs; empty when it is whole."""
    try:
        hashes = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        for name, expected in hashes.items():
            if not (checkpoint / name).is_file():
                return f"{name} is missing"
            if _sha256(checkpoint / name) != expected:
                return f"{name} is cut off or changed"
    except FileNotFoundError:
        return "it was not finished"
    except (OSError, ValueError, AttributeError) as error:
        return f"{SEAL} cannot be read ({type(error).__name__})"
    return ""


def last_good(folder: Path, remark: Callable[[str], None]) -> Path | None:
    """Returns the last whole checkpoint in a folder, None when training had not come to one.

    Each one that is not whole is named in a remark, and so is where training goes on instead.

    Raises:
        BadInputError: there are finished checkpoints and all are damaged.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    damaged: list[tuple[Path, str]] = []
    for path in found:
        wrong = damage(path)
        if not wrong:
            for other, why in damaged:
                remark(f"checkpoint {other} is damaged ({why}); going on from {path.name}")
            return path
        damaged.append((path, wrong))
    sealed = [(path, why) for path, why in damaged if (path / SEAL).exists()]
    if sealed:
        path, why = sealed[0]
        raise BadInputError(f"the checkpoint is damaged ({why}), and no earlier one is whole", file=path)
    for path, why in damaged:
        remark(f"checkpoint {path} is damaged ({why}); beginning anew")
    return None


def check_plan(out: Path, plan: Mapping[str, Any], *, resume: bool) -> bool:
    """Checks that the output folder is free, or holds a training by the same plan; writes nothing.

    Returns:
        There is a training to go on with.

    Raises:
        UsageError: the folder holds something else, or a training by another plan, or one that `resume` must permit.
    """
    path = out / FOLDER / PLAN
    if path.is_file():
        if not resume:
            raise UsageError(
                f"{out} holds a training that was stopped", hint="go on with --resume, or take another --out"
            )
        _compare(out, plan, read_card(path))
        return True
    if out.exists() and (not out.is_dir() or any(_not_of_a_beginning(out))):
        raise UsageError(f"{out} is there already and holds no training to go on with", hint="take another --out")
    return False


def open_plan(out: Path, plan: Mapping[str, Any], *, resume: bool) -> None:
    """Makes the output folder ready for a plan, or checks that what is there follows the same one.

    Raises:
        UsageError: as `check_plan`.
        StorageError: it cannot be written.
    """
    if check_plan(out, plan, resume=resume):
        return
    path = out / FOLDER / PLAN
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.mkdir(mode=0o700, exist_ok=True)  # weights can repeat the records they were tuned on
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out}: cannot be made ({error.strerror})") from error
    write_json(path, plan)


def _not_of_a_beginning(out: Path) -> Iterator[Path]:
    """Yields what a training that was killed before it had written its plan would not have left."""
    for path in out.iterdir():
        if path.name != FOLDER or not path.is_dir() or any(p.name != f"{PLAN}.part" for p in path.iterdir()):
            yield path


def leave_plan(out: Path) -> None:
    """Takes a plan away of which nothing can go on, since it has no checkpoint; a folder that is empty then goes too.

    So a training that failed at once, say for want of memory, is not in the way of one with other options.
    """
    if not list((out / FOLDER).glob("checkpoint-*")):
        shutil.rmtree(out / FOLDER, ignore_errors=True)
        with suppress(OSError):  # it holds something
            out.rmdir()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON to a file, whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from error


def same_plan(out: Path, plan: Mapping[str, Any], finished: Mapping[str, Any]) -> None:
    """Raises UsageError unless a finished training in `out` followed `plan`."""
    _compare(out, plan, finished)


def _compare(out: Path, plan: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Raises for the first difference between a plan and the one that a folder follows, by its dotted name."""
    now, then = json.loads(json.dumps(plan)), dict(there)
    for part in ("settings", "data", "base", "versions"):
        if now.get(part) == then.get(part):
            continue
        ours, theirs = now.get(part, {}), then.get(part) or {}
        names = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
        if part in ("data", "versions"):
            raise BadInputError(
                f"the training in {out} began with another training set ({part}: {', '.join(names)})",
                hint="take the same --data, or another --out",
            )
        raise UsageError(
            f"the training in {out} began with other {part}: "
            + ", ".join(f"{n} {theirs.get(n)}, now {ours.get(n)}" for n in names),
            hint="take the same options, or another --out",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
