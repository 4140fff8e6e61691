"""`wardstar plan` counts what a replay then does, and estimates from what was measured."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Run, make_case

from clinical_data.case import Encounter
from clinical_data.store.case_store import CaseStore
from evaluation.rows import record_rows
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from workflow.options import ReplayOptions
from workflow.pathway import Pathway, load_pathway
from workflow.planning import count_run
from workflow.ways import ways_of

TINY = ("--generator", "random:7", "--rollouts", "2", "--set", "search.think=1", "--set", "search.ask=1")


def planned(run: Run, url: str, *words: object) -> dict[str, Any]:
    code, out, error = run("plan", "--db", url, "--json", *words)
    assert code == 0, error
    found: dict[str, Any] = json.loads(out)
    return found


def recorded(url: str, name: str) -> dict[str, Counter[str]]:
    engine = open_database(url, create=False)
    store = RunStore(engine)
    found: dict[str, Counter[str]] = {}
    for row in record_rows(store, store.get(name)):
        found.setdefault(row["step"], Counter())[row["status"]] += 1
    engine.dispose()
    return found


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    """Six cases: the stay of the first two ends before the first clock; the odd ones came through the emergency."""
    import dataclasses

    url = f"sqlite:///{tmp_path / 'mixed.db'}"
    engine = open_database(url, create=True)
    cases = []
    for number in range(6):
        labelled = make_case(number, stay=100 if number < 2 else 4000)
        if number % 2:
            encounters = (*labelled.case.encounters, Encounter(f"ed{number}", "emergency", -100, 0))
            labelled = dataclasses.replace(labelled, case=dataclasses.replace(labelled.case, encounters=encounters))
        cases.append(labelled)
    CaseStore(engine).put_many(cases)
    engine.dispose()
    return url


EDGES = {
    "none": "",
    "clock": "\nedges: [{from: first, to: second, when: clock_passed}]",
    "emergency": "\nedges: [{from: first, to: end, unless: has_ed_stay}, {from: first, to: second}]",
    "settled": "\nedges: [{from: first, to: end, when: answer_settled}, {from: first, to: second}]",
    "human": "\nedges: [{from: first, to: human, when: has_ed_stay}, {from: first, to: second}]",
    "loop": "\nedges: [{from: first, to: first, unless: answer_settled}, {from: first, to: second}]",
}


@pytest.mark.parametrize("kind", EDGES)
@pytest.mark.parametrize("extra", [(), ("--limit", "3"), ("--steps", "second"), ("--split", "train")])
def test_what_is_planned_is_done(run: Run, mixed: str, pathway_file: Path, kind: str, extra: tuple[str, ...]) -> None:
    text = pathway_file.read_text().replace("version: 1", f"version: 1{EDGES[kind]}", 1)
    if kind == "loop":
        text = text.replace("text: 6 hours after admission}", 'text: "{hours} hours after admission"}')
        text = text.replace("opening: [chief", "repeat: {most: 3, every_minutes: 600}\n    opening: [chief")
    pathway_file.write_text(text)
    words = ("--pathway", pathway_file, *TINY, *extra)
    plan = planned(run, mixed, *words)
    assert run("replay", "--db", mixed, "--run", "one", *words)[0] == 0
    done = recorded(mixed, "one")
    for step, count in plan["steps"].items():
        found = done.get(step, Counter())
        searched = found.total() - found["not_applicable"]
        without = sum(count["not_applicable"].values())
        assert without <= found["not_applicable"] <= without + count["perhaps"]
        assert count["applicable"] <= searched <= count["applicable"] + count["perhaps"]
        if kind not in ("settled", "loop") or "--steps" in extra:
            assert (count["perhaps"], count["applicable"]) == (0, searched)
    total = sum(found.total() for found in done.values())
    assert plan["case_steps"]["fewest"] <= total <= plan["case_steps"]["most"]
    if kind != "loop":
        assert plan["case_steps"]["fewest"] == plan["case_steps"]["most"] == total
    if kind == "settled" and not extra:
        assert plan["steps"]["second"]["perhaps"] == 4
    if kind == "loop" and not extra:  # 6, 16 and 26 hours; four stays reach them
        assert plan["steps"]["first"]["perhaps"] == plan["steps"]["first"]["again"] == 8
    again = planned(run, mixed, *words, "--run", "one")
    for step, count in again["steps"].items():
        found = done.get(step, Counter())
        searched = found.total() - found["not_applicable"]
        assert (count["applicable"], count["done"], count["perhaps"]) == (searched, searched, 0)
        assert sum(count["not_applicable"].values()) == found["not_applicable"]


def test_a_run_valued_by_labels_skips_cases_without(run: Run, fill: Callable[..., str], pathway_file: Path) -> None:
    url = fill(8)
    words = ("--pathway", pathway_file, *TINY, "--value", "ground_truth", "--split", "train")
    plan = planned(run, url, *words)
    assert run("replay", "--db", url, "--run", "one", *words)[0] == 0
    done = recorded(url, "one")
    assert plan["steps"]["second"]["not_applicable"] == {
        "no recorded label to value answers by": done["second"]["not_applicable"]
    }
    assert plan["steps"]["first"]["applicable"] == done["first"].total()


def test_an_estimate_rests_on_stored_runs_of_the_same_kind(
    run: Run, fill: Callable[..., str], pathway_file: Path
) -> None:
    """Twelve like cases cost three times what four did; the interval holds what they then really cost."""
    url = fill(12)
    words = ("--pathway", pathway_file, *TINY)
    assert planned(run, url, *words)["basis"]["kind"] == "bundled figures"
    assert run("replay", "--db", url, "--run", "some", *words, "--limit", "4")[0] == 0
    plan = planned(run, url, *words)
    assert plan["basis"]["kind"] == "stored runs"
    assert "8 case-steps of some" in plan["basis"]["text"]
    assert plan["basis"]["patients"] == 4
    assert "too narrow" in plan["basis"]["interval"]
    some = json.loads(run("runs", "list", "--db", url, "--json")[1])[0]
    assert plan["estimate"]["prefilled"]["value"] == pytest.approx(3 * some["prefilled"])
    assert plan["estimate"]["sampled"]["value"] == pytest.approx(3 * some["sampled"])
    assert run("replay", "--db", url, "--run", "all", *words)[0] == 0
    real = next(r for r in json.loads(run("runs", "list", "--db", url, "--json")[1]) if r["run"] == "all")
    for name in ("prefilled", "sampled"):
        figure = plan["estimate"][name]
        assert figure["low"] < figure["value"] < figure["high"]
        assert figure["low"] * 0.8 <= real[name] <= figure["high"] * 1.25
    assert "too narrow" not in planned(run, url, *words)["basis"]["interval"]  # twelve patients now
    assert planned(run, url, *words, "--set", "search.depth=2")["basis"]["kind"] == "bundled figures"


def test_time_is_tokens_over_the_speed_that_was_named(run: Run, fill: Callable[..., str], pathway_file: Path) -> None:
    url = fill(3)
    words = ("--pathway", pathway_file, *TINY)
    assert run("replay", "--db", url, "--run", "some", *words, "--limit", "2")[0] == 0
    plan = planned(run, url, *words, "--speed", "250")
    assert plan["estimate"]["seconds"]["value"] == pytest.approx(plan["estimate"]["tokens"]["value"] / 250)
    assert "time: tokens in all / 250 tokens a second" in run("plan", "--db", url, *words, "--speed", "250")[1]
    assert {run("plan", "--db", url, *words, "--speed", speed)[0] for speed in ("0", "nan", "inf")} == {2}


def test_a_plan_runs_no_model_and_stores_nothing(run: Run, fill: Callable[..., str], pathway_file: Path) -> None:
    url = fill(2)
    before = Path(url.removeprefix("sqlite:///")).read_bytes()
    plan = planned(run, url, "--pathway", pathway_file, "--generator", "hf:nobody/nothing", "--run", "new")
    assert plan["case_steps"] == {"fewest": 4, "most": 4}
    assert "another model takes as many tokens" in plan["basis"]["text"]
    assert "seconds" not in plan["estimate"]
    assert Path(url.removeprefix("sqlite:///")).read_bytes() == before


def test_a_plan_refuses_what_a_replay_refuses(run: Run, fill: Callable[..., str]) -> None:
    url = fill(1)
    for words in (("--strategy", "luck"), ("--limit", "0"), ("--pathway", "nowhere"), ("--set", "search.votes=x")):
        ours, theirs = run("plan", "--db", url, *words), run("replay", "--db", url, "--run", "a", *words)
        assert ours[0] == theirs[0] == 2
        assert ours[2] == theirs[2]


def test_bundled_figures_say_where_each_comes_from() -> None:
    text = (Path(__file__).parents[2] / "workflow" / "plan_figures.yaml").read_text()
    known = yaml.safe_load(text)
    assert known["version"] >= 1
    strategies = {one["strategy"] for one in known["figures"]}
    assert {"rstar", "greedy", "full-information"} <= strategies
    for one in known["figures"]:
        assert one["source"]
        assert len({c["case"] for c in one["case_steps"]}) > 1
        assert all(c["prefilled"] > 0 and c["requests"] > 0 and c["seconds"] > 0 for c in one["case_steps"])
    assert known["memory"]["source"]


def test_a_loop_is_followed_up_to_its_bound(pathway_file: Path) -> None:
    pathway = load_pathway(str(pathway_file)).pathway
    data = pathway.model_dump(by_alias=True)
    for step, anchor in zip(data["steps"], ("admission", "admission"), strict=True):
        step["clock"]["fhir"] |= {"anchor": anchor, "plus_minutes": 0}
        step["repeat"] = {"most": 100, "every_minutes": 1000}
    back = [{"from": "first", "to": "second"}, {"from": "second", "to": "first", "unless": "answer_settled"}]
    looped = type(pathway).model_validate(data | {"edges": back})
    case = make_case(1).case  # of 4000 minutes
    ways = ways_of(looped, case, lambda step, k: None)
    assert ways.sure == {("first", 1), ("second", 1)}
    assert ways.some == {(step, k) for step in ("first", "second") for k in range(1, 6)}
    known = ways_of(looped, case, lambda step, k: "verified" if k == 2 else "unverified")
    assert known.sure == known.some == {(step, k) for step in ("first", "second") for k in (1, 2)}
    assert (ways.ends, known.ends) == ({"end"}, {"end"})


def test_a_walk_through_a_hundred_passages_is_no_matter(pathway_file: Path) -> None:
    data = load_pathway(str(pathway_file)).pathway.model_dump(by_alias=True)
    for step in data["steps"]:
        step["clock"]["fhir"] |= {"anchor": "admission", "plus_minutes": 0}
        step["repeat"] = {"most": 100, "every_minutes": 1}
    back = [
        {"from": "first", "to": "first", "unless": "answer_settled"},
        {"from": "first", "to": "second", "unless": "abstained"},
        {"from": "second", "to": "first", "unless": "answer_settled"},
    ]
    ways = ways_of(Pathway.model_validate(data | {"edges": back}), make_case(1).case, lambda step, k: None)
    assert {k for step, k in ways.some if step == "first"} == set(range(1, 101))


LOOP = """
edges:
  - {from: first, to: second}
  - {from: second, to: end, when: answer_settled}
  - {from: second, to: first, when: budget_left}
