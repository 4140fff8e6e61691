"""A model trained anew at the path of an earlier one does not go on with its run."""

import pytest
from sqlalchemy import delete

from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from evaluation.store.tables import case_steps
from tests.search.tiny_llama import make_tiny

pytestmark = pytest.mark.usefixtures("one_thread")


def make_judge(folder, base, bias):
    """Writes what passes for a value model on a base: an adapter of zeros, and a head."""
    import peft
    import torch
    import transformers

    from search.models.value_head import save_head

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    peft.get_peft_model(model, peft.LoraConfig(r=1, target_modules=["q_proj"])).save_pretrained(folder)
    save_head(torch.zeros(model.config.hidden_size), torch.tensor([bias]), folder)
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for deprecated names
def test_a_run_does_not_go_on_with_another_value_model(run, fill, pathway_file, tmp_path):
    tiny, db = make_tiny(tmp_path / "tiny", max_position_embeddings=4096), fill(2)
    judge = make_judge(tmp_path / "judge", tiny, 0.5)
    options = ("--db", db, "--pathway", pathway_file, "--steps", "first", "--rollouts", 2, "--generator", "random:3")
    options += ("--value", f"model:{judge}")
    code, _, err = run("replay", "--run", "r", *options)
    assert code == 0, err
    assert run("resume", "--db", db, "--run", "r")[0] == 0
    make_judge(judge, tiny, 0.7)  # the same adapter with another head
    for command in (("resume", "--db", db, "--run", "r"), ("replay", "--run", "r", *options)):
        code, _, err = run(*command)
        assert code == 2
        assert f"run r: the value model {judge} is another model now" in err.replace("\n", " ")


def revisions(db):
    engine = open_database(db, create=False)
    store = RunStore(engine)
    found = {s.record.models["generator"]["revision"] for s in store.records(store.get("r").run_id)}
    engine.dispose()
    return found


def test_a_run_does_not_go_on_with_another_model_of_the_same_name(run, fill, pathway_file, tmp_path):
    tiny, db = make_tiny(tmp_path / "tiny", max_position_embeddings=4096), fill(2)
    options = ("--db", db, "--pathway", pathway_file, "--steps", "first", "--rollouts", 2, "--generator", tiny)
    assert run("replay", "--run", "r", *options)[0] == 0
    assert "is another model now" not in run("resume", "--db", db, "--run", "r")[2]
    before = revisions(db)
    make_tiny(tiny, seed=1, max_position_embeddings=4096)
    for done in (True, False):
        if not done:  # one case is still to do
            engine = open_database(db, create=False)
            with engine.begin() as connection:
                connection.execute(delete(case_steps).where(case_steps.c.case_id == "fhir-e001"))
            engine.dispose()
        for command in (("resume", "--db", db, "--run", "r"), ("replay", "--run", "r", *options)):
            code, _, err = run(*command)
            assert code == 2
            assert f"run r: the generator {tiny} is another model now" in err.replace("\n", " ")
            assert "of the stored records" in err
    assert revisions(db) == before
    make_tiny(tiny, max_position_embeddings=4096)  # the earlier one is back
    assert run("resume", "--db", db, "--run", "r")[0] == 0
