"""The request catalogue: matching rules, names, prices, and what version 1 holds."""

import csv
import gzip
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_data import catalogue as catalogue_module
from clinical_data.case import Case, Coding, Encounter, Finding, FindingKind, Patient, sort_findings
from clinical_data.catalogue import LOINC, MIMIC_LABS, Matcher, load_catalogue
from clinical_data.catalogue.names import name_key
from clinical_data.chart import AnswerState, open_chart
from clinical_data.errors import BadInputError, UsageError, WardstarError

SNOMED = "http://snomed.info/sct"
MIMIC_ITEMS = "http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-d-items"
ICD9, ICD10 = "http://hl7.org/fhir/sid/icd-9-cm", "http://hl7.org/fhir/sid/icd-10-cm"
SOURCES = {"fhir", "mimic-iv", "mimic-iii", "meds", "eicu", "osce", "ddxplus"}
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
NEEDS_DATA = pytest.mark.skipif(not DATA.is_dir(), reason="needs the acceptance data beside the project")
# The 43 items of the design's list; imaging and heart tests are split by modality and region.
LISTED = """
    chief_complaint history_cardiovascular history_pulmonary history_neurologic history_renal history_endocrine
    history_gastrointestinal history_cancer_haematology history_infection_immunity home_drugs allergies tobacco_alcohol
    family_history review_of_systems prior_admissions vital_signs gcs_consciousness general_appearance exam_head_neck
    exam_heart_pulses exam_lungs exam_abdomen exam_neurologic exam_limbs_skin oxygen_ventilator basic_metabolic_panel
    calcium_magnesium_phosphate blood_count coagulation liver_albumin lipase blood_gas lactate troponin_ck
    natriuretic_peptide glucose_hba1c_ketones urinalysis toxicology_drug_levels endocrine_iron_haemolysis cultures ecg
    echocardiogram imaging_chest_xray imaging_ct_head imaging_mri_head imaging_ct_chest imaging_ct_pulmonary_angiogram
    imaging_ct_abdomen imaging_ct_spine imaging_ultrasound_abdomen imaging_vascular_ultrasound consultations
""".split()  # noqa: SIM905


CATALOGUE = load_catalogue()


def finding(system: str, code: str, kind: FindingKind = FindingKind.LABORATORY) -> Finding:
    return Finding("f1", kind, Coding(system, code), 1.0, 0, 0)


@pytest.mark.parametrize(
    ("matcher", "system", "code", "kind", "accepted"),
    [
        (Matcher("s", frozenset({"a"})), "s", "a", FindingKind.LABORATORY, True),
        (Matcher("s", frozenset({"a"})), "s", "ab", FindingKind.LABORATORY, False),
        (Matcher("s", frozenset({"a"})), "t", "a", FindingKind.LABORATORY, False),
        (Matcher("s", prefixes=("x", "ab")), "s", "abc", FindingKind.LABORATORY, True),
        (Matcher("s", prefixes=("x", "ab")), "s", "a", FindingKind.LABORATORY, False),
        (Matcher("s", frozenset({"a"}), ("b",)), "s", "bc", FindingKind.LABORATORY, True),
        (Matcher("s", frozenset({"a"}), ("b",)), "s", "a", FindingKind.LABORATORY, True),
        (Matcher("s"), "s", "anything", FindingKind.LABORATORY, True),
        (Matcher("", kinds=frozenset({FindingKind.ALLERGY})), "any", "code", FindingKind.ALLERGY, True),
        (Matcher("", kinds=frozenset({FindingKind.ALLERGY})), "any", "code", FindingKind.VITAL, False),
        (Matcher("s", words=(("blood", "gas*"),)), "s", "Blood_Gases/pH", FindingKind.LABORATORY, True),
        (Matcher("s", words=(("blood", "gas*"),)), "s", "Blood_Tests/pH", FindingKind.LABORATORY, False),
        (Matcher("s", words=(("ph",),)), "s", "Phosphate", FindingKind.LABORATORY, False),
        (Matcher("s", words=(("ph",),), unless=(("urin*",),)), "s", "Urinalysis/pH", FindingKind.LABORATORY, False),
        (Matcher("s", unless=(("urin*",),)), "s", "Blood/pH", FindingKind.LABORATORY, True),
    ],
)
def test_a_matcher_accepts(matcher, system, code, kind, accepted):
    assert matcher.accepts(finding(system, code, kind)) is accepted


