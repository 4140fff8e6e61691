"""What a recorded treatment counts as: a table of names as the sources write them, and what is left out."""

import csv
import gzip
from collections import Counter
from pathlib import Path

import pytest
import yaml

from clinical_data.case import Coding, Finding, FindingKind
from clinical_data.treatment_classes import (
    INTENSIVE_CARE,
    MIMIC_INPUTS,
    MIMIC_ITEMS,
    SNOMED,
    TREATMENT_SYSTEM,
    classes_of,
    display_of,
    load_treatment_classes,
)
from clinical_data.vocabulary import load_vocabulary

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
LIST = Path(__file__).resolve().parents[2] / "clinical_data" / "vocabularies" / "treatment-classes.yaml"
ORDERS = "wardstar:mimic-iv/prescriptions"
PATHS = "wardstar:eicu/treatment"
INFUSIONS = "wardstar:eicu/infusiondrug"


def treatment(name, value="", system=ORDERS, kind=FindingKind.TREATMENT, code=None):
    return Finding("f1", kind, Coding(system, code or name, name), value or None, 0, 0)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CefTRIAXone", "IV Q24H", ["antibacterials"]),
        ("Piperacillin-Tazobactam", "IV Q8H", ["antibacterials"]),
        ("SulfameTHOXazole-Trimethoprim", "PO BID", ["antibacterials"]),
        ("Acyclovir", "PO/NG Q8H", ["antivirals"]),
        ("Micafungin", "IV Q24H", ["antifungals"]),
        ("NORepinephrine", "IV DRIP TITRATE TO", ["vasopressors_inotropes"]),
        ("EPINEPHrine", "IV DRIP TITRATE TO", ["vasopressors_inotropes"]),
        ("Epinephrine 1:1000", "IM ONCE", []),
        ("Amiodarone", "PO/NG BID", ["antiarrhythmics"]),
        ("Metoprolol Tartrate", "PO/NG BID", ["beta_blockers"]),
        ("Labetalol", "IV ONCE", ["antihypertensives"]),
        ("Nitroglycerin", "IV DRIP INFUSION", ["nitrates"]),
        ("Nitroglycerin SL", "SL DAILY", []),
        ("Furosemide", "IV ONCE", ["diuretics"]),
        ("Heparin Sodium", "IV ASDIR", ["anticoagulants"]),
        ("HEPARIN/DEXTROSE 5% 25000 UNITS/250 ML BAG", "IV TITRATE", ["anticoagulants"]),
        ("Warfarin", "PO/NG DAILY16", ["anticoagulants"]),
        ("Aspirin EC", "PO DAILY", ["antiplatelets"]),
        ("Alteplase", "IV DRIP INFUSION", ["thrombolysis"]),
        ("Phytonadione", "IV ONCE", ["haemostatics_reversal"]),
        ("Insulin Human Regular", "IV DRIP TITRATE TO", ["insulin_infusion"]),
        ("Hydrocortisone Na Succ.", "IV Q6H", ["corticosteroids"]),
        ("Ipratropium-Albuterol Neb", "NEB Q6H", ["bronchodilators"]),
        ("LeVETiracetam", "PO BID", ["anticonvulsants"]),
        ("PHENObarbital Alcohol Withdrawal Dose Taper (Days 2-7)", "PO/NG BID", ["withdrawal_treatment"]),
        ("Propofol", "IV DRIP TITRATE TO RASS", ["sedation"]),
        ("Fentanyl Citrate", "IV DRIP INFUSION", ["sedation"]),
        ("Fentanyl Citrate", "IV ONCE", []),
        ("Cisatracurium Besylate", "IV TITRATE TO", ["neuromuscular_block"]),
        ("QUEtiapine Fumarate", "PO/NG QHS", ["antipsychotics"]),
        ("Pantoprazole", "IV INFUSION", ["acid_suppression_infusion"]),
        ("Octreotide Acetate", "IV DRIP INFUSION", ["splanchnic_vasoconstrictors"]),
        ("Lactulose", "PO/NG TID", ["hepatic_encephalopathy_treatment"]),
        ("Sodium Polystyrene Sulfonate", "PO/NG ONCE", ["hyperkalaemia_treatment"]),
        ("Sodium Bicarbonate", "IV ONCE", ["alkalinisation"]),
        ("Mannitol 20%", "IV Q6H", ["osmotherapy"]),
        ("Acetylcysteine (IV)", "IV INFUSION", ["antidotes"]),
        ("Prismasate (B32 K2)", "REPLACE ASDIR", ["renal_replacement"]),
    ],
)
def test_a_problem_directed_drug_counts_as_its_class(name, value, expected):
    assert list(classes_of("mimic-iv", treatment(name, value))) == expected


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("Furosemide", "IV DAILY:PRN", "as needed"),
        ("Haloperidol", "IV PRN", "as needed"),
        ("Albuterol 0.083% Neb Soln", "IH Q4H:PRN", "as needed"),
        ("METOPROLOL", "IV every 6 hours as needed", "as needed"),
        ("Heparin", "SC BID", "prophylaxis"),
        ("HEPARIN 5000 UNIT/ML 1ML INJ", "SubQ Q8H", "prophylaxis"),
        ("LOVENOX", "subCUT q 24 hour", "prophylaxis"),
        ("Enoxaparin Sodium", "SC Q12H", "prophylaxis and treatment differ in dose alone"),
        ("Heparin Sodium (Prophylaxis)", "IV DRIP", "prophylaxis"),
        ("Heparin Flush (10 units/ml)", "IV DAILY", "flush"),
        ("Heparin Dwell (1000 Units/mL)", "DWELL ASDIR", "flush"),
        ("Heparin (CRRT Machine Priming)", "DIALYS ONCE", "flush"),
        ("Alteplase (Catheter Clearance)", "IV ONCE", "flush"),
        ("ALTEPLASE 2 MG IJ SOLR", "IV Once", "flush"),
        ("0.9% Sodium Chloride", "IV INFUSION", "fluid"),
        ("Potassium Chloride", "IV ONCE", "replacement"),
        ("Pantoprazole", "IV Q24H", "prophylaxis"),
        ("Famotidine", "PO BID", "prophylaxis"),
        ("Insulin", "SC ASDIR", "sliding scale"),
        ("Influenza Vaccine Quadrivalent", "IM ONCE", "prophylaxis"),
        ("Ciprofloxacin 0.3% Ophth Soln", "BOTH EYES QID", "local"),
        ("Neomycin-Polymyxin-Bacitracin", "TP BID", "local"),
        ("Acetaminophen", "PO Q6H", "symptom"),
        ("Ondansetron", "IV Q8H", "symptom"),
        ("Atorvastatin", "PO DAILY", "home drug continued"),
        ("Lidocaine 1%", "ID ONCE", "local"),
        ("Fentanyl PCA", "IVPCA INFUSION", "symptom"),
    ],
)
def test_what_is_no_problem_directed_start_counts_as_nothing(name, value, why):
    assert classes_of("mimic-iv", treatment(name, value)) == (), why


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("cardiovascular|shock|vasopressors|norepinephrine > 0.1 micrograms/kg/min", ["vasopressors_inotropes"]),
        ("cardiovascular|hypertension|angiotensin II receptor blocker (ARB)|losartan", ["antihypertensives"]),
        ("cardiovascular|hypertension|vasodilating agent - IV", ["antihypertensives"]),
        ("pulmonary|ventilation and oxygenation|mechanical ventilation|assist controlled", ["mechanical_ventilation"]),
        ("pulmonary|ventilation and oxygenation|mechanical ventilation|non-invasive ventilation",
         ["noninvasive_ventilation"]),
        ("pulmonary|ventilation and oxygenation|ventilator weaning", []),
        ("pulmonary|ventilation and oxygenation|oxygen therapy (< 40%)|nasal cannula", []),
        ("renal|dialysis|C V V H D", ["renal_replacement"]),
        ("renal|dialysis|insertion of venous catheter for hemodialysis", []),
        ("cardiovascular|arrhythmias|anticoagulant administration|low molecular weight heparin|enoxaparin",
         ["anticoagulants"]),
        ("cardiovascular|arrhythmias|anticoagulant administration|conventional heparin therapy|subcutaneous", []),
        ("pulmonary|vascular disorders|VTE prophylaxis|low molecular weight heparin", []),
        ("gastrointestinal|medications|stress ulcer prophylaxis|pantoprazole", []),
        ("surgery|infection|prophylactic antibacterials|for surgery|cephalosporin", []),
        ("endocrine|glucose metabolism|insulin|continuous infusion", ["insulin_infusion"]),
        ("endocrine|glucose metabolism|insulin|sliding scale administration", []),
        ("hematology|coagulation and platelets|vitamin K", ["haemostatics_reversal"]),
        ("cardiovascular|non-operative procedures|intraaortic balloon pump removal", []),
        ("renal|consultations|Nephrology consultation", []),
    ],
)  # fmt: skip
def test_an_eicu_treatment_path_counts_by_its_last_level_or_those_above(path, expected):
    assert list(classes_of("eicu", treatment("x", system=PATHS, code=path))) == expected


