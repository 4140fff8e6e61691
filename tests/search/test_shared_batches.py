"""Cases side by side: the same searches as one after another, in fewer batches, and nobody pays for another's fault."""

import threading
from dataclasses import asdict, replace
from functools import partial

import pytest
from conftest import make_case, make_problem

from clinical_data.errors import ModelError
from search.models.language_model import GenerateRequest, Generation, Sampling, ScoreRequest, Segment
from search.models.toys import RandomModel
from search.problem import Models
from search.settings import SearchSettings
from search.shared_batches import THREAD, SharedModel, run_together
from search.strategies import run_search

SMALL = SearchSettings(rollouts=3, think=2, ask=2, ask_votes=2, request=2, max_requests=2, turn_tokens=6)


class Recorder(RandomModel):
    """Notes the texts of every batch and when it was told to forget; a prompt of "bad" breaks its batch."""

    def __init__(self, seed=1):
        super().__init__(seed)
        self.batches, self.threads, self.releases = [], set(), 0

    def generate(self, requests):
        return super().generate(self._note("generate", requests))

    def score(self, requests):
        return super().score(self._note("score", requests))

    def release(self):
        self.releases += 1

    def _note(self, kind, requests):
        texts = [r.prompt[0].text for r in requests]
        self.batches.append((kind, texts))
        self.threads.add(threading.current_thread().name)
        if "bad" in texts:
            raise ModelError("an overlong prompt")
        return requests


def sample(model, text):
    return model.generate([GenerateRequest((Segment(text),), Sampling(), 1)])


def likelihood(model, text):
    return model.score([ScoreRequest((Segment(text),), ("a", "b"))])


def samples_of(*texts):
    def job(models):
        for text in texts:
            (reply,) = sample(models.generator, text)
            assert isinstance(reply, Generation)
        models.generator.release()
        return texts[-1]

    return job


def search(number, models, settings=SMALL):
    result = run_search("rstar", make_problem(make_case(f"test-{number}")), models, settings, 5)
    models.generator.release()
    models.peer.release()
    return number, result


@pytest.fixture(autouse=True)
def no_thread_left():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == THREAD]


@pytest.mark.parametrize("at_once", [1, 3, 8])
@pytest.mark.parametrize("peer_seed", [4, 9])
def test_searches_side_by_side_equal_those_one_after_another(at_once, peer_seed):
    def models():
        generator = RandomModel(4)
        return Models(generator, generator if peer_seed == 4 else RandomModel(peer_seed))

    alone = [search(i, models()) for i in range(7)]
    shared = models()
    together = list(run_together(shared, [partial(search, i) for i in range(7)], at_once))
    assert sorted(together, key=lambda found: found[0]) == alone
    assert all(result.calls and result.tokens.prefilled for _, result in together)


def test_a_real_model_needs_fewer_passes_for_the_same_answers(folder):
    from search.models.transformers import TransformersModel

    def tiny():
        return TransformersModel.load(str(folder), dtype="fp32", threads=1)

    def short(number, models):
        _, result = search(number, models, replace(SMALL, rollouts=2, peer_cuts=1))
        works[number] = models.generator.work
        return number, result.conclusion.answer_key

    works = {}
    one = tiny()
    alone = [short(i, Models(one, one)) for i in range(4)]
    works.clear()
    two = tiny()
    together = sorted(run_together(Models(two, two), [partial(short, i) for i in range(4)], 4))
    assert together == alone
    assert two.work.passes < one.work.passes / 2
    assert two.work.sampled == one.work.sampled
    counted = [asdict(w) for w in works.values()]
    assert {name: sum(c[name] for c in counted) for name in counted[0]} == asdict(two.work)


def test_a_batch_holds_the_requests_of_all_cases_in_their_order():
    model = Recorder()
    jobs = [samples_of("a1", "a2", "a3"), samples_of("b1"), samples_of("c1", "c2"), samples_of("d1", "d2")]
    assert list(run_together(Models(model, model), jobs, 3)) == ["b1", "c2", "a3", "d2"]
    texts = [texts for _, texts in model.batches]
    assert texts == [["a1", "b1", "c1"], ["a2", "c2", "d1"], ["a3", "d2"]]
    assert model.threads == {threading.current_thread().name}


def test_cases_fall_into_step_and_none_waits_for_ever():
    model = Recorder()

    def scorer(models):
        likelihood(models.generator, "score")
        return "scored"

    jobs = [scorer, samples_of(*"abcdefgh"), samples_of(*"ABCDEFGH"), samples_of(*"12345678")]
    ends = list(run_together(Models(model, model), jobs, 4))
    kinds = [kind for kind, _ in model.batches]
    assert kinds[0] == "generate"  # three against one
    assert kinds.index("score") == 2  # one that waited three batches is worth three that waited one, and is older
    assert ends[0] == "scored"