COST = "cost: {usd: 0, schedule: none}"


def write(tmp_path, matcher):
    path = tmp_path / "c.yaml"
    path.write_text(
        f"version: 1\nitems:\n  - {{id: x, display: x, group: g, {COST}, matches: {{fhir: [" + matcher + "]}}\n"
    )
    return str(path)


@pytest.mark.parametrize("matcher", ["{code: [a], system: s}", "{codes: [a]}", "{}", "{system: s, codes: []}"])
def test_a_matcher_that_says_nothing_or_something_unknown_is_refused(tmp_path, matcher):
    with pytest.raises(BadInputError, match="catalogue"):
        load_catalogue(write(tmp_path, matcher))


def test_an_unknown_catalogue_is_a_usage_error():
    with pytest.raises(UsageError):
        load_catalogue("nosuch")


def test_two_items_of_one_name_are_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        f"version: 1\nitems:\n  - {{id: x, display: head CT, group: g, {COST}}}\n"
        f"  - {{id: y, display: CT of the head, group: g, {COST}}}\n"
    )
    with pytest.raises(BadInputError, match="two items are called"):
        load_catalogue(str(path))


def test_a_catalogue_in_parts_is_hashed_over_all_of_them(tmp_path):
    (tmp_path / "c.yaml").write_text("version: 7\nparts: [p.yaml]\n")
    part = tmp_path / "p.yaml"
    part.write_text(f"items:\n  - {{id: x, display: x, group: g, {COST}}}\n")
    before = load_catalogue(str(tmp_path / "c.yaml"))
    part.write_text(f"items:\n  - {{id: x, display: z, group: g, {COST}}}\n")
    after = load_catalogue(str(tmp_path / "c.yaml"))
    assert (before.version, before.items[0].item_id) == ("7", "x")
    assert before.sha256 != after.sha256
    part.unlink()
    with pytest.raises(BadInputError, match=r"p\.yaml"):
        load_catalogue(str(tmp_path / "c.yaml"))


def test_version_1_holds_every_item_of_the_list_with_its_matchers():
    catalogue = CATALOGUE
    ids = [i.item_id for i in catalogue.items]
    assert len(ids) == 69
    assert set(LISTED) <= set(ids)
    assert all(i.matches and set(i.matches) <= SOURCES for i in catalogue.items)
    lacking = {s: {i.item_id for i in catalogue.items if s not in i.matches} for s in SOURCES}
    tables = {
        "consultations",
        "family_history",
        "general_appearance",
        "limits_of_care",
        "lung_function",
        "review_of_systems",
    }
    assert lacking["mimic-iv"] == lacking["mimic-iii"] == lacking["meds"] == tables
    assert lacking["fhir"] == {"limits_of_care", "lung_function"}
    assert {"chief_complaint", "ecg"} < lacking["eicu"]
    assert len(lacking["eicu"]) == 14
    assert lacking["osce"] == {
        "limits_of_care",
        "oxygen_ventilator",
        "consultations",
        "urine_output",
        "treatment_so_far",
    }
    assert {i.group for i in catalogue.items if "ddxplus" in i.matches} == {"history"}


