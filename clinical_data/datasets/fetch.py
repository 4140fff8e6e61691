"""Downloads an open data set from its publisher, or a mirror, and checks every file.

Where the publisher gives a list of sha256 sums it is fetched first and decides. Where none exists, the sums of the
manifest do; for a file without either, the sum of the first fetch is recorded and later fetches are held to it. What
was fetched, from where and how it was checked stands in `wardstar-fetch.json` in the folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from clinical_data.datasets import Dataset
from clinical_data.datasets.transfer import Transfer, disk_errors, private_file
from clinical_data.errors import BadInputError, StorageError, UsageError

log = logging.getLogger(__name__)

RECORD = "wardstar-fetch.json"
BY_PUBLISHER = "checked against the publisher's list of checksums"
BY_MANIFEST = "no checksum from the publisher; checked against wardstar's"
BY_FIRST_FETCH = "no checksum from the publisher; recorded at the first fetch"
LARGEST_RATIO = 200  # of what an archive unpacks to: beyond that it is no data
SPARE = 64 << 20  # bytes that stay free on the disk

Progress = Callable[[int, int | None, str], None]
"""Called with bytes done, bytes in all (None while unknown) and the file at work."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to fetch: where it is, where it goes, and what it must be."""

    path: str
    url: str
    sha256: str | None = None
    size: int | None = None
    unpack: bool = False


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch did.

    Attributes:
        name: the set.
        folder: where it lies.
        fetched, present: names of the files downloaded, and of those that were there and right already.
        bytes: size of all files.
        checked: how they were checked.
        import_command: what to do next.
    """

    name: str
    folder: Path
    fetched: tuple[str, ...]
    present: tuple[str, ...]
    bytes: int
    checked: str
    import_command: str


def fetch_dataset(
    dataset: Dataset,
    out: Path,
    *,
    mirror: str | None = None,
    progress: Progress = lambda done, total, name: None,
    attempts: int = 5,
    pause: float = 1.0,
) -> Fetched:
    """Downloads a set into a private folder; files that are there and right are left alone.

    Args:
        dataset: an open set.
        out: the folder; made when missing.
        mirror: address that holds the same files under the same names, instead of the publisher's.
        progress: see `Progress`.
        attempts: tries without progress before giving up.
        pause: seconds before the second try; doubles each time.

    Raises:
        UsageError: the set must be applied for, or the mirror is no address.
        BadInputError: a file is not there, cannot be had, or is not what its checksum says.
        StorageError: the disk is full or the folder cannot be written.
    """
    base = _base(dataset, mirror)
    _make_private(out)
    record = _read_record(out).get(dataset.name, {})
    with Transfer(_hosts(dataset, base, mirror), base.startswith("https:"), attempts, pause) as transfer:
        listed, sums = _listed(dataset, base, mirror is not None, transfer)
        known = record.get("files", {})
        wanted = [f if f.sha256 else _held_to_first(f, known) for f in listed]
        missing = [f for f in wanted if not _is_right(out, f)]
        sizes = {f.path: f.size if f.size is not None else transfer.size(f.url) for f in missing}
        _check_space(out, sizes.values())
        total = None if None in sizes.values() else sum(s for s in sizes.values() if s is not None)
        done = 0
        for file in missing:
            done += _fetch_file(transfer, file, out, _after(done, total, file.path, progress))
    for file in wanted:
        if file.unpack:
            _unpack(out / file.path)
    checked = BY_PUBLISHER if dataset.checksums else BY_FIRST_FETCH
    if not dataset.checksums and all(f.sha256 for f in listed):
        checked = BY_MANIFEST
    _write_record(out, dataset, base, checked, sums, wanted)
    new = {f.path for f in missing}
    return Fetched(
        dataset.name,
        out,
        tuple(f.path for f in wanted if f.path in new),
        tuple(f.path for f in wanted if f.path not in new),
        sum((out / f.path).stat().st_size for f in wanted),
        checked,
        dataset.import_command.format(out=out),
    )


def parse_checksums(text: str, url: str) -> dict[str, str]:
    """Returns name -> sha256 of a list as `sha256sum` writes it.

    Raises:
        BadInputError: a line is none of it, or a name would leave the folder.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parts = re.fullmatch(r"([0-9a-fA-F]{64})[ \t]+\*?(?:\./)?(.+?)\s*", line)
        if parts is None:
            raise BadInputError("not a line of sha256sum", file=url, line=number)
        if not is_safe_name(parts[2]):
            raise BadInputError("a file name that would leave the folder", file=url, line=number)
        found[parts[2]] = parts[1].lower()
    if not found:
        raise BadInputError("an empty list of checksums", file=url)
    return found


