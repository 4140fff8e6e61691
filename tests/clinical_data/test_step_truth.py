"""Labels that follow from the record by one rule: windows, first times, and what does not count."""

import pytest

from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, sort_findings
from clinical_data.catalogue import ITEM_SYSTEM, MIMIC_LABS, load_catalogue
from clinical_data.clocks import DAY, STEPS
from clinical_data.ground_truth import Strength
from clinical_data.sources.step_truth import (
    ACUITY_SYSTEM,
    AFTER_END,
    DISPOSITION_SYSTEM,
    DISPOSITIONS,
    NO_CLOCK,
    acuity_label,
    disposition_label,
    every_step,
    treatment_labels,
    window_after,
    workup_labels,
)
from clinical_data.treatment_classes import MIMIC_ITEMS, TREATMENT_SYSTEM
from clinical_data.vocabulary import load_vocabulary

CATALOGUE = load_catalogue()
ADMITTED = 200  # minute of admission: clocks run from here, not from the start of the case
WORKUP = ADMITTED + 8 * 60
TREATMENT = ADMITTED + DAY


def case(*findings, source="mimic-iv", end=ADMITTED + 5 * DAY, encounters=(), anchors=None):
    anchors = {"admission": ADMITTED, "end_of_stay": end} if anchors is None else anchors
    own = Encounter("1", "inpatient", 0, end)
    return Case(f"{source}-1", source, "1", Patient(f"{source}-p", source, "p"), 60, (own, *encounters), anchors,
                findings=sort_findings(list(findings)))  # fmt: skip


def lab(code, charted, available=None, pending_from=None):
    return Finding(f"lab-{code}-{charted}", FindingKind.LABORATORY, Coding(MIMIC_LABS, code), 1.0, charted,
                   charted + 60 if available is None else available, pending_from=pending_from,
                   note=f"labevents {code}")  # fmt: skip


def drug(name, charted, value="IV Q8H", kind=FindingKind.TREATMENT, available=None):
    coding = Coding("wardstar:mimic-iv/prescriptions", name, name)
    known = charted if available is None else available
    return Finding(f"drug-{name}-{charted}", kind, coding, value, charted, known, note=f"prescriptions {name}")


def codes(labels):
    return [label.coding.code for label in labels]


def test_the_window_is_the_day_after_the_clock():
    assert window_after(case(), "workup") == (WORKUP, WORKUP + DAY)
    assert window_after(case(), "treatment") == (TREATMENT, TREATMENT + DAY)
    assert window_after(case(source="eicu"), "workup") == (ADMITTED + 360, ADMITTED + 360 + DAY)


@pytest.mark.parametrize("step", ["workup", "treatment"])
def test_a_clock_after_the_end_of_the_stay_has_no_window(step):
    clock = window_after(case(), step)[0]
    assert window_after(case(end=clock - 1), step) == AFTER_END
    assert window_after(case(end=clock), step) == (clock, clock + DAY)


def test_a_source_or_record_without_the_clock_says_so():
    assert window_after(case(source="osce"), "workup") == NO_CLOCK
    assert window_after(case(anchors={"end_of_stay": 900}), "workup") == NO_CLOCK
    assert workup_labels(case(source="osce"), CATALOGUE) == NO_CLOCK
    assert treatment_labels(case(end=TREATMENT - 1)) == AFTER_END


@pytest.mark.parametrize(
    ("charted", "counts"),
    [(WORKUP - 1, False), (WORKUP, False), (WORKUP + 1, True), (WORKUP + DAY, True), (WORKUP + DAY + 1, False)],
)
def test_a_test_counts_when_first_collected_in_the_window(charted, counts):
    labels = workup_labels(case(lab("50813", charted)), CATALOGUE)
    assert isinstance(labels, tuple) is counts
    if counts:
        assert [(x.coding.system, x.coding.code, x.coding.version, x.entered) for x in labels] == [
            (ITEM_SYSTEM, "lactate", CATALOGUE.version, charted)
        ]
        assert labels[0].strength is Strength.RECORDED_LATER
        assert labels[0].source_row == "labevents 50813"


def test_a_test_done_before_is_no_new_one_even_by_another_member_of_its_panel():
    earlier, later = lab("50983", WORKUP - 500), lab("50971", WORKUP + 10)
    assert isinstance(workup_labels(case(earlier, later), CATALOGUE), str)
    assert codes(workup_labels(case(later), CATALOGUE)) == ["basic_metabolic_panel"]


def test_an_order_before_the_clock_is_when_the_test_was_first_wanted():
    assert isinstance(workup_labels(case(lab("50813", WORKUP + 10, pending_from=WORKUP - 10)), CATALOGUE), str)


def test_workup_labels_are_ranked_by_time_and_bedside_items_are_none():
    vital = Finding("v", FindingKind.VITAL, Coding("http://loinc.org", "8867-4"), 80.0, WORKUP + 1, WORKUP + 1)
    done = Finding("ct", FindingKind.IMAGING, Coding(MIMIC_ITEMS, "221214"), None, WORKUP + 5, WORKUP + 5,
                   result_in_source=False)  # fmt: skip
    labels = workup_labels(case(vital, done, lab("50813", WORKUP + 90), lab("51003", WORKUP + 30)), CATALOGUE)
    assert [(x.rank, x.coding.code) for x in labels] == [(1, "imaging_ct_other"), (2, "troponin_ck"), (3, "lactate")]


