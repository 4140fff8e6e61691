"""Importer of MEDS data sets (Medical Event Data Standard 0.3 and 0.4): one case per hospital admission.

A MEDS event has one time. Where the data set keeps the time of a result (`LAB//RESULT`), it is that; everywhere else
the event counts as known after the lag of its kind. Diagnosis codes and the place of discharge are read for the
recorded labels only.

A case is named by its `hadm_id`; without one by `SUBJECT-N`, N counting the patient's admissions from the first.

Source: github.com/Medical-Event-Data-Standard/meds, and its ETL of MIMIC-IV (MIMIC_IV_MEDS).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, make_id, sort_findings
from clinical_data.catalogue import Catalogue, load_catalogue
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.sources import ImportJob, ImportLog, Quarantined
from clinical_data.sources.meds_shards import MedsFolder
from clinical_data.sources.meds_stays import FEEDS, ROOT, open_stays
from clinical_data.sources.mimic_common import SEX, age_of, anchors_of, destination
from clinical_data.sources.mimic_findings import clean, earlier_admission, earlier_diagnosis, make
from clinical_data.sources.step_truth import every_step, treatment_labels, workup_labels
from clinical_data.sources.tables import Row

log = logging.getLogger(__name__)

SOURCE = "meds"
_WITHOUT_RESULT = "-"  # meds_codes.Meaning.value


class MedsSource:
    """A folder of MEDS shards with their metadata."""

    name = SOURCE
    stages = True

    def read(self, path: Path, log: ImportLog, job: ImportJob = ImportJob()) -> Iterator[LabelledCase]:  # noqa: B008
        """Yields the admissions of a data set in the order of case_id, each with its recorded labels apart.

        Raises:
            BadInputError: the folder is missing or has no shard that can be read.
            StorageError: the working files cannot be written.
        """
        return _cases(path, log, job)


def _cases(path: Path, import_log: ImportLog, job: ImportJob) -> Iterator[LabelledCase]:
    catalogue = load_catalogue()
    with MedsFolder(path, import_log, job) as folder:
        folder.load_shards()
        for key, person, reason in open_stays(folder):
            import_log.quarantined(Quarantined("data", None, reason, f"admission {key} of subject {person}"))
        folder.arrange(ROOT, FEEDS)
        log.info("MEDS events loaded: %d", import_log.read["events"])
        for root, rows in folder.cases(lambda key: job.stored(make_id(SOURCE, key))):
            case = _case(root, rows, _findings(rows, import_log), folder.dataset)
            yield LabelledCase(case, _truth(case, rows, catalogue))


def _findings(rows: dict[str, list[Row]], import_log: ImportLog) -> list[Finding]:
    found: list[Finding] = []
    for row in rows["events"]:
        built = _event(row)
        if not built:
            import_log.unused["events: without a value"] += 1
        found += built
    for row in rows["earlier"]:
        found += earlier_admission(SOURCE, "admission", row)
    for row in rows["earlier_diagnoses"]:
        coding = Coding(row["system"], row["item"], row["display"] or "")
        found += earlier_diagnosis(SOURCE, "diagnosis", (row["item"],), coding, row)
    return list({f.finding_id: f for f in found}.values())


def _event(row: Row) -> list[Finding]:
    """Returns the finding of an event; none where it should have a value and has none, and nothing was taken for it."""
    text, unit = clean(row["text"]), row["unit"]
    value: float | str | None = row["number"]
    if row["value"] == _WITHOUT_RESULT:
        value = None
    elif row["value"]:  # an event that is there or not
        value = clean(row["how"]) or row["value"]
    elif value is None or text.startswith(("<", ">")):
        value = text or None
        if value is None and not row["pending"]:
            return []
    moment = (row["row_key"]["a"], row["number"], row["text"])
    return make(
        SOURCE, row["code"], (row["case_key"], *moment), FindingKind(row["kind"]),
        Coding(row["system"], row["item"], row["display"]), value, row["charted"], row["stored"],
        unit=unit if isinstance(value, float) or (isinstance(value, str) and value.startswith(("<", ">"))) else "",
        pending_from=row["taken"] if row["pending"] else None, place=f"of {row['case_key']}, minute {row['charted']}",
    )  # fmt: skip


def _case(root: Row, rows: dict[str, list[Row]], findings: list[Finding], dataset: str) -> Case:
    key, person = root["case_key"], str(root["subject_id"])
    source = clean(root["admission_location"])
    parts = [Encounter(str(r["row_key"]), "icu", r["charted"]) for r in rows["icu"] if r["charted"] is not None]
    if root["ed_in"] is not None:
        parts.append(Encounter(f"{key}-ed", "emergency", root["ed_in"], root["ed_out"]))
    parts.sort(key=lambda e: (e.start, e.encounter_id))
    attributes = {"dataset": dataset, "meds_split": clean(root["split"])}
    return Case(
        case_id=make_id(SOURCE, key),
        source=SOURCE,
        source_id=key,
        patient=Patient(make_id(SOURCE, person), SOURCE, person, SEX.get(clean(root["sex"]), "unknown")),
        age=age_of(root["age"]),
        encounters=(Encounter(key, "inpatient", 0, root["stay_end"]), *parts),
        anchors=anchors_of(root["ed_in"], root["ed_out"], root["stay_end"]),
        context={"admission_source": source} if source else {},
        findings=sort_findings(findings),
        attributes={name: text for name, text in attributes.items() if text},
    )


def _truth(case: Case, rows: dict[str, list[Row]], catalogue: Catalogue) -> dict[str, GroundTruth]:
    """Returns the labels of all eight steps of a case, or why they are absent."""
    end = case.anchors.get("end_of_stay")
    place = clean(rows["truth_outcome"][0]["left_to"])
    return every_step(
        case,
        {
            "triage": "the events hold no triage acuity",
            "admission_diagnosis": "the events hold no admission diagnosis",
            "differential": "the events hold no rival diagnoses",
            "workup": workup_labels(case, catalogue),
            "treatment": treatment_labels(case),
            "disposition": "the record has no end of the stay"
            if end is None
            else destination(place, f"HOSPITAL_DISCHARGE {case.source_id}", end),
            "discharge_diagnosis": _discharge(case, rows["truth_diagnoses"]),
        },
    )


def _discharge(case: Case, rows: list[Row]) -> tuple[Label, ...] | str:
    """Returns the diagnoses of the stay in their order.

    The MIMIC-IV ETL drops `seq_num`, so that of several codes none can be told to be the principal one; a data set that
    carries it (as `seq_num`, or a number in `priority`) has a label.
    """
    if not rows:
        return "no diagnosis recorded"
    ranked = [row for row in rows if row["rank"] is not None]
    if not ranked and len({(row["system"], row["item"]) for row in rows}) > 1:
        return "the events carry several diagnoses and no order: none is known to be the principal one"
    if ranked and ranked[0]["rank"] != 1:
        return "no principal diagnosis recorded (seq_num 1)"
    return tuple(
        Label(
            coding=Coding(row["system"], row["item"], row["display"] or ""),
            strength=Strength.RECORDED_LATER,
            rank=rank,
            source_row=f"{row['code']} {case.source_id}",
        )
        for rank, row in enumerate(ranked or rows[:1], start=1)
    )
