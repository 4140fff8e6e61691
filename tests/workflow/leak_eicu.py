"""The raw records of eICU and MEDS for the leak tests, with rows before, across and after every clock."""

from __future__ import annotations

import csv
import re

import leak_records  # noqa: F401  makes the importers' own records importable
import records_eicu as eicu
from leak_mimic import AROUND
from leak_tables import CULTURE, DAY, Row, TableRecord, Tables, Times, write_csv

STAY, END = "1001", 3000
CLOCKS = {
    "admission_diagnosis": 360,
    "differential": 360,
    "workup": 360,
    "result_update": 600,
    "treatment": DAY,
    "disposition": DAY,
    "discharge_diagnosis": END,
}
COLUMNS = {name: tuple(next(csv.reader(lines[:1]))) for name, lines in eicu.TABLES.items()}
_LABS = ("sodium", "creatinine", "lactate", "WBC x 1000", "PT - INR", "lipase")
_PAST = f"{eicu.PAST}Organ Systems/"


def eicu_tables(word: str = "plain") -> Tables:
    """The importer's own small record, and around each clock of the stay a row of every kind that has two times."""
    tables: Tables = {}
    for name, lines in eicu.TABLES.items():
        told = [re.sub(r"CANARY[A-Z]*", word, line) for line in lines]
        tables[name] = [dict(row) for row in csv.DictReader(told)]
    for number, clock in enumerate(sorted(set(CLOCKS.values()))):
        for place, (taken, entered) in enumerate(AROUND):
            _around(tables, str(100 + 10 * number + place), place, str(clock + taken), str(clock + entered))
        for place, taken in enumerate((-CULTURE - 5, -CULTURE + 10, -10, 5)):
            site = ("Urine, Catheter Specimen", "Sputum, Expectorated", "CSF", "Blood, Venipuncture")[place]
            tables["microLab"].append(
                {"microlabid": str(100 + 10 * number + place), "patientunitstayid": STAY, "organism": "Proteus",
                 "culturetakenoffset": str(clock + taken), "culturesite": site, "antibiotic": "cefepime",
                 "sensitivitylevel": "Sensitive"}
            )  # fmt: skip
    return tables


def _around(tables: Tables, key: str, place: int, taken: str, entered: str) -> None:
    def put(table: str, **values: str) -> None:
        tables[table].append({COLUMNS[table][0]: key, "patientunitstayid": STAY, **values})

    put("lab", labresultoffset=taken, labname=_LABS[int(key) % 6], labresult="7.5", labresulttext="7.5",
        labmeasurenamesystem="mmol/L", labresultrevisedoffset=entered)  # fmt: skip
    put("customLab", labotheroffset=taken, labothername="Pro BNP", labotherresult="99", labothervaluetext="99")
    path = f"{_PAST}{('Renal (R)/Renal Failure/', 'Pulmonary/Asthma/')[place % 2]}renal failure - {key}"
    put("pastHistory", pasthistoryoffset=taken, pasthistoryenteredoffset=entered, pasthistorypath=path,
        pasthistoryvalue=f"renal failure - {key}")  # fmt: skip
    put("note", noteoffset=taken, noteenteredoffset=entered, notepath=eicu.BREATH, notevalue="shortness of breath")
    put("physicalExam", physicalexamoffset=taken, physicalexamvalue="rales",
        physicalexampath=f"{eicu.EXAM}Pulmonary/Auscultation/Rales/rales", physicalexamtext="rales")  # fmt: skip
    put("admissiondrug", drugoffset=taken, drugenteredoffset=entered, drugname=f"DRUG {key}")
    put("allergy", allergyoffset=taken, allergyenteredoffset=entered, allergytype="Drug", allergyname=f"ALLERGY {key}")
    put("vitalAperiodic", observationoffset=taken, noninvasivesystolic=f"1{key}", noninvasivediastolic="60")
    put("vitalPeriodic", observationoffset=taken, heartrate=f"{key}", sao2="95")
    put("respiratoryCharting", respchartoffset=taken, respchartentryoffset=entered, respchartvaluelabel="FiO2",
        respchartvalue="50")  # fmt: skip
    put("nurseAssessment", nurseassessoffset=taken, nurseassessentryoffset=entered, cellattributevalue="alert",
        cellattributepath="flowsheet|Flowsheet Cell Labels|Nursing Assessment|Neurologic|Neurologic|LOC")  # fmt: skip
    put("nurseCharting", nursingchartoffset=taken, nursingchartentryoffset=entered, nursingchartvalue=key,
        nursingchartcelltypevallabel="Heart Rate", nursingchartcelltypevalname="Heart Rate")  # fmt: skip
    put("intakeOutput", intakeoutputoffset=taken, intakeoutputentryoffset=entered, cellvaluenumeric=key,
        cellpath="flowsheet|Flowsheet Cell Labels|I&O|Output (ml)|Urine")  # fmt: skip
    put("medication", drugorderoffset=entered, drugstartoffset=taken, drugname=f"DRUG {key}", routeadmin="IV",
        frequency="Daily", prn="No")  # fmt: skip
    put("treatment", treatmentoffset=taken, treatmentstring="burns/trauma|trauma|CT scan|abdomen")
    put("respiratoryCare", respcarestatusoffset=taken, airwaytype="Oral ETT", ventstartoffset=entered)


