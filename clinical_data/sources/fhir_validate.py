"""Validates pieces of FHIR and cuts them down to rows to be staged: pure work, done here or in other processes."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson
from pydantic import ValidationError

from clinical_data.case import Coding
from clinical_data.fhir_names import is_replay
from clinical_data.sources import Quarantined
from clinical_data.sources.fhir_codes import ICD10CM, MIMIC_FORMULARY
from clinical_data.sources.fhir_files import Piece, parse
from clinical_data.sources.fhir_models import model_of, validate
from clinical_data.sources.fhir_orders import (
    dispensed_frequencies,
    medication_names,
    reduce_administration,
    reduce_dispense,
    reduce_procedure,
    reduce_request,
    reduce_statement,
)
from clinical_data.sources.fhir_reduce import (
    CONDITION_RULES,
    TRUTH_RULES,
    Json,
    StagedFact,
    Unusable,
    Unused,
    as_tuple,
    codes,
    pick,
    reduce_allergy,
    reduce_condition,
    reduce_encounter,
    reduce_family,
    reference_key,
    words,
)
from clinical_data.sources.fhir_results import reduce_observation, reduce_report
from clinical_data.sources.fhir_times import parse_moment
from clinical_data.sources.fhir_version import other_version

_FACTS: dict[str, Callable[[Json, str], Iterator[StagedFact]]] = {
    "Observation": reduce_observation,
    "DiagnosticReport": reduce_report,
    "Condition": reduce_condition,
    "AllergyIntolerance": reduce_allergy,
    "FamilyMemberHistory": reduce_family,
    "MedicationStatement": reduce_statement,
    "MedicationRequest": reduce_request,
    "ServiceRequest": reduce_request,
    "MedicationAdministration": reduce_administration,
    "MedicationDispense": reduce_dispense,
    "Procedure": reduce_procedure,
}
TARGET_TYPES = ("Condition", "Medication", "Specimen")
USED_TYPES = frozenset(_FACTS) | {"Patient", "Encounter", "Medication", "Specimen"}

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}$")
_NAME = re.compile(r"[A-Za-z_]\w{0,40}$")


class Kept(NamedTuple):
    """A patient, an encounter, or what others refer to (`target`), to be staged under its key.

    Attributes:
        table: `patient`, `encounter` or `target`.
        key: `TYPE/ID`.
        patient: reference key of the patient, for an encounter.
        body: JSON.
        aliases: other names by which it is referred to.
    """

    table: str
    key: str
    patient: str
    body: bytes
    aliases: tuple[str, ...] = ()


@dataclass(slots=True)
class Reduced:
    """What some pieces of input came to.

    Attributes:
        kept: in the order of the input.
        facts: patient key, encounter key and JSON of a StagedFact each, in the order of the input.
        read, unused: counts as in ImportLog.
        quarantined: pieces that could not be used.
    """

    kept: list[Kept] = field(default_factory=list)
    facts: list[tuple[str, str, bytes]] = field(default_factory=list)
    read: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    quarantined: list[Quarantined] = field(default_factory=list)


class ConditionLabel(NamedTuple):
    """What a Condition would say as a recorded label; `code` is None when it has no coding."""

    code: tuple[str, str, str, str | None] | None
    recorded: str


def why_invalid(error: ValidationError) -> str:
    """Returns where a resource fails and by which rule. pydantic's own message quotes the value; this one cannot."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(p) if isinstance(p, int) or _NAME.match(p) else "?" for p in first["loc"])
    more = f" and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"not valid FHIR R4: {place or 'resource'}: {first['type']}{more}"


def reduce_pieces(pieces: Iterable[Piece]) -> Reduced:
    """Validates pieces of input and returns what is to be staged of them."""
    found = Reduced()
    for piece in pieces:
        for data, full_url, trouble in _unpack(piece):
            _reduce(found, piece, data, full_url, trouble)
    return found


Unpacked = tuple[Json | None, str, str]  # resource, fullUrl, why there is none


def _unpack(piece: Piece) -> Iterator[Unpacked]:
    """Yields the resource of a piece, or those of a Bundle that stands where a resource is expected."""
    if piece.trouble:
        yield None, "", piece.trouble
        return
    value, trouble = parse(piece.text)
    if trouble or (not isinstance(value, dict) and not piece.entry):
        yield None, "", trouble or "not a JSON object"
    elif piece.entry:
        yield from _entry(value)
    else:
        yield from _resource(value, "")


def _entry(entry: object) -> Iterator[Unpacked]:
    if not isinstance(entry, dict):
        yield None, "", "entry: not an object"
        return
    full_url, resource = entry.get("fullUrl", ""), entry.get("resource")
    if resource is None:
        yield {"resourceType": "Bundle entry without resource"}, "", ""
    elif not isinstance(resource, dict):
        yield None, "", "entry.resource: not an object"
    else:
        yield from _resource(resource, full_url if isinstance(full_url, str) else "")


def _resource(data: Json, full_url: str) -> Iterator[Unpacked]:
    if data.get("resourceType") != "Bundle":
        yield data, full_url, ""
    elif not isinstance(data.get("entry", []), list):
        yield None, "", "entry: not a list"
    else:
        if version := other_version("Bundle", data, valid=True):
            yield None, "", version
        for entry in data.get("entry", []):
            yield from _entry(entry)


