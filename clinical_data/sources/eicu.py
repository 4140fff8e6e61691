"""Importer of eICU-CRD: one case per unit stay, from a folder of `.csv` or `.csv.gz` tables.

The case starts at unit admission (minute 0). What names the admission diagnosis (admissionDx, diagnosis, apache*,
patient.apacheadmissiondx, carePlanInfectiousDisease, carePlanGoal, most note paths) never becomes part of a case;
admissionDx, diagnosis and the destination in patient.csv are read for the recorded labels only.

Source: eICU Collaborative Research Database, Pollard et al., Sci Data 2018, doi:10.1038/sdata.2018.178.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from clinical_data.case import Case, Encounter, Finding, Patient, make_id, sort_findings
from clinical_data.catalogue import load_catalogue
from clinical_data.ground_truth import LabelledCase
from clinical_data.sources import ImportJob, ImportLog, Quarantined
from clinical_data.sources.eicu_bedside import CARE_PLAN, CHARTED
from clinical_data.sources.eicu_findings import BUILDERS, earlier_stays
from clinical_data.sources.eicu_make import SOURCE
from clinical_data.sources.eicu_names import clean
from clinical_data.sources.eicu_tables import PATIENT, STAY, TABLES, UNUSABLE, feed_queries, root_query
from clinical_data.sources.eicu_truth import recorded_truth
from clinical_data.sources.tables import Row, TableFolder

log = logging.getLogger(__name__)

_SEX = {"Male": "male", "Female": "female", "Other": "other"}


class EicuSource:
    """A folder of eICU tables."""

    name = SOURCE
    stages = True

    def read(self, path: Path, log: ImportLog, job: ImportJob = ImportJob()) -> Iterator[LabelledCase]:  # noqa: B008
        """Yields the unit stays of a folder in the order of case_id, each with its recorded labels apart.

        Raises:
            BadInputError: the folder or its patient table is missing or cannot be read.
            StorageError: the working files cannot be written.
        """
        return _cases(path, log, job)


def _cases(path: Path, import_log: ImportLog, job: ImportJob) -> Iterator[LabelledCase]:
    catalogue = load_catalogue()
    with TableFolder(path, TABLES, import_log, job) as folder:
        folder.load(PATIENT.name)
        log.info("eICU tables loaded: %d of %d", len(folder.loaded), len(TABLES))
        for (stay,) in folder.database.execute(UNUSABLE).fetchall():
            reason = "the unit stay ends before it begins"
            import_log.quarantined(Quarantined(PATIENT.name, None, reason, f"{PATIENT.name} {stay}"))
        folder.arrange(root_query(folder.loaded), feed_queries(folder.loaded, tuple(CHARTED), tuple(CARE_PLAN)))
        for row, rows in folder.cases(lambda stay: job.stored(make_id(SOURCE, stay))):
            case = _case(row, _findings(row, rows, import_log))
            yield LabelledCase(case, recorded_truth(case, rows, folder.loaded, catalogue))


def _findings(stay: Row, rows: dict[str, list[Row]], import_log: ImportLog) -> list[Finding]:
    found = earlier_stays(stay)
    for table, build in BUILDERS.items():
        without = 0
        for row in rows.get(table, ()):
            built = build(row)
            if built:
                found += built
            else:
                without += 1
        if without:
            import_log.unused[f"{table}: no finding for the chart"] += without
    return found


def _case(row: Row, findings: list[Finding]) -> Case:
    stay, end = str(row[STAY]), row["unitdischargeoffset"]
    person, number = clean(row["uniquepid"]), row["unitvisitnumber"]
    context = {"admission_source": clean(row["unitadmitsource"]), "unit_type": clean(row["unittype"])}
    attributes = {
        "hospital_id": clean(row["hospitalid"]),
        "unit_visit_number": "" if number is None else str(number),
        "hospital_beds": clean(row["numbedscategory"]),
        "hospital_teaching": {"t": "yes", "f": "no"}.get(clean(row["teachingstatus"]), ""),
        "hospital_region": clean(row["region"]),
    }
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
