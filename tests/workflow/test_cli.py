from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run

from clinical_data.errors import UsageError
from workflow.commands.cases import minutes
from workflow.demo import parts


@pytest.fixture
def replayed(run: Run, fill: Callable[..., str], pathway_file: Path) -> str:
    """A database of two cases with the finished run `one`."""
    url = fill(2)
    code, out, error = run(
        "replay", "--db", url, "--run", "one", "--pathway", pathway_file, "--generator", "random:7", "--rollouts", "2"
    )
    assert (code, out) == (0, ""), error
    assert "run one: 2 cases" in error
    return url


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = (
        "torch",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "matplotlib",
        "langgraph",
        "sqlalchemy",
        "fhir",
        "duckdb",
        "jinja2",
    )
    code = f"import sys, workflow.cli; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_replay_without_weights_loads_no_torch(fill: Callable[..., str], pathway_file: Path) -> None:
    arguments = ["replay", "--db", fill(1), "--run", "a", "--pathway", str(pathway_file), "--generator", "random:1"]
    code = (
        "import sys\nfrom workflow.cli import main\n"
        f"try:\n    main({[*arguments, '--rollouts', '1']})\n"
        "except SystemExit as left:\n    print(left.code, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0 False"


def test_help_names_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    commands = "demo import cases pathway replay resume runs score compare prompts records report models doctor"
    for name in commands.split():
        assert re.search(rf"\b{name}\b", out)


def test_cases_json_has_the_agreed_rows(run: Run, fill: Callable[..., str]) -> None:
    url = fill(2)
    for arguments in (("cases",), ("cases", "list")):
        code, out, _ = run(*arguments, "--db", url, "--json")
        rows = json.loads(out)
        assert code == 0
        assert [r["case_id"] for r in rows] == ["fhir-e000", "fhir-e001"]
        assert list(rows[0]) == ["case_id", "source", "source_id", "patient_id", "split", "truth", "absent"]
        assert rows[0]["truth"] == {
            "admission_diagnosis": [
                {
                    "system": "http://hl7.org/fhir/sid/icd-10-cm",
                    "code": "J18.9",
                    "display": "CANARY label",
                    "strength": "recorded-at-time",
                }
            ]
        }
        assert rows[0]["absent"] == {"discharge_diagnosis": "not recorded"}


def test_labels_show_only_when_asked_for(run: Run, fill: Callable[..., str]) -> None:
    url = fill(1)
    assert "CANARY" not in run("cases", "--db", url)[1]
    assert "CANARY" in run("cases", "--db", url, "--truth")[1]
    show = ("cases", "show", "fhir-e000", "--db", url, "--as-of")
    assert "CANARY" not in run(*show, "6h")[1]
    assert "CANARY" in run(*show, "6h", "--truth")[1]


def test_a_case_shows_what_was_known_at_a_time(run: Run, fill: Callable[..., str]) -> None:
    url = fill(1)
    show = ("cases", "show", "fhir-e000", "--db", url, "--as-of")
    assert "Sodium" not in run(*show, "1999")[1]
    assert "Sodium" in run(*show, "2000")[1]
    assert len(json.loads(run(*show, "2d", "--json")[1])["findings"]) == 3
    assert run(*show, "soon")[0] == 2
    assert run("cases", "show", "fhir-none", "--db", url, "--as-of", "0")[0] == 2


def test_records_and_prompts_are_private_json_lines(run: Run, replayed: str, tmp_path: Path) -> None:
    keys = {
        "records": "case_id source_id step occurrence status ranked truth match requests peer_agreement rollouts "
        "tokens seconds repeatable",
        "prompts": "case_id source_id step role model text",
    }
    for command, names in keys.items():
        path = tmp_path / f"{command}.jsonl"
        assert run(command, "--db", replayed, "--run", "one", "--out", path)[0] == 0
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert rows
        assert set(names.split()) <= set(rows[0])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        _, out, _ = run(command, "--db", replayed, "--run", "one")
        assert [json.loads(line) for line in out.splitlines()] == rows
    assert "CANARY" not in (tmp_path / "prompts.jsonl").read_text()
    assert "Sodium" in (tmp_path / "prompts.jsonl").read_text()  # known at the second step's clock
    prompts = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert not any("Sodium" in r["text"] for r in prompts if r["step"] == "first")
    _, out, _ = run("prompts", "--db", replayed, "--run", "one", "--tokens")
    assert all({"prompt_ids", "completion_ids"} <= set(json.loads(line)) for line in out.splitlines())


def test_scores_and_runs_are_json_on_stdout_alone(run: Run, replayed: str) -> None:
    code, out, _ = run("score", "--db", replayed, "--run", "one", "--json")
    assert code == 0
    assert json.loads(out)
    assert "first" in run("score", "--db", replayed, "--run", "one")[1]
    [row] = json.loads(run("runs", "list", "--db", replayed, "--json")[1])
    assert (row["run"], row["status"], row["case_steps"]) == ("one", "finished", 4)
    assert json.loads(run("runs", "show", "one", "--db", replayed)[1])["config"]["seed"] == 0


def test_the_report_is_written(run: Run, replayed: str, tmp_path: Path) -> None:
    code, out, _ = run("report", "--db", replayed, "--run", "one", "--out", tmp_path / "report")
    assert code == 0
    assert Path(out.strip()) == tmp_path / "report" / "index.html"
    assert (tmp_path / "report" / "index.html").stat().st_size > 1000


def test_a_run_can_be_deleted(run: Run, replayed: str) -> None:
    assert run("runs", "delete", "one", "--db", replayed, "--yes")[0] == 0
    assert json.loads(run("runs", "list", "--db", replayed, "--json")[1]) == []
    assert run("runs", "delete", "one", "--db", replayed, "--yes")[0] == 2


def test_options_from_a_file_give_way_to_those_of_the_command_line(
    run: Run, fill: Callable[..., str], pathway_file: Path, tmp_path: Path
) -> None:
    url, config = fill(1), tmp_path / "run.toml"
    config.write_text(f'pathway = "{pathway_file}"\ngenerator = "random:7"\nseed = 4\n[search]\nrollouts = 2\n')
    assert run("replay", "--db", url, "--run", "one", "--config", config, "--seed", "9")[0] == 0
    stored = json.loads(run("runs", "show", "one", "--db", url)[1])["config"]
    assert (stored["seed"], stored["settings"]["rollouts"], stored["generator"]) == (9, 2, "random:7")


def test_import_reads_the_bundled_cases_like_anyones_twice(run: Run) -> None:
    from clinical_data.demo import bundle_folder

    folder = bundle_folder()
    if not any(folder.iterdir()):
        pytest.skip("the bundled cases are not generated")
    assert "added" in run("import", "fhir", folder)[1]
    before = run("cases", "--json")[1]
    assert "unchanged" in run("import", "fhir", folder)[1]
    assert run("cases", "--json")[1] == before
    assert stat.S_IMODE(Path("wardstar.db").stat().st_mode) == 0o600


def test_the_demo_shows_the_whole_way_and_runs_again(run: Run, tmp_path: Path) -> None:
    for attempt in range(2):
        code, out, error = run("demo", "--cases", "2", "--model", "random:3", "--out", "shown")
        assert code == 0, error
        assert "fhir-ward-0002" in out
        assert Path(out.splitlines()[-1].removeprefix("report: ")) == Path("shown/report/index.html")
        assert ("2 done before" in error) == bool(attempt)
    assert Path("shown/report/index.html").exists()
    rows = json.loads(run("runs", "list", "--db", "sqlite:///shown/wardstar.db", "--json")[1])
    assert [(r["run"], r["strategy"], r["case_steps"]) for r in rows] == [
        ("demo", "rstar", 4),
        ("demo-full-information", "full-information", 4),
    ]
    code, _, error = run("demo", "--cases", "3", "--model", "random:3", "--out", "shown")
    assert (code, "another --out" in error) == (2, True)


def test_the_demo_compares_before_and_after_where_adapters_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from search.models import weight_files

    monkeypatch.setattr(weight_files, "bundled_adapters", lambda: ["generator", "peer"])
    made = {p.run: (p.generator, p.peer) for p in parts("embedded")}
    assert made["demo-untuned"] == ("embedded", None)
    assert made["demo"] == ("embedded:generator", "embedded:peer")
    assert [p.run for p in parts("random:1")] == ["demo", "demo-full-information"]
    monkeypatch.setattr(weight_files, "bundled_adapters", lambda: ["generator"])
    assert [p.run for p in parts("embedded")] == ["demo", "demo-full-information"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("nonsense", 2, "No such command"),
        ("replay --rollouts many", 2, "rollouts"),
        ("replay --run a --strategy rap --value self_consistency", 2, "values by rap"),
        ("replay --run a --executor moon", 2, "unknown"),
        ("replay --run a --ray-address 127.0.0.1:6379", 2, "for --executor ray"),
        ("replay --run a --chart-access sideways", 2, "must be hindsight or prospective"),
        ("replay --run a --predecessors guessed", 2, "is unknown"),
        ("replay --run a --review sometimes", 2, "is unknown"),
        ("replay --run a --value ground_truth", 2, "needs --split train"),
        ("replay --run a --preset thesis", 2, "no preset"),
        ("replay --run a --batch-across-cases --workers 2", 2, "one process"),
        ("replay --run a --cases-at-once 4", 2, "for --batch-across-cases alone"),
        ("replay --run a --batch-across-cases --cases-at-once 0", 2, "at least 1"),
        ("replay --run a --pathway inpatiant", 2, "did you mean inpatient"),
        ("replay --run a --pathway none.yaml", 3, "cannot be read"),
        ("replay --run a --config none.toml", 3, "cannot be read"),
        ("replay", 2, "needs a name"),
        ("replay --run a", 5, "no such database"),
        ("resume --run a", 5, "no such database"),
        ("cases", 5, "no such database"),
        ("import mimic-iv x", 3, "no such file or folder"),
        ("import eicu . --condition-rank ranks.csv", 2, "belongs to"),
        ("import tarot x", 2, "no importer"),
        ("import fhir nowhere", 3, "nowhere"),
        ("import eicu nowhere", 3, "nowhere"),
        ("pathway show none", 2, "no pathway"),
        ("pathway validate none.yaml", 3, "cannot be read"),
    ],
)
def test_errors_have_their_exit_code_and_no_traceback(run: Run, arguments: str, code: int, message: str) -> None:
    left, out, error = run(*arguments.split())
    assert left == code
    assert message in error
    assert "Traceback" not in error
    assert out == ""
    assert not Path("wardstar.db").exists()


