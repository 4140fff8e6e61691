"""A small problem with a chart of every answer state, and models to search it."""

import pytest

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, sort_findings
from clinical_data.catalogue import Catalogue, CatalogueItem, Matcher
from clinical_data.chart import open_chart
from clinical_data.vocabulary import Entry, Vocabulary
from search.models.toys import RandomModel
from search.problem import Models, SearchProblem
from search.settings import SearchSettings

SYSTEM = "wardstar:test"
ITEMS = ("complaint", "vitals", "blood count", "lactate", "chest x-ray", "culture", "scan")


def finding(code, value, available, *, charted=None, kind=FindingKind.LABORATORY, **more):
    return Finding(
        finding_id=f"f-{code.replace(' ', '-')}-{available}",
        kind=kind,
        code=Coding(SYSTEM, code, code),
        value=value,
        charted=available if charted is None else charted,
        available=available,
        **more,
    )


def item(name):
    matches = {} if name == "scan" else {"test": (Matcher(SYSTEM, frozenset({name})),)}
    return CatalogueItem(name.replace(" ", "_"), name, "test", 5.0, matches=matches)


CATALOGUE = Catalogue("test", "1", tuple(item(n) for n in ITEMS), "0" * 64)
VOCABULARY = Vocabulary(
    "test",
    "1",
    SYSTEM,
    (
        Entry("pneumonia", "pneumonia", ("lung infection",)),
        Entry("heart-failure", "heart failure"),
        Entry("sepsis", "sepsis", ("septic shock",)),
        Entry("embolism", "pulmonary embolism"),
    ),
    "0" * 64,
)


def make_case(case_id="test-1", extra=()):
    findings = [
        finding("complaint", "short of breath", -30, kind=FindingKind.COMPLAINT),
        finding("vitals", "heart rate 112, blood pressure 98/54", 5, kind=FindingKind.VITAL),
        finding("blood count", 15.2, 40, unit="10*9/L", low=4.0, high=10.0, flag="H"),
        finding("blood count", 11.0, 900, unit="10*9/L", low=4.0, high=10.0, flag="H"),
        finding("culture", "no growth", 3000, charted=30, pending_from=30),
        *extra,
    ]
    return Case(
        case_id=case_id,
        source="test",
        source_id=case_id.removeprefix("test-"),
        patient=Patient("test-p", "test", "p", "female"),
        age=67,
        encounters=(Encounter("e", "inpatient", 0, 5000),),
        anchors={"admission": 0, "end_of_stay": 5000},
        context={"admission_source": "emergency department"},
        findings=sort_findings(findings),
    )


def make_problem(case=None, *, clock=360, items=None, vocabulary=VOCABULARY, **more):
    case = case or make_case()
    return SearchProblem(
        case_id=case.case_id,
        step="admission_diagnosis",
        question="What is the working diagnosis?",
        answer_cue="Working diagnosis",
        chart=open_chart(case, clock, CATALOGUE),
        opening=(CATALOGUE.items[0],),
        items=CATALOGUE.items if items is None else items,
        vocabulary=vocabulary,
        clock_text="6 hours after admission",
        **more,
    )


@pytest.fixture
def problem():
    return make_problem()


@pytest.fixture
def models():
    model = RandomModel(3)
    return Models(model, model)


@pytest.fixture
def settings():
    return SearchSettings(think=2, ask=2, ask_votes=2, request=2, max_requests=2)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A random two-layer model on disk."""
    from tiny_llama import make_tiny  # loads torch

    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(folder):
    """It as the search sees it, in fp32 on one thread."""
    from search.models.transformers import TransformersModel

    return TransformersModel.load(str(folder), dtype="fp32", threads=1)


@pytest.fixture(scope="session")
def stock(folder):
    """It as stock transformers sees it."""
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