"""


def test_a_loop_is_counted_within_its_bound(run: Run, fill: Callable[..., str], pathway_file: Path) -> None:
    """Each step may come three times; how often it does hangs on the answers, and the run lies within the plan."""
    url = fill(4)
    text = pathway_file.read_text().replace("version: 1", f"version: 1{LOOP}".rstrip(), 1)
    text = text.replace("    opening:", "    repeat: {most: 3, every_minutes: 60}\n    opening:")
    text = text.replace("anchor: end_of_stay, text: at the end of the stay", 'anchor: admission, text: "{hours} h"')
    text = text.replace("text: 6 hours after admission", 'text: "{hours} h"')
    pathway_file.write_text(text)
    words = ("--pathway", pathway_file, *TINY)
    plan = planned(run, url, *words)
    assert plan["case_steps"] == {"fewest": 8, "most": 24}
    assert plan["steps"]["first"] == {"applicable": 4, "perhaps": 8, "again": 8, "not_applicable": {}, "done": 0}
    assert run("replay", "--db", url, "--run", "one", *words)[0] == 0
    total = sum(found.total() for found in recorded(url, "one").values())
    assert 8 < total <= 24
    again = planned(run, url, *words, "--run", "one")
    assert sum(s["done"] for s in again["steps"].values()) == total
    assert again["case_steps"] == {"fewest": total, "most": total}


def test_counting_needs_no_findings(fill: Callable[..., str], pathway_file: Path) -> None:
    engine = open_database(fill(3), create=False)
    counted = count_run(engine, ReplayOptions(pathway=str(pathway_file), generator="random:1"))
    engine.dispose()
    assert {n: c.applicable for n, c in counted.steps.items()} == {"first": 3, "second": 3}
