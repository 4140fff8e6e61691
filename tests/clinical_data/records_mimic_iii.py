"""A small made-up MIMIC-III record in the publisher's own columns, with upper-case names as in version 1.4.

Patient 1 has two admissions; the second (100002, 2150-03-10 12:00, ED arrival 09:00) fills every table and was charted
in MetaVision. Patient 2 (100003) is a newborn charted in CareVue, patient 3 (100004) is above 89 and died. Admission
100005 ends before it begins.
"""

import csv
import gzip
import io
from pathlib import Path

CANARY = "zugzwang"
PLANTED = "xylopyrography"
BEFORE, MAIN, NEWBORN, DIED, BROKEN = "100001", "100002", "100003", "100004", "100005"

COLUMNS = {
    "ADMISSIONS": "ROW_ID,SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,DEATHTIME,ADMISSION_TYPE,ADMISSION_LOCATION,"
    "DISCHARGE_LOCATION,INSURANCE,LANGUAGE,RELIGION,MARITAL_STATUS,ETHNICITY,EDREGTIME,EDOUTTIME,DIAGNOSIS,"
    "HOSPITAL_EXPIRE_FLAG,HAS_CHARTEVENTS_DATA",
    "PATIENTS": "ROW_ID,SUBJECT_ID,GENDER,DOB,DOD,DOD_HOSP,DOD_SSN,EXPIRE_FLAG",
    "D_LABITEMS": "ROW_ID,ITEMID,LABEL,FLUID,CATEGORY,LOINC_CODE",
    "D_ITEMS": "ROW_ID,ITEMID,LABEL,ABBREVIATION,DBSOURCE,LINKSTO,CATEGORY,UNITNAME,PARAM_TYPE,CONCEPTID",
    "D_ICD_DIAGNOSES": "ROW_ID,ICD9_CODE,SHORT_TITLE,LONG_TITLE",
    "DIAGNOSES_ICD": "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE",
    "PROCEDURES_ICD": "ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE",
    "DRGCODES": "ROW_ID,SUBJECT_ID,HADM_ID,DRG_TYPE,DRG_CODE,DESCRIPTION,DRG_SEVERITY,DRG_MORTALITY",
    "CPTEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,COSTCENTER,CHARTDATE,CPT_CD,CPT_NUMBER,CPT_SUFFIX,TICKET_ID_SEQ,"
    "SECTIONHEADER,SUBSECTIONHEADER,DESCRIPTION",
    "LABEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,ITEMID,CHARTTIME,VALUE,VALUENUM,VALUEUOM,FLAG",
    "MICROBIOLOGYEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,CHARTDATE,CHARTTIME,SPEC_ITEMID,SPEC_TYPE_DESC,ORG_ITEMID,"
    "ORG_NAME,ISOLATE_NUM,AB_ITEMID,AB_NAME,DILUTION_TEXT,DILUTION_COMPARISON,DILUTION_VALUE,INTERPRETATION",
    "PRESCRIPTIONS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,STARTDATE,ENDDATE,DRUG_TYPE,DRUG,DRUG_NAME_POE,"
    "DRUG_NAME_GENERIC,FORMULARY_DRUG_CD,GSN,NDC,PROD_STRENGTH,DOSE_VAL_RX,DOSE_UNIT_RX,FORM_VAL_DISP,FORM_UNIT_DISP,ROUTE",
    "SERVICES": "ROW_ID,SUBJECT_ID,HADM_ID,TRANSFERTIME,PREV_SERVICE,CURR_SERVICE",
    "TRANSFERS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,DBSOURCE,EVENTTYPE,PREV_CAREUNIT,CURR_CAREUNIT,PREV_WARDID,"
    "CURR_WARDID,INTIME,OUTTIME,LOS",
    "ICUSTAYS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,DBSOURCE,FIRST_CAREUNIT,LAST_CAREUNIT,FIRST_WARDID,"
    "LAST_WARDID,INTIME,OUTTIME,LOS",
    "CHARTEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,ITEMID,CHARTTIME,STORETIME,CGID,VALUE,VALUENUM,VALUEUOM,"
    "WARNING,ERROR,RESULTSTATUS,STOPPED",
    "PROCEDUREEVENTS_MV": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,STARTTIME,ENDTIME,ITEMID,VALUE,VALUEUOM,LOCATION,"
    "LOCATIONCATEGORY,STORETIME,CGID,ORDERID,LINKORDERID,ORDERCATEGORYNAME,SECONDARYORDERCATEGORYNAME,"
    "ORDERCATEGORYDESCRIPTION,ISOPENBAG,CONTINUEINNEXTDEPT,CANCELREASON,STATUSDESCRIPTION,COMMENTS_EDITEDBY,"
    "COMMENTS_CANCELEDBY,COMMENTS_DATE",
    "INPUTEVENTS_MV": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,STARTTIME,ENDTIME,ITEMID,AMOUNT,AMOUNTUOM,RATE,RATEUOM,"
    "STORETIME,CGID,ORDERID,LINKORDERID,ORDERCATEGORYNAME,SECONDARYORDERCATEGORYNAME,ORDERCOMPONENTTYPEDESCRIPTION,"
    "ORDERCATEGORYDESCRIPTION,PATIENTWEIGHT,TOTALAMOUNT,TOTALAMOUNTUOM,ISOPENBAG,CONTINUEINNEXTDEPT,CANCELREASON,"
    "STATUSDESCRIPTION,COMMENTS_EDITEDBY,COMMENTS_CANCELEDBY,COMMENTS_DATE,ORIGINALAMOUNT,ORIGINALRATE",
    "INPUTEVENTS_CV": "ROW_ID,SUBJECT_ID,HADM_ID,ICUSTAY_ID,CHARTTIME,ITEMID,AMOUNT,AMOUNTUOM,RATE,RATEUOM,STORETIME,"
    "CGID,ORDERID,LINKORDERID,STOPPED,NEWBOTTLE,ORIGINALAMOUNT,ORIGINALAMOUNTUOM,ORIGINALROUTE,ORIGINALRATE,"
    "ORIGINALRATEUOM,ORIGINALSITE",
    "NOTEEVENTS": "ROW_ID,SUBJECT_ID,HADM_ID,CHARTDATE,CHARTTIME,STORETIME,CATEGORY,DESCRIPTION,CGID,ISERROR,TEXT",
}
_MAIN = {"SUBJECT_ID": "1", "HADM_ID": MAIN, "ICUSTAY_ID": "200002"}
_BABY = {"SUBJECT_ID": "2", "HADM_ID": NEWBORN, "ICUSTAY_ID": "200003"}
Rows = list[dict[str, str]]