def test_every_name_leads_to_its_item_alone():
    catalogue = CATALOGUE
    names = [(name, item.item_id) for item in catalogue.items for name in item.names]
    assert len(names) > 700
    assert [n for n, owner in names if catalogue.recognise(n).item_id != owner] == []
    for said in ("please order a {}", "Check {}!", "repeat {} level, stat", "{}"):
        wrong = [
            n for n, owner in names if (f := catalogue.recognise(said.format(n.upper()))) is None or f.item_id != owner
        ]
        assert wrong == []


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("please order a CBC", "blood_count"),
        ("Full blood count.", "blood_count"),
        ("serum potassium levels", "basic_metabolic_panel"),
        ("BUN/creatinine", None),  # two members at once are no name
        ("d-dimer", "coagulation"),
        ("PT/INR", "coagulation"),
        ("haemoglobin", "blood_count"),
        ("Hemoglobin", "blood_count"),
        ("chest X-rays", "imaging_chest_xray"),
        ("CXR stat", "imaging_chest_xray"),
        ("head CT scan without contrast", "imaging_ct_head"),
        ("CT of the brain", "imaging_ct_head"),
        ("arterial blood gases", "blood_gas"),
        ("EKG", "ecg"),
        ("blood cultures", "cultures"),
        ("home_drugs", "home_drugs"),
        ("LFTs", "liver_albumin"),
        ("pedal edema", None),
        ("oedema", "exam_limbs_skin"),
        ("lumbar puncture", "body_fluids"),
        ("CT", None),  # which region?
        ("MRI", None),
        ("history", None),
        ("blood", None),
        ("please", None),
        ("", None),
        ("?!", None),
        ("血常规", None),
    ],
)
def test_a_free_text_is_recognised_or_not(text, item):
    found = CATALOGUE.recognise(text)
    assert (found.item_id if found else None) == item


@settings(deadline=None)
@given(st.lists(st.text(alphabet="bcdfghjkmnpqrstvwxz", min_size=5, max_size=12), min_size=1, max_size=4))
def test_random_words_are_not_recognised(words):
    known = {word for item in CATALOGUE.items for name in item.names for word in name_key(name)}
    said = " ".join(w for w in words if not name_key(w) & known)
    assert CATALOGUE.recognise(said) is None


@settings(deadline=None)
@given(st.sampled_from([i.display for i in CATALOGUE.items]), st.sampled_from(["xylophone", "banana", "of the moon"]))
def test_one_word_too_many_is_not_recognised(display, word):
    assert CATALOGUE.recognise(f"{display} {word}") is None


def test_version_1_says_where_each_price_comes_from_and_that_it_is_unchecked():
    for item in CATALOGUE.items:
        assert item.cost_usd >= 0
        assert not item.cost_checked
        assert item.cost_year is None
        assert ("unchecked" in item.cost_source) == (item.cost_usd > 0)
        assert item.cost_source
    assert {i.cost_source for i in CATALOGUE.items} == {
        "CMS Clinical Laboratory Fee Schedule, year unstated: unchecked",
        "Medicare Physician Fee Schedule, national, year unstated: unchecked",
        "no charge (asked or examined at the bedside)",
    }


def test_laboratory_panels_have_members_with_loinc():
    panels = [i for i in CATALOGUE.items if i.group == "laboratory"]
    assert all(i.members for i in panels)
    listed = [i for i in panels if i.item_id in LISTED]
    assert [i.item_id for i in listed if not any(m.loinc for m in i.members)] == []
    sodium = next(m for i in panels for m in i.members if m.display == "sodium")
    assert sodium.loinc == ("2951-2", "2947-0")


