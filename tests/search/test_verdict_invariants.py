"""Invariants of search.md of what is decided about a trajectory: the peer's word, the vote, the final choice."""

from dataclasses import replace

from conftest import VOCABULARY
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scripted_trees import NAMING, TableModel, random_search

from search import prompts
from search.actions import ActionKind
from search.answers import mentions, redact
from search.desk import Desk
from search.mcts import rstar
from search.peer import answer_keys, verify
from search.problem import Models
from search.selection import FINAL_RULES
from search.trajectory import Candidate, Conclusion, Hypothesis, Status, Trajectory, Verification
from search.turns import TurnMaker
from search.votes import settled

KEYS = [e.code for e in VOCABULARY.entries]


@st.composite
def candidates(draw):
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from([*KEYS, None]),
                st.integers(1, 9),
                st.floats(0, 1),
                st.none() | st.sampled_from([0.0, 0.25, 0.4999, 0.5, 0.75, 1.0]),
            ),
            max_size=9,
        )
    )
    return [
        Candidate(
            node,
            Trajectory((), Conclusion((Hypothesis(key, key, probability=value),) if key else (), key)),
            multiplicity,
            value if key else 0.0,
            Verification(agreement),
        )
        for node, (key, multiplicity, value, agreement) in enumerate(rows)
    ]


@given(rows=candidates(), rule=st.sampled_from(["verified", "product", "geometric"]), delta=st.sampled_from([0.0, 0.1]))
def test_a_rejected_majority_never_wins_over_a_verified_class(rows, rule, delta):
    verdict = FINAL_RULES[rule](rows, VOCABULARY, delta)
    verified = {c.trajectory.conclusion.answer_key for c in rows if c.verification.verified} - {None}
    if verified:
        assert verdict.conclusion.answer_key in verified
        assert verdict.status in (Status.VERIFIED, Status.ABSTAIN)
    else:
        assert verdict.status in (Status.UNVERIFIED, Status.ABSTAIN)


def own_words(text):
    """Returns the lines of a prompt that a model wrote; what the chart said is left out."""
    lines = text.split("\n")
    return [line for line in lines if not line.startswith(("Request:", "Result:", "A second doctor"))]


def test_the_peers_prefix_is_shorter_and_lacks_the_answer():
    """On whole searches, by models that like to name answers; the peer's own later words do not count."""
    named = 0
    for number in range(40):
        problem, _, settings, seed = random_search(number)
        settings = replace(settings, peer_cuts=4, rollouts=8, depth=5)
        model = TableModel(number, NAMING)
        result = rstar(problem, Models(model, model), settings, seed)
        opening = "".join(s.text for s in prompts.opening(problem))
        for candidate in result.candidates:
            desk, maker = Desk(Models(model, model)), TurnMaker.begin(problem, settings, seed)
            check = desk.run(verify(candidate.trajectory, "/x", maker))
            turns, keys = candidate.trajectory.turns, answer_keys(candidate.trajectory.conclusion)
            whole = "".join(s.text for t in turns for s in t.segments)
            asked = "think" if ActionKind.THINK in settings.kinds else "vote"
            calls = list(dict.fromkeys(call.text for call in desk.calls if call.purpose == asked))
            assert len(calls) == len(check.cuts)
            for cut, text in zip(check.cuts, calls, strict=True):
                prefix = text.removeprefix(opening).removesuffix(prompts.PEER_CUE)
                kept = sum(len(s.text) for t in turns[:cut] for s in t.segments)
                assert 0.2 <= cut / len(turns) <= 0.8
                assert kept < len(whole)
                assert not any(mentions(line, key, problem.vocabulary) for line in own_words(prefix) for key in keys)
                named += "___" in prefix
    assert named > 20


@given(
    st.lists(
        st.sampled_from(
            ["septic", "shock", "SEPSIS", "sepsis", "heart-failure", "heart", "failure", "-", ",", "x", "\n"]
        ),
        max_size=12,
    ),
    st.sampled_from([" ", "", "  ", "-"]),
    st.sampled_from([*KEYS, "x shock"]),
)
def test_a_redacted_text_mentions_nothing(words, gap, key):
    clean = redact(gap.join(words), key, VOCABULARY)
    assert not mentions(clean, key, VOCABULARY)
    assert clean == gap.join(words) or mentions(gap.join(words), key, VOCABULARY)


BALLOT = st.frozensets(st.sampled_from("abc"), max_size=3).map(lambda items: tuple(sorted(items)))


def chosen(ballots, votes, most):
    """Returns the set that ballots amount to: items of half of all draws or more, else the first; at most so many."""
    counts = {key: sum(key in ballot for ballot in ballots) for key in "abc"}
    order = sorted((key for key in counts if counts[key]), key=lambda key: (-counts[key], key))
    return set([key for key in order if 2 * counts[key] >= votes][:most] or order[:1])


@given(ballots=st.lists(BALLOT, min_size=1, max_size=9), rest=st.lists(BALLOT, max_size=6), most=st.integers(1, 3))
@hypothesis_settings(max_examples=300)
def test_a_settled_set_stays_as_it_is(ballots, rest, most):
    votes = len(ballots) + len(rest)
    if settled(ballots, votes, most):
        assert chosen(ballots + rest, votes, most) == chosen(ballots, len(ballots), most)
