"""The raw records of MIMIC-IV and MIMIC-III for the leak tests, with rows before, across and after every clock."""

from __future__ import annotations

from datetime import datetime, timedelta

import leak_records  # noqa: F401  makes the importers' own records importable
import records_mimic_iii as iii
import records_mimic_iv as iv
from leak_tables import CULTURE, DAY, Row, TableRecord, Tables, Times

ORIGIN = datetime(2150, 3, 10, 12)  # admission of the stay that is looked at, in both
END = 4 * DAY + 210
CLOCKS = {
    "triage": -180,
    "admission_diagnosis": 0,
    "differential": 480,
    "workup": 480,
    "result_update": 720,
    "treatment": DAY,
    "disposition": DAY,
    "discharge_diagnosis": END,
}


def at(minute: int) -> str:
    """A minute from admission as the tables write it."""
    return (ORIGIN + timedelta(minutes=minute)).isoformat(sep=" ")


# Taken and entered, as minutes from a clock: before it, across it, after it.
AROUND = ((-30, -5), (-10, 10), (5, 15))
TESTS = ("50912", "50813", "51003", "51484", "50971", "51301")


def mimic_iv_tables(word: str = "plain") -> Tables:
    """The importer's own small record, and around each clock of the stay a row of every kind that has two times."""
    tables = iv.tables(word)
    tables["labevents"] = [row for row in tables["labevents"] if iv.BROKEN not in row.values()]
    for number, clock in enumerate(sorted(set(CLOCKS.values()))):
        for place, (taken, entered) in enumerate(AROUND):
            _around_iv(tables, 10 * number + place, at(clock + taken), at(clock + entered))
        _changed_order(tables, str(700 + number), clock)
    return tables


def _around_iv(tables: Tables, n: int, taken: str, entered: str) -> None:
    main = {"subject_id": "10000001", "hadm_id": iv.MAIN}
    icu = {**main, "stay_id": "31000002", "storetime": entered}
    tables["labevents"].append(
        {**main, "labevent_id": str(500 + n), "itemid": TESTS[n % 6], "charttime": taken, "storetime": entered,
         "value": f"{n}.5", "valuenum": f"{n}.5", "valueuom": "mg/dL", "ref_range_lower": "1", "ref_range_upper": "2",
         "flag": "abnormal", "comments": "seen"}
    )  # fmt: skip
    tables["microbiologyevents"].append(
        {**main, "microevent_id": str(500 + n), "micro_specimen_id": str(500 + n), "charttime": taken,
         "chartdate": taken[:10], "spec_type_desc": ("URINE", "SPUTUM", "CSF")[n % 3], "test_seq": "1",
         "storetime": entered, "test_itemid": str(90201 + n % 3), "test_name": "CULTURE", "org_name": "PROTEUS",
         "ab_name": "CEFEPIME", "interpretation": "S", "comments": "few"}
    )  # fmt: skip
    tables["chartevents"] += [
        {**icu, "charttime": taken, "itemid": "220045", "value": f"8{n}", "valuenum": f"8{n}", "valueuom": "bpm"},
        {**icu, "charttime": taken, "itemid": "220739", "value": "To Pain", "valuenum": "2"},
    ]
    tables["outputevents"].append({**icu, "charttime": taken, "itemid": "226559", "value": f"4{n}", "valueuom": "ml"})
    tables["procedureevents"].append({**icu, "starttime": taken, "itemid": "225402", "orderid": str(600 + n)})
    tables["inputevents"].append(
        {**icu, "starttime": taken, "itemid": "221906", "orderid": str(600 + n), "rate": "0.3",
         "ordercategorydescription": "Continuous Med"}
    )  # fmt: skip
    tables["prescriptions"].append(
        {**main, "pharmacy_id": str(600 + n), "starttime": taken, "drug_type": "MAIN", "drug": f"Drug{n}",
         "route": "PO"}
    )  # fmt: skip
    tables["pharmacy"].append({**main, "pharmacy_id": str(600 + n), "entertime": entered, "frequency": "Q8H"})
    tables["radiology"].append(
        {**main, "note_id": f"R-{n}", "note_type": "RR", "charttime": taken, "storetime": entered,
         "text": "EXAMINATION:  CT HEAD\n\nFINDINGS:\nNo bleeding.\n"}
    )  # fmt: skip
    tables["radiology_detail"].append(
        {"subject_id": "10000001", "note_id": f"R-{n}", "field_name": "exam_name", "field_ordinal": "1",
         "field_value": ("CT HEAD W/O CONTRAST", "CHEST (PORTABLE AP)")[n % 2]}
    )  # fmt: skip


