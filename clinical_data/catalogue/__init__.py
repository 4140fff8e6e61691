"""The catalogue of information that a step may request: the same list for every patient.

A catalogue is a versioned YAML file. An item says what it is called, what it costs, and by which codes each
source records it. Items that a source has no matcher for answer `not_in_source`.

    version: 1
    items:
      - id: basic_metabolic_panel
        display: basic metabolic panel
        group: laboratory
        kind: laboratory               # optional: only findings of this kind count
        synonyms: [bmp, electrolytes]
        cost_usd: 8
        cost_source: "CMS CLFS, unchecked"
        matches:
          fhir: [{system: "http://loinc.org", codes: ["2345-7", "2951-2"]}]
          eicu: [{system: "wardstar:eicu/lab", codes: [BUN, creatinine]}]
      - id: history_pulmonary
        ...
        matches:
          fhir: [{system: "http://hl7.org/fhir/sid/icd-10-cm", prefixes: [J, G47.3], codes: [Z99.81]}]
          eicu: [{system: "wardstar:eicu/pastHistory", prefix: "notes/Progress Notes/Past History/Organ Systems/Pulm"}]
      - id: home_drugs
        ...
        matches:
          fhir: [{kinds: [medication_home]}]

A matcher names a `system` (left out: any system), and within it `codes`, one `prefix` or several `prefixes` (a finding
that any of them covers is taken; with none of them every code is), and optionally the `kinds` of finding it takes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import yaml

from clinical_data.case import Finding, FindingKind
from clinical_data.errors import BadInputError, UsageError


@dataclass(frozen=True, slots=True)
class Matcher:
    """Which findings of a source belong to an item.

    Attributes:
        system: code system; empty means any.
        codes, prefixes: listed codes and beginnings of codes, either of which suffices; both empty: every code.
        kinds: kinds of finding taken; empty means any.
    """

    system: str
    codes: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    kinds: frozenset[FindingKind] = frozenset()

    def accepts(self, finding: Finding) -> bool:
        """Says whether a finding falls under this matcher."""
        if self.system and finding.code.system != self.system:
            return False
        if self.kinds and finding.kind not in self.kinds:
            return False
        if not self.codes and not self.prefixes:
            return True
        return finding.code.code in self.codes or finding.code.code.startswith(self.prefixes)


@dataclass(frozen=True, slots=True)
class CatalogueItem:
    """One thing that can be requested.

    Attributes:
        item_id: stable name used in records.
        display: words used in prompts and reports.
        group: `history`, `examination`, `laboratory`, ... (for reports).
        cost_usd: price of one request in US dollars.
        matches: source name -> matchers.
        kinds: kinds of finding it may show; empty means any but in-hospital treatment.
    """

    item_id: str
    display: str
    group: str
    cost_usd: float
    cost_source: str = ""
    synonyms: tuple[str, ...] = ()
    kinds: frozenset[FindingKind] = frozenset()
    matches: dict[str, tuple[Matcher, ...]] = field(default_factory=dict)

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
    """A versioned list of items. `sha256` is that of the file and goes into every record."""

    name: str
    version: str
    items: tuple[CatalogueItem, ...]
    sha256: str

    def item(self, item_id: str) -> CatalogueItem | None:
        """Returns the item of that id, or None."""
        return next((i for i in self.items if i.item_id == item_id), None)

    def recognise(self, text: str) -> CatalogueItem | None:
        """Returns the item that a free text names (id, display or synonym, case ignored), or None."""
        wanted = " ".join(text.lower().replace("_", " ").split())
        for item in self.items:
            names = (item.item_id.replace("_", " "), item.display, *item.synonyms)
            if wanted in (" ".join(n.lower().split()) for n in names):
                return item
        return None


def load_catalogue(name: str = "v1") -> Catalogue:
    """Returns a bundled catalogue by name, or the one in a YAML file.

    Raises:
        UsageError: no such catalogue.
        BadInputError: the file is no valid catalogue.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else Path(str(files(__name__) / f"{name}.yaml"))
    if not path.is_file():
        raise UsageError(f"no catalogue named {name}", hint="name a bundled catalogue (v1) or a YAML file")
    raw = path.read_bytes()
    try:
        data = yaml.safe_load(raw)
        items = tuple(_item(entry) for entry in data["items"])
        version = str(data["version"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInputError(f"not a valid catalogue ({error})", file=path) from error
    if len({i.item_id for i in items}) != len(items):
        raise BadInputError("an item id occurs twice", file=path, field="items")
    return Catalogue(path.stem, version, items, hashlib.sha256(raw).hexdigest())


def _matcher(entry: dict) -> Matcher:  # type: ignore[type-arg]
    if unknown := set(entry) - {"system", "codes", "prefix", "prefixes", "kinds"}:
        raise ValueError(f"unknown key {min(unknown)!r} in a matcher")
    if not entry.get("system") and not entry.get("kinds"):
        raise ValueError("a matcher needs a system or kinds")
    if empty := [key for key, value in entry.items() if not value]:
        raise ValueError(f"{empty[0]!r} of a matcher is empty")  # an empty list would match every code
    prefixes = (*([entry["prefix"]] if "prefix" in entry else []), *entry.get("prefixes", ()))
    return Matcher(
        system=entry.get("system", ""),
        codes=frozenset(str(c) for c in entry.get("codes", ())),
        prefixes=tuple(str(p) for p in prefixes),
        kinds=frozenset(FindingKind(k) for k in entry.get("kinds", ())),
    )


def _item(entry: dict) -> CatalogueItem:  # type: ignore[type-arg]
    matches = {
        source: tuple(_matcher(m) for m in matchers) for source, matchers in (entry.get("matches") or {}).items()
    }
    return CatalogueItem(
        item_id=entry["id"],
        display=entry["display"],
        group=entry["group"],
        cost_usd=float(entry["cost_usd"]),
        cost_source=entry.get("cost_source", ""),
        synonyms=tuple(entry.get("synonyms", ())),
        kinds=frozenset(FindingKind(k) for k in entry.get("kinds", ())),
        matches=matches,
    )
