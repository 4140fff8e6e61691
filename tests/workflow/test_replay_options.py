"""Presets, strategies, value sources and chart access from the command line and from TOML, up to the records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clinical_data.errors import BadInputError, UsageError
from clinical_data.ground_truth import LabelledCase
from clinical_data.splits import split_of
from clinical_data.store.case_store import CaseStore
from evaluation.record import RunRecord
from evaluation.rows import prompt_rows
from evaluation.scoring import score_run
from evaluation.store import open_database
from evaluation.store.run_state import run_states
from evaluation.store.run_store import RunStore, StoredRecord, config_hash
from search.settings import PRESETS, SearchSettings
from workflow.cli import app
from workflow.config import ReplayOptions, make_config, prepare, read_options
from workflow.planning import count_run
from workflow.runner import replay, resume

TINY: dict[str, Any] = {"rollouts": 3, "think": 2, "ask": 2, "ask_votes": 2, "request": 2, "max_requests": 2}


@pytest.fixture
def options(pathway_file: Path) -> ReplayOptions:
    return ReplayOptions(pathway=str(pathway_file), seed=3, generator="random:7", settings=TINY)


@pytest.fixture
def store_of() -> Iterator[Callable[[str], RunStore]]:
    engines = []

    def open_store(url: str) -> RunStore:
        engines.append(open_database(url, create=False))
        return RunStore(engines[-1])

    yield open_store
    for engine in engines:
        engine.dispose()


def stored(store: RunStore, run: str) -> list[StoredRecord]:
    return list(store.records(store.get(run).run_id))


def settings_of(options: ReplayOptions, **values: Any) -> dict[str, Any]:
    settings: dict[str, Any] = make_config(replace(options, **values))["settings"]
    return settings


def test_explicit_options_win_over_the_preset(options: ReplayOptions) -> None:
    paper = settings_of(options, preset="paper-8", settings={})
    assert paper == {**settings_of(options, settings={}), **PRESETS["paper-8"]}
    assert (paper["depth"], paper["rollouts"], paper["vote"]) == (8, 32, "drawn")
    mine = settings_of(options, preset="paper", settings={"rollouts": 5, "vote": "exact"})
    assert (mine["rollouts"], mine["vote"], mine["stop"]) == (5, "exact", "never")


def test_options_without_a_preset_are_the_defaults(options: ReplayOptions) -> None:
    assert SearchSettings(**settings_of(options, settings={})) == SearchSettings()
    with pytest.raises(UsageError, match="no preset named thesis"):
        make_config(replace(options, preset="thesis"))


def test_toml_says_the_same_as_options(options: ReplayOptions, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('preset = "paper"\nstrategy = "rap"\nchart-access = "prospective"\n[search]\nrollouts = 4\n')
    read = make_config(replace(options, **read_options(path)))
    assert (read["strategy"], read["chart_access"]) == ("rap", "prospective")
    assert read["settings"]["chart_access"] == "prospective"
    assert (read["settings"]["rollouts"], read["settings"]["value"], read["settings"]["merge"]) == (4, "rap", "never")
    path.write_text('[search]\nvalue = "rap"\nchart_access = "prospective"\n')
    read = make_config(replace(options, **read_options(path)))
    assert (read["settings"]["value"], read["chart_access"]) == ("rap", "prospective")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "rap", "value": "self_consistency"}, "values by rap, not by self_consistency"),
        ({"value": "oracle"}, "no value source named oracle"),
        ({"value": "model:"}, "no value source named model:"),
        ({"strategy": "rap", "value": "model:judge"}, "values by rap, not by model:judge"),
        ({"value": "ground_truth"}, "needs --split train"),
        ({"value": "ground_truth", "split": "held-out"}, "needs --split train"),
        ({"settings": {"value": "ground_truth"}, "split": "tuning"}, "needs --split train"),
        ({"strategy": "best-of-n", "chart_access": "prospective"}, "prospective needs a search"),
        ({"settings": {"chart_access": "prospective"}, "strategy": "self-consistency"}, "prospective needs a search"),
    ],
)
def test_what_cannot_be_is_refused(options: ReplayOptions, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_config(replace(options, **values))


def test_a_step_of_a_pathway_cannot_bring_labels_in(options: ReplayOptions, pathway_file: Path) -> None:
    pathway_file.write_text(pathway_file.read_text().replace("search: {depth: 3}", "search: {value: ground_truth}"))
    with pytest.raises(UsageError, match="needs --split train"):
        make_config(options)
    make_config(replace(options, split="train"))
    with pytest.raises(UsageError, match="a step of this pathway values by ground_truth"):
        make_config(replace(options, split="train", strategy="rap"))


def test_steps_of_a_run_share_one_value_model(options: ReplayOptions, pathway_file: Path) -> None:
    assert prepare(make_config(replace(options, value="model:judge"))).value_model == "judge"
    pathway_file.write_text(pathway_file.read_text().replace("search: {depth: 3}", "search: {value: 'model:other'}"))
    assert prepare(make_config(options)).value_model == "other"
    with pytest.raises(UsageError, match="one run asks one value model, not 2: model:judge, model:other"):
        make_config(replace(options, value="model:judge"))


def test_a_prospective_record_says_what_was_opened_and_what_imagined(
    fill: Callable[..., str], options: ReplayOptions, store_of: Callable[[str], RunStore]
) -> None:
    url = fill(3)
    replay(url, "ahead", replace(options, chart_access="prospective", settings={**TINY, "rollouts": 6, "depth": 3}))
    replay(url, "behind", options)
    store = store_of(url)
    records = [s.record for s in stored(store, "ahead")]
    assert all(r.settings["chart_access"] == "prospective" for r in records)
    assert any(r.requests for r in records)
    assert all(r.imagined_requests > 0 for r in records)
    for record in records:
        assert record.tree is not None
        turns = [c["turn"] for c in record.tree["commits"]]
        committed = [(t["item"], t["state"]) for t in turns if t["kind"] == "request"]
        assert [(r.item, r.state) for r in record.requests] == committed
        assert all(r.on_path for r in record.requests)
        assert record.rollouts == len(record.tree["rollouts"]) + sum(len(c["rollouts"]) for c in record.tree["commits"])
        shown = [t for c in record.candidates for t in c.turns if t.imagined]
        assert all((t.state, t.findings) == ("", ()) for t in shown)
        assert record.models["world_model"] == record.models["generator"]
        assert RunRecord.model_validate_json(record.model_dump_json()) == record
    rows = list(prompt_rows(store, store.get("ahead")))
    assert {r["role"] for r in rows} == {"generator", "peer", "world_model"}
    assert all(r["model"] for r in rows)
    for record in (s.record for s in stored(store, "behind")):
        assert (record.imagined_requests, "world_model" in record.models) == (0, False)
        assert record.settings["chart_access"] == "hindsight"


def test_a_prospective_run_resumes_and_spreads_to_the_same_records(
    fill: Callable[..., str], options: ReplayOptions, store_of: Callable[[str], RunStore]
) -> None:
    url, ahead = fill(2), replace(options, chart_access="prospective", strategy="rap")
    replay(url, "one", ahead)
    assert resume(url, "one").skipped == 2
    replay(url, "two", ahead, workers=2)
    store = store_of(url)
    one, two = ([s.record.model_copy(update={"seconds": 0.0}) for s in stored(store, n)] for n in ("one", "two"))
    assert one == two
    assert {r.strategy for r in one} == {"rap"}
    assert {r.settings["value"] for r in one} == {"rap"}


def test_a_run_by_recorded_labels_takes_train_cases_and_labelled_steps_only(
    fill: Callable[..., str], options: ReplayOptions, store_of: Callable[[str], RunStore], caplog: Any
) -> None:
    url = fill(6)
    replay(url, "steered", replace(options, value="ground_truth", split="train", settings={**TINY, "rollouts": 8}))
    store = store_of(url)
    found = stored(store, "steered")
    assert {s.record.case_id for s in found} == {
        f"fhir-e{i:03d}" for i in range(6) if split_of("fhir", f"p{i:03d}") == "train"
    }
    for one in found:
        record = one.record
        assert record.settings["value"] == "ground_truth"
        if record.step == "second":  # nothing was recorded for it
            assert (record.status, record.reason) == ("not_applicable", "no recorded label to value answers by")
            continue
        right = {t["code"] for t in one.truth}
        assert {c.value for c in record.candidates} <= {0.0, 1.0}
        assert all((c.value == 1.0) == (c.answer_key in right) for c in record.candidates)
    assert "CANARY" not in json.dumps(list(prompt_rows(store, store.get("steered"))))
    assert score_run(store.engine, "steered")["steps"]["first"]["n"] > 0
    assert "steered by recorded labels" in caplog.text


def test_no_metrics_for_a_run_that_labels_steered_beyond_the_train_split(
    fill: Callable[..., str], options: ReplayOptions, store_of: Callable[[str], RunStore]
) -> None:
    url = fill(2)
    replay(url, "plain", options)
    store = store_of(url)
    config = {**store.get("plain").config, "split": "held-out"}
    run = store.begin("forged", "two-steps", config, {})
    record = stored(store, "plain")[0].record
    forged = record.model_copy(update={"settings": {**record.settings, "value": "ground_truth"}})
    store.put(run.run_id, forged, [], {}, [])
    with pytest.raises(UsageError, match="has no metrics"):
        score_run(store.engine, "forged")


def test_a_budget_of_seconds_marks_the_record_unrepeatable(
    fill: Callable[..., str], options: ReplayOptions, store_of: Callable[[str], RunStore]
) -> None:
    url = fill(1)
    for name, budget in (("timed", {"max_seconds": 60.0}), ("counted", {"max_tokens": 50})):
        replay(url, name, replace(options, settings={**TINY, **budget}))
    store = store_of(url)
    assert {s.record.repeatable for s in stored(store, "timed")} == {False}
    counted = [s.record for s in stored(store, "counted")]
    assert {(r.repeatable, r.rollouts) for r in counted} == {(True, 1)}
    assert all("tokens is spent" in r.reason for r in counted)


@pytest.mark.parametrize(
    "words",
    ["--strategy rap", "--strategy best-of-n --value rap", "--chart-access prospective", "--preset paper --value rap"],
)
def test_the_command_line_takes_them(
    fill: Callable[..., str], pathway_file: Path, store_of: Callable[[str], RunStore], words: str
) -> None:
    url = fill(1)
    base = f"replay --db {url} --run a --pathway {pathway_file} --steps first --generator random:1 --rollouts 2"
    result = CliRunner().invoke(app, f"{base} {words}".split())
    assert result.exit_code == 0, result.output
    (record,) = (s.record for s in stored(store_of(url), "a"))
    assert record.rollouts >= 2
    assert record.settings["value"] == ("rap" if "rap" in words else "self_consistency")
    assert record.settings["merge"] == ("never" if "paper" in words else "equal")
    assert record.settings["rollouts"] == 2


def test_hosts_and_model_options_come_from_the_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('allowed_hosts = ["gpu.example"]\n[models]\ncache_mb = 512\nretries = 2\n', encoding="utf-8")
    config = make_config(ReplayOptions(**read_options(file)))
    prepared = prepare(config)
    assert prepared.allowed_hosts == ("gpu.example",)
    assert prepared.models == {"cache_mb": 512, "retries": 2}


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("[models]\ncache_gb = 2\n", "models", "unknown model option cache_gb"),
        ("[models]\nretries = 'many'\n", "models", "retries must be a whole number"),
        ("models = 3\n", "models", "must be a table"),
        ("allowed_hosts = [1]\n", "allowed_hosts", "must be a list of words"),
    ],
)
def test_model_options_that_cannot_be_name_their_place(tmp_path: Path, text: str, field: str, words: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match=words) as refused:
        read_options(file)
    assert refused.value.field == field


def test_a_run_is_confined_to_the_cases_of_a_file(
    options: ReplayOptions, fill: Callable[..., str], store_of: Callable[[str], RunStore], tmp_path: Path
) -> None:
    """The list is part of the configuration: the file may go, and another list is another run."""
    url, listed = fill(4), tmp_path / "cases.txt"
    listed.write_text("# a cohort\nfhir-e002\n\nfhir-e000  # the first\nfhir-e002\n", encoding="utf-8")
    confined = replace(options, cases=str(listed))
    replay(url, "some", confined)
    listed.unlink()
    resume(url, "some")
    assert {s.record.case_id for s in stored(store_of(url), "some")} == {"fhir-e000", "fhir-e002"}
    listed.write_text("fhir-e001\n", encoding="utf-8")
    with pytest.raises(UsageError, match="another configuration: cases"):
        replay(url, "some", confined)
    assert "cases" not in make_config(options)


def test_a_limited_run_keeps_the_cases_it_began_with(
    options: ReplayOptions, labelled: Callable[..., LabelledCase], store_of: Callable[[str], RunStore], tmp_path: Path
) -> None:
    """What an import puts before them takes no place of theirs, and changes nothing of the configuration."""
    url, limited = f"sqlite:///{tmp_path / 'growing.db'}", replace(options, limit=2)
    engine = open_database(url, create=True)
    CaseStore(engine).put_many([labelled(i) for i in (3, 5, 7)])
    replay(url, "some", limited)
    replay(url, "three", replace(options, limit=4))
    store = store_of(url)
    begun = store.get("some")
    assert begun.cases == ("fhir-e003", "fhir-e005")
    store.drop(begun.run_id, [("fhir-e005", step, 1) for step in ("first", "second")])  # as though it had been killed
    CaseStore(engine).put_many([labelled(i) for i in (0, 4)])
    counted = count_run(engine, limited, "some")
    assert [(c.applicable, c.done) for c in counted.steps.values()] == [(2, 1), (2, 1)]
    assert [state.cases for state in run_states(engine)] == [2, 3]  # four would be there by now
    resume(url, "some")
    replay(url, "some", limited)
    assert [s.record.case_id for s in stored(store, "some")] == ["fhir-e003"] * 2 + ["fhir-e005"] * 2
    run = store.get("some")
    assert (run.config, run.config_hash) == (make_config(limited), config_hash(make_config(limited)))
    replay(url, "new", limited)
    assert store.get("new").cases == ("fhir-e000", "fhir-e003")
    replay(url, "all", options)
    assert store.get("all").cases is None
    engine.dispose()


def test_a_list_of_cases_may_begin_with_a_byte_order_mark(options: ReplayOptions, tmp_path: Path) -> None:
    (tmp_path / "cases.txt").write_text("fhir-e001\nfhir-e000\n", encoding="utf-8-sig")
    assert make_config(replace(options, cases=str(tmp_path / "cases.txt")))["cases"] == ["fhir-e000", "fhir-e001"]


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_a_list_of_cases_must_hold_some(options: ReplayOptions, tmp_path: Path, text: str) -> None:
    (tmp_path / "cases.txt").write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match="holds no case id"):
        make_config(replace(options, cases=str(tmp_path / "cases.txt")))
    with pytest.raises(BadInputError, match="cannot be read"):
        make_config(replace(options, cases=str(tmp_path / "missing.txt")))


def test_a_listed_case_must_be_there(options: ReplayOptions, fill: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "cases.txt").write_text("fhir-e000\nfhir-e077\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"cases\.txt: no case fhir-e077 \(1 of 2"):
        replay(fill(2), "some", replace(options, cases=str(tmp_path / "cases.txt")))
