"""Records of real searches with the random model."""

import math

import pytest
from run_records import ICD, WARD

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, sort_findings
from clinical_data.catalogue import Catalogue, CatalogueItem, Matcher
from clinical_data.chart import open_chart
from evaluation import recording
from evaluation.formatting import metric_text, range_text, value_text
from evaluation.record import RunRecord
from search import prompts
from search.actions import Action, ActionKind
from search.models.toys import RandomModel
from search.problem import Models, SearchProblem
from search.settings import SearchSettings
from search.strategies import run_search
from search.trajectory import (
    Candidate,
    Conclusion,
    Hypothesis,
    SearchResult,
    Status,
    Trajectory,
    Turn,
    Verification,
)

LOCAL = "wardstar:test"
CANARY = "canary-late-4711"
ITEMS = tuple(
    CatalogueItem(
        f"{n}_item", n, "test", 5.0, matches={"fhir": (Matcher(LOCAL, frozenset({n})),)} if n != "scan" else {}
    )
    for n in ("complaint", "lactate", "culture", "x-ray", "sodium", "scan")
)
CATALOGUE = Catalogue("test", "1", ITEMS, "c" * 64)
SETTINGS = SearchSettings(rollouts=8, votes=4)


def fact(code, value, available, charted=None, **more):
    charted = available if charted is None else charted
    kind = more.pop("kind", FindingKind.LABORATORY)
    return Finding(f"f-{code}-{available}", kind, Coding(LOCAL, code, code), value, charted, available, **more)


CASE = Case(
    case_id="fhir-1", source="fhir", source_id="1", patient=Patient("fhir-p", "fhir", "p", "female"), age=67,
    encounters=(Encounter("1", "inpatient", 0, 5000),), anchors={"admission": 0, "end_of_stay": 5000},
    context={"admission_source": "emergency department"},
    findings=sort_findings([
        fact("complaint", "short of\nbreath", -30, kind=FindingKind.COMPLAINT),
        fact("lactate", 4.25, 40, unit="mmol/L", low=0.5, high=2.0, flag="H"),
        fact("culture", CANARY, 3000, 30, pending_from=30),
        fact("x-ray", CANARY, 900),
    ]),
)  # fmt: skip
PROBLEM = SearchProblem(
    case_id=CASE.case_id, step="admission_diagnosis", question="What is the working diagnosis?",
    answer_cue="Working diagnosis", chart=open_chart(CASE, 360, CATALOGUE), opening=ITEMS[:1], items=ITEMS[1:],
    vocabulary=WARD, clock_text="6 hours after admission",
)  # fmt: skip


def models():
    model = RandomModel(3)
    return Models(model, model)


def record_by(strategy, **more):
    both = models()
    result = run_search(strategy, PROBLEM, both, SETTINGS, seed=11)
    record = recording.make_record(
        case=CASE, problem=PROBLEM, result=result, strategy=strategy, settings=SETTINGS, seed=11, models=both,
        hashes={"pathway": "p" * 64}, seconds=1.5, **more,
    )  # fmt: skip
    return record, result


@pytest.mark.parametrize("strategy", ["rstar", "greedy", "self-consistency", "full-information"])
def test_a_record_of_every_strategy(strategy):
    record, result = record_by(strategy)
    assert RunRecord.model_validate_json(record.model_dump_json()) == record
    assert record.status == result.status
    assert record.strategy == record.settings["strategy"] == strategy
    assert [a.code for a in record.ranked] == [h.key for h in result.conclusion.ranked]
    assert all(a.system == ICD for a in record.ranked)
    assert sum(a.probability for a in record.ranked) == pytest.approx(1)
    assert CANARY not in record.model_dump_json()
    assert len(record.candidates) == len(result.candidates)


def test_what_is_needed_to_redo_it():
    record, result = record_by("rstar", repeatable=False)
    assert record.hashes == {
        "case": CASE.content_hash,
        "prompts": prompts.TEMPLATE_HASH,
        "catalogue": CATALOGUE.sha256,
        "vocabulary": WARD.sha256,
        "pathway": "p" * 64,
    }
    assert record.settings | {"rollouts": 8, "votes": 4, "seed": 11, "chart_access": "hindsight"} == record.settings
    assert record.settings["value"] == SETTINGS.value
    assert record.models["generator"]["spec"] == record.models["peer"]["spec"] == "random:3"
    assert record.peer_is_generator
    assert not record.repeatable
    assert (record.seed, record.seconds, record.clock, record.rollouts) == (11, 1.5, 360, result.rollouts)
    assert (record.vocabulary, record.vignette) == (WARD.name, prompts.vignette(PROBLEM.chart))
    assert record.tree == result.tree
    assert record.tokens == {
        "prefilled": result.tokens.prefilled, "sampled": result.tokens.sampled, "reused": result.tokens.reused
    }  # fmt: skip


def test_the_opening_is_kept_as_it_was_answered():
    (turn,) = record_by("greedy")[0].opening
    assert (turn.kind, turn.item, turn.state, turn.text) == ("opening", "complaint_item", "recorded", "complaint")
    (finding,) = turn.findings
    assert (finding.value, finding.kind, finding.charted) == ("short of breath", "complaint", -30)