@pytest.mark.parametrize(
    ("system", "code", "name", "kind", "expected"),
    [
        (INFUSIONS, "Fentanyl (mcg/hr)", "", FindingKind.TREATMENT, ["sedation"]),
        (INFUSIONS, "Insulin (units/hr)", "", FindingKind.TREATMENT, ["insulin_infusion"]),
        (INFUSIONS, "Dilaudid PCA (mg/hr)", "", FindingKind.TREATMENT, []),
        (MIMIC_ITEMS, "225792", "Invasive Ventilation", FindingKind.VITAL, ["mechanical_ventilation"]),
        (MIMIC_ITEMS, "225794", "Non-invasive Ventilation", FindingKind.TREATMENT, ["noninvasive_ventilation"]),
        (MIMIC_ITEMS, "225802", "Dialysis - CRRT", FindingKind.PROCEDURE, ["renal_replacement"]),
        (MIMIC_ITEMS, "225459", "Chest X-Ray", FindingKind.IMAGING, []),
        (MIMIC_INPUTS, "221906", "Norepinephrine", FindingKind.TREATMENT, ["vasopressors_inotropes"]),
        (MIMIC_INPUTS, "225975", "Heparin Sodium (Prophylaxis)", FindingKind.TREATMENT, []),
        ("wardstar:eicu/respiratoryCharting", "Ventilator Support Mode", "", FindingKind.VITAL,
         ["mechanical_ventilation"]),
        ("wardstar:eicu/respiratoryCharting", "O2 Device", "", FindingKind.VITAL, []),
        (SNOMED, "40617009", "Artificial ventilation", FindingKind.PROCEDURE, ["mechanical_ventilation"]),
        ("http://www.whocc.no/atc", "J01DD04", "", FindingKind.TREATMENT, ["antibacterials"]),
        ("http://www.whocc.no/atc", "A02BC02", "", FindingKind.TREATMENT, []),
        ("http://www.nlm.nih.gov/research/umls/rxnorm", "308136", "amLODIPine 2.5 MG Tablet", FindingKind.TREATMENT,
         ["antihypertensives"]),
        ("http://loinc.org", "2823-3", "Furosemide in serum", FindingKind.LABORATORY, []),
    ],
)  # fmt: skip
def test_a_treatment_counts_by_the_code_of_its_system(system, code, name, kind, expected):
    assert list(classes_of("any", treatment(name, system=system, kind=kind, code=code))) == expected


