"""Self-evolution: a pair of models teaches the next pair by its own searches, as long as that makes it better.

    round 0    replay the tuning split with the starting pair, and score it: what later pairs are measured by
    round N    replay the train split with the pair kept so far
               -> a training set for the generator, of one half of the patients, and one for the peer, of the other
               -> tune both
               -> replay the tuning split with the new pair, and score it
               -> kept if it is better than the best so far; else the earlier pair goes on, under another seed

The peer is tuned on other patients than the generator, so that its agreement is that of another model. The tuning split
decides what is kept and nothing else: no row of it is learned from, no training is stopped by it. Held-out cases are
never touched.

Every stage can be killed. The run store decides what of a replay is done, sets appear whole or not at all, a training
goes on from its checkpoint, and a state file says which stages are done; the same command goes on.

Source: expert iteration by rejection sampling, STaR (Zelikman et al. 2022, arXiv 2203.14465), which likewise tunes the
starting model anew in each round; rounds of tree search, as rStar-Math (Guan et al. 2025, arXiv 2501.04519).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from sqlalchemy import Engine, make_url

from clinical_data.errors import ModelError, UsageError
from clinical_data.splits import TRAIN, TUNING
from clinical_data.store.case_reader import CaseReader
from evaluation.baselines import MAJORITY
from evaluation.compare import compare_runs
from evaluation.scoring import score_run
from evaluation.store import existing_database
from evaluation.supervision.fine_tune_settings import TuneSettings, TuneWatcher
from evaluation.supervision.shaping import SFT
from evaluation.supervision.training_sets import SetOptions, export_set
from search.desk import GENERATOR, PEER
from workflow.config import ReplayOptions, make_config
from workflow.evolve_output import write_evolution
from workflow.evolve_state import EvolveState
from workflow.runner import Listener, Summary, case_ids_of, replay
from workflow.training import training_functions

HALF_OF = {GENERATOR: 0, PEER: 1}
"""Model -> the half of the train patients that it is tuned on."""
NOT_TUNABLE = ("random", "scripted", "openai")
FIGURES = ("top_5", "verified", "peer_agreement")


@dataclass(frozen=True, slots=True)
class EvolveOptions:
    """Every option of `wardstar evolve`.

    Attributes:
        run: beginning of the names of all runs: `RUN-round1-train`, `RUN-round1-tuning`, ...
        out: folder of sets, models and figures.
        rounds: rounds to come to; a higher number goes on where a lower one ended.
        replay: of all replays. `generator` and `peer` are the starting pair; `cases` and `limit` are of the train
            part; `split` is not for the caller to choose; `seed` is that of round 1.
        tuning_cases, tuning_limit: which cases of the tuning split; None: all.
        tune: of all tunings; `method`, `base` and `seed` are set here.
        answers_only: teach answers alone, without the turns that lead there.
        from_kept: tune the pair kept so far further, instead of the starting models anew.
        peer_alone: replay the tuning split also with the models' places exchanged, to see what the peer is worth.
    """

    run: str
    out: Path
    rounds: int
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    tuning_cases: str | None = None
    tuning_limit: int | None = None
    tune: TuneSettings = field(default_factory=TuneSettings)
    answers_only: bool = False
    from_kept: bool = False
    peer_alone: bool = True

    def __post_init__(self) -> None:
        """Raises UsageError for a value that cannot be."""
        if not self.run:
            raise UsageError("an evolution needs a name for its runs", hint="give it one with --run NAME")
        if self.rounds < 1:
            raise UsageError("--rounds must be at least 1")
        if self.replay.split is not None:
            raise UsageError("evolve takes the train and the tuning split; no other can be named")
        for spec in (self.replay.generator, self.replay.peer or ""):
            if spec.partition(":")[0] in NOT_TUNABLE:
                hint = "embedded, hf:ORG/NAME or a folder"
                raise UsageError(f"{spec} cannot be tuned: only weights on this machine can", hint=hint)

    def part(self, split: str) -> ReplayOptions:
        """Returns the options of replays of a split, with the starting pair."""
        if split == TRAIN:
            return replace(self.replay, split=TRAIN)
        return replace(self.replay, split=TUNING, cases=self.tuning_cases, limit=self.tuning_limit)


class EvolveWatcher:
    """Sees replays and tunings through; this one in silence."""

    def stage(self, number: int, text: str) -> None:
        """A stage of a round begins."""

    def replay(self, work: Callable[[Listener], Summary]) -> Summary:
        """Does a replay."""
        return work(Listener())

    def tune(self, work: Callable[[TuneWatcher | None], dict[str, Any]]) -> dict[str, Any]:
        """Does a tuning."""
        return work(None)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models: who searches, and who verifies (None: the same weights under other seeds)."""

    generator: str
    peer: str | None

    def spec(self, role: str) -> str:
        """Returns the weights in a role."""
        return self.generator if role == GENERATOR or self.peer is None else self.peer