def _changed_order(tables: Tables, order: str, clock: int) -> None:
    """Adds an order of two rows: the first row was entered late at a time that nobody wrote down."""
    first = {"subject_id": "10000001", "hadm_id": iv.MAIN, "stay_id": "31000002", "orderid": order}
    rows = [
        {**first, "starttime": at(clock - 100), "storetime": ""},  # known 146 or 240 minutes later
        {**first, "starttime": at(clock - 60), "storetime": at(clock - 50)},
    ]
    tables["inputevents"] += [{**row, "itemid": "221906", "ordercategorydescription": "Drug Push"} for row in rows]
    tables["procedureevents"] += [{**row, "itemid": "225792"} for row in rows]


def _order_entered(row: Row, tables: Tables) -> str:
    """When a prescription was entered: by the pharmacy, else by the provider."""
    pharmacy = [r.get("entertime", "") for r in tables["pharmacy"] if r.get("pharmacy_id") == row.get("pharmacy_id")]
    ordered = [r.get("ordertime", "") for r in tables["poe"] if r.get("poe_id") == row.get("poe_id")]
    return next((time for time in (*pharmacy, *ordered) if time), "")


def _bedside(*more: str, time: str = "charttime") -> tuple[str, ...]:
    return ("subject_id", "hadm_id", "stay_id", time, "storetime", "itemid", *more)


_LAB_RESULT = ("value", "valuenum", "valueuom", "ref_range_lower", "ref_range_upper", "flag", "comments")
_GROWN = ("org_name", "ab_name", "interpretation")
IV_COLUMNS = {name: tuple(header.split(",")) for name, (_, header) in iv.COLUMNS.items()}
_ED = ("subject_id", "stay_id", "charttime")

MIMIC_IV = TableRecord(
    source="mimic-iv",
    source_id=iv.MAIN,
    clocks=CLOCKS,
    origin=ORIGIN,
    tables=mimic_iv_tables,
    columns=IV_COLUMNS,
    owners=frozenset({"subject_id", "hadm_id", "stay_id", "note_id", "poe_id", "pharmacy_id"}),
    save=iv.write_tables,
    times={
        "admissions": Times(("admittime",), ("dischtime",), key="hadm_id", deeds=("alter", "delete")),
        "labevents": Times(("charttime",), ("storetime",), 240, _LAB_RESULT, "labevent_id"),
        "microbiologyevents": Times(("charttime", "chartdate"), ("storetime", "storedate"), CULTURE,
                                    (*_GROWN, "comments"), "microevent_id"),
        "prescriptions": Times(("starttime",), deeds=("alter", "delete", "add")),
        "procedureevents": Times(("starttime",), ("storetime",), 240),
        "inputevents": Times(("starttime",), ("storetime",), 146),
        "outputevents": Times(("charttime",), ("storetime",), 146),
        "chartevents": Times(("charttime",), ("storetime",), 146),
        "omr": Times(("chartdate",), deeds=("alter", "delete")),
        "services": Times(("transfertime",)),
        "transfers": Times(("intime",), key="transfer_id"),
        "vitalsign": Times(("charttime",)),
        "medrecon": Times(("charttime",)),
        "pyxis": Times(("charttime",)),
        "radiology": Times(("charttime",), ("storetime",), 240, ("text",), deeds=("alter", "shift", "delete")),
    },
    own_known={"prescriptions": _order_entered},
    stays=("admissions", "hadm_id"),
    told_at_admission=("admission_location",),
    future=(("admissions", "dischtime"), ("admissions", "edouttime"), ("edstays", "outtime"),
            ("pharmacy", "entertime"), ("icustays", "intime")),
    visible={
        "admissions": ("admittime", "dischtime", "admission_location", "edregtime", "edouttime"),
        "patients": ("gender", "anchor_age", "anchor_year"),
        "d_labitems": ("itemid", "label", "fluid"),
        "d_items": ("itemid", "label"),
        "d_icd_diagnoses": IV_COLUMNS["d_icd_diagnoses"],
        "diagnoses_icd": IV_COLUMNS["diagnoses_icd"],
        "labevents": ("itemid", "charttime", "storetime", *_LAB_RESULT),
        "microbiologyevents": ("micro_specimen_id", "chartdate", "charttime", "spec_type_desc", "test_seq",
                               "storedate", "storetime", "test_itemid", "test_name", *_GROWN, "comments"),
        "prescriptions": ("starttime", "drug_type", "drug", "formulary_drug_cd", "route"),
        "pharmacy": ("entertime", "frequency"),
        "poe": ("ordertime",),
        "omr": IV_COLUMNS["omr"],
        "services": ("transfertime", "curr_service"),
        "transfers": ("eventtype", "careunit", "intime"),
        "icustays": ("intime",),
        "procedureevents": _bedside("orderid", time="starttime"),
        "inputevents": _bedside("orderid", "ordercategorydescription", time="starttime"),
        "outputevents": _bedside("value", "valueuom"),
        "chartevents": _bedside("value", "valuenum"),
        "edstays": ("intime", "outtime", "arrival_transport"),
        "triage": ("temperature", "heartrate", "resprate", "o2sat", "sbp", "dbp", "pain", "chiefcomplaint"),
        "vitalsign": IV_COLUMNS["vitalsign"],
        "medrecon": (*_ED, "name", "gsn"),
        "pyxis": (*_ED, "name", "gsn"),
        "radiology": ("charttime", "storetime", "text"),
        "radiology_detail": IV_COLUMNS["radiology_detail"],
    },
    typed=frozenset({"acuity"}),
    hidden_rows={
        "diagnoses_icd": (lambda row: row["hadm_id"] in (iv.MAIN, iv.LATER), ("icd_code",)),
        "d_icd_diagnoses": (lambda row: row["icd_code"] != "I5022", ("long_title",)),
        "radiology_detail": (lambda row: row["field_name"] != "exam_name", ("field_value",)),
    },
)  # fmt: skip


