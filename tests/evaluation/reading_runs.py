"""A stored run for the tests of readings, full of canaries, and a reader at the application without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, sort_findings
from clinical_data.ground_truth import GroundTruth, Label, LabelledCase, Strength
from clinical_data.store.case_store import CaseStore
from evaluation.reading.app.application import create_app
from evaluation.reading.app.guard import Place
from evaluation.reading.app.login import SESSION
from evaluation.reading.readers import Readers, csrf_token
from evaluation.reading.work_list import address
from evaluation.record import CandidateRecord, FindingRecord, RankedAnswer, RequestRecord, RunRecord, TurnRecord
from evaluation.store import open_database
from evaluation.store.run_store import Run, RunStore

LOINC, ICD = "http://loinc.org", "http://hl7.org/fhir/sid/icd-10-cm"
MODEL, THOUGHT, REJECTED = "CANARYmodel", "CANARYthought", "CANARYrejected"
TRUTH, LATER = "CANARYtruth", "CANARYlater"
SECOND_CHART = "CANARYchart"
"""A finding that is known at the clock of the second step, and not at that of the first."""

OF_MODEL, OF_RECORD = (MODEL, THOUGHT, REJECTED), (TRUTH, LATER)
FIRST, SECOND = "admission_diagnosis", "differential"
VOCABULARY = """\
name: four-answers
version: 1
system: http://hl7.org/fhir/sid/icd-10-cm
source: made up for tests
entries:
  - {code: J18.9, display: pneumonia}
  - {code: I50.9, display: heart failure}
  - {code: N39.0, display: urinary tract infection}
  - {code: K85.9, display: acute pancreatitis}
"""
PATHWAY = """\
name: two-steps
catalogue: v1
steps:
  - name: admission_diagnosis
    clock: {{fhir: {{anchor: admission, plus_minutes: 360, text: 6 hours after admission}}}}
    opening: [chief_complaint]
    answer: {{form: closed, vocabulary: {{fhir: {vocabulary}}}}}
    truth: admission_diagnosis
  - name: differential
    clock: {{fhir: {{anchor: admission, plus_minutes: 480, text: 8 hours after admission}}}}
    opening: [chief_complaint]
    answer: {{form: set, most: 3, vocabulary: {{fhir: {vocabulary}}}}}
    truth: differential
