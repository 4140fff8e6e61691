"""The tables of MIMIC-IV: which columns are read, and which rows belong to which admission.

Only what stands in `TABLES` is read. Left out on purpose: deathtime and dod; admission_type; drgcodes, hcpcsevents,
procedures_icd and poe_detail (without a time, or only a date); discharge notes; last_careunit, outtime, los and every
other end of what is shown by its beginning (an edstays.outtime is when the patient left for the ward: a clock, no
finding; a prescriptions.stoptime tells a recorded label which orders were taken back); datetimeevents, whose values are
calendar dates; emar, which repeats the orders.

Rows leave the database with minutes from admission in place of times (`minute_of` rounds down, `known_by` up), so that
no calendar date reaches Python.

Source: MIMIC-IV 2.2 and 3.1, Johnson et al., Sci Data 2023, doi:10.1038/s41597-022-01899-x.
"""

from __future__ import annotations

from clinical_data.sources.mimic_common import STAY_TIMES, linked
from clinical_data.sources.mimic_findings import BEDSIDE_LAG, PROCEDURE_LAG
from clinical_data.sources.mimic_iv_items import CHARTED
from clinical_data.sources.tables import NUMBER, TEXT, TIME, WHOLE, Table

_OWNER = {"subject_id": WHOLE, "hadm_id": WHOLE}
_ED_VITALS = {
    "temperature": NUMBER, "heartrate": NUMBER, "resprate": NUMBER, "o2sat": NUMBER, "sbp": NUMBER, "dbp": NUMBER,
    "pain": TEXT,
}  # fmt: skip

ADMISSIONS = Table(
    "admissions",
    ("hadm_id",),
    {**_OWNER, "admittime": TIME, "dischtime": TIME, "admission_location": TEXT, "edregtime": TIME, "edouttime": TIME,
     "discharge_location": TEXT, "hospital_expire_flag": TEXT},
    ("subject_id", "admittime", "dischtime"),
    ("edregtime", "edouttime", "admission_location", "discharge_location", "hospital_expire_flag"),
)  # fmt: skip

