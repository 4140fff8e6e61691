"""`wardstar train`: from a set to a model that `--generator` and `--peer` accept, and the exit codes on the way."""

import json

import pytest

from tests.search.tiny_llama import make_tiny
from workflow.config import hashes_of
from workflow.pathway import load_pathway
from workflow.training import check_pathway

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft asks transformers for deprecated names
]

ROWS = [
    {"prompt": f"a record.\n\npatient {c}.\nanswer:", "completion": f" {a}\n"}
    for c, a in zip("xyz", ("cold", "burns", "cramp"), strict=True)
]
FAST = ("--lr", "0.01", "--dtype", "fp32", "--device", "cpu", "--batch-size", "2")


@pytest.fixture
def tiny(tmp_path):
    return make_tiny(tmp_path / "tiny", max_position_embeddings=4096)


@pytest.fixture
def rows(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "tuning.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    return folder


def test_a_tuned_folder_is_a_generator_and_a_peer(run, fill, pathway_file, tiny, rows, tmp_path):
    code, out, err = run("train", "sft", "--data", rows, "--out", "tuned", "--base", tiny, "--json", *FAST)
    assert code == 0, err
    card = json.loads(out)  # nothing else on stdout
    assert card["status"] == "complete"
    assert "6 of 6 steps, loss" in err
    db = fill(1)
    options = ("--db", db, "--pathway", pathway_file, "--steps", "first", "--rollouts", 2)
    code, _, err = run("replay", *options, "--run", "r", "--generator", "tuned", "--peer", tmp_path / "tuned")
    assert code == 0, err
    run("records", "--db", db, "--run", "r", "--out", "records.jsonl")
    record = json.loads((tmp_path / "records.jsonl").read_text())
    assert record["status"] in ("verified", "unverified", "abstain")
    run("prompts", "--db", db, "--run", "r", "--out", "prompts.jsonl")
    models = {json.loads(line)["model"] for line in (tmp_path / "prompts.jsonl").read_text().splitlines()}
    assert len(models) == 1
    assert models.pop().startswith("tiny+tuned@")  # name, and revision over base and adapter


def test_exit_codes(run, tiny, rows, tmp_path):
    def code(*arguments):
        left, _, err = run("train", *arguments)
        return left, err

    assert code("sft", "--data", rows)[0] == 2  # no --out
    assert code("sft", "--data", rows, "--out", "o", "--rank", "0")[0] == 2
    left, err = code("sft", "--data", "nowhere", "--out", "o", "--base", tiny)
    assert (left, "no training set" in err, "wardstar export sft" in err) == (3, True, True)
    left, err = code("dpo", "--data", rows, "--out", "o", "--base", tiny)
    assert (left, "set/train.jsonl:1: chosen: field required" in err) == (3, True)
    left, err = code("sft", "--data", rows, "--out", "o", "--base", tmp_path / "no-model")
    assert (left, "holds no model" in err) == (4, True)
    assert code("sft", "--data", rows, "--out", rows, "--base", tiny)[0] == 2  # holds something else
    left, err = code("sft", "--data", rows, "--out", "o", "--base", tiny, "--device", "cuda:7")
    assert (left, "no device cuda:7" in err) == (2, True)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("part", ["pathway", "catalogue", "vocabulary"])
def test_a_set_of_another_version_of_a_bundled_pathway_is_refused(run, tiny, rows, tmp_path, part):
    loaded = load_pathway("icu")
    hashes = hashes_of(loaded.pathway)
    other = next((name for name in hashes if name.startswith(part)), "pathway icu")
    pathway = {"name": "icu", "version": "1", "sha256": "0" * 64 if part == "pathway" else loaded.sha256}
    card = {"kind": "sft", "pathway": pathway, "hashes": {**hashes, **({other: "0" * 64} if other in hashes else {})}}
    (rows / "card.json").write_text(json.dumps(card))
    command = ("train", "sft", "--data", rows, "--base", tiny)
    code, _, err = run(*command, "--out", "o")
    assert (code, f"another version of {other} than this program" in err.replace("\n", " ")) == (3, True), err
    assert "loading" not in err
    assert not (tmp_path / "o").exists()
    card["pathway"]["name"] = "mine"  # a pathway of one's own is what it is
    (rows / "card.json").write_text(json.dumps(card))
    check_pathway(rows)
    card = {"kind": "sft", "pathway": {"name": "icu", "sha256": loaded.sha256}, "hashes": hashes}
    (rows / "card.json").write_text(json.dumps(card))
    check_pathway(rows)


def test_ctrl_c_says_how_to_go_on(run, tiny, rows, monkeypatch):
    from evaluation.supervision import fine_tune_trainers

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fine_tune_trainers.Watch, "on_step_end", stop, raising=False)
    code, _, err = run("train", "sft", "--data", rows, "--out", "o", "--base", tiny, *FAST)
    assert code == 130
    assert "--resume goes on" in err


