"""A reading from its first view to its end: what is shown at which stage, what is taken when, and what is kept."""

from __future__ import annotations

import itertools
import re

import pytest
from reading_runs import (
    FIRST,
    LATER,
    MODEL,
    OF_MODEL,
    OF_RECORD,
    SECOND,
    SECOND_CHART,
    THOUGHT,
    TRUTH,
    Visitor,
    add_reader,
    make_case,
    make_run,
    member,
    one_step,
    path_of,
    two_steps,
)

from clinical_data.errors import UsageError
from clinical_data.store.case_store import CaseStore
from evaluation.reading.audit import verify
from evaluation.reading.form import Own, Reason, Say, Verdict
from evaluation.reading.store import part_with, reviews_of
from evaluation.review.afterwards import Hindsight
from evaluation.store.run_store import RunStore

stored, single = two_steps, one_step

ONE = path_of(1)
OWN = {"answer": "pneumonia", "confidence": "70"}


def holds(texts, canaries):
    return {c for c in canaries for text in texts if c in text}


def test_nothing_of_model_or_record_is_in_any_response_before_the_commit(stored):
    reader = member(*stored, "Ann")
    for path in ("/", ONE, path_of(1, SECOND), path_of(2), path_of(2, SECOND)):
        reader.get(path)
    for number, step in itertools.product((1, 2), (FIRST, SECOND)):
        for part in ("first", "after", "finished"):
            reader.post(f"{path_of(number, step)}/draft/{part}", {"answer": "x"})
            if part != "first":
                reader.post(f"{path_of(number, step)}/{part}", OWN | {"verdict": "accepted"})
    reader.post(f"{ONE}/first", {"answer": "nonsense", "confidence": "200"})
    assert "cough and fever" in "".join(reader.bodies)
    assert holds(reader.bodies, (*OF_MODEL, *OF_RECORD, SECOND_CHART)) == set()


def test_the_model_is_shown_after_the_first_answer_and_the_record_after_the_second(single):
    reader = member(*single, "Ann")
    shown = reader.post(f"{ONE}/first", OWN).text
    assert holds([shown], OF_MODEL) == {MODEL, THOUGHT, "CANARYrejected"}
    assert holds(reader.bodies, OF_RECORD) == set()
    shown = reader.post(f"{ONE}/after", OWN).text
    assert holds([shown], OF_RECORD) == {TRUTH, LATER}


def test_what_clinicians_did_afterwards_is_told_as_in_the_report(single):
    engine, run = single
    told = member(engine, run, "Ann").read(ONE).text.partition("What clinicians did afterwards")[2]
    told = told.partition("</section>")[0]
    assert "As recorded in the 24 hours after the time of this step." in told
    assert SECOND_CHART in told  # an X-ray 40 minutes after the clock, with what it said
    assert "CT of the chest" not in told  # more than a day after it
    look = Hindsight(run.config, CaseStore(engine).get)
    found = look.afterwards(RunStore(engine).record(run.run_id, "fhir-r1", FIRST).record)
    assert [deed.names for deed in found.done] == ["Chest X-ray", f"{LATER} drug"]
    assert all(deed.names in told for deed in found.done)


def test_a_later_step_opens_after_the_earlier_and_the_record_after_all(stored):
    reader, second = member(*stored, "Ann"), path_of(1, SECOND)
    assert reader.get(second).status_code == 404
    reader.post(f"{ONE}/first", OWN)
    assert reader.get(second).status_code == 404
    reader.post(f"{ONE}/after", OWN)
    assert "Both answers are committed" in reader.get(ONE).text
    assert reader.post(f"{ONE}/finished", {"verdict": "accepted"}).status_code == 409
    chart = reader.get(second)
    assert chart.status_code == 200
    assert SECOND_CHART in chart.text
    reader.post(f"{second}/first", OWN)
    assert holds(reader.bodies, OF_RECORD) == set()
    reader.post(f"{second}/after", OWN)
    assert TRUTH in reader.get(ONE).text
    assert TRUTH in reader.get(second).text