@pytest.mark.parametrize(
    ("system", "code", "kind", "items"),
    [
        (LOINC, "2951-2", FindingKind.LABORATORY, ["basic_metabolic_panel"]),
        (LOINC, "2947-0", FindingKind.LABORATORY, ["basic_metabolic_panel"]),
        (LOINC, "8661-1", FindingKind.COMPLAINT, ["chief_complaint"]),
        (LOINC, "9269-2", FindingKind.EXAMINATION, ["gcs_consciousness"]),
        (LOINC, "600-7", FindingKind.MICROBIOLOGY, ["cultures"]),
        (LOINC, "39420-5", FindingKind.IMAGING, ["imaging_vascular_ultrasound"]),
        (SNOMED, "38341003", FindingKind.HISTORY, ["history_cardiovascular"]),
        (SNOMED, "38341003", FindingKind.PROCEDURE, []),
        ("http://hl7.org/fhir/sid/icd-10-cm", "I10", FindingKind.HISTORY, ["history_cardiovascular"]),
        ("http://hl7.org/fhir/sid/icd-10-cm", "I63.9", FindingKind.HISTORY, ["history_neurologic"]),
        ("http://hl7.org/fhir/sid/icd-10-cm", "J44.9", FindingKind.HISTORY, ["history_pulmonary"]),
        ("http://hl7.org/fhir/sid/icd-10-cm", "C34.1", FindingKind.HISTORY, ["history_cancer_haematology"]),
        ("http://hl7.org/fhir/sid/icd-10-cm", "D84.9", FindingKind.HISTORY, ["history_infection_immunity"]),
        ("http://www.nlm.nih.gov/research/umls/rxnorm", "1", FindingKind.MEDICATION_HOME, ["home_drugs"]),
        ("http://www.nlm.nih.gov/research/umls/rxnorm", "1", FindingKind.TREATMENT, ["treatment_so_far"]),
    ],
)
def test_version_1_assigns_a_fhir_finding_to(system, code, kind, items):
    found = finding(system, code, kind)
    assert [i.item_id for i in CATALOGUE.items if i.accepts("fhir", found)] == items


