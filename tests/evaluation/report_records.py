"""Hand-made records for the report's tests: pneumonia against pulmonary embolism, with a tree of 22 nodes."""

from __future__ import annotations

from typing import Any

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient
from clinical_data.catalogue import load_catalogue
from clinical_data.chart import Answer, open_chart
from evaluation.record import CandidateRecord, RankedAnswer, RequestRecord, RunRecord, TurnRecord
from evaluation.recording import OPENING, finding_record
from evaluation.store.run_store import Run, StoredRecord
from search.actions import Action, ActionKind, legal_kinds
from search.trajectory import Conclusion, Hypothesis, Turn
from search.tree import Node, Slot, Tree

CANARY = "canary pulmonary infarction 31337"
LOINC, ICD = "http://loinc.org", "http://hl7.org/fhir/sid/icd-10-cm"
SYSTEM = "wardstar:demo/diagnosis"
CLOCK = 360


RUN = Run(
    run_id=1,
    name="demo",
    created="2025-01-01T08:00:00+00:00",
    pathway="inpatient",
    config={"seed": 7, "strategy": "rstar", "pathway": {"text": "name: inpatient", "sha256": "cd" * 32}},
    config_hash="c0ffee" * 10,
    versions={"wardstar": "0.1.0", "torch": "2.13.0"},
    status="finished",
    finished="2025-01-01T08:04:10+00:00",
    work={"tokens_computed": 182_340},
)


# name, code, value, unit, low, high, flag, charted, available, kind; a catalogue item recognises it by its LOINC code
_FACTS: tuple[tuple[str, str, float | str, str, float | None, float | None, str, int, int, FindingKind], ...] = (
    (
        "Chief complaint",
        "8661-1",
        "Shortness of breath and right-sided chest pain for two days, worse on breathing in",
        "",
        None,
        None,
        "",
        -130,
        -125,
        FindingKind.COMPLAINT,
    ),
    ("Body temperature", "8310-5", 38.9, "Cel", 36.1, 37.8, "H", -120, -118, FindingKind.VITAL),
    ("Heart rate", "8867-4", 112.0, "/min", 60, 100, "H", -120, -118, FindingKind.VITAL),
    ("Respiratory rate", "9279-1", 26.0, "/min", 12, 20, "H", -120, -118, FindingKind.VITAL),
    ("Systolic blood pressure", "8480-6", 118.0, "mm[Hg]", 90, 140, "", -120, -118, FindingKind.VITAL),
    ("Oxygen saturation", "2708-6", 90.0, "%", 94, 100, "L", -120, -118, FindingKind.VITAL),
    ("Leukocytes", "6690-2", 17.4, "10*3/uL", 4.0, 10.5, "H", -95, -20, FindingKind.LABORATORY),
    ("Hemoglobin", "718-7", 13.2, "g/dL", 12.0, 16.0, "", -95, -20, FindingKind.LABORATORY),
    ("Platelets", "777-3", 312.0, "10*3/uL", 150, 400, "", -95, -20, FindingKind.LABORATORY),
    (
        "Chest X-ray",
        "36643-5",
        "Consolidation in the right lower lobe with an air bronchogram. Small right effusion. Heart size normal.",
        "",
        None,
        None,
        "A",
        40,
        95,
        FindingKind.IMAGING,
    ),
)


def case() -> Case:
    """The recorded chart behind the records."""
    findings = tuple(
        Finding(
            f"f{i:016x}", kind, Coding("http://loinc.org", code, name), value, charted, available, unit, low, high, flag
        )
        for i, (name, code, value, unit, low, high, flag, charted, available, kind) in enumerate(_FACTS)
    )
    patient = Patient("demo-p07", "fhir", "p07", "female")
    return Case(
        "fhir-demo-07", "fhir", "demo-07", patient, 67, (Encounter("demo-07", "inpatient", 0),), {}, {}, findings
    )


