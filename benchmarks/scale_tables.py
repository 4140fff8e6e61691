"""Import of a made-up eICU folder of any size: seconds, peak memory, and how it goes on after a kill.

    python -m benchmarks.scale_tables [STAYS]          200 unless told; 200,000 for the full measurement

The folder is written as a stream of `.csv.gz`. The import runs in a process of its own; its memory is that of the whole
process tree, read ten times a second. Beside it stands the time of a bare duckdb scan of the same columns.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb

from benchmarks.watched import run_import
from clinical_data.sources.eicu_tables import TABLES
from clinical_data.sources.tables import Table

EXAM = "notes/Progress Notes/Physical Exam/Physical Exam/"
PAST = "notes/Progress Notes/Past History/Organ Systems/"
FLOW = "flowsheet|Flowsheet Cell Labels|Nursing Assessment|"
SYSTEMS = ("Cardiovascular", "Pulmonary", "Neurologic", "Gastrointestinal", "Extremities", "Skin")
LABS = ("sodium", "potassium", "creatinine", "BUN", "glucose", "Hgb", "WBC x 1000", "platelets x 1000", "lactate")
SETTINGS = ("FiO2", "PEEP", "Total RR", "SaO2", "Tidal Volume (set)", "Exhaled MV")
DRUGS = ("ASPIRIN", "FUROSEMIDE", "CEFTRIAXONE", "METOPROLOL", "HEPARIN", "PANTOPRAZOLE", "INSULIN", "MORPHINE")
PATHS = (
    "pulmonary|medications|antibacterials|cefepime",
    "cardiovascular|consultations|Cardiology consultation",
    "cardiovascular|myocardial ischemia / infarction|medications|aspirin",
    "renal|radiologic procedures|chest x-ray",
)
DIAGNOSES = ("cardiovascular|shock / hypotension|sepsis", "pulmonary|pulmonary infections|pneumonia")
TERMS = ("Cardiovascular|Sepsis, pulmonary", "Respiratory|Pneumonia, bacterial", "Neurologic|Seizures")

# table -> rows per stay, columns, and what one row says of (its own number, its stay, its minute, chance)
_Row = Callable[[int, int, int, random.Random], tuple[object, ...]]
_TABLES: dict[str, tuple[int, str, _Row]] = {
    "patient": (
        1,
        "patientunitstayid,gender,age,hospitalid,unittype,unitadmitsource,unitvisitnumber,unitdischargeoffset,"
        "unitdischargelocation,unitdischargestatus,uniquepid",
        lambda n, stay, at, r: (stay, r.choice(("Male", "Female")), r.randint(18, 89), stay % 200, "Med-Surg ICU",
                                "Emergency Department", 1, r.randint(300, 9000), "Floor", "Alive", f"p{stay}"),
    ),
    "lab": (
        40,
        "labid,patientunitstayid,labresultoffset,labresultrevisedoffset,labname,labresult,labresulttext,"
        "labmeasurenamesystem",
        lambda n, stay, at, r: (n, stay, at, at + 35, r.choice(LABS), (v := r.randint(10, 1500) / 10), v, "mmol/L"),
    ),
    "vitalAperiodic": (
        60,
        "vitalaperiodicid,patientunitstayid,observationoffset,noninvasivesystolic,noninvasivediastolic,noninvasivemean",
        lambda n, stay, at, r: (n, stay, at, (v := r.randint(80, 190)), v - 40, v - 25),
    ),
    "physicalExam": (
        20,
        "physicalexamid,patientunitstayid,physicalexamoffset,physicalexampath,physicalexamvalue,physicalexamtext",
        lambda n, stay, at, r: (n, stay, 30, f"{EXAM}{r.choice(SYSTEMS)}/normal", "normal", "normal"),
    ),
    "note": (
        8,
        "noteid,patientunitstayid,noteoffset,noteenteredoffset,notepath,notevalue",
        lambda n, stay, at, r: (n, stay, 30, 45, "notes/Progress Notes/Review Of Systems/Systems/Pulmonary/cough",
                                "cough"),
    ),
    "pastHistory": (
        5,
        "pasthistoryid,patientunitstayid,pasthistoryoffset,pasthistoryenteredoffset,pasthistorypath,pasthistoryvalue",
        lambda n, stay, at, r: (n, stay, 30, 45, f"{PAST}{r.choice(SYSTEMS)}/old disease", "old disease"),
    ),
    "nurseAssessment": (
        20,
        "nurseassessid,patientunitstayid,nurseassessoffset,nurseassessentryoffset,cellattributepath,cellattributevalue",
        lambda n, stay, at, r: (n, stay, at, at + 5, f"{FLOW}{(s := r.choice(SYSTEMS))}|{s}|Sounds", "normal"),
    ),
    "respiratoryCharting": (
        30,
        "respchartid,patientunitstayid,respchartoffset,respchartentryoffset,respchartvaluelabel,respchartvalue",
        lambda n, stay, at, r: (n, stay, at, at + 3, r.choice(SETTINGS), r.randint(5, 99)),
    ),
    "medication": (
        25,
        "medicationid,patientunitstayid,drugorderoffset,drugstartoffset,drugname,routeadmin,frequency,prn",
        lambda n, stay, at, r: (n, stay, at, at + 20, r.choice(DRUGS), "IV", "Daily", r.choice(("Yes", "No"))),
    ),
    "treatment": (
        12,
        "treatmentid,patientunitstayid,treatmentoffset,treatmentstring",
        lambda n, stay, at, r: (n, stay, at, r.choice(PATHS)),
    ),
    "admissionDx": (
        1,
        "admissiondxid,patientunitstayid,admitdxenteredoffset,admitdxpath",
        lambda n, stay, at, r: (
            n, stay, 20,
            '"admission diagnosis|All Diagnosis|Non-operative|Diagnosis|' + r.choice(TERMS) + '"',
        ),
    ),
    "diagnosis": (
        6,
        "diagnosisid,patientunitstayid,diagnosisoffset,diagnosisstring,diagnosispriority,activeupondischarge",
        lambda n, stay, at, r: (n, stay, at, r.choice(DIAGNOSES), r.choice(("Primary", "Major", "Other")), "True"),
    ),
}  # fmt: skip


def write_folder(folder: Path, stays: int, share: float = 1.0, seed: int = 7) -> int:
    """Writes the tables of that many stays as a stream, with a share of the usual rows; returns their number."""
    total = 0
    for name, (usual, header, build) in _TABLES.items():
        rows = max(1, round(usual * share))
        chance = random.Random(f"{seed} {name}")
        with gzip.open(folder / f"{name}.csv.gz", "wt", compresslevel=1, encoding="utf-8") as file:
            file.write(header + "\n")
            for stay in range(stays):
                for part in range(rows):
                    total += 1
                    row = build(total, 100_000 + stay, chance.randint(-120, 4000), chance)
                    file.write(",".join(map(str, row)) + "\n")
                    del part
    return total


def bare_scan(folder: Path) -> float:
    """Returns the seconds that duckdb needs to read the columns that the import reads, and nothing else."""
    began = time.perf_counter()
    with duckdb.connect() as database:
        database.execute("SET enable_progress_bar = false")
        database.execute("SET threads = " + str(min(4, os.cpu_count() or 1)))
        for table in TABLES:
            if (path := folder / f"{table.name}.csv.gz").exists():
                database.execute(_scan(table, _TABLES[table.name][1].split(",")), {"path": str(path)}).fetchall()
    return time.perf_counter() - began


def _scan(table: Table, header: list[str]) -> str:
    types = {c: table.columns.get(c, "VARCHAR") for c in header}
    # a checksum over every wanted value: the scan may skip none
    wanted = ", ".join(f"bit_xor(hash({c}))" for c in table.columns if c in header)
    return f"SELECT {wanted} FROM read_csv($path, columns = {types}, header = true, auto_detect = false, delim = ',')"


def _stored(database: Path) -> str:
    """Returns a digest of what a database holds of every case: its content hash, and its truth."""
    digest = hashlib.sha256()
    with closing(sqlite3.connect(database)) as stored:
        for query in (
            "SELECT case_id, content_hash FROM cases ORDER BY 1",
            "SELECT * FROM ground_truth_labels ORDER BY 1, 2, 3, 4",
        ):
            for row in stored.execute(query):
                digest.update(repr(row).encode())
    return digest.hexdigest()


def measure(stays: int = 200, share: float = 1.0, kill: bool = True) -> dict[str, float | int | bool]:
    """Returns the figures of an import of that many stays, and of one that was killed halfway and taken up again.

    Raises:
        RuntimeError: the import failed, or the one that was killed and resumed holds something else.
    """
    with tempfile.TemporaryDirectory(prefix="wardstar-scale-") as scratch:
        home = Path(scratch)
        folder = home / "eicu"
        folder.mkdir()
        rows = write_folder(folder, stays, share)
        size = sum(f.stat().st_size for f in folder.iterdir())
        bare = bare_scan(folder)
        whole = run_import("eicu", folder, home / "whole.db")
        if whole.cases != stays or whole.quarantined:
            raise RuntimeError("the benchmark's own tables did not import")
        found: dict[str, float | int | bool] = {
            "tables_stays": stays,
            "tables_rows": rows,
            "tables_packed_mb": round(size / 1e6, 1),
            "tables_import_seconds": round(whole.seconds, 1),
            "tables_rows_per_second": round(rows / whole.seconds),
            "tables_bare_scan_seconds": round(bare, 2),
            "tables_import_over_bare_scan": round(whole.seconds / bare, 2),
            "tables_peak_mb": round(whole.peak_mb),
        }
        if kill:
            run_import("eicu", folder, home / "killed.db", lambda seconds: seconds > whole.seconds / 2)
            again = run_import("eicu", folder, home / "killed.db")
            if again.cases != stays or _stored(home / "whole.db") != _stored(home / "killed.db"):
                raise RuntimeError("the import that was killed and resumed holds something else")
            found["tables_resume_after_kill_seconds"] = round(again.seconds, 1)
            found["tables_resumed"] = bool(again.resumed)
    return found


def main() -> None:
    """Runs the benchmark at a size given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stays", nargs="?", type=int, default=200)
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual 228 rows of a stay")
    parser.add_argument("--no-kill", action="store_true")
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.stays, chosen.share, not chosen.no_kill)))


if __name__ == "__main__":
    main()
