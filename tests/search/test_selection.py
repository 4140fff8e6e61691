"""Final selection rules, by hand and by what must hold for all of them."""

import math

import pytest
from conftest import VOCABULARY
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from clinical_data.errors import UsageError
from search.answers import rank
from search.problem import Models
from search.selection import FINAL_RULES, final_rule
from search.strategies import run_search
from search.trajectory import Candidate, Conclusion, Status, Trajectory, Verification

NOTHING = Conclusion((), None, draws=4, unparseable=4)


def candidate(node, key, *, value=0.5, times=1, agreed=None, path=()):
    conclusion = NOTHING if key is None else rank({key: 0.75, "embolism": 0.25}, VOCABULARY)
    return Candidate(node, Trajectory((), conclusion), times, value, Verification(agreed), path)


def choose(rule, *candidates, abstain_below=0.0):
    return final_rule(rule)(candidates, VOCABULARY, abstain_below)


def found(verdict):
    return verdict.conclusion.answer_key, verdict.winner.node, verdict.status


SHORT = candidate(1, "sepsis", value=0.5, path=(0.5,))
LONG = candidate(2, "pneumonia", value=0.9, path=(0.6, 0.6, 0.9))


def test_product_favours_short_paths_and_geometric_does_not():
    """0.5 against 0.6 x 0.6 x 0.9 = 0.324; the cube root of that is 0.687."""
    by_product, by_mean = choose("product", SHORT, LONG), choose("geometric", SHORT, LONG)
    assert found(by_product) == ("sepsis", 1, Status.UNVERIFIED)
    assert by_product.margin == pytest.approx((0.5 - 0.324) / (0.5 + 0.324))
    assert found(by_mean) == ("pneumonia", 2, Status.UNVERIFIED)
    mean = 0.324 ** (1 / 3)
    assert by_mean.margin == pytest.approx((mean - 0.5) / (mean + 0.5))


def test_a_class_counts_by_its_best_path_not_by_their_number():
    many = [candidate(n, "sepsis", path=(0.4,)) for n in range(3, 9)]
    assert found(choose("product", *many, candidate(9, "pneumonia", path=(0.5,))))[0] == "pneumonia"
    assert found(choose("majority", *many, candidate(9, "pneumonia", path=(0.5,))))[0] == "sepsis"


@pytest.mark.parametrize("rule", ["verified", "product", "geometric"])
def test_a_rejected_class_cannot_win_over_one_that_the_peer_agreed_with(rule):
    rejected = [candidate(n, "sepsis", value=1.0, agreed=0.25, path=(1.0,)) for n in range(5)]
    verdict = choose(rule, *rejected, candidate(7, "pneumonia", value=0.1, agreed=0.5, path=(0.1,)))
    assert found(verdict) == ("pneumonia", 7, Status.VERIFIED)


def test_without_a_tree_the_value_stands_for_the_path():
    verdict = choose("product", candidate(1, "sepsis", value=0.4), candidate(2, "pneumonia", value=0.6))
    assert found(verdict)[0] == "pneumonia"
    assert verdict.margin == pytest.approx(0.2)


def test_majority_counts_trajectories_and_those_without_an_answer_below_the_line():
    some = [candidate(1, "sepsis", value=0.1, times=3), candidate(2, "pneumonia", value=1.0), candidate(3, None)]
    verdict = choose("majority", *some)
    assert found(verdict) == ("sepsis", 1, Status.UNVERIFIED)
    assert verdict.margin == pytest.approx((3 - 1) / 5)
    shares = {h.key: h.probability for h in verdict.conclusion.ranked}
    assert shares == pytest.approx({"sepsis": 0.75 * 3 / 4, "pneumonia": 0.75 / 4, "embolism": 0.25})