def radiology(canary: str = CANARY) -> str:
    """A chest film as MIMIC-III prints it: the order, with the admitting diagnosis, stands above the report."""
    return f"""[**2150-3-10**] 9:40 AM
 CHEST (PORTABLE AP)                                             Clip # [**Clip Number (Radiology) 9**]
 Reason: r/o {canary}
 Admitting Diagnosis: {canary.upper()};
   {canary} PART TWO
 ______________________________________________________________________________
 UNDERLYING MEDICAL CONDITION:
  64 year old woman with {canary}
 REASON FOR THIS EXAMINATION:
  r/o {canary}
 ______________________________________________________________________________
                                 FINAL REPORT
 INDICATION:  Suspected {canary}.

 FINDINGS:  Patchy opacity in the right lower lobe, compared with [**2149-6-1**].

 IMPRESSION:  Right lower lobe consolidation.
"""


def tables(canary: str = CANARY) -> dict[str, Rows]:
    """Returns the rows of every table; `canary` stands wherever a recorded answer does."""
    return {**_stays(canary), **_hospital(canary), **_bedside(canary), "NOTEEVENTS": _notes(canary)}


def _stays(canary: str) -> dict[str, Rows]:
    known = {"ADMISSION_TYPE": canary, "HOSPITAL_EXPIRE_FLAG": "0", "ADMISSION_LOCATION": "EMERGENCY ROOM ADMIT"}
    return {
        "ADMISSIONS": [
            {"SUBJECT_ID": "1", **known, "HADM_ID": BEFORE, "ADMITTIME": "2149-06-01 08:00:00",
             "DISCHTIME": "2149-06-04 10:00:00", "DISCHARGE_LOCATION": "HOME HEALTH CARE", "DIAGNOSIS": canary},
            {**_MAIN, **known, "ADMITTIME": "2150-03-10 12:00:00", "DISCHTIME": "2150-03-14 15:30:00",
             "DISCHARGE_LOCATION": "SNF", "EDREGTIME": "2150-03-10 09:00:00", "EDOUTTIME": "2150-03-10 13:00:00",
             "DIAGNOSIS": f"{canary.upper()};{canary} PART TWO"},
            {**_BABY, **known, "ADMITTIME": "2120-07-01 03:00:00", "DISCHTIME": "2120-07-20 12:00:00",
             "ADMISSION_LOCATION": "PHYS REFERRAL/NORMAL DELI", "DISCHARGE_LOCATION": canary, "DIAGNOSIS": canary},
            {"SUBJECT_ID": "3", **known, "HADM_ID": DIED, "ADMITTIME": "2160-01-01 10:00:00",
             "DISCHTIME": "2160-01-03 04:00:00", "DEATHTIME": "2160-01-03 04:00:00", "HOSPITAL_EXPIRE_FLAG": "1",
             "DISCHARGE_LOCATION": "DEAD/EXPIRED", "EDREGTIME": "2160-01-01 11:00:00",
             "EDOUTTIME": "2160-01-01 13:30:00"},
            {"SUBJECT_ID": "3", **known, "HADM_ID": BROKEN, "ADMITTIME": "2160-02-03 10:00:00",
             "DISCHTIME": "2160-02-02 04:00:00", "DISCHARGE_LOCATION": "HOME", "DIAGNOSIS": canary},
        ],
        "PATIENTS": [
            {"SUBJECT_ID": "1", "GENDER": "F", "DOB": "2085-05-05 00:00:00", "DOD": "2151-01-01 00:00:00",
             "EXPIRE_FLAG": "1"},
            {"SUBJECT_ID": "2", "GENDER": "M", "DOB": "2120-07-01 00:00:00", "EXPIRE_FLAG": "0"},
            {"SUBJECT_ID": "3", "GENDER": "M", "DOB": "1860-01-01 00:00:00", "DOD": "2160-01-03 00:00:00",
             "EXPIRE_FLAG": "1"},
        ],
        "ICUSTAYS": [{**_MAIN, "FIRST_CAREUNIT": "MICU", "LAST_CAREUNIT": canary, "INTIME": "2150-03-11 15:00:00",
                      "OUTTIME": "2150-03-14 15:30:00", "LOS": "3.0"}],
        "TRANSFERS": [
            {**_MAIN, "EVENTTYPE": "admit", "INTIME": "2150-03-10 13:00:00"},
            {**_MAIN, "EVENTTYPE": "transfer", "CURR_CAREUNIT": "MICU", "INTIME": "2150-03-11 15:00:00",
             "OUTTIME": "2150-03-14 15:30:00"},
            {**_MAIN, "EVENTTYPE": "discharge", "PREV_CAREUNIT": "MICU", "INTIME": "2150-03-14 15:30:00"},
        ],
        "SERVICES": [{**_MAIN, "TRANSFERTIME": "2150-03-10 12:01:00", "CURR_SERVICE": "MED"}],
    }  # fmt: skip


