"""The clinical content of the synthetic cases, read from YAML, and the small grammar of its texts."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from clinical_data.errors import BadInputError

Profile = dict[str, Any]

_KEYS = frozenset(
    {"final", "age", "female", "stay", "comorbidities", "never", "frequency", "fatal", "observation", "direct"}
    | {"cluster", "admitted_as", "complaint", "hpi", "has", "exam", "vitals", "labs", "course", "reports", "side"}
    | {"must", "skip", "daily", "later", "cultures", "treatments", "procedures", "secondary", "disposition"}
    | {"home_drugs", "working"}
)
_MERGED = ("comorbidities", "exam", "vitals", "labs", "course", "reports", "cultures")


@dataclass(frozen=True, slots=True)
class Content:
    """All clinical content.

    Attributes:
        common: `common.yaml`: analytes, panels, reports, exam regions, comorbidities, drugs, clusters.
        diseases: name -> profile, in the order of the files.
    """

    common: dict[str, Any]
    diseases: dict[str, Profile]


@cache
def load_content() -> Content:
    """Returns the content shipped with the package.

    Raises:
        BadInputError: a file is no YAML, or names a test, region, cluster, drug or comorbidity that does not exist.
    """
    folder = Path(str(files("clinical_data.demo")))
    common = _read(folder / "common.yaml")
    diseases: dict[str, Profile] = {}
    for path in sorted((folder / "diseases").glob("*.yaml")):
        for name, disease in _read(path).items():
            for index in range(len(disease.get("presentations", []))):
                _check(path, name, merged(disease, index), common)
            diseases[name] = disease
    return Content(common, diseases)


def merged(disease: Mapping[str, Any], presentation: int) -> Profile:
    """Returns a disease with one of its presentations laid over it; mappings merge, everything else is replaced."""
    profile = {key: value for key, value in disease.items() if key != "presentations"}
    for key, value in disease["presentations"][presentation].items():
        profile[key] = {**profile.get(key, {}), **value} if key in _MERGED else value
    return profile


def chance(rng: random.Random, probability: float) -> bool:
    """Draws a yes with the given probability (0 to 1)."""
    return rng.random() < probability


def pick(rng: random.Random, options: Sequence[Any]) -> Any:
    """Draws one option, each equally likely."""
    return options[int(rng.random() * len(options))]


def between(rng: random.Random, limits: Sequence[float]) -> int:
    """Draws a whole number from [low, high], both included."""
    low, high = limits
    return int(low + rng.random() * (high - low + 1))


def sometimes(rng: random.Random, items: Sequence[Any]) -> list[Any]:
    """Returns the items of a list whose entries are `[probability, item]` or an item that is always there."""
    kept = []
    for item in items:
        if isinstance(item, list):
            if chance(rng, item[0]):
                kept.append(item[1])
        else:
            kept.append(item)
    return kept


def phrase(rng: random.Random, template: str, names: Mapping[str, str]) -> str:
    """Fills in a text: one of the words in `[a|b|c]`, then the names in braces."""
    text = re.sub(r"\[([^\[\]]*\|[^\[\]]*)\]", lambda m: str(pick(rng, m.group(1).split("|"))), template)
    return text.format_map(names)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise BadInputError(f"not readable ({error})", file=path) from error
    if not isinstance(data, dict):
        raise BadInputError("not a mapping", file=path)
    return data


def _check(path: Path, name: str, profile: Profile, common: Mapping[str, Any]) -> None:
    tests = common["panels"].keys() | common["reports"].keys()
    named: dict[str, tuple[set[str], set[str]]] = {
        "": (set(profile), set(_KEYS)),
        "cluster": ({profile["cluster"]}, set(common["clusters"])),
        "comorbidities": (set(profile.get("comorbidities", ())), set(common["comorbidities"])),
        "never": (set(profile.get("never", ())), set(common["comorbidities"])),
        "exam": (set(profile.get("exam", ())), set(common["exam"])),
        "labs": (set(profile.get("labs", ())), set(common["analytes"])),
        "course": (set(profile.get("course", ())), set(common["analytes"])),
        "reports": (set(profile.get("reports", ())), set(common["reports"])),
        "cultures": (set(profile.get("cultures", ())), set(common["cultures"])),
        "must": (set(profile.get("must", ())), tests),
        "skip": (set(profile.get("skip", ())), tests),
        "daily": (set(profile.get("daily", ())), tests),
        "later": ({e["test"] for e in profile.get("later", ())}, tests),
        "treatments": ({e["drug"] for e in profile.get("treatments", ())}, set(common["drugs"])),
        "home_drugs": ({e[1] for e in profile.get("home_drugs", ())}, set(common["drugs"])),
        "procedures": ({e["name"] for e in profile.get("procedures", ())}, set(common["procedures"])),
        "has": (set(profile.get("has", ())), set(common["clusters"][profile["cluster"]]["symptoms"])),
    }
    for field, (used, known) in named.items():
        if unknown := sorted(used - known):
            raise BadInputError(f"unknown name {unknown[0]!r}", file=path, field=f"{name}.{field}".rstrip("."))