def test_generator_and_peer_are_never_waited_for_in_a_circle():
    generator, peer = Recorder(1), Recorder(2)

    def first(models):
        return sample(models.generator, "g")[0].text, sample(models.peer, "p")[0].text

    def second(models):
        return sample(models.peer, "p")[0].text, sample(models.generator, "g")[0].text

    one, two = sorted(run_together(Models(generator, peer), [first, second], 2), key=lambda found: found[0])
    assert {one, two} == {first(Models(generator, peer)), second(Models(generator, peer))}


def test_an_error_reaches_only_the_case_that_caused_it():
    model = Recorder()

    def careful(models):
        try:
            sample(models.generator, "bad")
        except ModelError as error:
            return error.message
        return ""

    jobs = [samples_of("a", "b"), careful, samples_of("c", "d")]
    assert sorted(run_together(Models(model, model), jobs, 3)) == ["an overlong prompt", "b", "d"]
    assert [texts for _, texts in model.batches[:4]] == [["a", "bad", "c"], ["a"], ["bad"], ["c"]]


def test_a_model_that_died_fails_every_case_and_hangs_none():
    class Dead(RandomModel):
        def generate(self, requests):
            raise ModelError("gone")

    def job(models):
        with pytest.raises(ModelError, match="gone"):
            sample(models.generator, "a")
        return "failed"

    model = Dead(1)
    assert list(run_together(Models(model, model), [job] * 5, 2)) == ["failed"] * 5


def test_a_model_that_forgets_a_reply_is_an_error():
    class Forgetful(RandomModel):
        def generate(self, requests):
            return super().generate(requests)[1:]

    def job(models):
        with pytest.raises(ModelError, match="0 replies to 1 requests"):
            sample(models.generator, "a")

    model = Forgetful(1)
    list(run_together(Models(model, model), [job] * 2, 2))


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_case_that_raises_stops_the_others(error):
    model, left = Recorder(), []

    def broken(models):
        sample(models.generator, "a")
        raise error

    def patient(models):
        try:
            for _ in range(100):
                try:
                    sample(models.generator, "b")
                except Exception:  # as a step does
                    left.append("recorded as failed")
        finally:
            left.append("cleaned up")

    with pytest.raises(type(error)):
        list(run_together(Models(model, model), [patient, broken, patient], 3))
    assert left == ["cleaned up"] * 2
    assert len(model.batches) == 1


def test_an_interrupt_in_the_model_stops_all():
    class Interrupted(Recorder):
        def generate(self, requests):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().generate(requests)

    model = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        list(run_together(Models(model, model), [samples_of(*"abcd"), samples_of(*"efgh")], 2))


def test_an_iterator_that_is_closed_stops_all_and_takes_no_more_jobs():
    model, taken = Recorder(), []

    def jobs():
        for name in "abcdef":
            taken.append(name)
            yield samples_of(name) if name == "a" else samples_of(*[name] * 50)

    running = run_together(Models(model, model), jobs(), 3)
    assert next(running) == "a"
    running.close()
    assert taken == ["a", "b", "c"]


def test_a_case_that_ignores_its_stop_ends_at_the_next_question():
    model = Recorder()

    def stubborn(models):
        while True:
            try:
                sample(models.generator, "a")
            except Exception:
                raise
            except BaseException:
                sample(models.generator, "once more")

    running = run_together(Models(model, model), [samples_of("b"), stubborn], 2)
    assert next(running) == "b"
    running.close()


def test_the_model_forgets_only_when_no_case_needs_it():
    model = Recorder()

    def job(steps, models):
        for step in range(steps):
            sample(models.generator, f"{step}")
            models.generator.release()
            seen.append(model.releases)

    seen = []
    list(run_together(Models(model, model), [partial(job, 1), partial(job, 2)], 2))
    # both begin a step; the first ends it while the second is in the middle; the second ends; then its last step
    assert seen == [0, 1, 2]


def test_fronts_keep_generator_and_peer_one_or_two():
    one, two = Recorder(), Recorder()

    def job(models):
        assert isinstance(models.generator, SharedModel)
        assert models.generator.identity == one.identity
        assert models.generator.generate([]) == []
        return models.peer_is_generator

    assert list(run_together(Models(one, one), [job], 2)) == [True]
    assert list(run_together(Models(one, two), [job], 2)) == [False]