def is_safe_name(name: str) -> bool:
    """Says whether a relative POSIX file name stays inside the folder that it is joined to, on any system."""
    parts = name.split("/")
    return (
        not any(part in ("", ".", "..") or part.endswith((".", " ")) for part in parts)
        and not re.search(r'[\\:*?"<>|\x00-\x1f\x7f]', name)
        and parts[-1] != RECORD
        and len(name) <= 255
    )


def _base(dataset: Dataset, mirror: str | None) -> str:
    if not dataset.open:
        raise UsageError(
            f"{dataset.name} is not open: it must be applied for ({dataset.licence})",
            hint=f"{dataset.page}: {dataset.apply}; then `{dataset.import_command}`",
        )
    base = mirror or dataset.base
    if urlsplit(base).scheme not in ("http", "https") or not urlsplit(base).hostname:
        raise UsageError(f"--url {base}: no web address", hint="https://HOST/FOLDER/")
    return base if base.endswith("/") else base + "/"


def _hosts(dataset: Dataset, base: str, mirror: str | None) -> frozenset[str]:
    return frozenset((urlsplit(base).hostname or "", *(() if mirror else dataset.also_from)))


def _listed(dataset: Dataset, base: str, mirrored: bool, transfer: Transfer) -> tuple[list[RemoteFile], str | None]:
    """Returns the files of a set, and the sha256 of the publisher's list if it has one."""
    if not dataset.checksums:
        names = [(f, f.path if mirrored else f.remote or f.path) for f in dataset.files]
        return [RemoteFile(f.path, urljoin(base, quote(n)), f.sha256, f.size, f.unpack) for f, n in names], None
    url = urljoin(base, dataset.checksums)
    text = transfer.text(url)
    sums = parse_checksums(text, url)
    wanted = [n for n in sums if any(fnmatchcase(n, pattern) for pattern in dataset.include)]
    if not wanted:
        raise BadInputError("the list of checksums names no file of this set", file=url)
    files = [RemoteFile(n, urljoin(base, quote(n)), sums[n]) for n in sorted(wanted)]
    return files, hashlib.sha256(text.encode()).hexdigest()


def _held_to_first(file: RemoteFile, known: Mapping[str, Any]) -> RemoteFile:
    """Returns a file without a checksum, held to that of its first fetch if there was one."""
    sha256 = known.get(file.path, {}).get("sha256")
    return RemoteFile(file.path, file.url, sha256, file.size, file.unpack)


def _is_right(out: Path, file: RemoteFile) -> bool:
    target = out / file.path
    return file.sha256 is not None and target.is_file() and sha256_of(target) == file.sha256


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _after(done: int, total: int | None, name: str, progress: Progress) -> Callable[[int], None]:
    """Returns what to call with the bytes of one file, after `done` bytes of the files before it."""
    return lambda bytes_here: progress(done + bytes_here, total, name)


