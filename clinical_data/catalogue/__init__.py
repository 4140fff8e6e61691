"""The catalogue of information that a step may request: the same list for every patient.

A catalogue is a versioned YAML file, or several that a head file names under `parts`. An item says what it is called,
what it costs, and by which codes each source records it. Items that a source has no matcher for answer `not_in_source`.

    version: 1
    items:
      - id: basic_metabolic_panel
        display: basic metabolic panel
        group: laboratory
        synonyms: [bmp, electrolytes]
        cost: {usd: 8, schedule: CMS CLFS, year: null, checked: false}
        loinc: ["51990-0"]             # codes of the panel as a whole
        members:                       # what it consists of; the name of a member leads to the item
          - {name: sodium, synonyms: [na], loinc: ["2951-2"], mimic: [50983], eicu: [sodium]}
        matches:                       # further matchers, source by source
          osce: [{system: "wardstar:osce/tests", words: [sodium], unless: [urine]}]
      - id: home_drugs
        ...
        kinds: [medication_home]       # optional: only findings of these kinds count
        matches:
          fhir: [{kinds: [medication_home]}]

A catalogue in another language names the one that it translates, and says what it calls each of its items; the names
of the other still lead to them:

    version: 1
    translates: v1
    display: {basic_metabolic_panel: 生化全套, ...}

A matcher names a `system` (left out: any system), and within it `codes`, one `prefix` or several `prefixes`, or `words`
of the code or its text (a finding that any of them covers is taken; with none of them every code is), `unless` words
that speak against it, and optionally the `kinds` of finding it takes. Lists may be nested, so that an anchor can stand
for a part of one. The codes of members become matchers: LOINC for FHIR and MEDS, `mimic` (d_labitems) for MIMIC in
tables, MEDS and FHIR, `eicu` (lab) for eICU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from clinical_data.case import Coding, Finding, FindingKind
from clinical_data.catalogue.names import name_key, says
from clinical_data.errors import BadInputError, UsageError

ITEM_SYSTEM = "wardstar:catalogue"  # codes are ids of catalogue items
# What can be ordered. A request whose answer the patient or the bedside gives is no test.
ORDERED_GROUPS = ("laboratory", "microbiology", "imaging", "procedure")

LOINC = "http://loinc.org"
MIMIC_LABS = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-d-labitems"
EICU_LABS = "wardstar:eicu/lab"

_REMEMBERED = 100_000  # codes
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # safe both; the one in C reads the lists five times as fast


@dataclass(frozen=True, slots=True)
class Matcher:
    """Which findings of a source belong to an item.

    Attributes:
        system: code system; empty means any.
        codes, prefixes: listed codes and beginnings of codes.
        kinds: kinds of finding taken; empty means any.
        words: phrases, each of which has all its words in the code or its text.
        unless: phrases that speak against it.

    A finding that any of `codes`, `prefixes` and `words` covers is taken; where all three are empty, every code is.
    """

    system: str
    codes: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    kinds: frozenset[FindingKind] = frozenset()
    words: tuple[tuple[str, ...], ...] = ()
    unless: tuple[tuple[str, ...], ...] = ()

    def accepts(self, finding: Finding) -> bool:
        """Says whether a finding falls under this matcher."""
        code = finding.code
        if self.system and code.system != self.system:
            return False
        if self.kinds and finding.kind not in self.kinds:
            return False
        if self.unless and any(says(f"{code.code} {code.display}", phrase) for phrase in self.unless):
            return False
        if not self.codes and not self.prefixes and not self.words:
            return True
        if code.code in self.codes or code.code.startswith(self.prefixes):
            return True
        return any(says(f"{code.code} {code.display}", phrase) for phrase in self.words)


@dataclass(frozen=True, slots=True)
class Member:
    """A single test of a panel.

    Attributes:
        display: what it is called.
        synonyms: further names.
        loinc: its LOINC codes.
    """

    display: str
    synonyms: tuple[str, ...] = ()
    loinc: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CatalogueItem:
    """One thing that can be requested.

    Attributes:
        item_id: stable name used in records.
        display: words used in prompts and reports.
        group: `history`, `examination`, `laboratory`, ... (for reports).
        cost_usd: price of one request in US dollars.
        cost_source: the schedule that it is from, its year, and whether it was checked, in words.
        matches: source name -> matchers.
        kinds: kinds of finding it may show; empty means any but in-hospital treatment.
        members: what a panel consists of; empty for other items.
        cost_year: year of the schedule, None where it is not known.
        cost_checked: whether the price was compared with the published schedule.
    """

    item_id: str
    display: str
    group: str
    cost_usd: float
    cost_source: str = ""
    synonyms: tuple[str, ...] = ()
    kinds: frozenset[FindingKind] = frozenset()
    matches: dict[str, tuple[Matcher, ...]] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    cost_year: int | None = None
    cost_checked: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that leads to the item: id, display, synonyms, and those of its members."""
        of_members = [name for m in self.members for name in (m.display, *m.synonyms)]
        return (self.item_id.replace("_", " "), self.display, *self.synonyms, *of_members)

    @property
    def shows_treatment(self) -> bool:
        """Says whether it shows in-hospital treatment, which no step before the treatment step may see (trap 15)."""
        return FindingKind.TREATMENT in self.kinds

    def accepts(self, source: str, finding: Finding) -> bool:
        """Says whether a finding of this source answers a request for this item."""
        if self.kinds:
            if finding.kind not in self.kinds:
                return False
        elif finding.kind is FindingKind.TREATMENT:
            return False
        return any(m.accepts(finding) for m in self.matches.get(source, ()))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A versioned list of items. `sha256` is that of its files and goes into every record."""

    name: str
    version: str
    items: tuple[CatalogueItem, ...]
    sha256: str
    # What was looked up before: a record has few names and many rows.
    _of_code: dict[tuple[str, FindingKind, Coding], tuple[CatalogueItem, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )
    _of_name: dict[frozenset[str], set[str]] = field(default_factory=dict, repr=False, compare=False)

    def item(self, item_id: str) -> CatalogueItem | None:
        """Returns the item of that id, or None."""
        return next((i for i in self.items if i.item_id == item_id), None)

    def named(self, item_ids: Sequence[str]) -> tuple[CatalogueItem, ...]:
        """Returns the items of these ids, in their order; ids of no item are passed over."""
        return tuple(item for name in item_ids if (item := self.item(name)) is not None)

    def offered(self, names: str | Sequence[str], opening: Sequence[str]) -> tuple[CatalogueItem, ...]:
        """Returns what a step may request, in the order of the catalogue.

        Args:
            names: ids or groups of items, or `all`, which leaves out in-hospital treatment: that must be named.
            opening: ids of items that are answered before, and so are not on offer.
        """
        wanted = None if names == "all" else set(names)
        return tuple(
            i
            for i in self.items
            if i.item_id not in opening
            and (not i.shows_treatment if wanted is None else bool(wanted & {i.item_id, i.group}))
        )

    def items_of(self, source: str, finding: Finding) -> tuple[CatalogueItem, ...]:
        """Returns the items that a finding of this source answers, in the order of the catalogue."""
        key = (source, finding.kind, finding.code)
        if key not in self._of_code:
            if len(self._of_code) >= _REMEMBERED:
                self._of_code.clear()
            self._of_code[key] = tuple(i for i in self.items if i.accepts(source, finding))
        return self._of_code[key]

    def recognise(self, text: str) -> CatalogueItem | None:
        """Returns the item that a free text names, or None where it names none or more than one.

        Case, punctuation, word order, plural endings, filler words and spelling do not matter (see `names`).
        """
        if not self._of_name:
            for item in self.items:
                for name in item.names:
                    self._of_name.setdefault(name_key(name), set()).add(item.item_id)
        found = self._of_name.get(name_key(text), set())
        return self.item(next(iter(found))) if len(found) == 1 else None


def bundled_catalogues() -> list[str]:
    """Returns the names of the bundled catalogues; a file with an underscore in its name is a part of one."""
    names = (file.name for file in files(__name__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml") and "_" not in name)


def load_catalogue(name: str = "v1") -> Catalogue:
    """Returns a bundled catalogue by name, or the one in a YAML file.

    Raises:
        UsageError: no such catalogue.
        BadInputError: the file is no valid catalogue.
    """
    if not name.endswith((".yaml", ".yml")):
        return _bundled(name)
    return _read(Path(name), name)


@cache
def _bundled(name: str) -> Catalogue:
    """Returns a bundled catalogue; it cannot change while the program runs, and takes long to read."""
    return _read(Path(str(files(__name__) / f"{name}.yaml")), name)


def _read(path: Path, name: str) -> Catalogue:
    if not path.is_file():
        bundled = ", ".join(bundled_catalogues())
        raise UsageError(f"no catalogue named {name}", hint=f"name a bundled catalogue ({bundled}) or a YAML file")
    raw = path.read_bytes()
    digest = hashlib.sha256(raw)
    part = path
    try:
        data = yaml.load(raw, _LOADER)
        if "translates" in data:
            return _translated(path, data, digest.hexdigest())
        entries = list(data.get("items", ()))
        for part_name in data.get("parts", ()):
            part = path.parent / part_name
            raw = part.read_bytes()
            digest.update(raw)
            entries.extend(yaml.load(raw, _LOADER)["items"])
        items = tuple(_item(entry) for entry in entries)
        version = str(data["version"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise BadInputError(f"not a valid catalogue ({error})", file=part) from error
    if not items:
        raise BadInputError("no items", file=path, field="items")
    if len({i.item_id for i in items}) != len(items):
        raise BadInputError("an item id occurs twice", file=path, field="items")
    if shared := _shared_name(items):
        raise BadInputError(f"two items are called {shared!r}", file=path, field="synonyms")
    return Catalogue(path.stem, version, items, digest.hexdigest())


def _translated(path: Path, data: dict[str, Any], sha256: str) -> Catalogue:
    """Returns the catalogue that a file translates, under the file's names; its hash is of both."""
    base, display = load_catalogue(data["translates"]), dict(data["display"])
    known = {i.item_id for i in base.items}
    for what, ids in (("no name for", known - set(display)), ("no such item:", set(display) - known)):
        if ids:
            raise BadInputError(f"{what} {min(ids)}", file=path, field="display")
    items = tuple(replace(i, display=str(display[i.item_id]), synonyms=(i.display, *i.synonyms)) for i in base.items)
    if shared := _shared_name(items):
        raise BadInputError(f"two items are called {shared!r}", file=path, field="display")
    digest = hashlib.sha256(f"{sha256} {base.sha256}".encode())
    return Catalogue(path.stem, str(data["version"]), items, digest.hexdigest())


