"""DDXPlus: evidences by kind, what was not asked is not there, both labels apart, rows by split and number."""

import gzip
import json
import os
import zipfile

import psutil
import pytest
from source_records import CANARY, EVIDENCES, condition, import_all, patients_csv, write_release

from clinical_data.case import PRESENT, Coding, FindingKind
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import Strength
from clinical_data.sources import ImportLog
from clinical_data.sources.ddxplus import DdxplusSource

ICD_10 = "http://hl7.org/fhir/sid/icd-10"
CONDITIONS = {
    "URTI": condition("URTI", "J06.9"),
    "Bronchitis": condition("Bronchitis", "j20"),  # as a third of the release, in lower case
    "Pneumonia": condition("Pneumonia", "j17, j18"),
    "Chagas": condition("Chagas", ""),
}
GIVEN = "[['URTI', 0.16], ['Bronchitis', 0.5], [\"Pneumonia\", 0.34]]"
TOLD = ["E_53", "E_55_@_V_29", "E_55_@_V_89", "E_56_@_4", "E_79", "E_91", "E_130_@_V_11", "E_204_@_V_10"]


def row(**changes: object) -> tuple[object, ...]:
    """A row of patients in the order of the published columns."""
    plain = {"age": 18, "given": GIVEN, "sex": "M", "pathology": "URTI", "told": repr(TOLD), "initial": "E_91"}
    return tuple({**plain, **changes}.values())


def imported(folder, *rows):
    return import_all("ddxplus", write_release(folder, CONDITIONS, test=patients_csv(*rows)))


def one(folder, **changes):
    ((labelled,), quarantined, _) = imported(folder, row(**changes))
    assert not quarantined
    return labelled


def facts(labelled) -> list:
    return sorted(
        (f.code.system.rpartition("/")[2], f.code.code, f.kind, f.value, f.unit) for f in labelled.case.findings
    )


def test_each_kind_of_evidence(tmp_path):
    complaint, history = FindingKind.COMPLAINT, FindingKind.HISTORY
    labelled = one(tmp_path)
    assert facts(labelled) == [
        ("evidence", "E_53", complaint, "yes", ""),
        ("evidence", "E_55", complaint, "forehead", ""),
        ("evidence", "E_55", complaint, "lower chest", ""),
        ("evidence", "E_56", complaint, 4.0, "of 10"),
        ("evidence", "E_79", history, "yes", ""),
        ("evidence", "E_91", complaint, "yes", ""),
        ("initial", "E_91", complaint, "yes", ""),
    ]
    (pain,) = [f for f in labelled.case.findings if f.code.code == "E_56"]
    assert pain.code == Coding("wardstar:ddxplus/evidence", "E_56", "How intense is the pain?")
    assert (pain.charted, pain.available, pain.note) == (0, 0, "EVIDENCES E_56_@_4")


def test_what_was_not_asked_or_stands_at_its_default_is_not_negative(tmp_path):
    """The publisher: with its default value, "it is as if the evidence was not synthesized"."""
    (labelled,), _, log = imported(tmp_path, row())
    assert {f.code.code for f in labelled.case.findings} == {"E_53", "E_55", "E_56", "E_79", "E_91"}
    assert log.unused["evidence at its default value, which means not given"] == 2


def test_an_evidence_named_twice_counts_once(tmp_path):
    labelled = one(tmp_path, told=repr(["E_53", "E_53"]))
    assert [f[1] for f in facts(labelled)] == ["E_53", "E_91"]


def test_an_evidence_that_lacks_its_value_is_merely_present(tmp_path):
    assert ("initial", "E_55", FindingKind.COMPLAINT, PRESENT, "") in facts(one(tmp_path, initial="E_55"))


def test_the_case(tmp_path):
    case = one(tmp_path).case
    assert (case.case_id, case.source_id, case.patient.patient_id) == ("ddxplus-test-1", "test-1", "ddxplus-test-1")
    assert (case.age, case.patient.sex) == (18, "male")
    assert case.anchors == {"admission": 0, "end_of_stay": 0}
    assert case.attributes == {"release_split": "test"}


def test_the_labels_keep_the_order_of_probability(tmp_path):
    truth = one(tmp_path).truth
    differential = truth["differential"].labels
    assert [(label.rank, label.coding) for label in differential] == [
        (1, Coding(ICD_10, "J20", "Bronchitis")),
        (2, Coding("wardstar:ddxplus/condition", "Pneumonia", "Pneumonia")),  # two codes: none is chosen
        (3, Coding(ICD_10, "J06.9", "URTI")),
    ]
    (pathology,) = truth["discharge_diagnosis"].labels
    assert pathology.coding == Coding(ICD_10, "J06.9", "URTI")
    assert {label.strength for label in (*differential, pathology)} == {Strength.PROXY}
    assert (pathology.source_row, pathology.entered) == ("PATHOLOGY of test-1", None)
    assert [s for s, t in truth.items() if t.labels] == ["differential", "discharge_diagnosis"]