def test_majority_wins_over_the_peer_and_is_verified_where_that_agrees_with_it():
    peers = candidate(1, "pneumonia", agreed=1.0)
    alone = choose("majority", peers, candidate(2, "sepsis", times=3, agreed=0.0))
    assert found(alone) == ("sepsis", 2, Status.UNVERIFIED)
    assert alone.reason == "the second model agreed with other answers only"
    both = choose("majority", peers, candidate(2, "sepsis", times=3, agreed=0.0), candidate(3, "sepsis", agreed=0.5))
    assert found(both) == ("sepsis", 3, Status.VERIFIED)


def test_a_tied_majority_goes_to_the_greater_value():
    tied = (candidate(1, "pneumonia", value=0.4), candidate(2, "sepsis", value=0.6))
    assert found(choose("majority", *tied))[0] == "sepsis"
    assert choose("majority", *tied, abstain_below=0.02).status is Status.ABSTAIN


def test_best_value_takes_one_trajectory_whatever_the_others_say():
    many = [candidate(n, "sepsis", value=0.7, times=4, agreed=1.0) for n in range(3)]
    verdict = choose("best-value", *many, candidate(9, "pneumonia", value=0.8))
    assert found(verdict) == ("pneumonia", 9, Status.UNVERIFIED)
    assert verdict.margin == pytest.approx((0.8 - 0.7) / (0.8 + 0.7))
    assert found(choose("best-value", *many, candidate(9, "pneumonia", value=0.6))) == ("sepsis", 0, Status.VERIFIED)


def test_verified_weighs_by_number_value_and_agreement():
    """sepsis 2 x 0.5 x 0.5 = 0.5; pneumonia 0.8 x 1 = 0.8; below the line 1 + 0.8 + 0.2."""
    some = [
        candidate(1, "sepsis", value=0.5, times=2, agreed=0.5),
        candidate(2, "pneumonia", value=0.8, agreed=1.0),
        candidate(3, "pneumonia", value=0.2, agreed=0.25),
    ]
    verdict = choose("verified", *some)
    assert found(verdict) == ("pneumonia", 2, Status.VERIFIED)
    assert verdict.margin == pytest.approx((0.8 - 0.5) / 2.0)


@pytest.mark.parametrize("rule", FINAL_RULES)
def test_every_rule_abstains_below_the_margin_and_without_an_answer(rule):
    close = (candidate(1, "sepsis", value=0.500, path=(0.500,)), candidate(2, "pneumonia", value=0.501, path=(0.501,)))
    verdict = choose(rule, *close, abstain_below=0.02)
    assert verdict.status is Status.ABSTAIN
    assert verdict.conclusion.answer_key == "pneumonia"
    assert "less than 2 % apart" in verdict.reason
    empty = choose(rule, candidate(1, None), candidate(2, None), abstain_below=0.02)
    assert (empty.status, empty.winner, empty.margin) == (Status.ABSTAIN, None, None)
    assert (empty.conclusion.answer_key, empty.conclusion.draws, empty.conclusion.unparseable) == (None, 8, 8)
    assert choose(rule).reason == "no answer could be read"


@pytest.mark.parametrize("rule", FINAL_RULES)
def test_every_rule_bears_values_of_zero(rule):
    verdict = choose(rule, candidate(1, "sepsis", value=0.0, path=(0.0, 0.0)), candidate(2, None, value=0.0))
    assert found(verdict)[0] == "sepsis"
    assert 0.0 < verdict.margin <= 1.0
    assert sum(h.probability for h in verdict.conclusion.ranked) == pytest.approx(1.0)


def test_an_unknown_rule_is_named_with_those_there_are():
    with pytest.raises(UsageError, match="gold") as caught:
        final_rule("gold")
    assert "geometric" in caught.value.hint


UNIT = st.floats(0.0, 1.0)
CANDIDATES = st.lists(
    st.builds(
        lambda key, value, times, agreed, path: (key, value, times, agreed, tuple(path)),
        st.sampled_from(["sepsis", "pneumonia", "heart-failure", None]),
        UNIT,
        st.integers(1, 5),
        st.none() | UNIT,
        st.lists(UNIT, max_size=6),
    ),
    max_size=8,
)


