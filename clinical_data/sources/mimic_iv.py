"""Importer of MIMIC-IV: one case per hospital admission, from a folder with `hosp`, `icu`, `ed` and `note` tables.

The case starts at admission (minute 0); the ED stay that led to it belongs to it and lies before. Any module may be
missing. What was coded after the stay (diagnoses, DRG, procedures), where the patient went and whether he died are read
for the recorded labels only.

Source: MIMIC-IV, Johnson et al., Sci Data 2023, doi:10.1038/s41597-022-01899-x.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from clinical_data.case import Case, Encounter, Finding, Patient, make_id, sort_findings
from clinical_data.catalogue import load_catalogue
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import LabelledCase
from clinical_data.sources import ImportJob, ImportLog
from clinical_data.sources.mimic_common import SEX, age_of, anchors_of, open_stays
from clinical_data.sources.mimic_findings import clean
from clinical_data.sources.mimic_iv_findings import BUILDERS, SOURCE, culture
from clinical_data.sources.mimic_iv_tables import ADMISSIONS, FEEDS, ROOT, STAYS, TABLES
from clinical_data.sources.mimic_iv_truth import truth
from clinical_data.sources.tables import Row, TableFolder

log = logging.getLogger(__name__)


class MimicIvSource:
    """A folder of MIMIC-IV tables."""

    name = SOURCE
    stages = True

    def read(self, path: Path, log: ImportLog, job: ImportJob = ImportJob()) -> Iterator[LabelledCase]:  # noqa: B008
        """Yields the admissions of a folder in the order of case_id, each with its recorded labels apart.

        Raises:
            BadInputError: the folder or its admissions table is missing or cannot be read.
            StorageError: the working files cannot be written.
        """
        if not path.is_dir():
            raise BadInputError("no such folder", file=path, hint="name the folder that holds hosp, icu, ed and note")
        return self._cases(path, log, job)

    def _cases(self, path: Path, import_log: ImportLog, job: ImportJob) -> Iterator[LabelledCase]:
        catalogue = load_catalogue()
        with TableFolder(path, TABLES, import_log, job) as folder:
            folder.load(ADMISSIONS.name)
            log.info("MIMIC-IV tables loaded: %d of %d", len(folder.loaded), len(TABLES))
            open_stays(folder, TABLES, STAYS, import_log, "admissions")
            folder.arrange(ROOT, FEEDS)
            for root, rows in folder.cases(lambda key: job.stored(make_id(SOURCE, key))):
                case = _case(root, rows, _findings(rows, import_log))
                yield LabelledCase(case, truth(case, rows, folder.loaded, catalogue))


def _findings(rows: dict[str, list[Row]], import_log: ImportLog) -> list[Finding]:
    found: dict[str, Finding] = {}  # a row that stands twice in a table without key is one finding
    for feed, build in BUILDERS.items():
        for row in rows[feed]:
            built = build(row)
            if not built:
                import_log.unused[f"{feed}: no finding for the chart"] += 1
            for finding in built:
                found[finding.finding_id] = finding
    for _, report in groupby(rows["microbiologyevents"], _report):
        found.update((f.finding_id, f) for f in culture(list(report)))
    return list(found.values())


def _report(row: Row) -> tuple[object, ...]:
    return row["micro_specimen_id"], row["test_itemid"], row["test_seq"], row["stored"]


def _case(root: Row, rows: dict[str, list[Row]], findings: list[Finding]) -> Case:
    key = root["case_key"]
    person = str(root["subject_id"])
    context = {
        "admission_source": clean(root["admission_location"]),
        "arrival_transport": clean(rows["edstays"][0]["arrival_transport"]) if rows["edstays"] else "",
    }
    return Case(
        case_id=make_id(SOURCE, key),
        source=SOURCE,
        source_id=key,
        patient=Patient(make_id(SOURCE, person), SOURCE, person, SEX.get(clean(root["gender"]), "unknown")),
        age=age_of(root["age"]),
        encounters=(Encounter(key, "inpatient", 0, root["stay_end"]), *_parts(root, rows)),
        anchors=_anchors(root),
        context={name: text for name, text in context.items() if text},
        findings=sort_findings(findings),
    )


def _anchors(root: Row) -> dict[str, int]:
    """Returns the named minutes of a case; triage has no time of its own, and counts from arrival."""
    anchors = anchors_of(root["ed_in"], root["ed_out"], root["stay_end"])
    if "ed_arrival" in anchors:
        anchors["triage"] = anchors["ed_arrival"]
    return anchors


def _parts(root: Row, rows: dict[str, list[Row]]) -> list[Encounter]:
    """Returns the ED and ICU stays; of an ICU stay only the beginning is read."""
    parts = [
        Encounter(str(r["stay_id"]), "emergency", r["charted"], r["ed_out"])
        for r in rows["edstays"]
        if r["charted"] is not None
    ]
    if not parts and root["ed_in"] is not None:
        parts.append(Encounter(f"{root['case_key']}-ed", "emergency", root["ed_in"], root["ed_out"]))
    parts += [Encounter(str(r["row_key"]), "icu", r["charted"]) for r in rows["icustays"] if r["charted"] is not None]
    return sorted(parts, key=lambda e: (e.start, e.encounter_id))
