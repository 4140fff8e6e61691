"""Steps that ask for a set of answers or for a free one, from the pathway file to the record and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clinical_data.catalogue import load_catalogue
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import LabelledCase
from evaluation.record import RunRecord
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from search.settings import SearchSettings
from workflow.config import ReplayOptions
from workflow.pathway import load_pathway, parse_pathway
from workflow.runner import replay, resume
from workflow.step import plan_step, problem_of


@pytest.fixture
def two_forms(pathway_file: Path) -> Path:
    """The first step asks for at most two answers, the second for a free one."""
    text = pathway_file.read_text()
    text = text.replace("form: closed", "form: set\n      most: 2", 1).replace("form: closed", "form: free", 1)
    pathway_file.write_text(text)
    return pathway_file


def records(url: str, run: str) -> list[RunRecord]:
    engine = open_database(url, create=False)
    store = RunStore(engine)
    found = [stored.record for stored in store.records(store.get(run).run_id)]
    engine.dispose()
    return found


def test_the_form_reaches_the_problem_and_the_settings(two_forms: Path, labelled: Callable[..., LabelledCase]) -> None:
    pathway, case = load_pathway(str(two_forms)).pathway, labelled(1).case
    plans = [plan_step(step, load_catalogue("v1"), SearchSettings()) for step in pathway.steps]
    problems = [problem_of(case, plan, 360) for plan in plans]
    assert [(p.form, p.most) for p in problems] == [("set", 2), ("one", 1)]
    assert [plan.settings.vote for plan in plans] == ["exact", "free"]


def test_a_free_answer_is_never_voted_on_by_likelihood(two_forms: Path) -> None:
    text = two_forms.read_text() + "    search: {vote: exact}\n"
    with pytest.raises(BadInputError, match="has the vote `free`") as caught:
        parse_pathway(text)
    assert caught.value.field == "steps[1].search.vote"


def test_a_replay_records_what_was_chosen_and_drawn_and_resumes_alike(
    two_forms: Path, fill: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fill(2)
    settings = {"rollouts": 3, "votes": 6}
    options = ReplayOptions(
        pathway=str(two_forms), seed=3, generator="random:7", settings=settings, predecessors="predicted"
    )
    replay(url, "whole", options)
    for record in records(url, "whole"):
        if record.step == "first":
            assert 1 <= len(record.chosen) <= 2
            assert record.chosen == tuple(a.code for a in record.ranked[: len(record.chosen)])
            assert all(c.answer_key == " + ".join(sorted(c.chosen)) for c in record.candidates)
        else:
            assert record.chosen == ()
            assert {a.system for a in record.ranked} == {""}  # random words name no entry
        assert record.draws == sum(c.draws for c in record.candidates) > 0
        assert record.unparseable == 0
    assert any(len(record.chosen) == 2 for record in records(url, "whole"))
    put = RunStore.put

    def stop_at_second(self: RunStore, run_id: int, record: Any, *rest: Any, **more: Any) -> None:
        if record.step == "second":
            raise KeyboardInterrupt
        put(self, run_id, record, *rest, **more)

    monkeypatch.setattr(RunStore, "put", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        replay(url, "halved", options)
    monkeypatch.undo()
    resume(url, "halved")
    timeless = {"seconds": 0.0}
    again = [r.model_copy(update=timeless) for r in records(url, "halved")]
    assert again == [r.model_copy(update=timeless) for r in records(url, "whole")]