@pytest.mark.parametrize(
    ("source", "system", "code", "kind", "items"),
    [
        ("mimic-iv", MIMIC_LABS, "50983", FindingKind.LABORATORY, ["basic_metabolic_panel"]),
        ("mimic-iii", MIMIC_LABS, "50983", FindingKind.LABORATORY, ["basic_metabolic_panel"]),
        ("meds", MIMIC_LABS, "51222", FindingKind.LABORATORY, ["blood_count"]),
        ("fhir", MIMIC_LABS, "50813", FindingKind.LABORATORY, ["lactate"]),
        ("mimic-iv", ICD9, "410.71", FindingKind.HISTORY, ["history_cardiovascular"]),
        ("mimic-iv", ICD9, "434.91", FindingKind.HISTORY, ["history_neurologic"]),
        ("mimic-iii", ICD9, "V10.3", FindingKind.HISTORY, ["history_cancer_haematology"]),
        ("mimic-iv", ICD9, "250.00", FindingKind.HISTORY, ["history_endocrine"]),
        ("mimic-iv", ICD9, "279.3", FindingKind.HISTORY, ["history_infection_immunity"]),
        ("mimic-iv", ICD9, "585.6", FindingKind.HISTORY, ["history_renal"]),
        ("mimic-iv", ICD9, "496", FindingKind.HISTORY, ["history_pulmonary"]),
        ("mimic-iv", ICD9, "571.5", FindingKind.HISTORY, ["history_gastrointestinal"]),
        ("mimic-iv", ICD9, "305.1", FindingKind.HISTORY, ["tobacco_alcohol"]),
        ("mimic-iv", ICD10, "E11.9", FindingKind.HISTORY, ["history_endocrine"]),
        ("mimic-iv", ICD10, "E11.9", FindingKind.PROCEDURE, []),
        ("mimic-iv", LOINC, "8661-1", FindingKind.COMPLAINT, ["chief_complaint"]),
        ("mimic-iv", LOINC, "8867-4", FindingKind.VITAL, ["vital_signs"]),
        ("mimic-iv", "wardstar:mimic-iv/omr", "BMI (kg/m2)", FindingKind.VITAL, ["vital_signs"]),
        ("mimic-iv", "wardstar:mimic-iv/omr", "eGFR", FindingKind.LABORATORY, ["basic_metabolic_panel"]),
        ("mimic-iv", "wardstar:mimic-iv/microbiologyevents", "SPUTUM", FindingKind.MICROBIOLOGY, ["cultures"]),
        ("mimic-iv", "wardstar:mimic-iv/admissions", "earlier_admission", FindingKind.HISTORY, ["prior_admissions"]),
        ("mimic-iv", "any", "metoprolol", FindingKind.MEDICATION_HOME, ["home_drugs"]),
        ("mimic-iv", "any", "metoprolol", FindingKind.TREATMENT, ["treatment_so_far"]),
        ("mimic-iv", MIMIC_ITEMS, "225402", FindingKind.IMAGING, ["ecg"]),
        ("mimic-iv", MIMIC_ITEMS, "225432", FindingKind.IMAGING, ["echocardiogram"]),
        ("mimic-iv", MIMIC_ITEMS, "221214", FindingKind.IMAGING, ["imaging_ct_other"]),
        ("mimic-iv", MIMIC_ITEMS, "225792", FindingKind.VITAL, ["oxygen_ventilator"]),
        ("mimic-iv", MIMIC_ITEMS, "225792", FindingKind.TREATMENT, ["treatment_so_far"]),
        ("mimic-iv", "wardstar:mimic-iv/radiology", "CHEST (PORTABLE AP)", FindingKind.IMAGING, ["imaging_chest_xray"]),
        ("mimic-iv", "wardstar:mimic-iv/radiology", "CT HEAD W/O CONTRAST", FindingKind.IMAGING, ["imaging_ct_head"]),
        ("mimic-iv", "wardstar:mimic-iv/radiology", "MR HEAD W & W/O CONTRAST", FindingKind.IMAGING,
         ["imaging_mri_head"]),
        ("mimic-iv", "wardstar:mimic-iv/radiology", "CTA CHEST W&W/O C&RECONS", FindingKind.IMAGING,
         ["imaging_ct_pulmonary_angiogram"]),
        ("mimic-iii", "wardstar:mimic-iii/radiology", "BILAT LOWER EXT VEINS", FindingKind.IMAGING,
         ["imaging_vascular_ultrasound"]),
        ("mimic-iv", "wardstar:mimic-iv/radiology", "LIVER OR GALLBLADDER US", FindingKind.IMAGING,
         ["imaging_ultrasound_abdomen"]),
        ("osce", "wardstar:osce/tests", "Complete_Blood_Count/WBC", FindingKind.LABORATORY, ["blood_count"]),
        ("osce", "wardstar:osce/tests", "Urinalysis/Glucose", FindingKind.LABORATORY, ["urinalysis"]),
        ("osce", "wardstar:osce/tests", "Imaging/Chest_X-ray", FindingKind.IMAGING, ["imaging_chest_xray"]),
        ("osce", "wardstar:osce/tests", "X-Ray_Knee/Findings", FindingKind.IMAGING, ["imaging_xray_other"]),
        ("osce", "wardstar:osce/examination", "Cardiac_Examination/Auscultation", FindingKind.EXAMINATION,
         ["exam_heart_pulses"]),
        ("osce", "wardstar:osce/examination", "Growth_Parameters", FindingKind.EXAMINATION, ["general_appearance"]),
        ("osce", "wardstar:osce/social_history", "Social_History", FindingKind.SOCIAL, ["tobacco_alcohol"]),
        ("ddxplus", "wardstar:ddxplus/initial", "E_91", FindingKind.COMPLAINT, ["chief_complaint"]),
        ("ddxplus", "wardstar:ddxplus/evidence", "E_91", FindingKind.COMPLAINT, ["review_of_systems"]),
        ("eicu", "wardstar:eicu/lab", "FiO2", FindingKind.LABORATORY, ["oxygen_ventilator"]),
        ("eicu", "wardstar:eicu/nurseCharting", "Bedside Glucose|Bedside Glucose", FindingKind.LABORATORY,
         ["glucose_hba1c_ketones"]),
    ],
)  # fmt: skip
def test_version_1_assigns_a_finding_of_each_source_to(source, system, code, kind, items):
    found = finding(system, code, kind)
    assert [i.item_id for i in CATALOGUE.items_of(source, found)] == items


