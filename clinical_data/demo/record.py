"""The parts of a synthetic record that are not measurements: encounters, history, notes and coded diagnoses."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from clinical_data.demo.content import Content, Profile, between, chance, phrase, pick, sometimes
from clinical_data.demo.physiology import Person
from clinical_data.demo.resources import (
    HL7,
    ICD10,
    LOINC,
    RXNORM,
    SNOMED,
    BundleWriter,
    Resource,
    category,
    coding,
    concept,
)

SMOKING = {
    "never": ("266919005", "Never smoked tobacco"),
    "former": ("8517006", "Ex-smoker"),
    "current": ("77176002", "Smoker"),
}


@dataclass(frozen=True, slots=True)
class Record:
    """One case while it is being written; times are minutes from arrival.

    Attributes:
        direct: admitted from a clinic, without an ED Encounter.
        admitted, end: start and end of the hospital stay.
    """

    content: Content
    profile: Profile
    person: Person
    writer: BundleWriter
    rng: random.Random
    direct: bool
    admitted: int
    end: int

    @property
    def names(self) -> dict[str, str]:
        """Words that texts may refer to."""
        side, female = self.person.side, self.person.sex == "female"
        other = "left" if side == "right" else "right"
        words = {"he": "she", "his": "her", "him": "her", "himself": "herself"}
        pronouns = words if female else {word: word for word in words}
        man = "woman" if female else "man"
        names = {"side": side, "other": other, "man": man, "age": str(self.person.age), **pronouns}
        return names | {word.capitalize(): text.capitalize() for word, text in names.items()}

    def usual(self, facts: Resource) -> list[str]:
        """Returns the texts of an unremarkable finding that fit the patient's age, or go with a known illness."""
        special = facts.get("normal_with", {})
        older = facts.get("normal_from_60", []) if self.person.age >= 60 else []
        return next((special[c] for c in self.person.comorbidities if c in special), facts["normal"] + older)

    def text(self, template: str) -> str:
        """Returns a text with its choices made and its names filled in."""
        return phrase(self.rng, template, self.names)


def write_encounters(record: Record, observation: bool, dies: bool, priority: str) -> None:
    """Writes Patient, hospital Encounter, ED Encounter and the coded diagnoses of the stay."""
    writer, person, rng = record.writer, record.person, record.rng
    if not record.direct:
        writer.ed_until = record.admitted
    writer.add(
        "Patient",
        writer.patient_id,
        gender=person.sex,
        birthDate=writer.date(-365.25 * person.age - between(rng, (5, 355))),
        deceasedDateTime=writer.time(record.end) if dies else None,
    )
    kind = ("OBSENC", "observation encounter") if observation else ("IMP", "inpatient encounter")
    homes = record.profile["disposition"]
    disposition = "exp" if dies else _weighted(rng, homes)
    source = "outp" if record.direct else "emd"
    urgency = {"coding": [{"system": HL7 + "v3-ActPriority", "code": priority}]}
    common: dict[str, Any] = {"status": "finished", "subject": writer.reference(writer.patient_id), "priority": urgency}
    complaint = record.text(pick(rng, record.profile["complaint"]))
    writer.add(
        "Encounter",
        writer.case_id,
        class_=coding(HL7 + "v3-ActCode", *kind),
        **common,
        period={"start": writer.time(record.admitted), "end": writer.time(record.end)},
        diagnosis=_write_diagnoses(record),
        hospitalization={
            "admitSource": {"coding": [{"system": HL7 + "admit-source", "code": source}]},
            "dischargeDisposition": {"coding": [{"system": HL7 + "discharge-disposition", "code": disposition}]},
        },
    )
    if not record.direct:
        writer.add(
            "Encounter",
            writer.ed_id,
            class_=coding(HL7 + "v3-ActCode", "EMER", "emergency"),
            **common,
            period={"start": writer.time(0), "end": writer.time(record.admitted)},
            reasonCode=[{"text": complaint}],
            partOf=writer.reference(writer.case_id),
        )
    at = between(rng, (3, 9))
    code = concept(LOINC, "8661-1", "Chief complaint - Reported")
    writer.observe("survey", code, at, at + 2, valueString=complaint)