def _fetch_file(transfer: Transfer, file: RemoteFile, out: Path, progress: Callable[[int], None]) -> int:
    """Downloads a file, checks it and puts it in its place; returns its size in bytes."""
    target = _target(out, file.path)
    part = target.with_name(target.name + ".part")
    if file.sha256 is None:
        part.unlink(missing_ok=True)  # nothing would tell whether two halves belong together
    resumed = transfer.download(file.url, part, progress)
    found = sha256_of(part)
    if file.sha256 is not None and found != file.sha256 and resumed:
        log.warning("%s: what an earlier fetch left does not fit; once more from the beginning", file.path)
        part.unlink()
        transfer.download(file.url, part, progress)
        found = sha256_of(part)
    if file.sha256 is not None and found != file.sha256:
        part.unlink()
        raise BadInputError(
            f"{file.path}: sha256 is {found[:12]}..., not {file.sha256[:12]}...; the download was removed",
            hint="try again; if it stays so, the file was changed at its source: see the set's page",
        )
    try:
        part.replace(target)
        return target.stat().st_size
    except OSError as error:
        raise disk_errors(error, target) from error


def _target(out: Path, name: str) -> Path:
    """Returns where a file goes, with its folders made; a link that leads out of the folder is refused."""
    target = out / PurePosixPath(name)
    _make_private(target.parent)
    if not is_safe_name(name) or not target.parent.resolve().is_relative_to(out.resolve()) or target.is_symlink():
        raise StorageError(f"{name}: its place lies outside {out}", hint="remove the links in --out")
    return target


def _make_private(folder: Path) -> None:
    """Makes a folder that only its owner can enter, parents included; one that exists is left as it is."""
    try:
        for each in (*reversed(folder.parents), folder):
            if not each.exists():
                each.mkdir(mode=0o700)
        if not folder.is_dir():
            raise StorageError(f"{folder}: not a folder", hint="name another --out")
    except OSError as error:
        raise disk_errors(error, folder) from error


def _check_space(out: Path, sizes: Iterable[int | None]) -> None:
    needed = sum(size for size in sizes if size is not None)
    free = shutil.disk_usage(out).free
    if needed and needed + SPARE > free:
        raise StorageError(
            f"{out}: {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free",
            hint="free some space, or name another --out",
        )


def _unpack(archive: Path) -> None:
    """Opens a zip archive beside itself; members that are there in full are left alone."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [m for m in opened.infolist() if not m.is_dir()]
            if any(not is_safe_name(m.filename) for m in members):
                raise BadInputError("holds a file name that would leave the folder", file=archive)
            if sum(m.file_size for m in members) > LARGEST_RATIO * archive.stat().st_size:
                raise BadInputError("unpacks to far more than data would", file=archive)
            missing = [m for m in members if not _unpacked(archive.parent, m)]
            _check_space(archive.parent, [m.file_size for m in missing])
            for member in missing:
                target = _target(archive.parent, member.filename)
                part = target.with_name(target.name + ".part")
                with opened.open(member) as source, open(part, "wb", opener=private_file) as file:
                    shutil.copyfileobj(source, file)
                part.replace(target)
    except zipfile.BadZipFile as error:
        raise BadInputError("no zip archive, or a broken one", file=archive) from error
    except OSError as error:
        raise disk_errors(error, archive.parent) from error


def _unpacked(folder: Path, member: zipfile.ZipInfo) -> bool:
    target = folder / PurePosixPath(member.filename)
    return target.is_file() and target.stat().st_size == member.file_size


def _read_record(out: Path) -> dict[str, Any]:
    """Returns what earlier fetches into a folder noted, by set; empty when nothing legible is there."""
    try:
        found = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_record(
    out: Path, dataset: Dataset, base: str, checked: str, sums: str | None, files: list[RemoteFile]
) -> None:
    own = {
        "version": dataset.version,
        "from": base,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "checked": checked,
        "checksums_sha256": sums,
        "files": {
            f.path: {"sha256": f.sha256 or sha256_of(out / f.path), "bytes": (out / f.path).stat().st_size}
            for f in files
        },
    }
    text = json.dumps({**_read_record(out), dataset.name: own}, indent=2, sort_keys=True) + "\n"
    part = out / (RECORD + ".part")
    try:
        with open(part, "w", encoding="utf-8", opener=private_file) as file:
            file.write(text)
        part.replace(out / RECORD)
    except OSError as error:
        raise disk_errors(error, out / RECORD) from error