def _reduce(found: Reduced, piece: Piece, data: Json | None, full_url: str, trouble: str) -> None:
    kind, name, reason = "", "", ""
    try:
        if data is None:
            raise Unusable(trouble)
        given = data.get("resourceType")
        kind = given if isinstance(given, str) and (given.startswith("Bundle entry") or _NAME.match(given)) else ""
        name = _printable_id(data)
        _stage(found, kind, data, full_url)
    except Unused as why:
        found.unused[f"{kind}: {why}"] += 1
    except Unusable as why:
        reason = str(why)
    except ValidationError as error:
        reason = other_version(kind, data or {}, valid=False) or why_invalid(error)
    except RecursionError:
        reason = "nested too deep"
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        # A shape that FHIR allows and wardstar did not foresee: lose the resource, not the import. Our own
        # ValueErrors hold no value, those of Python may.
        text = str(error) if type(error) is ValueError and str(error).startswith("not a") else type(error).__name__
        reason = f"cannot be used: {text}"
    if reason:
        resource = f"{kind}/{name}" if kind and name else kind
        found.quarantined.append(Quarantined(piece.file, piece.line, reason, resource))


def _stage(found: Reduced, kind: str, data: Json, full_url: str) -> None:
    if kind.startswith("Bundle entry"):
        raise Unused("skipped")
    if not kind:
        raise Unusable("resourceType: missing")
    if version := other_version(kind, data, valid=True):
        raise Unusable(version)
    model = model_of(kind)
    if model is None:
        raise Unusable(other_version(kind, data, valid=False) or "resourceType: unknown")
    found.read[kind] += 1
    if is_replay(data):
        raise Unused("made by a replay, no record of the patient")
    if kind not in USED_TYPES:
        raise Unused("type of no use")
    validate(model, data)
    key = f"{kind}/{_own_id(data, full_url)}"
    found.kept += _kept(kind, key, data, full_url)
    if kind in _FACTS:
        found.facts += _rows(_FACTS[kind](data, key))


def _kept(kind: str, key: str, data: Json, full_url: str) -> list[Kept]:
    """Returns what is staged of a resource besides its facts."""
    aliases = tuple({reference_key(full_url, key)} - {key}) if full_url else ()
    kept: list[Kept] = []
    if kind == "Patient":
        person = {"sex": data.get("gender"), "birth": data.get("birthDate")}
        if person["birth"]:
            parse_moment(person["birth"])
        kept.append(Kept("patient", key, "", orjson.dumps(person), aliases))
    elif kind == "Encounter":
        encounter = reduce_encounter(data, key)
        kept.append(Kept("encounter", key, encounter.patient, orjson.dumps(encounter), aliases))
    elif kind == "MedicationDispense":
        told = dispensed_frequencies(data, key)
        kept += [Kept("target", place, "", orjson.dumps(often)) for place, often in told]
    elif kind in TARGET_TYPES:
        kept += _targets(kind, key, data, aliases)
    for inner in data.get("contained") or ():
        if inner.get("resourceType") in TARGET_TYPES and inner.get("id"):
            kept += _targets(inner["resourceType"], f"{key}#{inner['id']}", inner, ())
    return kept


def _targets(kind: str, key: str, data: Json, aliases: tuple[str, ...]) -> Iterator[Kept]:
    """Yields what other resources refer to: the drug of an order, the Condition of a diagnosis, a specimen."""
    if kind == "Specimen":
        yield Kept("target", key, "", orjson.dumps(words(data.get("type"))), aliases)
    elif kind == "Medication":
        drug, parts, formulary = medication_names(data)
        body = {"drug": as_tuple(drug) if drug else None, "parts": parts}
        yield Kept("target", key, "", orjson.dumps(body), aliases)
        for code in formulary if drug else ():
            named = as_tuple(Coding(MIMIC_FORMULARY, code, drug.display if drug else code))
            yield Kept("target", f"{MIMIC_FORMULARY}|{code}", "", orjson.dumps({"drug": named, "parts": []}))
    elif "entered-in-error" not in codes(data.get("verificationStatus")):
        has_code = any(c.get("code") for c in (data.get("code") or {}).get("coding", ()))
        coding = pick(data.get("code"), (ICD10CM,)) if has_code else None
        label = ConditionLabel(as_tuple(coding) if coding else None, data.get("recordedDate") or "")
        yield Kept("target", key, "", orjson.dumps(tuple(label)), aliases)


def _rows(facts: Iterator[StagedFact]) -> list[tuple[str, str, bytes]]:
    rows = []
    for fact in facts:
        if not (fact.charted or fact.known or fact.rule in CONDITION_RULES or fact.rule in TRUTH_RULES or fact.within):
            raise Unused("no time")  # a Condition may still be known from the end of its stay
        for text in (fact.charted, fact.until, fact.known):
            if text:
                parse_moment(text)
        if not (fact.patient or fact.encounter):
            raise Unusable("subject: missing")
        rows.append((fact.patient, fact.encounter, orjson.dumps(tuple(fact))))
    return rows


def _own_id(data: Json, full_url: str) -> str:
    """Returns the id of a resource: its own, that of its fullUrl, or a hash of its content."""
    if found := data.get("id"):
        return str(found)
    if full_url:
        return full_url.rsplit(":" if full_url.startswith("urn:") else "/", 1)[-1]
    return hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def _printable_id(data: Json) -> str:
    found = data.get("id")
    return found if isinstance(found, str) and _ID.match(found) else ""