def write_background(record: Record) -> None:
    """Writes what was known before: problem list, home drugs, allergy, tobacco, alcohol, family."""
    writer, rng, person, common = record.writer, record.rng, record.person, record.content.common
    drugs: list[str] = []
    for name in person.comorbidities:
        facts = common["comorbidities"][name]
        years = min(between(rng, facts["years"]), max(1, person.age - 16))
        codes = [coding(SNOMED, facts["snomed"], facts["name"])] if facts["snomed"] else []
        codes.append(coding(ICD10, facts["icd"], facts["icd_name"]))
        writer.add(
            "Condition",
            writer.next_id("problem"),
            clinicalStatus={"coding": [{"system": HL7 + "condition-clinical", "code": "active"}]},
            verificationStatus={"coding": [{"system": HL7 + "condition-ver-status", "code": "confirmed"}]},
            category=category("condition-category", "problem-list-item"),
            code={"coding": codes, "text": facts["name"]},
            subject=writer.reference(writer.patient_id),
            recordedDate=writer.date(-365 * years + between(rng, (0, 300))),
        )
        drugs += sometimes(rng, facts["drugs"])
    drugs += sometimes(rng, record.profile.get("home_drugs", []))
    asked = between(rng, (35, 70))
    for drug in dict.fromkeys(drugs):
        _home_drug(record, drug, asked)
    allergy = _weighted_item(rng, common["allergies"])
    writer.add(
        "AllergyIntolerance",
        writer.next_id("allergy"),
        clinicalStatus={"coding": [{"system": HL7 + "allergyintolerance-clinical", "code": "active"}]},
        code=concept(SNOMED, allergy["snomed"], allergy["name"]),
        patient=writer.reference(writer.patient_id),
        recordedDate=writer.date(-between(rng, (200, 2500))),
    )
    _write_social(record, asked)


def write_note(record: Record) -> None:
    """Writes the admission note: history of present illness, review of systems and the examination by region."""
    writer, rng, profile, common = record.writer, record.rng, record.profile, record.content.common
    seen = between(rng, (28, 45))
    filed = seen + between(rng, (12, 25))
    symptoms = common["clusters"][profile["cluster"]]["symptoms"]
    told = [record.text(line) for line in sometimes(rng, profile["hpi"])]
    present = set(profile.get("has", ()))
    for name, sentence in symptoms.items():
        if name not in present and sentence and chance(rng, 0.2):
            present.add(name)
            told.append(record.text(sentence))
    denied = [name for name in symptoms if name not in present and chance(rng, 0.7)]
    opening = record.text("{age}-year-old {man}. ")
    history = concept(LOINC, "10164-2", "History of Present illness Narrative")
    writer.observe("survey", history, seen, filed, valueString=opening + " ".join(told))
    if denied:
        review = concept(LOINC, "10187-3", "Review of systems Narrative - Reported")
        writer.observe("survey", review, seen, filed, valueString=f"No {', no '.join(denied)}.")
    for region, facts in common["exam"].items():
        special = profile.get("exam", {}).get(region)
        found = record.text(str(pick(rng, special if special else record.usual(facts))))
        writer.observe("exam", concept(LOINC, facts["loinc"], facts["name"]), seen, filed, valueString=found)


def _home_drug(record: Record, drug: str, asked: int) -> None:
    writer = record.writer
    writer.add(
        "MedicationStatement",
        writer.next_id("homedrug"),
        status="active",
        subject=writer.reference(writer.patient_id),
        medicationCodeableConcept=concept(RXNORM, record.content.common["drugs"][drug], drug),
        effectivePeriod={"start": writer.date(-between(record.rng, (40, 900)))},
        dateAsserted=writer.time(asked),
    )


