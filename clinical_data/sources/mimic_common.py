"""What MIMIC-III, and MEDS made from MIMIC-IV, have in common: destinations, minutes, and the form of a finding.

Source: MIMIC-III 1.4, Johnson et al., Sci Data 2016, doi:10.1038/sdata.2016.35; MIMIC-IV 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from clinical_data.case import Coding, Finding, FindingKind, make_finding_id
from clinical_data.ground_truth import Label
from clinical_data.sources.step_truth import disposition_label

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


def make(
    source: str,
    table: str,
    key: Sequence[object],
    kind: FindingKind,
    code: Coding,
    value: float | str | None,
    charted: int | None,
    available: int,
    *,
    unit: str = "",
    flag: str = "",
    pending_from: int | None = None,
    note: str = "",
    place: str = "",
) -> list[Finding]:
    """Returns the finding of a row, or none where the row has no usable time.

    Args:
        source: name of the source.
        table: table, or sort of event, that it was read from.
        key: the row's own key.
        kind, code, value, unit, flag: what was found; value None: it was done, the result is not in the source.
        charted: minute of observation; None where the row has no usable time.
        available: minute from which it could be known.
        pending_from: minute from which it was known to be under way.
        note: what else a reviewer may want to know of the row.
        place: how the note names the row; the key, where it is left out.
    """
    if charted is None:
        return []
    available = max(charted, available)
    found = Finding(
        finding_id=make_finding_id(source, table, *map(str, key)),
        kind=kind,
        code=code,
        value=value,
        charted=charted,
        available=available,
        unit=unit,
        flag=flag,
        pending_from=None if pending_from is None else min(pending_from, available),
        result_in_source=value is not None,
        note=f"{table} {place or ' '.join(map(str, key))}" + (f", {note}" if note else ""),
    )
    return [found]
