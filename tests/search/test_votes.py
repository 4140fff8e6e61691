"""Votes: exact, drawn and free; shares by hand, and the adaptive stop against the full vote."""

import math
from dataclasses import replace

import pytest
from conftest import VOCABULARY, make_problem
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from clinical_data.codes import ICD10_CM
from clinical_data.vocabulary import Entry, Vocabulary
from search import answers
from search.desk import Desk
from search.mcts import rstar
from search.models.language_model import ChoiceScores
from search.models.toys import RandomModel, ScriptedModel
from search.problem import Models
from search.settings import SearchSettings
from search.strategies import STRATEGIES, run_search
from search.trajectory import Status
from search.turns import TurnMaker
from search.votes import ROUND, settled

SMALL = SearchSettings(think=2, ask=2, ask_votes=2, request=2, max_requests=2, rollouts=8)
ICD = Vocabulary("icd", "1", ICD10_CM, (Entry("A41", "sepsis"), Entry("J18.9", "pneumonia"), Entry("J18.1", "x")), "0")


class Urn(ScriptedModel):
    """Says some texts, one per sample, in order."""

    def __init__(self, *texts):
        super().__init__({})
        self.left = list(texts)

    def generate(self, requests):
        return [ScriptedModel({"text": self.left.pop(0)}).generate([request])[0] for request in requests]


def vote(model, *, seed=1, problem=None, **options):
    """Returns the conclusion of one vote at the root, and the desk that it was held at."""
    maker = TurnMaker.begin(problem or make_problem(), replace(SMALL, **options), seed)
    desk = Desk(Models(model, model))
    _, conclusion = desk.run(maker.finish(maker.spot((), "here")))
    return conclusion, desk


def shares(conclusion):
    return {h.key: h.probability for h in conclusion.ranked}


@pytest.mark.parametrize("kind", ["drawn", "free"])
def test_a_share_is_the_draws_of_a_key_over_all_draws(kind):
    urn = Urn(" sepsis", " pneumonia", " sepsis", " embolism" if kind == "free" else " pulmonary embolism", " sepsis")
    conclusion, _ = vote(urn, vote=kind, votes=5, vote_stop="never")
    assert shares(conclusion) == {"sepsis": 0.6, "embolism": 0.2, "pneumonia": 0.2}
    assert (conclusion.answer_key, conclusion.share, conclusion.words) == ("sepsis", 0.6, "sepsis")
    assert (conclusion.draws, conclusion.unparseable) == (5, 0)


def test_free_draws_compare_by_canonical_key():
    urn = Urn(" Septic shock.", " SEPSIS", " lung-infection", " gallstones?", " Gallstones", "  ")
    conclusion, _ = vote(urn, vote="free", votes=6, vote_stop="never")
    assert shares(conclusion) == {"sepsis": 2 / 6, "gallstones": 2 / 6, "pneumonia": 1 / 6}
    assert conclusion.answer_key == "gallstones"  # a tie goes by key
    unknown = conclusion.ranked[0]
    assert (unknown.system, unknown.code, unknown.display) == ("", "", "gallstones")
    assert conclusion.ranked[1].system == VOCABULARY.system
    assert (conclusion.draws, conclusion.unparseable) == (6, 1)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (" Sepsis", "A41"),
        (" A41", "A41"),
        (" a41.9", "A41"),
        (" A419.", "A41"),
        (" J18.1", "J18.1"),
        (" J18.0", "J18.9"),  # the first entry of its category
        (" B99", "b99"),
        (" sepsis and pneumonia", "sepsis and pneumonia"),  # never in part
        (" ...", None),
        ("", None),
    ],
)
def test_a_free_text_is_matched_by_name_code_and_category(text, key):
    assert answers.key_of_text(text, ICD) == key


def test_a_category_counts_in_icd_vocabularies_only():
    assert answers.key_of_text("A41.9", replace(ICD, system="wardstar:test")) == "a41 9"


def test_empty_draws_count_only_below_the_line():
    conclusion, _ = vote(Urn(" sepsis", "", " nonsense", " sepsis"), vote="drawn", votes=4)
    assert shares(conclusion) == {"sepsis": 0.5}
    assert (conclusion.draws, conclusion.unparseable) == (4, 2)


def test_a_vote_without_any_answer_has_none_and_says_how_often():
    model = ScriptedModel({"text": ""})
    conclusion, _ = vote(model, vote="free", votes=16)
    assert (conclusion.answer_key, conclusion.share, conclusion.words) == (None, 0.0, "")
    assert (conclusion.draws, conclusion.unparseable) == (16, 16)
    result = rstar(make_problem(), Models(model, model), replace(SMALL, vote="free"), 0)
    assert result.status is Status.ABSTAIN
    assert result.conclusion.answer_key is None
    assert result.conclusion.unparseable == result.conclusion.draws > 0


def test_the_turn_holds_the_likelihood_and_length_of_a_draw_that_names_the_answer():
    maker = TurnMaker.begin(make_problem(), replace(SMALL, vote="drawn", votes=3), 0)
    model = RandomModel(2)
    desk = Desk(Models(model, model))
    turn, conclusion = desk.run(maker.finish(maker.spot((), "here")))
    named = [c for c in desk.calls if c.completions[0].strip() == conclusion.words]
    assert turn.text == conclusion.words == turn.segments[-1].text.strip()
    assert (turn.logprob, turn.tokens) == (named[0].logprobs[0], len(named[0].completion_ids[0]))


