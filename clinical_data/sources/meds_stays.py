"""Which events of a MEDS data set make an admission, and which belong to it.

An admission begins with an event HOSPITAL_ADMISSION and ends with the HOSPITAL_DISCHARGE of the same `hadm_id`, or,
where the data set has none, with the patient's next. An event without `hadm_id` belongs to the stay in whose time it
lies, from arrival in the emergency department to discharge.

Source: clinical.md, "What is one case", and leakage trap 6.
"""

from __future__ import annotations

from clinical_data.sources.meds_codes import (
    ADMISSION,
    BIRTH,
    DIAGNOSIS,
    DISCHARGE,
    ED_IN,
    ED_OUT,
    FINDING,
    ICU,
    SEX,
)
from clinical_data.sources.meds_shards import MedsFolder

# An ED registration belongs to the next admission within three days (or, recorded late, to one within the day before).
_ED_BEFORE, _ED_AFTER = "INTERVAL 72 HOUR", "INTERVAL 24 HOUR"


def _of(use: str) -> str:
    """Returns a query of the events of a use."""
    return f"(SELECT e.*, c.display AS place FROM events e JOIN codes c ON c.code = e.code WHERE c.use = '{use}')"


_STAYS = f"""
CREATE OR REPLACE TEMP TABLE opened AS
WITH begun AS (
    SELECT subject_id, hadm, min(time) AS begin, arg_min(place, time) AS place FROM {_of(ADMISSION)}
    WHERE time IS NOT NULL AND hadm IS NOT NULL GROUP BY subject_id, hadm
    UNION ALL
    SELECT subject_id, NULL, time, min(place) FROM {_of(ADMISSION)} WHERE time IS NOT NULL AND hadm IS NULL
    GROUP BY subject_id, time
), numbered AS (
    SELECT *, row_number() OVER (PARTITION BY subject_id, hadm IS NULL ORDER BY begin) AS n,
        lead(begin) OVER (PARTITION BY subject_id ORDER BY begin, hadm) AS next_begin FROM begun
)
SELECT *, coalesce(hadm, subject_id || '-' || n) AS case_key,
    row_number() OVER (PARTITION BY coalesce(hadm, subject_id || '-' || n) ORDER BY subject_id) AS twin FROM numbered;

CREATE OR REPLACE TEMP TABLE closed AS
SELECT o.case_key, arg_min(d.time, (d.hadm IS NULL, d.time)) AS finish,
    arg_min(d.place, (d.hadm IS NULL, d.time)) AS place
FROM opened o JOIN {_of(DISCHARGE)} d ON d.subject_id = o.subject_id AND (d.hadm = o.hadm OR (
    d.hadm IS NULL AND d.time >= o.begin AND (o.next_begin IS NULL OR d.time <= o.next_begin)))
WHERE o.twin = 1 AND d.time IS NOT NULL GROUP BY o.case_key;

CREATE OR REPLACE TEMP TABLE stays AS
WITH own AS (
    SELECT o.case_key, o.subject_id, o.hadm, o.begin, o.next_begin, o.place, c.finish, c.place AS left_to
    FROM opened o LEFT JOIN closed c USING (case_key) WHERE o.twin = 1 AND (c.finish IS NULL OR c.finish >= o.begin)
), arrived AS (
    SELECT o.case_key, coalesce(max(e.time) FILTER (e.time <= o.begin), min(e.time)) AS ed_in
    FROM own o JOIN {_of(ED_IN)} e ON e.subject_id = o.subject_id AND (e.hadm IS NULL OR e.hadm = o.hadm)
        AND e.time BETWEEN o.begin - {_ED_BEFORE} AND o.begin + {_ED_AFTER} AND (o.finish IS NULL OR e.time <= o.finish)
        AND NOT EXISTS (SELECT 1 FROM own p WHERE p.subject_id = o.subject_id AND p.begin < o.begin
            AND p.finish >= e.time)
    GROUP BY o.case_key
), departed AS (
    SELECT a.case_key, min(e.time) AS ed_out
    FROM arrived a JOIN own o USING (case_key) JOIN {_of(ED_OUT)} e ON e.subject_id = o.subject_id
        AND (e.hadm IS NULL OR e.hadm = o.hadm) AND e.time >= a.ed_in AND e.time <= coalesce(o.finish, e.time)
        AND e.time <= o.begin + {_ED_BEFORE}
    GROUP BY a.case_key
)
SELECT o.*, a.ed_in, d.ed_out, least(coalesce(a.ed_in, o.begin), o.begin) AS link_from,
    lead(least(coalesce(a.ed_in, o.begin), o.begin)) OVER (PARTITION BY o.subject_id ORDER BY o.begin, o.case_key)
        AS next_from
FROM own o LEFT JOIN arrived a USING (case_key) LEFT JOIN departed d USING (case_key);
"""

_UNUSABLE = """
SELECT case_key, subject_id, CASE WHEN twin > 1 THEN 'the admission id belongs to two patients'
    ELSE 'discharge before admission' END
FROM opened WHERE twin > 1 OR case_key NOT IN (SELECT case_key FROM stays) ORDER BY case_key, subject_id
"""

