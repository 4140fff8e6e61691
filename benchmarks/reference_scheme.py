"""The reference's way of generating, written plainly on stock transformers, for `search_speed` to compare with.

rStar's generator (arXiv 2408.06195) samples every sibling group by a `generate` call of its own with
`num_return_sequences`; the answers of a FINISH, the replies to a sub-question and the thoughts of a THINK are such
groups. Stock `generate` computes the prompt again for every sequence of a group, and nothing is kept between calls.
Two further ways of calling stock transformers stand beside it: a group that keeps its prompt's keys and values, and
continuous batching (paged attention), which takes all groups at once.

All of them, and `FixedLength` around our own model, draw exactly as many tokens as a request allows: no token and no
stop string ends a sample, so that every arm does the same work.
"""

import itertools
from dataclasses import replace

from benchmarks.prefill import stock_model
from search.models.language_model import Generation, ModelIdentity, Work

import torch  # isort: skip
import transformers  # isort: skip


class FixedLength:
    """Our own model, whose samples no stop string ends. `load` of `benchmarks.prefill` drops the end-of-text tokens."""

    def __init__(self, model):
        self._model = model
        self.identity, self.release, self.score = model.identity, model.release, model.score

    @property
    def work(self):
        """Token positions computed."""
        return self._model.work

    def generate(self, requests):
        """Returns one sample per request."""
        return self._model.generate([replace(r, sampling=replace(r.sampling, stop=())) for r in requests])


class StockModel:
    """Stock transformers as a `LanguageModel` that can sample; a group is a run of requests with one prompt.

    Args:
        dtype: of the weights.
        tokenizer: that of our own model, so that prompts have the same tokens.
    """

    def __init__(self, dtype, tokenizer):
        self.identity = ModelIdentity("stock", "stock", "1", dtype)
        self.work = Work()
        self._model, self._tokenizer = stock_model(dtype), tokenizer
        self._ids = {}
        self._model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def release(self):
        """Keeps nothing, so has nothing to forget."""

    def score(self, requests):
        """The reference scores no answers."""
        raise NotImplementedError

    def generate(self, requests):
        """Returns one sample per request, group by group."""
        made = []
        for _, group in itertools.groupby(requests, key=lambda r: r.prompt):
            made += self._group(list(group))
        return made

    def _count(self, module, args, kwargs):
        self.work.computed += kwargs["input_ids"].numel()
        self.work.passes += 1

    def _prompt_ids(self, prompt):
        return tuple(i for s in prompt for i in (self._tokenise(s.text) if s.token_ids is None else s.token_ids))

    def _tokenise(self, text):
        if text not in self._ids:
            self._ids[text] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        return self._ids[text]

    def _group(self, requests):
        prompt = self._prompt_ids(requests[0].prompt)
        torch.manual_seed(requests[0].seed % 2**31)
        return self._generations(prompt, self._drawn(prompt, requests[0].sampling, len(requests)))

    def _drawn(self, prompt, sampling, count):
        """[count, T] token ids of one `generate` call."""
        ids = torch.tensor([prompt])
        out = self._model.generate(ids, attention_mask=torch.ones_like(ids), **_options(sampling, count))
        return out[:, len(prompt) :]

    def _generations(self, prompt, rows):
        rows = [tuple(int(i) for i in row) for row in rows]
        self.work.sampled += sum(map(len, rows))
        return [Generation(self._tokenizer.decode(list(row)), prompt, row, 0.0, "length") for row in rows]


class CachedGroups(StockModel):
    """A group's prompt is computed once; its keys and values are copied for each sequence (`past_key_values`)."""

    def _drawn(self, prompt, sampling, count):
        ids, cache = torch.tensor([prompt]), transformers.DynamicCache(config=self._model.config)
        with torch.inference_mode():
            self._model(ids[:, :-1], past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(count)
            many = ids.repeat(count, 1)
            options = {"attention_mask": torch.ones_like(many), "past_key_values": cache, **_options(sampling, 1)}
            return self._model.generate(many, **options)[:, len(prompt) :]


class ContinuousBatching(StockModel):
    """The groups of a round through `generate_batch` of transformers: paged attention, groups forked after a prefill.

    A call takes one number of sequences for all its prompts, so groups of equal size go together. It samples from one
    generator of its own, so a sample depends on what else is in the batch.
    """

    def generate(self, requests):
        """Returns one sample per request."""
        groups = [list(group) for _, group in itertools.groupby(requests, key=lambda r: r.prompt)]
        made = {}
        for size in sorted({len(group) for group in groups}):
            of_size = [at for at, group in enumerate(groups) if len(group) == size]
            prompts = [self._prompt_ids(groups[at][0].prompt) for at in of_size]
            rows = self._rows(prompts, requests[0].sampling, size)
            for at, prompt, first in zip(of_size, prompts, range(0, len(rows), size), strict=True):
                made[at] = self._generations(prompt, rows[first : first + size])
        return [sample for at in range(len(groups)) for sample in made[at]]

    def _rows(self, prompts, sampling, count):
        options = _options(sampling, count)
        config = transformers.GenerationConfig(**options, eos_token_id=-1)
        pages = transformers.ContinuousBatchingConfig(num_blocks=1024, page_size=32, max_batch_tokens=1024)
        done = self._model.generate_batch(
            [list(p) for p in prompts], generation_config=config, continuous_batching_config=pages, warmup=False
        )
        rows = [out.generated_tokens for out in done.values()]
        if len(rows) != count * len(prompts):
            raise RuntimeError(f"continuous batching returned {len(rows)} of {count * len(prompts)} samples")
        return rows


def _options(sampling, count):
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": 0,
        "max_new_tokens": sampling.max_new_tokens,
        "num_return_sequences": count,
        "pad_token_id": 0,
    }
