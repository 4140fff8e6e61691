"""Passes through a model in which every distinct token of a prompt tree is computed once.

Three kinds of pass, all through one attention function (`shared_attention`):

    prefill   tokens of prompts that the trie (`kv_cache`) lacks, as a token tree
    decode    one token of each running sample; samples that are equal so far share it
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

from search.models.choice_walk import ChoiceWalk, Menu
from search.models.kv_cache import Ids, PrefixCache, States
from search.models.language_model import GenerateRequest, Work
from search.models.race import Race
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
from search.models.token_sampling import Wish, sample_tokens

PREFILL_ROWS = 256  # longer prefills go in pieces: bounds the score matrix, and skips most of its masked half
SCORE_ROWS = 1024  # most rows of one scoring pass; bounds its mask
HEAD_ROWS = 128  # most rows of logits at once while scoring: a vocabulary is wide

T = TypeVar("T")


@dataclass(slots=True)
class Draft:
    """A sample in the making.

    Attributes:
        new_tokens: most tokens it may add.
        menu: what it may say; None leaves it free.
    """

    request: GenerateRequest
    prompt_ids: Ids
    stop_ids: frozenset[int]
    noise: list[float]
    new_tokens: int
    menu: Menu | None = None
    token_ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    finish: str = ""
    walk: ChoiceWalk | None = None

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forgets what was sampled; the noise stays."""
        self.token_ids, self.logprob, self.finish = [], 0.0, ""
        self.walk = None if self.menu is None else ChoiceWalk(self.menu)
        if self.walk is not None and self.walk.over:
            self.finish = "stop"
        elif self.new_tokens <= 0:
            self.finish = "length"

    @property
    def ids(self) -> Ids:
        """The prompt and what was sampled so far."""
        return (*self.prompt_ids, *self.token_ids)

    def wish(self) -> Wish:
        """Returns how its next token is to be drawn."""
        sampling, allowed = self.request.sampling, None
        if self.walk is not None:
            ends = self.stop_ids.difference(self.walk.tokens) if self.walk.complete else ()
            allowed = [*self.walk.tokens, *sorted(ends)]
        return Wish(sampling.temperature, sampling.top_p, self.noise[len(self.token_ids)], allowed)

    def take(self, token: int, logprob: float) -> None:
        """Takes the next token, -1 for an error, and ends the sample if it should end."""
        goes_on = self.walk is not None and token in self.walk.tokens  # what continues a choice is no stop
        if token < 0:
            self.finish = "error"
        elif token in self.stop_ids and not goes_on:
            self.finish = "stop"
        else:
            self.token_ids.append(token)
            self.logprob += logprob
            if self.walk is not None:
                self.walk.take(token)
            if self.walk is not None and self.walk.over:
                self.finish = "stop"
            elif len(self.token_ids) >= self.new_tokens:
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
        cache_bytes: most memory of the states kept.
    """

    def __init__(self, model: Any, cache_bytes: int) -> None:
        config = model.config.get_text_config()
        self.work = Work()
        self._model = model
        self._layers = config.num_hidden_layers
        self._kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self._head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._hidden_size = config.hidden_size
        numbers = 2 * self._layers * self._kv_heads * self._head_dim + self._hidden_size  # of one token
        self.cache = PrefixCache(cache_bytes // (numbers * model.dtype.itemsize))

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
            self.cache.trim(len(tree))
            kv, hidden = self._forward_tree(tree)
            self.work.prefilled += len(tree)
            for ids, rows in placed:
                missing = len(ids) - self.cache.match(ids)
                if missing:
                    self.cache.append(ids, states_of(kv, hidden, rows[-missing:]))

    def sample(self, drafts: Sequence[Draft]) -> None:
        """Samples drafts, all prefilled, to their ends."""
        for draft in drafts:
            draft.restart()  # a batch that ran out of memory comes again
        self.cache.trim(sum(draft.new_tokens for draft in drafts))
        going = self._retrace(drafts)
        if going:
            self._decode(sorted(going, key=lambda draft: (draft.ids[:-1], draft.token_ids[-1])))

    def _retrace(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Samples as long as the trie holds what is sampled; returns the drafts that go on beyond it."""
        beyond: list[Draft] = []
        while drafts:
            known = {ids: row for row, ids in enumerate(dict.fromkeys(draft.ids for draft in drafts))}
            hidden = torch.stack([self.cache.last_hidden(ids) for ids in known])  # [G, hidden_size]
            self._take_tokens(drafts, self._logits(hidden), [known[draft.ids] for draft in drafts])
            going = [draft for draft in drafts if not draft.finish]
            drafts = [draft for draft in going if self.cache.match(draft.ids) == len(draft.ids)]
            beyond += [draft for draft in going if self.cache.match(draft.ids) < len(draft.ids)]
        return beyond

    def _decode(self, drafts: Sequence[Draft]) -> None:
        """Samples drafts to their ends, sorted by what the trie holds of them, which is all but the last token.

        Drafts that are equal so far share a row.
        """
        shared: dict[Ids, list[Draft]] = {}
        for draft in drafts:
            shared.setdefault(draft.ids, []).append(draft)
        paths = self.cache.paths(ids[:-1] for ids in shared)
        spans = spans_of([paths[ids[:-1]] for ids in shared])
        rows = list(shared.values())
        longest = max(draft.new_tokens - len(draft.token_ids) for draft in drafts)
        like = torch.empty(0, dtype=self._model.dtype, device=self._model.device)
        own = SuffixBlock(like, self._layers, len(drafts), self._kv_heads, longest, self._head_dim)
        hidden = like.new_empty(len(drafts), longest, self._hidden_size)  # of the tokens in `own`
        while rows:
            own.begin_step(len(rows))
            lengths = [len(row[0].ids) for row in rows]
            newest = [row[0].token_ids[-1] for row in rows]
            new = self._forward(newest, [n - 1 for n in lengths], AttentionPlan(spans, own))
            hidden[: len(rows), own.columns - 1] = new
            everyone = [(at, draft) for at, row in enumerate(rows) for draft in row]
            self._take_tokens([draft for _, draft in everyone], self._logits(new), [at for at, _ in everyone])
            forks: dict[tuple[int, int], list[Draft]] = {}
            for at, draft in everyone:
                if not draft.finish:
                    forks.setdefault((at, draft.token_ids[-1]), []).append(draft)
                elif draft.finish != "error":
                    self._remember(draft.ids[: lengths[at]], own, at, hidden[at])
            parents = [at for at, _ in forks]
            if parents != list(range(len(rows))):
                own.keep(parents)
                hidden[: len(parents), : own.columns] = hidden[parents, : own.columns]
                spans = spans_after(spans, parents)
            rows = list(forks.values())

    def _take_tokens(self, drafts: Sequence[Draft], logits: Tensor, rows: Sequence[int]) -> None:
        """Draws the next token of each draft from its row of the logits, [R, vocabulary]."""
        if list(rows) != list(range(len(logits))):
            logits = logits[rows]
        tokens = sample_tokens(logits, [draft.wish() for draft in drafts])
        for draft, token, logprob in zip(drafts, *tokens, strict=True):
            draft.take(token, logprob)

    def _remember(self, ids: Ids, own: SuffixBlock, row: int, hidden: Tensor) -> None:
        """Keeps the states of a finished sample that the trie lacks: hidden [longest, hidden_size] of its row."""
        start = own.columns - (len(ids) - self.cache.match(ids))
        if start < own.columns:
            self.cache.append(ids, States(own.suffix(row, start), hidden[start : own.columns].clone()))

    def score(self, jobs: Sequence[Scoring]) -> None:
        """Fills in ln p of the choices of some jobs, sorted by prompt and all prefilled."""
        for some in packs(jobs, lambda job: job.new_tokens, SCORE_ROWS):
            self._score_pass(some)

    def lead(self, races: Sequence[Race]) -> None:
        """Finds the leaders of some races, sorted by prompt and all prefilled; each round scores for all of them."""
        for race in races:
            race.restart()  # a batch that ran out of memory comes again
        while rounds := [(race, wanted) for race in races if (wanted := race.round())]:
            tables: dict[Ids, dict[Ids, float]] = {}
            for race, wanted in rounds:
                tables.setdefault(race.prompt_ids, {}).update(dict.fromkeys(sorted(wanted), 0.0))
            self.score([Scoring(ids, choices) for ids, choices in tables.items()])
            for race, _ in rounds:
                race.take(tables[race.prompt_ids])

    def _score_pass(self, jobs: Sequence[Scoring]) -> None:
        """Scores all choices of some jobs in one pass.

        The last token of a choice needs no row of its own: the row before it says how likely it is.
        """
        self.cache.trim(sum(job.new_tokens for job in jobs))
        tree = TokenTree()
        rows = {(j.prompt_ids, c): tree.add(j.prompt_ids, c[:-1]) for j in jobs for c in sorted(j.choices)}
        prompts = {ids: row for row, ids in enumerate(sorted({j.prompt_ids for j in jobs}))}
        hidden = torch.stack([self.cache.last_hidden(ids) for ids in prompts])  # [G, hidden_size]
        if len(tree):
            hidden = torch.cat([hidden, self._forward_tree(tree)[1]])  # [G + N, hidden_size]
            self.work.scored += len(tree)
        wanted: list[tuple[int, int]] = []  # (row, token) of every token of every choice
        for (prompt_ids, choice), own in rows.items():
            at = [prompts[prompt_ids], *(len(prompts) + row for row in own)]
            wanted.extend(zip(at, choice, strict=False))  # an empty choice has no first token
        logprobs = iter(self._logprobs(hidden, wanted))
        for job in jobs:
            for choice in sorted(job.choices):
                job.choices[choice] = sum(next(logprobs) for _ in choice)

    def _logprobs(self, hidden: Tensor, wanted: Sequence[tuple[int, int]]) -> list[float]:
        """Returns ln p of each (row, token), -inf where the row's logits are not finite: hidden [N, hidden_size]."""
        found = hidden.new_zeros(len(wanted), dtype=torch.float64)
        rows, tokens = torch.tensor(wanted, dtype=torch.long, device=hidden.device).view(-1, 2).unbind(1)
        for first in range(0, len(hidden), HEAD_ROWS):
            here = ((rows >= first) & (rows < first + HEAD_ROWS)).nonzero()[:, 0]
            logits = self._logits(hidden[first : first + HEAD_ROWS])  # [HEAD_ROWS, vocabulary]
            total = logits.logsumexp(dim=-1)  # [HEAD_ROWS]
            logprobs = logits[rows[here] - first, tokens[here]] - total[rows[here] - first]
            found[here] = logprobs.masked_fill(~total.isfinite()[rows[here] - first], float("-inf")).double()
        return found.tolist()


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