ROOT = f"""
SELECT s.case_key, s.subject_id, s.place AS admission_location, x.sex, p.split,
    CASE WHEN b.born <= s.begin THEN CAST(date_sub('year', b.born, s.begin) AS BIGINT) END AS age,
    minute_of(s.ed_in, s.begin) AS ed_in, known_by(s.ed_out, s.begin) AS ed_out,
    minute_of(s.finish, s.begin) AS stay_end
FROM stays s
    LEFT JOIN (SELECT subject_id, min(place) AS sex FROM {_of(SEX)} GROUP BY subject_id) x USING (subject_id)
    LEFT JOIN (SELECT subject_id, min(time) AS born FROM {_of(BIRTH)} GROUP BY subject_id) b USING (subject_id)
    LEFT JOIN (SELECT subject_id, min(split) AS split FROM splits GROUP BY subject_id) p USING (subject_id)
"""


def open_stays(folder: MedsFolder) -> list[tuple[str, int, str]]:
    """Prepares the database for `ROOT` and `FEEDS`; returns admissions that can be no case: key, patient and reason."""
    folder.database.execute(_STAYS)
    return [(str(key), int(person), str(why)) for key, person, why in folder.database.execute(_UNUSABLE).fetchall()]


def _linked(use: str) -> str:
    """Returns a query of a use's events with `case_key` and `begin`, by admission id or else by patient and time.

    Its column `at` is the time that counts: of an event that gives no more than its day, the end of that day.
    """
    events = f"""(
        SELECT e.*, c.lag, CASE WHEN c.day = 'always' OR (c.day = 'midnight' AND e.time = date_trunc('day', e.time))
            THEN day_end(e.time) ELSE e.time END AS at
        FROM events e JOIN codes c ON c.code = e.code WHERE c.use = '{use}' AND e.time IS NOT NULL)"""
    return f"""(
        SELECT e.*, s.case_key, s.begin FROM {events} e LEFT JOIN stays s ON s.hadm = e.hadm
            AND s.subject_id = e.subject_id
        WHERE e.hadm IS NOT NULL
        UNION ALL
        SELECT e.*, s.case_key, s.begin FROM {events} e LEFT JOIN stays s ON s.subject_id = e.subject_id
            AND e.at >= s.link_from AND (s.finish IS NULL OR e.at <= s.finish)
            AND (s.next_from IS NULL OR e.at < s.next_from)
        WHERE e.hadm IS NULL)"""


# Feed -> query. A name that begins with `truth_` holds recorded answers; no row of it reaches a case.
FEEDS: dict[str, str] = {
    "events": f"""
        SELECT DISTINCT l.case_key, l.code, c.kind, c.system, c.item, c.display,
            coalesce(nullif(c.unit, ''), l.unit, '') AS unit, c.value, c.pending, l.number, l.text, l.how,
            minute_of(l.at, l.begin) AS charted, known_by(l.at, l.begin) AS taken,
            known_by(l.at + to_minutes(l.lag), l.begin) AS stored,
            struct_pack(a := epoch_us(l.time) - epoch_us(l.begin), b := l.code, c := l.number, d := l.text, e := l.how)
            AS row_key
        FROM {_linked(FINDING)} l JOIN codes c ON c.code = l.code""",
    "icu": f"""
        SELECT DISTINCT l.case_key, coalesce(l.stay, l.case_key || '-icu-' || minute_of(l.time, l.begin)) AS row_key,
            minute_of(l.time, l.begin) AS charted
        FROM {_linked(ICU)} l""",
    "earlier": """
        SELECT s.case_key, e.case_key AS row_key, minute_of(e.begin, s.begin) AS charted,
            known_by(e.finish, s.begin) AS ended, minute_of(e.finish, e.begin) AS minutes
        FROM stays s JOIN stays e ON e.subject_id = s.subject_id AND e.begin < s.begin AND e.finish IS NOT NULL""",
    "earlier_diagnoses": f"""
        SELECT s.case_key, c.system, c.item, min(c.display) AS display, min(known_by(e.finish, s.begin)) AS ended,
            c.system || ' ' || c.item AS row_key
        FROM stays s JOIN stays e ON e.subject_id = s.subject_id AND e.begin < s.begin AND e.finish IS NOT NULL
            JOIN {_linked(DIAGNOSIS)} l ON l.case_key = e.case_key JOIN codes c ON c.code = l.code
        GROUP BY s.case_key, c.system, c.item""",
    "truth_outcome": "SELECT case_key, 1 AS row_key, left_to FROM stays",
    "truth_diagnoses": f"""
        SELECT DISTINCT l.case_key, l.code, c.system, c.item, c.display, l.rank,
            struct_pack(a := l.rank IS NULL, b := l.rank, c := l.code) AS row_key
        FROM {_linked(DIAGNOSIS)} l JOIN codes c ON c.code = l.code""",
}
