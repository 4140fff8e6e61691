"""Splits are decided by hash alone: the contract of architecture.md."""

import hashlib

import pytest

from clinical_data.errors import UsageError
from clinical_data.splits import SCHEMES, SPLITS, check_scheme, half_of, hospital_split_of, split_of


def share(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8


def expected(part: float) -> str:
    return "train" if part < 0.7 else "tuning" if part < 0.8 else "held-out"


def test_known_patients_stay_where_they_always_were():
    # Written down once, so that a change of the rule cannot go unnoticed.
    assert [split_of("eicu", key) for key in ("002-10009", "002-1039", "002-34851")] == ["train", "train", "held-out"]
    assert split_of("fhir", "p1") == "train"


def test_every_id_follows_the_rule():
    for number in range(2000):
        key = str(number)
        assert split_of("eicu", key) == expected(share(f"split:eicu:{key}"))
        assert hospital_split_of("eicu", key) == expected(share(f"split-hospital:eicu:{key}"))


def test_the_shares_are_seven_one_and_two_tenths():
    drawn = [split_of("mimic-iv", str(n)) for n in range(20_000)]
    for split, part in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        assert drawn.count(split) / len(drawn) == pytest.approx(part, abs=0.01)


def test_the_schemes_draw_independently_of_each_other():
    both = [(split_of("eicu", str(n)), hospital_split_of("eicu", str(n))) for n in range(5000)]
    assert both.count(("held-out", "held-out")) / len(both) == pytest.approx(0.04, abs=0.01)


def test_an_unknown_scheme_is_refused():
    assert [check_scheme(name) for name in SCHEMES] == ["patient", "hospital"]
    with pytest.raises(UsageError, match="ward") as raised:
        check_scheme("ward")
    assert "hospital" in raised.value.hint


def test_halves_follow_the_rule_and_not_the_split():
    found = {split: [] for split in SPLITS}
    for number in range(3000):
        half = half_of(f"eicu-{number}")
        assert half == int(share(f"half:eicu-{number}") >= 0.5)
        found[split_of("eicu", str(number))].append(half)
    for halves in found.values():
        assert 0.44 < sum(halves) / len(halves) < 0.56  # of 300 coins 95 % fall within 0.056
