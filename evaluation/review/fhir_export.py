"""A run as FHIR R4: one Bundle per case that says what a replay concluded and by what means; no result of a patient.

| record | resource |
|---|---|
| case-step that was asked | `ClinicalImpression`; `protocol` is the URL of the pathway's `PlanDefinition` |
| answer, its share and check | `finding.itemCodeableConcept`, `finding.basis`; of a set one finding per item |
| findings shown on the winning path | `supportingInfo`, as references by identifier with the words that were shown |
| what made it | one `Device` per model (name and revision) and one for the program |
| hashes of models, prompts, pathway, data | `Provenance.entity` |

A step without an answer has no finding: one that abstained is `completed` and says so in `statusReason` and `summary`;
one that failed is `in-progress`, since it came to no end (`entered-in-error` would say that a record was wrong). A step
that does not apply was never asked and has no resource; a case with no other step has no Bundle.

Times: a case has no calendar date. `effectiveDateTime` holds no value but the clock as an offset from the start of the
stay (extension `cqf-relativeDateTime`); the only dates are those on which the run was made.

Recorded labels, match marks and what clinicians did later are in no Bundle, blind or not.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clinical_data.fhir_check import check_resource
from clinical_data.fhir_names import CODE_SYSTEM, NAMING_SYSTEM, REPLAY, REPLAY_TAGS, plan_url
from evaluation.record import FindingRecord, RankedAnswer, RunRecord
from evaluation.review import page_data, words
from evaluation.rows import model_names
from evaluation.store.run_store import Run, StoredRecord

FOLDER = "fhir"
NOT_FOR_CARE = "Retrospective research on a recorded case. Not for care, and no result of the patient."
MOST_SUPPORT = 200  # findings that one impression refers to
BASIS_FINDINGS = 8
TEXT = 2_000
NO_RESOURCE = "not_applicable"
_RELATIVE = "http://hl7.org/fhir/StructureDefinition/cqf-relativeDateTime"
_PARTICIPANT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_ROLES = {"generator": "author"}  # every other model had a part in it; `verifier` would promise what no model can
_PROGRAM = "wardstar"

Json = dict[str, Any]


def write(out: Path, run: Run, records: Iterable[StoredRecord]) -> list[Path]:
    """Writes a Bundle per case to `out/fhir` and returns the files; removes those of an earlier export left there.

    Args:
        out: folder of the report.
        run: the run.
        records: its case-steps, those of a case together and in order; none: nothing is written.

    Raises:
        BadInputError: a record holds what FHIR cannot.
        OSError: the folder cannot be written.
    """
    folder, written = out / FOLDER, []
    for bundle in bundles(run, records):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{page_data.safe_name(bundle['identifier']['value'])}.json"
        path.write_text(json.dumps(bundle, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
        written.append(path)
    for path in set(folder.glob("*.json")) - set(written):
        if path.is_file() and _is_ours(path):
            path.unlink()
    return written


def _is_ours(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return REPLAY["system"] in file.read(2_000)


def bundles(run: Run, records: Iterable[StoredRecord]) -> Iterator[Json]:
    """Yields a valid Bundle per case. Equal input gives equal Bundles.

    Raises:
        BadInputError: a record holds what FHIR cannot.
    """
    for case_id, of_case in groupby((s.record for s in records), key=lambda r: r.case_id):
        asked = [record for record in of_case if record.status != NO_RESOURCE]
        if asked:
            bundle = _bundle(run, case_id, asked)
            check_resource(bundle, "Bundle")
            yield bundle


def _bundle(run: Run, case_id: str, records: list[RunRecord]) -> Json:
    names = _Names(run, case_id)
    resources: dict[str, Json] = {}
    for record in records:
        impression = names.address("impression", record.step, record.occurrence)
        resources[impression] = _impression(run, record)
        devices = {role: _device(identity) for role, identity in sorted(record.models.items())}
        agents = [(_ROLES.get(role, "performer"), role, device) for role, device in devices.items()]
        agents.append(("assembler", "program", _program(run)))
        told = []
        for part, role, device in agents:
            address = names.address("device", json.dumps(device, sort_keys=True))
            resources[address] = device
            told.append(_agent(part, role, address))
        provenance = names.address("provenance", record.step, record.occurrence)
        resources[provenance] = _provenance(run, record, impression, told)
    return {
        "resourceType": "Bundle",
        **_tagged(),
        "identifier": {"system": f"{NAMING_SYSTEM}/case", "value": case_id},
        "type": "collection",
        "timestamp": run.finished or run.created,
        "entry": [
            {"fullUrl": address, "resource": {"resourceType": body["resourceType"], "id": _id_of(address), **body}}
            for address, body in resources.items()
        ],
    }


class _Names:
    """Addresses of the resources of one case in one run: the same whenever they are written."""

    def __init__(self, run: Run, case_id: str) -> None:
        self._of = uuid.uuid5(uuid.NAMESPACE_URL, "\x1f".join((NAMING_SYSTEM, run.name, run.config_hash, case_id)))

    def address(self, *what: object) -> str:
        return f"urn:uuid:{uuid.uuid5(self._of, chr(0x1F).join(map(str, what)))}"


def _id_of(address: str) -> str:
    return address.removeprefix("urn:uuid:")


def _tagged() -> Json:
    return {"meta": {"tag": [dict(tag) for tag in REPLAY_TAGS]}}


def _impression(run: Run, record: RunRecord) -> Json:
    status, said = page_data.status_text(record)
    answers = _answers(record)
    supporting = _supporting(record)
    body: Json = {
        "resourceType": "ClinicalImpression",
        **_tagged(),
        "status": "in-progress" if record.status == "failed" else "completed",
        "code": {"coding": [{"system": f"{CODE_SYSTEM}/step", "code": record.step}], "text": _step_words(record)},
        "subject": _known(record, "Patient", "patient", record.patient_id.removeprefix(f"{record.source}-")),
        "encounter": _known(record, "Encounter", "case", record.source_id),
        "protocol": [plan_url(run.pathway)],
        "note": [{"text": NOT_FOR_CARE}],
    }
    if not answers:
        body["statusReason"] = {"text": _text(f"{_ENDED.get(record.status, 'no answer')}: {said}")}
    if description := _text(" ".join(filter(None, (record.question, record.clock_text and f"({record.clock_text})")))):
        body["description"] = description
    if record.clock is not None:
        body["_effectiveDateTime"] = _offset(record)
    body["summary"] = _text(_summary(record, status, said))
    if answers:
        body["finding"] = [_finding(record, answer, supporting) for answer in answers]
    if supporting:
        body["supportingInfo"] = [_support(record, f) for f in supporting[:MOST_SUPPORT]]
    if record.settings.get("value") == "ground_truth":
        body["note"].append({"text": "The search was steered by recorded labels: training data, no test of a model."})
    return body


_ENDED = {"abstain": "abstained", "failed": "failed"}


def _step_words(record: RunRecord) -> str:
    return words.title_of(record.step) + (f" ({record.occurrence})" if record.occurrence != 1 else "")


def _known(record: RunRecord, kind: str, what: str, value: str) -> Json:
    """Returns a reference to what only the source holds: by its own key there."""
    system = f"{NAMING_SYSTEM}/{quote(words.short(record.source, 80), safe='')}-{what}"
    return {"type": kind, "identifier": {"system": system, "value": _text(value) or "unknown"}}


def _offset(record: RunRecord) -> Json:
    """Returns the clock as an offset from the start of the stay, in the place of a date.

    Source: https://hl7.org/fhir/R4/extension-cqf-relativedatetime.html
    """
    minutes = record.clock or 0
    relation = "after-start" if minutes > 0 else "before-start" if minutes < 0 else "concurrent-with-start"
    amount = {"value": abs(minutes), "unit": "min", "system": "http://unitsofmeasure.org", "code": "min"}
    parts = (
        ("target", "valueReference", _known(record, "Encounter", "case", record.source_id)),
        ("targetPath", "valueString", "period.start"),
        ("relationship", "valueCode", relation),
        ("offset", "valueDuration", amount),
    )
    inner = [{"url": url, name: value} for url, name, value in parts]
    return {"extension": [{"url": _RELATIVE, "extension": inner}]}


def _answers(record: RunRecord) -> list[RankedAnswer]:
    """Returns the answer that was given, of a set each item; none where the step gave none."""
    if record.status not in ("verified", "unverified"):
        return []
    return list(record.ranked[: max(1, len(record.chosen))])


def _summary(record: RunRecord, status: str, said: str) -> str:
    if record.status == "abstain":
        return f"Abstained. {said}"
    answer = page_data.answer_text(record)
    if not answer:
        return f"{status.capitalize()}. {said}"
    others = [f"{a.display} ({words.percent(a.probability)})" for a in record.ranked[max(1, len(record.chosen)) :][:4]]
    rest = f" Other answers with a share of the votes: {'; '.join(others)}." if others else ""
    return f"{answer} (share of the votes: {page_data.share_text(record)}). {said}{rest}"


def _finding(record: RunRecord, answer: RankedAnswer, supporting: list[FindingRecord]) -> Json:
    concept: Json = {"text": _text(answer.display) or _text(answer.code) or "unnamed"}
    if answer.system and answer.code and answer.system == "".join(answer.system.split()):
        coding = {"system": _text(answer.system), "code": _text(answer.code), "display": _text(answer.display)}
        concept["coding"] = [{name: value for name, value in coding.items() if value}]
    flagged = sorted(supporting, key=lambda f: not f.flag)[:BASIS_FINDINGS]
    shown = "; ".join(_finding_words(f) for f in flagged)
    basis = f"Share of the votes: {words.percent(answer.probability)}, not calibrated."
    return {"itemCodeableConcept": concept, "basis": _text(basis + (f" Shown to the model: {shown}." if shown else ""))}


def _supporting(record: RunRecord) -> list[FindingRecord]:
    """Returns the findings given at the start and read on the winning path, each once; nothing that was imagined."""
    path = page_data.path_of(record)
    turns = (*record.opening, *(path.turns if path else ()))
    return list({f.finding_id: f for turn in turns if not turn.imagined for f in turn.findings}.values())


def _support(record: RunRecord, finding: FindingRecord) -> Json:
    system = f"{NAMING_SYSTEM}/finding"
    known = f"{_finding_words(finding)}, known {words.relative_time(finding.available)}"
    identifier = {"system": system, "value": _text(finding.finding_id) or "unknown"}
    return {"identifier": identifier, "display": _text(known)}


def _finding_words(finding: FindingRecord) -> str:
    flag = words.flag_text(finding.flag)
    parts = (words.short(finding.name, 120), words.short(finding.value, 300), words.unit_text(finding.unit))
    return " ".join(filter(None, parts)) + (f" ({flag})" if flag else "")


def _device(identity: Mapping[str, Any]) -> Json:
    """Returns a model as a Device: its name, and the revision by which it is found again."""
    name = _text(str(identity.get("name") or identity.get("spec") or "")) or "unnamed model"
    device = _named_device(name, "language model")
    if revision := _text(str(identity.get("revision") or "")):
        device["version"] = [{"type": {"text": "revision"}, "value": revision}]
    return device


def _program(run: Run) -> Json:
    device = _named_device(_PROGRAM, "replay of recorded cases")
    if version := _text(str(run.versions.get(_PROGRAM) or "")):
        device["version"] = [{"type": {"text": "release"}, "value": version}]
    return device


def _named_device(name: str, kind: str) -> Json:
    return {
        "resourceType": "Device",
        **_tagged(),
        "deviceName": [{"name": name, "type": "model-name"}],
        "type": {"text": kind},
        "note": [{"text": NOT_FOR_CARE}],
    }


def _agent(part: str, role: str, address: str) -> Json:
    return {
        "type": {"coding": [{"system": _PARTICIPANT, "code": part}]},
        "role": [{"text": words.title_of(role).lower()}],
        "who": {"reference": address, "type": "Device"},
    }


def _provenance(run: Run, record: RunRecord, target: str, agents: list[Json]) -> Json:
    used = [("sha256", name, value) for name, value in sorted(record.hashes.items())]
    used += [("model", role, name) for role, name in sorted(model_names(record).items())]
    return {
        "resourceType": "Provenance",
        **_tagged(),
        "target": [{"reference": target, "type": "ClinicalImpression"}],
        "recorded": run.finished or run.created,
        "agent": agents,
        "entity": [_entity(kind, name, _text(value)) for kind, name, value in used if _text(value)],
    }


def _entity(kind: str, name: str, value: str) -> Json:
    identifier = {"system": f"{NAMING_SYSTEM}/{kind}", "value": value}
    return {"role": "source", "what": {"identifier": identifier, "display": words.title_of(name)}}


def _text(text: str) -> str:
    """Returns a text as FHIR allows it: one line, no control character, no space but the plain one, bounded."""
    return words.short(text, TEXT)