def test_only_an_exact_vote_scores_and_is_calibrated():
    model = RandomModel(1)
    for kind, purposes in (("exact", {"prior", "vote"}), ("drawn", {"vote"}), ("free", {"vote"})):
        result = rstar(make_problem(items=()), Models(model, model), replace(SMALL, depth=1, vote=kind), 0)
        assert {c.purpose for c in result.calls} == purposes
        assert all((c.seed is None) == (kind == "exact") for c in result.calls)
        assert result.conclusion.draws == (0 if kind == "exact" else len(result.calls))


def test_a_unanimous_vote_ends_when_the_rest_could_not_change_it():
    conclusion, desk = vote(Urn(*[" sepsis"] * 16), vote="drawn", votes=16)
    assert (
        conclusion.draws == len(desk.calls) == 12
    )  # 12 ahead with 4 left; after 8 the lead is no more than what is left
    assert conclusion.share == 1.0
    assert vote(Urn(*[" sepsis"] * 16), vote="drawn", votes=16, vote_stop="never")[0].draws == 16


def test_draws_have_seeds_of_their_own_and_of_their_place():
    (_, desk), (_, again) = (vote(RandomModel(4), vote="drawn", vote_stop="never") for _ in range(2))
    seeds = [c.seed for c in desk.calls]
    assert len(set(seeds)) == len(seeds) == 16
    assert desk.calls == again.calls
    assert not set(seeds) & {c.seed for c in vote(RandomModel(4), vote="drawn", seed=2)[1].calls}


KEYS = st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=24)


def leader(keys):
    counts = {k: keys.count(k) for k in keys if k}
    return min(counts, key=lambda k: (-counts[k], k), default=None)


@given(KEYS)
@hypothesis_settings(max_examples=400, deadline=None)
def test_an_adaptive_stop_never_changes_the_majority(keys):
    ballots = [(k,) if k else () for k in keys]
    for done in range(len(keys)):
        if settled(ballots[:done], len(keys)):
            assert leader(keys[:done]) == leader(keys)


@given(seed=st.integers(0, 10_000), votes=st.integers(1, 24), texts=KEYS)
@hypothesis_settings(max_examples=150, deadline=None)
def test_a_settled_vote_names_what_all_draws_would_have(seed, votes, texts):
    words = {"a": " sepsis", "b": " pneumonia", "c": " tea", "": " "}
    model = ScriptedModel({"generate": [{"texts": [words[t] for t in texts]}]})
    for kind in ("drawn", "free"):
        early, _ = vote(model, seed=seed, vote=kind, votes=votes)
        full, _ = vote(model, seed=seed, vote=kind, votes=votes, vote_stop="never")
        assert early.answer_key == full.answer_key
        assert full.draws == votes
        assert early.draws == votes or (early.draws < votes and early.draws % ROUND == 0)
        assert 0.0 <= early.share <= 1.0
        assert sum(h.probability for h in early.ranked) <= 1.0 + 1e-12


def test_many_draws_approach_the_exact_shares():
    """The random model draws a choice with the likelihood that it scores it with."""
    model = RandomModel(11)
    options = {"votes": 4000, "vote_stop": "never", "temperature": 1.0, "calibration": "none"}
    exact, _ = vote(model, vote="exact", **options)
    drawn, _ = vote(model, vote="drawn", **options)
    for hypothesis in exact.ranked:
        p = hypothesis.probability
        assert abs(drawn.probability_of(hypothesis.key) - p) < 4 * math.sqrt(p * (1 - p) / 4000)


@pytest.mark.parametrize("kind", ["drawn", "free"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_votes_as_it_is_told_and_repeats(strategy, kind):
    def run():
        return run_search(strategy, make_problem(), Models(RandomModel(5), RandomModel(6)), options, 3)

    options = replace(SMALL, vote=kind, votes=6, rollouts=4)
    result = run()
    assert repr(result) == repr(run())
    assert result.conclusion.draws > 0
    assert all(0.0 <= c.value <= 1.0 for c in result.candidates)
    kinds = {c.purpose for c in result.calls if c.seed is None}
    assert "vote" not in kinds
    assert "prior" not in kinds


def test_the_likelihood_of_an_answer_is_the_mean_or_the_sum_over_its_tokens():
    """Two tokens at 1/2 each against one at 1/3: the mean gives 3 to 2, the sum 3 to 4."""
    vocabulary = make_problem().vocabulary
    scores = ChoiceScores((1,), ((2, 3), (4,), (5,), (6,)), (2 * math.log(1 / 2), math.log(1 / 3), -99.0, -99.0))
    mean = {h.key: h.probability for h in answers.exact_vote(scores, vocabulary).ranked}
    total = {h.key: h.probability for h in answers.exact_vote(scores, vocabulary, likelihood="sum").ranked}
    first, second = (e.code for e in vocabulary.entries[:2])
    assert (mean[first], mean[second]) == pytest.approx((3 / 5, 2 / 5))
    assert (total[first], total[second]) == pytest.approx((3 / 7, 4 / 7))


def test_the_setting_reaches_vote_and_prior():
    model = RandomModel(3)
    problem = make_problem()
    found = {}
    for kind in ("mean", "sum"):
        settings = SearchSettings(likelihood=kind, rollouts=1, calibration="contextual")
        found[kind] = run_search("full-information", problem, Models(model, model), settings, 0).conclusion
    assert found["mean"] != found["sum"]
