"""Reading a training set: nobody is taught who must not be, and a card of another form is named."""

import json

import pytest
from tuning_sets import PREFERENCE, SFT, write_set

from clinical_data.errors import BadInputError
from evaluation.supervision.tuning_rows import disputed, read_set


def of(rows, split, patients):
    return [{**row, "split": split, "patient_id": f"fhir-p{n}"} for row, n in zip(rows, patients, strict=False)]


def test_rows_of_another_split_are_refused(tmp_path):
    held_out = [*of(SFT[:2], "train", (1, 2)), *of(SFT[2:3], "held-out", (3,))]
    with pytest.raises(BadInputError, match=r"train\.jsonl:3: split: a row of split held-out") as caught:
        read_set(write_set(tmp_path / "a", held_out), "sft")
    assert caught.value.exit_code == 3
    with pytest.raises(BadInputError, match=r"train\.jsonl:1: split: a row of split tuning"):
        read_set(write_set(tmp_path / "b", of(PREFERENCE, "tuning", (1,))), "dpo")
    with pytest.raises(BadInputError, match=r"tuning\.jsonl:1: split: a row of split train"):
        read_set(write_set(tmp_path / "c", SFT, of(SFT, "train", (1,))), "sft")
    found = read_set(write_set(tmp_path / "d", of(SFT, "train", (1, 1)), of(SFT, "tuning", (2,))), "sft")
    assert [row.patient for row in (*found.train, *found.tuning)] == ["fhir-p1", "fhir-p1", "fhir-p2"]
    assert set(found.train[0].texts) == {"prompt", "completion"}


def test_a_patient_in_both_files_is_refused_and_not_named(tmp_path):
    rows = of(SFT, "train", (1, 2, 2))
    with pytest.raises(
        BadInputError, match=r"tuning\.jsonl:2: patient_id: a row of the patient of train\.jsonl:2"
    ) as e:
        read_set(write_set(tmp_path / "set", rows, of(SFT, "tuning", (4, 2))), "sft")
    assert "fhir-p" not in str(e.value)


@pytest.mark.parametrize(
    ("card", "field"),
    [
        ({"splits": [1]}, "splits"),
        ({"splits": {"train": None}}, "splits.train"),
        ({"versions": [1]}, "versions"),
        ({"hashes": {"prompts": 1}}, "hashes.prompts"),
        ({"kind": ["sft"]}, "kind"),
        ({"pathway": [1]}, "pathway"),
    ],
)
def test_a_card_of_another_form_is_named_by_file_and_field(tmp_path, card, field):
    folder = write_set(tmp_path / "set", SFT, card=card)
    with pytest.raises(BadInputError, match=rf"card\.json: {field}: ") as caught:
        read_set(folder, "sft")
    assert caught.value.exit_code == 3
    (folder / "card.json").write_text(json.dumps([1]))
    with pytest.raises(BadInputError, match="is not a JSON object"):
        read_set(folder, "sft")


def test_one_case_is_not_taught_two_answers_to_one_prompt(tmp_path):
    """Two cases whose charts read alike are two observations, be they of one patient or of two."""
    one = {"prompt": "p", "completion": " a\n", "patient_id": "p1", "case_id": "c1", "turn": "answer"}
    other = {**one, "completion": " b\n"}
    for number, row in enumerate((other, {**other, "turn": None}), 1):
        first = {name: value for name, value in one.items() if name != "turn"} if row["turn"] is None else one
        with pytest.raises(BadInputError, match=r"train\.jsonl:2: completion: another answer than that of train") as e:
            read_set(write_set(tmp_path / f"refused{number}", [first, row]), "sft")
        assert e.value.exit_code == 3
    kept = [
        {**other, "case_id": "c2"},
        {**other, "patient_id": "p2"},
        {**other, "turn": "thought"},
        {**one, "occurrence": 2, "completion": " b\n"},
    ]
    for number, row in enumerate(kept):
        found = read_set(write_set(tmp_path / f"kept{number}", [one, row]), "sft").train
        assert set(found[1].texts) == {"prompt", "completion"}
        assert disputed(found) == (row["turn"] == "answer")
    alike = [{**one, "answer": "J18"}, {**other, "answer": "J18"}]  # two entries of one class
    assert disputed(read_set(write_set(tmp_path / "alike", alike), "sft").train) == 0
