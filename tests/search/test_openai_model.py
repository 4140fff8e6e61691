import math
import re
import zlib
from collections import Counter

import pytest
from conftest import make_problem
from openai_fake import Abilities, FakeServer, logprob, token_id, tokens_of

from clinical_data.errors import ModelError
from search.models.language_model import Constraint, GenerateRequest, LanguageModel, Sampling, ScoreRequest, Segment
from search.models.openai_compatible import DRAWS, OpenAIModel
from search.models.toys import word_ids
from search.problem import Models
from search.settings import SearchSettings
from search.strategies import run_search

PROMPT = (Segment("The patient has"),)
CHOICES = (" pneumonia", " heart failure", " heart attack", " sepsis")
BARE = {"logprobs": False, "dialect": "", "tokenise": "", "ids": ""}

# The servers that exist, as far as their abilities go, and poorer ones.
SERVERS = {
    "vllm": Abilities(),
    "sglang": Abilities(dialect="regex", seed=False),
    "llama.cpp": Abilities(dialect="grammar", echo=False, tokenise="content", ids="content"),
    "llama-cpp-python": Abilities(dialect="grammar", many=False, shifted_echo=True, tokenise="input", bos=True, ids=""),
    "echo": Abilities(dialect="guided_regex", tokenise="", ids=""),
    "masked": Abilities(masked=True, echo=False),
    "bare": Abilities(**BARE),
    "barest": Abilities(seed=False, many=False, usage=False, strict=True, echo=False, bias=False, **BARE),
}


@pytest.fixture
def serve():
    """Returns a function that loads a model from a fake server of certain abilities."""
    opened = []

    def load(able, **options):
        fake = FakeServer(able).__enter__()
        model = OpenAIModel.load(fake.spec, **options)
        opened.append((fake, model))
        fake.requests.clear()
        return fake, model

    yield load
    for fake, model in opened:
        model.release()
        fake.__exit__()


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("vllm", "off honoured yes yes stepwise structured_outputs server server"),
        ("sglang", "off ignored yes yes stepwise regex server server"),
        ("llama.cpp", "off honoured yes yes stepwise grammar server server"),
        ("llama-cpp-python", "off honoured no yes stepwise grammar server token texts"),
        ("echo", "off honoured yes yes echo guided_regex words token texts"),
        ("masked", "off honoured yes yes draws structured_outputs server server"),
        ("bare", "off honoured yes no draws free text, matched by names words words"),
        ("barest", "server's own ignored no no draws free text, matched by names words words"),
    ],
)
def test_the_probe_finds_what_a_server_can_do(serve, server, expected):
    _, model = serve(SERVERS[server])
    identity = model.identity
    *found, greedy = identity.extra.values()
    assert " ".join(found) == expected
    assert len(greedy) == 16
    assert (identity.name, identity.backend, identity.revision) == ("tiny", "openai-compatible fake 9", "tiny-1")
    assert model.repeatable is SERVERS[server].seed
    assert isinstance(model, LanguageModel)


def test_an_echo_with_wrong_likelihoods_is_not_believed(serve):
    _, model = serve(Abilities(tokenise="", shifted_echo=True))
    assert model.identity.extra["scoring"] == "draws"


@pytest.mark.parametrize("server", SERVERS)
def test_samples_keep_the_contract(serve, server):
    able = SERVERS[server]
    fake, model = serve(able)
    requests = [GenerateRequest(PROMPT, Sampling(12, 1.0), seed) for seed in (1, 2, 2**62 + 1, 1)]
    requests.append(GenerateRequest((*PROMPT, Segment(" a", (7,))), Sampling(3, 0.0, stop=()), 1))
    samples = model.generate(requests)
    real = bool(able.tokenise)
    assert samples[0].prompt_ids == (
        tuple(map(token_id, tokens_of("The patient has"))) if real else word_ids("The patient has")
    )
    assert samples[4].prompt_ids == (*samples[0].prompt_ids, 7)
    assert samples[4].finish == "length"
    for request, sample in zip(requests, samples, strict=True):
        assert "\n" not in sample.text or not request.sampling.stop
        tokens = tokens_of(sample.text)
        assert len(sample.token_ids) == len(tokens) if able.logprobs else word_ids(sample.text) == sample.token_ids
        if able.logprobs:
            text, total = "".join(s.text for s in request.prompt), 0.0
            for token in tokens:
                total, text = total + logprob(text, token), text + token
            assert sample.logprob == pytest.approx(total)
            assert (sample.token_ids == tuple(map(token_id, tokens))) is bool(able.ids)
        else:
            assert sample.logprob == 0.0
    if able.seed:
        assert samples[0] == samples[3] != samples[1]
        assert model.generate(requests[2:3]) == samples[2:3]
        assert all(r.get("n", 1) == 1 and r["seed"] < 2**31 for r in fake.requests)


