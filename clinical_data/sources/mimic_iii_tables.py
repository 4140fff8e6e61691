"""The tables of MIMIC-III: which columns are read, and which rows belong to which admission.

Only what stands in `TABLES` is read. Left out on purpose: deathtime, dod*, hospital_expire_flag and expire_flag;
admission_type; drgcodes, cptevents, procedures_icd; callout; last_careunit, outtime, los, enddate and every other end
of what is shown by its beginning; datetimeevents and outputevents. Of noteevents only reports of radiology, ECG and
echocardiography are handed out: a discharge summary is written after the stay, and notes of nurses and physicians state
the diagnosis that is asked for.

Rows leave the database with minutes from admission in place of times, so that no calendar date reaches Python.

Source: MIMIC-III 1.4, Johnson et al., Sci Data 2016, doi:10.1038/sdata.2016.35.
"""

from __future__ import annotations

from clinical_data.sources.mimic_common import STAY_TIMES, linked
from clinical_data.sources.mimic_findings import BEDSIDE_LAG
from clinical_data.sources.mimic_iii_items import CHARTED
from clinical_data.sources.tables import NUMBER, TEXT, TIME, WHOLE, Table

_OWNER = {"subject_id": WHOLE, "hadm_id": WHOLE}
_ROW = {"row_id": WHOLE, **_OWNER}

ADMISSIONS = Table(
    "admissions",
    ("hadm_id",),
    {**_OWNER, "admittime": TIME, "dischtime": TIME, "admission_location": TEXT, "edregtime": TIME, "edouttime": TIME,
     "discharge_location": TEXT, "diagnosis": TEXT},
    ("subject_id", "admittime", "dischtime"),
    ("edregtime", "edouttime", "admission_location", "discharge_location"),
)  # fmt: skip

TABLES = (
    ADMISSIONS,
    Table("patients", ("subject_id",), {"subject_id": WHOLE, "gender": TEXT, "dob": TIME}),
    Table("d_labitems", ("itemid",), {"itemid": WHOLE, "label": TEXT, "fluid": TEXT, "loinc_code": TEXT}, (),
          ("loinc_code",)),
    Table("d_items", ("itemid",), {"itemid": WHOLE, "label": TEXT}),
    Table("d_icd_diagnoses", ("icd9_code",), {"icd9_code": TEXT, "long_title": TEXT}),
    Table("diagnoses_icd", ("row_id",), {**_ROW, "seq_num": WHOLE, "icd9_code": TEXT}, ("hadm_id",)),
    Table("labevents", ("row_id",),
          {**_ROW, "itemid": WHOLE, "charttime": TIME, "value": TEXT, "valuenum": NUMBER, "valueuom": TEXT,
           "flag": TEXT}, ("itemid",)),
    Table("microbiologyevents", ("row_id",),
          {**_ROW, "chartdate": TIME, "charttime": TIME, "spec_itemid": WHOLE, "spec_type_desc": TEXT, "org_name": TEXT,
           "ab_name": TEXT, "interpretation": TEXT}),
    Table("prescriptions", ("row_id",),
          {**_ROW, "startdate": TIME, "drug": TEXT, "formulary_drug_cd": TEXT, "route": TEXT}, ("hadm_id", "drug"),
          ("formulary_drug_cd",)),
    Table("services", ("row_id",), {**_ROW, "transfertime": TIME, "curr_service": TEXT}, ("hadm_id",)),
    Table("transfers", ("row_id",), {**_ROW, "eventtype": TEXT, "curr_careunit": TEXT, "intime": TIME}, ("hadm_id",)),
    Table("icustays", ("icustay_id",), {**_OWNER, "icustay_id": WHOLE, "intime": TIME}, ("hadm_id",)),
    Table("procedureevents_mv", ("row_id",),
          {**_ROW, "itemid": WHOLE, "starttime": TIME, "storetime": TIME}, ("itemid",)),
    Table("inputevents_mv", ("row_id",),
          {**_ROW, "itemid": WHOLE, "starttime": TIME, "storetime": TIME, "linkorderid": WHOLE,
           "ordercategorydescription": TEXT}, ("itemid",), ("ordercategorydescription",)),
    Table("inputevents_cv", ("row_id",),
          {**_ROW, "itemid": WHOLE, "charttime": TIME, "storetime": TIME, "linkorderid": WHOLE, "rate": NUMBER,
           "originalroute": TEXT}, ("itemid",), ("originalroute",)),
    Table("chartevents", ("row_id",),
          {**_ROW, "itemid": WHOLE, "charttime": TIME, "storetime": TIME, "value": TEXT, "valuenum": NUMBER,
           "error": WHOLE}, (), ("error",), only=("itemid", CHARTED)),
    Table("noteevents", ("row_id",),
          {**_ROW, "chartdate": TIME, "charttime": TIME, "storetime": TIME, "category": TEXT, "description": TEXT,
           "iserror": TEXT, "text": TEXT}, ("category",), ("storetime", "iserror")),
)  # fmt: skip