def _hospital(canary: str) -> dict[str, Rows]:
    lab = {**_MAIN, "ITEMID": "50912", "VALUEUOM": "mg/dL", "FLAG": "abnormal"}
    blood = {**_MAIN, "CHARTDATE": "2150-03-10 00:00:00", "CHARTTIME": "2150-03-10 10:00:00", "SPEC_ITEMID": "70012",
             "SPEC_TYPE_DESC": "BLOOD CULTURE", "ORG_NAME": "ESCHERICHIA COLI"}  # fmt: skip
    return {
        "D_LABITEMS": [
            {"ITEMID": "50912", "LABEL": "Creatinine", "FLUID": "Blood", "LOINC_CODE": "2160-0"},
            {"ITEMID": "51484", "LABEL": "Ketone", "FLUID": "Urine"},
        ],
        "D_ICD_DIAGNOSES": [
            {"ICD9_CODE": "99591", "SHORT_TITLE": canary, "LONG_TITLE": f"Sepsis {canary}"},
            {"ICD9_CODE": "4280", "SHORT_TITLE": "CHF NOS", "LONG_TITLE": "Congestive heart failure, unspecified"},
        ],
        "DIAGNOSES_ICD": [
            {"SUBJECT_ID": "1", "HADM_ID": BEFORE, "SEQ_NUM": "1", "ICD9_CODE": "4280"},
            {**_MAIN, "SEQ_NUM": "2", "ICD9_CODE": "E8788"},
            {**_MAIN, "SEQ_NUM": "1", "ICD9_CODE": "99591"},
            {**_BABY},
            {"SUBJECT_ID": "3", "HADM_ID": DIED, "SEQ_NUM": "2", "ICD9_CODE": "4280"},
        ],
        "PROCEDURES_ICD": [{**_MAIN, "SEQ_NUM": "1", "ICD9_CODE": canary}],
        "DRGCODES": [{**_MAIN, "DRG_TYPE": "HCFA", "DRG_CODE": canary, "DESCRIPTION": canary}],
        "CPTEVENTS": [{**_MAIN, "CPT_CD": canary, "SECTIONHEADER": canary}],
        "LABEVENTS": [
            {**lab, "CHARTTIME": "2150-03-10 09:30:00", "VALUE": "2.1", "VALUENUM": "2.1"},
            {**lab, "HADM_ID": "", "CHARTTIME": "2150-03-10 10:00:30", "VALUE": "<0.2", "VALUENUM": "0.2",
             "FLAG": "delta"},
            {**lab, "HADM_ID": "", "CHARTTIME": "2150-03-09 08:59:00", "VALUE": "9", "VALUENUM": "9"},
            {**lab, "CHARTTIME": "2150-03-11 06:00:00", "VALUE": PLANTED, "VALUENUM": PLANTED},
            {**_MAIN, "ITEMID": "51484", "CHARTTIME": "2150-03-10 10:00:00", "VALUE": "NEG"},
        ],
        "MICROBIOLOGYEVENTS": [
            {**blood, "AB_NAME": "CEFTRIAXONE", "INTERPRETATION": "R"},
            {**blood, "AB_NAME": "MEROPENEM", "INTERPRETATION": "S"},
            {**_MAIN, "HADM_ID": "", "CHARTDATE": "2150-03-11 00:00:00", "SPEC_ITEMID": "70079",
             "SPEC_TYPE_DESC": "URINE"},
        ],
        "PRESCRIPTIONS": [
            {**_MAIN, "STARTDATE": "2150-03-11 00:00:00", "ENDDATE": "2150-03-14 00:00:00", "DRUG_TYPE": "MAIN",
             "DRUG": "CeftriaXONE", "DRUG_NAME_GENERIC": canary, "FORMULARY_DRUG_CD": "CEFX1F", "ROUTE": "IV"},
        ],
    }  # fmt: skip