@pytest.mark.parametrize("last", [".\n", "\n", ""])
def test_a_sample_ends_before_the_token_that_ends_it(serve, last):
    fake, model = serve(SERVERS["vllm"])
    fake.sample = lambda body, i: ([" fever", last], [-1.0, -2.0], "stop")
    (sample,) = model.generate([GenerateRequest(PROMPT, Sampling(), 1)])
    assert (sample.text, sample.token_ids, sample.logprob) == (" fever", (token_id(" fever"),), -1.0)


def test_tokens_that_are_pieces_of_a_character_are_all_kept(serve):
    fake, model = serve(SERVERS["vllm"])
    choice = fake.choice

    def pieces(body, i, tokens, logprobs, why):
        return choice(body, i, tokens, logprobs, why) | {"text": " 37 °"}

    fake.sample, fake.choice = lambda body, i: ([" 37", " \ufffd", "\ufffd"], [-1.0, -2.0, -3.0], "length"), pieces
    (sample,) = model.generate([GenerateRequest(PROMPT, Sampling(), 1)])
    assert (sample.text, len(sample.token_ids), sample.logprob) == (" 37 °", 3, -6.0)


def test_likelihoods_that_are_no_numbers_are_an_error_of_the_sample(serve):
    fake, model = serve(SERVERS["vllm"])
    fake.sample = lambda body, i: ([" fever"], [math.nan], "stop")
    (sample,) = model.generate([GenerateRequest(PROMPT, Sampling(), 1)])
    assert (sample.finish, sample.logprob) == ("error", 0.0)


def test_two_runs_agree_and_one_request_does_not_depend_on_its_batch(serve):
    requests = [GenerateRequest(PROMPT, Sampling(), seed) for seed in range(20)]
    _, one = serve(SERVERS["vllm"], concurrency=1)
    _, two = serve(SERVERS["vllm"])
    batch = one.generate(requests)
    assert two.generate(requests) == batch
    assert [two.generate([r])[0] for r in requests[:3]] == batch[:3]


def test_where_seeds_are_ignored_samples_of_one_prompt_come_in_one_request(serve):
    fake, model = serve(SERVERS["sglang"])
    other = GenerateRequest((Segment("Another"),), Sampling(), 1)
    samples = model.generate([GenerateRequest(PROMPT, Sampling(), s) for s in range(6)] + [other])
    assert sorted(r.get("n", 1) for r in fake.requests) == [1, 6]
    assert len({s.text for s in samples[:6]}) > 1
    assert samples[6].prompt_ids != samples[0].prompt_ids


def test_fewer_samples_than_asked_is_a_model_error(serve):
    fake, model = serve(SERVERS["sglang"])
    fake.able.many = False
    with pytest.raises(ModelError, match="1 of 4 samples"):
        model.generate([GenerateRequest(PROMPT, Sampling(), s) for s in range(4)])


def test_nothing_to_say_and_nothing_to_read(serve):
    fake, model = serve(SERVERS["vllm"])
    (sample,) = model.generate([GenerateRequest(PROMPT, Sampling(0), 1)])
    assert (sample.text, sample.finish, fake.requests) == ("", "length", [])
    with pytest.raises(ModelError, match="an empty prompt"):
        model.generate([GenerateRequest((), Sampling(), 1)])
    assert model.generate([]) == []
    assert model.score([]) == []


@pytest.mark.parametrize("server", ["vllm", "sglang", "llama.cpp", "llama-cpp-python", "echo"])
def test_likelihoods_are_those_of_the_model(serve, server):
    able = SERVERS[server]
    _, model = serve(able)
    other = (Segment("Another"),)
    scores, again = model.score([ScoreRequest(PROMPT, CHOICES), ScoreRequest(other, CHOICES[1:2])])
    for choice, ids, found in zip(CHOICES, scores.choice_ids, scores.logprobs, strict=True):
        assert found == pytest.approx(_logprob("The patient has", choice))
        asked = able.tokenise or able.ids
        assert ids == tuple((token_id if asked else _crc)(t) for t in tokens_of(choice))
    assert again.logprobs == (pytest.approx(_logprob("Another", CHOICES[1])),)


def _crc(text):
    return zlib.crc32(text.encode())