def _note_entered(row: Row, tables: Tables) -> str:
    """When an examination was entered: with its note, which has the same time."""
    entered = [
        int(note["noteenteredoffset"])
        for note in tables["note"]
        if (note["patientunitstayid"], note["noteoffset"]) == (row["patientunitstayid"], row["physicalexamoffset"])
    ]
    return str(max(entered)) if entered else ""


_CARE_SHOWN = ("Airway", "Ventilation", "Care Limitation")
_LATE_LAB = ("labresult", "labresulttext", "labmeasurenamesystem")

EICU = TableRecord(
    source="eicu",
    source_id=STAY,
    clocks=CLOCKS,
    origin=None,
    tables=eicu_tables,
    columns=COLUMNS,
    owners=frozenset({"patientunitstayid", "hospitalid", "admissiondxid", "diagnosisid"}),
    save=lambda folder, tables: write_csv(folder, tables, COLUMNS),
    times={
        "pastHistory": Times(("pasthistoryoffset",), ("pasthistoryenteredoffset",), key="pasthistoryid"),
        "physicalExam": Times(("physicalexamoffset",), (), 317, key="physicalexamid",
                              deeds=("alter", "delete", "add")),
        "note": Times(("noteoffset",), ("noteenteredoffset",), key="noteid", deeds=("alter", "add")),
        "lab": Times(("labresultoffset",), ("labresultrevisedoffset",), 240, _LATE_LAB, "labid"),
        "customLab": Times(("labotheroffset",), (), 240, ("labotherresult", "labothervaluetext"), "customlabid"),
        "admissiondrug": Times(("drugoffset",), ("drugenteredoffset",), key="admissiondrugid"),
        "allergy": Times(("allergyoffset",), ("allergyenteredoffset",), key="allergyid"),
        "vitalAperiodic": Times(("observationoffset",), key="vitalaperiodicid"),
        "vitalPeriodic": Times(("observationoffset",), key="vitalperiodicid"),
        "respiratoryCharting": Times(("respchartoffset",), ("respchartentryoffset",), key="respchartid"),
        "respiratoryCare": Times(("respcarestatusoffset",), key="respcareid"),
        "nurseAssessment": Times(("nurseassessoffset",), ("nurseassessentryoffset",), key="nurseassessid"),
        "nurseCare": Times(("nursecareoffset",), ("nursecareentryoffset",), key="nursecareid"),
        "nurseCharting": Times(("nursingchartoffset",), ("nursingchartentryoffset",), key="nursingchartid"),
        "intakeOutput": Times(("intakeoutputoffset",), ("intakeoutputentryoffset",), key="intakeoutputid"),
        "carePlanGeneral": Times(("cplitemoffset",), key="cplgeneralid"),
        "carePlanCareProvider": Times(("careprovidersaveoffset",), key="cplcareprovderid"),
        "microLab": Times(("culturetakenoffset",), (), CULTURE, ("organism", "antibiotic", "sensitivitylevel"),
                          "microlabid"),
        "treatment": Times(("treatmentoffset",), key="treatmentid"),
        "infusiondrug": Times(("infusionoffset",), key="infusiondrugid"),
        "medication": Times(("drugstartoffset",), ("drugorderoffset",), key="medicationid"),
    },
    typed=frozenset({"admitdxenteredoffset", "diagnosisoffset"}),
    own_known={"physicalExam": _note_entered},
    frames={("admissionDx", "admitdxpath"):
            "admission diagnosis|All Diagnosis|Non-operative|Diagnosis|Cardiovascular|{}"},
    future=(("patient", "unitdischargeoffset"),),
    visible={
        "patient": ("gender", "age", "unittype", "unitadmitsource", "unitvisitnumber", "unitdischargeoffset",
                    "uniquepid"),
        "pastHistory": ("pasthistoryoffset", "pasthistoryenteredoffset", "pasthistorypath", "pasthistoryvalue"),
        "physicalExam": COLUMNS["physicalExam"],
        "note": ("noteoffset", "noteenteredoffset", "notepath", "notevalue"),
        "lab": ("labresultoffset", "labresultrevisedoffset", "labname", *_LATE_LAB),
        "customLab": ("labotheroffset", "labothername", "labotherresult", "labothervaluetext"),
        "admissiondrug": ("drugoffset", "drugenteredoffset", "drugname", "drugdosage", "drugunit",
                          "drugadmitfrequency"),
        "allergy": COLUMNS["allergy"],
        "vitalAperiodic": COLUMNS["vitalAperiodic"],
        "vitalPeriodic": ("observationoffset", "temperature", "sao2", "heartrate", "respiration", "cvp",
                          "systemicsystolic", "systemicdiastolic", "systemicmean", "icp"),
        "respiratoryCharting": ("respchartoffset", "respchartentryoffset", "respchartvaluelabel", "respchartvalue"),
        "respiratoryCare": ("respcarestatusoffset", "airwaytype", "ventstartoffset"),
        "nurseAssessment": COLUMNS["nurseAssessment"],
        "nurseCare": ("nursecareoffset", "nursecareentryoffset", "cellattributepath", "cellattributevalue"),
        "nurseCharting": ("nursingchartoffset", "nursingchartentryoffset", "nursingchartcelltypevallabel",
                          "nursingchartcelltypevalname", "nursingchartvalue"),
        "intakeOutput": ("intakeoutputoffset", "intakeoutputentryoffset", "cellpath", "cellvaluenumeric"),
        "carePlanGeneral": ("cplitemoffset", "cplgroup", "cplitemvalue"),
        "carePlanCareProvider": ("careprovidersaveoffset", "specialty"),
        "microLab": COLUMNS["microLab"],
        "treatment": ("treatmentoffset", "treatmentstring"),
        "infusiondrug": ("infusionoffset", "drugname", "drugrate"),
        "medication": ("drugorderoffset", "drugstartoffset", "drugname", "routeadmin", "frequency", "prn"),
        "hospital": ("numbedscategory", "teachingstatus", "region"),  # attributes of a case, shown to no step
    },
    hidden_rows={
        "note": (lambda row: not re.search("Social History|Family History|Review Of Systems", row["notepath"]),
                 ("notevalue",)),
        "carePlanGeneral": (lambda row: row["cplgroup"] not in _CARE_SHOWN, ("cplitemvalue",)),
        "nurseCharting": (lambda row: row["nursingchartcelltypevalname"] == "Pain Goal", ("nursingchartvalue",)),
        "respiratoryCharting": (lambda row: "Prophylaxis" in row["respchartvaluelabel"], ("respchartvalue",)),
        "nurseAssessment": (lambda row: "Intervention" in row["cellattributepath"], ("cellattributevalue",)),
        "nurseCare": (lambda row: "Precautions" in row["cellattributepath"], ("cellattributevalue",)),
    },
)  # fmt: skip
