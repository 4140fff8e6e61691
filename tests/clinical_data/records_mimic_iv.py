"""A small made-up MIMIC-IV record set with hosp, icu, ed and note, in the publisher's own columns.

Patient 1 has three admissions; the second (20000002) came through the emergency department and fills every table.
Patient 2 died in hospital, patient 3 was registered as admitted before arrival in the emergency department. A canary
stands in every place that tells an answer, and one laboratory row is broken.
"""

import csv
import gzip
from pathlib import Path

BEFORE, MAIN, LATER, DIED, EARLY = "20000001", "20000002", "20000003", "20000004", "20000005"
ED_STAY = "30000002"
BROKEN = "xylopyrography"  # stands for a patient's value in a broken row

# table -> module and columns, as published (2.2; ED 2.2; Note 2.2)
COLUMNS = {
    "admissions": ("hosp", "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,admit_provider_id,"
                   "admission_location,discharge_location,insurance,language,marital_status,race,edregtime,edouttime,"
                   "hospital_expire_flag"),
    "patients": ("hosp", "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod"),
    "d_labitems": ("hosp", "itemid,label,fluid,category"),
    "d_icd_diagnoses": ("hosp", "icd_code,icd_version,long_title"),
    "diagnoses_icd": ("hosp", "subject_id,hadm_id,seq_num,icd_code,icd_version"),
    "procedures_icd": ("hosp", "subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version"),
    "drgcodes": ("hosp", "subject_id,hadm_id,drg_type,drg_code,description,drg_severity,drg_mortality"),
    "hcpcsevents": ("hosp", "subject_id,hadm_id,chartdate,hcpcs_cd,seq_num,short_description"),
    "labevents": ("hosp", "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,"
                  "value,valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,comments"),
    "microbiologyevents": ("hosp", "microevent_id,subject_id,hadm_id,micro_specimen_id,order_provider_id,chartdate,"
                           "charttime,spec_itemid,spec_type_desc,test_seq,storedate,storetime,test_itemid,test_name,"
                           "org_itemid,org_name,isolate_num,quantity,ab_itemid,ab_name,dilution_text,"
                           "dilution_comparison,dilution_value,interpretation,comments"),
    "omr": ("hosp", "subject_id,chartdate,seq_num,result_name,result_value"),
    "pharmacy": ("hosp", "subject_id,hadm_id,pharmacy_id,poe_id,starttime,stoptime,medication,proc_type,status,"
                 "entertime,verifiedtime,route,frequency,disp_sched"),
    "poe": ("hosp", "poe_id,poe_seq,subject_id,hadm_id,ordertime,order_type,order_subtype,transaction_type,"
            "order_provider_id,order_status"),
    "poe_detail": ("hosp", "poe_id,poe_seq,subject_id,field_name,field_value"),
    "prescriptions": ("hosp", "subject_id,hadm_id,pharmacy_id,poe_id,poe_seq,order_provider_id,starttime,stoptime,"
                      "drug_type,drug,formulary_drug_cd,gsn,ndc,prod_strength,form_rx,dose_val_rx,dose_unit_rx,"
                      "form_val_disp,form_unit_disp,doses_per_24_hrs,route"),
    "services": ("hosp", "subject_id,hadm_id,transfertime,prev_service,curr_service"),
    "transfers": ("hosp", "subject_id,hadm_id,transfer_id,eventtype,careunit,intime,outtime"),
    "d_items": ("icu", "itemid,label,abbreviation,linksto,category,unitname,param_type,lownormalvalue,"
                "highnormalvalue"),
    "icustays": ("icu", "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los"),
    "chartevents": ("icu", "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,"
                    "valueuom,warning"),
    "datetimeevents": ("icu", "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valueuom,"
                       "warning"),
    "inputevents": ("icu", "subject_id,hadm_id,stay_id,caregiver_id,starttime,endtime,storetime,itemid,amount,"
                    "amountuom,rate,rateuom,orderid,linkorderid,ordercategoryname,ordercategorydescription,"
                    "statusdescription"),
    "outputevents": ("icu", "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valueuom"),
    "procedureevents": ("icu", "subject_id,hadm_id,stay_id,caregiver_id,starttime,endtime,storetime,itemid,value,"
                        "valueuom,location,locationcategory,orderid,linkorderid,ordercategoryname,"
                        "ordercategorydescription,patientweight,statusdescription,ORIGINALAMOUNT,ORIGINALRATE"),
    "edstays": ("ed", "subject_id,hadm_id,stay_id,intime,outtime,gender,race,arrival_transport,disposition"),
    "diagnosis": ("ed", "subject_id,stay_id,seq_num,icd_code,icd_version,icd_title"),
    "triage": ("ed", "subject_id,stay_id,temperature,heartrate,resprate,o2sat,sbp,dbp,pain,acuity,chiefcomplaint"),
    "vitalsign": ("ed", "subject_id,stay_id,charttime,temperature,heartrate,resprate,o2sat,sbp,dbp,rhythm,pain"),
    "medrecon": ("ed", "subject_id,stay_id,charttime,name,gsn,ndc,etc_rn,etccode,etcdescription"),
    "pyxis": ("ed", "subject_id,stay_id,charttime,med_rn,name,gsn_rn,gsn"),
    "radiology": ("note", "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text"),
    "radiology_detail": ("note", "note_id,subject_id,field_name,field_value,field_ordinal"),
    "discharge": ("note", "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text"),
}  # fmt: skip