def _logprob(text, choice):
    total = 0.0
    for token in tokens_of(choice):
        total, text = total + logprob(text, token), text + token
    return total


def test_shared_beginnings_of_choices_are_asked_once(serve):
    fake, model = serve(SERVERS["vllm"])
    model.score([ScoreRequest(PROMPT, CHOICES)])
    assert len(fake.requests) == 5  # pneumonia, heart, sepsis; failure, attack


@pytest.mark.parametrize("server", ["masked", "bare", "barest"])
def test_likelihoods_that_cannot_be_read_are_counted(serve, server):
    fake, model = serve(SERVERS[server])
    answers = [" sepsis"] * 20 + [" Heart failure."] * 8 + [" nothing like it"] * 4
    taken = iter(answers)
    fake.sample = lambda body, i: (tokens_of(next(taken)), [-1.0] * 9, "stop")
    (scores,) = model.score([ScoreRequest(PROMPT, CHOICES)])
    expected = [math.log((n + 0.5) / 30) for n in (0, 8, 0, 20)]
    assert scores.mean_logprobs == pytest.approx(expected)
    assert sum(r.get("n", 1) for r in fake.requests) == DRAWS == len(answers)


@pytest.mark.parametrize("server", ["vllm", "sglang", "llama.cpp", "echo"])
def test_a_constrained_sample_says_only_choices(serve, server):
    _, model = serve(SERVERS[server])
    one, several = Constraint(CHOICES), Constraint(CHOICES, most=2)
    requests = [GenerateRequest(PROMPT, Sampling(), s, c) for s in range(8) for c in (one, several)]
    counts = Counter()
    for request, sample in zip(requests, model.generate(requests), strict=True):
        assert request.constraint is not None
        parts = sample.text.split(";")
        assert sample.chosen == tuple(CHOICES.index(p) for p in parts)
        assert len(parts) <= request.constraint.most
        counts[len(parts)] += 1
    assert counts[1] >= 8
    assert counts[2] > 0


@pytest.mark.parametrize(
    ("text", "most", "chosen"),
    [
        (" Pneumonia", 1, (0,)),
        (" heart-failure, most likely", 1, (1,)),
        (" likely sepsis", 1, ()),
        (" no pneumonia", 1, ()),
        ("", 1, ()),
        (" sepsis; PNEUMONIA; unknown; sepsis; heart attack", 2, (3, 0)),
    ],
)
def test_free_text_is_matched_to_the_choices_by_their_names(serve, text, most, chosen):
    fake, model = serve(SERVERS["bare"])
    fake.sample = lambda body, i: ([text], [-1.0], "stop")
    (sample,) = model.generate([GenerateRequest(PROMPT, Sampling(), 1, Constraint(CHOICES, most))])
    assert (sample.chosen, sample.text) == (chosen, text)


def test_choices_with_marks_of_the_grammar_are_taken_literally(serve):
    choices = (' a "b" (c)', " d|e?")
    for server in ("vllm", "llama.cpp"):
        fake, model = serve(SERVERS[server])
        model.generate([GenerateRequest(PROMPT, Sampling(), 1, Constraint((*choices, " sepsis")))])
        pattern = fake.pattern(fake.requests[-1])
        assert all(re.fullmatch(pattern, c) for c in choices)
        assert not re.fullmatch(pattern, " d")


def test_work_is_what_the_server_reports(serve):
    _, model = serve(SERVERS["vllm"])
    assert model.work.computed == 0  # the probe does not count
    (sample,) = model.generate([GenerateRequest(PROMPT, Sampling(5, stop=()), 1)])
    work = model.work
    assert (work.prefilled, work.reused, work.sampled, work.computed) == (2, 1, 5, 7)
    model.score([ScoreRequest(PROMPT, CHOICES[:1])])
    assert (work.scored, work.computed, len(sample.token_ids)) == (1, 10, 5)


@pytest.mark.parametrize("server", ["vllm", "bare"])
def test_a_whole_search_runs_and_repeats(serve, server):
    settings = SearchSettings(rollouts=4, think=2, ask=2, ask_votes=2, request=2, max_requests=2, votes=4)
    problem = make_problem()
    results = []
    for _ in range(2):
        _, model = serve(SERVERS[server], concurrency=16)
        results.append(run_search("rstar", problem, Models(model, model), settings, 1))
    first, second = results
    assert first.conclusion.answer_key in {e.code for e in problem.vocabulary.entries}
    assert (first.conclusion, first.tokens) == (second.conclusion, second.tokens)
    assert [c.text for c in first.calls] == [c.text for c in second.calls]
