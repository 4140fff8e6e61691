"""Languages of pages: the same keys and placeholders in each, and words in the language that is in use."""

from __future__ import annotations

import re
import string
from importlib.resources import files

import pytest

from clinical_data.errors import UsageError
from evaluation.review import words
from evaluation.review.language import ENGLISH, LANGUAGES, count, language, look_up, say, table, use


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("code", [c for c in LANGUAGES if c != ENGLISH])
def test_every_language_has_the_same_keys_and_placeholders(code):
    english, other = table(ENGLISH), table(code)
    assert english.keys() == other.keys()
    assert {k for k in english if placeholders(english[k]) != placeholders(other[k])} == set()
    assert {k for k in english if bool(english[k]) != bool(other[k]) and not k.endswith("_gap")} == set()


def test_the_chinese_table_is_written_in_chinese():
    same = {k for k, text in table("zh").items() if text == table(ENGLISH)[k] and re.search("[A-Za-z]{4}", text)}
    assert same == set()


def test_every_folder_of_words_is_a_language():
    folder = files("evaluation.review") / "languages"
    assert sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("_")) == sorted(LANGUAGES)


def test_words_follow_the_language_in_use():
    assert (language(), say("words.step.triage")) == ("en", "Triage")
    with use("zh"):
        assert (language(), say("words.step.triage")) == ("zh", "分诊")
        with use("en"):
            assert say("words.time.after", span="3 h") == "3 h after admission"
        assert say("words.time.after", span="3 小时") == "入院后 3 小时"
        assert count(3, "turn") == "3 步"
    assert count(1, "turn").replace("\u00a0", " ") == "1 turn"
    assert count(3, "turn").replace("\u00a0", " ") == "3 turns"
    assert look_up("words.state", "pending") == "result pending"
    assert look_up("words.state", "no such state") == "no such state"


def test_times_in_chinese_words():
    with use("zh"):
        found = [words.relative_time(minutes) for minutes in (-130, 1459, 3 * 1440 + 380)]
    assert found == ["入院前 2 小时 10 分钟", "入院后 24 小时 19 分钟", "入院后 3 天 6 小时 20 分钟"]


def test_an_unknown_language_is_refused_before_anything_is_written():
    with pytest.raises(UsageError, match="no words in language de"), use("de"):
        pass
    assert language() == "en"
