"""A small eICU folder with every table, hidden columns and tables filled with canaries."""

import gzip
import re
from pathlib import Path

EXAM = "notes/Progress Notes/Physical Exam/Physical Exam/"
PAST = "notes/Progress Notes/Past History/"
NOTE = "notes/Progress Notes/"
SOCIAL = f"{NOTE}Social History / Family History/"
BREATH = f"{NOTE}Review Of Systems/Systems/Pulmonary/Shortness of Breath/shortness of breath"
CARE = "flowsheet|Flowsheet Cell Labels|Nursing Care|"
DX = "admission diagnosis|All Diagnosis|Non-operative|Diagnosis|Cardiovascular|Sepsis, pulmonary"

PATIENT = (
    "patientunitstayid,patienthealthsystemstayid,gender,age,ethnicity,hospitalid,apacheadmissiondx,hospitaldischargelocation,"
    "hospitaldischargestatus,unittype,unitadmitsource,unitvisitnumber,dischargeweight,unitdischargeoffset,"
    "unitdischargelocation,unitdischargestatus,uniquepid"
)
TABLES = {
    "patient": [
        PATIENT,
        "1001,1,Male,> 89,CANARYETH,5,CANARYDX,CANARYLOC,Expired,MICU,Emergency Department,2,55,3000,Death,,002-1",
        "201,2,Female,54,,5,CANARYDX,Home,Alive,MICU,Floor,1,,400,Home,Alive,002-2",
        "1002,3,,,,6,,,,SICU,,1,,9000,Floor,Alive,002-1",
    ],
    "pastHistory": [
        "pasthistoryid,patientunitstayid,pasthistoryoffset,pasthistoryenteredoffset,pasthistorynotetype,pasthistorypath,"
        "pasthistoryvalue,pasthistoryvaluetext",
        f"1,1001,10,20,x,{PAST}Past History Obtain Options/Performed,Performed,Performed",
        f"2,1001,10,20,x,{PAST}Organ Systems/Cardiovascular (R)/Congestive Heart Failure/CHF,CHF,CHF",
        f"3,1001,10,20,x,{PAST}Organ Systems/Hematology/Oncology (R)/Cancer/Cancer-Primary Site/lung,lung,lung",
        f"4,201,10,20,x,{PAST}Past History Obtain Options/No Health Problems,No Health Problems,NoHealthProblems",
    ],
    "physicalExam": [
        "physicalexamid,patientunitstayid,physicalexamoffset,physicalexampath,physicalexamvalue,physicalexamtext",
        f"1,1001,30,{EXAM}Constitutional/Vital Sign and Physiological Data/HR/HR Current,HR Current,112",
        f"2,1001,30,{EXAM}Neurologic/GCS/Eyes Score/4,4,4",
        f"3,1001,30,{EXAM}Cardiovascular/Pulses/Dorsalis pedis/L/reduced,reduced,reduced",
        f'4,1001,30,"{EXAM}Skin/Print ""within normal limits""/within normal limits",within normal limits,',
        f"5,1001,30,{NOTE}Physical Exam/Physical Exam Obtain Options/Performed - Structured,Performed - Structured,",
        f"6,201,30,{EXAM}Neurologic/GCS/15,15,15",
    ],
    "note": [
        "noteid,patientunitstayid,noteoffset,noteenteredoffset,notetype,notepath,notevalue,notetext",
        f"1,1001,30,75,x,{SOCIAL}Social History/Social History/Smoking Status/denies smoking,denies smoking,x",
        f"2,1001,30,75,x,{BREATH},shortness of breath,x",
        f"3,1001,30,75,x,{SOCIAL}Family History/Family History/CAD/CAD,CAD,CAD",
        f"4,1001,30,75,x,{NOTE}Interventions/CANARYINT/a,CANARYINT,CANARYINT",
        f"5,1001,30,75,x,{NOTE}Assessment and Plan/CANARYAP,CANARYAP,CANARYAP",
        "6,1001,30,75,x,notes/Procedure Notes/Intubation/Indication/CANARYIND,CANARYIND,CANARYIND",
    ],
    "lab": [
        "labid,patientunitstayid,labresultoffset,labtypeid,labname,labresult,labresulttext,labmeasurenamesystem,"
        "labmeasurenameinterface,labresultrevisedoffset",
        "1,1001,100,1,sodium,131,131,mmol/L,x,140",
        "2,1001,200,1,troponin - I,0.04,<0.04,ng/mL,x,",
        "3,1001,350,1,creatinine,2.5,2.5,mg/dL,x,500",
    ],
    "admissiondrug": [
        "admissiondrugid,patientunitstayid,drugoffset,drugenteredoffset,drugname,drugdosage,drugunit,drugadmitfrequency",
        "1,1001,5,40,METOPROLOL   ,25.0000,mg,twice a day",
        "2,1001,5,40,COLACE,0.0000, , ",
    ],
    "allergy": [
        "allergyid,patientunitstayid,allergyoffset,allergyenteredoffset,allergytype,allergyname",
        "1,1001,5,41,Drug,PENICILLINS",
    ],
    "vitalAperiodic": [
        "vitalaperiodicid,patientunitstayid,observationoffset,noninvasivesystolic,noninvasivediastolic,noninvasivemean",
        "1,1001,7,124,71,85",
        "2,1001,9,,,",
    ],
    "respiratoryCharting": [
        "respchartid,patientunitstayid,respchartoffset,respchartentryoffset,respcharttypecat,respchartvaluelabel,respchartvalue",
        "1,1001,7,12,x,FiO2,40",
        "2,1001,7,12,x,ETT Peptic Ulcer Prophylaxis,CANARYVAP",
    ],
    "nurseAssessment": [
        "nurseassessid,patientunitstayid,nurseassessoffset,nurseassessentryoffset,cellattributepath,cellattributevalue",
        "1,1001,7,13,flowsheet|Flowsheet Cell Labels|Nursing Assessment|Neurologic|Neurologic|LOC,lethargic",
        "2,1001,7,13,flowsheet|Flowsheet Cell Labels|Nursing Assessment|Scores|Intervention|Interventions,CANARYNURSE",
    ],
    "microLab": [
        "microlabid,patientunitstayid,culturetakenoffset,culturesite,organism,antibiotic,sensitivitylevel",
        '1,1001,60,"Blood, Venipuncture",Escherichia coli,ciprofloxacin,Resistant',
    ],
    "treatment": [
        "treatmentid,patientunitstayid,treatmentoffset,treatmentstring,activeupondischarge",
        "1,1001,90,burns/trauma|trauma|CT scan|head,CANARYACTIVE",
        "2,1001,95,cardiovascular|consultations|Cardiology consultation,CANARYACTIVE",
        "3,1001,96,pulmonary|medications|antibacterials|cefepime,CANARYACTIVE",
        "4,1001,700,cardiovascular|non-operative procedures|diagnostic ultrasound of heart,CANARYACTIVE",
    ],
    "infusiondrug": [
        "infusiondrugid,patientunitstayid,infusionoffset,drugname,drugrate",
        "1,1001,97,Norepinephrine (mcg/min),5.5",
    ],
    "medication": [
        "medicationid,patientunitstayid,drugorderoffset,drugstartoffset,drugordercancelled,drugname,drughiclseqno,"
        "routeadmin,frequency,prn,drugstopoffset",
        "1,1001,98,50,CANARYCANCEL,ASPIRIN 81 MG,CANARYHICL,PO,Daily,No,987654",
        "2,1001,99,99,CANARYCANCEL,MORPHINE,CANARYHICL,IV,Q4H,Yes,987654",
        "3,1001,1500,1510,CANARYCANCEL,CEFTRIAXONE 1 G,CANARYHICL,IV,Daily,No,987654",
        "4,1001,1520,1520,CANARYCANCEL,FUROSEMIDE 40 MG,CANARYHICL,IV,Daily,No,987654",
    ],
    "admissionDx": [
        "admissiondxid,patientunitstayid,admitdxenteredoffset,admitdxpath,admitdxname,admitdxtext",
        '1,1001,12,admission diagnosis|Elective|Yes,"Yes",Yes',
        f'2,1001,12,"{DX}",CANARYNAME,CANARYNAME',
        "3,201,372,admission diagnosis|All Diagnosis|Operative|Diagnosis|Trauma|Head only trauma,a,b",
    ],
    "diagnosis": [
        "diagnosisid,patientunitstayid,activeupondischarge,diagnosisoffset,diagnosisstring,icd9code,diagnosispriority",
        '1,1001,True,500,CANARY|pulmonary|pneumonia,"486, J18.9",Primary',
        "5,1001,False,20,CANARY|cardiovascular|heart failure,428.0,Major",
        "6,1001,False,700,CANARY|cardiovascular|heart failure,428.0,Primary",
        "7,1001,False,1441,CANARY|renal|late,584.9,Major",
        "2,1001,False,10,CANARY|other,1,Primary",
        "3,201,True,10,CANARY|a,1,Primary",
        "4,201,True,20,CANARY|b,1,Primary",
    ],
    "customLab": [
        "customlabid,patientunitstayid,labotheroffset,labothertypeid,labothername,labotherresult,labothervaluetext",
        "1,1001,110,1,Pro BNP,127.0000,127",
        "2,1001,110,1,GFR,,>60",
        "3,1001,110,1,Influenza A,,",
    ],
    "nurseCare": [
        "nursecareid,patientunitstayid,celllabel,nursecareoffset,nursecareentryoffset,cellattributepath,cellattribute,"
        "cellattributevalue",
        f"1,1001,x,20,25,{CARE}Respiratory|Airway Type|Airway Type,x,Oral ETT",
        f"2,1001,x,20,25,{CARE}Respiratory|Treatments|Treatments,x,S = Suctioning",
        f"3,1001,x,20,25,{CARE}Safety|Safety|Precautions,x,CANARYSEIZURE",
    ],
    "respiratoryCare": [
        "respcareid,patientunitstayid,respcarestatusoffset,airwaytype,ventstartoffset,ventendoffset,priorventendoffset",
        "1,1001,40,Oral ETT,-300,876543,876543",
        "2,1001,50,Oral ETT,-300,876543,876543",
        "3,1001,60,,0,0,876543",
        "4,1001,70,Tracheostomy,0,0,0",
    ],
    "carePlanGeneral": [
        "cplgeneralid,patientunitstayid,activeupondischarge,cplitemoffset,cplgroup,cplitemvalue",
        "1,1001,CANARYACTIVE,49,Ventilation,Spontaneous - tenuous",
        "2,1001,CANARYACTIVE,49,Airway,Not intubated/normal airway",
        "3,1001,CANARYACTIVE,49,Care Limitation,Do not resuscitate",
        "4,1001,CANARYACTIVE,49,Critical Care Discharge/Transfer Planning,CANARYPLAN",
        "5,1001,CANARYACTIVE,50,Airway,",
    ],
    "carePlanCareProvider": [
        "cplcareprovderid,patientunitstayid,careprovidersaveoffset,providertype,specialty,activeupondischarge",
        "1,1001,26,,cardiology,CANARYACTIVE",
        "2,1001,26,,,CANARYACTIVE",
    ],
    "vitalPeriodic": [
        "vitalperiodicid,patientunitstayid,observationoffset,temperature,sao2,heartrate,respiration,cvp,etco2,"
        "systemicsystolic,systemicdiastolic,systemicmean,pasystolic,padiastolic,pamean,st1,st2,st3,icp",
        "1,1001,2,,97,88,20,,,,,,,,,,,,",
        "2,1001,7,37.2,96,99,21,,,,,,,,,,,,",
        "3,1001,62,,95,101,22,,,,,,,,,,,,",
        "4,1001,1501,,94,77,,,,,,,,,,,,,",
        "5,1001,1701,,93,66,,,,,,,,,,,,,",
    ],
    "nurseCharting": [
        "nursingchartid,patientunitstayid,nursingchartoffset,nursingchartentryoffset,nursingchartcelltypecat,"
        "nursingchartcelltypevallabel,nursingchartcelltypevalname,nursingchartvalue",
        "1,1001,10,200,Vital Signs,Heart Rate,Heart Rate,110",
        "2,1001,20,30,Vital Signs,Heart Rate,Heart Rate,111",
        "3,1001,20,30,Scores,Glasgow coma score,GCS Total,14",
        "4,1001,20,30,Scores,Pain Score/Goal,Pain Score,3",
        "5,1001,20,30,Scores,Pain Score/Goal,Pain Goal,CANARYGOALS",
        "6,1001,20,30,Vital Signs,O2 Admin Device,O2 Admin Device,nasal cannula",
        "7,1001,70,,Vital Signs,Heart Rate,Heart Rate,112",
    ],
    "intakeOutput": [
        "intakeoutputid,patientunitstayid,intakeoutputoffset,intaketotal,outputtotal,dialysistotal,nettotal,"
        "intakeoutputentryoffset,cellpath,celllabel,cellvaluenumeric,cellvaluetext",
        "1,1001,60,765432,765432,765432,765432,65,flowsheet|Flowsheet Cell Labels|I&O|Output (ml)|Urine,Urine,150,150",
        "2,1001,60,765432,765432,765432,765432,65,flowsheet|Flowsheet Cell Labels|I&O|Intake (ml)|P.O.,CANARYIN,9,9",
    ],
    "hospital": ["hospitalid,numbedscategory,teachingstatus,region", "5,100 - 249,t,Midwest"],
    "carePlanEOL": ["cpleolid,patientunitstayid,cpleolsaveoffset", "1,1001,654321"],
    "carePlanGoal": ["cplgoalid,patientunitstayid,cplgoalvalue", "1,1001,CANARYGOAL"],
    "carePlanInfectiousDisease": ["cplinfectid,patientunitstayid,infectdiseasesite", "1,1001,CANARYINFECT"],
    "apachePredVar": ["apachepredvarid,patientunitstayid,admitdiagnosis", "1,1001,CANARYPRED"],
}


def write_folder(folder, tables=TABLES, *, bom=False, newline="\n", packed=()):
    folder.mkdir(exist_ok=True)
    for name, lines in tables.items():
        data = (newline.join(lines) + newline).encode("utf-8-sig" if bom else "utf-8")
        if name in packed:
            (folder / f"{name}.csv.gz").write_bytes(gzip.compress(data))
        else:
            (folder / f"{name}.csv").write_bytes(data)
    return folder


def changed(**tables):
    """Returns the tables with some of them replaced."""
    return {**TABLES, **tables}


def write(folder: Path, canary: str = "zugzwang") -> Path:
    """Writes the folder with `canary` in every hidden place, and a lab row whose value is no number; returns it."""
    lab = [*TABLES["lab"], "4,1001,100,1,sodium,xylopyrography,xylopyrography,mmol/L,x,140"]
    tables = {n: [re.sub(r"CANARY[A-Z]*", canary, line) for line in lines] for n, lines in changed(lab=lab).items()}
    return write_folder(folder, tables)