# One row per admission that can be a case. A row without admission id belongs to the stay in whose time it lies, from
# arrival in the emergency department to discharge, of laboratory and microbiology from a day before (`LOOK_BACK`); the
# later stay where two overlap.
STAYS = f"""
CREATE OR REPLACE TEMP TABLE stays AS
WITH opened AS (
    SELECT hadm_id, subject_id, CAST(hadm_id AS VARCHAR) AS case_key, admittime, dischtime, edregtime AS ed_in,
        edouttime AS ed_out,
        CASE WHEN usable(edregtime) THEN least(edregtime, admittime) ELSE admittime END AS link_from
    FROM admissions WHERE usable(admittime) AND usable(dischtime) AND dischtime >= admittime
)
{STAY_TIMES}"""

# Ages above 89 read 300 (the publisher shifted the birth); the importer cuts them at 90.
ROOT = """
SELECT s.case_key, s.subject_id, p.gender, a.admission_location,
    CASE WHEN usable(p.dob) THEN CAST(date_sub('year', p.dob, s.admittime) AS BIGINT)
        - CASE WHEN p.dob > s.admittime THEN 1 ELSE 0 END
        WHEN year(p.dob) < 1800 THEN 300 END AS age,
    minute_of(s.ed_in, s.admittime) AS ed_in, known_by(s.ed_out, s.admittime) AS ed_out,
    minute_of(s.dischtime, s.admittime) AS stay_end
FROM stays s JOIN admissions a USING (hadm_id) LEFT JOIN patients p ON p.subject_id = s.subject_id
"""

_REPORTS = "trim(category) IN ('Radiology', 'ECG', 'Echo')"
OTHER_NOTES = f"SELECT count(*) FROM noteevents WHERE NOT {_REPORTS}"


def _begun(table: str, time: str, given: str) -> str:
    """Returns a query of the row of each linked order that was known first; rows of a changed rate are no new start."""
    known = f"greatest({time}, coalesce(storetime, {time} + INTERVAL {BEDSIDE_LAG} MINUTE))"
    return f"""
        SELECT i.case_key, i.row_id AS row_key, i.itemid, d.label, {given} AS given,
            minute_of(i.{time}, i.admittime) AS charted, known_by(i.{time}, i.admittime) AS taken,
            known_by(i.storetime, i.admittime) AS stored
        FROM {linked(table, f"t.{time}")} i LEFT JOIN d_items d ON d.itemid = i.itemid
        QUALIFY row_number() OVER (PARTITION BY i.case_key, i.itemid,
            coalesce(i.linkorderid, -i.row_id) ORDER BY {known}, i.row_id) = 1"""