def _shared_name(items: tuple[CatalogueItem, ...]) -> str | None:
    """Returns a name that leads to two items, or None."""
    owner: dict[frozenset[str], str] = {}
    for item in items:
        for name in item.names:
            if owner.setdefault(name_key(name), item.item_id) != item.item_id:
                return name
    return None


def _flat(value: Any) -> Iterator[str]:
    """Yields the texts of a list that may hold lists."""
    if isinstance(value, list):
        for one in value:
            yield from _flat(one)
    else:
        yield str(value)


def _matcher(entry: dict[str, Any]) -> Matcher:
    if unknown := set(entry) - {"system", "codes", "prefix", "prefixes", "kinds", "words", "unless"}:
        raise ValueError(f"unknown key {min(unknown)!r} in a matcher")
    if not entry.get("system") and not entry.get("kinds"):
        raise ValueError("a matcher needs a system or kinds")
    if empty := [key for key, value in entry.items() if not value]:
        raise ValueError(f"{empty[0]!r} of a matcher is empty")  # an empty list would match every code
    prefixes = (*([entry["prefix"]] if "prefix" in entry else []), *_flat(entry.get("prefixes", [])))
    return Matcher(
        system=entry.get("system", ""),
        codes=frozenset(_flat(entry.get("codes", []))),
        prefixes=tuple(str(p) for p in prefixes),
        kinds=frozenset(FindingKind(k) for k in entry.get("kinds", ())),
        words=tuple(tuple(phrase.lower().split()) for phrase in _flat(entry.get("words", []))),
        unless=tuple(tuple(phrase.lower().split()) for phrase in _flat(entry.get("unless", []))),
    )