def test_a_reader_who_knows_the_record_of_a_case_reads_no_further_step_of_it(single):
    from reading_runs import make_record

    engine, run = single
    reader = member(engine, run, "Ann")
    reader.read(ONE)
    case = CaseStore(engine).get("fhir-r1")
    RunStore(engine).put(run.run_id, make_record(case, SECOND), [], {}, ())
    assert reader.get(path_of(1, SECOND)).status_code == 409
    assert "closed: you know its record" in reader.get("/").text
    assert reader.finish(ONE).status_code == 200


def test_the_chart_is_that_of_the_clock_whatever_the_model_asked_for(single):
    text = member(*single, "Ann").get(ONE).text
    assert "cough and fever" in text
    assert "Potassium" in text
    assert "1 earlier" in text
    assert "early drug" not in text  # treatment is hidden until the step that offers it


def test_illegal_transitions_change_nothing(single):
    reader = member(*single, "Ann")
    reader.get(ONE)

    def refused(*parts):
        for part in parts:
            for form in (f"{ONE}/{part}", f"{ONE}/draft/{part}"):
                before = verify(single[0]).head
                assert reader.post(form, OWN | {"verdict": "accepted"}).status_code == 409, form
                entries = reader.client.get("/").text  # views are logged, nothing else was
                assert entries
                assert verify(single[0]).head != before
        assert [r.kind for r in log(single[0]) if r.kind in parts] == [p for p in parts if p in done]

    done: list[str] = []
    refused("after", "finished")
    reader.post(f"{ONE}/first", OWN)
    done = ["first"]
    refused("first", "finished")
    reader.post(f"{ONE}/after", OWN)
    done = ["first", "after"]
    refused("first", "after")
    assert reader.finish(ONE).status_code == 200
    done = ["first", "after", "finished"]
    refused("first", "after", "finished")
    (review,) = reviews_of(single[0], single[1].run_id)
    assert review.first.codes == ("J18.9",)


def log(engine):
    from evaluation.reading.tables import reading_log

    with engine.connect() as connection:
        return connection.execute(reading_log.select().order_by(reading_log.c.seq)).all()


def test_an_unknown_part_or_address_is_no_page(single):
    reader = member(*single, "Ann")
    for path in (f"{ONE}/third", f"{ONE}/draft/third", "/read/0000000000000000/first"):
        assert reader.post(path, OWN).status_code == 404
    assert reader.get("/read/0000000000000000").status_code == 404


def test_what_is_typed_is_there_again_and_an_equal_draft_is_not_written_twice(single):
    engine, run = single
    reader = member(engine, run, "Ann")
    fields = {"answer": "pneu", "words": "a cough – <b>&amp;", "confidence": "7"}
    for _ in range(3):
        assert reader.post(f"{ONE}/draft/first", fields).text.startswith("Saved")
    assert [r.kind for r in log(engine)].count("draft") == 1
    again = Visitor(engine, run)  # another process on the same database
    again.client.cookies = reader.client.cookies
    text = again.get(ONE).text
    assert 'value="pneu"' in text
    assert "a cough – &lt;b&gt;&amp;amp;" in text
    assert 'value="7"' in text


def test_what_cannot_be_taken_is_named_and_kept(single):
    reader = member(*single, "Ann")
    response = reader.post(f"{ONE}/first", {"answer": "pneumonitis?", "confidence": "101"})
    assert response.status_code == 422
    assert "Not on the list: pneumonitis?" in response.text
    assert "A whole number from 0 to 100." in response.text
    assert 'value="pneumonitis?"' in reader.get(ONE).text
    assert reader.post(f"{ONE}/first", {"confidence": "5"}).status_code == 422
    again = reader.get(f"{ONE}/first")  # the address that the refused form left, typed or reloaded
    assert (again.status_code, again.url.path) == (200, ONE)
    assert [r.status_code for r in again.history] == [303]
    assert reader.post(f"{ONE}/first", {"words": "an odd thing", "confidence": "5"}).status_code == 200


def test_without_a_recorded_label_nothing_is_asked_of_it(single):
    engine, run = single
    stored = RunStore(engine)
    key = ("fhir-r1", FIRST, 1)
    reader = member(engine, run, "Ann")
    reader.read(ONE, "J18.9", "heart failure")
    assert 'name="knowable"' in reader.get(ONE).text
    stored.rescore(run.run_id, key, [], {})
    page = reader.get(ONE).text
    assert 'name="record_wrong"' in page
    assert 'name="knowable"' not in page
    assert 'name="equivalent"' not in page


