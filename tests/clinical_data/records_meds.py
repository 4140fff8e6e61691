"""A small made-up MEDS data set as the MIMIC-IV ETL writes it: two shards, codes, splits and dataset.json.

Subject 1 has two admissions (hadm 21 and 22; 22 begins on 2150-03-10 at 12:00, ED arrival 09:00), subject 2 one (23,
ends in death), subject 3 one without a discharge (24).
"""

import json
from pathlib import Path

import duckdb

CANARY = "zugzwang"
PLANTED = "xylopyrography"
BEFORE, MAIN, DIED, OPEN = 21, 22, 23, 24

COLUMNS = {
    "subject_id": "BIGINT", "time": "TIMESTAMP", "code": "VARCHAR", "numeric_value": "FLOAT", "text_value": "VARCHAR",
    "hadm_id": "BIGINT", "icustay_id": "BIGINT", "route": "VARCHAR", "frequency": "VARCHAR",
}  # fmt: skip
Events = list[dict[str, object]]


def event(subject: int | None, time: str | None, code: str, value: object = None, **more: object) -> dict[str, object]:
    """One event; a number is its numeric value, a text its text value."""
    key = "text_value" if isinstance(value, str) else "numeric_value"
    return {"subject_id": subject, "time": time, "code": code, key: value, **more}


def shards(canary: str = CANARY) -> dict[str, Events]:
    """Returns the events of each shard; `canary` stands wherever a recorded answer does."""
    return {"train/0": _patient_one(canary), "held_out/0": _others(canary)}


def _patient_one(canary: str) -> Events:
    main, before = {"hadm_id": MAIN}, {"hadm_id": BEFORE}
    end = "2150-03-14 15:30:00"
    return [
        event(1, None, "GENDER//F"),
        event(1, "2085-01-01", "MEDS_BIRTH"),
        event(1, "2149-06-01 08:00:00", f"HOSPITAL_ADMISSION//{canary}//PHYSICIAN REFERRAL", **before),
        event(1, "2149-06-04 10:00:00", "HOSPITAL_DISCHARGE//HOME", **before),
        event(1, "2149-06-04 10:00:00", "DIAGNOSIS//ICD//10//I5022", **before),
        event(1, "2150-03-10 00:00:00", "Weight (Lbs)", "180"),
        event(1, "2150-03-10 08:59:00", "LAB//RESULT//50912//mg/dL", 9.9),
        event(1, "2150-03-10 09:00:00", "ED_REGISTRATION"),
        event(1, "2150-03-10 09:00:00", "TRANSFER_TO//ED//Emergency Department", **main),
        event(1, "2150-03-10 09:30:00", "LAB//SPECIMEN_COLLECTED//50912//STAT", **main),
        event(1, "2150-03-10 10:41:20", "LAB//RESULT//50912//mg/dL", 2.1, text_value="2.1"),
        event(1, "2150-03-10 10:50:00", "LAB//50813//mmol/L", 4.2, **main),
        event(1, "2150-03-10 12:00:00", f"HOSPITAL_ADMISSION//{canary}//EMERGENCY ROOM", **main),
        event(1, "2150-03-10 12:00:00", f"INSURANCE//{canary}", **main),
        event(1, "2150-03-10 13:00:00", "ED_OUT"),
        event(1, "2150-03-10 13:00:00", "TRANSFER_TO//admit//Medicine", **main),
        event(1, "2150-03-10 14:00:00", "MEDICATION//START//CefTRIAXone//UNK", route="IV", frequency="Q24H"),
        event(1, "2150-03-10 14:00:00", "MEDICATION//STOP//CefTRIAXone//UNK"),
        event(1, "2150-03-11 00:00:00", "MEDICATION//START//Vancomycin", route="IV", frequency="Q12H"),
        event(1, "2150-03-11 09:00:00", "MEDICATION//Furosemide//Administered", **main),
        event(1, "2150-03-11 10:00:00", "MEDICATION//Heparin//Not Given", **main),
        event(1, "2150-03-11 15:00:00", "ICU_ADMISSION//Medical Intensive Care Unit (MICU)", **main, icustay_id=32),
        event(1, "2150-03-11 15:10:00", "LAB//220045//bpm", 110.0, text_value="110", **main, icustay_id=32),
        event(1, "2150-03-11 15:10:00", "LAB//220045//bpm", 110.0, text_value="110", **main, icustay_id=32),
        event(1, "2150-03-11 15:10:00", "LAB//220739//UNK", "Spontaneously", **main),
        event(1, "2150-03-11 15:10:00", "LAB//226543//UNK", canary, **main),
        event(1, "2150-03-11 15:30:00", "SUBJECT_WEIGHT_AT_INFUSION//KG", 81.5),
        event(1, "2150-03-11 15:30:00", "INFUSION_START//221906", 0.1, **main, icustay_id=32),
        event(1, "2150-03-11 18:30:00", "INFUSION_END//221906", 9.0, **main, icustay_id=32),
        event(1, "2150-03-11 18:00:00", "PROCEDURE//START//225792", **main),
        event(1, "2150-03-11 19:00:00", "PROCEDURE//START//225402", **main),
        event(1, "2150-03-12 06:00:00", "LAB//RESULT//51003//ng/mL", "<0.01", **main),
        event(1, "2150-03-12 06:00:00", "MICROBIOLOGY//BLOOD CULTURE", "escherichia coli", **main),
        event(1, "2150-03-12 06:00:00", f"{canary}//unknown", canary, **main),
        event(1, end, "HOSPITAL_DISCHARGE//SKILLED NURSING FACILITY", **main),
        event(1, end, "ICU_DISCHARGE//Medicine", **main),
        event(1, end, "DIAGNOSIS//ICD//10//A419", **main),
        event(1, end, f"DRG//HCFA//871//{canary}", **main),
        event(1, end, f"PROCEDURE//ICD//10//{canary}", **main),
        event(1, "2150-03-10", f"HCPCS//{canary}", **main),
        event(1, "2151-01-01", "MEDS_DEATH"),
    ]