"""


def make_case(number: int, complaint: str = "cough and fever") -> LabelledCase:
    source_id = f"r{number}"

    def fact(key: str, kind: FindingKind, code: str, display: str, value: float | str, at: int) -> Finding:
        return Finding(f"f-{source_id}-{key}", kind, Coding(LOINC, code, display), value, at, at)

    findings = [
        fact("cc", FindingKind.COMPLAINT, "8661-1", "Chief complaint", complaint, 0),
        fact("k0", FindingKind.LABORATORY, "2823-3", "Potassium", 3.1, 30),
        fact("k", FindingKind.LABORATORY, "2823-3", "Potassium", 3.4, 60),
        fact("x", FindingKind.IMAGING, "36643-5", "Chest X-ray", SECOND_CHART, 400),
        fact("ct", FindingKind.IMAGING, "24627-2", "CT of the chest", LATER, 2000),
        fact("rx", FindingKind.TREATMENT, "1", f"{LATER} drug", "given", 600),
        fact("early", FindingKind.TREATMENT, "2", "early drug", "given", 100),
    ]
    case = Case(
        f"fhir-{source_id}", "fhir", source_id, Patient(f"fhir-p{number}", "fhir", f"p{number}", "female"), 60,
        (Encounter(source_id, "inpatient", 0, 4000),), {"admission": 0, "end_of_stay": 4000},
        findings=sort_findings(findings),
    )  # fmt: skip
    label = Label(Coding(ICD, "J18.9", TRUTH), Strength.RECORDED_AT_TIME)
    return LabelledCase(case, {step: GroundTruth(case.case_id, step, (label,)) for step in (FIRST, SECOND)})


def make_record(case: Case, step: str, **changes: Any) -> RunRecord:
    def shown(key: str, name: str, value: str) -> FindingRecord:
        finding_id = f"f-{case.source_id}-{key}"
        return FindingRecord(finding_id=finding_id, name=name, value=value, charted=60, available=60, kind="laboratory")

    request = TurnRecord(
        kind="request", text="basic metabolic panel", item="basic_metabolic_panel", state="recorded",
        findings=(shown("k", "Potassium", "3.4"),),
    )  # fmt: skip
    turns = (
        request, TurnRecord(kind="think", text=f"{THOUGHT} low potassium"),
        TurnRecord(kind="finish", text=f"{MODEL} failure"),
    )  # fmt: skip
    other = (TurnRecord(kind="finish", text=REJECTED),)
    own = {"node": 3, "turns": turns, "answer_key": "I50.9", "answer": f"{MODEL} failure", "agreement": 1.0}
    fields: dict[str, Any] = {
        "case_id": case.case_id, "source": "fhir", "source_id": case.source_id, "patient_id": case.patient.patient_id,
        "step": step, "status": "verified", "strategy": "rstar", "clock": 360 if step == FIRST else 480,
        "clock_text": f"{6 if step == FIRST else 8} hours after admission", "question": f"What about {step}?",
        "vignette": "woman, 60 years",
        "opening": (TurnRecord(kind="opening", text="chief complaint", item="chief_complaint", state="recorded"),),
        "ranked": (
            RankedAnswer(system=ICD, code="I50.9", display=f"{MODEL} failure", probability=0.7),
            RankedAnswer(system=ICD, code="N39.0", display=REJECTED, probability=0.3),
        ),
        "chosen": () if step == FIRST else ("I50.9",),
        "requests": (RequestRecord(item="basic_metabolic_panel", display="basic metabolic panel", state="recorded",
                                   cost=8.0, on_path=True),),
        "peer_agreement": 1.0, "rollouts": 4, "winner": 3,
        "candidates": (
            CandidateRecord(**own, multiplicity=3, value=0.7, peer_answers=("I50.9",), cuts=(1,)),
            CandidateRecord(node=4, turns=other, answer_key="N39.0", answer=REJECTED, multiplicity=1, value=0.3,
                            agreement=None),
        ),
        "hashes": {"case": case.content_hash}, "vocabulary": "four-answers",
    }  # fmt: skip
    return RunRecord(**(fields | changes))


def make_run(
    url: str, folder: Path, cases: int = 2, steps: tuple[str, ...] = (FIRST, SECOND), **more: Any
) -> tuple[Engine, Run]:
    """Stores cases `fhir-r1`, `fhir-r2`, ... and the run `one` of them; `complaint` is what brings the patients."""
    vocabulary = folder / "four-answers.yaml"
    vocabulary.write_text(VOCABULARY)
    engine = open_database(url, create=True)
    store = RunStore(engine)
    text = PATHWAY.format(vocabulary=vocabulary)
    run = store.begin("one", "two-steps", {"seed": 1, "pathway": {"text": text}}, {})
    for number in range(1, cases + 1):
        one = make_case(number, more.get("complaint", "cough and fever"))
        CaseStore(engine).put(one)
        for step in steps:
            truth = [{"system": ICD, "code": "J18.9", "display": TRUTH, "strength": "recorded-at-time"}]
            store.put(run.run_id, make_record(one.case, step), truth, {"code": 0, "chapter": 0}, ())
    store.finish(run.run_id, "finished", {})
    return engine, run


@pytest.fixture
def two_steps(tmp_path: Path) -> Iterator[tuple[Engine, Run]]:
    """Two cases of two steps. Modules of tests give it a name of their own: `stored = two_steps`."""
    engine, run = make_run(f"sqlite:///{tmp_path / 'a.db'}", tmp_path)
    yield engine, run
    engine.dispose()


@pytest.fixture
def one_step(tmp_path: Path) -> Iterator[tuple[Engine, Run]]:
    """Two cases of one step."""
    engine, run = make_run(f"sqlite:///{tmp_path / 'a.db'}", tmp_path, steps=(FIRST,))
    yield engine, run
    engine.dispose()


def path_of(number: int, step: str = FIRST) -> str:
    return f"/read/{address((f'fhir-r{number}', step, 1))}"


def add_reader(engine: Engine, name: str, *, adjudicator: bool = False) -> str:
    return Readers(engine).add(name, "attending", "internal medicine", 12, adjudicator=adjudicator)


class Visitor:
    """A reader at the application; `bodies` holds every response that came."""

    def __init__(self, engine: Engine, run: Run, place: Place | None = None, *, base: str = "http://127.0.0.1") -> None:
        self.client = TestClient(create_app(engine, run, place), base_url=base, follow_redirects=True)
        self.bodies: list[str] = []

    def get(self, path: str, **more: Any) -> Any:
        return self._kept(self.client.get(path, **more))

    def post(self, path: str, fields: dict[str, Any] | None = None, *, csrf: str | None = None, **more: Any) -> Any:
        own = {"csrf": self.csrf() if csrf is None else csrf}
        return self._kept(self.client.post(path, data=own | (fields or {}), **more))

    def csrf(self) -> str:
        if session := self.client.cookies.get(SESSION):
            return csrf_token(session)
        found = re.search(r'name="csrf" value="(\w+)"', self.get("/login").text)
        return found[1] if found else ""

    def login(self, name: str, token: str) -> Any:
        return self.post("/login", {"name": name, "token": token})

    def read(self, path: str, first: str = "pneumonia", after: str = "pneumonia") -> Any:
        """Commits both own answers."""
        self.get(path)
        assert self.post(f"{path}/first", {"answer": first, "confidence": "70"}).status_code == 200
        return self.post(f"{path}/after", {"answer": after, "confidence": "80"})

    def finish(self, path: str, **fields: Any) -> Any:
        self.get(path)
        return self.post(f"{path}/finished", {"verdict": "accepted", **fields})

    def _kept(self, response: Any) -> Any:
        self.bodies += [r.text for r in (*response.history, response)]
        return response


def member(engine: Engine, run: Run, name: str, *, adjudicator: bool = False) -> Visitor:
    """A new reader, logged in."""
    visitor = Visitor(engine, run)
    assert visitor.login(name, add_reader(engine, name, adjudicator=adjudicator)).status_code == 200
    return visitor
