"""Vital signs in words: the usual order, what is out of range, and nothing lost or invented."""

import hashlib
from dataclasses import replace
from pathlib import Path

import conftest
import pytest

from clinical_data.case import Coding, FindingKind
from clinical_data.chart import Answer, AnswerState
from search import measurements, prompts, vital_signs
from search.settings import SearchSettings

LOINC = "http://loinc.org"


def finding(name, value, charted, unit="", **other):
    return replace(conftest.finding(name, value, charted, unit=unit), kind=FindingKind.VITAL, **other)


def words(*findings, values=3, chars=700):
    answer = Answer("vital_signs", AnswerState.RECORDED, findings)
    return prompts.answer_text(answer, SearchSettings(answer_values=values, answer_chars=chars))


def test_signs_stand_in_the_usual_order_before_what_else_was_measured():
    told = words(
        finding("admission weight", 81.0, 5, unit="kg"),
        finding("oxygen saturation", 90.0, 5, unit="%"),
        finding("temperature", 39.4, 5, unit="Cel"),
        finding("diastolic blood pressure", 55.0, 5, unit="mmHg"),
        finding("heart rate", 138.0, 5, unit="/min"),
        finding("respiratory rate", 22.0, 5, unit="/min"),
        finding("systolic blood pressure", 88.0, 5, unit="mmHg"),
    )
    assert told == (
        "HR 138 /min (very high); BP 88/55 mmHg (very low); RR 22 /min (high); SpO2 90 % (very low); "
        "temperature 39.4 °C (high); admission weight 81 kg"
    )


def test_what_is_cut_away_is_the_weight_and_not_the_pulse():
    weight, pulse = finding("admission weight", 81.0, 5, unit="kg"), finding("heart rate", 70.0, 5, unit="/min")
    assert words(weight, pulse, chars=14) == "HR 70 /min; ..."


@pytest.mark.parametrize(
    ("name", "unit", "value", "word"),
    [
        # National Early Warning Score 2, chart 1: score 3, 2 and 1 at the edges of each band
        ("heart rate", "/min", 40, "very low"),
        ("heart rate", "/min", 41, "slightly low"),
        ("heart rate", "/min", 50, "slightly low"),
        ("heart rate", "/min", 51, ""),
        ("heart rate", "/min", 90, ""),
        ("heart rate", "/min", 91, "slightly high"),
        ("heart rate", "/min", 111, "high"),
        ("heart rate", "/min", 130, "high"),
        ("heart rate", "/min", 131, "very high"),
        ("respiratory rate", "/min", 8, "very low"),
        ("respiratory rate", "/min", 9, "slightly low"),
        ("respiratory rate", "/min", 12, ""),
        ("respiratory rate", "/min", 20, ""),
        ("respiratory rate", "/min", 21, "high"),
        ("respiratory rate", "/min", 25, "very high"),
        ("oxygen saturation", "%", 91, "very low"),
        ("oxygen saturation", "%", 92, "low"),
        ("oxygen saturation", "%", 95, "slightly low"),
        ("oxygen saturation", "%", 96, ""),
        ("temperature", "Cel", 35.0, "very low"),
        ("temperature", "Cel", 36.0, "slightly low"),
        ("temperature", "Cel", 36.1, ""),
        ("temperature", "Cel", 38.0, ""),
        ("temperature", "Cel", 38.1, "slightly high"),
        ("temperature", "Cel", 39.1, "high"),
        ("Temperature Fahrenheit", "[degF]", 98.6, ""),
        ("Temperature Fahrenheit", "[degF]", 103.0, "high"),
        ("temperature", "[degF]", 94.0, "very low"),
        ("temperature", "", 39.5, ""),  # of which unit nobody knows
        ("Glasgow Coma Scale", "", 15, ""),
        ("Glasgow Coma Scale", "", 13, "slightly low"),
        ("Glasgow Coma Scale", "", 9, "low"),
        ("Glasgow Coma Scale", "", 8, "very low"),
    ],
)
def test_how_far_out_of_range(name, unit, value, word):
    told = words(finding(name, float(value), 1, unit=unit))
    assert told.endswith(f" ({word})") if word else "(" not in told


@pytest.mark.parametrize(
    ("high", "low", "word"),
    [(90, 40, "very low"), (95, 50, "low"), (110, 60, "slightly low"), (140, 90, ""), (150, 80, "high"),
     (130, 95, "high"), (170, 125, "very high"), (200, 100, "very high"), (100, 95, "low")],
)  # fmt: skip
def test_pressures_are_paired(high, low, word):
    told = words(
        finding("systolic blood pressure", float(high), 1, unit="mmHg"),
        finding("diastolic blood pressure", float(low), 1, unit="mmHg"),
    )
    assert told == f"BP {high}/{low} mmHg" + (f" ({word})" if word else "")


