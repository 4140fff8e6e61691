"""Small sound records of every source in plain text, and rows to be added to them, for the tests of broken input."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import records_meds
import source_records
from fhir_building import condition, diagnosis, encounter, observation, patient

from clinical_data.catalogue import Catalogue, load_catalogue

SECRET = "quincunx"  # stands where a value of a patient does; never in a message


@dataclass(frozen=True)
class Small:
    """A record with few tables.

    Attributes:
        root: the file without which there is no case, below the folder.
        leaf: a file of results; the same where a source has one file.
        stay: (key, begin, end) in the source's own writing -> a line of another patient's stay.
        lab: (key, stay, time, value) -> a line of a result.
        main: key of a stay that is in the record.
        keep: the tables that are kept; empty: all files.
        times: key of a damage -> a time that cannot be.
        moments: begin and end of an added stay.
    """

    root: str
    leaf: str
    stay: Callable[[str, str, str], Any] | None = None
    lab: Callable[[str, str, str, str], Any] | None = None
    main: str = ""
    keep: frozenset[str] = frozenset()
    bad_times: tuple[str, ...] = ("0001-01-01 00:00:00", "9999-12-31 23:59:59", "2150-13-01 00:00:00")
    moments: tuple[str, str] = ("2150-05-01 08:00:00", "2150-05-03 08:00:00")


def _fhir_time(text: str) -> str:
    return text.replace(" ", "T") + ("Z" if " " in text else "")


SMALL = {
    "fhir": Small(
        "all.ndjson", "all.ndjson",
        stay=lambda key, begin, end: encounter(key, _fhir_time(begin), _fhir_time(end)),
        lab=lambda key, stay, time, value: observation(
            key, effectiveDateTime=_fhir_time(time), valueQuantity=None, valueString=value,
            encounter={"reference": f"Encounter/{stay}"}),
        main="e",
    ),
    "mimic-iv": Small(
        "hosp/admissions.csv", "hosp/labevents.csv",
        stay=lambda key, begin, end: {"subject_id": "10000009", "hadm_id": key, "admittime": begin, "dischtime": end},
        lab=lambda key, stay, time, value: {"labevent_id": key, "subject_id": "10000001", "hadm_id": stay,
                                            "itemid": "50912", "charttime": time, "value": value},
        main="20000002", keep=frozenset({"admissions", "patients", "labevents", "diagnoses_icd"}),
    ),
    "mimic-iii": Small(
        "ADMISSIONS.csv", "LABEVENTS.csv",
        stay=lambda key, begin, end: {"ROW_ID": key, "SUBJECT_ID": "9", "HADM_ID": key, "ADMITTIME": begin,
                                      "DISCHTIME": end},
        lab=lambda key, stay, time, value: {"ROW_ID": key, "SUBJECT_ID": "1", "HADM_ID": stay, "ITEMID": "50912",
                                            "CHARTTIME": time, "VALUE": value},
        main="100002", keep=frozenset({"ADMISSIONS", "PATIENTS", "LABEVENTS", "DIAGNOSES_ICD"}),
    ),
    "eicu": Small(
        "patient.csv", "lab.csv",
        stay=lambda key, begin, end: {"patientunitstayid": key, "uniquepid": "x", "unitdischargeoffset": end},
        lab=lambda key, stay, time, value: {"labid": key, "patientunitstayid": stay, "labresultoffset": time,
                                            "labname": "sodium", "labresulttext": value},
        main="1001", keep=frozenset({"patient", "lab", "diagnosis", "pastHistory"}),
        bad_times=("99999999999999999999", "10e9", "2150-01-01"), moments=("0", "-5"),
    ),
    "meds": Small(
        "data/train/0.parquet", "data/held_out/0.parquet",
        stay=lambda key, begin, end: [
            records_meds.event(9, begin, "HOSPITAL_ADMISSION//X//Y", hadm_id=int(key)),
            records_meds.event(9, end, "HOSPITAL_DISCHARGE//HOME", hadm_id=int(key))],
        lab=lambda key, stay, time, value: [
            records_meds.event(1, time, "LAB//RESULT//50912//mg/dL", value, hadm_id=int(stay))],
        main="22", bad_times=("0001-01-01 00:00:00", "9999-12-31 23:59:59"),
    ),
    "osce": Small("agentclinic_medqa.jsonl", "agentclinic_medqa.jsonl"),
    "ddxplus": Small("release_test_patients.csv", "release_test_patients.csv"),
}  # fmt: skip


def write_small(name: str, folder: Path) -> Path:
    """Writes the record of a source without its broken row, every text file plain; returns the path to import."""
    source_records.source_of(name)
    folder.mkdir(parents=True, exist_ok=True)
    if name == "fhir":
        words = [patient(), encounter(diagnosis=[diagnosis("DD", "c", 1)]), condition(code="J18.9"),
                 encounter("f", "2025-01-01T08:00:00Z", "2025-01-03T08:00:00Z"), observation("o1"),
                 observation("o2", valueQuantity={"value": 5, "unit": "mmol/L"})]  # fmt: skip
        (folder / "all.ndjson").write_text("".join(json.dumps(w) + "\n" for w in words), encoding="utf-8")
        return folder
    path = source_records.RECORDS[name](folder, SECRET)
    for file in [f for f in folder.rglob("*") if f.is_file()]:
        stem, whole = file.name.split(".")[0], SMALL[name].keep
        if whole and stem not in whole:
            file.unlink()
        elif file.suffix == ".gz":
            file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
            file.unlink()
    for file in (f for f in folder.rglob("*") if f.suffix in (".csv", ".jsonl")):
        lines = [line for line in file.read_bytes().splitlines() if source_records.PLANTED.encode() not in line]
        file.write_bytes(b"\n".join(lines) + b"\n")
    if name == "ddxplus":
        for file in folder.glob("*.zip"):
            file.unlink()
        told = repr(["E_53", "E_56_@_4"])
        rows = [(30 + n, repr([[f"{SECRET} one", 1.0]]), "F", f"{SECRET} one", told, "E_53") for n in range(3)]
        (folder / "release_test_patients.csv").write_text(source_records.patients_csv(*rows), encoding="utf-8")
    return path


def add_lines(name: str, folder: Path, what: str, *rows: Any) -> None:
    """Adds rows to the root (`stay`) or the leaf (`lab`) of a record, in the form that `Small` gives them."""
    small = SMALL[name]
    file = folder / (small.root if what == "stay" else small.leaf)
    if name == "meds":
        events = [event for row in rows for event in row]
        records_meds.write_parquet(folder / "data" / "train" / f"{what}.parquet", events, records_meds.COLUMNS)
    elif name == "fhir":
        with file.open("a", encoding="utf-8") as text:
            text.writelines(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows)
    else:
        with file.open("r", encoding="utf-8", newline="") as text:
            header = next(csv.reader(text))
        lines = io.StringIO(newline="")
        csv.DictWriter(lines, header, restval="", lineterminator="\n").writerows(rows)
        with file.open("ab") as raw:
            raw.write(lines.getvalue().encode())


def needs(name: str, what: str) -> None:
    """Skips a damage that a source has no place for."""
    if getattr(SMALL[name], what) is None:
        pytest.skip(f"{name} has no {what}")


@lru_cache(maxsize=1)
def _catalogue() -> Catalogue:
    return load_catalogue()


def keep_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets importers share one catalogue: to read it anew takes a fifth of a small import."""
    for name in ("fhir", "mimic_iv", "mimic_iii", "eicu", "meds"):
        monkeypatch.setattr(f"clinical_data.sources.{name}.load_catalogue", _catalogue)
