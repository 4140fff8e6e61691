"""What sharing one prefill between samples gains, and how fast the local back-end is.

The other arm is stock `generate` of transformers, which prefills the prompt again for each sample. Both arms run the
same weights, dtype, threads, prompt, and number of samples and new tokens; nothing is extrapolated.
"""

import os
import time

from search.models.embedded import embedded_folder
from search.models.language_model import GenerateRequest, Sampling, ScoreRequest, Segment
from search.models.transformers import TransformersModel

import torch  # isort: skip
import transformers  # isort: skip

TEXT = "The patient has had fever and a productive cough for three days, with pain on breathing in. "
PROMPT_TOKENS = 1000


def make_prompt(model, tokens):
    """Returns a prompt of exactly `tokens` ids."""
    ids = model.tokenizer(TEXT * (tokens // 10), add_special_tokens=False).input_ids[:tokens]
    assert len(ids) == tokens
    return (Segment(model.tokenizer.decode(ids), tuple(ids)),)


def make_requests(prompt, samples, new_tokens):
    """Requests whose samples all have `new_tokens` tokens unless the model ends the text."""
    sampling = Sampling(max_new_tokens=new_tokens, temperature=0.8, top_p=0.95, stop=())
    return [GenerateRequest(prompt, sampling, seed) for seed in range(samples)]


def load(dtype, threads):
    """Loads the embedded model in which no token ends a text, so that every sample does the same work."""
    model = TransformersModel.load("embedded", dtype=dtype, threads=threads)
    model._eos = frozenset()
    return model


def stock_model(dtype):
    """Loads the embedded weights as stock transformers does."""
    model = transformers.AutoModelForCausalLM.from_pretrained(embedded_folder(), dtype=getattr(torch, dtype)).eval()
    model.generation_config.eos_token_id = None
    return model


def prefill_sharing_speedup(samples=8, new_tokens=24, prompt_tokens=PROMPT_TOKENS, dtype="fp32", threads=2):
    """Compares sampling from one shared prefill with stock `generate`, which prefills for each sample.

    Returns:
        Plain numbers: seconds and sampled tokens per second of both arms, and `ratio`, stock seconds over ours.
    """
    ours = load(dtype, threads)
    prompt = make_prompt(ours, prompt_tokens)
    requests = make_requests(prompt, samples, new_tokens)
    ours.generate(make_requests(make_prompt(ours, 32), 1, 2))  # warm up
    ours.release()
    began = time.perf_counter()
    generations = ours.generate(requests)
    shared_seconds = time.perf_counter() - began
    ours.release()

    stock = stock_model(ours.identity.dtype)
    ids = torch.tensor([generations[0].prompt_ids])
    stock.generate(ids[:, :32], do_sample=True, max_new_tokens=2, pad_token_id=0)  # warm up
    stock_tokens = 0
    began = time.perf_counter()
    for seed in range(samples):
        torch.manual_seed(seed)
        out = stock.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=0.8, top_p=0.95, top_k=0,
            max_new_tokens=new_tokens, pad_token_id=0,
        )  # fmt: skip
        stock_tokens += out.shape[1] - ids.shape[1]
    stock_seconds = time.perf_counter() - began

    tokens = sum(len(g.token_ids) for g in generations)
    assert tokens == stock_tokens == samples * new_tokens
    return {
        "samples": samples,
        "new_tokens": new_tokens,
        "prompt_tokens": prompt_tokens,
        "threads": torch.get_num_threads(),
        "shared_seconds": shared_seconds,
        "stock_seconds": stock_seconds,
        "shared_tokens_per_second": tokens / shared_seconds,
        "stock_tokens_per_second": stock_tokens / stock_seconds,
        "ratio": stock_seconds / shared_seconds,
    }


def throughput(dtype="fp32", threads=2, samples=(1, 8, 32), new_tokens=24, prompt_tokens=PROMPT_TOKENS):
    """Measures load time, prefill and decode tokens per second, and the time to score 28 answers after 400 tokens."""
    began = time.perf_counter()
    model = load(dtype, threads)
    figures = {"load_seconds": time.perf_counter() - began}
    prompt = make_prompt(model, prompt_tokens)
    model.generate(make_requests(make_prompt(model, 32), 1, 2))  # warm up
    model.release()
    began = time.perf_counter()
    model.generate(make_requests(prompt, 1, 1))  # one token needs no decoding pass
    figures["prefill_tokens_per_second"] = prompt_tokens / (time.perf_counter() - began)
    for count in samples:
        began = time.perf_counter()
        made = model.generate(make_requests(prompt, count, new_tokens))
        tokens = sum(len(g.token_ids) for g in made)
        figures[f"decode_tokens_per_second_{count}"] = tokens / (time.perf_counter() - began)
    answers = tuple(
        f" {adjective} {noun}"
        for adjective in ("acute", "chronic", "severe bacterial", "drug-induced")
        for noun in ("pneumonia", "heart failure", "sepsis", "renal failure", "pancreatitis", "stroke", "hepatitis")
    )
    context = make_prompt(model, 400)
    model.release()
    model.generate(make_requests(context, 1, 1))
    began = time.perf_counter()
    model.score([ScoreRequest(context, answers)])
    figures["score_28_answers_seconds"] = time.perf_counter() - began
    return figures


if __name__ == "__main__":
    import json

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    results = {dtype: throughput(dtype) for dtype in ("fp32", "bf16")}
    results["sharing_fp32"] = prefill_sharing_speedup()
    results["sharing_bf16"] = prefill_sharing_speedup(dtype="bf16")
    print(json.dumps(results, indent=2))
