"""Speed of the search itself: rollouts per second on a tree of depth 5, with models that cost next to nothing.

`engine_tree_rollouts_per_second` is the tree alone: select, expand, merge, simulate, back up, early end and final
choice, with turns and conclusions taken from a table; no prompt is made and no model asked. It compares with the tree
bookkeeping of the reference (search.md, "Speed"). The other two are whole searches: prompts, requests to the chart,
votes over the whole vocabulary, peer checks, audit trail and token counts as well, about 15 calls to a model per
rollout. Every search has a chart of its own, so that nothing is remembered from an earlier one. In one the model looks
its answers up in tables, so that the time is the engine's; the other has `random:1`, as users run it for load tests,
whose own random numbers and word counts are in the figure.
"""

import random
import time
import zlib
from dataclasses import replace
from functools import lru_cache
from itertools import chain

from benchmarks.tokens import bundled_problems
from search.actions import Action, ActionKind
from search.budgets import Budget
from search.desk import Desk
from search.mcts import Search, conclude, grow
from search.models.language_model import ChoiceScores, Generation, ModelIdentity, Work
from search.models.toys import WORDS, RandomModel
from search.problem import Models
from search.settings import SearchSettings
from search.strategies import run_search
from search.trajectory import Conclusion, Hypothesis, Turn
from search.turns import Spot, TurnMaker

SEARCHES = 30
ROLLOUTS = 32


class TableModel:
    """A language model that answers from tables: a sentence per seed, likelihoods per prompt, one token per word.

    Answers depend on prompt and seed alone. Likelihoods share one part over all prompts, so that paths agree more often
    than chance, as those of one case do.
    """

    def __init__(self, sentences=1009, rows=61, longest=512):
        noise = random.Random(0)
        self._identity = ModelIdentity("table", "table", "1", backend="words")
        self._work = Work()
        self._ids = {}  # text -> one id per word
        self._choice_ids = {}
        self._last = (), ()  # a prompt and its ids
        texts = ("".join(f" {noise.choice(WORDS)}" for _ in range(noise.randint(3, 12))) for _ in range(sentences))
        self._sentences = [(text, self._ids_of(text)) for text in texts]
        shared = [-4.0 * noise.random() for _ in range(longest)]
        self._rows = [tuple(s - 2.0 * noise.random() for s in shared) for _ in range(rows)]

    @property
    def identity(self):
        """Which model this is."""
        return self._identity

    @property
    def work(self):
        """Counters that stay at zero: nothing is computed."""
        return self._work

    def release(self):
        """Keeps nothing of a case."""

    def _ids_of(self, text):
        if text not in self._ids:
            self._ids[text] = tuple(zlib.crc32(word.encode()) for word in text.split())
        return self._ids[text]

    def _prompt_ids(self, prompt):
        if prompt != self._last[0]:  # samples of one prompt come in a row
            self._last = prompt, tuple(chain.from_iterable([s.token_ids or self._ids_of(s.text) for s in prompt]))
        return self._last[1]

    def generate(self, requests):
        """Returns a sentence of the table for each request."""
        made = []
        for request in requests:
            text, ids = self._sentences[request.seed % len(self._sentences)]
            made.append(Generation(text, self._prompt_ids(request.prompt), ids, -2.0 * len(ids), "stop"))
        return made

    def score(self, requests):
        """Returns a row of the table of likelihoods for each request."""
        made = []
        for request in requests:
            choices, prompt_ids = request.choices, self._prompt_ids(request.prompt)
            if choices not in self._choice_ids:
                self._choice_ids[choices] = tuple([self._ids_of(c) for c in choices])
            row = self._rows[hash(prompt_ids) % len(self._rows)]
            made.append(ChoiceScores(prompt_ids, self._choice_ids[choices], row[: len(choices)]))
        return made


SENTENCES = [f"sentence number {i}" for i in range(1009)]


@lru_cache(maxsize=1024)
def _concluded(code, share):
    return Conclusion((Hypothesis(code, code, code=code, probability=share),), code)


class TableMaker(TurnMaker):
    """Makes turns from tables, as many as the settings say, and asks nobody."""

    __slots__ = ()

    def spot(self, turns, label):
        """Returns a spot without a prompt."""
        return Spot(turns, (), label)

    def make(self, kind, spot):
        """Returns the children of a slot: turns with words of their own, or a conclusion among eight."""
        yield from ()
        draw = zlib.crc32(spot.label.encode()) ^ self.seed
        if kind is ActionKind.FINISH:
            entries = self.problem.vocabulary.entries
            share = 0.2 + draw % 61 / 100
            return [(Turn(Action(kind), "answer"), _concluded(entries[draw % 8].code, share))]
        if kind is ActionKind.REQUEST:
            left = self.items_left(spot.turns)
            chosen = [left[(draw + i) % len(left)] for i in range(min(self.settings.request, len(left)))]
            return [(Turn(Action(kind, item.item_id), item.display), None) for item in chosen]
        count = {ActionKind.THINK: self.settings.think, ActionKind.ASK: self.settings.ask}.get(kind, 1)
        return [(Turn(Action(kind), SENTENCES[(draw + i) % len(SENTENCES)]), None) for i in range(count)]


def tree_rollouts_per_second(searches=SEARCHES):
    """Grows trees from tables and chooses their answers."""
    (problem,) = bundled_problems(("ward-0001",))
    model, settings = TableModel(), SearchSettings(rollouts=ROLLOUTS)
    done = 0
    for seed in range(searches + 1):
        if seed == 1:  # the first one warms up
            began, done = time.perf_counter(), 0
        search = Search(TableMaker.begin(problem, settings, seed), Desk(Models(model, model)), peer=False)
        grow(search, Budget(settings))
        done += conclude(search).rollouts
    return done / (time.perf_counter() - began)


def rollouts_per_second(model, searches=SEARCHES):
    """Searches one bundled case under several seeds, each time with a chart that nobody has asked yet."""
    (problem,) = bundled_problems(("ward-0001",))
    models, settings = Models(model, model), SearchSettings(rollouts=ROLLOUTS)
    fresh = [replace(problem, chart=replace(problem.chart)) for _ in range(searches + 1)]
    run_search("rstar", fresh.pop(), models, settings, 0)  # warm up
    began = time.perf_counter()
    rollouts = sum(run_search("rstar", one, models, settings, seed).rollouts for seed, one in enumerate(fresh))
    return rollouts / (time.perf_counter() - began)


def measure():
    """Returns rollouts per second of the tree alone, of the engine with tables for a model, and with `random:1`."""
    return {
        "engine_tree_rollouts_per_second": round(tree_rollouts_per_second()),
        "engine_rollouts_per_second": round(rollouts_per_second(TableModel())),
        "engine_rollouts_per_second_random_model": round(rollouts_per_second(RandomModel(1))),
    }
