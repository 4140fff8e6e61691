from conftest import make_problem
from hypothesis import given
from hypothesis import strategies as st

from search.desk import PEER, Ask, Desk, PrefixCount, shared_prefix
from search.mcts import rstar
from search.models.language_model import GenerateRequest, Sampling, Segment
from search.models.toys import RandomModel
from search.problem import Models
from search.settings import SearchSettings

IDS = st.lists(st.integers(0, 2), max_size=8).map(tuple)


@given(IDS, IDS)
def test_shared_prefix_is_the_longest(a, b):
    length = shared_prefix(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


@given(st.lists(IDS, max_size=12))
def test_prefix_count_is_the_number_of_trie_nodes(sequences):
    count = PrefixCount()
    trie = set()
    for ids in sequences:
        before = len(trie)
        trie |= {ids[: n + 1] for n in range(len(ids))}
        assert count.add(ids) == len(trie) - before


@given(st.lists(st.tuples(IDS, IDS), max_size=12))
def test_draws_extend_the_trie_for_later_prompts(pairs):
    count, trie = PrefixCount(), set()
    for prompt, draw in pairs:
        before = len(trie)
        trie |= {prompt[: n + 1] for n in range(len(prompt))}
        assert count.add(prompt) == len(trie) - before
        count.extend(prompt, draw)
        trie |= {(prompt + draw)[: n + 1] for n in range(len(prompt + draw))}


@given(IDS, IDS, st.integers(0, 9))
def test_a_shared_prefix_is_not_sought_below_the_least(a, b, least):
    assert shared_prefix(a, b, least) == max(shared_prefix(a, b), least)


def test_samples_of_several_prompts_keep_their_own_texts():
    def part():
        asks = [Ask("generator", "think", GenerateRequest((Segment(text),), Sampling(), 0)) for text in ("a", "a", "b")]
        yield asks
        yield asks[1:]

    model = RandomModel(1)
    desk = Desk(Models(model, model))
    desk.run(part())
    assert [c.text for c in desk.calls] == ["a", "a", "b", "a", "b"]


def test_parts_share_batches_and_keep_their_order():
    class Counting(RandomModel):
        batches = ()

        def generate(self, requests):
            self.batches += (len(requests),)
            return super().generate(requests)

    def part(role, times):
        texts = []
        for i in range(times):
            (reply,) = yield [Ask(role, "think", GenerateRequest((Segment(f"{role}{i}"),), Sampling(), i))]
            texts.append(reply.text)
        return texts

    model, peer = Counting(1), Counting(2)
    desk = Desk(Models(model, peer))
    first, second, third = desk.start(part("generator", 3)), desk.start(part("generator", 1)), desk.start(part(PEER, 2))
    desk.finish()
    assert model.batches == (2, 1, 1)
    assert peer.batches == (1, 1)
    assert [len(r.result) for r in (first, second, third)] == [3, 1, 2]
    assert [c.role for c in desk.calls] == ["generator", "generator", "peer", "generator", "peer", "generator"]


def test_logical_tokens_count_the_prefix_trie_of_all_calls():
    model = RandomModel(3)
    result = rstar(make_problem(), Models(model, model), SearchSettings(rollouts=6), 1)
    trie, prompts = set(), 0
    for call in result.calls:
        prompts += len(call.prompt_ids)
        trie |= {call.prompt_ids[: n + 1] for n in range(len(call.prompt_ids))}
    sampled = sum(len(ids) for c in result.calls if c.seed is not None for ids in c.completion_ids)
    assert result.tokens.sampled == sampled
    assert result.tokens.prefilled + result.tokens.reused == prompts
    assert 0 < result.tokens.prefilled <= len(trie)
