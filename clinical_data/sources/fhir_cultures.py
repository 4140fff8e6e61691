"""Joins a microbiology test, its organisms and their susceptibilities, which FHIR keeps apart, into one fact.

Names laboratory values by the fluid that they were measured in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache

from clinical_data.case import FindingKind
from clinical_data.sources.fhir_reduce import StagedFact
from clinical_data.sources.fhir_results import is_cancelled
from clinical_data.sources.fhir_stage import Stage

_BLOOD = re.compile(r"\b(?:blood|serum|plasma)\b", re.IGNORECASE)  # what a value is measured in unless its name says


def join_cultures(facts: list[StagedFact], stage: Stage) -> tuple[list[StagedFact], dict[str, list[StagedFact]]]:
    """Returns facts in which one fact stands for each culture, and the facts that went into each, by its key.

    The test gets the specimen in its name, and organisms with susceptibilities in its value. What names a test that is
    not there stays as it is.
    """
    cultures = {f.key: f for f in facts if f.kind == FindingKind.MICROBIOLOGY}
    above = {f.key: stage.resolve(f.within) for f in cultures.values() if f.within}
    below: dict[str, list[StagedFact]] = defaultdict(list)
    for key, parent in above.items():
        if parent in cultures and parent != key:
            below[parent].append(cultures[key])
    members: dict[str, list[StagedFact]] = {}
    joined: dict[str, StagedFact] = {}
    for key, fact in cultures.items():
        if above.get(key) in cultures:
            continue
        grown = sorted(below.get(key, ()), key=lambda f: (f.code[2], f.key))
        organisms = [o for o in grown if not is_cancelled(o.code[2])]
        members[key] = [*grown, *(s for o in grown for s in below.get(o.key, ()))]
        said = [str(fact.value)] if fact.value is not None else []
        said += [_organism(o, below.get(o.key, [])) for o in organisms]
        named = _named(fact, stage.specimen(fact.specimen) if fact.specimen else "")
        if said:
            named = named._replace(value="; ".join(said) if organisms else fact.value, has_result=True)
        joined[key] = named
    taken = {m.key for group in members.values() for m in group}
    return [joined.get(f.key, f) for f in facts if f.key not in taken], members


def name_fluids(facts: list[StagedFact], stage: Stage) -> list[StagedFact]:
    """Returns facts in which laboratory values of another fluid than blood say so: "Protein, urine"."""
    fluid = cache(stage.specimen)  # a panel has one specimen
    found = []
    for fact in facts:
        if fact.kind == FindingKind.LABORATORY and fact.specimen and not _BLOOD.search(fluid(fact.specimen)):
            fact = _named(fact, fluid(fact.specimen))
        found.append(fact)
    return found


def _named(fact: StagedFact, specimen: str) -> StagedFact:
    system, code, display, version = fact.code
    if not specimen or specimen.lower() in display.lower():
        return fact
    return fact._replace(code=(system, code, f"{display}, {specimen.lower()}", version))


def _organism(organism: StagedFact, tested: list[StagedFact]) -> str:
    name = organism.code[2] or organism.code[1]
    susceptible = sorted(f"{t.code[2] or t.code[1]} {t.value}" for t in tested if t.value is not None)
    if susceptible:
        return f"{name}: {', '.join(susceptible)}"
    return f"{name} ({organism.value})" if organism.value is not None else name
