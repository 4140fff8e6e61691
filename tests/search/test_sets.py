"""Set-valued steps: marginals, the chosen set, agreement by Jaccard, and the final choice among sets."""

from dataclasses import replace

import pytest
from conftest import VOCABULARY, make_problem
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from search import prompts
from search.actions import Action, ActionKind
from search.answers import agreement, jaccard, rank_set, set_key
from search.desk import Desk
from search.models.language_model import Segment
from search.models.toys import RandomModel, ScriptedModel
from search.peer import verify
from search.problem import Models
from search.selection import final_rule
from search.settings import SearchSettings
from search.strategies import STRATEGIES, run_search
from search.trajectory import Candidate, Conclusion, Status, Trajectory, Turn, Verification
from search.turns import TurnMaker
from search.value import value_source
from search.votes import settled

SMALL = SearchSettings(think=2, ask=2, ask_votes=2, request=2, max_requests=2, rollouts=8)


def conclude(most=3, **marginals):
    return rank_set({name.replace("_", "-"): share for name, share in marginals.items()}, VOCABULARY, most)


def test_the_set_holds_items_with_a_marginal_of_a_half_or_more():
    found = conclude(sepsis=0.5, pneumonia=0.9, embolism=0.49)
    assert found.chosen == ("pneumonia", "sepsis")
    assert found.answer_key == "pneumonia + sepsis"
    assert [h.key for h in found.ranked] == ["pneumonia", "sepsis", "embolism"]
    assert found.share == pytest.approx(0.7)
    assert found.words == "pneumonia; sepsis"


def test_at_least_the_top_item_and_at_most_so_many():
    assert conclude(sepsis=0.2, pneumonia=0.3).chosen == ("pneumonia",)
    assert conclude(most=1, sepsis=0.9, pneumonia=0.8).chosen == ("sepsis",)
    assert conclude(most=2, sepsis=1.0, pneumonia=0.8, embolism=0.8).chosen == ("sepsis", "embolism")  # a tie: by key
    nothing = rank_set({}, VOCABULARY, 3)
    assert (nothing.answer_key, nothing.chosen, nothing.share, nothing.words) == (None, (), 0.0, "")


def test_the_key_of_a_set_knows_no_order():
    assert set_key(["b", "a", "b"]) == set_key(("a", "b")) == "a + b"
    assert set_key([]) is None


def test_agreement_of_sets_is_their_jaccard_index():
    assert jaccard("abc", "bcd") == 0.5
    assert jaccard("", "") == 0.0
    both = conclude(sepsis=1.0, pneumonia=1.0)
    assert agreement(both, conclude(pneumonia=0.7)) == 0.5
    assert agreement(both, conclude(embolism=0.7)) == 0.0
    assert agreement(both, both) == 1.0
    assert agreement(both, Conclusion((), None)) == 0.0


def finish(model, *, most=2, **options):
    maker = TurnMaker.begin(make_problem(form="set", most=most), replace(SMALL, **options), 1)
    desk = Desk(Models(model, model))
    turn, conclusion = desk.run(maker.finish(maker.spot((), "here")))
    return turn, conclusion, desk


@pytest.mark.parametrize("kind", ["exact", "drawn", "free"])
def test_a_set_is_voted_on_by_constrained_lists_whatever_the_vote_is_called(kind):
    model = ScriptedModel({"text": " sepsis; pneumonia; pulmonary embolism"})
    turn, conclusion, desk = finish(model, vote=kind, votes=4, vote_stop="never")
    assert [c.purpose for c in desk.calls] == ["vote"] * 4
    assert conclusion.chosen == ("pneumonia", "sepsis")
    assert {h.key: h.probability for h in conclusion.ranked} == {"sepsis": 1.0, "pneumonia": 1.0}
    assert turn.text == "pneumonia; sepsis"
    assert (conclusion.draws, conclusion.unparseable) == (4, 0)
    maker = TurnMaker.begin(make_problem(form="set", most=2), replace(SMALL, vote=kind), 1)
    assert list(maker.prepare(("generator",))) == []  # nothing to calibrate


def test_a_set_of_more_than_the_vocabulary_asks_for_no_more_than_there_is():
    _, conclusion, _ = finish(RandomModel(1), most=99, votes=8)
    assert 1 <= len(conclusion.chosen) <= len(VOCABULARY.entries)


BALLOTS = st.lists(st.sets(st.sampled_from("abcde"), max_size=3), min_size=1, max_size=14)


def chosen_of(ballots, most):
    shares = {k: sum(k in b for b in ballots) / len(ballots) for k in "abcde" if any(k in b for b in ballots)}
    return set(rank_set(shares, VOCABULARY, most).chosen)


@given(ballots=BALLOTS, most=st.integers(1, 3))
@hypothesis_settings(max_examples=600, deadline=None)
def test_an_adaptive_stop_never_changes_the_set(ballots, most):
    ballots = [tuple(sorted(b)[:most]) for b in ballots]
    for done in range(1, len(ballots)):
        if settled(ballots[:done], len(ballots), most):
            assert chosen_of(ballots[:done], most) == chosen_of(ballots, most)


def test_an_adaptive_stop_ends_a_clear_set_early():
    alike = [("a", "b")] * 5
    assert settled(alike, 8, 2)
    assert not settled(alike[:3], 8, 2)
    assert settled([("a",), ("b",), ("a",), ("b",), ("c",), ("c",), ("a",)], 8, 2) is False  # a may still reach a half