@pytest.mark.parametrize("system", [MIMIC_ITEMS, MIMIC_INPUTS])
@pytest.mark.parametrize(
    ("item", "name", "expected"),
    [("221668", "Midazolam (Versed)", ["sedation"]), ("221744", "Fentanyl", ["sedation"]),
     ("222168", "Propofol", ["sedation"]), ("221555", "Cisatracurium", ["neuromuscular_block"])],
)  # fmt: skip
def test_an_item_of_sedation_or_paralysis_counts_only_where_it_runs(system, item, name, expected):
    assert list(classes_of("any", treatment(name, "Continuous Med", system, code=item))) == expected
    assert list(classes_of("any", treatment(name, "Continuous IV", system, code=item))) == expected
    for push in ("Drug Push", "given", "Bolus"):
        assert classes_of("any", treatment(name, push, system, code=item)) == ()


def test_another_item_counts_as_a_single_push_too():
    assert classes_of("any", treatment("Furosemide (Lasix)", "Drug Push", MIMIC_ITEMS, code="221794")) == ("diuretics",)


@pytest.mark.parametrize(
    "how",
    ["IV Q6HPRN", "IV Q4HRSPRN", "PO prnqd INDEF", "IV Q15MINPRN INDEF", "IV Q15MIPRN", "PO HSPRN", "PO DAILYPRN",
     "PO BIDPRN", "PO TIDPRN", "IV ONCEPRN: FOR 1 DOSE(S)", "IV ONETIMEPRN", "IV PRNP", "IV PRN4 INDEF", "PO PRNHS",
     "PO PRNBID", "PO QHSPRN", "IV ONCE:PRN", "IV MRX1:PRN", "IV Q6H PRN", "IV q12hprn"],
)  # fmt: skip
def test_prn_glued_to_how_often_is_as_needed(how):
    assert classes_of("eicu", treatment("haloperidol", how)) == ()


@pytest.mark.parametrize("how", ["IV Q6H", "IV PRNEUMO", "IV HYPRNIN", "IV ONCE"])
def test_prn_inside_another_word_is_not_as_needed(how):
    assert classes_of("eicu", treatment("haloperidol", how)) == ("antipsychotics",)


