"""A synthetic person, and the vital signs and laboratory values of an illness over the days of a stay."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from clinical_data.demo.content import Content, Profile, chance, pick

VITALS = {"hr": (82.0, 9.0), "sbp": (132.0, 13.0), "rr": (16.5, 1.4), "temp": (36.8, 0.25), "spo2": (97.0, 0.9)}
LIMITS = {"hr": (38, 190), "sbp": (70, 230), "rr": (8, 44), "temp": (34.0, 40.6), "spo2": (70, 100), "gcs": (3, 15)}
RECOVERY = (1.0, 0.7, 0.45, 0.3, 0.18, 0.1)
DECLINE = (1.0, 1.15, 1.35, 1.6, 1.8, 2.0)
# oxygen dissociation: saturation in % -> partial pressure in mm[Hg] (Severinghaus 1979, rounded)
OXYGEN = ((70, 37), (80, 45), (85, 50), (88, 55), (90, 59), (92, 64), (94, 72), (96, 83), (98, 104), (100, 120))


@dataclass(frozen=True, slots=True)
class Person:
    """A synthetic patient at arrival.

    Attributes:
        sex: `female` or `male`.
        age: years.
        comorbidities: names of `common.yaml`, in its order.
        side: the side of a one-sided illness, `left` or `right`.
        smoking: `never`, `former` or `current`.
        drinks: dependent on alcohol.
    """

    sex: str
    age: int
    comorbidities: tuple[str, ...]
    side: str
    smoking: str
    drinks: bool


def sample_person(content: Content, profile: Profile, rng: random.Random) -> Person:
    """Draws a patient who may have this illness."""
    sex = "female" if chance(rng, profile["female"]) else "male"
    mean, sd, low, high = profile["age"]
    age = round(min(max(rng.gauss(mean, sd), low), high))
    chances: Mapping[str, float] = profile.get("comorbidities", {})
    found = []
    for name, facts in content.common["comorbidities"].items():
        young, old = facts["rate"]
        usual = min(max(young + (old - young) * (age - 40) / 35, 0.0), 0.8)
        drawn = chance(rng, chances.get(name, usual))
        if (
            drawn
            and facts.get("sex", sex) == sex
            and age >= facts.get("from_age", 0)
            and name not in profile.get("never", ())
        ):
            found.append(name)
    if "diabetes1" in found and "diabetes2" in found:
        found.remove("diabetes2")
    facts_of = content.common["comorbidities"]
    smoker = any(facts_of[name].get("smoker") for name in found)
    smoking = (
        pick(rng, ("former", "former", "current")) if smoker else pick(rng, ("never", "never", "former", "current"))
    )
    drinks = any(facts_of[name].get("drinker") for name in found)
    return Person(sex, age, tuple(found), str(profile.get("side") or pick(rng, ("left", "right"))), smoking, drinks)


class Physiology:
    """Values of one patient over one stay; the same object gives the same values only if asked in the same order.

    One latent severity moves all abnormal values of the illness together (weight 0.6), so that they correlate.
    """

    def __init__(self, content: Content, profile: Profile, person: Person, rng: random.Random, dies: bool) -> None:
        self._analytes: dict[str, dict[str, Any]] = content.common["analytes"]
        self._course: Mapping[str, list[float]] = profile.get("course", {})
        self._usual = DECLINE if dies else RECOVERY
        self._rng = rng
        self._severity = min(max(rng.gauss(0.9 if dies else 0, 1), -1.5), 1.8)
        # target range 88-92 % in chronic obstructive disease, else 92-96 %. Source: British Thoracic Society, 2017
        self.oxygen_below = 88.0 if "copd" in person.comorbidities else 92.0
        self._base: dict[str, float] = {}
        self._peak: dict[str, float] = {}
        self._set_vitals(profile, person)
        self._set_labs(content, profile, person)

    def vital(self, name: str, day: float, on_oxygen: bool = False) -> float:
        """Returns `hr`, `sbp` (mm[Hg]), `rr`, `temp` (Cel), `spo2` (%) or `gcs`, `day` days after arrival."""
        if name == "gcs":
            deficit = (15 - self._peak["gcs"]) * _factor(self._usual, day * 1.5)
            return float(min(max(round(15 - deficit), 3), 15))
        base, peak = self._base[name], self._peak[name]
        value = base + (peak - base) * _factor(self._usual, day) + self._rng.gauss(0, VITALS[name][1] * 0.35)
        if name == "spo2" and on_oxygen:
            value = max(value, self.oxygen_below + self._rng.random() * 3)
        low, high = LIMITS[name]
        return round(min(max(value, low), high), 1 if name == "temp" else 0)

    def diastolic(self, systolic: float) -> float:
        """Returns a diastolic pressure in mm[Hg] that fits a systolic one."""
        return round(min(27 + 0.4 * systolic + self._rng.gauss(0, 4), systolic - 22))

    def draw(self, names: list[str], day: float) -> dict[str, float | bool]:
        """Returns laboratory values of one blood or urine sample; values that depend on each other fit together."""
        sample = {name: self._lab(name, day) for name in self._analytes}
        if sample["hco3"] > 22:  # renal answer to hyperventilation
            sample["hco3"] -= 0.2 * max(0.0, 38 - sample["pco2"])
        if sample["wbc"] > 10:  # a raised count is mostly neutrophils
            sample["neut"] = max(sample["neut"], min(90.0, 62 + 2.4 * (sample["wbc"] - 7)))
        sample["hct"] = sample["hb"] * 2.98 + self._rng.gauss(0, 0.4)
        gap = 11 + 0.9 * max(0.0, sample["lactate"] - 1.2) + 1.5 * sample["bhb"] + (4 if sample["cr"] > 4 else 0)
        sample["cl"] = sample["na"] - sample["hco3"] - gap
        sample["pt"] = 11.9 * sample["inr"]
        sample["lymph"] = max(3.0, (100 - sample["neut"]) * 0.7)
        sample["dbili"] = sample["tbili"] * (0.6 if sample["tbili"] > 1.5 else 0.25)
        sample["ahco3"] = sample["hco3"] - 1.2
        sample["ph"] = 6.1 + math.log10(sample["ahco3"] / (0.0307 * sample["pco2"]))  # Henderson-Hasselbalch
        sample["po2"] = _interpolate(OXYGEN, self.vital("spo2", day)) + self._rng.gauss(0, 1.5)
        sample["sosm"] = 2 * sample["na"] + sample["glu"] / 18 + sample["bun"] / 2.8 + sample["ethanol"] / 4.6 + 5
        return {name: self._shown(name, sample[name]) for name in names}

    def _set_vitals(self, profile: Profile, person: Person) -> None:
        for name, (mean, sd) in VITALS.items():
            base = self._rng.gauss(mean, sd * 0.7)
            if name == "sbp" and "hypertension" in person.comorbidities:
                base += 8
            if name == "spo2":
                base = min(base - (3.5 if "copd" in person.comorbidities else 0), 99)
            self._base[name] = base
            target = profile.get("vitals", {}).get(name)
            self._peak[name] = base if target is None else self._drawn(target, mean, False)
        if self._peak["spo2"] > self._base["spo2"]:
            self._peak["spo2"] = self._base["spo2"]
        gcs = profile.get("vitals", {}).get("gcs")
        self._peak["gcs"] = 15.0 if gcs is None else min(14.0, self._drawn(gcs, 15, False))

    def _set_labs(self, content: Content, profile: Profile, person: Person) -> None:
        for name, facts in self._analytes.items():
            wanted = profile.get("labs", {}).get(name)
            if facts.get("presence"):
                positive = facts["base"] if wanted is None else wanted
                older_woman = person.sex == "female" and person.age > 70
                if wanted is None and name == "ule" and older_woman:
                    positive = 0.25  # asymptomatic bacteriuria
                self._base[name] = self._peak[name] = float(chance(self._rng, positive))
                continue
            log = bool(facts.get("log"))
            usual = facts.get("base_female", facts["base"]) if person.sex == "female" else facts["base"]
            for comorbidity in person.comorbidities:
                usual = content.common["comorbidities"][comorbidity].get("labs", {}).get(name, usual)
            mean, sd = usual
            for comorbidity in person.comorbidities:
                mean *= content.common["comorbidities"][comorbidity].get("scale", {}).get(name, 1)
            if name in ("bnp", "ddimer"):  # both rise with age
                mean *= math.exp(0.018 * (person.age - 55))
            noise = self._rng.gauss(0, sd)
            self._base[name] = mean * math.exp(noise) if log else mean + noise
            peak = self._base[name] if wanted is None else self._drawn(wanted, mean, log)
            if wanted is not None and wanted[0] > mean:
                peak = max(peak, self._base[name])
            elif wanted is not None:
                peak = min(peak, self._base[name])
            self._peak[name] = peak

    def _drawn(self, target: list[float], healthy: float, log: bool) -> float:
        mean, sd = target
        spread = min(max(0.6 * self._severity + 0.8 * self._rng.gauss(0, 1), -1.7), 1.7) * sd
        if mean < healthy:
            spread = -spread
        return float(mean * math.exp(spread)) if log else float(mean + spread)

    def _lab(self, name: str, day: float) -> float:
        facts = self._analytes[name]
        if facts.get("presence"):
            return self._peak[name]
        base, peak = self._base[name], self._peak[name]
        value = base + (peak - base) * _factor(self._course.get(name, self._usual), day)
        if facts.get("log"):
            return max(value, 0.3 * base) * math.exp(self._rng.gauss(0, 0.04))
        return max(value + self._rng.gauss(0, facts["base"][1] * 0.2), 0.0)

    def _shown(self, name: str, value: float) -> float | bool:
        facts = self._analytes[name]
        return value > 0.5 if facts.get("presence") else round(value, facts["digits"])


def _factor(course: tuple[float, ...] | list[float], day: float) -> float:
    """Interpolates a course given at days 0, 1, 2, ...; its last value holds afterwards."""
    return _interpolate(tuple(enumerate(course)), day)


def _interpolate(points: tuple[tuple[float, float], ...], x: float) -> float:
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]