def path(*texts, chosen):
    turns = tuple(Turn(Action(ActionKind.THINK), t, (Segment("\nThought:"), Segment(f" {t}"))) for t in texts)
    end = Turn(Action(ActionKind.FINISH), "; ".join(chosen))
    return Trajectory((*turns, end), rank_set(dict.fromkeys(chosen, 1.0), VOCABULARY, 3))


def check(trajectory, script, **options):
    problem = make_problem(form="set", most=2)
    maker = TurnMaker(problem, SearchSettings(votes=4, **options), prompts.opening(problem), 7)
    desk = Desk(Models(ScriptedModel({}), ScriptedModel(script)))
    return desk.run(verify(trajectory, "/x", maker)), desk


def test_the_peers_agreement_is_the_mean_jaccard_over_cuts():
    rules = [
        {"if": "\nThought: b", "ends": "Working diagnosis:", "texts": [" sepsis; pulmonary embolism"]},
        {"ends": "Working diagnosis:", "texts": [" pneumonia; sepsis"]},
        {"texts": [" well"]},
    ]
    found, _ = check(path("a", "b", chosen=("sepsis", "pneumonia")), {"generate": rules})
    assert found.answers == ("pneumonia + sepsis", "embolism + sepsis")
    assert found.agreement == pytest.approx((1 + 1 / 3) / 2)
    assert found.verified


def test_a_jaccard_of_a_half_verifies_and_less_does_not():
    for answer, agreed in ((" sepsis", 0.5), (" pulmonary embolism; sepsis", 1 / 3)):
        rules = [{"ends": "Working diagnosis:", "texts": [answer]}]
        found, _ = check(path("a", "b", chosen=("sepsis", "pneumonia")), {"generate": rules, "text": " hm"})
        assert found.agreement == pytest.approx(agreed)
        assert found.verified == (agreed >= 0.5)


def test_the_peers_prefix_names_no_item_of_the_set():
    trajectory = path("septic shock, and a Lung infection", "b", "pneumonia", "d", chosen=("sepsis", "pneumonia"))
    found, desk = check(trajectory, {"text": " hm"})
    assert found.cuts
    whole = len("".join(s.text for t in trajectory.turns for s in t.segments))
    opening = len("".join(s.text for s in prompts.opening(make_problem())))
    for call in (c for c in desk.calls if c.purpose == "think"):
        prefix = call.text[opening:].removesuffix(prompts.PEER_CUE).lower()
        assert len(prefix) < whole
        assert not any(word in prefix for word in ("sep", "lung infection", "pneumonia"))


def test_a_peer_that_names_nothing_disagrees():
    found, _ = check(path("a", "b", chosen=("sepsis",)), {"text": ""})
    assert (found.agreement, found.answers, found.verified) == (0.0, (None, None), False)


def candidate(node, conclusion, agreed=None, value=1.0):
    check = Verification(agreed)
    return Candidate(node, Trajectory((), conclusion), 1, value, check)


def test_sets_compete_by_key_and_their_marginals_are_mixed():
    first = conclude(sepsis=0.8, pneumonia=0.6, embolism=0.2)
    same = conclude(pneumonia=1.0, sepsis=0.5)
    other = conclude(embolism=0.9)
    candidates = [candidate(1, first, 1.0), candidate(2, same, 0.5), candidate(3, other, 1.0, value=0.5)]
    verdict = final_rule("verified")(candidates, VOCABULARY, 0.02)
    assert verdict.status is Status.VERIFIED
    assert verdict.winner.node == 1
    assert verdict.margin == pytest.approx((1.0 + 0.5 - 0.5) / 2.5)
    found = verdict.conclusion
    assert found.answer_key == "pneumonia + sepsis"
    shares = {h.key: h.probability for h in found.ranked}
    weights = (1.0, 0.5, 0.5)  # multiplicity x value x agreement
    assert shares["sepsis"] == pytest.approx((0.8 * weights[0] + 0.5 * weights[1]) / 2)
    assert shares["pneumonia"] == pytest.approx((0.6 * weights[0] + 1.0 * weights[1]) / 2)
    assert shares["embolism"] == pytest.approx((0.2 * weights[0] + 0.9 * weights[2]) / 2)
    assert found.chosen == tuple(h.key for h in found.ranked[:2])


def test_the_value_of_a_set_is_the_mean_marginal_of_its_items():
    trajectory = Trajectory((), conclude(sepsis=0.9, pneumonia=0.5, embolism=0.4))
    assert value_source("self_consistency")(trajectory, SMALL) == pytest.approx(0.7)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_answers_with_a_set(strategy):
    def run():
        problem = make_problem(form="set", most=2)
        return run_search(strategy, problem, Models(RandomModel(1), RandomModel(2)), replace(SMALL, votes=6), 4)

    result = run()
    found = result.conclusion
    assert 1 <= len(found.chosen) <= 2
    assert found.answer_key == set_key(found.chosen)
    assert tuple(h.key for h in found.ranked[: len(found.chosen)]) == found.chosen
    assert all(0.0 <= h.probability <= 1.0 + 1e-12 for h in found.ranked)
    assert all(0.0 <= c.value <= 1.0 for c in result.candidates)
    assert repr(result) == repr(run())