def evolve(
    url: str, options: EvolveOptions, *, workers: int = 1, watcher: EvolveWatcher | None = None
) -> dict[str, Any]:
    """Runs rounds of self-evolution, or goes on with them.

    Args:
        url: database with imported cases.
        options: everything that decides results.
        workers: processes of a replay.
        watcher: sees replays and tunings through.

    Returns:
        `{"run", "out", "best": {"round", "generator", "peer"}, "rounds": [...]}`; of each round what its stages gave,
        as the state file holds it, with `round`, `generator` and `peer`.

    Raises:
        UsageError: options that cannot be, a case of another split, a folder or run of another configuration, or
            nothing to decide by.
        BadInputError, ModelError, StorageError: as `replay`, `export_set` and `fine_tune`; what is done is kept.
    """
    return Evolution(url, options, workers, watcher or EvolveWatcher()).go()


class Evolution:
    """One evolution at work; see `evolve`."""

    def __init__(self, url: str, options: EvolveOptions, workers: int, watcher: EvolveWatcher) -> None:
        self._url, self._options, self._workers, self._watcher = url, options, workers, watcher
        self._start = Pair(options.replay.generator, options.replay.peer)
        with existing_database(url) as engine:
            config = _config(engine, options)
        self._fine_tune = training_functions()["sft"]
        self._check_weights()
        self._state = EvolveState(options.out, {**config, "db": make_url(url).render_as_string(hide_password=True)})

    def go(self) -> dict[str, Any]:
        """Runs all rounds that are not done, and returns what all gave."""
        new = [n for n in range(self._options.rounds + 1) if self._state.result(n, "decision") is None]
        for number in new:
            self._round(number)
            write_evolution(self.result(), self._options.out)
        if not new:  # whoever was killed just before may lack them
            write_evolution(self.result(), self._options.out)
        return self.result()

    def result(self) -> dict[str, Any]:
        """Returns what the rounds gave that are done."""
        rounds: list[dict[str, Any]] = []
        for number, stages in sorted(self._state.rounds.items()):
            if "decision" in stages:
                pair = self._pair(number)
                rounds.append({"round": number, "generator": pair.generator, "peer": pair.peer, **stages})
        best = self._best(len(rounds))
        pair = self._pair(best)
        own = {"round": best, "generator": pair.generator, "peer": pair.peer}
        return {"run": self._options.run, "out": str(self._options.out), "best": own, "rounds": rounds}

    def _round(self, number: int) -> None:
        stage, pair = self._state.stage, self._pair(number)
        if number:
            kept = self._best(number)
            stage(number, "train", lambda: self._replay(number, TRAIN, self._pair(kept), "train"))
            for role in HALF_OF:
                stage(number, f"{role}_set", partial(self._export, number, role))
            for role in HALF_OF:
                stage(number, f"{role}_tuning", partial(self._tune, number, kept, role))
        stage(number, "tuning", lambda: self._judged(number, pair, "tuning"))
        if self._options.peer_alone and pair.peer is not None:
            exchanged = Pair(pair.peer, pair.generator)
            stage(number, "tuning_peer", lambda: self._judged(number, exchanged, "tuning-peer"))
        stage(number, "decision", lambda: self._decide(number))

    def _pair(self, number: int) -> Pair:
        """Returns the pair that a round made; of round 0 the starting one."""
        if number == 0:
            return self._start
        return Pair(str(self._folder(number) / GENERATOR), str(self._folder(number) / PEER))

    def _folder(self, number: int) -> Path:
        return self._options.out / f"round{number}"

    def _run(self, number: int, what: str) -> str:
        return f"{self._options.run}-round{number}-{what}"

    def _best(self, before: int) -> int:
        """Returns the round, before one, whose pair was kept last."""
        kept = (n for n in range(before) if (done := self._state.result(n, "decision")) and done["kept"])
        return max(kept)

    def _replay(self, number: int, split: str, pair: Pair, what: str) -> dict[str, Any]:
        """Replays a split. Train cases are searched under another seed in each round, tuning cases under one."""
        name, options = self._run(number, what), self._options.part(split)
        seed = options.seed + (number - 1 if split == TRAIN else 0)
        options = replace(options, generator=pair.generator, peer=pair.peer, seed=seed)
        self._watcher.stage(number, f"replay of the {split} split, run {name}")
        summary = self._watcher.replay(
            lambda listener: replay(self._url, name, options, workers=self._workers, listener=listener)
        )
        if summary.all_failed:
            raise ModelError(f"run {name}: every step that was taken failed", hint="its records say why")
        return {"run": name, "cases": summary.cases, "generator": pair.generator, "peer": pair.peer}

    def _export(self, number: int, role: str) -> dict[str, Any]:
        out, run = self._folder(number) / f"{role}-set", self._run(number, "train")
        self._watcher.stage(number, f"training set of the {role}")
        for left in out.parent.glob(f".{out.name}-*"):  # of an export that was killed
            shutil.rmtree(left, ignore_errors=True)
        options = SetOptions(answers_only=self._options.answers_only, half=HALF_OF[role], role=role)
        with existing_database(self._url) as engine:
            figures = export_set(engine, SFT, [run], out, options)["splits"][TRAIN]
        named = ("rows", "cases", "patients", "cold_start_share", "sha256")
        return {"set": str(out), **{name: figures[name] for name in named}}

    def _tune(self, number: int, kept: int, role: str) -> dict[str, Any]:
        data, out = self._folder(number) / f"{role}-set", self._folder(number) / role
        base = (self._pair(kept) if self._options.from_kept else self._start).spec(role)
        settings = replace(self._options.tune, method="sft", base=base, seed=self._options.replay.seed + number - 1)
        self._watcher.stage(number, f"tuning of the {role}")
        card = self._watcher.tune(lambda bar: self._fine_tune(data, out, settings, resume=True, watcher=bar))
        named = ("steps", "first loss", "last loss", "seconds")
        return {"model": str(out), "base": base, **{name: card["figures"][name] for name in named}}

    def _judged(self, number: int, pair: Pair, what: str) -> dict[str, Any]:
        done = self._replay(number, TUNING, pair, what)
        with existing_database(self._url) as engine:
            score = score_run(engine, done["run"], seed=self._options.replay.seed, regression=False)
        steps = {step: _figures(of_step) for step, of_step in score["steps"].items()}
        values = [v for s in steps.values() if (v := s["primary"]["value"]) is not None]
        if not values:
            hint = "import cases with labels, or name others with --tuning-cases"
            raise UsageError(f"run {done['run']}: no case-step has a recorded label to decide by", hint=hint)
        return {**done, "primary": fmean(values), "steps": steps}

    def _decide(self, number: int) -> dict[str, Any]:
        """Says whether a round's pair is better than the best so far, with the paired difference beside it."""
        if number == 0:
            return {"kept": True}
        best = self._best(number)
        ours, theirs = (self._state.rounds[n]["tuning"] for n in (number, best))
        with existing_database(self._url) as engine:
            found = compare_runs(engine, ours["run"], theirs["run"], seed=self._options.replay.seed)
        gains = {}
        for step, of_step in found["steps"].items():
            row = of_step["metrics"].get(ours["steps"][step]["figure"])
            if row is not None:
                gains[step] = {"value": row["difference"], **{key: row[key] for key in ("low", "high", "n")}}
        return {"kept": ours["primary"] > theirs["primary"], "against": best, "gain": gains}

    def _check_weights(self) -> None:
        """Raises ModelError before hours of replay where the starting models are not here."""
        from search.models.weight_files import find_weights

        for role in HALF_OF:
            find_weights(self._start.spec(role))