def mimic_iii_tables(word: str = "plain") -> Tables:
    """The importer's own small record, and around each clock of the stay a row of every kind that has two times."""
    tables = iii.tables(word)
    tables["LABEVENTS"] = [row for row in tables["LABEVENTS"] if iii.PLANTED not in row.values()]
    main = {"SUBJECT_ID": "1", "HADM_ID": iii.MAIN, "ICUSTAY_ID": "200002"}
    for number, clock in enumerate(sorted(set(CLOCKS.values()))):
        for lag, places in ((240, (-245, -230, 5)), (CULTURE, (-CULTURE - 5, -CULTURE + 10, -10, 5))):
            for place, taken in enumerate(places):
                when = {"CHARTTIME": at(clock + taken)}
                if lag == 240:
                    item = {**main, **when, "ITEMID": TESTS[(number + place) % 6]}
                    tables["LABEVENTS"].append({**item, "VALUE": "7.5", "VALUENUM": "7.5", "VALUEUOM": "mg/dL"})
                else:
                    tables["MICROBIOLOGYEVENTS"].append(
                        {**main, **when, "CHARTDATE": when["CHARTTIME"][:10] + " 00:00:00", "SPEC_ITEMID": "70012",
                         "SPEC_TYPE_DESC": ("URINE", "SPUTUM")[place % 2], "ORG_NAME": "PROTEUS",
                         "AB_NAME": "CEFEPIME", "INTERPRETATION": "S"}
                    )  # fmt: skip
        for taken, entered in AROUND:
            _around_iii(tables, main, at(clock + taken), at(clock + entered))
        order = {**main, "ITEMID": "221906", "LINKORDERID": str(70 + number)}
        tables["INPUTEVENTS_MV"] += [
            {**order, "STARTTIME": at(clock - 100)},
            {**order, "STARTTIME": at(clock - 60), "STORETIME": at(clock - 50)},
        ]
    for rows in tables.values():
        for number, row in enumerate(rows, start=1):
            row["ROW_ID"] = str(number)
    return tables


def _around_iii(tables: Tables, main: Row, taken: str, entered: str) -> None:
    charted = {**main, "CHARTTIME": taken, "STORETIME": entered}
    begun = {**main, "STARTTIME": taken, "STORETIME": entered}
    tables["CHARTEVENTS"] += [
        {**charted, "ITEMID": "220045", "VALUE": "88", "VALUENUM": "88"},
        {**charted, "ITEMID": "220739", "VALUE": "To Pain", "VALUENUM": "2"},
    ]
    tables["PROCEDUREEVENTS_MV"].append({**begun, "ITEMID": "225402"})
    tables["INPUTEVENTS_MV"].append({**begun, "ITEMID": "221906"})
    tables["NOTEEVENTS"].append(
        {**charted, "CHARTDATE": taken[:10], "CATEGORY": "Radiology", "DESCRIPTION": "CT HEAD W/O CONTRAST",
         "TEXT": "FINAL REPORT\n FINDINGS: No bleeding.\n"}
    )  # fmt: skip


def _report_entered(row: Row, tables: Tables) -> str:
    """When a report was entered; without that time a day later, and one with no more than a date at its end."""
    if row.get("STORETIME"):
        return row["STORETIME"]
    taken = row.get("CHARTTIME") or row["CHARTDATE"][:10]
    return (datetime.fromisoformat(taken) + timedelta(days=1)).isoformat(sep=" ")


III_COLUMNS = {name: tuple(header.split(",")) for name, header in iii.COLUMNS.items()}
_SHOWN_REPORTS = ("Radiology", "ECG", "Echo")
_III_GROWN = ("ORG_NAME", "AB_NAME", "INTERPRETATION")

