"""Random searches, and a model that speaks from short tables: equal siblings, ties and broken numbers abound."""

import math
import random
from dataclasses import replace

from conftest import CATALOGUE, VOCABULARY, make_problem

from search.models.language_model import ChoiceScores, Generation, ModelIdentity, Work, prompt_text
from search.models.toys import RandomModel, prompt_ids, word_ids
from search.problem import Models
from search.seeds import derive_seed
from search.selection import FINAL_RULES
from search.settings import SearchSettings
from search.strategies import STRATEGIES

ONE_PATH = ("self-consistency", "best-of-n", "part-information")  # strategies that refuse a prospective chart

# What a turn may say: equal words, equal but for case and marks, nothing, an answer's own name, and very long words.
EQUAL = (" Pain since noon.", " pain, since NOON", " pain since noon")
NOTHING = ("", " ", " ...")
NAMING = (" this could be sepsis", " heart failure?", " lung infection", " no idea")
LONG = (" raised " * 400, "\n" * 50, " \u0000\ud7ff\U0001f9ec", " é" * 200)
TEXTS = EQUAL + NOTHING + NAMING

# Mean ln p of the answers; a row is read round and round when there are more choices than numbers.
PLAIN = ((-0.1, -3.0), (-3.0, -0.1), (-1.0, -2.0, -0.5))
TIED = ((-1.0,), (-0.5, -0.5, -4.0), (0.0,))
BROKEN = ((math.nan,), (-math.inf,), (-1.0, math.nan), (-1.0, -math.inf), (math.inf, -1.0), (-1e308, -1.0))


class TableModel:
    """Picks a text by prompt and seed, and a row of likelihoods by prompt alone. `batches` notes how it was asked."""

    def __init__(self, seed, texts=TEXTS, rows=PLAIN + TIED):
        self.seed, self.texts, self.rows = seed, texts, rows
        self.identity = ModelIdentity(f"table:{seed}", "table", "1")
        self.work = Work()
        self.batches = []

    def generate(self, requests):
        self.batches.append(len(requests))
        return [self._draw(r) for r in requests]

    def _draw(self, request):
        before = prompt_ids(request.prompt)
        text = self.texts[derive_seed(self.seed, request.seed, prompt_text(request.prompt)) % len(self.texts)]
        ids = word_ids(text)
        chosen = ()
        if request.constraint is not None:
            noise = random.Random(derive_seed(self.seed, request.seed, prompt_text(request.prompt)))
            count = min(request.constraint.most, len(request.constraint.choices))
            chosen = tuple(noise.sample(range(len(request.constraint.choices)), noise.randint(1, count)))
            text = request.constraint.separator.join(request.constraint.choices[i] for i in chosen)
            ids = word_ids(text)
        return Generation(text, before, ids, -2.0 * len(ids), "stop", chosen)

    def score(self, requests):
        self.batches.append(len(requests))
        return [self._score(r) for r in requests]

    def _score(self, request):
        row = self.rows[derive_seed(self.seed, prompt_text(request.prompt)) % len(self.rows)]
        ids = tuple(word_ids(c) for c in request.choices)
        sums = tuple(row[i % len(row)] * max(len(c), 1) for i, c in enumerate(ids))
        return ChoiceScores(prompt_ids(request.prompt), ids, sums)

    def release(self):
        self.batches.clear()


class OneByOne:
    """The same model, asked for one thing at a time and in reverse: the smallest batches, in another order."""

    def __init__(self, model):
        self.model = model
        self.identity = model.identity
        self.work = model.work
        self.release = model.release

    def generate(self, requests):
        return [self.model.generate([r])[0] for r in reversed(requests)][::-1]

    def score(self, requests):
        return [self.model.score([r])[0] for r in reversed(requests)][::-1]


ALL = SearchSettings().actions


def random_search(number):
    """Returns problem, models, settings and seed of one random search: the same for the same number, anywhere.

    Half of them ask the random model, half a table; a tenth of those answers in numbers that are no numbers.
    """
    dice = random.Random(number)
    options = SearchSettings(
        actions=dice.choice((ALL, ALL, ALL, "finish, request", "think, finish, request", "finish, ask, reask")),
        rollouts=dice.choice((1, 2, 3, 5, 8, 12, 18)),
        depth=dice.randint(1, 5),
        max_requests=dice.randint(0, 3),
        min_requests=dice.choice((0, 0, 1, 2)),
        think=dice.randint(1, 3),
        ask=dice.randint(1, 3),
        ask_votes=dice.randint(1, 3),
        request=dice.randint(1, 3),
        exploration=dice.choice((0.0, 0.1, 1.4, 5.0)),
        cost_weight=dice.choice((0.0, 0.0, 0.01, 1.0)),
        abstain_below=dice.choice((0.0, 0.02, 0.3)),
        peer_cuts=dice.choice((0, 1, 2, 4)),
        temperature=dice.choice((0.0, 0.8, 1.3)),
        calibration=dice.choice(("contextual", "none")),
        stop=dice.choice(("settled", "never")),
        merge=dice.choice(("equal", "equal", "never")),
        expansion=dice.choice(("slot", "slot", "slot", "node")),
        vote=dice.choice(("exact", "exact", "drawn", "free")),
        votes=dice.randint(1, 9),
        vote_stop=dice.choice(("settled", "never")),
        value=dice.choice(("self_consistency", "self_consistency", "rap")),
    )
    items = CATALOGUE.items[: dice.randint(0, len(CATALOGUE.items))]
    vocabulary = replace(VOCABULARY, entries=VOCABULARY.entries[: dice.randint(1, len(VOCABULARY.entries))])
    form = {"form": "set", "most": dice.randint(1, 3)} if dice.random() < 0.2 else {}
    problem = make_problem(clock=dice.choice((0, 35, 360, 4000)), items=items, vocabulary=vocabulary, **form)
    return problem, random_models(dice), options, dice.getrandbits(32)


def random_models(dice):
    def one():
        if dice.random() < 0.5:
            return RandomModel(dice.getrandbits(16))
        rows = PLAIN + TIED + (BROKEN if dice.random() < 0.2 else ())
        return TableModel(dice.getrandbits(16), dice.choice((TEXTS, EQUAL, NOTHING, NAMING)), rows)

    generator = one()
    return Models(generator, generator if dice.random() < 0.5 else one())


def searches(first, count, *strategies):
    """Yields random searches with waves of any size, either chart access and any final rule."""
    for number in range(first, first + count):
        problem, models, settings, seed = random_search(number)
        dice = random.Random(-number)
        for strategy in strategies or STRATEGIES:
            access = "hindsight" if strategy in ONE_PATH else dice.choice(("hindsight", "prospective"))
            options = replace(
                settings,
                wave=dice.choice((1, 2, 5, 30)),
                chart_access=access,
                selection=dice.choice(sorted(FINAL_RULES)),
                imagine=dice.randint(1, 3),
            )
            yield strategy, problem, models, options, seed
