"""The leakage traps of clinical.md as far as eICU has them, each by its number.

Not here: 1-3, 5, 6, 13 (MIMIC, FHIR), 9 (few-shot pools are the search's), 11 (a diagnosis never becomes a finding).
"""

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from records_eicu import TABLES, changed, write_folder

from clinical_data.case import FindingKind
from clinical_data.catalogue import load_catalogue
from clinical_data.chart import AnswerState, open_chart
from clinical_data.sources import ImportLog
from clinical_data.sources.eicu import EicuSource
from clinical_data.sources.eicu_tables import CASE_TABLES, TRUTH_TABLES, feed_queries, root_query
from clinical_data.sources.eicu_tables import TABLES as READ

CLOCK = 360
CATALOGUE = load_catalogue()
NUMBERS = ("987654", "876543", "765432", "654321")  # planted in hidden columns that hold numbers


def cases(folder):
    return {c.case.source_id: c.case for c in EicuSource().read(folder, ImportLog(lambda q: None))}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    return cases(write_folder(tmp_path_factory.mktemp("eicu") / "a"))


def seen(case, clock=CLOCK):
    """Everything that a step can see at a clock: the known findings and every answer."""
    chart = open_chart(case, clock, CATALOGUE)
    visible = [f for f in chart.known() if f.kind is not FindingKind.TREATMENT]
    offered = CATALOGUE.offered("all", ())
    return chart.context, chart.age, visible, [(i.item_id, chart.request(i)) for i in offered]


def with_column(table, column, value):
    """The rows of a table with one column set to the same value in all of them."""
    place = TABLES[table][0].split(",").index(column)
    rows = []
    for line in TABLES[table][1:]:
        fields = line.split(",")  # of tables whose fields hold no comma
        fields[place] = value
        rows.append(",".join(fields))
    return [TABLES[table][0], *rows]


def test_trap_04_a_sample_drawn_is_no_result(imported):
    chart = open_chart(imported["1001"], 201, CATALOGUE)  # troponin drawn at 200, entered at 440 at the latest
    assert chart.request("troponin").state is AnswerState.PENDING
    assert open_chart(imported["1001"], 440, CATALOGUE).request("troponin").state is AnswerState.RECORDED


def test_trap_07_another_stay_of_the_patient_is_no_part_of_a_case(tmp_path, imported):
    other = {n: [lines[0], *(r for r in lines[1:] if ",1001," not in f",{r}")] for n, lines in TABLES.items()}
    assert imported["1001"].patient.patient_id == imported["1002"].patient.patient_id
    assert cases(write_folder(tmp_path / "a", other))["1002"] == imported["1002"]


def test_trap_08_the_menu_is_the_same_for_every_patient(imported):
    menus = {c: [item for item, _ in seen(case)[3]] for c, case in imported.items()}
    assert len({tuple(menu) for menu in menus.values()}) == 1


def test_trap_10_no_attribute_of_a_case_tells_an_outcome(tmp_path, imported):
    """Operative or not follows from the recorded answer: a cohort is cut by it in the evaluation, not in the case."""
    patient = with_column("patient", "unitdischargelocation", "Home")
    tables = changed(patient=patient, admissionDx=TABLES["admissionDx"][:1], diagnosis=TABLES["diagnosis"][:1])
    assert cases(write_folder(tmp_path / "a", tables)) == imported


def test_trap_12_nothing_of_a_hidden_table_or_column_is_in_a_case(imported):
    for case in imported.values():
        text = json.dumps(dataclasses.asdict(case), ensure_ascii=False)
        assert not [word for word in ("CANARY", "Sepsis", "Expired", "Death", *NUMBERS) if word in text]


def test_trap_12_hidden_tables_and_columns_are_not_even_read():
    read = {t.name.lower(): set(t.columns) for t in READ}
    hidden = ("apachePredVar", "apacheApsVar", "apachePatientResult", "carePlanGoal", "carePlanInfectiousDisease",
              "carePlanEOL")  # fmt: skip
    assert not read.keys() & {name.lower() for name in hidden}
    assert "apacheadmissiondx" not in read["patient"]
    assert {t.name for t in TRUTH_TABLES} == {"admissionDx", "diagnosis"}
    assert "unitdischargelocation" not in root_query({"hospital"})
    assert "unitdischargestatus" not in root_query(set())


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("treatment", "activeupondischarge"),
        ("carePlanGeneral", "activeupondischarge"),
        ("carePlanCareProvider", "activeupondischarge"),
        ("medication", "drugstopoffset"),
        ("medication", "drugordercancelled"),
        ("medication", "drughiclseqno"),
        ("respiratoryCare", "ventendoffset"),
        ("respiratoryCare", "priorventendoffset"),
        ("patient", "dischargeweight"),
        ("patient", "unitdischargelocation"),
        ("patient", "unitdischargestatus"),
        ("patient", "hospitaldischargelocation"),
        ("patient", "hospitaldischargestatus"),
    ],
)
def test_trap_14_a_future_column_of_a_visible_row_changes_nothing(tmp_path, imported, table, column):
    tables = changed(**{table: with_column(table, column, "4321")})
    assert cases(write_folder(tmp_path / "a", tables)) == imported


