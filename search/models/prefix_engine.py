"""Passes through a model in which every distinct token of a prompt tree is computed once.

Three kinds of pass, all through one attention function (`shared_attention`):

    prefill   tokens of prompts that the trie (`kv_cache`) lacks, as a token tree
    decode    one token of each running sample, grouped by prompt
    score     all choices after a prompt, as a token tree

The head turns hidden states into logits only where a distribution is needed. The hidden state of every kept token is
kept as well, so a prompt that is wholly known costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from search.models.kv_cache import Ids, PrefixCache, States
from search.models.language_model import GenerateRequest, Work
from search.models.shared_attention import (
    IMPLEMENTATION,
    AttentionPlan,
    SuffixBlock,
    TokenTree,
    TreeBlock,
    spans_after,
    spans_of,
    states_of,
)
from search.models.token_sampling import sample_tokens

PREFILL_ROWS = 256  # longer prefills go in pieces: bounds the score matrix, and skips most of its masked half
SCORE_ROWS = 1024  # most rows of one scoring pass; bounds its mask

T = TypeVar("T")


@dataclass(slots=True)
class Draft:
    """A sample in the making."""

    request: GenerateRequest
    prompt_ids: Ids
    stop_ids: frozenset[int]
    noise: list[float]
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    finish: str = ""

    @property
    def new_tokens(self) -> int:
        """Most tokens it may add."""
        return self.request.sampling.max_new_tokens

    def restart(self) -> None:
        """Forgets what was sampled; the noise stays."""
        self.token_ids, self.logprob, self.finish = [], 0.0, ""

    def take(self, token: int, logprob: float) -> None:
        """Takes the next token, -1 for an error, and ends the sample if it should end."""
        if token < 0:
            self.finish = "error"
        elif token in self.stop_ids:
            self.finish = "stop"
        else:
            self.token_ids.append(token)
            self.logprob += logprob
            if len(self.token_ids) >= self.new_tokens:
                self.finish = "length"


@dataclass(slots=True)
class Scoring:
    """Choices of one request whose likelihoods one pass finds."""

    prompt_ids: Ids
    choices: dict[Ids, float]  # ids of each distinct choice -> ln p, filled in by the pass

    @property
    def new_tokens(self) -> int:
        """Most tokens it may add."""
        return sum(map(len, self.choices))


class PrefixEngine:
    """A causal language model, the states of the tokens it has seen, and a count of its work.

    Args:
        model: a transformers model whose attention is `IMPLEMENTATION`.
        cache_tokens: most tokens whose states are kept.
    """

    def __init__(self, model: Any, cache_tokens: int) -> None:
        config = model.config.get_text_config()
        self.work = Work()
        self.cache = PrefixCache(cache_tokens)
        self._model = model
        self._layers = config.num_hidden_layers
        self._kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def _forward(self, ids: Sequence[int], positions: Sequence[int], plan: AttentionPlan) -> Tensor:
        """Runs one flat row of N tokens through the layers; returns their hidden states [N, hidden_size]."""
        device = self._model.device
        hidden = self._model.base_model(
            input_ids=torch.tensor([ids], device=device),  # [1, N]
            position_ids=torch.tensor([positions], device=device),  # [1, N]
            use_cache=False,
            plan=plan,
        ).last_hidden_state[0]
        self.work.computed += len(ids)
        self.work.passes += 1
        return hidden  # type: ignore[no-any-return]

    def _forward_tree(self, tree: TokenTree) -> tuple[Tensor, Tensor]:
        """Runs a token tree; returns kv [2, layers, kv_heads, N, head_dim] and hidden states [N, hidden_size]."""
        paths = self.cache.paths(tree.prefixes)
        shape = (2, self._layers, self._kv_heads, len(tree), self._head_dim)
        kv = torch.empty(shape, dtype=self._model.dtype, device=self._model.device)
        own = TreeBlock(tree.ancestors().to(kv.device), kv)
        plan = AttentionPlan(spans_of([paths[prefix] for prefix in tree.prefixes]), own)
        return kv, self._forward(tree.ids, tree.positions, plan)

    def _logits(self, hidden: Tensor) -> Tensor:
        """[N, hidden_size] -> [N, vocabulary], float32."""
        return self._model.get_output_embeddings()(hidden).float()  # type: ignore[no-any-return]

    def deviation(self, ids: Ids) -> float:
        """Returns the largest difference between our logits and those of the model's own attention and head.

        Args:
            ids: a short text.

        Returns:
            The difference over the largest logit.
        """
        tree = TokenTree()
        tree.add((), ids)
        ours = self._logits(self._forward_tree(tree)[1])  # [T, vocabulary]
        self._model.set_attn_implementation("eager")
        try:
            stock = self._model(input_ids=torch.tensor([ids], device=self._model.device)).logits[0].float()
        finally:
            self._model.set_attn_implementation(IMPLEMENTATION)
        return float((ours - stock).abs().max() / stock.abs().max())

    def prefill(self, prompts: Sequence[Ids]) -> None:
        """Computes what the trie lacks of some prompts, at most PREFILL_ROWS tokens a pass."""
        waiting = sorted(set(prompts))
        self.cache.paths(ids[: self.cache.match(ids)] for ids in waiting)  # in use from here on: trim spares them
        while waiting := [ids for ids in waiting if self.cache.match(ids) < len(ids)]:
            tree = TokenTree()
            placed: list[tuple[Ids, list[int]]] = []  # what a prompt has after the pass, rows of its last tokens
            for ids in waiting:
                known = self.cache.match(ids)
                rows = tree.add(ids[:known], ids[known:], PREFILL_ROWS)
                placed.append((ids[: known + len(rows)], rows))
            kv, hidden = self._forward_tree(tree)
            self.work.prefilled += len(tree)
            for ids, rows in placed:
                missing = len(ids) - self.cache.match(ids)
                if missing:
                    self.cache.append(ids, states_of(kv, hidden, rows[-missing:]))
            self.cache.trim()

    def sample(self, drafts: Sequence[Draft]) -> None:
        """Samples drafts, sorted by prompt and all prefilled, to their ends."""
        for draft in drafts:
            draft.restart()  # a batch that ran out of memory comes again
        paths = self.cache.paths(d.prompt_ids for d in drafts)
        prompts = {ids: index for index, ids in enumerate(paths)}
        last = torch.stack([self._last_hidden(ids) for ids in prompts])  # [G, hidden_size]
        logits = self._logits(last)[[prompts[d.prompt_ids] for d in drafts]]  # [B, vocabulary]
        live, step = list(drafts), 0
        longest = max(d.new_tokens for d in drafts)
        own = SuffixBlock(last, self._layers, len(drafts), self._kv_heads, longest, self._head_dim)
        spans = spans_of([paths[d.prompt_ids] for d in live])
        hidden = last.new_empty(len(drafts), longest, last.shape[1])  # of the sampled tokens
        while True:
            self._take_tokens(live, logits, step)
            rows = [row for row, draft in enumerate(live) if not draft.finish]
            if len(rows) < len(live):
                for row, draft in enumerate(live):
                    if draft.finish:
                        self._remember(draft, step, own, row, hidden)
                own.keep(rows)
                hidden[: len(rows), :step] = hidden[rows, :step]
                live = [live[row] for row in rows]
                spans = spans_after(spans, rows)
            if not live:
                return
            own.begin_step()
            ids = [d.token_ids[-1] for d in live]
            new = self._forward(ids, [len(d.prompt_ids) + step for d in live], AttentionPlan(spans, own))
            hidden[: len(live), step] = new
            logits, step = self._logits(new), step + 1

    def _take_tokens(self, drafts: Sequence[Draft], logits: Tensor, step: int) -> None:
        settings = [d.request.sampling for d in drafts]
        noise = [d.noise[step] for d in drafts]
        tokens = sample_tokens(logits, [s.temperature for s in settings], [s.top_p for s in settings], noise)
        for draft, token, logprob in zip(drafts, *tokens, strict=True):
            draft.take(token, logprob)

    def _remember(self, draft: Draft, computed: int, own: SuffixBlock, row: int, hidden: Tensor) -> None:
        """Keeps the states of a finished sample's first `computed` tokens."""
        ids = draft.prompt_ids + tuple(draft.token_ids[:computed])
        start = self.cache.match(ids) - len(draft.prompt_ids)
        if start < computed and draft.finish != "error":
            self.cache.append(ids, States(own.suffix(row, start), hidden[row, start:computed].clone()))

    def _last_hidden(self, ids: Ids) -> Tensor:
        """Returns the hidden state [hidden_size] of the last token of a kept sequence."""
        states = self.cache.path(ids)[-1].states
        assert states is not None
        return states.hidden[-1]

    def score(self, jobs: Sequence[Scoring]) -> None:
        """Fills in ln p of the choices of some jobs, sorted by prompt and all prefilled."""
        for some in packs(jobs, lambda job: job.new_tokens, SCORE_ROWS):
            self._score_pass(some)

    def _score_pass(self, jobs: Sequence[Scoring]) -> None:
        """Scores all choices of some jobs in one pass.

        The last token of a choice needs no row of its own: the row before it says how likely it is.
        """
        tree = TokenTree()
        rows = {(j.prompt_ids, c): tree.add(j.prompt_ids, c[:-1]) for j in jobs for c in sorted(j.choices)}
        prompts = {ids: row for row, ids in enumerate(sorted({j.prompt_ids for j in jobs}))}
        logits = self._logits(torch.stack([self._last_hidden(ids) for ids in prompts]))  # [G, vocabulary]
        if len(tree):
            logits = torch.cat([logits, self._logits(self._forward_tree(tree)[1])])  # [G + N, vocabulary]
            self.work.scored += len(tree)
        logprobs = logits.log_softmax(dim=-1)
        for job in jobs:
            for choice in job.choices:
                at = [prompts[job.prompt_ids], *(len(prompts) + row for row in rows[job.prompt_ids, choice])]
                job.choices[choice] = float(logprobs[at[: len(choice)], list(choice)].double().sum())


def packs(items: Sequence[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Cuts items into runs of neighbours, each of total size at most `limit` or of one item."""
    pack: list[T] = []
    for item in items:
        if pack and sum(map(size, pack)) + size(item) > limit:
            yield pack
            pack = []
        pack.append(item)
    if pack:
        yield pack
