"""A run of `inpatient-zh`: nothing of the frame of its prompts is English, and English prompts stay what they were."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Run

from clinical_data.catalogue import load_catalogue
from clinical_data.chart import AnswerState
from clinical_data.demo import bundle_folder
from evaluation.store import open_database
from evaluation.store.run_store import RunStore
from evaluation.supervision.lesson_checks import check_alike
from search import prompts, prompts_zh, wording
from search.actions import ActionKind
from workflow.config import ReplayOptions
from workflow.importing import import_cases
from workflow.pathway import load_pathway
from workflow.runner import replay, resume

ENGLISH_HASH = "857c8ce49376151128ba35eeabf09e08a58b2803a9ca6d2b26b0041f2da1a552"
TINY = {"rollouts": 6, "think": 1, "ask": 1, "ask_votes": 2, "request": 3, "imagine": 1, "votes": 2}
# Words of the frame; a finding may well be called "Result", so those that open a line are looked for there.
LINES = [cue.strip() for cue in (*prompts.CUES.values(), prompts.REPLY_CUE, prompts.REASK_CUE, prompts.RESULT_CUE)]
LINES += ["Patient: ", "Earlier conclusion: ", "Possible answers: ", prompts.EVALUATION_CUE.strip()]
ANYWHERE = ["A doctor reviews", "A second doctor", "admitted from", "years, ", "or older", "age unknown"]
ANYWHERE += [wording.ABSTAINED[wording.ENGLISH], *prompts.UNANSWERED.values()]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunStore]:
    """Two bundled cases, replayed by both kinds of search."""
    bundles = sorted(bundle_folder().glob("*.json.gz"))[:2]
    if not bundles:
        pytest.skip("the bundled cases are not generated")
    folder = tmp_path_factory.mktemp("zh")
    for bundle in bundles:
        shutil.copy(bundle, folder)
    url = f"sqlite:///{folder / 'zh.db'}"
    import_cases(url, "fhir", folder)
    engine = open_database(url, create=False)
    options = ReplayOptions(
        pathway="inpatient-zh", generator="random:1", predecessors="predicted", seed=2, settings=TINY
    )
    replay(url, "rstar", options)
    replay(url, "rap", replace(options, strategy="rap", settings={**TINY, "chart_access": "prospective"}))
    yield RunStore(engine)
    engine.dispose()


def sent(store: RunStore, run: str) -> list[tuple[str, str]]:
    """(purpose, prompt with the turn it asks for) of every call of a run."""
    return [(call.purpose, call.text) for *_, call in store.calls(store.get(run).run_id)]


@pytest.mark.parametrize("run", ["rstar", "rap"])
def test_no_prompt_holds_a_word_of_the_english_frame(store: RunStore, run: str) -> None:
    found = sent(store, run)
    purposes = {purpose for purpose, _ in found}
    assert purposes >= ({"think", "ask", "rephrase", "request", "vote"} if run == "rstar" else {"imagine", "evaluate"})
    items = {i.display for i in load_catalogue("v1").items}
    for _, text in found:
        lines = text.split("\n")
        assert not [line for line in lines if line.startswith(tuple(LINES))]
        assert not [words for words in ANYWHERE if words in text]
        assert not [line for line in lines if re.split(r": ?", line)[-1] in items]
        assert not [line for line in lines if line.partition(":")[0].lower() in items]
        assert lines[0].startswith("一名医生正在查阅一份病历")
    whole = "\n".join(text for _, text in found)
    for cue in (*prompts_zh.CUES.values(), prompts_zh.RESULT_CUE):
        assert cue in whole


def test_the_chart_answers_in_chinese(store: RunStore) -> None:
    whole = "\n".join(text for _, text in sent(store, "rstar"))
    assert f"{prompts_zh.RESULT_CUE} {prompts_zh.UNANSWERED[AnswerState.NOT_DONE_BY_NOW]}" in whole
    assert "偏高" in whole
    assert re.search(r"\n患者: [男女]性，\d+岁", whole)
    assert f"\n{prompts_zh.EARLIER.format(text='初步诊断: ')}" in whole


def test_records_say_so_and_a_run_is_resumed(store: RunStore) -> None:
    run = store.get("rstar")
    hashes = {s.record.hashes["prompts"] for s in store.records(run.run_id)}
    assert hashes == {wording.template_hash("zh")} == {run.config["hashes"]["prompts"]}
    asked = [r for s in store.records(run.run_id) for r in s.record.requests]
    assert asked
    assert {r.display for r in asked} <= {i.display for i in load_catalogue("v1-zh").items}
    summary = resume(str(store.engine.url), "rstar")
    assert sum(summary.statuses.values()) == 0


def test_no_training_set_is_made_of_chinese_prompts(store: RunStore) -> None:
    with pytest.raises(Exception, match="English prompts alone"):
        check_alike([store.get("rstar")])


def test_english_prompts_are_what_they_were() -> None:
    """Whoever changes them gives up resuming stored runs, and the bundled adapters; then the hash here changes too."""
    assert wording.template_hash("en") == prompts.TEMPLATE_HASH == ENGLISH_HASH
    assert wording.wording("en") is prompts
    assert load_pathway("inpatient").pathway.language == "en"


def test_the_languages_say_the_same_things() -> None:
    english, chinese = vars(prompts), vars(prompts_zh)
    assert set(prompts_zh.CUES) == set(prompts.CUES) >= {ActionKind.THINK}
    assert set(prompts_zh.UNANSWERED) == set(prompts.UNANSWERED)
    texts = {n for n, v in chinese.items() if n.isupper() and isinstance(v, str)} - {"EARLIER"}
    assert texts == {n for n, v in english.items() if n.isupper() and isinstance(v, str)} - {
        "TEMPLATE_HASH",
        "BETWEEN",
        "PRESENT",
    }
    cues = [*prompts_zh.CUES.values(), *(chinese[n] for n in texts if n.endswith("_CUE"))]
    assert len(set(cues)) == len(cues)  # a turn is known by its cue
    assert not set(cues) & {*prompts.CUES.values(), *(english[n] for n in texts)}


def test_a_language_that_is_none_is_refused(run: Run, pathway_file: Path) -> None:
    pathway_file.write_text(pathway_file.read_text().replace("version: 1", "version: 1\nlanguage: xx"))
    code, _, error = run("pathway", "validate", pathway_file)
    assert (code, "language" in error) == (3, True)
