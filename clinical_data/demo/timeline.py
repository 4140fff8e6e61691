"""Writes one synthetic stay, from triage to discharge, into a FHIR bundle.

Minute 0 is the arrival in the emergency department, or the visit to the referring clinic for a direct admission.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from clinical_data.demo.content import Content, Profile, between, chance, phrase, pick
from clinical_data.demo.physiology import Person, Physiology, sample_person
from clinical_data.demo.record import Record, write_background, write_encounters, write_note
from clinical_data.demo.resources import HL7, LOINC, RXNORM, SNOMED, BundleWriter, Resource, coding, concept, quantity

HOUR = 60
DAY = 1440


@dataclass(frozen=True, slots=True)
class Stay:
    """What the plan decides about a case.

    Attributes:
        number: case number, from 1.
        seed: seed of the whole set.
        dies: ends with death in hospital.
        observation: an observation stay of about a day (class OBSENC).
        direct: admitted from a clinic, without an ED Encounter.
    """

    number: int
    seed: int
    dies: bool = False
    observation: bool = False
    direct: bool = False


@dataclass(slots=True)
class _Schedule:
    """Minutes at which things happen; `done` holds the tests already carried out."""

    admitted: int
    end: int
    oxygen_from: int | None
    done: set[str] = field(default_factory=set)


def write_case(content: Content, profile: Profile, stay: Stay, rng: random.Random) -> dict[str, Any]:
    """Returns the bundle of one case."""
    person = sample_person(content, profile, rng)
    arrival = datetime(2025, 1, 6, tzinfo=UTC) + timedelta(
        days=9 * (stay.number - 1) + between(rng, (0, 6)), minutes=between(rng, (7 * HOUR, 20 * HOUR))
    )
    writer = BundleWriter(stay.seed, f"ward-{stay.number:04d}", f"ward-p{stay.number:04d}", arrival)
    body = Physiology(content, profile, person, rng, stay.dies)
    schedule = _schedule(profile, stay, rng, arrival, body)
    record = Record(content, profile, person, writer, rng, stay.direct, schedule.admitted, schedule.end)
    write_encounters(record, stay.observation, stay.dies, _priority(body, profile["cluster"]))
    write_background(record)
    write_note(record)
    _write_vitals(record, body, schedule)
    _write_first_tests(record, body, schedule)
    _write_later_tests(record, body, schedule, arrival)
    _write_treatment(record)
    return writer.bundle()


def _schedule(profile: Profile, stay: Stay, rng: random.Random, arrival: datetime, body: Physiology) -> _Schedule:
    admitted = between(rng, (95, 150)) if stay.direct else between(rng, (225, 345))
    if stay.observation:
        end = admitted + between(rng, (20 * HOUR, 24 * HOUR))
    elif stay.dies:
        end = admitted + between(rng, (76 * HOUR, 100 * HOUR))
    else:
        midnight = -(arrival.hour * HOUR + arrival.minute)
        end = midnight + between(rng, profile["stay"]) * DAY + between(rng, (10 * HOUR, 15 * HOUR))
        while end < admitted + 40 * HOUR:
            end += DAY
    needs_oxygen = body.vital("spo2", 0) < body.oxygen_below
    return _Schedule(admitted, end, between(rng, (16, 30)) if needs_oxygen else None)


def _priority(body: Physiology, cluster: str) -> str:
    """Returns EM or UR: EM for a high-risk complaint, or a vital sign worth 3 points of the early warning score.

    Source: Royal College of Physicians, NEWS2, 2017; Emergency Severity Index 4, decision point B.
    """
    red = (
        cluster in ("chest_pain", "neuro", "bleeding")
        or body.vital("spo2", 0) <= 91
        or body.vital("sbp", 0) <= 90
        or body.vital("hr", 0) >= 131
        or body.vital("rr", 0) >= 25
        or body.vital("gcs", 0) < 15
    )
    return "EM" if red else "UR"


def _write_vitals(record: Record, body: Physiology, schedule: _Schedule) -> None:
    rng = record.rng
    minutes = [between(rng, (5, 15)), between(rng, (85, 110)), schedule.admitted + between(rng, (15, 40))]
    minute = minutes[-1] + between(rng, (7 * HOUR, 10 * HOUR))
    while minute < schedule.end - HOUR:
        minutes.append(minute)
        minute += between(rng, (8 * HOUR, 10 * HOUR)) if minute < 2 * DAY else between(rng, (11 * HOUR, 13 * HOUR))
    for minute in minutes:
        _write_vital_set(record, body, schedule, minute)


def _write_vital_set(record: Record, body: Physiology, schedule: _Schedule, minute: int) -> None:
    day = minute / DAY
    writer = record.writer
    untreated = body.vital("spo2", day)
    oxygen = schedule.oxygen_from is not None and minute > schedule.oxygen_from and untreated < body.oxygen_below + 1

    def vital(code: str, name: str, value: float, unit: str) -> None:
        shown = {"valueQuantity": quantity(value, unit, 1 if unit == "Cel" else 0)}
        writer.observe("vital-signs", concept(LOINC, code, name), minute, minute + 2, **shown)

    systolic = body.vital("sbp", day)
    parts = [("8480-6", "Systolic blood pressure", systolic)]
    parts.append(("8462-4", "Diastolic blood pressure", body.diastolic(systolic)))
    components = [
        {"code": concept(LOINC, code, name), "valueQuantity": quantity(value, "mm[Hg]", 0)}
        for code, name, value in parts
    ]
    panel = concept(LOINC, "85354-9", "Blood pressure panel with all children optional")
    vital("8867-4", "Heart rate", body.vital("hr", day), "/min")
    writer.observe("vital-signs", panel, minute, minute + 2, component=components)
    vital("9279-1", "Respiratory rate", body.vital("rr", day), "/min")
    vital("8310-5", "Body temperature", body.vital("temp", day), "Cel")
    saturation = body.vital("spo2", day, on_oxygen=True) if oxygen else untreated
    vital("59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry", saturation, "%")
    if oxygen:
        flow = 1 if untreated >= 91 else 2 if untreated >= 88 else 4
        vital("3151-8", "Inhaled oxygen flow rate", flow, "L/min")
    vital("9269-2", "Glasgow coma score total", body.vital("gcs", day), "{score}")


def _write_first_tests(record: Record, body: Physiology, schedule: _Schedule) -> None:
    """Writes what the department orders for this presentation; a clinic sends only what is back before admission."""
    rng, profile, common = record.rng, record.profile, record.content.common
    cluster = common["clusters"][profile["cluster"]]
    chances = {"bmp": 1.0, "cbc": 1.0, **cluster["tests"], **dict.fromkeys(profile.get("must", ()), 1.0)}
    skipped = set(profile.get("skip", ()))
    wanted = [test for test, p in chances.items() if chance(rng, p) and test not in skipped]
    drawn = between(rng, (18, 32))
    panels = [test for test in wanted if test in common["panels"]]
    if "diabetes2" in record.person.comorbidities and chance(rng, 0.35):
        panels.append("a1c")
    write_panels(record, body, panels, drawn, drawn + between(rng, (42, 62)), drawn - between(rng, (5, 12)))
    schedule.done.update(panels)
    for test in wanted:
        if test not in common["reports"]:
            continue
        facts = common["reports"][test]
        at = between(rng, facts["delay"])
        if record.direct and at + facts["report"][1] > schedule.admitted:
            at += schedule.admitted
        write_report(record, body, test, at, None)
        schedule.done.add(test)
    _write_cultures(record, body, cluster, drawn)


def _write_cultures(record: Record, body: Physiology, cluster: Resource, drawn: int) -> None:
    rng, common = record.rng, record.content.common
    organisms = record.profile.get("cultures", {})
    for site, probability in cluster["cultures"].items():
        if not chance(rng, probability):
            continue
        issued = drawn + between(rng, (46 * HOUR, 50 * HOUR))
        grows, organism = organisms.get(site, (0, ""))
        facts = common["cultures"][site]
        text = organism if chance(rng, grows) else facts["negative"]
        record.writer.order(facts["loinc"], facts["name"], drawn - 5)
        if issued < record.end:  # a result that comes after discharge is not part of this record
            code = concept(LOINC, facts["loinc"], facts["name"])
            record.writer.observe("laboratory", code, drawn + 8, issued, valueString=text)


def _write_later_tests(record: Record, body: Physiology, schedule: _Schedule, arrival: datetime) -> None:
    rng, profile, common = record.rng, record.profile, record.content.common
    for entry in profile.get("later", ()):
        test = entry["test"]
        once = test in common["reports"] or test in ("a1c", "tsh", "tg", "cortisol")
        known = once and test in schedule.done and "text" not in entry
        if known or not chance(rng, entry.get("p", 1.0)):
            continue
        low, high = entry["at_h"]
        at = schedule.admitted + between(rng, (low * HOUR, high * HOUR))
        if at + 4 * HOUR > record.end:
            continue
        schedule.done.add(test)
        if test in common["reports"]:
            write_report(record, body, test, at, entry.get("text"))
        else:
            write_panels(record, body, [test], at, at + between(rng, (45, 75)), at - between(rng, (15, 60)))
    first_six = 6 * HOUR - (arrival.hour * HOUR + arrival.minute)
    while first_six < schedule.admitted + 3 * HOUR:
        first_six += DAY
    repeated = ["bmp", "cbc"] + [test for test in ("crp", "trop", "liver", "lipase") if test in schedule.done]
    for day in range(4):
        at = first_six + day * DAY + between(rng, (-25, 35))
        if at + 5 * HOUR > record.end:
            break
        panels = repeated[:2] if day == 3 else list(repeated)
        panels += [t for t in profile.get("daily", ()) if t in schedule.done and t not in panels and day < 2]
        if day == 2:
            panels = [t for t in panels if t not in ("trop", "lipase")]
        write_panels(record, body, panels, at, at + between(rng, (60, 110)), at - between(rng, (9 * HOUR, 11 * HOUR)))
    if "trop" in schedule.done and not record.direct and schedule.admitted > 215 and "trop" not in _later(profile):
        write_panels(record, body, ["trop"], 130, 130 + between(rng, (45, 62)), 125)


def _later(profile: Profile) -> set[str]:
    return {entry["test"] for entry in profile.get("later", ())}


def write_panels(record: Record, body: Physiology, panels: list[str], drawn: int, issued: int, ordered: int) -> None:
    """Writes the orders and results of one blood or urine collection, in minutes from arrival."""
    common = record.content.common
    names = [name for panel in panels for name in common["panels"][panel]["of"]]
    if not names:
        return
    values = body.draw(names, drawn / DAY)
    for panel in panels:
        facts = common["panels"][panel]
        for code in [facts] if "loinc" in facts else [common["analytes"][name] for name in facts["of"]]:
            record.writer.order(code["loinc"], code["name"], max(ordered, 4))
        for name in facts["of"]:
            record.writer.result(common["analytes"][name], record.person.sex, values[name], drawn, issued)


def write_report(record: Record, body: Physiology, test: str, at: int, text: str | None) -> None:
    """Writes the order and the report of an ECG or imaging study done at minute `at`."""
    rng, facts = record.rng, record.content.common["reports"][test]
    if text is None:
        texts = record.profile.get("reports", {}).get(test)
        if texts is None:
            texts = record.usual(facts)
        text = str(pick(rng, texts))
    rate = int(body.vital("hr", at / DAY))
    issued = at + between(rng, facts["report"])
    record.writer.order(facts["loinc"], facts["name"], max(at - between(rng, (10, 45)), 4))
    record.writer.add_fact(
        "DiagnosticReport",
        "report",
        at,
        status="final",
        category=[{"coding": [coding(HL7 + "v2-0074", facts["category"], facts["category_name"])]}],
        code=concept(LOINC, facts["loinc"], facts["name"]),
        effectiveDateTime=record.writer.time(at),
        issued=record.writer.time(issued),
        conclusion=phrase(rng, text, {**record.names, "hr": str(rate), "rhythm": _rhythm(record.person, rate)}),
    )


def _rhythm(person: Person, rate: int) -> str:
    if "afib" in person.comorbidities:
        return f"Atrial fibrillation at {rate}/min, known from earlier traces"
    word = "Sinus tachycardia" if rate > 100 else "Sinus bradycardia" if rate < 50 else "Sinus rhythm"
    return f"{word} at {rate}/min"


def _write_treatment(record: Record) -> None:
    rng, common = record.rng, record.content.common
    for entry in record.profile.get("treatments", ()):
        low, high = entry["at_h"]
        at = record.admitted + between(rng, (low * HOUR, high * HOUR))
        if low == 0 and not record.direct:  # first treatment does not wait for the ward
            at = between(rng, (80, 170))
        if not chance(rng, entry.get("p", 1.0)) or at > record.end - 2 * HOUR:
            continue
        record.writer.add_fact(
            "MedicationRequest",
            "drug",
            at,
            status="completed",
            intent="order",
            medicationCodeableConcept=concept(RXNORM, common["drugs"][entry["drug"]], entry["drug"]),
            authoredOn=record.writer.time(at),
        )
    for entry in record.profile.get("procedures", ()):
        low, high = entry["at_h"]
        at = record.admitted + between(rng, (low * HOUR, high * HOUR))
        if not chance(rng, entry.get("p", 1.0)) or at > record.end - 6 * HOUR:
            continue
        facts = common["procedures"][entry["name"]]
        record.writer.add_fact(
            "Procedure",
            "procedure",
            at,
            status="completed",
            code=concept(SNOMED, facts["snomed"], facts["name"]),
            performedDateTime=record.writer.time(at),
        )