def test_an_empty_database_gets_a_hint(run: Run, fill: Callable[..., str], pathway_file: Path) -> None:
    url = fill(0)
    code, _, error = run("replay", "--db", url, "--run", "a", "--pathway", pathway_file, "--generator", "random:1")
    assert code == 2
    assert "holds no cases" in error
    assert "wardstar import" in error


def test_missing_weights_are_a_model_error(run: Run, fill: Callable[..., str], pathway_file: Path) -> None:
    url = fill(1)
    code, _, error = run("replay", "--db", url, "--run", "a", "--pathway", pathway_file)
    assert code == 4
    assert "wardstar models install" in error


def test_a_run_in_which_every_search_failed_is_a_model_error(
    run: Run, fill: Callable[..., str], pathway_file: Path, tmp_path: Path
) -> None:
    """A step that does not apply to the case was not taken, and makes no failure better."""
    url = fill(1)
    script = tmp_path / "broken.json"
    script.write_text('{"score": [{"scores": 3}], "generate": [{"texts": []}]}')
    pathway_file.write_text(pathway_file.read_text().replace("plus_minutes: 360", "plus_minutes: 36000"))
    words = ("--run", "a", "--pathway", pathway_file, "--generator", f"scripted:{script}")
    code, _, error = run("replay", "--db", url, *words)
    assert "1 failed, 1 not applicable" in error
    assert "every step that was taken failed" in error
    assert code == 4