class Grower:
    """Grows a real search tree by hand, so that its JSON is that of the search."""

    def __init__(self) -> None:
        self.chart = open_chart(case(), CLOCK, load_catalogue("v1"))
        self.tree = Tree()
        self.tree.add(Node(0, None, None, "", [Slot(k) for k in legal_kinds(())], ""))

    def add(self, parent: int, kind: str, text: str = "", item: str = "", visits: int = 0, value: float = 0.0) -> int:
        action = Action(ActionKind(kind), item)
        answer: Answer | None = self.chart.request(item.replace("_", " ")) if item else None
        conclusion = None
        if action.kind is ActionKind.FINISH:
            conclusion = Conclusion((Hypothesis(_code(text), text, SYSTEM, _code(text), value),), _code(text))
        above = self.tree.nodes[parent]
        before = [t.action.kind for t in self.tree.turns_to(above)]
        slots = [Slot(k) for k in legal_kinds((*before, action.kind))]
        node_id = len(self.tree.nodes)
        self.tree.add(
            Node(
                node_id,
                parent,
                Turn(action, text, answer=answer),
                text or item,
                slots,
                "",
                conclusion,
                visits,
                visits * value,
                terminal_visits=visits if conclusion else 0,
                terminal_value=value if conclusion else None,
            )
        )
        slot = next(s for s in above.slots if s.kind is action.kind)
        slot.children = [*(slot.children or []), node_id]
        return node_id

    def turns(self, node_id: int) -> tuple[TurnRecord, ...]:
        turns = []
        for turn in self.tree.turns_to(self.tree.nodes[node_id]):
            found = tuple(finding_record(f) for f in turn.answer.findings) if turn.answer else ()
            state = turn.answer.state.value if turn.answer else ""
            turns.append(
                TurnRecord(
                    kind=turn.action.kind.value, text=turn.text, item=turn.action.item_id, state=state, findings=found
                )
            )
        return tuple(turns)


def _code(text: str) -> str:
    return text.lower().replace(" ", "-")


def grown() -> tuple[Grower, dict[str, int]]:
    """The tree of the pneumonia case and the ids of its concluded branches."""
    g, at = Grower(), {}
    vitals = g.add(0, "request", item="vital_signs", visits=11, value=0.62)
    thought = g.add(
        vitals,
        "think",
        "The body temperature and the heart rate are high and the oxygen saturation is low: "
        "an infection of the lung or a clot must be told apart.",
        visits=7,
        value=0.68,
    )
    g.add(vitals, "think", "She is breathing fast.")
    blood = g.add(thought, "request", item="blood_count", visits=6, value=0.7)
    g.add(thought, "request", item="troponin_ck", visits=1, value=0.4)
    lactate = g.add(blood, "request", item="lactate", visits=5, value=0.72)
    xray = g.add(lactate, "request", item="imaging_chest_xray", visits=4, value=0.75)
    at["pneumonia"] = g.add(xray, "finish", "pneumonia", visits=4, value=0.75)
    at["heart"] = g.add(lactate, "finish", "heart failure", visits=1, value=0.4)
    ask = g.add(
        vitals,
        "ask",
        "Could this be a clot? – Pain on breathing in and a fast pulse fit a pulmonary embolism.",
        visits=4,
        value=0.5,
    )
    again = g.add(ask, "reask", "A clot remains possible; no leg swelling is known.", visits=1, value=0.4)
    angiogram = g.add(ask, "request", item="imaging_ct_pulmonary_angiogram", visits=3, value=0.53)
    at["embolism"] = g.add(angiogram, "finish", "pulmonary embolism", visits=3, value=0.53)
    g.add(again, "finish", "pulmonary embolism", visits=1, value=0.4)
    restated = g.add(
        0, "rephrase", "A woman of 67 with two days of breathlessness and pleuritic pain.", visits=3, value=0.5
    )
    home = g.add(restated, "request", item="home_drugs", visits=2, value=0.5)
    at["copd"] = g.add(home, "finish", "COPD or asthma attack", visits=2, value=0.5)
    g.add(restated, "think", "Pleuritic pain points to the pleura.", visits=1, value=0.45)
    g.add(restated, "ask", "Does she smoke?")
    g.add(0, "think", "Breathlessness has many causes.", visits=2, value=0.4)
    g.add(0, "finish", "pneumonia", visits=0)
    root = g.tree.root
    root.visits, root.value_sum = 16, 9.4
    return g, at


