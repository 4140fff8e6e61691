"""The lists of what must not be missed and of what is required."""

import pytest
from run_records import GROUPED, WARD, truth_of

from clinical_data.catalogue import load_catalogue
from clinical_data.codes import ICD9_CM
from clinical_data.errors import BadInputError
from clinical_data.vocabulary import load_vocabulary
from evaluation.clinical_lists import MUST_NOT_MISS, REQUIRED_ITEMS, clinical_list, read_list

APACHE = "wardstar:eicu/admission-diagnosis"


@pytest.mark.parametrize("name", [MUST_NOT_MISS, REQUIRED_ITEMS])
def test_bundled_lists_name_what_exists(name):
    found = clinical_list(name)
    assert (found.name, found.version >= 1, len(found.conditions) >= 10) == (name, True, True)
    items = {i.item_id for i in load_catalogue().items}
    for condition in found.conditions:
        assert condition.icd10 or condition.answers, condition.condition
        assert all(len(code) == 3 for code in condition.icd10)
        for vocabulary, codes in condition.answers.items():
            assert set(codes) <= {e.code for e in load_vocabulary(vocabulary).entries}, condition.condition
        assert set(condition.items) <= items
        assert bool(condition.items) == (name == REQUIRED_ITEMS)


def labels(*codes, **more):
    return truth_of(*codes, **more).labels


def test_icd_labels_are_looked_up_by_category():
    found = clinical_list(MUST_NOT_MISS)
    assert found.covers(labels("I21.4")[0], WARD)
    assert found.covers(labels("410.71", system=ICD9_CM)[0], WARD)  # mapped to I21.4
    assert not found.covers(labels("L03.115")[0], WARD)
    assert not found.covers(labels("nonsense")[0], WARD)


def test_group_labels_are_looked_up_by_entry():
    found, groups = clinical_list(MUST_NOT_MISS), load_vocabulary("eicu-admission-groups")
    sepsis, other = (
        "Non-operative|Cardiovascular|Sepsis, pulmonary",
        "Non-operative|Neurologic|Neurologic medical, other",
    )
    assert found.covers(labels(sepsis, system=APACHE)[0], groups)
    assert not found.covers(labels(other, system=APACHE)[0], groups)
    assert found.speaks_of(groups)
    assert found.speaks_of(WARD)
    assert not found.speaks_of(GROUPED)  # a vocabulary that the list does not know
    assert not found.speaks_of(load_vocabulary("disposition"))


def test_required_items_by_hand():
    found = clinical_list(REQUIRED_ITEMS)
    assert found.items(labels("I21.4")[0], WARD) == {"ecg", "troponin_ck"}
    assert found.items(labels("L03.115")[0], WARD) == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "YAML"),
        ("name: x\nversion: 1\nchecked: false\nsource: s\nconditions: [{condition: a, source: short}]", "at least 10"),
        ("name: x\nversion: 1\nchecked: false\nsource: s\nconditions: []\nmore: 1", "Extra"),
    ],
)
def test_a_broken_list_names_file_and_field(tmp_path, text, message):
    (tmp_path / "l.yaml").write_text(text)
    with pytest.raises(BadInputError, match=message) as caught:
        read_list(tmp_path / "l.yaml")
    assert "l.yaml" in str(caught.value)


def test_a_missing_list(tmp_path):
    with pytest.raises(BadInputError, match="cannot be read"):
        read_list(tmp_path / "l.yaml")