def test_a_finished_reading_holds_the_whole_form(single):
    engine, run = single
    reader = member(engine, run, "Ann")
    reader.read(ONE, "J18.9", "heart failure")
    page = reader.get(ONE).text
    assert re.search(r'name="rating-2" value="5"', page)
    assert 'name="rating-3"' not in page
    assert reader.finish(ONE, verdict="overridden").status_code == 422
    answer = reader.finish(
        ONE, verdict="overridden", reason="missed-finding", corrected="pneumonia", remark="see the X-ray",
        **{"rating-0": "4", "rating-1": "9", "rating-2": "1"}, equivalent="no", knowable="yes", would_ask="Lactate",
        offending=["f-r1-k", "f-other"], unsafe="no antibiotic", harm_severity="severe", harm_likelihood="possible",
        record_wrong="no", may_train="yes",
    )  # fmt: skip
    assert answer.status_code == 200
    (review,) = reviews_of(engine, run.run_id)
    assert (review.reviewer, review.role, review.specialty, review.years) == (
        "Ann",
        "attending",
        "internal medicine",
        12,
    )
    assert (review.run, review.key, review.run_hash) == ("one", ("fhir-r1", FIRST, 1), run.config_hash)
    assert review.case_hash == make_case(1).case.content_hash
    assert re.fullmatch("[0-9a-f]{64}", review.report_hash)
    assert review.first == Own(("J18.9",), 70, "", review.first.minutes)
    assert review.after == Own(("I50.9",), 80, "", review.after.minutes)
    assert (review.verdict, review.reason, review.corrected) == (Verdict.OVERRIDDEN, Reason.MISSED_FINDING, ("J18.9",))
    assert review.ratings == {0: 4, 2: 1}
    assert (review.equivalent, review.knowable, review.record_wrong) == (Say.NO, Say.YES, Say.NO)
    assert (review.would_ask, review.offending) == (("lactate",), ("f-r1-k",))
    assert (review.remark, review.unsafe) == ("see the X-ray", "no antibiotic")
    assert (review.harm_severity, review.harm_likelihood) == ("severe", "possible")
    assert review.may_train
    assert not review.adjudicates
    assert 0 <= review.first.minutes <= review.minutes
    assert "This reading is finished" in reader.get(ONE).text


def test_a_set_takes_several_answers_and_no_more_than_it_may(stored):
    reader, second = member(*stored, "Ann"), path_of(1, SECOND)
    reader.read(ONE)
    four = {"answer": ["pneumonia", "heart failure", "N39.0", "K85.9"], "confidence": "50"}
    assert reader.post(f"{second}/first", four).status_code == 422
    assert reader.post(f"{second}/first", four | {"answer": ["pneumonia", "N39.0", "pneumonia"]}).status_code == 200
    reader.post(f"{second}/after", {"answer": "pneumonia", "confidence": "50"})
    reader.finish(second)
    (review,) = reviews_of(stored[0], stored[1].run_id)
    assert review.first.codes == ("J18.9", "N39.0")


def test_two_readers_do_not_see_each_other(single):
    engine, run = single
    ann, ben = member(engine, run, "Ann"), member(engine, run, "Ben")
    ann.post(f"{ONE}/draft/first", {"words": "secret of Ann"})
    ann.read(ONE)
    assert "secret of Ann" not in ben.get(ONE).text
    assert ben.post(f"{ONE}/after", OWN).status_code == 409
    ben.read(ONE, "heart failure", "heart failure")
    ann.finish(ONE)
    ben.finish(ONE, verdict="overridden", reason="too-broad", corrected="pneumonia")
    first, second = reviews_of(engine, run.run_id)
    assert (first.reviewer, first.first.codes) == ("Ann", ("J18.9",))
    assert (second.reviewer, second.first.codes) == ("Ben", ("I50.9",))
    assert verify(engine).broken is None


