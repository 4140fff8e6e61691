"""A second search, written from search.md alone, against which the engine is held.

Slow and plain on purpose: one rollout and one model call at a time, plain recursion, and all children of all slots of a
place are made as soon as it is reached. It shares with the engine only how a turn is written and judged (`TurnMaker`,
`evaluated`, the rewards of RAP) and how the peer completes a prefix (`verify`); whatever chooses, merges, counts, adds
or decides is its own.
"""

import math
from dataclasses import dataclass, field

from clinical_data.vocabulary import normalise
from search.actions import ActionKind
from search.models.language_model import GenerateRequest
from search.peer import verify
from search.seeds import derive_random
from search.trajectory import Trajectory
from search.turns import TurnMaker
from search.value import rap
from search.world_model import evaluated

ORDER = ("think", "finish", "ask", "reask", "rephrase", "request")
ALWAYS = {"think", "finish", "ask", "request"}
AFTER = {"rephrase": ALWAYS, "ask": ALWAYS | {"reask"}, "reask": ALWAYS, "think": {"think", "finish", "request"}}


@dataclass
class Place:
    path: str = ""
    turns: tuple = ()
    conclusion: object = None
    slots: dict = field(default_factory=dict)  # kind -> places
    taken: list = field(default_factory=list)  # kinds, in the order in which rollouts took them
    rounds: dict = field(default_factory=dict)  # kind -> rounds of calls that its children took
    visits: int = 0
    worth: float = 0.0


@dataclass
class Reference:
    """`places`: path -> place reached. `born`: paths, oldest first, of all that a rollout could have gone to.

    `ended`: path -> times it was concluded. `asked`: every call made.
    """

    maker: TurnMaker
    models: object
    places: dict = field(default_factory=dict)
    born: list = field(default_factory=list)
    ended: dict = field(default_factory=dict)
    asked: set = field(default_factory=set)
    rounds: int = 0

    def answer(self, part):
        """Runs a part of the engine, one call at a time."""
        replies = None
        while True:
            try:
                asks = part.send(replies)
            except StopIteration as stop:
                return stop.value
            self.rounds += 1
            replies = [self.ask(ask) for ask in asks]

    def ask(self, ask):
        model = self.models.peer if ask.role == "peer" else self.models.generator
        text = "".join(s.text for s in ask.request.prompt)
        self.asked.add((ask.role, ask.purpose, text, getattr(ask.request, "seed", None)))
        return (model.generate if isinstance(ask.request, GenerateRequest) else model.score)([ask.request])[0]

    def legal(self, turns):
        kinds = [t.action.kind.value for t in turns]
        if kinds[-1:] == ["finish"]:
            return []
        asked = {t.action.item_id for t in turns} | {i.item_id for i in self.maker.problem.opening}
        if sum(k != "request" for k in kinds) + 1 >= self.maker.settings.depth:
            return ["finish"]
        allowed = after(kinds)
        if kinds.count("request") >= self.maker.settings.max_requests or not any(
            i.item_id not in asked for i in self.maker.problem.items
        ):
            allowed = allowed - {"request"}
        allowed = {k for k in allowed if k in self.maker.settings.actions.split(", ")}
        if "request" in allowed and kinds.count("request") < self.maker.settings.min_requests:
            allowed.discard("finish")
        return [k for k in ORDER if k in allowed]

    def reach(self, place):
        """Makes every child of every slot; of equal siblings the first stays."""
        self.places[place.path] = place
        for kind in self.legal(place.turns):
            before, spot = self.rounds, self.maker.spot(place.turns, f"{place.path}/{kind}")
            distinct = {}
            for turn, conclusion in self.answer(self.maker.make(ActionKind(kind), spot)):
                merged = self.maker.settings.merge == "equal"
                key = (turn.action.item_id or normalise(turn.text)) if merged else len(distinct)
                distinct.setdefault(key, (turn, conclusion))
            turns = self.answer(evaluated(self.maker, spot, [turn for turn, _ in distinct.values()]))
            conclusions = [conclusion for _, conclusion in distinct.values()]
            place.rounds[kind] = self.rounds - before
            place.slots[kind] = [
                Place(f"{place.path}/{kind}{i}", (*place.turns, turn), conclusion)
                for i, (turn, conclusion) in enumerate(zip(turns, conclusions, strict=True))
            ]

    def rollout(self, place):
        """Goes on from a place to a conclusion, adds its value on the way back, and returns it."""
        if place.path not in self.places:
            self.reach(place)
        if place.conclusion:
            value = value_of(place, self.maker.settings)
            self.ended[place.path] = self.ended.get(place.path, 0) + 1
        else:
            value = self.rollout(self.choose(place))
        place.visits += 1
        place.worth += value
        return value

    def choose(self, place):
        dice = derive_random(self.maker.seed, "select", place.path, place.visits + 1)
        left = [kind for kind in place.slots if kind not in place.taken]
        if left and self.maker.settings.expansion == "slot":
            self.take(place, kind := dice.choice(left))
            return dice.choice(place.slots[kind])
        if left:  # all slots at once: those that take fewer rounds of calls are there earlier
            dice.choice(left)
            self.take(place, *sorted(left, key=place.rounds.get))
        fresh = [child for kind in place.slots for child in place.slots[kind] if not child.visits]
        if fresh and self.maker.settings.expansion == "node":
            return dice.choice(fresh)
        children = [child for kind in place.taken for child in place.slots[kind]]
        return max(children, key=lambda child: uct(child, place, self.maker.settings.exploration))

    def take(self, place, *kinds):
        place.taken += kinds
        self.born += [child.path for kind in kinds for child in place.slots[kind]]