def _config(engine: Engine, options: EvolveOptions) -> dict[str, Any]:
    """Returns everything that decides results, and raises where an option or a case cannot be."""
    parts = {split: make_config(options.part(split)) for split in (TRAIN, TUNING)}
    cases = {split: _cases(engine, options, split, config) for split, config in parts.items()}
    config = {name: value for name, value in parts[TUNING].items() if name not in ("split", "limit", "cases")}
    tune = {k: v for k, v in options.tune.row().items() if k not in ("method", "base", "seed")}
    return {
        "run": options.run,
        "out": str(options.out),
        "replay": config,
        "cases": {split: _fingerprint(ids) for split, ids in cases.items()},
        "training": tune,
        "answers_only": options.answers_only,
        "from_kept": options.from_kept,
        "peer_alone": options.peer_alone,
    }


def _cases(engine: Engine, options: EvolveOptions, split: str, config: Mapping[str, Any]) -> list[str]:
    """Returns the cases of a part, and refuses one that is listed and belongs to another split."""
    scheme, listed = config["split_scheme"], config.get("cases")
    reader = CaseReader(engine)
    here = set(reader.case_ids(split=split, scheme=scheme))
    for case_id in listed or ():
        if case_id not in here:
            found = reader.split(case_id, scheme=scheme)
            hint = "evolve learns from train cases, decides by tuning cases, and never touches held-out ones"
            raise UsageError(f"{options.part(split).cases}: case {case_id} is of split {found}, not {split}", hint=hint)
    return case_ids_of(engine, split, scheme, listed, config["limit"])


def _fingerprint(ids: Sequence[str]) -> dict[str, Any]:
    return {"number": len(ids), "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}


def _figures(of_step: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures of a step that a round is judged and shown by."""
    metrics = of_step["metrics"]
    figure = next(name for name in metrics if name.startswith("accuracy_"))  # at the level of the answer key
    of_set = f"set_f1_{figure.removeprefix('accuracy_')}"
    if metrics.get(of_set, {}).get("value") is not None:
        figure = of_set
    found = {name: _plain(metrics[name]) for name in FIGURES}
    majority = _plain(of_step["baselines"][MAJORITY])
    return {"figure": figure, "primary": _plain(metrics[figure]), **found, "majority": majority}


def _plain(metric: Mapping[str, Any]) -> dict[str, Any]:
    return {key: metric[key] for key in ("value", "low", "high", "n")}
