"""Attention over prefixes that many rows share, keys and values of each prefix token held once.

A pass is one flat list of N rows (new tokens), whatever sequences they belong to; only attention looks at sequences.
The score matrix has a row per new token and a column per position of its prefix, then a block of columns for the new
tokens themselves:

                 positions of the prefix          own
    row 0   | shared span | span of 0..1 | ...  | block |
    row 1   |   (one      |              |      |       |
    row 2   |   product)  | span of 2    |      |       |

A span is a run of cached tokens under a contiguous range of rows: it fills one rectangle with one matrix product. One
softmax runs over the whole row. Sharing keys between samples of a prompt is the idea of Hydragen (arXiv 2402.05099).
Grouped-query heads ride along as more query rows of their key head; keys are never repeated.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from clinical_data.errors import ModelError
from search.models.kv_cache import Ids, Node, States, joined

IMPLEMENTATION = "wardstar_shared_prefix"
UNSUPPORTED = ("softcap", "s_aux", "position_bias")  # arguments of other models' attention that change its result


@dataclass(frozen=True, slots=True)
class Span:
    """Cached tokens that rows [first, last) all attend to.

    Attributes:
        first, last: the rows.
        start, stop: positions of the tokens, which are their columns of the score matrix.
        kv: their keys and values, [2, layers, kv_heads, stop - start, head_dim].
    """

    first: int
    last: int
    start: int
    stop: int
    kv: Tensor


def spans_of(paths: Sequence[list[Node]]) -> list[Span]:
    """Returns the spans of a pass.

    Args:
        paths: for each row, the nodes of its cached prefix. Rows below one node must be neighbours, as they are when
            sorted by prefix.
    """
    rows: dict[int, tuple[int, int]] = {}  # id(node) -> its range of rows
    nodes: dict[int, Node] = {}
    for row, path in enumerate(paths):
        for node in path:
            first, _ = rows.get(id(node), (row, row))
            rows[id(node)] = (first, row + 1)
            nodes[id(node)] = node
    chains: dict[tuple[int, int], list[Node]] = {}  # nodes over the same rows follow one another
    for key, node in nodes.items():
        chains.setdefault(rows[key], []).append(node)
    return [Span(*ends, chain[0].start, chain[-1].stop, joined(chain)) for ends, chain in chains.items()]


def spans_after(spans: Sequence[Span], rows: Sequence[int]) -> list[Span]:
    """Returns the spans over the rows that stay, given in ascending order and renumbered from 0; copies no keys."""
    moved = [replace(s, first=bisect_left(rows, s.first), last=bisect_left(rows, s.last)) for s in spans]
    return [s for s in moved if s.first < s.last]


class OwnBlock(Protocol):
    """The part of attention in which the rows of a pass see themselves and one another."""

    @property
    def columns(self) -> int:
        """Number of columns of the block."""

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Takes the rows' own keys and values, [kv_heads, N, head_dim] each."""

    def scores(self, layer: int, queries: Tensor) -> Tensor:
        """Returns scores [kv_heads, N, group, columns] for queries [kv_heads, N, group, head_dim]."""

    def mix(self, layer: int, weights: Tensor) -> Tensor:
        """Returns values mixed by weights [kv_heads, N, group, columns]: [kv_heads, N, group, head_dim]."""