_P1 = {"subject_id": "10000001"}
_MAIN = {**_P1, "hadm_id": MAIN}
_ICU = {**_MAIN, "stay_id": "31000002"}
_ED = {**_P1, "stay_id": ED_STAY}


def tables(canary: str = "zugzwang") -> dict[str, list[dict[str, str]]]:
    """Returns the rows of every table; admission 20000002 begins on 2150-03-10 at 12:00, ED arrival at 09:00."""
    return {**_hospital(canary), **_intensive_care(canary), **_emergency(canary), **_notes(canary)}


def _hospital(canary: str) -> dict[str, list[dict[str, str]]]:
    stay = {"discharge_location": "HOME", "hospital_expire_flag": "0", "admission_type": canary}
    return {
        "admissions": [
            {**_P1, **stay, "hadm_id": BEFORE, "admittime": "2149-06-01 08:00:00", "dischtime": "2149-06-04 10:00:00",
             "admission_location": "PHYSICIAN REFERRAL", "discharge_location": "HOME HEALTH CARE"},
            {**_MAIN, **stay, "admittime": "2150-03-10 12:00:00", "dischtime": "2150-03-14 15:30:00",
             "admission_location": "EMERGENCY ROOM", "discharge_location": "SKILLED NURSING FACILITY",
             "edregtime": "2150-03-10 09:00:00", "edouttime": "2150-03-10 13:00:00"},
            {**_P1, **stay, "hadm_id": LATER, "admittime": "2150-09-01 08:00:00", "dischtime": "2150-09-02 10:00:00",
             "discharge_location": canary},
            {"subject_id": "10000002", "hadm_id": DIED, "admittime": "2160-01-01 10:00:00",
             "dischtime": "2160-01-03 04:00:00", "deathtime": "2160-01-03 04:00:00", "admission_type": "URGENT",
             "admission_location": "TRANSFER FROM HOSPITAL", "discharge_location": "DIED", "hospital_expire_flag": "1"},
            {"subject_id": "10000003", **stay, "hadm_id": EARLY, "admittime": "2170-05-05 06:00:00",
             "dischtime": "2170-05-08 12:00:00", "edregtime": "2170-05-05 07:00:00", "edouttime": "2170-05-05 09:30:00",
             "discharge_location": "AGAINST ADVICE"},
        ],
        "patients": [
            {**_P1, "gender": "F", "anchor_age": "64", "anchor_year": "2147", "dod": "2151-01-01"},
            {"subject_id": "10000002", "gender": "M", "anchor_age": "91", "anchor_year": "2158", "dod": "2160-01-03"},
            {"subject_id": "10000003", "gender": "M", "anchor_age": "40", "anchor_year": "2170"},
        ],
        "d_labitems": [
            {"itemid": "50912", "label": "Creatinine", "fluid": "Blood", "category": "Chemistry"},
            {"itemid": "50813", "label": "Lactate", "fluid": "Blood", "category": "Blood Gas"},
            {"itemid": "51003", "label": "Troponin T", "fluid": "Blood", "category": "Chemistry"},
            {"itemid": "51484", "label": "Ketone", "fluid": "Urine", "category": "Hematology"},
            {"itemid": "50887", "label": "Blue Top Hold Frozen", "fluid": "Blood", "category": "Chemistry"},
        ],
        "d_icd_diagnoses": [
            {"icd_code": "A419", "icd_version": "10", "long_title": "Sepsis, unspecified organism"},
            {"icd_code": "J189", "icd_version": "10", "long_title": "Pneumonia, unspecified organism"},
            {"icd_code": "I5022", "icd_version": "10", "long_title": "Chronic systolic heart failure"},
            {"icd_code": "4280", "icd_version": "9", "long_title": f"Congestive heart failure {canary}"},
            {"icd_code": "C3490", "icd_version": "10", "long_title": f"Malignant neoplasm {canary}"},
        ],
        "diagnoses_icd": [
            {**_P1, "hadm_id": BEFORE, "seq_num": "1", "icd_code": "I5022", "icd_version": "10"},
            {**_MAIN, "seq_num": "2", "icd_code": "J189", "icd_version": "10"},
            {**_MAIN, "seq_num": "1", "icd_code": "A419", "icd_version": "10"},
            {**_P1, "hadm_id": LATER, "seq_num": "1", "icd_code": "C3490", "icd_version": "10"},
            {"subject_id": "10000003", "hadm_id": EARLY, "seq_num": "1", "icd_code": "4280", "icd_version": "9"},
        ],
        "procedures_icd": [
            {**_MAIN, "seq_num": "1", "chartdate": "2150-03-10", "icd_code": canary, "icd_version": "10"},
        ],
        "drgcodes": [{**_MAIN, "drg_type": "HCFA", "drg_code": "871", "description": canary}],
        "hcpcsevents": [{**_MAIN, "chartdate": "2150-03-10", "hcpcs_cd": "93454", "short_description": canary}],
        "labevents": _laboratory(),
        "microbiologyevents": _cultures(),
        "omr": [
            {**_P1, "chartdate": "2150-01-20", "seq_num": "1", "result_name": "Weight (Lbs)", "result_value": "180"},
            {**_P1, "chartdate": "2150-01-20", "seq_num": "1", "result_name": "Blood Pressure",
             "result_value": "118/70"},
            {**_P1, "chartdate": "2150-03-10", "seq_num": "1", "result_name": "eGFR", "result_value": "55"},
            {**_P1, "chartdate": "2147-01-20", "seq_num": "1", "result_name": "Weight (Lbs)", "result_value": "150"},
        ],
        "pharmacy": [
            {**_MAIN, "pharmacy_id": "41", "poe_id": "10000001-1", "starttime": "2150-03-10 14:00:00",
             "stoptime": "2150-03-13 14:00:00", "medication": "CefTRIAXone", "status": canary,
             "entertime": "2150-03-10 14:20:30", "route": "IV", "frequency": "Q24H"},
            {**_MAIN, "pharmacy_id": "42", "starttime": "2150-03-11 18:00:00", "entertime": "2150-03-11 17:00:00",
             "frequency": "Q6H:PRN"},
        ],
        "poe": [{**_MAIN, "poe_id": "10000001-3", "poe_seq": "3", "ordertime": "2150-03-12 08:15:00",
                 "order_type": "Medications", "order_status": canary}],
        "poe_detail": [{**_P1, "poe_id": "10000001-1", "poe_seq": "1", "field_name": "Discharge When",
                        "field_value": canary}],
        "prescriptions": [
            {**_MAIN, "pharmacy_id": "41", "poe_id": "10000001-1", "starttime": "2150-03-10 14:00:00",
             "stoptime": "2150-03-13 14:00:00", "drug_type": "MAIN", "drug": "CefTRIAXone",
             "formulary_drug_cd": "CEFX1F", "route": "IV"},
            {**_MAIN, "pharmacy_id": "42", "starttime": "2150-03-11 18:00:00", "stoptime": "2150-03-12 14:00:00",
             "drug_type": "MAIN", "drug": "Furosemide", "route": "IV"},
            {**_MAIN, "pharmacy_id": "43", "poe_id": "10000001-3", "starttime": "2150-03-12 08:00:00",
             "drug_type": "MAIN", "drug": "Vancomycin", "formulary_drug_cd": "VANC1F", "route": "IV"},
        ],
        "services": [{**_MAIN, "transfertime": "2150-03-10 12:01:00", "curr_service": "MED"}],
        "transfers": [
            {**_MAIN, "transfer_id": "51", "eventtype": "ED", "careunit": "Emergency Department",
             "intime": "2150-03-10 09:00:00", "outtime": "2150-03-10 13:00:00"},
            {**_MAIN, "transfer_id": "52", "eventtype": "admit", "careunit": "Medicine",
             "intime": "2150-03-10 13:00:00", "outtime": "2150-03-11 15:00:00"},
            {**_MAIN, "transfer_id": "53", "eventtype": "transfer", "careunit": "Medical Intensive Care Unit (MICU)",
             "intime": "2150-03-11 15:00:00", "outtime": "2150-03-14 15:30:00"},
            {**_MAIN, "transfer_id": "54", "eventtype": "discharge", "intime": "2150-03-14 15:30:00"},
        ],
    }  # fmt: skip


