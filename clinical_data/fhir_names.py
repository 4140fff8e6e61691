"""Names that every piece of FHIR of this project shares, and the mark by which an export of a replay is known again."""

from __future__ import annotations

from typing import Any

CANONICAL = "https://wardstar.example/fhir"  # a name, not an address: `.example` belongs to nobody
CODE_SYSTEM = f"{CANONICAL}/CodeSystem"
NAMING_SYSTEM = f"{CANONICAL}/NamingSystem"

HTEST = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
    "code": "HTEST",
    "display": "test health data",
}
REPLAY = {"system": f"{CODE_SYSTEM}/origin", "code": "replay", "display": "made by a replay, no record of the patient"}
REPLAY_TAGS = (HTEST, REPLAY)


def plan_url(pathway: str) -> str:
    """Returns the canonical URL of a pathway: that of its PlanDefinition, and the protocol of what followed it."""
    return f"{CANONICAL}/PlanDefinition/{pathway}"


def is_replay(resource: dict[str, Any]) -> bool:
    """Says whether a resource, valid or not, is tagged as made by a replay.

    HTEST alone says nothing: whole sets of synthetic patients carry it, the bundled cases among them.
    """
    meta = resource.get("meta")
    tags = meta.get("tag") if isinstance(meta, dict) else None
    found = {(t.get("system"), t.get("code")) for t in tags if _coded(t)} if isinstance(tags, list) else set()
    return all((tag["system"], tag["code"]) in found for tag in REPLAY_TAGS)


def _coded(tag: object) -> bool:
    return isinstance(tag, dict) and isinstance(tag.get("system"), str) and isinstance(tag.get("code"), str)
