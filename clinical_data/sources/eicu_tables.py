"""What is read of an eICU folder: the allow-list of columns, and the queries that hand rows out stay by stay.

A column that tells the future of its row (activeupondischarge of a chart row, drugstopoffset, ventendoffset) is not
read at all. Tables that hold answers (apache*, carePlanGoal, carePlanInfectiousDisease, carePlanEOL) are not read
either. Where patient.csv holds an answer (where the patient went), or medication.csv what only a label may know
(drugordercancelled), the column goes to a feed of its own and never into the row that a case is built from.

Two tables of the full eICU are too large for a chart: monitors file every five minutes, nurses every few. Of these the
first value of each hour is kept, after the first day that of each six hours: the first that could be known, so that a
later one changes nothing before it.
"""

from __future__ import annotations

from dataclasses import replace

from clinical_data.sources.tables import NUMBER, TEXT, WHOLE, Table, quoted

STAY = "patientunitstayid"
OFFSET = "INTEGER"  # minutes; one that is longer than any life is no time of a stay


def _table(name: str, key: str, needed: tuple[str, ...] = (), optional: tuple[str, ...] = (), **columns: str) -> Table:
    return Table(name, (key,), {key: WHOLE, STAY: WHOLE, **columns}, (STAY, *needed), optional)


PATIENT = _table(
    "patient", STAY, ("uniquepid",), uniquepid=TEXT, gender=TEXT, age=TEXT, hospitalid=TEXT, unittype=TEXT,
    unitadmitsource=TEXT, unitvisitnumber=WHOLE, unitdischargeoffset=OFFSET, unitdischargelocation=TEXT,
    unitdischargestatus=TEXT,
)  # fmt: skip
_OF_A_CASE = (
    "uniquepid", "gender", "age", "hospitalid", "unittype", "unitadmitsource", "unitvisitnumber", "unitdischargeoffset",
)  # fmt: skip
_OF_TRUTH = ("unitdischargeoffset", "unitdischargelocation", "unitdischargestatus")

HOSPITAL = Table(
    "hospital", ("hospitalid",), {"hospitalid": TEXT, "numbedscategory": TEXT, "teachingstatus": TEXT, "region": TEXT}
)

