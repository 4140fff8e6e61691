"""Importer of eICU-CRD: one case per unit stay, from a folder of `.csv` or `.csv.gz` tables.

The case starts at unit admission (minute 0). What names the admission diagnosis (admissionDx, diagnosis, apache*,
patient.apacheadmissiondx, carePlanInfectiousDisease, carePlanGoal, most note paths) never becomes part of a case;
admissionDx and diagnosis are read for the recorded labels only.

Source: eICU Collaborative Research Database, Pollard et al., Sci Data 2018, doi:10.1038/sdata.2018.178.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from clinical_data.case import Case, Coding, Encounter, Finding, Patient, make_id, sort_findings
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.sources import ImportLog
from clinical_data.sources.eicu_findings import BUILDERS, SOURCE, earlier_stays
from clinical_data.sources.eicu_names import clean
from clinical_data.sources.eicu_tables import (
    CASE_TABLES,
    PATIENT,
    STAY,
    TRUTH_TABLES,
    EicuFolder,
    Row,
    StayStream,
)

log = logging.getLogger(__name__)

# An admission diagnosis entered by the clock of its step counts as recorded at that time.
# Source: clinical.md, "Clock": eICU unit admission + 6 h.
ADMISSION_CLOCK = 6 * 60

_SEX = {"Male": "male", "Female": "female", "Other": "other"}


class EicuSource:
    """A folder of eICU tables."""

    name = SOURCE

    def read(self, path: Path, log: ImportLog) -> Iterator[LabelledCase]:
        """Yields the unit stays of a folder in the order of case_id, each with its recorded labels apart.

        Raises:
            BadInputError: the folder or its patient table is missing or cannot be read.
        """
        if not path.is_dir():
            raise BadInputError("no such folder", file=path, hint="name the folder that holds patient.csv.gz")
        return self._cases(path, log)

    def _cases(self, path: Path, import_log: ImportLog) -> Iterator[LabelledCase]:
        with tempfile.TemporaryDirectory(prefix="wardstar-eicu-") as scratch:
            folder = EicuFolder(path, Path(scratch), import_log)
            try:
                folder.load()
                log.info("eICU tables loaded: %d of %d", len(folder.loaded), 1 + len(CASE_TABLES) + len(TRUTH_TABLES))
                streams = {t.name: StayStream(folder.rows(t)) for t in (*CASE_TABLES, *TRUTH_TABLES)}
                for row in folder.rows(PATIENT):
                    case = _case(row, _findings(row, streams, import_log))
                    yield LabelledCase(case, _truth(case, row[STAY], streams, folder.loaded))
            finally:
                folder.close()


def _findings(patient: Row, streams: dict[str, StayStream], import_log: ImportLog) -> list[Finding]:
    found = earlier_stays(patient)
    for table, build in BUILDERS.items():
        for row in streams[table].take(patient[STAY]):
            built = build(row)
            if not built:
                import_log.unused[f"{table}: no finding for the chart"] += 1
            found.extend(built)
    return found


def _case(row: Row, findings: list[Finding]) -> Case:
    stay, end = str(row[STAY]), row["unitdischargeoffset"]
    person = clean(row["uniquepid"])
    context = {"admission_source": clean(row["unitadmitsource"]), "unit_type": clean(row["unittype"])}
    number = row["unitvisitnumber"]
    attributes = {"hospital_id": clean(row["hospitalid"]), "unit_visit_number": "" if number is None else str(number)}
    return Case(
        case_id=make_id(SOURCE, stay),
        source=SOURCE,
        source_id=stay,
        patient=Patient(make_id(SOURCE, person), SOURCE, person, _SEX.get(clean(row["gender"]), "unknown")),
        age=_age(clean(row["age"])),
        encounters=(Encounter(stay, "icu", 0, end),),
        anchors={"admission": 0} if end is None else {"admission": 0, "end_of_stay": end},
        context={name: text for name, text in context.items() if text},
        findings=sort_findings(findings),
        attributes={name: text for name, text in attributes.items() if text},
    )


def _age(text: str) -> int | None:
    """Returns an age in years; eICU writes `> 89` above 89, which reads 90 here."""
    if text.startswith(">"):
        return 90
    return min(int(text), 90) if text.isdecimal() else None


def _truth(case: Case, stay: int, streams: dict[str, StayStream], loaded: set[str]) -> dict[str, GroundTruth]:
    """Returns the recorded labels of a stay per step."""
    answers = {
        "admission_diagnosis": ("admissionDx", _admission_labels),
        "discharge_diagnosis": ("diagnosis", _discharge_labels),
    }
    truth = {}
    for step, (table, read) in answers.items():
        labels, reason = read(streams[table].take(stay))
        if table not in loaded:
            reason = f"table {table} is missing or could not be read"
        truth[step] = GroundTruth(case.case_id, step, labels, reason)
    return truth


def _admission_labels(rows: list[Row]) -> tuple[tuple[Label, ...], str]:
    """Returns the APACHE admission diagnosis: the term below `All Diagnosis`, keyed by operative|organ system|term."""
    found = []
    for row in sorted(rows, key=lambda r: (r["admitdxenteredoffset"], r["admissiondxid"])):
        # admission diagnosis|All Diagnosis|Non-operative|Diagnosis|Cardiovascular|Sepsis, pulmonary
        parts = [clean(part) for part in row["admitdxpath"].split("|", 5)]
        if len(parts) == 6 and parts[1] == "All Diagnosis" and parts[3] == "Diagnosis":
            coding = Coding("wardstar:eicu/admissiondx", "|".join((parts[2], parts[4], parts[5])), parts[5])
            found.append((coding, row["admitdxenteredoffset"], row["admissiondxid"]))
    labels = tuple(
        Label(
            coding=coding,
            strength=Strength.RECORDED_AT_TIME if entered <= ADMISSION_CLOCK else Strength.RECORDED_LATER,
            rank=rank,
            entered=entered,
            source_row=f"admissionDx {key}",
        )
        for rank, (coding, entered, key) in enumerate(found, start=1)
    )
    return labels, "" if labels else "no admission diagnosis recorded"


def _discharge_labels(rows: list[Row]) -> tuple[tuple[Label, ...], str]:
    """Returns the one Primary diagnosis that was active at unit discharge."""
    rows = [r for r in rows if r["diagnosispriority"] == "Primary" and r["activeupondischarge"] == "True"]
    strings = {r["diagnosisstring"] for r in rows}
    if not strings:
        return (), "no Primary diagnosis active at unit discharge"
    if len(strings) > 1:
        return (), "several Primary diagnoses active at unit discharge"
    row = min(rows, key=lambda r: (r["diagnosisoffset"], r["diagnosisid"]))
    text = row["diagnosisstring"]
    label = Label(
        coding=Coding("wardstar:eicu/diagnosis", text, clean(text.rpartition("|")[2])),
        strength=Strength.RECORDED_AT_TIME,
        entered=row["diagnosisoffset"],
        source_row=f"diagnosis {row['diagnosisid']}",
    )
    return (label,), ""