@pytest.mark.parametrize("spec", ["random:--5", "random:\N{SUPERSCRIPT TWO}"])
def test_a_seed_that_is_none_is_named(run: Run, fill: Callable[..., str], pathway_file: Path, spec: str) -> None:
    code, _, error = run("replay", "--db", fill(1), "--run", "a", "--pathway", pathway_file, "--generator", spec)
    assert (code, "no model random:" in error) == (2, True)


def test_debug_shows_where(run: Run) -> None:
    assert "Traceback" in run("--debug", "cases")[2]


def test_an_unexpected_error_quotes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise KeyError("cough for 3 days")

    monkeypatch.setattr("workflow.pathway.load_pathway", broken)
    code, _, error = run("pathway", "show", "inpatient")
    assert (code, "cough" in error) == (1, False)
    assert "internal error: KeyError" in error


def test_doctor_says_how_to_mend(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code == 4  # no weights in this home
    assert "wardstar models install" in " ".join(out.split())
    assert "not there yet" in out
    assert out.count("not ok") == 1  # the weights alone


@pytest.mark.parametrize(
    ("toml", "field"),
    [
        ("generator = 3\n", "generator"),
        ("limit = 1.5\n", "limit"),
        ("steps = 3\n", "steps"),
        ("[search]\nrollouts = 'abc'\n", "search"),
        ("[search]\ntemperature = -1.0\n", "search"),
    ],
)
def test_a_configuration_of_the_wrong_type_names_file_and_field(
    run: Run, fill: Callable[..., str], tmp_path: Path, toml: str, field: str
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(toml, encoding="utf-8")
    code, _, error = run("replay", "--db", fill(1), "--run", "a", "--config", config)
    assert code == 3
    assert "run.toml" in error
    assert field in error


def test_a_pathway_with_an_unknown_value_source_is_refused_before_anything_runs(
    run: Run, fill: Callable[..., str], pathway_file: Path
) -> None:
    text = pathway_file.read_text(encoding="utf-8")
    pathway_file.write_text(text.replace("search: {depth: 3}", "search: {value: nope}"), encoding="utf-8")
    url = fill(1)
    code, _, error = run("replay", "--db", url, "--run", "a", "--pathway", pathway_file, "--generator", "random:1")
    assert (code, "nope" in error) == (2, True)
    assert json.loads(run("runs", "list", "--db", url, "--json")[1]) == []


@pytest.mark.parametrize(("text", "minute"), [("360", 360), ("1.5h", 90), ("2d", 2880), ("-30", -30), ("0.5 min", 0)])
def test_times_from_the_start(text: str, minute: int) -> None:
    assert minutes(text) == minute


@pytest.mark.parametrize("text", ["soon", "9" * 20, "1w", "1e9", "--5"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="no time"):
        minutes(text)


def test_coverage_stands_below_the_cases(run: Run, fill: Callable[..., str]) -> None:
    _, out, _ = run("cases", "--db", fill(2), "--truth")
    assert "recorded labels per source and step" in out
    assert "2 of 2" in out
    assert "2: not recorded" in out


def test_a_mistyped_folder_is_not_made(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "nowhere"
    code, _, error = run("import", "osce", Path(__file__), "--db", f"sqlite:///{folder / 'a.db'}")
    assert code == 5
    assert "no such folder" in error
    assert not folder.exists()


def test_two_runs_are_compared(run: Run, replayed: str, pathway_file: Path) -> None:
    again = ("replay", "--db", replayed, "--pathway", pathway_file, "--generator", "random:7", "--strategy", "greedy")
    assert run(*again, "--run", "two")[0] == 0
    code, out, _ = run("compare", "--db", replayed, "one", "two", "--json")
    result = json.loads(out)
    assert (code, result["a"], result["b"]) == (0, "one", "two")
    found = result["steps"]["first"]["metrics"]["accuracy_category"]
    assert {"a", "b", "difference", "low", "high", "n", "only_a", "only_b", "mcnemar_p"} <= set(found)
    code, out, err = run("compare", "--db", replayed, "one", "two")
    assert code == 0
    assert "accuracy category" in out
    assert "differs: strategy" in err
    assert out.count("first: run one against run two") == 1
    code, _, err = run("compare", "--db", replayed, "one", "one")
    assert (code, "itself" in err) == (2, True)


def test_a_run_over_all_splits_is_said_to_be(run: Run, replayed: str, pathway_file: Path) -> None:
    again = ("replay", "--db", replayed, "--pathway", pathway_file, "--generator", "random:7")
    assert run(*again, "--run", "train", "--split", "train")[0] == 0
    err = run("compare", "--db", replayed, "one", "train")[2]
    assert "differs: split: all / train" in err


@pytest.mark.parametrize("command", [("score", "--run", "one"), ("compare", "one", "two")])
def test_a_seed_below_0_is_refused_in_words(run: Run, command: tuple[str, ...]) -> None:
    code, _, error = run(*command, "--seed", "-1")
    assert (code, "--seed" in error, "Traceback" in error) == (2, True, False)