def _requests(g: Grower, winner: int) -> tuple[RequestRecord, ...]:
    catalogue = load_catalogue("v1")
    on_path = {t.action.item_id for t in g.tree.turns_to(g.tree.nodes[winner])}
    made: dict[str, RequestRecord] = {}
    for node in g.tree.nodes:
        if node.turn and node.turn.answer:
            item = catalogue.item(node.turn.action.item_id)
            assert item is not None, node.turn.action.item_id
            made[item.item_id] = RequestRecord(
                item=item.item_id,
                display=item.display,
                state=node.turn.answer.state.value,
                cost=item.cost_usd,
                on_path=item.item_id in on_path,
                done_later=item.item_id == "lactate",
            )
    return tuple(made.values())


def pneumonia(**changes: Any) -> RunRecord:
    """A verified admission diagnosis."""
    g, at = grown()
    shares = {
        "pneumonia": 0.62,
        "pulmonary embolism": 0.19,
        "COPD or asthma attack": 0.09,
        "heart failure": 0.05,
        "pleurisy": 0.02,
        "sepsis": 0.02,
        "lung cancer": 0.01,
    }
    chief = next(f for f in case().findings if f.kind is FindingKind.COMPLAINT)
    opening = (
        TurnRecord(
            kind=OPENING,
            text="chief complaint",
            item="chief_complaint",
            state="recorded",
            findings=(finding_record(chief),),
        ),
        TurnRecord(kind=OPENING, text="allergies", item="allergies", state="not_done_by_now"),
    )
    candidates = (
        CandidateRecord(
            node=at["pneumonia"],
            turns=g.turns(at["pneumonia"]),
            answer_key="pneumonia",
            answer="pneumonia",
            probability=0.75,
            multiplicity=4,
            value=0.75,
            agreement=0.75,
            peer_answers=("pneumonia", "pneumonia", "pulmonary-embolism", "pneumonia"),
            cuts=(1, 2, 3, 4),
        ),
        CandidateRecord(
            node=at["embolism"],
            turns=g.turns(at["embolism"]),
            answer_key="pulmonary-embolism",
            answer="pulmonary embolism",
            probability=0.53,
            multiplicity=3,
            value=0.53,
            agreement=0.25,
            peer_answers=("pneumonia", "pulmonary-embolism", None, "pneumonia"),
            cuts=(1, 2, 3, 3),
        ),
    )
    fields: dict[str, Any] = {
        "case_id": "fhir-demo-07",
        "source": "fhir",
        "source_id": "demo-07",
        "patient_id": "fhir-p07",
        "step": "admission_diagnosis",
        "status": "verified",
        "strategy": "rstar",
        "clock": CLOCK,
        "clock_text": "6 hours after admission",
        "question": "What is the working diagnosis?",
        "vignette": "woman, 67 years, admitted from: emergency department",
        "opening": opening,
        "ranked": tuple(
            RankedAnswer(system=SYSTEM, code=_code(k), display=k, probability=p) for k, p in shares.items()
        ),
        "requests": _requests(g, at["pneumonia"]),
        "peer_agreement": 0.75,
        "margin": 0.31,
        "rollouts": 16,
        "winner": at["pneumonia"],
        "candidates": candidates,
        "tree": g.tree.to_json(),
        "tokens": {"prefilled": 3120, "sampled": 1804, "reused": 41230},
        "seconds": 14.2,
        "seed": 7,
        "settings": {"rollouts": 16, "depth": 5, "value": "self_consistency", "chart_access": "hindsight", "votes": 16},
        "models": {
            role: {"spec": "embedded", "name": "SmolLM2-135M-Instruct", "revision": "93ac1f0", "dtype": "bfloat16"}
            for role in ("generator", "peer")
        },
        "hashes": {"prompts": "ab" * 32, "pathway": "cd" * 32, "catalogue": "ef" * 32, "case": "01" * 32},
        "vocabulary": "demo-diagnoses 1",
    }
    return RunRecord(**(fields | changes))


