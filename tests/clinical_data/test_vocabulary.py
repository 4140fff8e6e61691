"""Closed answer vocabularies, and the bundled eICU admission groups."""

import pytest

from clinical_data.errors import BadInputError, UsageError
from clinical_data.vocabulary import load_vocabulary, normalise

HEAD = "name: v\nversion: 1\nsystem: s\nentries:\n  - {code: a, display: Alpha, synonyms: [first]}\n"


@pytest.fixture
def groups():
    return load_vocabulary("eicu-admission-groups")


def test_there_are_28_groups_and_their_names_are_told_apart(groups):
    assert len(groups.entries) == 28
    owners: dict[str, set[str]] = {}
    for entry in groups.entries:
        for name in (entry.code, entry.display, *entry.synonyms):
            owners.setdefault(normalise(name), set()).add(entry.code)
    assert [name for name, codes in owners.items() if len(codes) > 1] == []
    assert all(groups.key_of(e.display) == e.code for e in groups.entries)
    assert all(len(e.display.split()) <= 6 for e in groups.entries)


def test_every_non_operative_term_has_a_group_and_every_group_a_term(groups):
    assert len(groups.members) == 138
    assert all(term.startswith("Non-operative|") for term in groups.members)
    assert set(groups.members.values()) == {e.code for e in groups.entries}


@pytest.mark.parametrize(
    ("term", "group"),
    [
        ("Non-operative|Cardiovascular|Sepsis, pulmonary", "sepsis"),
        ("Non-operative|Trauma|Head only trauma", "trauma"),
        ("Operative|Trauma|Head only trauma", None),
        ("Operative|Gastrointestinal|Appendectomy", None),
        ("Head only trauma", None),
        ("Non-operative|Gastrointestinal|Ulcer disease, peptic", "gi-bleed"),
    ],
)
def test_a_recorded_term_counts_as(groups, term, group):
    assert groups.key_of_label(term) == group


def test_half_credit_pairs_are_groups(groups):
    codes = {e.code for e in groups.entries}
    assert groups.half_credit == {frozenset({"sepsis", "pneumonia"}), frozenset({"sepsis", "renal"})}
    assert all(pair <= codes for pair in groups.half_credit)


@pytest.mark.parametrize(
    ("text", "code"), [("Septic shock.", "sepsis"), ("GI BLEED", "gi-bleed"), ("COPD", "copd-asthma"), ("flu", None)]
)
def test_a_text_names_a_group(groups, text, code):
    assert groups.key_of(text) == code


def test_without_members_a_label_must_be_an_entry(tmp_path):
    path = tmp_path / "v.yaml"
    path.write_text(HEAD)
    vocabulary = load_vocabulary(str(path))
    assert vocabulary.key_of_label("a") == "a"
    assert vocabulary.key_of_label("b") is None
    assert vocabulary.key_of("FIRST") == "a"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("  - {code: a, display: again}\n", "twice"),
        ("members: nosuch.csv\n", "not a valid"),
        ("half_credit: 3\n", "not a valid"),
    ],
)
def test_a_broken_vocabulary_is_bad_input(tmp_path, extra, said):
    path = tmp_path / "v.yaml"
    path.write_text(HEAD + extra)
    with pytest.raises(BadInputError, match=said):
        load_vocabulary(str(path))


def test_members_may_only_name_entries(tmp_path):
    path = tmp_path / "v.yaml"
    path.write_text(HEAD + "members: m.csv\n")
    (tmp_path / "m.csv").write_text("term,group\nx,a\ny,b\n")
    with pytest.raises(BadInputError, match="unknown code 'b'"):
        load_vocabulary(str(path))


def test_the_hash_covers_the_members(tmp_path):
    path = tmp_path / "v.yaml"
    path.write_text(HEAD + "members: m.csv\n")
    hashes = set()
    for text in ("term,group\nx,a\n", "term,group\ny,a\n"):
        (tmp_path / "m.csv").write_text(text)
        hashes.add(load_vocabulary(str(path)).sha256)
    assert len(hashes) == 2


def test_an_unknown_vocabulary_is_a_usage_error():
    with pytest.raises(UsageError):
        load_vocabulary("nosuch")