def _bedside(canary: str) -> dict[str, Rows]:
    pulse = {**_MAIN, "ITEMID": "220045", "VALUEUOM": "bpm"}
    norepinephrine = {**_MAIN, "ITEMID": "221906", "LINKORDERID": "7", "ORDERCATEGORYDESCRIPTION": "Continuous Med"}
    return {
        "D_ITEMS": [
            {"ITEMID": i, "LABEL": label, "DBSOURCE": source}
            for i, label, source in (
                ("211", "Heart Rate", "carevue"), ("198", "GCS Total", "carevue"), ("80", "Bowel Sounds", "carevue"),
                ("8", canary, "carevue"), ("30056", "Po Intake", "carevue"), ("220045", "Heart Rate", "metavision"),
                ("220739", "GCS - Eye Opening", "metavision"), ("221906", "Norepinephrine", "metavision"),
                ("225402", "EKG", "metavision"), ("225792", "Invasive Ventilation", "metavision"),
                ("228125", "Family meeting held", "metavision"),
            )
        ],
        "CHARTEVENTS": [
            {**pulse, "CHARTTIME": "2150-03-10 13:00:00", "STORETIME": "2150-03-10 13:12:30", "VALUE": "110",
             "VALUENUM": "110", "ERROR": "0"},
            {**pulse, "CHARTTIME": "2150-03-10 14:00:00", "VALUE": "104", "VALUENUM": "104"},
            {**pulse, "CHARTTIME": "2150-03-10 15:00:00", "VALUE": "1", "VALUENUM": "1", "ERROR": "1"},
            {**_MAIN, "ITEMID": "220739", "CHARTTIME": "2150-03-10 13:00:00", "STORETIME": "2150-03-10 13:12:00",
             "VALUE": "Spontaneously", "VALUENUM": "4"},
            {**_MAIN, "ITEMID": "226543", "CHARTTIME": "2150-03-10 13:00:00", "VALUE": canary},
            {**_BABY, "ITEMID": "211", "CHARTTIME": "2120-07-01 04:00:00", "STORETIME": "2120-07-01 04:10:00",
             "VALUE": "150", "VALUENUM": "150"},
            {**_BABY, "HADM_ID": "", "ITEMID": "80", "CHARTTIME": "2120-07-01 05:00:00",
             "STORETIME": "2120-07-01 05:10:00", "VALUE": "Present"},
            {**_BABY, "ITEMID": "8", "CHARTTIME": "2120-07-01 05:00:00", "VALUE": canary},
        ],
        "PROCEDUREEVENTS_MV": [
            {**_MAIN, "ITEMID": "225402", "STARTTIME": "2150-03-10 13:00:00", "STORETIME": "2150-03-10 13:30:00",
             "ENDTIME": "2150-03-10 13:01:00", "STATUSDESCRIPTION": canary},
            {**_MAIN, "ITEMID": "225792", "STARTTIME": "2150-03-11 18:00:00", "STORETIME": "2150-03-11 19:00:00",
             "ENDTIME": "2150-03-13 18:00:00"},
            {**_MAIN, "ITEMID": "228125", "STARTTIME": "2150-03-11 18:00:00", "STORETIME": "2150-03-11 19:00:00"},
        ],
        "INPUTEVENTS_MV": [
            {**norepinephrine, "STARTTIME": "2150-03-11 20:00:00", "STORETIME": "2150-03-11 20:05:00", "RATE": "0.1"},
            {**norepinephrine, "STARTTIME": "2150-03-11 21:00:00", "STORETIME": "2150-03-11 21:05:00", "RATE": "0.2",
             "STATUSDESCRIPTION": canary},
        ],
        "INPUTEVENTS_CV": [
            {**_BABY, "ITEMID": "30056", "CHARTTIME": "2120-07-01 06:00:00", "STORETIME": "2120-07-01 06:10:00",
             "LINKORDERID": "9", "ORIGINALROUTE": "Oral"},
        ],
    }  # fmt: skip