def _of_members(entry: dict[str, Any]) -> dict[str, list[Matcher]]:
    """Returns the matchers that follow from the codes of an item and its members, per source."""
    members = entry.get("members", [])
    loinc = frozenset([*_flat(entry.get("loinc", [])), *(c for m in members for c in _flat(m.get("loinc", [])))])
    mimic = frozenset(c for m in members for c in _flat(m.get("mimic", [])))
    eicu = frozenset(c for m in members for c in _flat(m.get("eicu", [])))
    found: dict[str, list[Matcher]] = {}
    for sources, system, codes in (
        (("fhir", "meds"), LOINC, loinc),
        (("fhir", "meds", "mimic-iv", "mimic-iii"), MIMIC_LABS, mimic),
        (("eicu",), EICU_LABS, eicu),
    ):
        for source in sources if codes else ():
            found.setdefault(source, []).append(Matcher(system, codes))
    return found


def _item(entry: dict[str, Any]) -> CatalogueItem:
    matches = _of_members(entry)
    for source, matchers in (entry.get("matches") or {}).items():
        matches.setdefault(source, []).extend(_matcher(m) for m in matchers)
    members = (Member(m["name"], tuple(m.get("synonyms", ())), tuple(_flat(m.get("loinc", [])))) for m in
               entry.get("members", ()))  # fmt: skip
    cost = entry["cost"]
    year, checked = cost.get("year"), bool(cost.get("checked", False))
    return CatalogueItem(
        item_id=entry["id"],
        display=entry["display"],
        group=entry["group"],
        cost_usd=float(cost["usd"]),
        cost_source=f"{cost['schedule']}, {year or 'year unstated'}: {'checked' if checked else 'unchecked'}"
        if cost["usd"]
        else cost["schedule"],
        synonyms=tuple(entry.get("synonyms", ())),
        kinds=frozenset(FindingKind(k) for k in entry.get("kinds", ())),
        matches={source: tuple(matchers) for source, matchers in matches.items()},
        members=tuple(members),
        cost_year=year,
        cost_checked=checked,
    )