# What may become part of a case.
CASE_TABLES = (
    _table("pastHistory", "pasthistoryid", ("pasthistoryoffset", "pasthistorypath"), pasthistoryoffset=OFFSET,
           pasthistoryenteredoffset=OFFSET, pasthistorypath=TEXT, pasthistoryvalue=TEXT),
    _table("physicalExam", "physicalexamid", ("physicalexamoffset", "physicalexampath"), physicalexamoffset=OFFSET,
           physicalexampath=TEXT, physicalexamvalue=TEXT, physicalexamtext=TEXT),
    _table("note", "noteid", ("noteoffset", "notepath"), noteoffset=OFFSET, noteenteredoffset=OFFSET, notepath=TEXT,
           notevalue=TEXT),
    _table("lab", "labid", ("labresultoffset", "labname"), labresultoffset=OFFSET, labresultrevisedoffset=OFFSET,
           labname=TEXT, labresult=NUMBER, labresulttext=TEXT, labmeasurenamesystem=TEXT),
    _table("customLab", "customlabid", ("labotheroffset", "labothername"), labotheroffset=OFFSET, labothername=TEXT,
           labotherresult=NUMBER, labothervaluetext=TEXT),
    _table("admissiondrug", "admissiondrugid", ("drugoffset",), drugoffset=OFFSET, drugenteredoffset=OFFSET,
           drugname=TEXT, drugdosage=NUMBER, drugunit=TEXT, drugadmitfrequency=TEXT),
    _table("allergy", "allergyid", ("allergyoffset",), allergyoffset=OFFSET, allergyenteredoffset=OFFSET,
           allergytype=TEXT, allergyname=TEXT),
    _table("vitalAperiodic", "vitalaperiodicid", ("observationoffset",), observationoffset=OFFSET,
           noninvasivesystolic=NUMBER, noninvasivediastolic=NUMBER, noninvasivemean=NUMBER),
    _table("vitalPeriodic", "vitalperiodicid", ("observationoffset",), observationoffset=OFFSET, temperature=NUMBER,
           sao2=NUMBER, heartrate=NUMBER, respiration=NUMBER, cvp=NUMBER, systemicsystolic=NUMBER,
           systemicdiastolic=NUMBER, systemicmean=NUMBER, icp=NUMBER),
    _table("nurseCharting", "nursingchartid", ("nursingchartoffset", "nursingchartcelltypevallabel"),
           nursingchartoffset=OFFSET, nursingchartentryoffset=OFFSET, nursingchartcelltypevallabel=TEXT,
           nursingchartcelltypevalname=TEXT, nursingchartvalue=TEXT),
    _table("nurseAssessment", "nurseassessid", ("nurseassessoffset", "cellattributepath"), nurseassessoffset=OFFSET,
           nurseassessentryoffset=OFFSET, cellattributepath=TEXT, cellattributevalue=TEXT),
    _table("nurseCare", "nursecareid", ("nursecareoffset", "cellattributepath"), nursecareoffset=OFFSET,
           nursecareentryoffset=OFFSET, cellattributepath=TEXT, cellattributevalue=TEXT),
    _table("intakeOutput", "intakeoutputid", ("intakeoutputoffset", "cellpath"), intakeoutputoffset=OFFSET,
           intakeoutputentryoffset=OFFSET, cellpath=TEXT, cellvaluenumeric=NUMBER),
    _table("respiratoryCharting", "respchartid", ("respchartoffset", "respchartvaluelabel"), respchartoffset=OFFSET,
           respchartentryoffset=OFFSET, respchartvaluelabel=TEXT, respchartvalue=TEXT),
    _table("respiratoryCare", "respcareid", ("respcarestatusoffset",), respcarestatusoffset=OFFSET, airwaytype=TEXT,
           ventstartoffset=OFFSET),
    _table("carePlanGeneral", "cplgeneralid", ("cplitemoffset", "cplgroup"), cplitemoffset=OFFSET, cplgroup=TEXT,
           cplitemvalue=TEXT),
    _table("carePlanCareProvider", "cplcareprovderid", ("careprovidersaveoffset",), careprovidersaveoffset=OFFSET,
           specialty=TEXT),
    _table("microLab", "microlabid", ("culturetakenoffset", "culturesite"), culturetakenoffset=OFFSET, culturesite=TEXT,
           organism=TEXT, antibiotic=TEXT, sensitivitylevel=TEXT),
    _table("treatment", "treatmentid", ("treatmentoffset", "treatmentstring"), treatmentoffset=OFFSET,
           treatmentstring=TEXT),
    _table("infusiondrug", "infusiondrugid", ("infusionoffset",), infusionoffset=OFFSET, drugname=TEXT, drugrate=TEXT),
    _table("medication", "medicationid", ("drugorderoffset",), ("prn",), drugorderoffset=OFFSET, drugstartoffset=OFFSET,
           drugname=TEXT, routeadmin=TEXT, frequency=TEXT, prn=TEXT),
)  # fmt: skip

# What holds the recorded answers; no row of these reaches a case.
TRUTH_TABLES = (
    _table("admissionDx", "admissiondxid", ("admitdxenteredoffset", "admitdxpath"), admitdxenteredoffset=OFFSET,
           admitdxpath=TEXT),
    _table("diagnosis", "diagnosisid", ("diagnosisoffset", "diagnosisstring"), diagnosisoffset=OFFSET,
           diagnosisstring=TEXT, diagnosispriority=TEXT, activeupondischarge=TEXT),
)  # fmt: skip

# Columns of chart tables that go to the feed of a label and never into the row that a finding is built from: the number
# of a drug's ingredients, by which other patients' orders name one without a name, and whether an order was cancelled.
OF_LABELS = {"medication": ("drughiclseqno", "drugordercancelled")}


def _read(table: Table) -> Table:
    more = OF_LABELS.get(table.name, ())
    columns = {**table.columns, **dict.fromkeys(more, TEXT)}
    return replace(table, columns=columns, optional=(*table.optional, *more))