def test_what_export_writes_is_what_train_reads(run, fill, pathway_file, tmp_path):
    db, tiny = fill(8), make_tiny(tmp_path / "tiny", max_position_embeddings=4096)
    replayed = run("replay", "--db", db, "--pathway", pathway_file, "--run", "r", "--steps", "first", "--rollouts", 4,
                   "--generator", "random:3")  # fmt: skip
    assert replayed[0] == 0, replayed[2]
    for kind, method in (("sft", "sft"), ("preference", "dpo"), ("sft", "ttrl"), ("stepwise", "stepwise")):
        code, _, err = run("export", kind, "--db", db, "--run", "r", "--out", kind)
        assert code == 0, err
        options = ("--epochs", "0.2", "--dtype", "fp32", "--device", "cpu", "--max-length", "2048")
        code, out, err = run(
            "train", method, "--data", kind, "--out", f"by-{method}", "--base", tiny, "--json", *options
        )
        assert code == 0, err
        card = json.loads(out)
        assert card["data"]["rows"] > 0
        assert {"prompts", "pathway two-steps"} <= card["versions"].keys()


def test_a_value_model_steers_a_search_and_its_prompts_are_shown(run, fill, pathway_file, tiny, tmp_path):
    row = {"prompt": "a.\n\nb.", "completions": ["\nThought: good", "\nanswer: bad"], "values": [0.9, 0.2]}
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text(json.dumps(row) + "\n")
    code, out, err = run("train", "stepwise", "--data", "set", "--out", "judge", "--base", tiny, "--json", *FAST)
    assert code == 0, err
    assert json.loads(out)["settings"]["target"] == "value"
    db = fill(2)
    options = ("--db", db, "--pathway", pathway_file, "--steps", "first", "--rollouts", 3)
    valued = (*options, "--generator", "random:3", "--value", "model:judge")
    for name in ("r", "again"):
        code, _, err = run("replay", *valued, "--run", name)
        assert code == 0, err
        run("records", "--db", db, "--run", name, "--out", f"{name}.jsonl")
        run("prompts", "--db", db, "--run", name, "--out", f"{name}-prompts.jsonl")
    first, again = (
        [{**json.loads(line), "seconds": 0} for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("r", "again")
    )
    assert first == again
    rows = [json.loads(line) for line in (tmp_path / "r-prompts.jsonl").read_text().splitlines()]
    asked = [row for row in rows if row["role"] == "value"]
    assert all(row["model"].startswith("tiny+judge@") for row in asked)
    assert {row["case_id"] for row in asked} == {row["case_id"] for row in rows}
    assert "\nWorking diagnosis: " in asked[0]["text"]
    code, out, _ = run("runs", "show", "again", "--db", db)
    work = json.loads(out)["work"]
    assert work["cache_hits"] > 0  # nothing was judged twice
    assert work["cache_misses"] == 0
    code, _, err = run("replay", *options, "--run", "s", "--generator", "judge")
    assert (code, "values trajectories and writes none" in err) == (2, True)
    code, _, err = run("replay", *options, "--run", "t", "--generator", "random:3", "--value", f"model:{tiny}")
    assert (code, "is no value model" in err) == (4, True)
    # in batches across cases as well, and asked as often
    code, _, err = run("replay", *valued, "--run", "u", "--batch-across-cases")
    assert code == 0, err
    run("prompts", "--db", db, "--run", "u", "--out", "u.jsonl")
    together = [json.loads(line) for line in (tmp_path / "u.jsonl").read_text().splitlines()]
    assert sum(row["role"] == "value" for row in together) == len(asked)
