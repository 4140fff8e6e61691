"""Problem-directed drug classes and levels of care: what a recorded treatment counts as.

The classes, and what is left out and why, stand in `vocabularies/treatment-classes.yaml`. A treatment counts by its
name (whole words), its ATC code, its path (eICU), or its item or procedure code; route and frequency decide where a
class is meant only as an infusion. Doses are never read.

Source: clinical.md, "Recorded label per step", row treatment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files

import yaml

from clinical_data.case import Finding, FindingKind

TREATMENT_SYSTEM = "wardstar:treatment-class"
INTENSIVE_CARE = "intensive_care"  # begins with a stay on an intensive care unit, not with an order

# ICU items: the same ids in tables and MEDS, and under a name of their own for inputs in MIMIC-IV on FHIR.
MIMIC_ITEMS = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-d-items"
MIMIC_INPUTS = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-medication-icu"
SNOMED = "http://snomed.info/sct"
ATC = "http://www.whocc.no/atc"

_DRUG_KINDS = (FindingKind.TREATMENT, FindingKind.MEDICATION_HOME)
_ICU_ITEMS = (MIMIC_ITEMS, MIMIC_INPUTS)
_INTRAVENOUS = re.compile(r"(?<![a-z])(?:iv|ivp|ivpb|ivf|imv|intraven\w*|central iv|pb|i\.v\.)(?![a-z])")
_INFUSED = re.compile(
    r"(?<![a-z])(?:drip|gtt|infusion|infused|inf|continuous\w*|cont|titrat\w*|titrate to|premix"
    r"|units? in \d+|m[c]?g in \d+ ?ml)(?![a-z])"
)
# PRN glued to how often: `Q6HPRN`, `Q4HRSPRN`, `HSPRN`, `PRNQD`, `PRN4`; never inside another word.
_OFTEN = (
    r"(?:q?\d*(?:h|hr|hrs|hour|hours|mi|min|mins|d|day|days|w|wk)|q?[ap]m|q?hs|qo?d|[bt]id|qid|ac|pc"
    r"|daily|nightly|weekly|once|onetime)"
)
_AS_NEEDED = re.compile(rf"(?<![a-z0-9]){_OFTEN}?prn(?:\d+|p|{_OFTEN})?(?![a-z0-9])")


@dataclass(frozen=True, slots=True)
class TreatmentClass:
    """A class of drugs or a level of care.

    Attributes:
        code, display: name in records, and words for people.
        atc: beginnings of ATC codes.
        words, intravenous, infused: names that count by any systemic route, intravenously, or as an infusion; None
            where there are none.
        paths: beginnings of levels of eICU treatment paths, in lower case.
        codes: (system, code) pairs of procedures, items and observations.
        values: (system, code, beginning of the value in lower case) of observations that only some values make count.
        unless: words that speak against the class, or None.
        continuous: an item of an intensive care unit counts only as an infusion, whatever else names it.
    """

    code: str
    display: str
    atc: tuple[str, ...] = ()
    words: re.Pattern[str] | None = None
    intravenous: re.Pattern[str] | None = None
    infused: re.Pattern[str] | None = None
    paths: tuple[str, ...] = ()
    codes: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    values: tuple[tuple[str, str, str], ...] = ()
    unless: re.Pattern[str] | None = None
    continuous: bool = False

    def observed(self, system: str, code: str, value: str) -> bool:
        """Says whether an observation, item or procedure shows the class; `value` is in lower case."""
        if (system, code) in self.codes:
            return True
        return any((system, code) == (s, c) and value.startswith(start) for s, c, start in self.values)

    def names(self, name: str, intravenous: bool, infused: bool) -> bool:
        """Says whether a drug's name in lower case, given in this way, belongs to the class."""
        lists = (self.words, self.intravenous if intravenous else None, self.infused if infused else None)
        return any(words is not None and words.search(name) for words in lists)


@dataclass(frozen=True, slots=True)
class TreatmentClasses:
    """The versioned list. `never` are words with which nothing counts, `as_needed` those of an order as needed."""

    version: str
    entries: tuple[TreatmentClass, ...]
    never: re.Pattern[str]
    as_needed: re.Pattern[str]


