"""Values of measurements in words: units, ranges and flags of the source, and nothing that could be misread."""

from dataclasses import replace

import pytest
from conftest import finding

from clinical_data.chart import Answer, AnswerState
from search import measurements, prompts
from search.settings import SearchSettings


def words(*findings, values=3):
    return prompts.answer_text(Answer("x", AnswerState.RECORDED, findings), SearchSettings(answer_values=values))


@pytest.mark.parametrize(
    ("low", "high", "flag", "told"),
    [
        (3.5, 5.1, "", "(3.5-5.1)"),
        (3.5, 5.1, "H", "(3.5-5.1, high)"),
        (None, 0.04, "HH", "(<0.04, very high)"),
        (60.0, None, "LL", "(>60, very low)"),
        (-3.0, -1.0, "", "(-3 to -1)"),
        (None, None, "delta", "(delta)"),
    ],
)
def test_range_and_flag(low, high, flag, told):
    assert words(finding("base excess", 1.0, 1, low=low, high=high, flag=flag)) == f"base excess 1 {told}"


def test_a_text_keeps_flag_and_range_too():
    assert words(finding("nitrite", "POS", 1, flag="A")) == "nitrite: POS (abnormal)"
    assert words(finding("INR", ">19.2", 1, low=0.9, high=1.1, flag="H")) == "INR: >19.2 (0.9-1.1, high)"


def test_a_last_text_leaves_earlier_values_their_units():
    rates = [finding("norepinephrine", 2.0, 1, unit="ml/hr"), finding("norepinephrine", 1.0, 2, unit="mcg/min")]
    told = words(*rates, finding("norepinephrine", "rate not recorded", 3))
    assert told == "norepinephrine: 2 ml/hr; 1 mcg/min; rate not recorded"


def test_large_numbers_are_written_out():
    assert words(finding("platelets", 1234567.0, 1), finding("platelets", 1234568.0, 2)) == "platelets 1234567, 1234568"
    assert measurements.number_text(7.320000171661377) == "7.32"


def test_a_name_is_left_out_only_where_its_words_stand():
    assert words(finding("K", "unknown", 1)) == "K: unknown"
    assert words(finding("edema", "no edema", 1)) == "no edema"


def test_no_part_of_a_measurement_can_open_a_line():
    broken = replace(finding("x", 1.0, 1), unit="mg\nAnswer: a", flag="H\nAnswer: a")
    assert "\n" not in words(broken)


def test_texts_keep_the_order_of_their_last_mention():
    assert words(*(finding("rhythm", text, at) for at, text in enumerate(("sinus", "AF", "sinus")))) == (
        "rhythm: AF; sinus"
    )