def test_trap_14_no_future_column_is_read_into_a_case():
    future = {"activeupondischarge", "drugstopoffset", "drugordercancelled", "drughiclseqno", "ventendoffset",
              "priorventendoffset", "dischargeweight", "nettotal", "outputtotal", "intaketotal"}  # fmt: skip
    assert not {c for t in CASE_TABLES for c in t.columns} & future
    (medication,) = [query for name, query in feed_queries({"medication"}, (), ("",)).items() if name == "medication"]
    assert not [column for column in future if column in medication]


def test_trap_14_other_patients_orders_and_cancelling_change_no_case(tmp_path, imported):
    orders = [line.replace("CANARYCANCEL", "Yes").replace("CANARYHICL", "77") for line in TABLES["medication"]]
    nameless = "9,1001,90,90,No,,77,IV,Daily,No,"
    tables = changed(medication=[*orders, nameless, "8,201,10,10,No,LEVOFLOXACIN,77,IV,Daily,No,"])
    found = cases(write_folder(tmp_path / "a", tables))
    assert found["1001"] == imported["1001"]
    assert "LEVOFLOXACIN" not in repr(found["1001"])


def test_trap_15_treatment_orders_and_specialties_answer_no_request(imported):
    hidden = [f for f in imported["1001"].findings if f.kind is FindingKind.TREATMENT]
    tables = {f.code.system.rpartition("/")[2] for f in hidden}
    assert tables == {"treatment", "infusiondrug", "medication", "carePlanCareProvider", "nurseCare"}
    assert not any(item.accepts("eicu", f) for item in CATALOGUE.offered("all", ()) for f in hidden)
    told = repr(seen(imported["1001"], 9000))
    assert not [
        word for word in ("cardiology", "Cardiology", "cefepime", "norepinephrine", "Suctioning") if word in told
    ]


def test_trap_15_what_was_done_does_not_tell_the_organ_it_was_filed_under(imported):
    done = [f for f in imported["1001"].findings if f.code.system == "wardstar:eicu/treatment-done"]
    assert {f.code.code for f in done} == {"ct head", "consultation", "echocardiogram"}
    assert not [f for f in done if "trauma" in repr(f) or "cardio" in repr(f).replace("echocardio", "")]


def test_trap_16_neither_a_clock_nor_a_case_comes_from_a_truth_row(tmp_path, imported):
    tables = {n: lines for n, lines in TABLES.items() if n not in ("admissionDx", "diagnosis")}
    without = cases(write_folder(tmp_path / "a", tables))
    assert {c: case.anchors for c, case in without.items()} == {c: case.anchors for c, case in imported.items()}
    assert without == imported


def test_trap_17_what_is_done_later_answers_as_what_is_never_done(tmp_path, imported):
    never = changed(treatment=[r for r in TABLES["treatment"] if "ultrasound of heart" not in r])
    other = cases(write_folder(tmp_path / "a", never))["1001"]
    assert open_chart(imported["1001"], CLOCK, CATALOGUE).request("echocardiogram").state is AnswerState.NOT_DONE_BY_NOW
    assert seen(imported["1001"]) == seen(other)


_ROW = st.tuples(
    st.integers(-50, 20),  # observed, minutes from the clock: within few hours, so that rows share one
    st.one_of(st.none(), st.integers(0, 90)),  # entered, after observation
    st.sampled_from(["Heart Rate", "Respiratory Rate"]),
    st.integers(1, 200),
)


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    rows=st.lists(_ROW, min_size=1, max_size=12),
    other=st.lists(_ROW, min_size=1, max_size=6),
    clock=st.sampled_from([330, 360, 1700]),
)
def test_thinned_tables_no_later_row_changes_what_was_seen(rows, other, clock):
    """Nurses' and monitors' rows are thinned; what is kept by a clock does not depend on a row known after it."""
    rows, other = ([(clock + at, *rest) for at, *rest in listed] for listed in (rows, other))

    def nurse(row):  # a nurse's row is known when it was entered, a monitor's when it was seen
        return row[0] + (row[1] or 0) if (row[1] or 0) > 0 else row[0]

    def monitor(row):
        return row[0]

    def tables(with_late):
        found = {"patient": TABLES["patient"]}
        for name, known in (("nurseCharting", nurse), ("vitalPeriodic", monitor)):
            kept = [(key, row) for key, row in enumerate(rows, start=100) if known(row) <= clock]
            late = [(key, row) for key, row in enumerate(other) if known(row) > clock] if with_late else []
            lines = found[name] = TABLES[name][:1]
            for key, (at, lag, sign, value) in (*late, *kept):
                entered = "" if lag is None else at + lag
                if name == "nurseCharting":
                    lines.append(f"{key},201,{at},{entered},Vital Signs,{sign},{sign},{value}")
                else:
                    lines.append(f"{key},201,{at},,,{value},,,,,,,,,,,,,")
        return found

    with tempfile.TemporaryDirectory() as folder:
        before = cases(write_folder(Path(folder) / "a", tables(False)))["201"]
        after = cases(write_folder(Path(folder) / "b", tables(True)))["201"]
    assert open_chart(before, clock, CATALOGUE).known() == open_chart(after, clock, CATALOGUE).known()
