"""Readings by clinicians, for tests: a whole one, of which a test says what it cares for."""

from __future__ import annotations

from evaluation.reading.form import Own, Reason, Review, Say, Verdict

STEP = "admission_diagnosis"


def review_of(number=1, reviewer="ann", **more):
    """A reading of case `fhir-NUMBER`: the model's answer is accepted unless `corrected` says otherwise."""
    corrected = tuple(more.pop("corrected", ()))
    first, after = more.pop("first", ("J18",)), more.pop("after", ("J18",))
    verdict = Verdict.OVERRIDDEN if corrected else Verdict.ACCEPTED
    given = {
        "reviewer": reviewer, "role": "physician", "specialty": "internal medicine", "years": 9, "run": "r",
        "key": (f"fhir-{number}", STEP, 1), "run_hash": "", "case_hash": "", "report_hash": "3" * 64,
        "first": Own(tuple(first), 70, minutes=2.0), "after": Own(tuple(after), 80, minutes=3.5),
        "ratings": {}, "verdict": verdict, "reason": Reason.WRONG_DIAGNOSIS if corrected else None, "remark": "",
        "corrected": corrected, "equivalent": Say.UNSURE, "knowable": Say.UNSURE, "would_ask": (), "offending": (),
        "unsafe": "", "harm_severity": "", "harm_likelihood": "", "record_wrong": Say.NO, "minutes": 6.0,
        "may_train": True, "adjudicates": False, "finished": "2026-11-29T10:00:00+00:00",
    }  # fmt: skip
    return Review(**{**given, **more})
