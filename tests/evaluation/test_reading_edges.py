"""What readings must not give away or take for another's: work lists, earlier runs, runs that were resumed."""

from __future__ import annotations

import json
from collections import Counter

from reading_runs import FIRST, SECOND, Visitor, member, one_step, path_of, two_steps
from sqlalchemy import select

from evaluation.reading.agreement import agreement_of
from evaluation.reading.store import part_with, reviews_of
from evaluation.reading.tables import reading_log
from evaluation.store.run_store import RunStore
from evaluation.supervision.readings import STALE, RunReadings

stored, single = two_steps, one_step

ONE = path_of(1)
OWN = {"answer": "pneumonia", "confidence": "70"}


def test_the_work_list_is_the_same_whether_a_later_step_was_taken_or_not(stored):
    """A loop taken again tells that the model's answer was not confirmed, and a step passed by that there was none."""
    engine, run = stored
    reader = member(engine, run, "Ann")
    with_later = reader.get("/").text
    assert path_of(1, SECOND) not in with_later
    RunStore(engine).drop(run.run_id, [("fhir-r1", SECOND, 1), ("fhir-r2", SECOND, 1)])
    assert reader.get("/").text == with_later
    assert "Cases: 0 of 2 finished" in with_later


def test_who_knows_a_record_from_another_run_or_a_deleted_one_is_not_given_the_case_again(single):
    engine, run = single
    store, record = RunStore(engine), RunStore(engine).record(run.run_id, "fhir-r1", FIRST).record
    ann, ben, cem = (member(engine, run, name) for name in ("Ann", "Ben", "Cem"))

    def again(name, visitor):
        other = store.begin(name, "two-steps", run.config, {})
        if not store.done(other.run_id):
            store.put(other.run_id, record, [], {}, ())
        found = Visitor(engine, other)
        found.client.cookies = visitor.client.cookies
        return found

    assert again("two", ben).post(f"{ONE}/first", OWN).status_code == 200
    ann.read(ONE)
    ben.read(ONE)
    assert again("two", ann).get(ONE).status_code == 404  # never given
    assert again("two", ben).get(ONE).status_code == 409  # begun, and closed
    assert again("two", cem).get(ONE).status_code == 200
    assert ann.finish(ONE).status_code == 200
    store.delete("one", lambda c: part_with(c, "one", readings_too=True))
    assert again("one", ann).get(ONE).status_code == 404
    assert again("one", cem).get(ONE).status_code == 200


def test_ends_of_lines_do_not_cost_the_last_words(single):
    """The page lets 10,000 characters be typed and counts the end of a line as one; browsers send two."""
    engine, run = single
    reader = member(engine, run, "Ann")
    typed = "line\n" * 1_999 + "end.."
    reader.post(f"{ONE}/draft/first", {"words": typed.replace("\n", "\r\n")})
    with engine.connect() as connection:
        (entry,) = connection.execute(select(reading_log).where(reading_log.c.kind == "draft"))
    assert json.loads(entry.payload_json)["fields"]["words"] == [typed]


def test_a_reading_belongs_to_what_it_judged_and_not_to_what_a_resumed_run_found_later(single):
    engine, run = single
    reader = member(engine, run, "Ann")
    reader.read(ONE)
    reader.finish(ONE, may_train="yes")
    (review,) = reviews_of(engine, run.run_id)
    store = RunStore(engine)
    record = store.record(run.run_id, "fhir-r1", FIRST).record
    assert RunReadings(run, [review]).take(record, Counter()) == [review]
    assert agreement_of(engine, "one", [review])["readings"] == 1
    other = record.model_copy(update={"ranked": record.ranked[::-1]})
    store.put(run.run_id, other, [], {}, (), replace=True)
    dropped = Counter()
    assert RunReadings(run, [review]).take(other, dropped) == []
    assert dropped == {STALE: 1}
    assert agreement_of(engine, "one", [review])["unknown"] == 1
