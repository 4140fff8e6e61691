"""What MIMIC-III, MIMIC-IV, and MEDS made from it, have in common about stays: destinations, minutes, and which rows
belong to which stay.

Source: MIMIC-III 1.4, Johnson et al., Sci Data 2016, doi:10.1038/sdata.2016.35; MIMIC-IV 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from clinical_data.clocks import LOOK_BACK
from clinical_data.ground_truth import Label
from clinical_data.sources import ImportLog, Quarantined
from clinical_data.sources.step_truth import disposition_label
from clinical_data.sources.tables import Table, TableFolder

SEX = {"M": "male", "F": "female"}

DIED = "died in hospital"

# Where a survivor went. Who leaves against advice goes home: the question is where to, not on whose decision.
DESTINATIONS = {
    "HOME": "home",
    "HOME HEALTH CARE": "home",
    "HOME WITH HOME IV PROVIDR": "home",
    "AGAINST ADVICE": "home",
    "LEFT AGAINST MEDICAL ADVI": "home",
    "SKILLED NURSING FACILITY": "facility",
    "SNF": "facility",
    "SNF-MEDICAID ONLY CERTIF": "facility",
    "ICF": "facility",
    "REHAB": "facility",
    "REHAB/DISTINCT PART HOSP": "facility",
    "CHRONIC/LONG TERM ACUTE CARE": "facility",
    "LONG TERM CARE HOSPITAL": "facility",
    "ASSISTED LIVING": "facility",
    "OTHER FACILITY": "facility",
    "HEALTHCARE FACILITY": "facility",
    "PSYCH FACILITY": "facility",
    "DISCH-TRAN TO PSYCH HOSP": "facility",
    "HOSPICE": "hospice",
    "HOSPICE-HOME": "hospice",
    "HOSPICE-MEDICAL FACILITY": "hospice",
    "ACUTE HOSPITAL": "other_hospital",
    "SHORT TERM HOSPITAL": "other_hospital",
    "DISC-TRAN CANCER/CHLDRN H": "other_hospital",
    "DISC-TRAN TO FEDERAL HC": "other_hospital",
}
_DEATHS = ("DIED", "DEAD/EXPIRED", "EXPIRED")

# duckdb macros: minutes from the start of a case. What was observed is rounded down, what became known is rounded up.
MACROS = """
CREATE OR REPLACE TEMP MACRO usable(t) AS t IS NOT NULL AND isfinite(t) AND year(t) BETWEEN 1800 AND 2999;
CREATE OR REPLACE TEMP MACRO day_end(d) AS CASE WHEN usable(d) THEN date_trunc('day', d) + INTERVAL 1 DAY END;
CREATE OR REPLACE TEMP MACRO minute_of(t, start) AS
    CASE WHEN usable(t) THEN CAST(floor((epoch_ms(t) - epoch_ms(start)) / 60000) AS BIGINT) END;
CREATE OR REPLACE TEMP MACRO known_by(t, start) AS
    CASE WHEN usable(t) THEN CAST(ceil((epoch_ms(t) - epoch_ms(start)) / 60000) AS BIGINT) END;
"""

# Adds to `opened` (one row per stay with hadm_id, subject_id, link_from, dischtime) between which times rows without
# admission id belong to a stay: `next_from`, where a later stay begins, and `look_from`, a day before this one but
# after every stay that began before it.
STAY_TIMES = f"""
SELECT * EXCLUDE (before), CASE WHEN before >= link_from THEN link_from
        ELSE greatest(link_from - INTERVAL {LOOK_BACK} MINUTE, before + INTERVAL 1 MICROSECOND) END AS look_from
FROM (
    SELECT *, lead(link_from) OVER own AS next_from,
        max(dischtime) OVER (own ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM opened WINDOW own AS (PARTITION BY subject_id ORDER BY link_from, hadm_id)
)
"""

_UNUSABLE = "SELECT hadm_id FROM admissions WHERE hadm_id NOT IN (SELECT hadm_id FROM stays) ORDER BY hadm_id"


def open_stays(folder: TableFolder, tables: Sequence[Table], stays: str, import_log: ImportLog, shown: str) -> None:
    """Prepares a folder's database for the queries of a source; an admission whose times cannot be is quarantined.

    Args:
        folder: with its tables loaded.
        tables: all that the queries name; one that is missing becomes an empty one.
        stays: makes the table `stays` (case_key, hadm_id, subject_id, admittime, dischtime, link_from, and what
            `STAY_TIMES` adds).
        shown: name of the table of admissions, as the source writes it.
    """
    for table in tables:
        if table.name not in folder.loaded:
            columns = ", ".join(f"{name} {kind}" for name, kind in table.columns.items())
            folder.database.execute(f"CREATE OR REPLACE TEMP TABLE {table.name} ({columns})")
    folder.database.execute(MACROS)
    folder.database.execute(stays)
    reason = "admission and discharge are no times that can be, or in the wrong order"
    for (hadm,) in folder.database.execute(_UNUSABLE).fetchall():
        import_log.quarantined(Quarantined("admissions", None, reason, f"{shown} {int(hadm)}"))


def linked(table: str, time: str, *, look_back: bool = False) -> str:
    """Returns a query of a table's rows with `case_key` and `admittime`: by admission id, else by patient and time.

    Args:
        table: a loaded table with subject_id and hadm_id; the query calls it `t`.
        time: expression of the time of a row, such as `t.charttime`.
        look_back: a row in no stay belongs to the next stay that begins within `LOOK_BACK`.
    """
    first = "look_from" if look_back else "link_from"
    return f"""(
        SELECT t.*, s.case_key, s.admittime FROM {table} t LEFT JOIN stays s ON s.hadm_id = t.hadm_id
        WHERE t.hadm_id IS NOT NULL
        UNION ALL
        SELECT t.*, s.case_key, s.admittime FROM {table} t LEFT JOIN stays s ON s.subject_id = t.subject_id
            AND {time} BETWEEN s.{first} AND s.dischtime AND (s.next_from IS NULL OR {time} < s.next_from)
        WHERE t.hadm_id IS NULL)"""


def destination(text: str, source_row: str, end: int | None) -> tuple[Label, ...] | str:
    """Returns the label of a discharge location, or why there is none.

    Args:
        text: the location in the words of MIMIC-III or MIMIC-IV.
        source_row: table and key that it was read from.
        end: minute of discharge, where known.
    """
    where = " ".join(text.upper().split())
    if where in _DEATHS:
        return DIED
    if where in ("", "UNK", "UNKNOWN"):
        return "no destination recorded"
    if where not in DESTINATIONS:
        return "a destination outside the list"
    return disposition_label(DESTINATIONS[where], source_row, end)


def age_of(years: int | None) -> int | None:
    """Returns an age in years: 90 above 89 (HIPAA Safe Harbor), None where the birth lies after the admission."""
    return None if years is None or years < 0 else min(years, 90)


def anchors_of(arrival: int | None, departure: int | None, end: int | None) -> dict[str, int]:
    """Returns the named minutes of a case that starts at admission.

    Where the admission was recorded before the arrival in the emergency department, ED departure counts as admission.

    Args:
        arrival, departure: ED registration and departure, where there was an ED stay.
        end: discharge; None while unknown.

    Source: clinical.md, "Clock".
    """
    anchors = {"admission": 0}
    if end is not None:
        anchors["end_of_stay"] = end
    if arrival is not None:
        anchors["ed_arrival"] = arrival
        if departure is not None and departure >= arrival:
            anchors["ed_departure"] = departure
            if arrival > 0:
                anchors["admission"] = departure
    return dict(sorted(anchors.items()))