TABLES = (
    ADMISSIONS,
    Table("patients", ("subject_id",),
          {"subject_id": WHOLE, "gender": TEXT, "anchor_age": WHOLE, "anchor_year": WHOLE}),
    Table("d_labitems", ("itemid",), {"itemid": WHOLE, "label": TEXT, "fluid": TEXT}),
    Table("d_items", ("itemid",), {"itemid": WHOLE, "label": TEXT}),
    Table("d_icd_diagnoses", ("icd_code", "icd_version"),
          {"icd_code": TEXT, "icd_version": WHOLE, "long_title": TEXT}),
    Table("diagnoses_icd", ("hadm_id", "seq_num"),
          {**_OWNER, "seq_num": WHOLE, "icd_code": TEXT, "icd_version": WHOLE}, ("icd_code", "icd_version")),
    Table("labevents", ("labevent_id",),
          {"labevent_id": WHOLE, **_OWNER, "itemid": WHOLE, "charttime": TIME, "storetime": TIME, "value": TEXT,
           "valuenum": NUMBER, "valueuom": TEXT, "ref_range_lower": NUMBER, "ref_range_upper": NUMBER, "flag": TEXT,
           "comments": TEXT}, (), ("comments",)),
    Table("microbiologyevents", ("microevent_id",),
          {"microevent_id": WHOLE, **_OWNER, "micro_specimen_id": WHOLE, "chartdate": TIME, "charttime": TIME,
           "spec_type_desc": TEXT, "test_seq": WHOLE, "storedate": TIME, "storetime": TIME, "test_itemid": WHOLE,
           "test_name": TEXT, "org_name": TEXT, "ab_name": TEXT, "interpretation": TEXT, "comments": TEXT},
          ("micro_specimen_id",), ("comments",)),
    Table("prescriptions", (),
          {**_OWNER, "pharmacy_id": WHOLE, "poe_id": TEXT, "starttime": TIME, "drug_type": TEXT, "drug": TEXT,
           "formulary_drug_cd": TEXT, "route": TEXT, "stoptime": TEXT}, ("hadm_id", "drug"),
          ("poe_id", "formulary_drug_cd", "stoptime")),
    Table("pharmacy", ("pharmacy_id",), {"pharmacy_id": WHOLE, "entertime": TIME, "frequency": TEXT}),
    Table("poe", ("poe_id",), {"poe_id": TEXT, "ordertime": TIME}),
    Table("omr", ("subject_id", "chartdate", "seq_num", "result_name"),
          {"subject_id": WHOLE, "chartdate": TIME, "seq_num": WHOLE, "result_name": TEXT, "result_value": TEXT}),
    Table("services", (), {**_OWNER, "transfertime": TIME, "curr_service": TEXT}, ("hadm_id", "curr_service")),
    Table("transfers", ("transfer_id",),
          {**_OWNER, "transfer_id": WHOLE, "eventtype": TEXT, "careunit": TEXT, "intime": TIME}),
    Table("icustays", ("stay_id",), {**_OWNER, "stay_id": WHOLE, "intime": TIME}, ("hadm_id",)),
    Table("procedureevents", (),
          {**_OWNER, "orderid": WHOLE, "itemid": WHOLE, "starttime": TIME, "storetime": TIME}, ("hadm_id", "itemid")),
    Table("inputevents", (),
          {**_OWNER, "orderid": WHOLE, "itemid": WHOLE, "starttime": TIME, "storetime": TIME,
           "ordercategorydescription": TEXT}, (), ("ordercategorydescription",)),
    Table("outputevents", (),
          {**_OWNER, "stay_id": WHOLE, "itemid": WHOLE, "charttime": TIME, "storetime": TIME, "value": NUMBER,
           "valueuom": TEXT}),
    Table("chartevents", (),
          {**_OWNER, "stay_id": WHOLE, "itemid": WHOLE, "charttime": TIME, "storetime": TIME, "value": TEXT,
           "valuenum": NUMBER}, only=("itemid", CHARTED)),
    Table("edstays", ("stay_id",),
          {**_OWNER, "stay_id": WHOLE, "intime": TIME, "outtime": TIME, "arrival_transport": TEXT}, ("intime",),
          ("arrival_transport",)),
    Table("triage", ("stay_id",),
          {"stay_id": WHOLE, **_ED_VITALS, "acuity": NUMBER, "chiefcomplaint": TEXT}, (), ("pain",)),
    Table("vitalsign", (), {"stay_id": WHOLE, "charttime": TIME, **_ED_VITALS, "rhythm": TEXT}, ("stay_id",),
          ("rhythm",)),
    Table("medrecon", (),
          {"stay_id": WHOLE, "charttime": TIME, "name": TEXT, "gsn": TEXT}, ("stay_id", "name"), ("gsn",)),
    Table("pyxis", (), {"stay_id": WHOLE, "charttime": TIME, "name": TEXT, "gsn": TEXT}, ("stay_id", "name"), ("gsn",)),
    Table("diagnosis", ("stay_id", "seq_num"),
          {"stay_id": WHOLE, "seq_num": WHOLE, "icd_code": TEXT, "icd_version": WHOLE, "icd_title": TEXT},
          ("icd_code", "icd_version"), ("icd_title",)),
    Table("radiology", ("note_id",),
          {"note_id": TEXT, **_OWNER, "charttime": TIME, "storetime": TIME, "text": TEXT}),
    Table("radiology_detail", (),
          {"note_id": TEXT, "field_name": TEXT, "field_value": TEXT, "field_ordinal": WHOLE}),
)  # fmt: skip

# A patient comes to the outpatient clinic for decades: measurements of the last year count.
_OUTPATIENT = "INTERVAL 365 DAY"

# One row per admission that can be a case. A row without admission id belongs to the stay in whose time it lies, from
# arrival in the emergency department to discharge, of laboratory and microbiology from a day before (`LOOK_BACK`); the
# later stay where two overlap.
STAYS = f"""
CREATE OR REPLACE TEMP TABLE stays AS
WITH arrival AS (
    SELECT hadm_id, min(intime) AS ed_in, max(outtime) AS ed_out FROM edstays
    WHERE hadm_id IS NOT NULL AND usable(intime) GROUP BY hadm_id
), own AS (
    SELECT a.hadm_id, a.subject_id, CAST(a.hadm_id AS VARCHAR) AS case_key, a.admittime, a.dischtime,
        coalesce(e.ed_in, a.edregtime) AS ed_in,
        CASE WHEN e.ed_in IS NULL THEN a.edouttime ELSE e.ed_out END AS ed_out
    FROM admissions a LEFT JOIN arrival e USING (hadm_id)
    WHERE usable(a.admittime) AND usable(a.dischtime) AND a.dischtime >= a.admittime
), opened AS (
    SELECT *, CASE WHEN usable(ed_in) THEN least(ed_in, admittime) ELSE admittime END AS link_from FROM own
)
{STAY_TIMES}"""