TABLES = (PATIENT, HOSPITAL, *map(_read, CASE_TABLES), *TRUTH_TABLES)
DISCHARGE = "discharge"  # feed of what patient.csv tells of the end of the stay
ORDERS = "orders"  # feed of medication rows that the label of the treatment step counts otherwise than the chart shows

MONITORED = ("temperature", "sao2", "heartrate", "respiration", "cvp", "systemicsystolic", "systemicdiastolic",
             "systemicmean", "icp")  # fmt: skip

# The paths of intakeOutput that name urine, by words in their last part.
_URINE = r"\|output \(ml\)\|.*(urine|urinary|foley|urethral|indwelling catheter|voided)"
_NO_VOLUME = r"count|occurr|number|incontinen"


_SOUND = "coalesce(p.unitdischargeoffset, 0) >= 0"
UNUSABLE = f"SELECT p.{STAY} FROM patient p WHERE NOT ({_SOUND}) ORDER BY p.{STAY}"  # stays that end before they begin


def root_query(loaded: set[str]) -> str:
    """Returns the query of one row per stay: what a case is built from, and nothing that tells how the stay ended."""
    of_patient = ", ".join(f"p.{c}" for c in (STAY, *_OF_A_CASE))
    hospital = [c for c in HOSPITAL.columns if c != "hospitalid"]
    if HOSPITAL.name not in loaded:
        absent = ", ".join(f"NULL AS {c}" for c in hospital)
        return f"SELECT CAST(p.{STAY} AS VARCHAR) AS case_key, {of_patient}, {absent} FROM patient p WHERE {_SOUND}"
    of_hospital = ", ".join(f"h.{c}" for c in hospital)
    return (
        f"SELECT CAST(p.{STAY} AS VARCHAR) AS case_key, {of_patient}, {of_hospital} "
        f"FROM patient p LEFT JOIN hospital h USING (hospitalid) WHERE {_SOUND}"
    )


def feed_queries(loaded: set[str], charted: tuple[tuple[str, str], ...], care: tuple[str, ...]) -> dict[str, str]:
    """Returns name -> query of the rows of each loaded table; each row names its stay as `case_key`.

    Args:
        loaded: names of the tables that could be read.
        charted: (label, name) pairs of nurseCharting that are wanted.
        care: groups of carePlanGeneral that are wanted.
    """
    thinned = {
        "physicalExam": _examinations("note" in loaded),
        "vitalPeriodic": _monitored(),
        "nurseCharting": _nurse_charted(charted),
        "respiratoryCare": _respiratory_care(),
        "carePlanGeneral": f"{_plain(_named('carePlanGeneral'))} WHERE cplgroup IN ({', '.join(map(quoted, care))})",
        "intakeOutput": f"{_plain(_named('intakeOutput'))} WHERE regexp_matches(lower(cellpath), {quoted(_URINE)}) "
        f"AND NOT regexp_matches(lower(cellpath), {quoted(_NO_VOLUME)})",
    }
    wanted = [t for t in (*CASE_TABLES, *TRUTH_TABLES) if t.name in loaded]
    feeds = {t.name: thinned.get(t.name) or _plain(t) for t in wanted}
    of_end = ", ".join(_OF_TRUTH)
    if "medication" in loaded:
        feeds[ORDERS] = _orders()
    feeds[DISCHARGE] = f"SELECT CAST({STAY} AS VARCHAR) AS case_key, {STAY} AS row_key, {of_end} FROM patient"
    return feeds


def _named(name: str) -> Table:
    return next(t for t in CASE_TABLES if t.name == name)


def _plain(table: Table) -> str:
    columns = ", ".join(c for c in table.columns if c != STAY)
    return f"SELECT CAST({STAY} AS VARCHAR) AS case_key, {table.key[0]} AS row_key, {columns} FROM {table.name}"