def test_requests_are_those_of_the_whole_tree_once():
    record, result = record_by("rstar")
    opened = {n["item"] for n in result.tree["nodes"] if n["kind"] == "request"}
    assert opened
    assert [r.item for r in record.requests] == list(dict.fromkeys(r.item for r in record.requests))
    assert {r.item for r in record.requests} == opened
    winner = next(c for c in result.candidates if c.node == result.winner)
    on_path = {t.action.item_id for t in winner.trajectory.turns if t.action.item_id}
    assert {r.item for r in record.requests if r.on_path} == on_path


def result_by_hand():
    """Two trajectories without a tree: the first asks for everything, the second for lactate alone and wins."""
    asked = [Turn(Action(ActionKind.REQUEST, i.item_id), "", answer=PROBLEM.chart.request(i)) for i in ITEMS[1:]]
    imagined = Turn(Action(ActionKind.REQUEST, "complaint_item"), "fever", imagined=True)
    candidates = []
    for node, turns, code in ((0, (*asked, imagined), "J18"), (1, asked[:1], "I50")):
        hypothesis = Hypothesis(code, code.lower(), ICD, code, 0.75)
        end = Turn(Action(ActionKind.FINISH), code.lower(), logprob=-math.inf)
        trajectory = Trajectory((*turns, end), Conclusion((hypothesis,), code))
        candidates.append(Candidate(node, trajectory, 3, 0.5, Verification(0.25, (1,), ("J18",))))
    conclusion = candidates[1].trajectory.conclusion
    return SearchResult(Status.UNVERIFIED, conclusion, candidates=candidates, rollouts=6, margin=0.5)


def test_states_costs_and_what_was_done_later():
    both = models()
    record = recording.make_record(
        case=CASE, problem=PROBLEM, result=result_by_hand(), strategy="self-consistency", settings=SETTINGS, seed=1,
        models=both, hashes={}, seconds=0.0,
    )  # fmt: skip
    found = {r.item: (r.state, r.cost, r.on_path, r.done_later) for r in record.requests}
    assert found == {
        "lactate_item": ("recorded", 5.0, True, False),
        "culture_item": ("pending", 5.0, False, True),
        "x-ray_item": ("not_done_by_now", 5.0, False, True),
        "sodium_item": ("not_done_by_now", 5.0, False, False),
        "scan_item": ("not_in_source", 5.0, False, False),
    }  # what was imagined is no request
    first, second = record.candidates
    assert (first.answer, first.answer_key, first.probability, first.multiplicity) == ("j18", "J18", 0.75, 3)
    assert (second.agreement, second.cuts, second.peer_answers) == (0.25, (1,), ("J18",))
    assert [t.kind for t in second.turns] == ["request", "finish"]
    (finding,) = second.turns[0].findings
    assert (finding.value, finding.unit, finding.range, finding.flag) == ("4.25", "mmol/L", "0.5-2", "H")
    assert RunRecord.model_validate_json(record.model_dump_json()) == record  # a likelihood of -inf does not break it


def test_full_information_asks_for_nothing_that_costs():
    record, _ = record_by("full-information")
    assert all(r.cost == 0 for r in record.requests)


def test_equal_searches_give_equal_records():
    assert record_by("rstar")[0] == record_by("rstar")[0]


def test_not_applicable():
    record = recording.not_applicable(
        case=CASE, step="admission_diagnosis", reason="the clock lies after the end of the stay", clock=9000,
        clock_text="later", strategy="rstar", settings=SETTINGS, seed=2, models=models(), vocabulary=WARD.name,
    )  # fmt: skip
    assert (record.status, record.clock, record.ranked, record.seed) == ("not_applicable", 9000, (), 2)
    assert record.hashes["case"] == CASE.content_hash
    assert record.settings["rollouts"] == 8
    bare = recording.not_applicable(case=CASE, step="s", reason="no clock for this source")
    assert (bare.clock, bare.settings, bare.models) == (None, {}, {})


def test_failed():
    record = recording.failed(
        case=CASE, step="admission_diagnosis", reason="ModelError", problem=PROBLEM, clock=1, strategy="rstar",
        settings=SETTINGS, models=models(), hashes={"pathway": "p"}, seconds=2.0,
    )  # fmt: skip
    assert (record.status, record.reason, record.clock, record.seconds) == ("failed", "ModelError", 360, 2.0)
    assert (record.vocabulary, record.vignette != "") == (WARD.name, True)
    assert record.hashes["vocabulary"] == WARD.sha256
    early = recording.failed(case=CASE, step="s", reason="r", clock=1, clock_text="t", vocabulary="v")
    assert (early.clock, early.clock_text, early.vocabulary) == (1, "t", "v")


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.0, "4"), (0.1 + 0.2, "0.3"), (1234567.0, "1234567"), (None, "yes"), ("a\n b", "a b"), (7, "7")],
)
def test_values_in_words(value, text):
    assert value_text(fact("x", value, 0)) == text


def test_ranges_in_words():
    ranges = ({}, {"low": 3.5}, {"high": 5.0}, {"low": 0.0, "high": 1.5})
    assert [range_text(fact("x", 1.0, 0, **r)) for r in ranges] == ["", ">= 3.5", "<= 5", "0-1.5"]


def test_metrics_in_words():
    assert metric_text({"value": 0.5, "low": 0.25, "high": 0.752, "n": 4}) == "0.50 (0.25 to 0.75)"
    assert metric_text({"value": 0.5, "low": None, "high": None, "n": 1}) == "0.50"
    assert metric_text({"value": None, "low": None, "high": None, "n": 0}) == "-"
