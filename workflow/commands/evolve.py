"""`wardstar evolve`: rounds of replay, training set, tuning and judgement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinical_data.errors import UsageError
from workflow.commands.common import DEFAULT_DB, AsJson, Db, err_console, say, show_json, show_rows
from workflow.commands.replay_arguments import Sets

if TYPE_CHECKING:
    from evaluation.supervision.fine_tune_settings import TuneWatcher
    from workflow.runner import Listener, Summary

OF_TRAINING = (
    "epochs", "lr", "rank", "alpha", "batch_size", "accumulate", "max_length", "dtype", "device", "save_dtype",
)  # fmt: skip


def evolve_command(
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds to come to.")],
    run: Annotated[str, typer.Option("--run", help="Beginning of the names of all runs.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of sets, models, table and plot.")],
    db: Db = DEFAULT_DB,
    pathway: Annotated[str, typer.Option("--pathway", help="Name of a bundled pathway, or a YAML file.")] = "",
    steps: Annotated[str, typer.Option("--steps", help="Steps to take, with commas between; all when left out.")] = "",
    split_scheme: Annotated[
        str, typer.Option("--split-scheme", help="What the split was drawn by: patient (default) or hospital.")
    ] = "",
    cases: Annotated[str, typer.Option("--cases", help="File with a train case id a line: learn from these.")] = "",
    limit: Annotated[int | None, typer.Option("--limit", help="Learn from the first N train cases.")] = None,
    tuning_cases: Annotated[
        str, typer.Option("--tuning-cases", help="File with a tuning case id a line: decide by these.")
    ] = "",
    tuning_limit: Annotated[
        int | None, typer.Option("--tuning-limit", help="Decide by the first N tuning cases.")
    ] = None,
    strategy: Annotated[str, typer.Option("--strategy", help="As in `replay`: rstar (default), greedy, ...")] = "",
    rollouts: Annotated[int | None, typer.Option("--rollouts", help="Rollouts of one search (16).")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the first round (0).")] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes to spread the cases of a replay over.")] = 1,
    generator: Annotated[str, typer.Option("--generator", help="Model to start from: embedded (default), ...")] = "",
    peer: Annotated[
        str, typer.Option("--peer", help="Peer to start from; the generator's weights when left out.")
    ] = "",
    answers_only: Annotated[
        bool, typer.Option("--answers-only", help="Teach answers alone: the cheapest form.")
    ] = False,
    from_kept: Annotated[
        bool, typer.Option("--from-kept", help="Tune the kept pair further, instead of the starting models anew.")
    ] = False,
    peer_alone: Annotated[
        bool, typer.Option("--peer-alone/--no-peer-alone", help="Judge the peer in the generator's place as well.")
    ] = True,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the rows.")] = 3,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate (5e-4).")] = None,
    rank: Annotated[int, typer.Option("--rank", help="Rank of the adapters.")] = 16,
    alpha: Annotated[float, typer.Option("--alpha", help="Scale of an adapter times its rank.")] = 32,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Rows in one pass; of sft, trajectories.")] = 8,
    accumulate: Annotated[int, typer.Option("--accumulate", help="Passes to one step.")] = 1,
    max_length: Annotated[
        int, typer.Option("--max-length", help="Most tokens of a row; longer ones are left out.")
    ] = 1024,
    dtype: Annotated[str, typer.Option("--dtype", help="Of training: auto, fp32 or bf16.")] = "auto",
    device: Annotated[str, typer.Option("--device", help="Of training: auto, cpu or cuda.")] = "auto",
    save_dtype: Annotated[str, typer.Option("--save-dtype", help="Numbers on disk: fp32, or bf16.")] = "fp32",
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file as in `replay`: [search], [models].")
    ] = None,
    sets: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Lets a pair of models teach its successors, round by round, and keeps the best. The same command goes on."""
    given = dict(locals())
    from evaluation.supervision.fine_tune_settings import TuneSettings
    from workflow.evolve import EvolveOptions, evolve
    from workflow.evolve_output import round_table

    options = EvolveOptions(
        run=run,
        out=out,
        rounds=rounds,
        replay=_replay_options(given),
        tuning_cases=tuning_cases or None,
        tuning_limit=tuning_limit,
        tune=TuneSettings(**{name: given[name] for name in OF_TRAINING}),
        answers_only=answers_only,
        from_kept=from_kept,
        peer_alone=peer_alone,
    )
    try:
        result = evolve(db, options, workers=workers, watcher=_watcher())
    except KeyboardInterrupt:
        say("interrupted; everything done is kept: the same command goes on")
        raise
    if as_json:
        show_json(result)
        return
    show_rows(round_table(result), title=f"evolution {run}: figures of the tuning split, 95 % intervals by patient")
    best = result["best"]
    say(
        f"best: round {best['round']}, --generator {best['generator']}"
        + (f" --peer {best['peer']}" if best["peer"] else "")
    )
    typer.echo(str(out))


def _replay_options(given: dict[str, Any]) -> Any:
    """Returns the options of all replays: those of the configuration file, under those of the command line."""
    from workflow.options import choose

    names = ("pathway", "split_scheme", "limit", "cases", "strategy", "seed", "generator", "peer", "rollouts")
    own = {name: given[name] for name in names}
    own["steps"] = tuple(s.strip() for s in given["steps"].split(",") if s.strip())
    options = choose(own, given["config"], given["sets"]).options
    if options.split is not None:
        raise UsageError(f"{given['config']}: evolve takes the train and the tuning split; no other can be named")
    return options


def _watcher() -> Any:
    """Returns a watcher that says what begins and shows a bar for each replay and tuning."""
    from workflow.evolve import EvolveWatcher
    from workflow.progress import ProgressBar
    from workflow.training_progress import TrainingBar

    class Shown(EvolveWatcher):
        def stage(self, number: int, text: str) -> None:
            say(f"round {number}: {text}")

        def replay(self, work: Callable[[Listener], Summary]) -> Summary:
            with ProgressBar(err_console()) as bar:
                summary = work(bar)
            counts = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in sorted(summary.statuses.items()))
            before = f" ({summary.skipped} done before)" if summary.skipped else ""
            say(f"{summary.cases} cases{before} in {summary.seconds:.0f} s; {counts or 'nothing left to do'}")
            return summary

        def tune(self, work: Callable[[TuneWatcher | None], dict[str, Any]]) -> dict[str, Any]:
            with TrainingBar(err_console()) as bar:
                return work(bar)

    return Shown()