def test_an_antecedent_of_ddxplus_goes_by_the_words_of_its_question():
    def items(question):
        coding = Coding("wardstar:ddxplus/evidence", "E_1", question)
        found = Finding("f1", FindingKind.HISTORY, coding, "yes", 0, 0)
        return [i.item_id for i in CATALOGUE.items_of("ddxplus", found)]

    assert items("Do you smoke cigarettes?") == ["tobacco_alcohol"]
    assert items("Do you have family members who have asthma?") == ["family_history"]
    assert items("Do you have high blood pressure or do you take medications for it?") == [
        "history_cardiovascular", "home_drugs"
    ]  # fmt: skip
    assert items("Have you traveled out of the country in the last 4 weeks?") == ["review_of_systems"]


def luhn(code: str) -> bool:
    body, check = code.split("-")
    total = 0
    for place, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return (-total) % 10 == int(check)


def verhoeff(code: str) -> bool:
    """Checks a SNOMED CT identifier: multiplication in the dihedral group D5."""

    def times(a: int, b: int) -> int:
        turned = (a + b) % 5 if a < 5 else (a - b) % 5
        return turned + (5 if (a < 5) != (b < 5) else 0)

    order = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    total = 0
    for place, digit in enumerate(reversed(code)):
        moved = int(digit)
        for _ in range(place % 8):
            moved = order[moved]
        total = times(total, moved)
    return total == 0


def test_every_standard_code_has_a_right_check_digit():
    checks = {LOINC: luhn, SNOMED: verhoeff}
    codes = {(m.system, c) for i in CATALOGUE.items for m in i.matches.get("fhir", ()) for c in m.codes}
    known = [(system, code) for system, code in codes if system in checks]
    assert len(known) > 400
    of_members = {c for i in CATALOGUE.items for m in i.members for c in m.loinc}
    assert len(of_members) > 200
    assert of_members <= {code for system, code in known if system == LOINC}
    assert [pair for pair in known if not checks[pair[0]](pair[1])] == []


def test_no_two_items_claim_the_same_laboratory_code():
    items = CATALOGUE.items
    for source in SOURCES:
        owners: dict[tuple[str, str], set[str]] = {}
        for item in items:
            for matcher in item.matches.get(source, ()):
                if matcher.system in (LOINC, MIMIC_LABS, "wardstar:eicu/lab"):
                    for code in matcher.codes:
                        owners.setdefault((matcher.system, code), set()).add(item.item_id)
        assert {code: ids for code, ids in owners.items() if len(ids) > 1} == {}