ROOT = """
SELECT s.case_key, s.subject_id, p.gender, a.admission_location,
    CAST(p.anchor_age + year(s.admittime) - p.anchor_year AS BIGINT) AS age,
    minute_of(s.ed_in, s.admittime) AS ed_in, known_by(s.ed_out, s.admittime) AS ed_out,
    minute_of(s.dischtime, s.admittime) AS stay_end
FROM stays s JOIN admissions a USING (hadm_id) LEFT JOIN patients p ON p.subject_id = s.subject_id
"""


def _known(lag: int) -> str:
    """Returns from when a row is known, as its builder reckons it: of several rows of one order the first holds."""
    return f"greatest(charted, coalesce(stored, charted + {lag}))"


_ORDER = "concat_ws('|', p.pharmacy_id, p.drug_type, p.drug, p.formulary_drug_cd)"

# Feed -> query. A name that begins with `truth_` holds recorded answers; no row of it reaches a case.
FEEDS: dict[str, str] = {
    "labevents": f"""
        SELECT l.case_key, l.labevent_id AS row_key, l.itemid, d.label, d.fluid, l.value, l.valuenum, l.valueuom,
            l.ref_range_lower, l.ref_range_upper, l.flag, l.comments, minute_of(l.charttime, l.admittime) AS charted,
            known_by(l.charttime, l.admittime) AS taken, known_by(l.storetime, l.admittime) AS stored
        FROM {linked("labevents", "t.charttime", look_back=True)} l LEFT JOIN d_labitems d ON d.itemid = l.itemid""",
    "microbiologyevents": f"""
        SELECT m.case_key, m.microevent_id, m.micro_specimen_id, m.test_itemid, m.test_seq,
            m.test_name, m.spec_type_desc, m.org_name, m.ab_name,
            m.interpretation, m.comments, minute_of(m.taken_at, m.admittime) AS charted,
            known_by(m.taken_at, m.admittime) AS taken,
            known_by(coalesce(m.storetime, day_end(m.storedate)), m.admittime) AS stored,
            struct_pack(a := m.micro_specimen_id, b := m.test_itemid, c := m.test_seq, d := stored,
                e := m.microevent_id) AS row_key
        FROM (SELECT *, coalesce(charttime, day_end(chartdate)) AS taken_at FROM
            {linked("microbiologyevents", "coalesce(t.charttime, day_end(t.chartdate))", look_back=True)}) m""",
    "prescriptions": f"""
        SELECT s.case_key, {_ORDER} AS row_key, p.drug,
            p.formulary_drug_cd, p.route, x.frequency, coalesce(x.entertime, o.ordertime) AS ordered,
            minute_of(coalesce(p.starttime, ordered), s.admittime) AS charted,
            known_by(greatest(p.starttime, ordered), s.admittime) AS stored
        FROM prescriptions p LEFT JOIN stays s ON s.hadm_id = p.hadm_id
            LEFT JOIN pharmacy x ON x.pharmacy_id = p.pharmacy_id LEFT JOIN poe o ON o.poe_id = p.poe_id
        QUALIFY row_number() OVER (PARTITION BY p.hadm_id, row_key ORDER BY stored, charted, p.route) = 1""",
    "procedureevents": f"""
        SELECT s.case_key, concat_ws('|', p.orderid, p.itemid) AS row_key, p.itemid, d.label,
            minute_of(p.starttime, s.admittime) AS charted, known_by(p.storetime, s.admittime) AS stored
        FROM procedureevents p LEFT JOIN stays s ON s.hadm_id = p.hadm_id LEFT JOIN d_items d ON d.itemid = p.itemid
        QUALIFY row_number() OVER (PARTITION BY p.hadm_id, row_key ORDER BY {_known(PROCEDURE_LAG)}, charted) = 1""",
    "inputevents": f"""
        SELECT s.case_key, concat_ws('|', i.orderid, i.itemid) AS row_key, i.itemid, d.label,
            i.ordercategorydescription AS given, minute_of(i.starttime, s.admittime) AS charted,
            known_by(i.storetime, s.admittime) AS stored
        FROM inputevents i LEFT JOIN stays s ON s.hadm_id = i.hadm_id LEFT JOIN d_items d ON d.itemid = i.itemid
        QUALIFY row_number() OVER (
            PARTITION BY i.hadm_id, row_key ORDER BY {_known(BEDSIDE_LAG)}, charted, given) = 1""",
    "outputevents": """
        SELECT DISTINCT s.case_key, o.stay_id, o.itemid, d.label, o.value, o.valueuom,
            minute_of(o.charttime, s.admittime) AS charted, known_by(o.charttime, s.admittime) AS taken,
            known_by(o.storetime, s.admittime) AS stored,
            struct_pack(a := charted, b := o.itemid, c := o.stay_id, d := stored, e := o.value) AS row_key
        FROM outputevents o LEFT JOIN stays s ON s.hadm_id = o.hadm_id LEFT JOIN d_items d ON d.itemid = o.itemid""",
    "chartevents": """
        SELECT DISTINCT s.case_key, c.stay_id, c.itemid, d.label, c.value, c.valuenum,
            minute_of(c.charttime, s.admittime) AS charted, known_by(c.charttime, s.admittime) AS taken,
            known_by(c.storetime, s.admittime) AS stored,
            struct_pack(a := charted, b := c.itemid, c := c.stay_id, d := stored, e := c.value) AS row_key
        FROM chartevents c LEFT JOIN stays s ON s.hadm_id = c.hadm_id LEFT JOIN d_items d ON d.itemid = c.itemid""",
    "omr": f"""
        SELECT s.case_key, o.seq_num, o.result_name, o.result_value,
            known_by(day_end(o.chartdate), s.admittime) AS charted,
            struct_pack(a := charted, b := o.result_name, c := o.seq_num) AS row_key
        FROM omr o JOIN stays s ON s.subject_id = o.subject_id
            AND o.chartdate >= s.admittime - {_OUTPATIENT} AND o.chartdate <= s.dischtime""",
    "transfers": """
        SELECT s.case_key, t.transfer_id AS row_key, t.careunit, minute_of(t.intime, s.admittime) AS charted,
            known_by(t.intime, s.admittime) AS stored
        FROM transfers t LEFT JOIN stays s ON s.hadm_id = t.hadm_id
        WHERE t.hadm_id IS NOT NULL AND t.eventtype IN ('admit', 'transfer')""",
    "services": """
        SELECT DISTINCT s.case_key, v.curr_service, minute_of(v.transfertime, s.admittime) AS charted,
            known_by(v.transfertime, s.admittime) AS stored, struct_pack(a := charted, b := v.curr_service) AS row_key
        FROM services v LEFT JOIN stays s ON s.hadm_id = v.hadm_id""",
    "icustays": """
        SELECT s.case_key, i.stay_id AS row_key, minute_of(i.intime, s.admittime) AS charted
        FROM icustays i LEFT JOIN stays s ON s.hadm_id = i.hadm_id""",
    "earlier": """
        SELECT s.case_key, e.case_key AS row_key, minute_of(e.admittime, s.admittime) AS charted,
            known_by(e.dischtime, s.admittime) AS ended, minute_of(e.dischtime, e.admittime) AS minutes
        FROM stays s JOIN stays e ON e.subject_id = s.subject_id AND e.admittime < s.admittime
            AND e.hadm_id <> s.hadm_id""",
    "earlier_diagnoses": """
        SELECT s.case_key, concat_ws('|', d.icd_version, trim(d.icd_code)) AS row_key, trim(d.icd_code) AS icd_code,
            d.icd_version, t.long_title, min(known_by(e.dischtime, s.admittime)) AS ended
        FROM stays s JOIN stays e ON e.subject_id = s.subject_id AND e.admittime < s.admittime
                AND e.hadm_id <> s.hadm_id
            JOIN diagnoses_icd d ON d.hadm_id = e.hadm_id
            LEFT JOIN d_icd_diagnoses t ON t.icd_code = trim(d.icd_code) AND t.icd_version = d.icd_version
        GROUP BY s.case_key, trim(d.icd_code), d.icd_version, t.long_title""",
    "edstays": """
        SELECT s.case_key, e.stay_id, e.arrival_transport, minute_of(e.intime, s.admittime) AS charted,
            known_by(e.outtime, s.admittime) AS ed_out, struct_pack(a := charted, b := e.stay_id) AS row_key
        FROM edstays e LEFT JOIN stays s ON s.hadm_id = e.hadm_id WHERE e.hadm_id IS NOT NULL""",
    "triage": """
        SELECT s.case_key, t.* EXCLUDE (acuity), minute_of(e.intime, s.admittime) AS charted,
            known_by(e.intime, s.admittime) AS stored, struct_pack(a := charted, b := t.stay_id) AS row_key
        FROM triage t JOIN edstays e USING (stay_id) JOIN stays s ON s.hadm_id = e.hadm_id""",
    "vitalsign": """
        SELECT DISTINCT s.case_key, v.* EXCLUDE (charttime), minute_of(v.charttime, s.admittime) AS charted,
            known_by(v.charttime, s.admittime) AS stored,
            struct_pack(a := charted, b := v.stay_id, c := v.temperature, d := v.heartrate, e := v.resprate,
                f := v.o2sat, g := v.sbp, h := v.dbp, i := v.pain, j := v.rhythm) AS row_key
        FROM vitalsign v JOIN edstays e USING (stay_id) JOIN stays s ON s.hadm_id = e.hadm_id""",
    "medrecon": """
        SELECT s.case_key, concat_ws('|', m.stay_id, m.name) AS row_key, m.stay_id, m.name, m.gsn,
            minute_of(m.charttime, s.admittime) AS charted, known_by(m.charttime, s.admittime) AS stored
        FROM medrecon m JOIN edstays e USING (stay_id) JOIN stays s ON s.hadm_id = e.hadm_id
        QUALIFY row_number() OVER (PARTITION BY m.stay_id, m.name ORDER BY m.charttime, m.gsn) = 1""",
    "pyxis": """
        SELECT s.case_key, p.stay_id, p.name, min(p.gsn) AS gsn, minute_of(p.charttime, s.admittime) AS charted,
            known_by(p.charttime, s.admittime) AS stored,
            struct_pack(a := charted, b := p.stay_id, c := p.name) AS row_key
        FROM pyxis p JOIN edstays e USING (stay_id) JOIN stays s ON s.hadm_id = e.hadm_id
        GROUP BY s.case_key, s.admittime, p.stay_id, p.name, p.charttime""",
    "radiology": f"""
        SELECT r.case_key, r.note_id AS row_key, r.text, x.exam, minute_of(r.charttime, r.admittime) AS charted,
            known_by(r.charttime, r.admittime) AS taken, known_by(r.storetime, r.admittime) AS stored
        FROM {linked("radiology", "t.charttime")} r LEFT JOIN (
            SELECT note_id, arg_min(field_value, field_ordinal) AS exam FROM radiology_detail
            WHERE field_name = 'exam_name' GROUP BY note_id) x ON x.note_id = r.note_id""",
    "truth_cancelled": f"""
        SELECT s.case_key, {_ORDER} AS row_key
        FROM prescriptions p JOIN stays s ON s.hadm_id = p.hadm_id GROUP BY s.case_key, row_key
        HAVING bool_and(coalesce(try_cast(p.stoptime AS TIMESTAMP) <= p.starttime, false))""",
    "truth_outcome": """
        SELECT s.case_key, a.hadm_id AS row_key, a.discharge_location, a.hospital_expire_flag
        FROM admissions a JOIN stays s USING (hadm_id)""",
    "truth_diagnoses": """
        SELECT s.case_key, d.seq_num AS row_key, trim(d.icd_code) AS icd_code, d.icd_version, t.long_title
        FROM diagnoses_icd d JOIN stays s ON s.hadm_id = d.hadm_id
            LEFT JOIN d_icd_diagnoses t ON t.icd_code = trim(d.icd_code) AND t.icd_version = d.icd_version""",
    "truth_ed_diagnoses": """
        SELECT s.case_key, e.stay_id, trim(d.icd_code) AS icd_code, d.icd_version, d.icd_title AS long_title,
            struct_pack(a := minute_of(e.intime, s.admittime), b := e.stay_id) AS row_key
        FROM diagnosis d JOIN edstays e USING (stay_id) JOIN stays s ON s.hadm_id = e.hadm_id WHERE d.seq_num = 1""",
    "truth_acuity": """
        SELECT s.case_key, e.stay_id, t.acuity,
            struct_pack(a := minute_of(e.intime, s.admittime), b := e.stay_id) AS row_key
        FROM triage t JOIN edstays e USING (stay_id) JOIN stays s ON s.hadm_id = e.hadm_id""",
}