def _examinations(with_note: bool) -> str:
    """Returns the query of physicalExam with the entry time of its note as `enteredoffset`: it has none of its own."""
    columns = ", ".join(f"t.{c}" for c in _named("physicalExam").columns if c != STAY)
    start = f"SELECT CAST(t.{STAY} AS VARCHAR) AS case_key, t.physicalexamid AS row_key, {columns}, "
    if not with_note:
        return f"{start} CAST(NULL AS BIGINT) AS enteredoffset FROM physicalExam t"
    entered = f"SELECT {STAY}, noteoffset, max(noteenteredoffset) AS enteredoffset FROM note GROUP BY ALL"
    return (
        f"{start} n.enteredoffset FROM physicalExam t LEFT JOIN ({entered}) n "
        f"ON n.{STAY} = t.{STAY} AND n.noteoffset = t.physicalexamoffset"
    )


def _orders() -> str:
    """Returns the query of cancelled orders, and of orders without a name: these under the commonest name that orders
    with the same number of ingredients have in the folder.
    """
    columns = ", ".join(f"m.{c}" for c in _named("medication").columns if c not in (STAY, "drugname"))
    return (
        f"SELECT CAST(m.{STAY} AS VARCHAR) AS case_key, m.medicationid AS row_key, {columns}, n.drugname, "
        "coalesce(lower(trim(m.drugordercancelled)) = 'yes', false) AS cancelled FROM medication m LEFT JOIN "
        "(SELECT drughiclseqno, drugname FROM medication WHERE trim(drugname) <> '' GROUP BY 1, 2 QUALIFY "
        "row_number() OVER (PARTITION BY drughiclseqno ORDER BY count(*) DESC, drugname) = 1) n "
        "ON n.drughiclseqno = m.drughiclseqno AND coalesce(trim(m.drugname), '') = '' "
        "WHERE cancelled OR n.drugname IS NOT NULL"
    )


def _block(offset: str) -> str:
    """Returns the hour of an offset, after the first day its six hours, as the first minute of that block."""
    return f"CASE WHEN {offset} < 1440 THEN floor({offset} / 60) * 60 ELSE floor({offset} / 360) * 360 END"


def _monitored() -> str:
    """Returns the query of the first value of each sign in each block, with the minute that it was seen at."""
    order = "(observationoffset, vitalperiodicid)"
    signs = ", ".join(
        f"arg_min({c}, {order}) AS {c}, min(observationoffset) FILTER ({c} IS NOT NULL) AS {c}_at" for c in MONITORED
    )
    return (
        f"SELECT CAST({STAY} AS VARCHAR) AS case_key, CAST({_block('observationoffset')} AS BIGINT) AS row_key, "
        f"{signs} FROM vitalPeriodic GROUP BY {STAY}, row_key"
    )


def _nurse_charted(wanted: tuple[tuple[str, str], ...]) -> str:
    """Returns the query of the first known value of each wanted entry in each block."""
    pairs = ", ".join(f"({quoted(label)}, {quoted(name)})" for label, name in wanted)
    entry = "nursingchartcelltypevallabel, nursingchartcelltypevalname"
    return (
        f"{_plain(_named('nurseCharting'))} WHERE ({entry}) IN ({pairs}) AND trim(nursingchartvalue) <> '' "
        f"QUALIFY row_number() OVER (PARTITION BY {STAY}, {entry}, {_block('nursingchartoffset')} "
        "ORDER BY greatest(nursingchartoffset, nursingchartentryoffset), nursingchartid) = 1"
    )


def _respiratory_care() -> str:
    """Returns the query of respiratoryCare, with what each row says anew.

    A row repeats what the rows before it said. `airway` is filled where it differs from that of the row before which
    named one; `started` where no row before named this start of ventilation.
    """
    earlier = f"PARTITION BY {STAY}, airwaytype IS NULL ORDER BY respcarestatusoffset, respcareid"
    same_start = f"PARTITION BY {STAY}, ventstartoffset ORDER BY respcarestatusoffset, respcareid"
    return (
        f"SELECT CAST({STAY} AS VARCHAR) AS case_key, respcareid AS row_key, respcareid, respcarestatusoffset, "
        f"CASE WHEN airwaytype IS DISTINCT FROM lag(airwaytype) OVER ({earlier}) THEN airwaytype END AS airway, "
        f"CASE WHEN ventstartoffset <> 0 AND row_number() OVER ({same_start}) = 1 THEN ventstartoffset END AS started "
        "FROM respiratoryCare"
    )