def _write_social(record: Record, asked: int) -> None:
    writer, rng, person, common = record.writer, record.rng, record.person, record.content.common
    code, display = SMOKING[person.smoking]
    tobacco = concept(LOINC, "72166-2", "Tobacco smoking status")
    writer.observe("social-history", tobacco, asked, asked + 8, valueCodeableConcept=concept(SNOMED, code, display))
    usual = ("No alcohol.", "A glass of wine at weekends.", "One or two beers on most evenings.", "Rarely any alcohol.")
    amount = "Drinks heavily, half a bottle of spirits or more a day." if person.drinks else pick(rng, usual)
    alcohol = concept(LOINC, "11331-6", "History of Alcohol use")
    writer.observe("social-history", alcohol, asked, asked + 8, valueString=amount)
    family = concept(LOINC, "10157-6", "History of family member diseases Narrative")
    relatives = record.text(pick(rng, common["family"]))
    writer.observe("survey", family, asked, asked + 8, valueString=relatives)


def _write_diagnoses(record: Record) -> list[Resource]:
    """Writes the encounter's Conditions and returns Encounter.diagnosis: AD, DD and further DD, comorbidities (CM)."""
    writer, rng, profile, person = record.writer, record.rng, record.profile, record.person
    fitting = [final for final in profile["final"] if final.get("side", person.side) == person.side]
    final = pick(rng, fitting)
    admitted_as = profile.get("admitted_as", profile.get("working", final))  # `working`: right, not yet specified
    listed = [("AD", admitted_as, record.admitted + between(rng, (50, 170)))]
    listed.append(("DD", final, record.end))
    listed += [("DD", other, record.end) for other in sometimes(rng, profile.get("secondary", []))]
    used = {entry["code"][:3] for role, entry, _ in listed if role == "DD"}
    for code, display in coded_comorbidities(record.content, person):
        if code[:3] not in used:
            listed.append(("CM", {"code": code, "display": display}, record.end))
    ranks: dict[str, int] = {}
    diagnoses = []
    for role, entry, recorded in listed:
        ranks[role] = ranks.get(role, 0) + 1
        condition = writer.add(
            "Condition",
            writer.next_id("diagnosis"),
            verificationStatus={"coding": [{"system": HL7 + "condition-ver-status", "code": "confirmed"}]}
            if role != "AD"
            else {"coding": [{"system": HL7 + "condition-ver-status", "code": "provisional"}]},
            category=category("condition-category", "encounter-diagnosis"),
            code=concept(ICD10, entry["code"], entry["display"]),
            subject=writer.reference(writer.patient_id),
            encounter=writer.reference(writer.case_id),
            recordedDate=writer.time(recorded),
        )
        use = {"coding": [{"system": HL7 + "diagnosis-role", "code": role}]}
        diagnoses.append({"condition": writer.reference(condition), "use": use, "rank": ranks[role]})
    return diagnoses


def coded_comorbidities(content: Content, person: Person) -> list[tuple[str, str]]:
    """Returns the ICD-10-CM codes and names of a patient's known illnesses, combined where the guidelines demand it."""
    facts = content.common["comorbidities"]
    codes = {name: (facts[name]["icd"], facts[name]["icd_name"]) for name in person.comorbidities}
    replaced: set[str] = set()
    for rule in content.common["combined_codes"]:
        if rule["instead_of"] not in replaced and all(name in codes for name in rule["all"]):
            codes[rule["instead_of"]] = (rule["icd"], rule["icd_name"])
            replaced.add(rule["instead_of"])
    return list(codes.values())


def _weighted(rng: random.Random, weights: dict[str, float]) -> str:
    return str(_weighted_item(rng, [[weight, name] for name, weight in weights.items()]))


def _weighted_item(rng: random.Random, items: list[list[Any]]) -> Any:
    point = rng.random() * sum(weight for weight, _ in items)
    for weight, item in items:
        point -= weight
        if point < 0:
            return item
    return items[-1][1]
