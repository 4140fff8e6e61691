"""Closed answer vocabularies: versioned files that a step names per source.

name: eicu-admission-groups
version: 1
system: wardstar:eicu/admission-group
source: where it was built from
entries:
  - {code: sepsis, display: sepsis, synonyms: [septic shock]}
members: eicu_apache_groups.csv        # optional: recorded term -> entry code (columns term, group)
member_levels: 2                       # or: a recorded path a|b|c counts as the entry a|b
half_credit: [[a, b], ...]             # optional: unordered pairs of codes

`catalogue:NAME` is the list of what can be ordered in a catalogue: the answers of a work-up.
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from clinical_data.catalogue import ITEM_SYSTEM, ORDERED_GROUPS, load_catalogue
from clinical_data.errors import BadInputError, UsageError

OF_CATALOGUE = "catalogue:"  # before the name of a catalogue


@dataclass(frozen=True, slots=True)
class Entry:
    """One permitted answer."""

    code: str
    display: str
    synonyms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A closed list of answers.

    Attributes:
        entries: in the order of the file, which is the order in prompts.
        members: recorded term -> code of the entry it counts as (for scoring).
        member_levels: a recorded path (`a|b|c`) counts as the entry of its first so many levels; 0: not used.
        half_credit: unordered pairs of codes that count half (reported beside the strict figure).
        sha256: over the file and its members file.
        by_code: the entries by code; of several with one code the first.
        choices: the answers as continuations of a cue: each with a space before it.
    """

    name: str
    version: str
    system: str
    entries: tuple[Entry, ...]
    sha256: str
    members: dict[str, str] = field(default_factory=dict)
    half_credit: frozenset[frozenset[str]] = frozenset()
    member_levels: int = 0
    by_code: dict[str, Entry] = field(init=False, repr=False, compare=False)
    choices: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_code", {e.code: e for e in reversed(self.entries)})
        object.__setattr__(self, "choices", tuple(f" {e.display}" for e in self.entries))

    @property
    def groups(self) -> bool:
        """Says whether an entry stands for a group of recorded terms, not for one term."""
        return bool(self.members or self.member_levels)

    def entry(self, code: str) -> Entry | None:
        """Returns the entry of that code, or None."""
        return self.by_code.get(code)

    def key_of(self, text: str) -> str | None:
        """Returns the code of the entry that a text names (code, display, synonym), or None."""
        wanted = normalise(text)
        for entry in self.entries:
            if wanted in {normalise(entry.code), normalise(entry.display), *map(normalise, entry.synonyms)}:
                return entry.code
        return None

    def key_of_label(self, code: str) -> str | None:
        """Returns the code of the entry that a recorded code counts as, or None when it lies outside this vocabulary.

        With a members file that decides (a term listed without a group lies outside); with `member_levels` the first
        levels of a path; without either the code itself must be an entry.
        """
        if self.members:
            return self.members.get(code)
        if self.member_levels:
            code = "|".join(code.split("|")[: self.member_levels])
        return code if self.entry(code) else None


@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """Returns a text in lower case, without punctuation and with single spaces."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def load_vocabulary(name: str) -> Vocabulary:
    """Returns a bundled vocabulary by name, the one in a YAML file, or what a catalogue lets order (`catalogue:v1`).

    Raises:
        UsageError: no such vocabulary.
        BadInputError: the file is no valid vocabulary.
    """
    if name.startswith(OF_CATALOGUE):
        return _of_catalogue(name.removeprefix(OF_CATALOGUE))
    path = _path(name)
    if not path.is_file():
        raise UsageError(f"no answer vocabulary named {name}", hint="name a bundled vocabulary or a YAML file")
    raw = path.read_bytes()
    try:
        data = _parsed(raw)
        entries = tuple(Entry(str(e["code"]), e["display"], tuple(e.get("synonyms", ()))) for e in data["entries"])
        members: dict[str, str] = {}
        if data.get("members"):
            text = (path.parent / data["members"]).read_text(encoding="utf-8")
            raw += text.encode()
            members = {row["term"]: row["group"] for row in csv.DictReader(text.splitlines()) if row["group"]}
        pairs = frozenset(frozenset(map(str, pair)) for pair in data.get("half_credit", ()))
        result = Vocabulary(
            name=data["name"],
            version=str(data["version"]),
            system=data["system"],
            entries=entries,
            sha256=hashlib.sha256(raw).hexdigest(),
            members=members,
            half_credit=pairs,
            member_levels=int(data.get("member_levels", 0)),
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise BadInputError(f"not a valid answer vocabulary ({error})", file=path) from error
    codes = {e.code for e in entries}
    if len(codes) != len(entries):
        raise BadInputError("a code occurs twice", file=path, field="entries")
    if unknown := sorted(set(members.values()) - codes):
        raise BadInputError(f"unknown code {unknown[0]!r}", file=path, field="members")
    return result


def vocabulary_texts(name: str) -> dict[str, str]:
    """Returns name -> text of the files that make up a vocabulary: its own first, then that of its members."""
    if name.startswith(OF_CATALOGUE):
        vocabulary = load_vocabulary(name)
        return {f"{vocabulary.name}.yaml": _written(vocabulary)}
    path = _path(name)
    text = path.read_text(encoding="utf-8")
    members = _parsed(text.encode()).get("members")
    own = {path.name: text}
    return own | {members: (path.parent / members).read_text(encoding="utf-8")} if members else own


@lru_cache(maxsize=8)
def _of_catalogue(name: str) -> Vocabulary:
    """Returns the answers of a work-up. Its hash is that of the file that would hold it."""
    catalogue = load_catalogue(name)
    found = Vocabulary(
        name=f"catalogue-{catalogue.name}",
        version=catalogue.version,
        system=ITEM_SYSTEM,
        entries=tuple(Entry(i.item_id, i.display, i.synonyms) for i in catalogue.items if i.group in ORDERED_GROUPS),
        sha256="",
    )
    return replace(found, sha256=hashlib.sha256(_written(found).encode()).hexdigest())


def _written(vocabulary: Vocabulary) -> str:
    """Returns a vocabulary without members as the text of a file."""
    entries = [{"code": e.code, "display": e.display, "synonyms": list(e.synonyms)} for e in vocabulary.entries]
    head = {"name": vocabulary.name, "version": vocabulary.version, "system": vocabulary.system}
    return yaml.safe_dump({**head, "entries": entries}, sort_keys=False, allow_unicode=True, width=1000)


@lru_cache(maxsize=64)
def _parsed(raw: bytes) -> Any:
    """Returns what a file holds: a run looks its vocabularies up dozens of times, and parsing them takes seconds."""
    return yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _path(name: str) -> Path:
    given = name.endswith((".yaml", ".yml"))
    return Path(name) if given else Path(str(files("clinical_data") / "vocabularies" / f"{name}.yaml"))