def _laboratory() -> list[dict[str, str]]:
    def lab(key: str, item: str, taken: str, stored: str, value: str, number: str = "", **more: str) -> dict[str, str]:
        return {**_MAIN, "labevent_id": key, "itemid": item, "charttime": taken, "storetime": stored, "value": value,
                "valuenum": number, **more}  # fmt: skip

    creatinine = {"valueuom": "mg/dL", "ref_range_lower": "0.4", "ref_range_upper": "1.1", "flag": "abnormal"}
    return [
        lab("1", "50912", "2150-03-10 09:30:00", "2150-03-10 10:41:20", "2.1", "2.1", **creatinine),
        lab("2", "50912", "2150-03-11 06:00:00", "2150-03-11 07:10:00", "___", "1.6", **creatinine),
        lab("3", "50813", "2150-03-10 11:50:00", "2150-03-10 12:05:00", "4.2", "4.2", valueuom="mmol/L", hadm_id=""),
        lab("4", "51003", "2150-03-10 09:30:00", "", "", "", comments="<0.01.", valueuom="ng/mL"),
        lab("5", "51484", "2150-03-10 10:00:00", "2150-03-10 10:30:00", "", "", comments="NEG."),
        lab("6", "50887", "2150-03-10 09:30:00", "2150-03-10 09:40:00", "HOLD.", ""),
        lab("7", "50813", "2150-03-09 08:59:00", "2150-03-09 09:05:00", "1.0", "1.0", hadm_id=""),  # a day before
        lab("8", "50813", "2150-03-14 16:00:00", "2150-03-14 16:05:00", "1.1", "1.1", hadm_id=""),  # after discharge
        lab("9", "50912", "2150-09-01 09:00:00", "2150-09-01 10:00:00", "3.0", "3.0", hadm_id=LATER),
        lab("10", "50813", "2150-03-12 06:00:00", "2150-03-12 06:20:00", "", "", comments="___"),
        lab("11", "50813", "2150-03-12 07:00:00", "2150-03-12 07:20:00", BROKEN, BROKEN),
    ]


