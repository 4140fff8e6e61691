"""Seeded generator of synthetic general-ward admissions as FHIR R4 bundles.

What is asked and ordered in the emergency department depends on the presentation alone, so that the list of tests
does not give the answer away. About three in ten cases are admitted under another diagnosis than they leave with.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_data.demo.content import Content, Profile, load_content, merged
from clinical_data.demo.timeline import Stay, write_case
from clinical_data.errors import UsageError

SEED = 20261101
CASES = 32
REVISED_SHARE = 0.29


@dataclass(frozen=True, slots=True)
class _Planned:
    disease: str
    presentation: int


def generate(seed: int = SEED, cases: int = CASES, first: int = 1) -> Iterator[dict[str, Any]]:
    """Yields one FHIR R4 Bundle (type `collection`) per case: one synthetic patient with one admission.

    Equal arguments give equal bundles on every machine. Ids: Encounter `ward-0001`, its ED Encounter `ward-0001-ed`,
    Patient `ward-p0001`, counted from `first`, so that cases of another seed can be other patients.

    Raises:
        UsageError: a number is not in 1..9999.
    """
    if not 1 <= first <= first + cases - 1 <= 9999:
        raise UsageError("cases must be between 1 and 9999")
    content = load_content()
    plan = _plan(content, random.Random(f"{seed}/plan"), cases)
    dies = _first(content, plan, "fatal")
    observed = _first(content, plan, "observation")
    for place, planned in enumerate(plan, start=1):
        number = first + place - 1
        profile = merged(content.diseases[planned.disease], planned.presentation)
        stay = Stay(
            number=number,
            seed=seed,
            dies=place == dies,
            observation=place == observed,
            direct=bool(profile.get("direct")) and "admitted_as" not in profile and number % 2 == 0,
        )
        yield write_case(content, profile, stay, random.Random(f"{seed}/{number}"))


def write_bundles(folder: Path, seed: int = SEED, cases: int = CASES, first: int = 1) -> list[Path]:
    """Writes the bundles as `CASE.json.gz` and returns their paths; equal arguments write equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for bundle in generate(seed, cases, first):
        path = folder / f"{bundle['id'].removesuffix('-bundle')}.json.gz"
        path.write_bytes(gzip.compress(to_bytes(bundle), compresslevel=9, mtime=0))
        paths.append(path)
    return paths


def to_bytes(bundle: dict[str, Any]) -> bytes:
    """Returns a bundle as compact UTF-8 JSON."""
    return json.dumps(bundle, ensure_ascii=False, separators=(",", ":")).encode()


def _plan(content: Content, rng: random.Random, cases: int) -> list[_Planned]:
    """Deals out the diseases: each once, then by frequency; and which of them are admitted under another diagnosis."""
    deck = _shuffled(rng, list(content.diseases))
    extra = [n for n, d in content.diseases.items() for _ in range(d.get("frequency", 1) - 1)]
    names: list[str] = []
    while len(names) < cases:
        names += deck if not names else _shuffled(rng, extra)
    names = _shuffled(rng, names[:cases])
    options = [_split(content.diseases[name]) for name in names]
    forced = [i for i, (usual, _) in enumerate(options) if not usual]
    free = _shuffled(rng, [i for i, (usual, revised) in enumerate(options) if usual and revised])
    revised_cases = {*forced, *free[: max(0, round(REVISED_SHARE * cases) - len(forced))]}
    used: dict[tuple[str, bool], int] = {}
    plan = []
    for index, name in enumerate(names):
        pool = options[index][index in revised_cases]
        key = (name, index in revised_cases)
        plan.append(_Planned(name, pool[used.get(key, 0) % len(pool)]))  # repeats take the next variant
        used[key] = used.get(key, 0) + 1
    return plan


def _split(disease: Profile) -> tuple[list[int], list[int]]:
    """Returns the presentations admitted under the final diagnosis, and those admitted under another one."""
    revised = [i for i, p in enumerate(disease["presentations"]) if "admitted_as" in p]
    return [i for i in range(len(disease["presentations"])) if i not in revised], revised


def _first(content: Content, plan: list[_Planned], key: str) -> int:
    """Returns the number of the first case whose disease has a mark, 0 when none has."""
    numbers = (n for n, p in enumerate(plan, start=1) if content.diseases[p.disease].get(key))
    return next(numbers, 0)


def _shuffled(rng: random.Random, items: list[Any]) -> list[Any]:
    keyed = sorted((rng.random(), index) for index in range(len(items)))
    return [items[index] for _, index in keyed]