@pytest.mark.parametrize(
    ("group", "value", "expected"),
    [
        ("Ventilation", "ventilated - with daily extubation evaluation", ("mechanical_ventilation",)),
        ("Ventilation", "spontaneous - adequate", ()),
        ("Ventilation", "non-invasive ventilation", ()),
        ("Airway", "intubated/oral ETT", ("mechanical_ventilation",)),
        ("Airway", "intubated/oral ETT - difficult", ("mechanical_ventilation",)),
        ("Airway", "intubated/nasal ETT", ("mechanical_ventilation",)),
        ("Airway", "intubated/trach-chronic", ()),  # a tracheostomy alone is no ventilation
        ("Airway", "not intubated/normal airway", ()),
        ("Care Limitation", "ventilated", ()),
    ],
)
def test_the_care_plan_of_eicu_shows_ventilation_by_its_value(group, value, expected):
    plan = treatment("airway", value, "wardstar:eicu/carePlanGeneral", FindingKind.VITAL, group)
    assert classes_of("eicu", plan) == expected


def test_a_drug_at_home_counts_even_as_needed_but_never_as_an_infusion():
    at_home = FindingKind.MEDICATION_HOME
    assert classes_of("eicu", treatment("albuterol", "inhaled PRN", kind=at_home)) == ("bronchodilators",)
    assert classes_of("eicu", treatment("insulin", "continuous", kind=at_home)) == ()


def test_the_list_names_each_drug_once_and_each_class_in_words():
    classes = load_treatment_classes()
    codes = [c.code for c in classes.entries]
    assert len(set(codes)) == len(codes)
    assert INTENSIVE_CARE in codes
    assert all(display_of(code) for code in codes)
    raw = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    words = Counter(w for e in raw["entries"] for key in ("drugs", "intravenous", "infused") for w in e.get(key, ()))
    assert [w for w, n in words.items() if n > 1] == []
    with pytest.raises(KeyError):
        display_of("nosuch")


def test_every_drug_of_the_list_counts_as_its_own_class_alone():
    raw = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    for entry in raw["entries"]:
        for key, value in (("drugs", "IV"), ("intravenous", "IV"), ("infused", "IV continuous")):
            for word in entry.get(key, ()):
                found = classes_of("any", treatment(word.rstrip("*"), value))
                assert found == (entry["code"],), word


def test_the_list_is_a_vocabulary_that_answers_can_be_drawn_from():
    vocabulary = load_vocabulary("treatment-classes")
    assert vocabulary.system == TREATMENT_SYSTEM
    assert [e.code for e in vocabulary.entries] == [c.code for c in load_treatment_classes().entries]


@pytest.mark.shared_data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the acceptance data beside the project")
def test_items_of_the_list_are_what_the_dictionary_of_mimic_calls_them():
    with gzip.open(DATA / "mimic-iv-demo" / "icu" / "d_items.csv.gz", "rt", encoding="utf-8") as file:
        labels = {row["itemid"]: row["label"].lower() for row in csv.DictReader(file)}
    says = {
        "thrombolysis": "alteplase", "sedation": "midazolam fentanyl", "neuromuscular_block": "cisatracurium",
        "osmotherapy": "nacl", "pulmonary_vasodilators": "epoprostenol",
        "mechanical_ventilation": "ventilation intubation",
        "noninvasive_ventilation": "non-invasive", "renal_replacement": "dialysis hemodialysis",
        "circulatory_support": "iabp impella tandem ecmo centrimag", "pacing_cardioversion": "cardioversion/ pacemaker",
        "temperature_management": "cooling",
    }  # fmt: skip
    wrong = [
        (entry.code, code, labels.get(code))
        for entry in load_treatment_classes().entries
        for system, code in entry.codes
        if system == MIMIC_ITEMS and not any(w in labels.get(code, "") for w in says[entry.code].split())
    ]
    assert wrong == []


@pytest.mark.shared_data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the acceptance data beside the project")
def test_frequent_orders_of_mimic_fall_in_a_class_or_are_left_out_knowingly():
    with gzip.open(DATA / "mimic-iv-demo" / "hosp" / "prescriptions.csv.gz", "rt", encoding="utf-8") as file:
        rows = [(row["drug"], row["route"]) for row in csv.DictReader(file) if row["drug_type"] == "MAIN"]
    counted = Counter(name for name, route in rows if classes_of("mimic-iv", treatment(name, route)))
    left = Counter(name for name, route in rows if not classes_of("mimic-iv", treatment(name, route)))
    assert counted["Furosemide"] == 373
    assert counted["Vancomycin"] == 158
    assert "Heparin Flush (10 units/ml)" in left
    # 40 orders and more: replacement, fluids, prophylaxis, symptoms, vitamins, home drugs continued.
    knowingly = """
        potassium sodium magnesium calcium neutra-phos insulin heparin hydromorphone acetaminophen docusate senna
        ondansetron bisacodyl dextrose pantoprazole famotidine ranitidine levothyroxine multivitamins influenza
        oxycodone lorazepam fentanyl morphine glucagon glucose polyethylene milk vitamin
    """.split()  # noqa: SIM905
    unknown = [n for n, times in left.items() if times >= 40 and not n.lower().startswith(tuple(knowingly))]
    assert unknown == []