def _cultures() -> list[dict[str, str]]:
    blood = {**_MAIN, "micro_specimen_id": "71", "chartdate": "2150-03-10 00:00:00", "charttime": "2150-03-10 10:00:00",
             "spec_type_desc": "BLOOD CULTURE", "test_seq": "1", "test_itemid": "90201",
             "test_name": "Blood Culture, Routine", "org_name": "ESCHERICHIA COLI"}  # fmt: skip
    return [
        {**blood, "microevent_id": "1", "storedate": "2150-03-13 00:00:00", "storetime": "2150-03-13 09:00:00",
         "ab_name": "CEFTRIAXONE", "interpretation": "R"},
        {**blood, "microevent_id": "2", "storedate": "2150-03-13 00:00:00", "storetime": "2150-03-12 09:00:00",
         "ab_name": "MEROPENEM", "interpretation": "S"},
        {**_MAIN, "hadm_id": "", "microevent_id": "3", "micro_specimen_id": "72", "chartdate": "2150-03-11 00:00:00",
         "spec_type_desc": "URINE", "test_seq": "1", "storedate": "2150-03-12 00:00:00", "test_itemid": "90039",
         "test_name": "URINE CULTURE", "comments": "NO GROWTH.  "},
        {**_MAIN, "microevent_id": "4", "micro_specimen_id": "73", "chartdate": "2150-03-11 00:00:00",
         "charttime": "2150-03-11 10:00:00", "spec_type_desc": "STOOL", "test_seq": "1", "test_itemid": "90221",
         "test_name": "C. difficile PCR", "comments": "___"},
    ]  # fmt: skip


