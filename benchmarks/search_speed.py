"""A whole search, ours against the reference's scheme: same weights, dtype, threads, rollouts, votes and new tokens.

    reference            every slot of a visited node is expanded at once; each sibling group is a `generate` call of
                         its own; FINISH draws 16 answers; nothing is shared between sequences or calls
    ours                 a slot is expanded when it is taken; every distinct token is computed once

The arms between them change one thing each. All arms take the same two rollouts through the tree (`ways`, drawn
beforehand by the reference's rule: uniformly among the children not visited yet), with the five actions of rStar, so
they visit equal nodes; a sample has exactly 24 tokens. The peer is left out on both sides.

`python -m benchmarks.search_speed` runs every arm, `python -m benchmarks.search_speed ARM ...` some.
"""

import json
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.prefill import load, make_prompt
from benchmarks.reference_scheme import CachedGroups, ContinuousBatching, FixedLength, StockModel
from benchmarks.tokens import bundled_problems
from search.actions import ActionKind, legal_kinds
from search.budgets import Budget
from search.desk import Desk, together
from search.mcts import Search, conclude, grow
from search.problem import Models
from search.settings import SearchSettings
from search.turns import TurnMaker

import torch  # isort: skip

RESULTS = Path(__file__).parent / "search_results.json"
PROMPT_TOKENS = 400
THREADS = 2
DTYPE = "fp32"
SEED = 0
SETTINGS = SearchSettings(
    rollouts=2, votes=16, turn_tokens=24, max_requests=0, vote="free", vote_stop="never", merge="never", stop="never",
    calibration="none",
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One way to search: how samples are made, and what of SETTINGS it changes."""

    model: str  # stock, cached, continuous or ours
    expansion: str = "node"
    vote: str = "free"
    wave: int = 1


ARMS = {
    "reference": Arm("stock"),
    "reference_lazy": Arm("stock", "slot"),
    "reference_prompt_cache": Arm("cached"),
    "reference_continuous_batching": Arm("continuous"),
    "continuous_batching_lazy": Arm("continuous", "slot"),
    "eager_shared": Arm("ours"),
    "ours": Arm("ours", "slot"),
    "ours_wave_of_2": Arm("ours", "slot", wave=2),
    "ours_exact_vote": Arm("ours", "slot", "exact"),
}
OURS = ("ours_wave_of_2", "ours")  # both do the same work: same paths, rollouts, votes and samples


def ways(settings, seed):
    """Returns for each rollout the kinds and child numbers that lead to a conclusion."""
    noise = random.Random(seed)
    counts = {ActionKind.THINK: settings.think, ActionKind.ASK: settings.ask}
    visited, found = set(), []
    for _ in range(settings.rollouts):
        path = ()
        while not path or path[-1][0] is not ActionKind.FINISH:
            kinds = [kind for kind, _ in path]
            legal = [k for k in legal_kinds(kinds) if k is not ActionKind.REQUEST]
            if ActionKind.REPHRASE in kinds:
                legal = [k for k in legal if k is not ActionKind.REPHRASE]
            if len(path) + 1 >= settings.depth:
                legal = [ActionKind.FINISH]
            children = [(*path, (k, i)) for k in legal for i in range(counts.get(k, 1))]
            path = noise.choice([c for c in children if c not in visited] or children)
            visited.add(path)
        found.append(path)
    return found


class GuidedSearch(Search):
    """A search whose rollouts go given ways; expansion, values and backing up are those of `Search`."""

    __slots__ = ("ways",)

    def rollout(self):
        """Goes the next way, and expands at each node what the settings say."""
        kinds = self.ways.pop(0)
        node = self.tree.root
        node.virtual += 1
        for kind, child in kinds:
            slot = next(s for s in node.slots if s.kind is kind)
            while slot.in_flight:  # by the other rollout of a wave
                yield []
            at_once = node.slots if self.maker.settings.expansion == "node" else [slot]
            yield from together([self.expand(node, s) for s in at_once if s.children is None and not s.in_flight])
            node = self.tree.nodes[slot.children[child]]
            node.virtual += 1
        return (yield from self.valued(node))


class Bench:
    """Models, each loaded once, and the problem."""

    def __init__(self, dtype=DTYPE, threads=THREADS):
        torch.set_num_threads(threads)
        (self.problem,) = bundled_problems(("ward-0001",))
        self._ours = load(dtype, threads)
        self._dtype = self._ours.identity.dtype
        self._models = {"ours": FixedLength(self._ours)}

    def model(self, name):
        """Returns the model of an arm, loaded and warm."""
        kinds = {"stock": StockModel, "cached": CachedGroups, "continuous": ContinuousBatching}
        if name not in self._models:
            self._models[name] = kinds[name](self._dtype, self._ours.tokenizer)
        return self._models[name]

    def search(self, arm, opening, settings):
        """Runs one search with an arm's model and returns the tree's result."""
        model = self.model(arm.model)
        settings = settings.with_options(expansion=arm.expansion, vote=arm.vote, wave=arm.wave)
        search = GuidedSearch(TurnMaker(self.problem, settings, opening, SEED), Desk(Models(model, model)), peer=False)
        search.ways = ways(settings, SEED)
        grow(search, Budget(settings))
        return conclude(search)

    def run(self, arm, settings=SETTINGS):
        """Returns seconds, token positions computed, samples and nodes of one search by an arm."""
        model = self.model(arm.model)
        short = settings.with_options(votes=1, ask_votes=1, think=1, ask=1, turn_tokens=2, rollouts=1, depth=1)
        self.search(arm, make_prompt(self._ours, 16), short)  # warm up
        model.release()
        opening, computed = make_prompt(self._ours, PROMPT_TOKENS), model.work.computed
        began = time.perf_counter()
        result = self.search(arm, opening, settings)
        seconds = time.perf_counter() - began
        sampled = [len(ids) for c in result.calls if c.seed is not None for ids in c.completion_ids]
        if any(length != settings.turn_tokens for length in sampled):
            raise RuntimeError("a sample has not the number of tokens that was asked for")
        computed = model.work.computed - computed
        model.release()
        return {
            "seconds": seconds,
            "tokens_computed": computed,
            "samples": len(sampled),
            "nodes": len(result.tree["nodes"]),
        }


def measure(names=("reference", "ours"), settings=SETTINGS, note=lambda line: None):
    """Runs some arms in one process, one after the other, and compares each with the first.

    Returns:
        `speedup_over_unshared_prefill`, seconds of `reference` over those of the first of `OURS` that ran; of each arm
        seconds, token positions computed, samples, nodes, and seconds of the first arm over its own.
    """
    bench, done = Bench(), {}
    for name in names:
        try:
            done[name] = bench.run(ARMS[name], settings)
        except (RuntimeError, ValueError, TypeError, NotImplementedError, ImportError) as error:
            if name in ("reference", "ours"):
                raise
            note(f"{name}: did not run ({type(error).__name__}: {error})")
            continue
        note(f"{name}: {done[name]}")
    first = done[names[0]]
    figures = {}
    if "reference" in done and (best := next((name for name in OURS if name in done), None)):
        figures["speedup_over_unshared_prefill"] = round(done["reference"]["seconds"] / done[best]["seconds"], 1)
    for name, one in done.items():
        figures[f"search_{name}_seconds"] = round(one["seconds"], 2)
        figures[f"search_{name}_tokens_computed"] = one["tokens_computed"]
        figures[f"search_{name}_samples"] = one["samples"]
        figures[f"search_{name}_ratio"] = round(first["seconds"] / one["seconds"], 2)
    return figures


def main():
    """Runs the arms named on the command line, or all; prints the figures and writes them."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    names = tuple(sys.argv[1:]) or tuple(ARMS)
    if unknown := sorted(set(names) - set(ARMS)):
        sys.exit(f"no arm {unknown[0]}; known: {', '.join(ARMS)}")
    figures = json.dumps(measure(names, note=lambda line: print(line, file=sys.stderr, flush=True)), indent=2)
    RESULTS.write_text(figures + "\n", encoding="utf-8")
    print(figures)


if __name__ == "__main__":
    main()