def test_a_condition_without_a_code_keeps_its_name(tmp_path):
    (label,) = one(tmp_path, pathology="Chagas").truth["discharge_diagnosis"].labels
    assert label.coding == Coding("wardstar:ddxplus/condition", "Chagas", "Chagas")


def test_an_empty_answer_is_absent_with_a_reason(tmp_path):
    truth = one(tmp_path, given="", pathology="").truth
    assert truth["differential"].absent_reason == "DIFFERENTIAL_DIAGNOSIS is empty"
    assert truth["discharge_diagnosis"].absent_reason == "PATHOLOGY is empty"


def test_equal_probabilities_keep_the_order_given(tmp_path):
    labels = one(tmp_path, given="[['Chagas', 0.5], ['URTI', 0.5]]").truth["differential"].labels
    assert [label.coding.display for label in labels] == ["Chagas", "URTI"]


@pytest.mark.parametrize(("age", "years"), [(0, 0), (109, 90), ("", None)])
def test_ages(tmp_path, age, years):
    assert one(tmp_path, age=age).case.age == years


def test_the_french_release_is_read_with_the_english_meanings(tmp_path):
    french = {**EVIDENCES["E_55"], "name": "douleurxx_endroitducorps", "default_value": "nulle_part"}
    french["possible-values"] = ["nulle_part", "front"]
    french["value_meaning"] = {
        "nulle_part": {"fr": "nulle part", "en": "nowhere"},
        "front": {"fr": "x", "en": "forehead"},
    }
    bronchitis = {**condition("Bronchite", "J20"), "cond-name-eng": "Bronchitis"}
    told = repr(["douleurxx_endroitducorps_@_front", "douleurxx_endroitducorps_@_nulle_part"])
    given = row(told=told, initial="", pathology="Bronchite", given="")
    write_release(tmp_path, {"Bronchite": bronchitis}, test=patients_csv(given))
    (tmp_path / "release_evidences.json").write_text(json.dumps({french["name"]: french}), encoding="utf-8")
    ((labelled,), _, _) = import_all("ddxplus", tmp_path)
    assert [f.value for f in labelled.case.findings] == ["forehead"]
    assert labelled.truth["discharge_diagnosis"].labels[0].coding == Coding(ICD_10, "J20", "Bronchitis")


@pytest.mark.parametrize("form", [".csv", ".csv.gz", ".zip"])
def test_plain_gzip_and_zip_give_the_same_cases(tmp_path, form):
    text = patients_csv(row(), row(age=40)).encode()
    write_release(tmp_path, CONDITIONS)
    path = tmp_path / f"release_validate_patients{form}"
    if form == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("__MACOSX/._release_validate_patients", "x")
            archive.writestr("release_validate_patients", b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    else:
        path.write_bytes(gzip.compress(text) if form.endswith("gz") else text)
    cases, quarantined, log = import_all("ddxplus", tmp_path)
    assert [c.case.case_id for c in cases] == ["ddxplus-validate-1", "ddxplus-validate-2"]
    assert not quarantined
    assert log.read == {"patients (validate)": 2}
    assert log.unused["no release_train_patients"] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"age": CANARY}, "AGE is no age in whole years"),
        ({"age": -1}, "AGE is no age in whole years"),
        ({"told": f"['{CANARY}']"}, "EVIDENCES: an evidence is not in release_evidences.json"),
        ({"told": f"['E_55_@_{CANARY}']"}, "EVIDENCES: a value is not in release_evidences.json"),
        ({"told": f"['E_53_@_{CANARY}']"}, "EVIDENCES: a binary evidence has a value"),
        ({"told": f"['{CANARY}'"}, "EVIDENCES is no list"),
        ({"told": "(" * 5000}, "EVIDENCES is no list"),
        ({"told": f"__import__('{CANARY}')"}, "EVIDENCES is no list"),
        ({"told": "[1]"}, "EVIDENCES is no list of evidences"),
        ({"told": "{}"}, "EVIDENCES is no list"),
        ({"initial": CANARY}, "INITIAL_EVIDENCE: an evidence is not in release_evidences.json"),
        ({"given": f"['{CANARY}']"}, "DIFFERENTIAL_DIAGNOSIS is no list of conditions and probabilities"),
        ({"given": f"[['{CANARY}', 1.0]]"}, "DIFFERENTIAL_DIAGNOSIS: a condition is not in release_conditions.json"),
        ({"pathology": CANARY}, "PATHOLOGY: a condition is not in release_conditions.json"),
    ],
)
def test_a_broken_row_is_quarantined_and_the_others_keep_their_numbers(tmp_path, changes, reason):
    cases, (trouble,), _ = imported(tmp_path, row(), row(**changes), row())
    assert [c.case.source_id for c in cases] == ["test-1", "test-3"]
    assert (trouble.line, trouble.reason, trouble.resource) == (3, reason, "patient test-2")
    assert CANARY not in repr(trouble)