def _intensive_care(canary: str) -> dict[str, list[dict[str, str]]]:
    names = {"220045": "Heart Rate", "220739": "GCS - Eye Opening", "220047": "Heart Rate Alarm - Low",
             "225059": "Past medical history", "225459": "Chest X-Ray", "225792": "Invasive Ventilation",
             "224275": "20 Gauge", "225401": "Blood Cultured", "221906": "Norepinephrine",
             "226559": "Foley"}  # fmt: skip
    seen = {**_ICU, "charttime": "2150-03-11 16:00:00", "storetime": "2150-03-11 16:25:00"}
    return {
        "d_items": [{"itemid": item, "label": name} for item, name in names.items()],
        "icustays": [{**_ICU, "first_careunit": "Medical Intensive Care Unit (MICU)", "last_careunit": canary,
                      "intime": "2150-03-11 15:00:00", "outtime": "2150-03-14 15:30:00", "los": "3.02"}],
        "chartevents": [
            {**seen, "itemid": "220045", "value": "112", "valuenum": "112", "valueuom": "bpm"},
            {**seen, "itemid": "220045", "value": "112", "valuenum": "112", "valueuom": "bpm"},  # stands twice
            {**seen, "itemid": "220739", "value": "To Speech", "valuenum": "3"},
            {**seen, "itemid": "225059", "value": "CHF"},
            {**seen, "itemid": "220047", "value": "50", "valuenum": "50"},
        ],
        "datetimeevents": [{**seen, "itemid": "224183", "value": "2150-03-09 00:00:00", "valueuom": "Date"}],
        "inputevents": [
            {**_ICU, "starttime": "2150-03-11 16:10:00", "endtime": "2150-03-11 17:10:00",
             "storetime": "2150-03-11 16:12:00", "itemid": "221906", "amount": "1.4", "rate": "0.1", "orderid": "81",
             "ordercategorydescription": "Continuous Med", "statusdescription": "ChangeDose/Rate"},
            {**_ICU, "starttime": "2150-03-11 17:10:00", "endtime": "2150-03-12 03:10:00",
             "storetime": "2150-03-11 17:30:00", "itemid": "221906", "amount": "9.4", "rate": "0.2", "orderid": "81",
             "ordercategorydescription": "Continuous Med", "statusdescription": canary},
        ],
        "outputevents": [{**_ICU, "charttime": "2150-03-11 17:00:00", "storetime": "2150-03-11 16:50:00",
                          "itemid": "226559", "value": "60", "valueuom": "ml"}],
        "procedureevents": [
            {**_ICU, "starttime": "2150-03-11 15:30:00", "endtime": "2150-03-11 15:31:00",
             "storetime": "2150-03-11 15:45:00", "itemid": "225459", "value": "1", "orderid": "91"},
            {**_ICU, "starttime": "2150-03-11 16:00:00", "endtime": "2150-03-13 10:00:00",
             "storetime": "2150-03-13 10:00:00", "itemid": "225792", "value": "2520", "orderid": "92",
             "statusdescription": canary},
            {**_ICU, "starttime": "2150-03-11 16:00:00", "storetime": "2150-03-11 16:10:00", "itemid": "224275",
             "orderid": "93"},
            {**_ICU, "starttime": "2150-03-11 15:40:00", "storetime": "2150-03-11 15:50:00", "itemid": "225401",
             "orderid": "94"},
        ],
    }  # fmt: skip


