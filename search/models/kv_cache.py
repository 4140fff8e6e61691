"""Keys and values of every prompt seen, kept once per distinct token in a radix trie.

A node owns the run of tokens on its edge and what a forward pass left behind for them. Prompts that extend one another
share nodes, so that only tokens never seen after that prefix need computing. Memory is bounded by forgetting the
leaves used longest ago.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class States:
    """What a forward pass leaves behind for a run of T tokens.

    Attributes:
        kv: keys and values of every layer, [2, layers, kv_heads, T, head_dim].
        hidden: output of the last layer after its norm, [T, hidden_size]; the head makes the next token's
            logits of it.
    """

    kv: Tensor
    hidden: Tensor

    @property
    def length(self) -> int:
        """T, the number of tokens."""
        return self.hidden.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of memory held, whatever part of it is in view."""
        return self.kv.untyped_storage().nbytes() + self.hidden.untyped_storage().nbytes()

    def cut(self, start: int, stop: int) -> States:
        """Returns a copy of tokens [start, stop), which keeps no other memory alive."""
        return States(self.kv[:, :, :, start:stop].clone(), self.hidden[start:stop].clone())


@dataclass(eq=False, slots=True)
class Node:
    """A run of tokens in the trie.

    Attributes:
        ids: the tokens; empty only at the root.
        start: position of the first one in its sequence.
        states: what was computed for them; None only at the root.
        parent: the run before it.
        children: the runs that may follow, by first token.
        used: tick of the last use; never below that of a child.
    """

    ids: Ids
    start: int
    states: States | None
    parent: Node | None
    used: int
    children: dict[int, Node] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        """Position after the last token."""
        return self.start + len(self.ids)


class PrefixCache:
    """A radix trie of token ids with their states.

    Args:
        limit: most tokens kept. Those used since the last `tick` are never forgotten, even above the limit.

    Attributes:
        tokens: tokens kept now.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._now = 0
        self._root = Node((), 0, None, None, 0)
        self.tokens = 0

    def tick(self) -> None:
        """Starts a new period of use: what was used before may be forgotten from now on."""
        self._now += 1

    def match(self, ids: Ids) -> int:
        """Returns how many leading tokens of `ids` are kept."""
        node, inside = self._walk(ids)
        return node.start + inside

    def path(self, ids: Ids) -> list[Node]:
        """Returns the nodes that together hold exactly `ids`, in order, and marks them as used.

        Raises:
            KeyError: some of the tokens are not kept.
        """
        node, inside = self._walk(ids)
        if node.start + inside != len(ids):
            raise KeyError(f"only {node.start + inside} of {len(ids)} tokens are kept")
        self._split(node, inside)
        path = []
        current: Node | None = node
        while current is not None and current is not self._root:
            current.used = self._now
            path.append(current)
            current = current.parent
        return path[::-1]

    def paths(self, prefixes: Iterable[Ids]) -> dict[Ids, list[Node]]:
        """Returns the path of each prefix.

        In sorted order no path splits a node of an earlier one: whatever ends inside a sequence sorts before it.
        """
        return {ids: self.path(ids) for ids in sorted(set(prefixes))}

    def last_hidden(self, ids: Ids) -> Tensor:
        """Returns the hidden state [hidden_size] of the last token of a kept sequence, and marks it as used.

        Raises:
            KeyError: some of the tokens are not kept.
        """
        node, inside = self._walk(ids)
        if node.start + inside != len(ids) or node.states is None:
            raise KeyError(f"only {node.start + inside} of {len(ids)} tokens are kept")
        last: Tensor = node.states.hidden[inside - 1]
        above: Node | None = node
        while above is not None:
            above.used = self._now
            above = above.parent
        return last

    def append(self, ids: Ids, states: States) -> None:
        """Adds the states of the last `states.length` tokens of `ids`; exactly the tokens before them must be kept."""
        node, inside = self._walk(ids)
        if node.start + inside != len(ids) - states.length:
            raise KeyError(f"{node.start + inside} tokens are kept, expected {len(ids) - states.length}")
        if not states.length:
            return
        self._split(node, inside)
        new = ids[len(ids) - states.length :]
        node.children[new[0]] = Node(new, node.stop, states, node, self._now)
        self.tokens += len(new)

    def trim(self, room: int = 0) -> None:
        """Forgets the leaves used longest ago until `room` more tokens would stay within the limit."""
        most = self.limit - room
        if self.tokens <= most:
            return
        order = itertools.count()  # breaks ties: nodes themselves do not compare
        leaves = [(node.used, next(order), node) for node in self._nodes() if not node.children]
        heapq.heapify(leaves)
        while self.tokens > most and leaves:
            used, _, leaf = heapq.heappop(leaves)
            if used >= self._now or leaf.parent is None:
                break
            parent = leaf.parent
            del parent.children[leaf.ids[0]]
            self.tokens -= len(leaf.ids)
            if not parent.children and parent is not self._root:
                heapq.heappush(leaves, (parent.used, next(order), parent))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the states take."""
        return sum(node.states.nbytes for node in self._nodes() if node.states is not None)

    def _walk(self, ids: Ids) -> tuple[Node, int]:
        """Follows `ids` as far as it goes; returns the last node and the number of its tokens that match."""
        node, position = self._root, 0
        while position < len(ids) and (child := node.children.get(ids[position])) is not None:
            wanted = ids[position : position + len(child.ids)]
            if wanted != child.ids:
                return child, shared_length(wanted, child.ids)
            node, position = child, position + len(wanted)
        return node, len(node.ids)

    def _split(self, node: Node, inside: int) -> None:
        """Makes `node` end after its first `inside` tokens; a new child takes the rest."""
        if inside == len(node.ids) or node.states is None:
            return
        rest = node.states.cut(inside, len(node.ids))
        lower = Node(node.ids[inside:], node.start + inside, rest, node, node.used, node.children)
        for child in lower.children.values():
            child.parent = lower
        node.states = node.states.cut(0, inside)
        node.ids, node.children = node.ids[:inside], {lower.ids[0]: lower}

    def _nodes(self) -> Iterator[Node]:
        stack = list(self._root.children.values())
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            yield node


def shared_length(a: Ids, b: Ids) -> int:
    """Returns the length of the longest common prefix."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def joined(nodes: list[Node]) -> Tensor:
    """Returns the keys and values of consecutive nodes as one tensor, [2, layers, kv_heads, T, head_dim]."""
    parts = [node.states.kv for node in nodes if node.states is not None]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=3)
