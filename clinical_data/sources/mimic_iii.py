"""Importer of MIMIC-III: one case per hospital admission, from a folder of `.csv` or `.csv.gz` tables.

The case starts at admission (minute 0). `ADMISSIONS.DIAGNOSIS`, the working diagnosis in free text, is the recorded
label of the admission step; it never becomes part of a case, nor does the line of a radiology report that repeats it.
Diagnosis codes and the place of discharge are read for the recorded labels only.

Source: MIMIC-III 1.4, Johnson et al., Sci Data 2016, doi:10.1038/sdata.2016.35.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from clinical_data.case import Case, Coding, Encounter, Finding, Patient, make_id, sort_findings
from clinical_data.catalogue import Catalogue, load_catalogue
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.sources import ImportJob, ImportLog
from clinical_data.sources.mimic_common import SEX, age_of, anchors_of, destination, open_stays
from clinical_data.sources.mimic_findings import clean, icd
from clinical_data.sources.mimic_iii_findings import BUILDERS, OWN, SOURCE, culture
from clinical_data.sources.mimic_iii_tables import ADMISSIONS, FEEDS, OTHER_NOTES, ROOT, STAYS, TABLES
from clinical_data.sources.step_truth import every_step, treatment_labels, workup_labels
from clinical_data.sources.tables import Row, TableFolder

log = logging.getLogger(__name__)

ADMISSION_DIAGNOSIS = f"{OWN}/admission-diagnosis"  # codes are the free text itself


class MimicIiiSource:
    """A folder of MIMIC-III tables."""

    name = SOURCE
    stages = True

    def read(self, path: Path, log: ImportLog, job: ImportJob = ImportJob()) -> Iterator[LabelledCase]:  # noqa: B008
        """Yields the admissions of a folder in the order of case_id, each with its recorded labels apart.

        Raises:
            BadInputError: the folder or its admissions table is missing or cannot be read.
            StorageError: the working files cannot be written.
        """
        return _cases(path, log, job)


def _cases(path: Path, import_log: ImportLog, job: ImportJob) -> Iterator[LabelledCase]:
    catalogue = load_catalogue()
    with TableFolder(path, TABLES, import_log, job) as folder:
        folder.load(ADMISSIONS.name)
        log.info("MIMIC-III tables loaded: %d of %d", len(folder.loaded), len(TABLES))
        open_stays(folder, TABLES, STAYS, import_log, "ADMISSIONS")
        others = folder.database.execute(OTHER_NOTES).fetchone()
        if others and others[0]:
            import_log.unused["noteevents: a note that is no report of an examination"] += others[0]
        folder.arrange(ROOT, FEEDS)
        for root, rows in folder.cases(lambda key: job.stored(make_id(SOURCE, key))):
            case = _case(root, rows, _findings(rows, import_log))
            yield LabelledCase(case, _truth(case, rows, folder.loaded, catalogue))


def _findings(rows: dict[str, list[Row]], import_log: ImportLog) -> list[Finding]:
    found: list[Finding] = []
    for feed, build in BUILDERS.items():
        for row in rows[feed]:
            built = build(row)
            if not built:
                import_log.unused[f"{feed}: no finding for the chart"] += 1
            found += built
    specimen = groupby(rows["microbiologyevents"], lambda r: (r["charted"], r["spec_itemid"], r["spec_type_desc"]))
    for _, cultured in specimen:
        built = culture(list(cultured))
        if not built:
            import_log.unused["microbiologyevents: no finding for the chart"] += 1
        found += built
    return list({f.finding_id: f for f in found}.values())


def _case(root: Row, rows: dict[str, list[Row]], findings: list[Finding]) -> Case:
    key, person = root["case_key"], str(root["subject_id"])
    source = clean(root["admission_location"])
    parts = [Encounter(str(r["row_key"]), "icu", r["charted"]) for r in rows["icustays"] if r["charted"] is not None]
    if root["ed_in"] is not None:
        parts.append(Encounter(f"{key}-ed", "emergency", root["ed_in"], root["ed_out"]))
    parts.sort(key=lambda e: (e.start, e.encounter_id))
    return Case(
        case_id=make_id(SOURCE, key),
        source=SOURCE,
        source_id=key,
        patient=Patient(make_id(SOURCE, person), SOURCE, person, SEX.get(clean(root["gender"]).upper(), "unknown")),
        age=age_of(root["age"]),
        encounters=(Encounter(key, "inpatient", 0, root["stay_end"]), *parts),
        anchors=anchors_of(root["ed_in"], root["ed_out"], root["stay_end"]),
        context={"admission_source": source} if source else {},
        findings=sort_findings(findings),
    )


def _truth(case: Case, rows: dict[str, list[Row]], loaded: set[str], catalogue: Catalogue) -> dict[str, GroundTruth]:
    """Returns the labels of all eight steps of a case, or why they are absent."""
    outcome = rows["truth_admission"][0]
    place = destination(
        clean(outcome["discharge_location"]), f"ADMISSIONS {case.source_id}", case.anchors["end_of_stay"]
    )
    return every_step(
        case,
        {
            "triage": "MIMIC-III records no triage acuity",
            "admission_diagnosis": _admission(case, outcome),
            "differential": "MIMIC-III records no rival diagnoses",
            "workup": workup_labels(case, catalogue),
            "treatment": treatment_labels(case),
            "disposition": place,
            "discharge_diagnosis": _discharge(rows["truth_diagnoses"])
            if "diagnoses_icd" in loaded
            else "table diagnoses_icd is missing or could not be read",
        },
    )


def _admission(case: Case, outcome: Row) -> tuple[Label, ...] | str:
    """Returns the diagnosis that the admitting clinician wrote down.

    Source: MIMIC-III documentation, ADMISSIONS.DIAGNOSIS: "a preliminary, free text diagnosis for the patient on
    hospital admission".
    """
    text = clean(outcome["diagnosis"])
    if not text:
        return "no admission diagnosis recorded"
    coding = Coding(ADMISSION_DIAGNOSIS, text, text)
    row = f"ADMISSIONS {case.source_id}"
    return (Label(coding, Strength.RECORDED_AT_TIME, 1, case.anchors["admission"], row),)


def _discharge(rows: list[Row]) -> tuple[Label, ...] | str:
    """Returns the ICD-9 codes in the order of seq_num, the principal diagnosis first."""
    found = []
    for row in rows:
        coding = icd(row["icd9_code"], 9, row["long_title"]) if row["icd9_code"] else None
        if coding and row["seq_num"] is not None:
            found.append((row["seq_num"], coding, row["row_id"]))
    if not found:
        return "no diagnosis recorded"
    if found[0][0] != 1:
        return "no principal diagnosis recorded (seq_num 1)"
    return tuple(
        Label(coding, Strength.RECORDED_LATER, rank, None, f"DIAGNOSES_ICD {key}")
        for rank, (_, coding, key) in enumerate(found, start=1)
    )