def _others(canary: str) -> Events:
    end = "2160-01-03 04:00:00"
    return [
        event(2, None, "GENDER//M"),
        event(2, "2060-01-01", "MEDS_BIRTH"),
        event(2, "2160-01-01 10:00:00", f"HOSPITAL_ADMISSION//{canary}//UNK", hadm_id=DIED),
        event(2, "2160-01-01 11:00:00", "ED_REGISTRATION"),
        event(2, "2160-01-01 13:30:00", "ED_OUT"),
        event(2, end, "HOSPITAL_DISCHARGE//DIED", hadm_id=DIED),
        event(2, end, "DIAGNOSIS//ICD//9//99591", hadm_id=DIED),
        event(2, end, "DIAGNOSIS//ICD//9//4280", hadm_id=DIED),
        event(2, "2160-01-01 12:00:00", "LAB//RESULT//50912//mg/dL", 1.0),
        event(None, "2160-01-01 12:00:00", "LAB//RESULT//50912//mg/dL", PLANTED, hadm_id=DIED),
        event(2, "0001-01-01 12:00:00", "LAB//RESULT//50912//mg/dL", PLANTED, hadm_id=DIED),
        event(2, "2160-01-01 12:00:00", "", PLANTED, hadm_id=DIED),
        event(3, "2170-05-05 06:00:00", "HOSPITAL_ADMISSION//URGENT//CLINIC REFERRAL", hadm_id=OPEN),
        event(3, "2170-05-05 07:00:00", "LAB//RESULT//50912//mg/dL", 1.1),
    ]


def write_parquet(path: Path, rows: Events, columns: dict[str, str]) -> Path:
    """Writes rows as Parquet with these columns and types; what a row lacks is NULL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as database:
        database.execute(f"CREATE TABLE rows ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
        places = ", ".join("?" for _ in columns)
        for row in rows:
            database.execute(f"INSERT INTO rows VALUES ({places})", [row.get(name) for name in columns])
        database.execute(f"COPY rows TO '{path}' (FORMAT parquet)")
    return path


def write_data(folder: Path, content: dict[str, Events], columns: dict[str, str] = COLUMNS) -> Path:
    """Writes the shards of a data set into `folder/data`."""
    for name, events in content.items():
        write_parquet(folder / "data" / f"{name}.parquet", events, columns)
    return folder


def write(folder: Path, canary: str = CANARY) -> Path:
    """Writes the record; returns the folder to import."""
    write_data(folder, shards(canary))
    described = [
        ("LAB//RESULT//50912//mg/dL", "Creatinine [Mass/volume] in Serum or Plasma", "LOINC/2160-0"),
        ("LAB//SPECIMEN_COLLECTED//50912//STAT", "Creatinine [Mass/volume] in Serum or Plasma", "LOINC/2160-0"),
        ("DIAGNOSIS//ICD//10//A419", f"Sepsis {canary}", "ICD10CM/A41.9"),
        ("DIAGNOSIS//ICD//10//I5022", "Chronic systolic heart failure", "ICD10CM/I50.22"),
        ("LAB//220045//bpm", "Heart Rate", None),
        ("INFUSION_START//221906", "Norepinephrine", None),
        ("PROCEDURE//START//225792", "Invasive Ventilation", None),
        (f"{canary}//unknown", canary, None),
    ]
    rows: Events = [{"code": c, "description": d, "parent_codes": [p] if p else None} for c, d, p in described]
    kinds = {"code": "VARCHAR", "description": "VARCHAR", "parent_codes": "VARCHAR[]"}
    write_parquet(folder / "metadata" / "codes.parquet", rows, kinds)
    splits: Events = [{"subject_id": 1, "split": "train"}, {"subject_id": 2, "split": "held_out"}]
    write_parquet(folder / "metadata" / "subject_splits.parquet", splits, {"subject_id": "BIGINT", "split": "VARCHAR"})
    told = {"dataset_name": "MIMIC-IV", "dataset_version": "2.2", "etl_name": "MIMIC_IV_MEDS", "meds_version": "0.4.1"}
    (folder / "metadata" / "dataset.json").write_text(json.dumps(told), encoding="utf-8")
    return folder