class TokenTree:
    """New tokens that branch off cached prefixes, one row per distinct token, parents before children.

    Add sequences in sorted order, so that the rows below one cached node are neighbours.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.prefixes: list[Ids] = []
        self._parents: list[int] = []
        self._rows: dict[tuple[Ids | int, int], int] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, prefix: Ids, tail: Sequence[int], limit: int | None = None) -> list[int]:
        """Adds tokens after a cached prefix; returns their rows, fewer than asked if the tree reaches `limit` rows."""
        rows: list[int] = []
        for token in tail:
            key = (rows[-1] if rows else prefix, token)
            if key not in self._rows:
                if limit is not None and len(self) >= limit:
                    break
                self._rows[key] = len(self)
                self.ids.append(token)
                self.positions.append(len(prefix) + len(rows))
                self.prefixes.append(prefix)
                self._parents.append(rows[-1] if rows else -1)
            rows.append(self._rows[key])
        return rows

    def ancestors(self) -> Tensor:
        """Returns which rows each row may see, itself included, bool [N, N]."""
        seen = torch.eye(len(self), dtype=torch.bool)
        for row, parent in enumerate(self._parents):
            if parent >= 0:
                seen[row, : parent + 1] |= seen[parent, : parent + 1]
        return seen


class TreeBlock:
    """Own block of a pass over a token tree: each row sees its ancestors among the rows.

    A row whose values are not finite spoils the rows that see it and no others.

    Args:
        visible: which rows each row sees, bool [N, N].
        kv: buffer for the rows' keys and values, [2, layers, kv_heads, N, head_dim].
    """

    def __init__(self, visible: Tensor, kv: Tensor) -> None:
        self._hidden = ~visible[:, None, :]  # [N, 1, N]
        self._seen = visible.float()  # [N, N]
        self.kv = kv

    @property
    def columns(self) -> int:
        """N."""
        return self.kv.shape[3]

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Fills the buffer."""
        self.kv[0, layer] = keys
        self.kv[1, layer] = values

    def scores(self, layer: int, queries: Tensor) -> Tensor:
        """All rows against all rows, what a row may not see set to -inf."""
        scores = _product(queries, self.kv[0, layer].transpose(1, 2))
        return scores.masked_fill_(self._hidden, float("-inf"))

    def mix(self, layer: int, weights: Tensor) -> Tensor:
        """One product of all rows."""
        values = self.kv[1, layer]  # [kv_heads, N, head_dim]
        mixed = _product(weights, values.nan_to_num(0.0, 0.0, 0.0))  # a weight of 0 times nan were nan
        broken = ~values.isfinite().all(dim=-1).all(dim=0)  # [N]
        return mixed.masked_fill_((self._seen @ broken.float() > 0)[:, None, None], float("nan"))