# Feed -> query. A name that begins with `truth_` holds recorded answers; no row of it reaches a case.
FEEDS: dict[str, str] = {
    "labevents": f"""
        SELECT l.case_key, l.row_id AS row_key, l.itemid, d.label, d.fluid, d.loinc_code, l.value, l.valuenum,
            l.valueuom, l.flag, minute_of(l.charttime, l.admittime) AS charted,
            known_by(l.charttime, l.admittime) AS taken
        FROM {linked("labevents", "t.charttime", look_back=True)} l LEFT JOIN d_labitems d ON d.itemid = l.itemid""",
    "microbiologyevents": f"""
        SELECT m.case_key,
            minute_of(m.taken_at, m.admittime) AS charted, known_by(m.taken_at, m.admittime) AS taken,
            struct_pack(a := charted, b := m.spec_itemid, c := m.spec_type_desc, d := m.row_id) AS row_key,
            m.spec_itemid, m.spec_type_desc, m.org_name, m.ab_name, m.interpretation
        FROM (SELECT *, coalesce(charttime, day_end(chartdate)) AS taken_at FROM
            {linked("microbiologyevents", "coalesce(t.charttime, day_end(t.chartdate))", look_back=True)}) m""",
    "prescriptions": """
        SELECT s.case_key, p.row_id AS row_key, p.drug, p.formulary_drug_cd, p.route,
            known_by(day_end(p.startdate), s.admittime) AS charted
        FROM prescriptions p LEFT JOIN stays s ON s.hadm_id = p.hadm_id""",
    "procedureevents_mv": f"""
        SELECT p.case_key, p.row_id AS row_key, p.itemid, d.label, minute_of(p.starttime, p.admittime) AS charted,
            known_by(p.starttime, p.admittime) AS taken, known_by(p.storetime, p.admittime) AS stored
        FROM {linked("procedureevents_mv", "t.starttime")} p LEFT JOIN d_items d ON d.itemid = p.itemid""",
    "inputevents_mv": _begun("inputevents_mv", "starttime", "i.ordercategorydescription"),
    "inputevents_cv": _begun(
        "inputevents_cv",
        "charttime",
        "concat_ws(', ', i.originalroute, CASE WHEN i.rate > 0 THEN 'continuous infusion' END)",
    ),
    "chartevents": f"""
        SELECT c.case_key, c.row_id AS row_key, c.itemid, d.label, c.value, c.valuenum, c.error,
            minute_of(c.charttime, c.admittime) AS charted, known_by(c.charttime, c.admittime) AS taken,
            known_by(c.storetime, c.admittime) AS stored
        FROM {linked("chartevents", "t.charttime")} c LEFT JOIN d_items d ON d.itemid = c.itemid""",
    "noteevents": f"""
        SELECT n.case_key, n.row_id AS row_key, trim(n.category) AS category, n.description, n.iserror, n.text,
            n.charttime IS NULL AND n.storetime IS NULL AS dated, minute_of(n.at, n.admittime) AS charted,
            known_by(n.at, n.admittime) AS taken, known_by(n.storetime, n.admittime) AS stored
        FROM (SELECT *, coalesce(charttime, storetime, day_end(chartdate)) AS at FROM
            {linked("noteevents", "coalesce(t.charttime, t.storetime, day_end(t.chartdate))")} WHERE {_REPORTS}) n""",
    "services": """
        SELECT s.case_key, v.row_id AS row_key, v.curr_service, minute_of(v.transfertime, s.admittime) AS charted,
            known_by(v.transfertime, s.admittime) AS stored
        FROM services v LEFT JOIN stays s ON s.hadm_id = v.hadm_id""",
    "transfers": """
        SELECT s.case_key, t.row_id AS row_key, t.curr_careunit, minute_of(t.intime, s.admittime) AS charted,
            known_by(t.intime, s.admittime) AS stored
        FROM transfers t LEFT JOIN stays s ON s.hadm_id = t.hadm_id WHERE t.eventtype IN ('admit', 'transfer')""",
    "icustays": """
        SELECT s.case_key, i.icustay_id AS row_key, minute_of(i.intime, s.admittime) AS charted
        FROM icustays i LEFT JOIN stays s ON s.hadm_id = i.hadm_id""",
    "earlier": """
        SELECT s.case_key, e.hadm_id AS row_key, minute_of(e.admittime, s.admittime) AS charted,
            known_by(e.dischtime, s.admittime) AS ended, minute_of(e.dischtime, e.admittime) AS minutes
        FROM stays s JOIN stays e ON e.subject_id = s.subject_id AND e.admittime < s.admittime
            AND e.hadm_id <> s.hadm_id""",
    "earlier_diagnoses": """
        SELECT s.case_key, trim(d.icd9_code) AS row_key, t.long_title, min(known_by(e.dischtime, s.admittime)) AS ended
        FROM stays s JOIN stays e ON e.subject_id = s.subject_id AND e.admittime < s.admittime
                AND e.hadm_id <> s.hadm_id
            JOIN diagnoses_icd d ON d.hadm_id = e.hadm_id
            LEFT JOIN d_icd_diagnoses t ON t.icd9_code = trim(d.icd9_code)
        WHERE d.icd9_code IS NOT NULL GROUP BY s.case_key, trim(d.icd9_code), t.long_title""",
    "truth_admission": """
        SELECT s.case_key, a.hadm_id AS row_key, a.discharge_location, a.diagnosis
        FROM admissions a JOIN stays s USING (hadm_id)""",
    "truth_diagnoses": """
        SELECT s.case_key, d.row_id, d.seq_num, trim(d.icd9_code) AS icd9_code, t.long_title,
            struct_pack(a := d.seq_num, b := d.row_id) AS row_key
        FROM diagnoses_icd d JOIN stays s ON s.hadm_id = d.hadm_id
            LEFT JOIN d_icd_diagnoses t ON t.icd9_code = trim(d.icd9_code)""",
}