def after(kinds):
    """Returns the kinds that the table of search.md lets follow."""
    if not kinds:
        return ALWAYS | {"rephrase"}
    return after(kinds[:-1]) - {"reask", "rephrase"} if kinds[-1] == "request" else AFTER[kinds[-1]]


def uct(child, parent, exploration):
    if not child.visits:
        return math.inf
    return child.worth / child.visits + exploration * math.sqrt(math.log(parent.visits) / child.visits)


def value_of(place, settings):
    """Returns the share of the vote for the answer, minus the cost; by RAP's rewards where the settings say so."""
    conclusion = place.conclusion
    if settings.value == "rap":
        return rap(Trajectory(place.turns, conclusion), settings)
    if conclusion.answer_key is None:
        return 0.0
    shares = {h.key: h.probability for h in conclusion.ranked}
    items = conclusion.chosen or (conclusion.answer_key,)
    share = sum(shares[item] for item in items) / len(items)
    cost = sum(t.answer.cost_usd for t in place.turns if t.answer)
    return min(1.0, max(0.0, share - settings.cost_weight * cost))


@dataclass
class Outcome:
    status: str
    answer: str | None = None
    winner: str | None = None
    agreement: float | None = None
    margin: float | None = None


def decide(search, abstain_below):
    """Returns the outcome by search.md, "Final selection"; where no trajectory has a value, the classes are equal."""
    rows = []
    for path in (path for path in search.born if path in search.ended):
        place = search.places[path]
        check = search.answer(verify(Trajectory(place.turns, place.conclusion), path, search.maker))
        mass = search.ended[path] * value_of(place, search.maker.settings)
        rows.append((place.conclusion.answer_key, mass, check.agreement, path))
    total = sum(mass for _, mass, _, _ in rows)
    answered = [row for row in rows if row[0] is not None]
    survivors = [row for row in answered if row[2] is not None and row[2] >= 0.5]
    if not answered:
        return Outcome("abstain")
    classes = {}
    for key, mass, agreement, path in survivors or answered:
        classes.setdefault(key, []).append((mass * agreement if survivors else mass, agreement, path))
    scores = {k: sum(row[0] for row in rows) / total if total else 1.0 / len(classes) for k, rows in classes.items()}
    first, *others = sorted(scores, key=lambda k: (-scores[k], -len(classes[k]), k))
    margin = scores[first] - (scores[others[0]] if others else 0.0)
    _, agreement, winner = max(classes[first], key=lambda row: row[0])
    status = "abstain" if margin < abstain_below else "verified" if survivors else "unverified"
    return Outcome(status, first, winner, agreement, margin)


def reference_search(problem, models, settings, seed, rollouts=None):
    """Returns the searched tree and the outcome after all rollouts, or after the first so many."""
    search = Reference(TurnMaker.begin(problem, settings, seed), models)
    search.answer(search.maker.prepare(("generator",) if models.peer is models.generator else ("generator", "peer")))
    root = Place()
    for _ in range(settings.rollouts if rollouts is None else rollouts):
        search.rollout(root)
    return search, decide(search, settings.abstain_below)