class SuffixBlock:
    """Own block of decoding: each row sees the tokens sampled so far of the samples it stands for.

    Args:
        like: a tensor with the dtype and device wanted.
        layers, rows, kv_heads, tokens, head_dim: sizes of the buffers: most rows, and the longest suffix in tokens.
    """

    def __init__(self, like: Tensor, layers: int, rows: int, kv_heads: int, tokens: int, head_dim: int) -> None:
        self._kv = like.new_empty(2, layers, rows, kv_heads, tokens, head_dim)
        self._rows = 0
        self.columns = 0

    def begin_step(self, rows: int) -> None:
        """Opens the column of the token about to be computed, for so many rows."""
        self._rows = rows
        self.columns += 1

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Writes the newest column."""
        self._kv[0, layer, : self._rows, :, self.columns - 1] = keys.transpose(0, 1)
        self._kv[1, layer, : self._rows, :, self.columns - 1] = values.transpose(0, 1)

    def scores(self, layer: int, queries: Tensor) -> Tensor:
        """Each row against its own suffix; all suffixes are equally long, so nothing is masked."""
        keys = self._kv[0, layer, : self._rows, :, : self.columns]  # [R, kv_heads, columns, head_dim]
        return torch.matmul(queries.transpose(0, 1), keys.transpose(2, 3)).transpose(0, 1)

    def mix(self, layer: int, weights: Tensor) -> Tensor:
        """Each row from its own suffix."""
        values = self._kv[1, layer, : self._rows, :, : self.columns]  # [R, kv_heads, columns, head_dim]
        return torch.matmul(weights.transpose(0, 1), values).transpose(0, 1)

    def suffix(self, row: int, start: int) -> Tensor:
        """Returns a copy of a row's keys and values from column `start` on, [2, layers, kv_heads, T, head_dim]."""
        return self._kv[:, :, row, :, start : self.columns].clone()

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with copies of some rows, given in ascending order; a row may be wanted more than once."""
        if len(set(rows)) < len(rows):
            self._kv[:, :, : len(rows), :, : self.columns] = self._kv[:, :, list(rows), :, : self.columns]
            return
        for new, old in enumerate(rows):  # in place: no row moves down
            if new != old:
                self._kv[:, :, new, :, : self.columns] = self._kv[:, :, old, :, : self.columns]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What the rows of one pass attend to: cached spans, then one another."""

    spans: list[Span]
    own: OwnBlock

    def attend(self, layer: int, queries: Tensor) -> Tensor:
        """Attention of one layer.

        Args:
            layer: index of the layer.
            queries: scaled queries, [kv_heads, N, group, head_dim].

        Returns:
            [kv_heads, N, group, head_dim], float32.
        """
        own_from = max((span.stop for span in self.spans), default=0)
        shape = (*queries.shape[:3], own_from + self.own.columns)
        scores = torch.empty(shape, dtype=torch.float32, device=queries.device)
        if sum((s.last - s.first) * (s.stop - s.start) for s in self.spans) < shape[1] * own_from:
            scores.fill_(float("-inf"))  # prefixes of unequal length leave gaps between the rectangles
        for s in self.spans:
            scores[:, s.first : s.last, :, s.start : s.stop] = _product(
                queries[:, s.first : s.last], s.kv[0, layer].transpose(1, 2)
            )
        scores[..., own_from:] = self.own.scores(layer, queries)
        weights = scores.softmax(dim=-1).to(queries.dtype)  # [kv_heads, N, group, columns]
        mixed = self.own.mix(layer, weights[..., own_from:]).float()
        for s in self.spans:
            mixed[:, s.first : s.last] += _product(weights[:, s.first : s.last, :, s.start : s.stop], s.kv[1, layer])
        return mixed


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    *,
    plan: AttentionPlan,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function registered with transformers under `IMPLEMENTATION`.

    Args:
        module: the attention layer; `layer_idx` names it.
        query: [1, heads, N, head_dim].
        key, value: of the new tokens alone, [1, kv_heads, N, head_dim].
        attention_mask: unused; the plan says who sees whom.
        scaling: factor of the scores.
        plan: handed through the model's forward.
        sliding_window: of a model that forgets distant tokens; refused once a sequence could be longer.

    Returns:
        [1, N, heads, head_dim], and None for the weights.

    Raises:
        ModelError: the model needs something that this attention lacks.
    """
    for name in UNSUPPORTED:
        if others.get(name) is not None:
            raise ModelError(f"the model's attention needs {name}, which shared-prefix attention lacks")
    columns = max((span.stop for span in plan.spans), default=0) + plan.own.columns
    if sliding_window is not None and columns > sliding_window:
        raise ModelError(f"a sequence of {columns} tokens exceeds the model's sliding window of {sliding_window}")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    plan.own.store(layer, key[0], value[0])
    grouped = (query[0] * scaling).view(key.shape[1], -1, *query.shape[2:])  # [kv_heads, group, N, head_dim]
    mixed = plan.attend(layer, grouped.transpose(1, 2).contiguous())  # [kv_heads, N, group, head_dim]
    return mixed.to(query.dtype).permute(1, 0, 2, 3).flatten(1, 2)[None], None


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """[kv_heads, R, group, X] times [kv_heads, X, Y]: one product per key head for all rows and query heads."""
    product = torch.matmul(rows.flatten(1, 2), matrix)
    return product.view(*rows.shape[:3], matrix.shape[-1])


def states_of(kv: Tensor, hidden: Tensor, rows: Sequence[int]) -> States:
    """Copies the states of some rows of a pass: kv [2, layers, kv_heads, N, head_dim], hidden [N, hidden_size]."""
    index = torch.tensor(rows, dtype=torch.long, device=hidden.device)
    return States(kv.index_select(3, index), hidden.index_select(0, index))