def truth(display: str = "Lobar pneumonia, unspecified organism") -> list[dict[str, Any]]:
    return [
        {
            "system": ICD,
            "code": "J18.1",
            "display": display,
            "strength": "recorded-at-time",
        },
        {
            "system": ICD,
            "code": "J90",
            "display": "Pleural effusion",
            "strength": "proxy",
        },
    ]


def stored() -> list[StoredRecord]:
    """A small run: every status once or more, two steps, two cases."""
    match = {"code": 0, "category": 1, "chapter": 1, "group": 1}
    bare: dict[str, Any] = {
        "ranked": (),
        "candidates": (),
        "tree": None,
        "winner": None,
        "requests": (),
        "peer_agreement": None,
        "margin": None,
        "rollouts": 0,
        "opening": (),
    }
    discharge: dict[str, Any] = {
        "step": "discharge_diagnosis",
        "clock": 4320,
        "clock_text": "the end of the stay (day 4)",
        "question": "What is the principal diagnosis at discharge?",
    }
    other: dict[str, Any] = {
        "case_id": "fhir-demo-11",
        "source_id": "demo-11",
        "patient_id": "fhir-p11",
        "vignette": "man, 81 years, admitted from: nursing home",
    }
    return [
        StoredRecord(pneumonia(), truth(), match),
        StoredRecord(
            pneumonia(**discharge, status="unverified", peer_agreement=0.25), truth(CANARY), match | {"group": 0}
        ),
        StoredRecord(
            pneumonia(**other, status="abstain", reason="Two answers have nearly the same weight."),
            truth(),
            {"code": 0, "category": 0, "chapter": 0, "group": 0},
        ),
        StoredRecord(
            pneumonia(
                **other, **discharge, **bare, status="not_applicable", reason="the clock lies after the end of the stay"
            ),
            [],
            {},
        ),
    ]


def score() -> dict[str, Any]:
    """Results in the shape of `score_run`."""

    def figure(value: float | None, low: float | None = None, high: float | None = None, n: int = 24) -> dict[str, Any]:
        return {"value": value, "low": low, "high": high, "n": n}

    majority = {"accuracy_category": figure(0.125, 0.0, 0.25), "accuracy_chapter": figure(0.2917, 0.125, 0.4583)}
    full = {"accuracy_category": figure(0.375, 0.1667, 0.5833), "accuracy_chapter": figure(0.5, 0.2917, 0.7083)}
    absent = figure(None, n=0) | {"reason": "no run named demo-full-information"}
    metrics = {
        "accuracy_category": figure(0.4167, 0.2083, 0.625),
        "accuracy_code": figure(0.2917, 0.125, 0.4583),
        "accuracy_chapter": figure(0.5417, 0.3333, 0.75, n=23),
        "top_3": figure(0.6667, 0.4583, 0.8333),
        "mrr": figure(0.5312, 0.36, 0.7),
        "gain_over_majority_class": figure(0.2917, 0.0833, 0.5),
        "verified": figure(0.75, 0.5, 0.9),
        "unanswerable_requests": figure(0.3125, 0.2, 0.45),
        "tokens_per_verified": figure(6123.4, 4000.2, 9000.1),
    }
    baselines = {
        "majority_class": {**majority["accuracy_category"], "levels": majority, "n_train": 17},
        "full_information": {**full["accuracy_category"], "levels": full},
    }
    second = baselines | {"full_information": absent | {"levels": {}}}
    return {
        "run": "demo",
        "steps": {
            "admission_diagnosis": {"n": 24, "metrics": metrics, "baselines": baselines},
            "discharge_diagnosis": {"n": 23, "metrics": metrics, "baselines": second},
        },
    }