def test_a_panel_answers_with_value_unit_range_and_flag_oldest_first_only_what_was_known_by_t():
    def draw(code, value, charted, available, flag=""):
        coding = Coding(MIMIC_LABS, code, code)
        return Finding(f"f{code}-{charted}", FindingKind.LABORATORY, coding, value, charted, available, "mEq/L", 3.3,
                       5.1, flag, pending_from=charted)  # fmt: skip

    draws = [draw("50971", 5.9, 300, 360, "H"), draw("50971", 5.4, 60, 120, "H"), draw("50983", 140.0, 60, 130),
             draw("50971", 3.0, 500, 640, "L"), draw("51222", 9.0, 10, 20)]  # fmt: skip
    case = Case("mimic-iv-1", "mimic-iv", "1", Patient("mimic-iv-p", "mimic-iv", "p"), 50,
                (Encounter("1", "inpatient", 0, 900),), {"admission": 0, "end_of_stay": 900},
                findings=sort_findings(draws))  # fmt: skip
    catalogue = CATALOGUE
    answer = open_chart(case, 600, catalogue).request("potassium level")
    assert answer.state is AnswerState.RECORDED
    assert [(f.code.code, f.value, f.charted) for f in answer.findings] == [
        ("50971", 5.4, 60), ("50983", 140.0, 60), ("50971", 5.9, 300)
    ]  # fmt: skip
    assert {(f.unit, f.low, f.high) for f in answer.findings} == {("mEq/L", 3.3, 5.1)}
    assert [f.flag for f in answer.findings] == ["H", "", "H"]
    assert open_chart(case, 100, catalogue).request("bmp").state is AnswerState.PENDING
    assert open_chart(case, 5, catalogue).request("bmp").state is AnswerState.NOT_DONE_BY_NOW
    assert open_chart(case, 5, catalogue).request("allergy to moonlight").state is AnswerState.UNRECOGNISED


def counted(path, column):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return Counter(row[column] for row in csv.DictReader(file))


@pytest.mark.shared_data
@NEEDS_DATA
@pytest.mark.parametrize(
    ("source", "file", "column", "system", "rows", "share"),
    [
        ("mimic-iv", "mimic-iv-demo/hosp/labevents.csv.gz", "itemid", MIMIC_LABS, 70_514, 0.96),
        ("eicu", "eicu-demo/lab.csv.gz", "labname", "wardstar:eicu/lab", 20_385, 0.999),
    ],
)
def test_nearly_every_laboratory_row_falls_in_one_item(source, file, column, system, rows, share):
    counts = counted(DATA / file, column)
    found = {c: CATALOGUE.items_of(source, finding(system, c)) for c in counts}
    assert sum(counts.values()) == rows
    assert sum(n for code, n in counts.items() if found[code]) / rows >= share
    assert [code for code, items in found.items() if len(items) > 1] == []


def test_in_hospital_treatment_is_offered_only_where_it_is_named():
    """Trap 15: `all` never holds it."""
    shown = [i.item_id for i in CATALOGUE.items if i.shows_treatment]
    assert shown == ["treatment_so_far"]
    assert set(shown).isdisjoint(i.item_id for i in CATALOGUE.offered("all", ()))
    assert [i.item_id for i in CATALOGUE.offered(["treatment"], ())] == shown
    assert [i.item_id for i in CATALOGUE.offered(["lactate", "treatment_so_far"], ["lactate"])] == shown


def test_a_translation_has_the_items_of_its_catalogue_under_other_names(tmp_path):
    english, chinese = load_catalogue("v1"), load_catalogue("v1-zh")
    assert [replace(i, display="", synonyms=()) for i in chinese.items] == [
        replace(i, display="", synonyms=()) for i in english.items
    ]
    assert all(re.search("[\u4e00-\u9fff]", i.display) for i in chinese.items)
    assert chinese.sha256 != english.sha256
    assert chinese.recognise("血常规") == chinese.item("blood_count") == chinese.recognise("blood count")
    assert chinese.recognise("请查血常规") is None
    assert english.recognise("血常规") is None
    text = (Path(catalogue_module.__file__).parent / "v1-zh.yaml").read_text(encoding="utf-8")
    for number, (old, new, message) in enumerate(
        [
            ("  lactate: 血乳酸\n", "", "no name for lactate"),
            ("  lactate: ", "  lactat: x\n  lactate: ", "no such item: lactat"),
            ("血乳酸", "血常规", "two items are called"),
            ("translates: v1", "translates: v9", "no catalogue named v9"),
            ("display:", "names:", "not a valid catalogue"),
        ]
    ):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(WardstarError, match=message):
            load_catalogue(str(path))
    path.write_text(text.replace("血乳酸", "乳酸测定"), encoding="utf-8")
    assert load_catalogue(str(path)).sha256 != chinese.sha256
