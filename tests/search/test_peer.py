from dataclasses import replace

import pytest
from conftest import VOCABULARY, make_problem

from search import prompts
from search.actions import Action, ActionKind
from search.desk import Desk
from search.mcts import rstar
from search.models.language_model import Segment
from search.models.toys import RandomModel, ScriptedModel
from search.peer import boundaries, cuts, redacted, verify
from search.problem import Models
from search.settings import SearchSettings
from search.trajectory import Conclusion, Hypothesis, Trajectory, Turn
from search.turns import TurnMaker

KINDS = (ActionKind.THINK, ActionKind.REQUEST, ActionKind.THINK, ActionKind.THINK, ActionKind.FINISH)


def turn(kind, text):
    return Turn(Action(kind), text, (Segment("\nThought:"), Segment(f" {text}")))


def trajectory(*texts):
    turns = tuple(turn(k, t) for k, t in zip(KINDS[: len(texts)], texts, strict=True))
    turns += (turn(ActionKind.FINISH, "sepsis"),)
    return Trajectory(turns, Conclusion((Hypothesis("sepsis", "sepsis", probability=0.7),), "sepsis"))


def maker(**more):
    problem = make_problem()
    return TurnMaker(problem, SearchSettings(**more), prompts.opening(problem), 7)


def test_cuts_lie_within_20_and_80_percent_of_the_turns():
    assert boundaries(trajectory("a", "b", "c", "d")) == [1, 2, 3, 4]
    assert boundaries(trajectory("a")) == [1]
    assert boundaries(trajectory()) == []


def test_cuts_stop_before_the_models_own_words_name_the_answer():
    named = trajectory("a", "septic shock on admission", "could be septic shock", "d")
    assert cuts(named, 4, VOCABULARY) == (1, 2)  # the second turn is a REQUEST: revealed findings do not count


def test_an_answer_named_at_once_is_redacted():
    named = trajectory("Septic shock, surely", "b")
    assert cuts(named, 4, VOCABULARY) == (1, 2)
    clean = redacted(named.turns[0], ("sepsis",), VOCABULARY)
    assert "eptic" not in clean.text + "".join(s.text for s in clean.segments)
    assert redacted(named.turns[1], ("sepsis",), VOCABULARY) is named.turns[1]


def test_at_most_so_many_cuts():
    assert cuts(trajectory("a", "b", "c", "d"), 2, VOCABULARY) == (1, 4)
    assert cuts(trajectory("a", "b", "c", "d"), 0, VOCABULARY) == ()


def run(path, script, **more):
    peer = ScriptedModel(script)
    desk = Desk(Models(ScriptedModel({}), peer))
    return desk.run(verify(path, "/x", maker(**more))), desk


def test_agreement_is_the_share_of_completions_with_the_same_answer():
    scores = [
        {"if": "second doctor takes over here, without knowing the first one's answer.\nThought: no", "scores": {}},
        {"if": "\nThought: b", "scores": {"pneumonia": -0.1}},
        {"scores": {"sepsis": -0.1}},
    ]
    check, desk = run(trajectory("a", "b"), {"score": scores, "text": " well"})
    assert check.answers == ("sepsis", "pneumonia")
    assert check.agreement == 0.5
    assert check.verified
    assert {c.role for c in desk.calls} == {"peer"}


def test_the_peers_prefix_is_shorter_than_the_trace_and_lacks_its_answer():
    path = trajectory("this smells of septic shock", "vitals", "septic shock again", "d")
    _, desk = run(path, {"text": " hm"})
    assert desk.calls
    whole = len("".join(s.text for t in path.turns for s in t.segments))
    opening = len("".join(s.text for s in maker().opening))
    for call in (c for c in desk.calls if c.purpose == "think"):
        prefix = call.text[opening:].removesuffix(prompts.PEER_CUE)
        assert len(prefix) < whole
        assert "septic" not in prefix
        assert "sepsis" not in prefix


def test_without_thoughts_the_peer_concludes_at_once_in_the_generators_words():
    """The text that it is sent is the one after which the generator would conclude, so that tuned models know it."""
    path = trajectory("a", "vitals", "c", "d")
    check, desk = run(path, {"scores": {"sepsis": -0.1}}, actions="finish, request")
    assert {call.purpose for call in desk.calls} == {"vote"}
    assert check.answers
    assert not any(prompts.PEER_CUE in call.text for call in desk.calls)
    own = maker(actions="finish, request")
    spot = own.spot(path.turns[: check.cuts[0]], "x")
    cue = prompts.answer_cue(own.problem).text
    assert desk.calls[0].text == "".join(s.text for s in spot.prompt) + cue


def test_too_short_or_without_answer_is_unverifiable():
    assert run(trajectory(), {})[0].agreement is None
    nothing = Trajectory(trajectory("a", "b").turns, Conclusion((), None))
    assert run(nothing, {})[0].agreement is None
    assert run(trajectory("a", "b"), {}, peer_cuts=0)[0].agreement is None


@pytest.mark.parametrize("kind", ["drawn", "free"])
def test_a_peer_that_gives_nothing_parseable_disagrees(kind):
    """The second cut, after `b`, is answered; the first one gives empty draws only."""
    answered = {"if": "\nThought: b", "ends": "Working diagnosis:", "texts": [" sepsis"]}
    silent = {"ends": "Working diagnosis:", "texts": [""]}
    check, _ = run(trajectory("a", "b"), {"generate": [answered, silent], "text": " hm"}, vote=kind, votes=3)
    assert check.answers == (None, "sepsis")
    assert check.agreement == 0.5


def test_an_answer_outside_the_vocabulary_is_redacted_and_agreed_upon_by_its_words():
    path = trajectory("Gall-stones, surely", "b")
    path = replace(
        path, conclusion=Conclusion((Hypothesis("gall stones", "gall stones", probability=1.0),), "gall stones")
    )
    rules = [{"ends": "Working diagnosis:", "texts": [" Gall stones!"]}]
    check, desk = run(path, {"generate": rules, "text": " hm"}, vote="free", votes=3)
    assert (check.agreement, check.answers) == (1.0, ("gall stones",) * 2)
    assert not any("tones" in c.text for c in desk.calls)


def test_another_model_is_sent_words_and_never_the_generators_ids():
    """Ids of sampled turns belong to the tokenizer of whoever sampled them."""
    sent = []

    class Noting(RandomModel):
        def generate(self, requests):
            sent.extend(s for r in requests for s in r.prompt)
            return super().generate(requests)

    settings = SearchSettings(think=2, ask=2, ask_votes=2, request=2, max_requests=2, stop="never")
    rstar(make_problem(), Models(Noting(2), RandomModel(9)), settings, 0)
    assert any(s.token_ids is not None for s in sent)  # the generator goes on from the ids that it sampled
    sent.clear()
    rstar(make_problem(), Models(RandomModel(2), Noting(9)), settings, 0)
    assert sent
    assert all(s.token_ids is None for s in sent)