def _emergency(canary: str) -> dict[str, list[dict[str, str]]]:
    return {
        "edstays": [{**_MAIN, "stay_id": ED_STAY, "intime": "2150-03-10 09:00:00", "outtime": "2150-03-10 13:00:00",
                     "arrival_transport": "AMBULANCE", "disposition": canary}],
        "diagnosis": [
            {**_ED, "seq_num": "1", "icd_code": "J189", "icd_version": "10", "icd_title": f"PNEUMONIA {canary}"},
            {**_ED, "seq_num": "2", "icd_code": "R0902", "icd_version": "10", "icd_title": canary},
        ],
        "triage": [{**_ED, "temperature": "101.3", "heartrate": "118.0", "resprate": "26.0", "o2sat": "88.0",
                    "sbp": "92.0", "dbp": "51.0", "pain": "0", "acuity": "2.0", "chiefcomplaint": "Dyspnea, Fever"}],
        "vitalsign": [{**_ED, "charttime": "2150-03-10 10:15:00", "heartrate": "110.0", "resprate": "24.0",
                       "o2sat": "93.0", "sbp": "101.0", "dbp": "60.0", "rhythm": "Sinus Tachycardia",
                       "pain": "unable"}],
        "medrecon": [
            {**_ED, "charttime": "2150-03-10 09:40:00", "name": "lisinopril", "gsn": "000391", "etc_rn": "1"},
            {**_ED, "charttime": "2150-03-10 09:40:00", "name": "lisinopril", "gsn": "000391", "etc_rn": "2"},
        ],
        "pyxis": [{**_ED, "charttime": "2150-03-10 10:30:00", "med_rn": "1", "name": "Acetaminophen", "gsn_rn": "1",
                   "gsn": "004489"}],
    }  # fmt: skip


def _notes(canary: str) -> dict[str, list[dict[str, str]]]:
    report = "EXAMINATION:  CHEST (PORTABLE AP)\n\nFINDINGS:\nRight lower lobe opacity.\n"
    return {
        "radiology": [
            {**_P1, "hadm_id": "", "note_id": "10000001-RR-1", "note_type": "RR", "note_seq": "1",
             "charttime": "2150-03-10 09:45:00", "storetime": "2150-03-10 11:15:00", "text": report},
            {**_MAIN, "note_id": "10000001-RR-2", "note_type": "RR", "note_seq": "2",
             "charttime": "2150-03-12 09:45:00", "storetime": "2150-03-12 11:15:00", "text": report},
        ],
        "radiology_detail": [
            {**_P1, "note_id": "10000001-RR-1", "field_name": "exam_name", "field_value": "CHEST (PORTABLE AP)",
             "field_ordinal": "1"},
            {**_P1, "note_id": "10000001-RR-1", "field_name": "cpt_code", "field_value": "71045", "field_ordinal": "1"},
        ],
        "discharge": [{**_MAIN, "note_id": "10000001-DS-1", "note_type": "DS", "note_seq": "1",
                       "charttime": "2150-03-10 00:00:00", "storetime": "2150-03-10 00:00:00",
                       "text": f"Discharge Diagnosis: {canary}"}],
    }  # fmt: skip


def write(folder: Path, canary: str = "zugzwang") -> Path:
    """Writes the record set; returns the folder to import."""
    return write_tables(folder, tables(canary))


def write_tables(folder: Path, rows: dict[str, list[dict[str, str]]]) -> Path:
    """Writes tables below a folder, those of `hosp` and `ed` compressed; returns it."""
    for name, entries in rows.items():
        module, header = COLUMNS[name]
        columns = header.split(",")
        (folder / module).mkdir(parents=True, exist_ok=True)
        path = folder / module / (f"{name}.csv.gz" if module in ("hosp", "ed") else f"{name}.csv")
        with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(entries)
    return folder