def test_damage_stays_within_its_line(tmp_path):
    sound = patients_csv(row()).splitlines()
    lines = [sound[0], sound[1].rpartition(",")[0], '18,"[', f"{sound[1]},1", "", "x" * 200_000, sound[1]]
    write_release(tmp_path, CONDITIONS)
    (tmp_path / "release_test_patients.csv").write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n")
    cases, rows, _ = import_all("ddxplus", tmp_path)
    assert [c.case.source_id for c in cases] == ["test-5"]  # a blank line is no row
    assert [(r.line, r.reason) for r in rows] == [
        (2, "the row has too few fields"),
        (3, "a quotation mark is missing, or a field is too long"),
        (4, "the row has too many fields"),
        (6, "the line is too long"),
        (8, "the line is not UTF-8"),
    ]


def test_a_truncated_archive_gives_what_can_be_read(tmp_path):
    write_release(tmp_path, CONDITIONS, train=patients_csv(row()))
    whole = gzip.compress(patients_csv(*(row(age=n % 90) for n in range(20_000))).encode())
    (tmp_path / "release_test_patients.csv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "release_validate_patients.zip").write_bytes(b"PK\x03\x04 no zip")
    cases, rows, _ = import_all("ddxplus", tmp_path)
    assert 1 < len(cases) < 20_001
    damage = "the archive is damaged or cut short; what follows is lost"
    assert [(r.file, r.reason) for r in rows] == [
        ("release_validate_patients.zip", damage),
        ("release_test_patients.csv.gz", damage),
    ]


def test_of_two_files_for_a_split_one_is_used(tmp_path):
    write_release(tmp_path, CONDITIONS, test=patients_csv(row(), row()))
    (tmp_path / "release_test_patients.csv").write_text(patients_csv(row()), encoding="utf-8")
    cases, (extra,), _ = import_all("ddxplus", tmp_path)
    assert len(cases) == 1
    assert (extra.file, extra.reason) == ("release_test_patients.zip", "release_test_patients.csv is used instead")


@pytest.mark.parametrize("missing", ["release_evidences.json", "release_conditions.json", "release_test_patients.zip"])
def test_a_release_that_lacks_a_file_is_refused(tmp_path, missing):
    write_release(tmp_path, CONDITIONS, test=patients_csv(row()))
    (tmp_path / missing).unlink()
    with pytest.raises(BadInputError, match=missing.removesuffix(".zip").replace("release_test_patients", "patients")):
        import_all("ddxplus", tmp_path)


def test_a_missing_column_and_a_malformed_dictionary_are_refused_by_name(tmp_path):
    text = patients_csv(row()).replace("INITIAL_EVIDENCE", "FIRST")
    write_release(tmp_path, CONDITIONS, test=text)
    with pytest.raises(BadInputError, match="INITIAL_EVIDENCE") as caught:
        import_all("ddxplus", tmp_path)
    assert caught.value.line == 1
    (tmp_path / "release_evidences.json").write_text('{"E_1": {"question_en": "x"}}')
    with pytest.raises(BadInputError, match=r"E_1\.is_antecedent"):
        import_all("ddxplus", tmp_path)
    (tmp_path / "release_evidences.json").write_bytes(b"\xff{")
    with pytest.raises(BadInputError, match="release_evidences"):
        import_all("ddxplus", tmp_path)


def test_memory_stays_flat(tmp_path):
    """30,000 patients take no more than 1,500 did, but for what the interpreter keeps."""
    line = patients_csv(row()).splitlines()[1]
    header = patients_csv().strip()
    write_release(tmp_path, CONDITIONS, train="\n".join([header, *[line] * 30_000]))
    process = psutil.Process(os.getpid())
    stream = DdxplusSource().read(tmp_path, ImportLog(lambda trouble: None))
    early, number = 0, 0
    for number, _ in enumerate(stream, start=1):
        if number == 1500:
            early = process.memory_info().rss
    assert number == 30_000
    assert process.memory_info().rss - early < 20 << 20