def test_readings_that_differ_are_settled_by_an_adjudicator_who_sees_both(single):
    engine, run = single
    judge = member(engine, run, "Judge", adjudicator=True)
    ann, ben = member(engine, run, "Ann"), member(engine, run, "Ben")
    for number in (1, 2):
        for reader in (ann, ben):
            reader.read(path_of(number))
    for number in (1, 2):
        ann.finish(path_of(number), remark="fits")
    assert "No two readings differ so far" in judge.get("/").text
    assert judge.get(ONE).status_code == 404
    ben.finish(path_of(2))
    ben.finish(ONE, verdict="overridden", reason="wrong-diagnosis", corrected="pneumonia", remark="of Ben")
    assert judge.get(path_of(2)).status_code == 404
    assert judge.get(ONE).status_code == 200
    judge.bodies.clear()
    judge.read(ONE)
    assert not any("of Ben" in body for body in judge.bodies[:-1])
    assert "of Ben" in judge.bodies[-1]
    assert "Ann" not in judge.bodies[-1]
    judge.finish(ONE, verdict="overridden", reason="wrong-diagnosis", corrected="pneumonia")
    last = reviews_of(engine, run.run_id)[-1]
    assert (last.reviewer, last.adjudicates) == ("Judge", True)
    assert "1 of 1 finished" in judge.get("/").text


def test_hostile_text_shows_harmlessly(tmp_path):
    hostile = "<script>alert(1)</script>\u202egnirts\u2066 \x00 " + "long " * 200_000
    engine, run = make_run(f"sqlite:///{tmp_path / 'a.db'}", tmp_path, steps=(FIRST,), complaint=hostile)
    reader = member(engine, run, "Ann")
    text = reader.get(ONE).text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert not set("\u202e\u2066\x00") & set(text)
    assert "[U+202E]" in text
    assert "cut here for display: 20,000 of" in text
    assert len(text) < 200_000
    engine.dispose()


def test_a_case_with_another_content_than_in_the_run_is_not_read(single):
    engine, run = single
    reader = member(engine, run, "Ann")
    CaseStore(engine).put(make_case(1, "something else"))
    response = reader.get(ONE)
    assert response.status_code == 409
    assert "imported anew" in response.text
    assert "something else" not in response.text


def test_a_run_with_finished_readings_is_not_deleted_by_the_way(single):
    engine, run = single
    reader = member(engine, run, "Ann")
    reader.read(ONE)
    reader.finish(ONE)
    store = RunStore(engine)
    with pytest.raises(UsageError, match="1 finished readings"):
        store.delete("one", lambda c: part_with(c, "one", readings_too=False))
    assert len(reviews_of(engine, store.get("one").run_id)) == 1
    store.delete("one", lambda c: part_with(c, "one", readings_too=True))
    assert store.runs() == []
    again = store.begin("one", "two-steps", run.config, {})
    assert reviews_of(engine, again.run_id) == []
    assert verify(engine).broken is None


def test_without_readings_a_run_is_deleted_as_before(single):
    engine, _ = single
    before = verify(engine).entries
    RunStore(engine).delete("one", lambda c: part_with(c, "one", readings_too=False))
    assert verify(engine).entries == before
    assert RunStore(engine).runs() == []


def test_there_is_no_reading_of_an_unknown_run(single):
    with pytest.raises(UsageError, match="no run"):
        reviews_of(single[0], 99)


def test_every_view_is_logged_with_the_hash_of_what_it_showed(single):
    engine, _ = single
    reader = member(*single, "Ann")
    reader.get("/")
    reader.read(ONE)
    reader.finish(ONE)
    reader.get(ONE)
    kinds = {r.kind for r in log(engine) if r.reviewer == "Ann"}
    views = {"view-first", "view-after", "view-record", "view-done"}
    assert {"login", "view-list", "first", "after", "finished", *views} <= kinds
    assert all("page_sha256" in r.payload_json for r in log(engine) if r.kind in views)


def test_both_databases_keep_a_reading(database_url, tmp_path):
    engine, run = make_run(database_url, tmp_path, steps=(FIRST,))
    reader = member(engine, run, "Ann")
    reader.post(f"{ONE}/draft/first", {"words": "zero \x00 and \U0001f600 é"})
    reader.read(ONE)
    reader.finish(ONE)
    assert [r.key for r in reviews_of(engine, run.run_id)] == [("fhir-r1", FIRST, 1)]
    assert verify(engine).broken is None
    engine.dispose()


def test_a_name_cannot_be_taken_twice(single):
    add_reader(single[0], "Ann")
    with pytest.raises(UsageError, match="Ann"):
        add_reader(single[0], "Ann")