MIMIC_III = TableRecord(
    source="mimic-iii",
    source_id=iii.MAIN,
    clocks=CLOCKS,
    origin=ORIGIN,
    tables=mimic_iii_tables,
    columns=III_COLUMNS,
    owners=frozenset({"SUBJECT_ID", "HADM_ID", "ICUSTAY_ID", "ROW_ID"}),
    save=lambda folder, tables: iii.write_tables(folder, tables),
    times={
        "ADMISSIONS": Times(("ADMITTIME",), ("DISCHTIME",), key="HADM_ID", deeds=("alter", "delete")),
        "LABEVENTS": Times(("CHARTTIME",), (), 240, ("VALUE", "VALUENUM", "VALUEUOM", "FLAG"), "ROW_ID"),
        "MICROBIOLOGYEVENTS": Times(("CHARTTIME", "CHARTDATE"), (), CULTURE, _III_GROWN, "ROW_ID"),
        "PRESCRIPTIONS": Times(("STARTDATE",), key="ROW_ID"),
        "SERVICES": Times(("TRANSFERTIME",), key="ROW_ID"),
        "TRANSFERS": Times(("INTIME",), key="ROW_ID"),
        "CHARTEVENTS": Times(("CHARTTIME",), ("STORETIME",), 146, key="ROW_ID"),
        "PROCEDUREEVENTS_MV": Times(("STARTTIME",), ("STORETIME",), 240, key="ROW_ID"),
        "INPUTEVENTS_MV": Times(("STARTTIME",), ("STORETIME",), 146, key="ROW_ID"),
        "INPUTEVENTS_CV": Times(("CHARTTIME",), ("STORETIME",), 146, key="ROW_ID"),
        "NOTEEVENTS": Times(("CHARTTIME", "CHARTDATE"), ("STORETIME",), DAY, ("TEXT",), "ROW_ID",
                            ("alter", "shift", "delete")),
    },
    stays=("ADMISSIONS", "HADM_ID"),
    told_at_admission=("ADMISSION_LOCATION",),
    own_known={"NOTEEVENTS": _report_entered},
    future=(("ADMISSIONS", "DISCHTIME"), ("ADMISSIONS", "EDOUTTIME"), ("ICUSTAYS", "INTIME")),
    visible={
        "ADMISSIONS": ("ADMITTIME", "DISCHTIME", "ADMISSION_LOCATION", "EDREGTIME", "EDOUTTIME"),
        "PATIENTS": ("GENDER", "DOB"),
        "D_LABITEMS": ("ITEMID", "LABEL", "FLUID", "LOINC_CODE"),
        "D_ITEMS": ("ITEMID", "LABEL"),
        "D_ICD_DIAGNOSES": ("ICD9_CODE", "LONG_TITLE"),
        "DIAGNOSES_ICD": ("SEQ_NUM", "ICD9_CODE"),
        "LABEVENTS": ("ITEMID", "CHARTTIME", "VALUE", "VALUENUM", "VALUEUOM", "FLAG"),
        "MICROBIOLOGYEVENTS": ("CHARTDATE", "CHARTTIME", "SPEC_ITEMID", "SPEC_TYPE_DESC", *_III_GROWN),
        "PRESCRIPTIONS": ("STARTDATE", "DRUG", "FORMULARY_DRUG_CD", "ROUTE"),
        "SERVICES": ("TRANSFERTIME", "CURR_SERVICE"),
        "TRANSFERS": ("EVENTTYPE", "CURR_CAREUNIT", "INTIME"),
        "ICUSTAYS": ("INTIME",),
        "CHARTEVENTS": ("ITEMID", "CHARTTIME", "STORETIME", "VALUE", "VALUENUM", "ERROR"),
        "PROCEDUREEVENTS_MV": ("STARTTIME", "STORETIME", "ITEMID"),
        "INPUTEVENTS_MV": ("STARTTIME", "STORETIME", "ITEMID", "LINKORDERID", "ORDERCATEGORYDESCRIPTION"),
        "INPUTEVENTS_CV": ("CHARTTIME", "STORETIME", "ITEMID", "RATE", "LINKORDERID", "ORIGINALROUTE"),
        "NOTEEVENTS": ("CHARTDATE", "CHARTTIME", "STORETIME", "CATEGORY", "DESCRIPTION", "ISERROR", "TEXT"),
    },
    hidden_rows={
        "DIAGNOSES_ICD": (lambda row: row["HADM_ID"] != iii.BEFORE, ("ICD9_CODE",)),
        "D_ICD_DIAGNOSES": (lambda row: row["ICD9_CODE"] != "4280", ("LONG_TITLE",)),
        "NOTEEVENTS": (lambda row: row["CATEGORY"] not in _SHOWN_REPORTS or row.get("ISERROR") == "1",
                       ("TEXT", "DESCRIPTION")),
    },
)  # fmt: skip
