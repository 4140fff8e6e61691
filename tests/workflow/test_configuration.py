"""`wardstar config`, `--set`, and one source of truth for every option."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import Run

from clinical_data.errors import BadInputError, UsageError
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from search.models.registry import OPTIONS
from search.settings import SearchSettings
from workflow.config import make_config
from workflow.options import (
    MODEL_OPTIONS,
    ReplayOptions,
    choose,
    effective,
    option_infos,
    parse_set,
    read_options,
    table_infos,
    template,
)

UNCOMMENTED = re.compile(r"^#(\w+ = )", re.MULTILINE)


def test_a_new_file_changes_nothing(run: Run, tmp_path: Path) -> None:
    assert run("config", "init")[:2] == (0, "wardstar.toml\n")
    chosen = choose({}, tmp_path / "wardstar.toml")
    assert chosen.options == ReplayOptions()
    assert not chosen.origins


def test_a_new_file_holds_every_option_at_its_default(tmp_path: Path) -> None:
    """Every line that holds a value, taken out of its comment, is read and changes nothing but where it comes from."""
    path = tmp_path / "all.toml"
    path.write_text(UNCOMMENTED.sub(r"\1", template()))
    read = read_options(path)
    assert {k: v for k, v in read.items() if k not in ("settings", "models")} == {
        i.name: i.default for i in option_infos() if i.default is not None
    }
    assert SearchSettings(**read["settings"]) == SearchSettings()
    assert set(read["settings"]) == {f.name for f in fields(SearchSettings)}
    assert read["models"] == {name: d for name, (d, _) in MODEL_OPTIONS.items() if d is not None}
    assert make_config(ReplayOptions(**{**read, "models": {}})) == make_config(ReplayOptions())
    named = set(re.findall(r"^#?(\w+) =", template(), re.MULTILINE))
    wanted = [*option_infos(), *table_infos("search"), *table_infos("models")]
    assert named == {i.name for i in wanted}
    assert all(i.meaning for i in wanted)
    assert set(tomllib.loads(template())) == {"search", "models"}


def test_config_init_replaces_no_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "wardstar.toml").write_text("seed = 4\n")
    code, _, error = run("config", "init")
    assert code == 2
    assert "exists already" in error
    assert (tmp_path / "wardstar.toml").read_text() == "seed = 4\n"


def test_defaults_of_models_are_those_of_the_back_ends() -> None:
    from search.models.openai_compatible import OpenAIModel
    from search.models.transformers import TransformersModel

    assert set(MODEL_OPTIONS) == set(OPTIONS)
    for load in (TransformersModel.load, OpenAIModel.load):
        for name, parameter in inspect.signature(load).parameters.items():
            if name in MODEL_OPTIONS:
                assert MODEL_OPTIONS[name][0] == parameter.default, name


def test_config_show_says_where_each_value_comes_from(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        'seed = 3\nstrategy = "rap"\n[search]\ndepth = 7\nrollouts = 9\n[models]\nthreads = 2\n'
    )
    words = ("--config", "run.toml", "--preset", "paper", "--seed", "5", "--set", "search.votes=4")
    code, out, _ = run("config", "show", "--json", *words)
    assert code == 0
    shown = {r["option"]: (r["value"], r["from"]) for r in json.loads(out)["options"]}
    assert shown["seed"] == (5, "command line")
    assert shown["strategy"] == ("rap", "run.toml")
    assert shown["preset"] == ("paper", "command line")
    assert shown["search.depth"] == (7, "run.toml")
    assert shown["search.votes"] == (4, "command line")
    assert shown["search.exploration"] == (2.0, "preset paper")
    assert shown["search.value"] == ("rap", "strategy rap")
    assert shown["search.think"] == (3, "default")
    assert shown["models.threads"] == (2, "run.toml")
    assert shown["models.retries"] == (4, "default")


def test_config_show_prints_the_hash_of_the_run(run: Run, fill: Callable[..., str], pathway_file: Path) -> None:
    """The hash is that of the run, and each of its records holds it."""
    url = fill(1)
    words = ("--pathway", pathway_file, "--generator", "random:7", "--rollouts", "2", "--set", "search.think=1")
    assert run("replay", "--db", url, "--run", "one", *words)[0] == 0
    shown = json.loads(run("config", "show", "--json", *words)[1])["sha256"]
    assert f"sha256 {shown}" in run("config", "show", *words)[1]
    engine = open_database(url, create=False)
    store = RunStore(engine)
    stored = store.get("one")
    assert stored.config_hash == shown
    assert stored.config["settings"]["think"] == 1
    assert {s.record.hashes["configuration"] for s in store.records(stored.run_id)} == {shown}
    engine.dispose()
    assert json.loads(run("config", "show", "--json", *words, "--seed", "1")[1])["sha256"] != shown


@pytest.mark.parametrize("info", [*table_infos("search"), *table_infos("models")], ids=lambda i: i.name)
def test_every_setting_has_a_form_on_the_command_line(info: object) -> None:
    name, default, kind = info.name, info.default, info.kind  # type: ignore[attr-defined]
    table = "models" if name in OPTIONS else "search"
    value = default if default is not None else 3
    field, read_name, read = parse_set(f"{table}.{name}={value}")
    assert (field, read_name, read) == ("models" if table == "models" else "settings", name, kind(value))
    assert type(read) is kind


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("search.rollout=3", "did you mean rollouts"),
        ("models.thread=3", "did you mean threads"),
        ("search.rollouts=many", "must be a whole number"),
        ("search.rollouts=0", "at least 1"),
        ("search.temperature=nan", "must be a number"),
        ("search.rollouts", "is no search.NAME=VALUE"),
        ("rollouts=3", "is no search.NAME=VALUE"),
        ("serach.rollouts=3", "is no search.NAME=VALUE"),
        ("models.retries=x", "must be a whole number"),
        ("models.timeout=inf", "must be a number"),
        ("models.cache_mb=nan", "must be a number"),
        ("models.threads=0", "at least 1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(run: Run, text: str, words: str) -> None:
    code, _, error = run("config", "show", "--set", text)
    assert code == 2
    assert words in error


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="rollouts is given twice"):
        choose({"rollouts": 3}, None, ["search.rollouts=4"])
    with pytest.raises(UsageError, match="depth is given twice"):
        choose({}, None, ["search.depth=3", "search.depth=4"])


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('seed = 3\nchart_access = "prospective"\n[search]\nrollouts = 9\nvotes = 3\n')
    assert choose({"seed": 0}, path).options.seed == 0
    options = choose({}, path, ["search.chart_access=hindsight", "search.rollouts=4"]).options
    config = make_config(options)
    assert config["chart_access"] == "hindsight"
    assert (config["settings"]["rollouts"], config["settings"]["votes"]) == (4, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sed = 3\n", "did you mean seed"),
        ("rollouts = 3\n", r"did you mean search.rollouts, under \[search\]"),
        ("[search]\nrolouts = 3\n", "did you mean rollouts"),
        ("[models]\nthread = 3\n", "did you mean threads"),
    ],
)
def test_an_unknown_key_gets_a_suggestion(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(BadInputError, match=words):
        read_options(path)


def test_hosts_are_named_by_a_file_alone(run: Run) -> None:
    assert "allowed" not in run("replay", "--help")[1]
    assert run("replay", "--allowed-hosts", "x")[0] == 2


def test_the_effective_options_are_all_options() -> None:
    shown = {row["option"] for row in effective(choose({}))}
    assert {f"search.{f.name}" for f in fields(SearchSettings)} <= shown
    assert {f"models.{name}" for name in OPTIONS} <= shown
    named = {f.name for f in fields(ReplayOptions)} - {"settings", "models", "value", "chart_access"}
    assert named <= shown