def test_the_latest_pressure_counts_by_cuff_or_by_line():
    line = [
        finding("systolic blood pressure (arterial line)", 120.0, 10, unit="mmHg"),
        finding("diastolic blood pressure (arterial line)", 60.0, 10, unit="mmHg"),
    ]
    cuff = finding("cuff blood pressure", "84/40 (mean 55)", 30, unit="mmHg")
    assert words(*line, cuff, values=1) == "BP 84/40 mmHg (very low)"
    assert words(*line, cuff) == "BP 120/60, 84/40 mmHg (very low)"


def test_half_a_pressure_is_told_as_such():
    assert words(finding("systolic blood pressure", 88.0, 1, unit="mmHg")) == "systolic BP 88 mmHg (very low)"


def test_half_a_pressure_that_is_newer_than_the_last_pair_is_told_after_it():
    high, low = "systolic blood pressure", "diastolic blood pressure"
    pair = [finding(high, 120.0, 10, unit="mmHg"), finding(low, 60.0, 10, unit="mmHg")]
    before, after = finding(high, 99.0, 5, unit="mmHg"), finding(high, 84.0, 30, unit="mmHg")
    assert words(before, *pair, after) == "BP 120/60 mmHg; systolic BP 84 mmHg (very low)"


def test_only_equal_neighbours_are_one():
    pulses = [finding("heart rate", value, at) for at, value in enumerate((120.0, 110.0, 120.0, 120.0))]
    assert words(*pulses) == "HR 120, 110, 120 (high)"
    assert words(*pulses, values=1) == "HR 120 (high)"
    sodium = [finding("sodium", value, at, unit="mmol/L") for at, value in enumerate((120.0, 110.0, 120.0, 120.0))]
    assert words(*sodium) == "sodium 120, 110, 120 mmol/L"
    pressures = [finding("cuff blood pressure", value, at) for at, value in enumerate(("84/40", "99/50", "84/40"))]
    assert words(*pressures) == "BP 84/40, 99/50, 84/40 mmHg (very low)"


def test_values_of_several_units_keep_their_own():
    warm, warmer = finding("temperature", 98.6, 1, unit="[degF]"), finding("temperature", 39.5, 2, unit="Cel")
    assert words(warm, warmer) == "temperature 98.6 °F, 39.5 °C (high)"
    assert words(warm, warmer, values=1) == "temperature 39.5 °C (high)"
    assert words(finding("glucose", 5.5, 1, unit="mmol/L"), finding("glucose", 120.0, 2, unit="mg/dL")) == (
        "glucose 5.5 mmol/L, 120 mg/dL"
    )


def test_range_and_flag_of_the_source_stand_beside_our_word():
    pulse = finding("heart rate", 138.0, 1, unit="/min", low=60.0, high=100.0, flag="H")
    assert words(pulse) == "HR 138 /min (60-100, very high)"
    assert words(replace(pulse, value=85.0, flag="A")) == "HR 85 /min (60-100, abnormal)"
    assert words(replace(pulse, value=45.0)) == "HR 45 /min (60-100, high, slightly low)"  # both, where they differ
    high = finding("systolic blood pressure", 88.0, 1, unit="mmHg", low=90.0, high=140.0, flag="L")
    low = finding("diastolic blood pressure", 50.0, 1, unit="mmHg", low=60.0, high=90.0)
    assert words(high, low) == "BP 88/50 mmHg (systolic BP 90-140, low; diastolic BP 60-90; very low)"


def test_a_blood_gas_is_no_pulse_oximetry():
    gas = finding("Oxygen saturation in Arterial blood", 65.0, 1, unit="%", code=Coding(LOINC, "2708-6", "sO2"))
    assert words(gas) == "SpO2 65 % (very low)"
    assert words(replace(gas, kind=FindingKind.LABORATORY)) == "sO2 65 %"


def test_a_word_needs_the_unit_that_its_bands_are_of():
    assert words(finding("oxygen saturation", 0.97, 1, unit="1")) == "SpO2 0.97"
    kilopascal = [finding(f"{name} blood pressure", 11.0, 1, unit="kPa") for name in ("systolic", "diastolic")]
    assert words(*kilopascal) == "systolic BP 11 kPa; diastolic BP 11 kPa"