def test_equal_counts_of_a_majority_are_a_tie_in_any_order():
    """As sums of shares, 2/14 + 3/14 + 1/14 and 1/14 + 1/14 + 4/14 differ in the last bit."""
    rows = [("sepsis", 2), ("sepsis", 3), ("pneumonia", 1), ("pneumonia", 1), ("pneumonia", 4), ("heart-failure", 2)]
    some = [candidate(n, key, value=0.0, times=times) for n, (key, times) in enumerate([*rows, ("sepsis", 1)])]
    for order in (some, some[::-1]):
        verdict = choose("majority", *order)
        assert (found(verdict)[0], verdict.margin) == ("pneumonia", 0.0)


@given(rows=CANDIDATES, rule=st.sampled_from(list(FINAL_RULES)), delta=st.floats(0.0, 0.3))
@hypothesis_settings(max_examples=300, deadline=None)
def test_what_holds_for_every_rule(rows, rule, delta):
    some = [candidate(n, k, value=v, times=t, agreed=a, path=p) for n, (k, v, t, a, p) in enumerate(rows)]
    verdict = choose(rule, *some, abstain_below=delta)
    again = choose(rule, *reversed(some), abstain_below=delta)
    assert (verdict.status, verdict.winner) == (again.status, again.winner)
    if verdict.winner is None:
        assert all(k is None for k, *_ in rows)
        return
    assert -1e-12 <= verdict.margin <= 1.0 + 1e-12
    assert (verdict.status is Status.ABSTAIN) == (verdict.margin < delta)
    assert verdict.conclusion.answer_key == verdict.winner.trajectory.conclusion.answer_key
    assert sum(h.probability for h in verdict.conclusion.ranked) == pytest.approx(1.0)
    if verdict.status is Status.VERIFIED:
        assert verdict.winner.verification.verified


def test_a_search_fills_in_the_mean_values_along_each_path(problem, models, settings):
    result = run_search("rstar", problem, models, settings, 1)
    nodes = result.tree["nodes"]
    for one in result.candidates:
        node, means = nodes[one.node], []
        while node["parent"] is not None:
            means.append(node["value_sum"] / node["visits"])
            node = nodes[node["parent"]]
        assert one.path_values == tuple(reversed(means))


@pytest.mark.parametrize("rule", FINAL_RULES)
def test_a_whole_search_under_every_rule(rule, problem, models, settings):
    result = run_search(
        "rstar", problem, Models(models.generator, models.peer), settings.with_options(selection=rule), 1
    )
    assert result.conclusion.answer_key is not None
    winner = next(c for c in result.candidates if c.node == result.winner)
    if rule in ("product", "geometric"):
        pool = [c for c in result.candidates if c.verification.verified] or result.candidates
        power = {"product": lambda qs: 1.0, "geometric": lambda qs: 1.0 / len(qs)}[rule]
        merit = [math.prod(c.path_values) ** power(c.path_values) for c in pool]
        assert math.prod(winner.path_values) ** power(winner.path_values) == max(merit)
    if rule == "best-value":
        assert winner.value == max(c.value for c in result.candidates)


@pytest.mark.parametrize("rule", FINAL_RULES)
def test_after_the_answer_the_list_falls_by_probability(rule):
    """A class with a trajectory of its own stands above a more probable one only if it is the answer."""
    shares = {"sepsis": 0.5, "embolism": 0.3, "pneumonia": 0.2}
    strong = Candidate(1, Trajectory((), rank(shares, VOCABULARY)), 3, 0.9, Verification(1.0), (0.9,))
    verdict = choose(rule, strong, candidate(2, "pneumonia", value=0.1, agreed=1.0, path=(0.1,)))
    falling = [h.probability for h in verdict.conclusion.ranked[1:]]
    assert verdict.conclusion.answer_key == "sepsis"
    assert falling == sorted(falling, reverse=True)
