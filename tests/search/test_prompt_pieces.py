"""The text of a stored prompt is cut into the pieces that the search tokenised."""

import pytest
from conftest import make_problem

from search.models.language_model import Segment, prompt_text
from search.models.toys import RandomModel
from search.problem import Models
from search.prompt_pieces import prompt_pieces, turn_pieces
from search.settings import SearchSettings
from search.strategies import run_search


class Listening(RandomModel):
    """Answers at random and keeps every prompt."""

    def __init__(self, seed):
        super().__init__(seed)
        self.prompts = set()

    def generate(self, requests):
        self.prompts |= {tuple(s.text for s in r.prompt if s.text) for r in requests}
        return super().generate(requests)

    def score(self, requests):
        self.prompts |= {tuple(s.text for s in r.prompt if s.text) for r in requests}
        return super().score(requests)


@pytest.mark.parametrize(
    ("strategy", "answer_list"),
    [("rstar", "shown"), ("rstar", "hidden"), ("greedy", "shown"), ("full-information", "shown")],
)
def test_every_prompt_of_a_search_is_cut_as_it_was_made(strategy, answer_list):
    model = Listening(5)
    settings = SearchSettings(
        rollouts=24, think=2, ask=2, ask_votes=2, request=2, max_requests=3, answer_list=answer_list
    )
    problem = make_problem(earlier=("pneumonia",))
    run_search(strategy, problem, Models(model, model), settings, seed=1)
    assert model.prompts
    for texts in model.prompts:
        assert tuple(s.text for s in prompt_pieces("".join(texts))) == texts


def test_every_turn_of_a_search_is_cut_as_it_was_made():
    settings = SearchSettings(rollouts=24, stop="never", think=2, ask=2, ask_votes=2, request=2, max_requests=3)
    result = run_search("rstar", make_problem(), Models(RandomModel(5), RandomModel(6)), settings, seed=1)
    turns = {turn for candidate in result.candidates for turn in candidate.trajectory.turns}
    assert {turn.action.kind.value for turn in turns} == {"think", "ask", "reask", "rephrase", "request", "finish"}
    for turn in turns:
        texts = tuple(s.text for s in turn.segments)
        assert tuple(s.text for s in turn_pieces("".join(texts))) == texts
    assert [s.text for s in turn_pieces("\nDiagnosis: sepsis: severe")] == ["\nDiagnosis:", " sepsis: severe"]
    assert turn_pieces("so") == (Segment("so"),)


def test_a_text_of_another_make_stays_whole():
    assert prompt_pieces("Is it so? Yes.") == (Segment("Is it so? Yes."),)
    assert prompt_pieces("") == ()
    assert prompt_text(prompt_pieces("a\n\nb\nc:")) == "a\n\nb\nc:"
