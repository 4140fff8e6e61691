"""Who reads what: shares, overlap, order, readers who come later, and what is open of a case."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from clinical_data.errors import UsageError
from evaluation.reading.form import Own, Reason, Review, Say, Verdict
from evaluation.reading.readers import Reader
from evaluation.reading.work_list import (
    CaseStep,
    State,
    address,
    assigned,
    by_case,
    disputed_keys,
    overlap_of,
    settling,
    tasks_of,
)

FULL = {"view-first", "first", "view-after", "after", "view-record", "finished"}


def reader(name, **more):
    return Reader(1, name, "", "", 0, more.get("adjudicator", False), more.get("disabled", False))


def step(case, name="a", clock=60, position=0, occurrence=1):
    key = (case, name, occurrence)
    return CaseStep(key, address(key), case, clock, "", "", position, ("A",))


CASES = by_case([step(f"c{i}", name, clock) for i in range(60) for name, clock in (("a", 60), ("b", 90))])
READERS = [reader(name) for name in ("Ann", "Ben", "Cem")]


def holders(found):
    return {case: {name for name, cases in found.items() if case in cases} for case in CASES}


def test_without_an_overlap_all_read_all_in_orders_of_their_own():
    found = assigned(CASES, READERS, {}, None)
    assert all(sorted(cases) == sorted(CASES) for cases in found.values())
    assert len({tuple(cases) for cases in found.values()}) == 3
    assert found == assigned(dict(reversed(CASES.items())), READERS[::-1], {}, None)


@pytest.mark.parametrize(("overlap", "doubled"), [(0, 0), (1, 1), (20, 10), (21, 11), (120, 60), (999, 60)])
def test_an_overlap_is_read_by_two_and_the_rest_by_one(overlap, doubled):
    numbers = [len(names) for names in holders(assigned(CASES, READERS, {}, overlap)).values()]
    assert sorted(numbers) == [1] * (60 - doubled) + [2] * doubled


def test_every_reader_gets_a_fair_share():
    found = assigned(CASES, READERS, {}, 0)
    assert all(10 <= len(cases) <= 32 for cases in found.values())


def test_a_reader_who_comes_later_takes_nothing_that_is_begun():
    before = assigned(CASES, READERS[:2], {}, 20)
    marks = {"Ann": {(case, "a", 1): {"view-first"} for case in before["Ann"][:15]}}
    after = assigned(CASES, READERS, marks, 20)
    assert set(before["Ann"][:15]) <= set(after["Ann"])
    assert after["Cem"]
    for case, names in holders(after).items():
        kept = {name for name in ("Ann", "Ben") if case in before[name]}
        assert names <= kept | {"Cem"}
        assert len(names) == len(kept)


def test_what_a_reader_leaves_unfinished_goes_to_another_and_what_is_finished_counts():
    done, left = "c1", "c2"
    marks = {"Ann": {("c1", "a", 1): FULL, ("c1", "b", 1): FULL, ("c2", "a", 1): {"view-first"}}}
    found = holders(assigned(CASES, [reader("Ann", disabled=True), reader("Ben")], marks, 0))
    assert found[done] == {"Ann"}
    assert "Ben" in found[left]


def test_an_overlap_is_a_share_a_number_or_all():
    assert [overlap_of(text, 30) for text in ("20%", "0%", "7", "all", "")] == [6, 0, 7, None, None]
    assert overlap_of("10%", 31) == 4
    for text in ("101%", "-1", "half", "1.5"):
        with pytest.raises(UsageError, match="overlap"):
            overlap_of(text, 30)


def test_steps_of_a_case_stand_by_clock_and_a_loop_begun_first_is_ended_first():
    steps = [
        step("c", "late", 90),
        step("c", "tests", 60, 1, 2),
        step("c", "results", 60, 2),
        step("c", "tests", 45, 1),
    ]
    assert [s.key[1:] for s in by_case(steps)["c"]] == [("tests", 1), ("results", 1), ("tests", 2), ("late", 1)]


A, B, C = (step("c", name, clock) for name, clock in (("a", 60), ("b", 90), ("c", 120)))
P, L, W, R, D, X = State.OPEN, State.LOCKED, State.WAITING, State.RECORD, State.DONE, State.CLOSED


@pytest.mark.parametrize(
    ("kinds", "states"),
    [
        ((set(), set(), set()), (P, L, L)),
        (({"view-first"}, set(), set()), (P, L, L)),
        (({"first"}, set(), set()), (P, L, L)),
        (({"first", "after"}, set(), set()), (W, P, L)),
        (({"first", "after"}, {"first"}, set()), (W, P, L)),
        (({"first", "after"}, {"first", "after"}, {"first"}), (W, W, P)),
        (({"first", "after"}, {"first", "after"}, {"first", "after"}), (R, R, R)),
        ((FULL, {"first", "after"}, {"first", "after"}), (D, R, R)),
        ((FULL, FULL, FULL), (D, D, D)),
        (({"first", "after", "view-record"}, {"first", "after"}, set()), (R, R, X)),
        ((set(), FULL, FULL), (X, D, D)),
    ],
)
def test_what_is_open_of_a_case(kinds, states):
    marks = {s.key: own for s, own in zip((A, B, C), kinds, strict=True)}
    assert tuple(t.state for t in tasks_of([A, B, C], marks)) == states


def test_no_state_shows_a_later_chart_or_a_record_too_early():
    """Whatever a reader did, at most one step of a case is open, and before it lie only answered ones."""
    from itertools import product

    stages = [set(), {"first"}, {"first", "after"}, {"first", "after", "view-record"}, FULL]
    for kinds in product(stages, repeat=3):
        tasks = tasks_of([A, B, C], {s.key: own for s, own in zip((A, B, C), kinds, strict=True)})
        assert sum(t.state is P for t in tasks) <= 1
        for before, after in pairwise(tasks):
            if after.state is P:
                assert "after" in kinds[tasks.index(before)]
        if any(t.state is R for t in tasks):
            assert all("after" in own for own in kinds) or any("view-record" in own for own in kinds)


def review(name, verdict=Verdict.ACCEPTED, corrected=(), key=A.key, **more):
    own = Own(("A",), 50)
    return Review(
        name, "", "", 0, "one", key, "", "", "", own, own, {}, verdict, Reason.OTHER, "", corrected, Say.NO, Say.NO, (),
        (), "", "", "", Say.NO, 0.0, False, more.get("adjudicates", False), "t",
    )  # fmt: skip


def test_readings_differ_by_the_answer_that_is_left_standing():
    over = Verdict.OVERRIDDEN
    answers = {A.key: ("A",)}
    assert disputed_keys([review("Ann"), review("Ben")], answers) == set()
    assert disputed_keys([review("Ann"), review("Ben", over, ("A",))], answers) == set()
    assert disputed_keys([review("Ann"), review("Ben", over, ("B",))], answers) == {A.key}
    assert disputed_keys([review("Ann", over, ("C", "B")), review("Ben", over, ("B", "C"))], answers) == set()
    settled = [review("Ann"), review("Ben", over, ("B",)), review("Judge", adjudicates=True)]
    assert disputed_keys(settled, answers) == set()


def test_a_difference_goes_to_one_adjudicator_and_stays_there():
    judges = [reader("Joy", adjudicator=True), reader("Jim", adjudicator=True), *READERS]
    cases = {"c": [A, B, C]}
    assert settling(cases, judges, {}, {A.key}, {"c"}) == {"Joy": {}, "Jim": {}}
    found = settling(cases, judges, {}, {A.key}, set())
    (first,) = [name for name, own in found.items() if own]
    assert found[first] == {"c": [A]}
    other = ({"Joy", "Jim"} - {first}).pop()
    begun = {other: {A.key: {"view-first"}}}
    assert settling(cases, judges, begun, {A.key, B.key}, {"c"}) == {first: {}, other: {"c": [A, B]}}
    gone = [replace(j, disabled=j.name == first) for j in judges]
    assert settling(cases, gone, {}, {A.key}, set())[other] == {"c": [A]}