def _notes(canary: str) -> Rows:
    day = {**_MAIN, "CHARTDATE": "2150-03-10"}
    echo = f"PATIENT/TEST INFORMATION:\nIndication: {canary}\nHeight: (in) 64\n\nINTERPRETATION:\n\nNormal LV size.\n"
    return [
        {**day, "CHARTTIME": "2150-03-10 09:40:00", "CATEGORY": "Radiology", "DESCRIPTION": "CHEST (PORTABLE AP)",
         "TEXT": radiology(canary)},
        {**day, "CHARTTIME": "2150-03-10 14:00:00", "STORETIME": "2150-03-10 16:00:00", "CATEGORY": "Radiology",
         "DESCRIPTION": "CT HEAD W/O CONTRAST", "TEXT": f"Admitting Diagnosis: {canary}\nno report yet"},
        {**day, "HADM_ID": "", "CATEGORY": "ECG", "DESCRIPTION": "Report", "TEXT": "Sinus tachycardia. No ST changes."},
        {**day, "CATEGORY": "Echo", "DESCRIPTION": "Report", "TEXT": echo},
        {**day, "CATEGORY": "ECG", "DESCRIPTION": "Report", "ISERROR": "1", "TEXT": canary},
        {**day, "CATEGORY": "Discharge summary", "DESCRIPTION": "Report", "TEXT": canary},
        {**day, "CHARTTIME": "2150-03-10 13:00:00", "CATEGORY": "Physician ", "DESCRIPTION": "Admission Note",
         "TEXT": canary},
    ]  # fmt: skip


def write_tables(folder: Path, content: dict[str, Rows], *, lower: bool = False, packed: bool = False) -> Path:
    """Writes tables into a folder; `lower`: names in lower case (as in the demo), `packed`: as `.csv.gz`."""
    folder.mkdir(exist_ok=True)
    for name, rows in content.items():
        columns = COLUMNS[name].split(",")
        path = folder / f"{name.lower() if lower else name}.csv{'.gz' if packed else ''}"
        text = io.StringIO(newline="")
        text.write((COLUMNS[name].lower() if lower else COLUMNS[name]) + "\n")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        for number, row in enumerate(rows, start=1):
            writer.writerow({"ROW_ID": str(number)} | {c: v for c, v in row.items() if c in columns})
        data = text.getvalue().encode()
        path.write_bytes(gzip.compress(data) if packed else data)
    return folder


def write(folder: Path, canary: str = CANARY) -> Path:
    """Writes the record; returns the folder to import."""
    return write_tables(folder, tables(canary))
