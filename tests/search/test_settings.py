"""Settings refuse what no search could mean; presets are settings."""

import math
from dataclasses import fields

import pytest

from clinical_data.errors import UsageError
from search.actions import ActionKind
from search.settings import PRESETS, WORDS, SearchSettings, preset


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [f.name for f in fields(SearchSettings) if f.type == "float"])
def test_numbers_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(UsageError, match=name):
        SearchSettings().with_options(**{name: value})


@pytest.mark.parametrize("name", WORDS)
def test_a_word_outside_the_list_is_refused_with_those_inside(name):
    with pytest.raises(UsageError, match=f"{name} must be {WORDS[name][0]}"):
        SearchSettings().with_options(**{name: "sideways"})


def test_presets_are_settings():
    assert SearchSettings().with_options(**preset("default")) == SearchSettings()
    paper = SearchSettings().with_options(**preset("paper"))
    assert (paper.rollouts, paper.depth, paper.exploration, paper.expansion, paper.vote) == (
        32,
        5,
        2.0,
        "node",
        "drawn",
    )
    assert SearchSettings().with_options(**preset("paper-8")).depth == 8
    with pytest.raises(UsageError) as refused:
        preset("fast")
    assert ", ".join(PRESETS) in str(refused.value.hint)


def test_actions_are_known_by_name_and_stand_in_one_order():
    assert SearchSettings().kinds == tuple(ActionKind)
    few = SearchSettings().with_options(actions="request,finish , request")
    assert few.kinds == (ActionKind.FINISH, ActionKind.REQUEST)
    assert few.actions == "finish, request"  # so that equal choices hash alike
    for wrong, told in (
        ("finish, guess", "unknown action guess"),
        ("think, request", "must hold finish"),
        ("", "empty"),
        ("finish, reask", "without ask"),
    ):
        with pytest.raises(UsageError, match=told):
            SearchSettings().with_options(actions=wrong)
