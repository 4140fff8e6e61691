"""The models without weights keep to a constraint: distinct choices, at most so many, in a list."""

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from search.models.language_model import Constraint, GenerateRequest, Sampling, Segment
from search.models.toys import RandomModel, ScriptedModel

CHOICES = (" sepsis", " heart failure", " pulmonary embolism", " pneumonia")


def ask(model, most=1, *, seed=0, length=40, temperature=0.8):
    prompt = (Segment("Question"), Segment("\nAnswer:"))
    sampling = Sampling(length, temperature)
    return model.generate([GenerateRequest(prompt, sampling, seed, Constraint(CHOICES, most))])[0]


@given(model=st.integers(0, 99), seed=st.integers(0, 10_000), most=st.integers(1, 6), length=st.integers(1, 20))
@hypothesis_settings(max_examples=200, deadline=None)
def test_a_random_sample_is_a_legal_list(model, seed, most, length):
    sample = ask(RandomModel(model), most, seed=seed, length=length)
    assert sample.text == ";".join(CHOICES[i] for i in sample.chosen)
    assert len(set(sample.chosen)) == len(sample.chosen) <= most
    assert len(sample.token_ids) <= length
    assert sample.chosen or sample.finish == "length"
    assert sample == ask(RandomModel(model), most, seed=seed, length=length)


def test_other_seeds_choose_otherwise_and_without_warmth_the_likeliest_is_taken():
    assert len({ask(RandomModel(1), seed=seed).chosen for seed in range(40)}) > 1
    coldest = {ask(RandomModel(1), seed=seed, temperature=0.0).chosen for seed in range(40)}
    assert len(coldest) == 1


def test_a_scripted_text_is_read_as_a_list():
    model = ScriptedModel({"text": " Pneumonia; tea; heart  failure; pneumonia; sepsis"})
    sample = ask(model, 2)
    assert (sample.chosen, sample.text, sample.finish) == ((3, 1), " pneumonia; heart failure", "stop")
    assert ask(model).chosen == (3,)
    nothing = ask(ScriptedModel({"text": " tea"}))
    assert (nothing.chosen, nothing.text, nothing.token_ids) == ((), "", ())


def test_a_list_without_room_ends_at_its_last_whole_choice():
    sample = ask(ScriptedModel({"text": " sepsis; pulmonary embolism"}), 2, length=3)
    assert (sample.chosen, sample.finish) == ((0,), "length")