def classes_of(source: str, finding: Finding) -> tuple[str, ...]:
    """Returns the codes of the classes that a recorded treatment begins, in the order of the list.

    Args:
        source: name of the source that the finding comes from.
        finding: an order, an administration, a procedure, a ventilator observation or a drug taken at home. One that
            is no treatment of any class gives an empty tuple.
    """
    value = finding.value if isinstance(finding.value, str) else ""
    code = finding.code
    return _classes(finding.kind, code.system, code.code, code.display, value)


def display_of(code: str) -> str:
    """Returns the words for a class.

    Raises:
        KeyError: no such class.
    """
    return {entry.code: entry.display for entry in load_treatment_classes().entries}[code]


@lru_cache(maxsize=1)
def load_treatment_classes() -> TreatmentClasses:
    """Returns the bundled list."""
    text = (files("clinical_data") / "vocabularies" / "treatment-classes.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    return TreatmentClasses(
        version=str(data["version"]),
        entries=tuple(_entry(e) for e in data["entries"]),
        never=_whole_words(data["never"]),
        as_needed=_whole_words(data["as_needed"]),
    )


@lru_cache(maxsize=65536)
def _classes(kind: FindingKind, system: str, code: str, display: str, value: str) -> tuple[str, ...]:
    known = load_treatment_classes()
    by_code = {e.code for e in known.entries if e.observed(system, code, value.lower())}
    if kind not in _DRUG_KINDS:
        return tuple(e.code for e in known.entries if e.code in by_code)
    text = f"{display} ; {code} ; {value}".lower()
    home = kind is FindingKind.MEDICATION_HOME
    as_needed = known.as_needed.search(text) or _AS_NEEDED.search(value.lower())
    if known.never.search(text) or (as_needed and not home):
        return ()
    infused = not home and bool(system.endswith("/infusiondrug") or _INFUSED.search(text))
    intravenous = infused or (not home and bool(system in _ICU_ITEMS or _INTRAVENOUS.search(text)))
    fitting = [e for e in known.entries if e.unless is None or not e.unless.search(text)]
    path = code.lower() if system.endswith("/treatment") else ""
    # Of a path the last level names the drug; only when it names none do the levels above decide.
    name = path.rpartition("|")[2] if path else f"{display} ; {code}".lower()
    found = by_code | {e.code for e in fitting if e.names(name, intravenous, infused)}
    if system == ATC:
        found |= {e.code for e in fitting if e.atc and code.startswith(e.atc)}
    if system in _ICU_ITEMS and not infused:
        found -= {e.code for e in known.entries if e.continuous}
    if path and not found:
        found = {e.code for e in fitting if any(f"|{start}" in path for start in e.paths)}
    return tuple(e.code for e in known.entries if e.code in found)


def _entry(data: dict) -> TreatmentClass:  # type: ignore[type-arg]
    codes = [(system, str(c)) for system in _ICU_ITEMS for c in data.get("items", ())]
    codes += [(SNOMED, str(c)) for c in data.get("snomed", ())]
    codes += [(system, str(c)) for system, listed in data.get("observed", {}).items() for c in listed]
    return TreatmentClass(
        code=data["code"],
        display=data["display"],
        atc=tuple(data.get("atc", ())),
        words=_pattern(data.get("drugs", ())),
        intravenous=_pattern(data.get("intravenous", ())),
        infused=_pattern(data.get("infused", ())),
        paths=tuple(data.get("paths", ())),
        codes=frozenset(codes),
        values=tuple(
            (system, str(code), str(start))
            for system, listed in data.get("observed_values", {}).items()
            for code, starts in listed.items()
            for start in starts
        ),
        unless=_pattern(data.get("unless", ())),
        continuous=bool(data.get("continuous", False)),
    )


def _pattern(words: Iterable[str]) -> re.Pattern[str] | None:
    listed = list(words)
    return _whole_words(listed) if listed else None


def _whole_words(words: Iterable[str]) -> re.Pattern[str]:
    """Returns a pattern of whole words (`*`: any ending) for texts in lower case."""
    listed = [re.escape(word).replace(r"\*", r"\w*") for word in words]
    return re.compile(rf"(?<![a-z0-9])(?:{'|'.join(listed)})(?![a-z])")