@pytest.mark.parametrize(
    ("charted", "counts"),
    [(TREATMENT, False), (TREATMENT + 1, True), (TREATMENT + DAY, True), (TREATMENT + DAY + 1, False)],
)
def test_a_drug_class_counts_when_first_started_in_the_window(charted, counts):
    labels = treatment_labels(case(drug("CefTRIAXone", charted)))
    assert isinstance(labels, tuple) is counts
    if counts:
        assert [(x.coding.system, x.coding.code, x.entered) for x in labels] == [
            (TREATMENT_SYSTEM, "antibacterials", charted)
        ]


def test_a_second_drug_of_a_class_is_no_new_start():
    assert isinstance(treatment_labels(case(drug("Vancomycin", ADMITTED), drug("CefePIME", TREATMENT + 5))), str)


def test_a_home_drug_is_not_newly_started_whenever_its_list_was_entered():
    at_home = drug("lisinopril", TREATMENT + 60, "10 MG DAILY PRN", FindingKind.MEDICATION_HOME)
    given = drug("Lisinopril", TREATMENT + 120, "PO DAILY")
    assert codes(treatment_labels(case(given))) == ["antihypertensives"]
    assert isinstance(treatment_labels(case(at_home, given)), str)
    assert isinstance(treatment_labels(case(at_home)), str)


@pytest.mark.parametrize(
    ("name", "how"),
    [("Furosemide", "IV DAILY:PRN"), ("Heparin", "SC BID"), ("Heparin Flush (10 units/ml)", "IV DAILY"),
     ("0.9% Sodium Chloride", "IV INFUSION"), ("Pantoprazole", "IV Q24H"), ("Enoxaparin Sodium", "SC DAILY")],
)  # fmt: skip
def test_prn_prophylaxis_flushes_and_fluids_start_nothing(name, how):
    assert isinstance(treatment_labels(case(drug(name, TREATMENT + 5, how))), str)


def test_a_drug_as_needed_before_does_not_hide_its_start_in_earnest():
    before, after = drug("Furosemide", ADMITTED, "IV PRN"), drug("Furosemide", TREATMENT + 5, "IV BID")
    assert codes(treatment_labels(case(before, after))) == ["diuretics"]


def test_a_start_that_the_chart_does_not_name_counts_for_the_label_alone():
    known, hidden = drug("Vancomycin", TREATMENT + 5), drug("Levofloxacin", ADMITTED)
    assert codes(treatment_labels(case(known))) == ["antibacterials"]
    assert isinstance(treatment_labels(case(known), more=[hidden]), str)
    late = drug("Furosemide", TREATMENT + 9)
    assert codes(treatment_labels(case(known), more=[late])) == ["antibacterials", "diuretics"]


def test_what_never_took_place_starts_nothing_and_hides_nothing():
    taken_back, given = drug("Furosemide", ADMITTED), drug("Bumetanide", TREATMENT + 5)
    assert isinstance(treatment_labels(case(taken_back, given)), str)
    assert codes(treatment_labels(case(taken_back, given), without={taken_back.finding_id})) == ["diuretics"]
    both = {taken_back.finding_id, given.finding_id}
    assert isinstance(treatment_labels(case(taken_back, given), without=both), str)


def test_levels_of_care_count_by_ventilation_dialysis_and_the_first_icu_stay():
    tube = Finding("t", FindingKind.VITAL, Coding(MIMIC_ITEMS, "225792"), "recorded", TREATMENT + 30, TREATMENT + 30)
    dialysis = Finding("d", FindingKind.PROCEDURE, Coding(MIMIC_ITEMS, "225802"), None, TREATMENT + 50, TREATMENT + 50)
    icu = Encounter("icu-7", "icu", TREATMENT + 20, TREATMENT + 900)
    labels = treatment_labels(case(tube, dialysis, encounters=(icu,)))
    assert codes(labels) == ["intensive_care", "mechanical_ventilation", "renal_replacement"]
    assert labels[0].source_row == "encounter icu-7"
    again = Encounter("icu-3", "icu", ADMITTED, ADMITTED + 60)
    assert codes(treatment_labels(case(tube, encounters=(again, icu)))) == ["mechanical_ventilation"]


def test_laboratory_names_are_never_treatments():
    level = Finding("l", FindingKind.LABORATORY, Coding(MIMIC_LABS, "51009", "Vancomycin"), 15.0, TREATMENT + 5,
                    TREATMENT + 60)  # fmt: skip
    assert isinstance(treatment_labels(case(level)), str)


def test_every_step_is_answered_with_labels_or_a_reason():
    truth = every_step(case(), {"disposition": disposition_label("home", "admissions 1", 9), "workup": AFTER_END})
    assert list(truth) == list(STEPS)
    assert truth["disposition"].labels[0].coding == Coding(DISPOSITION_SYSTEM, "home", "home")
    assert truth["workup"].absent_reason == AFTER_END
    assert all(t.absent_reason or t.labels for t in truth.values())
    with pytest.raises(KeyError):
        disposition_label("moon", "x", None)


@pytest.mark.parametrize("level", [0, 6, -1])
def test_another_acuity_is_refused(level):
    with pytest.raises(ValueError, match="acuity"):
        acuity_label(level, "x", None)


def test_the_bundled_vocabularies_hold_every_label_of_disposition_and_acuity():
    places = load_vocabulary("disposition")
    assert places.system == DISPOSITION_SYSTEM
    assert {e.code: e.display for e in places.entries} == DISPOSITIONS
    levels = load_vocabulary("triage-acuity")
    assert levels.system == ACUITY_SYSTEM
    labels = [acuity_label(n, "x", None)[0].coding for n in range(1, 6)]
    assert [(e.code, e.display) for e in levels.entries] == [(c.code, c.display) for c in labels]