def test_the_coma_scale_is_summed_only_of_all_its_parts():
    eyes, verbal, motor = (finding(f"Glasgow Coma Scale, {n}", v, 1) for n, v in
                           (("eyes", 3.0), ("verbal", 4.0), ("motor", 5.0)))  # fmt: skip
    assert words(motor, eyes, verbal) == "Glasgow Coma Scale 12 (low; E3 V4 M5)"
    assert words(motor, eyes) == "Glasgow Coma Scale E3 M5"
    assert words(finding("Glasgow Coma Scale", 8.0, 1), eyes) == "Glasgow Coma Scale 8 (very low; E3)"
    later = finding("Glasgow Coma Scale, motor", 1.0, 9)
    assert (
        words(motor, eyes, verbal, later) == "Glasgow Coma Scale 12 (low; E3 V4 M5), then M1"
    )  # never 8, which nobody charted
    assert words(motor, eyes, verbal, finding("Glasgow Coma Scale", 15.0, 9)) == "Glasgow Coma Scale 12, 15"


def test_scores_of_two_assessments_of_one_minute_are_not_mixed():
    def part(name, value, at=1):
        return finding(f"Glasgow Coma Scale, {name}", value, at)

    awake = [part("eyes", 4.0), part("verbal", 5.0), part("motor", 6.0)]
    assert words(*awake, part("eyes", 1.0), part("verbal", 1.0)) == "Glasgow Coma Scale E4/1 V5/1 M6"
    assert words(part("eyes", 1.0), part("verbal", 2.0, 2), part("motor", 3.0, 3)) == "Glasgow Coma Scale E1 V2 M3"
    total = finding("Glasgow Coma Scale", 8.0, 1, low=13.0, high=15.0, flag="L")
    assert words(total) == "Glasgow Coma Scale 8 (13-15, low; very low)"


def test_pressures_of_one_minute_are_paired_as_they_were_taken():
    def half(which, how, value):
        return finding(f"{which} blood pressure{how}", value, 5, unit="mmHg")

    line = [half("systolic", " (arterial line)", 150.0), half("diastolic", " (arterial line)", 95.0)]
    cuff = [half("systolic", "", 84.0), half("diastolic", "", 40.0)]
    mixed = [cuff[0], line[1], line[0], cuff[1]]
    assert words(*mixed) == "BP 150/95, 84/40 mmHg (very low)"
    assert words(line[0], cuff[1]) == "systolic BP 150 mmHg (high); diastolic BP 40 mmHg"
    by_code = [replace(half("x", "", v), code=Coding(LOINC, c, n)) for v, c, n in
               ((120.0, "8480-6", "Systolischer Druck"), (80.0, "8462-4", "Diastolischer Druck"))]  # fmt: skip
    assert words(*by_code) == "BP 120/80 mmHg"


def test_a_low_mean_pressure_is_told():
    assert words(finding("cuff blood pressure", "110/40 (mean 63)", 1)) == "BP 110/40 mmHg (slightly low; low mean 63)"
    assert words(finding("cuff blood pressure", "110/50 (mean 70)", 1)) == "BP 110/50 mmHg (slightly low)"
    assert words(finding("cuff blood pressure", "120/80 lying, 80/50 standing", 1)) == (
        "cuff blood pressure: 120/80 lying, 80/50 standing"
    )


def test_of_a_child_no_word_of_adults_is_said():
    pulse = finding("heart rate", 140.0, 1, unit="/min", flag="H")
    answer = Answer("vital_signs", AnswerState.RECORDED, (pulse,), adult=False)
    assert prompts.answer_text(answer) == "HR 140 /min (high)"  # the source's own flag stays


@pytest.mark.parametrize(
    ("name", "unit", "value"),
    [("oxygen saturation", "%", 0.97), ("heart rate", "/min", 0.0), ("respiratory rate", "/min", 340.0),
     ("temperature", "[degF]", 36.8), ("temperature", "Cel", 98.6), ("systolic blood pressure", "mmHg", 0.0)],
)  # fmt: skip
def test_what_nobody_has_gets_no_word(name, unit, value):
    assert "(" not in words(finding(name, value, 1, unit=unit))


def test_loinc_tells_a_sign_by_its_code():
    by_code = replace(finding("x", 55.0, 1), code=Coding(LOINC, "8867-4", "Frequenz"))
    other = replace(finding("x", 55.0, 1), code=Coding(LOINC, "8884-9", "Heart rate rhythm"))
    assert vital_signs.sign_of(by_code) is vital_signs.PULSE
    assert vital_signs.sign_of(other) is None


def test_words_are_no_numbers():
    told = words(finding("heart rate", "irregular", 1), finding("Glasgow Coma Scale", "unable to score", 1))
    assert told == "heart rate: irregular; Glasgow Coma Scale: unable to score"


def test_the_hash_of_the_templates_covers_the_words_of_signs():
    both = b"".join(Path(module.__file__).read_bytes() for module in (prompts, measurements, vital_signs))
    assert hashlib.sha256(both).hexdigest() == prompts.TEMPLATE_HASH
