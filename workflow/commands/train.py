"""`wardstar train`: tunes a model on a training set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from workflow.commands.common import AsJson, err_console, long_command, say, show_json

train_app = typer.Typer(help="Tunes a model on a training set; the folder it writes is a model.", no_args_is_help=True)

Data = Annotated[Path, typer.Option("--data", help="Folder of the training set: train.jsonl, and tuning.jsonl.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to make; `--generator` and `--peer` take it.")]
Base = Annotated[str, typer.Option("--base", help="Model to tune: embedded, hf:ORG/NAME or a folder.")]
Full = Annotated[bool, typer.Option("--full", help="Tune all weights instead of a LoRA adapter.")]
Rank = Annotated[int, typer.Option("--rank", help="Rank of the adapter.")]
Alpha = Annotated[float, typer.Option("--alpha", help="Scale of the adapter times its rank.")]
Dropout = Annotated[float, typer.Option("--dropout", help="Share of the adapter's inputs dropped in training.")]
Epochs = Annotated[float, typer.Option("--epochs", help="Passes over the rows.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Rows in one pass; of sft, trajectories.")]
Accumulate = Annotated[int, typer.Option("--accumulate", help="Passes to one step.")]
MaxLength = Annotated[int, typer.Option("--max-length", help="Most tokens of a row; longer ones are left out.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of first weights and order.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto (bf16 where it is faster), fp32 or bf16.")]
Device = Annotated[str, typer.Option("--device", help="auto (a GPU if there is one), cpu or cuda.")]
Patience = Annotated[
    int, typer.Option("--patience", help="Looks at tuning.jsonl without improvement before the end; 0: never.")
]
SaveDtype = Annotated[str, typer.Option("--save-dtype", help="Numbers on disk: fp32, or bf16 (half the size).")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")]


@train_app.command("sft")
@long_command
def sft_command(
    data: Data,
    out: Out,
    base: Base = "embedded",
    full: Full = False,
    rank: Rank = 16,
    alpha: Alpha = 32,
    dropout: Dropout = 0.0,
    epochs: Epochs = 3,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate (5e-4; 5e-5 with --full).")] = None,
    batch_size: BatchSize = 8,
    accumulate: Accumulate = 1,
    by_length: Annotated[
        bool, typer.Option("--by-length", help="Rows of like length share a batch: less padding, batches less mixed.")
    ] = False,
    max_length: MaxLength = 1024,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    patience: Patience = 3,
    save_dtype: SaveDtype = "fp32",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Teaches the completion of each row (supervised fine-tuning)."""
    tune("sft", dict(locals()))


@train_app.command("dpo")
@long_command
def dpo_command(
    data: Data,
    out: Out,
    base: Base = "embedded",
    full: Full = False,
    rank: Rank = 16,
    alpha: Alpha = 32,
    dropout: Dropout = 0.0,
    epochs: Epochs = 1,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate (5e-5; 5e-6 with --full).")] = None,
    beta: Annotated[float, typer.Option("--beta", help="How strongly the model is held to its base.")] = 0.1,
    batch_size: BatchSize = 8,
    accumulate: Accumulate = 1,
    max_length: MaxLength = 1024,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    patience: Patience = 3,
    save_dtype: SaveDtype = "fp32",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Teaches to prefer one completion to another (direct preference optimisation)."""
    tune("dpo", dict(locals()))


@train_app.command("ttrl")
@long_command
def ttrl_command(
    data: Data,
    out: Out,
    base: Base = "embedded",
    full: Full = False,
    rank: Rank = 16,
    alpha: Alpha = 32,
    dropout: Dropout = 0.0,
    epochs: Epochs = 1,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate (5e-5; 5e-6 with --full).")] = None,
    group: Annotated[int, typer.Option("--group", help="Answers drawn to each prompt.")] = 8,
    temperature: Annotated[float, typer.Option("--temperature", help="How boldly they are drawn.")] = 1.0,
    least_share: Annotated[
        float, typer.Option("--least-share", help="Smallest majority of a group that is rewarded.")
    ] = 0.5,
    labels: Annotated[
        str,
        typer.Option(
            "--labels", help="vote (of the group), or peer: answers of the set that a peer stood by, where it has any."
        ),
    ] = "vote",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Prompts in one pass.")] = 2,
    accumulate: Accumulate = 1,
    max_length: MaxLength = 1024,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    save_dtype: SaveDtype = "fp32",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Learns from the majority of its own answers, without labels (test-time reinforcement learning)."""
    tune("ttrl", dict(locals()))


@train_app.command("stepwise")
@long_command
def stepwise_command(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Folder to make; `--value model:FOLDER` takes it.")],
    base: Base = "embedded",
    target: Annotated[
        str,
        typer.Option(
            "--target", help="value: share of the rollouts through a turn that ended well; label: whether some did."
        ),
    ] = "value",
    rank: Rank = 16,
    alpha: Alpha = 32,
    dropout: Dropout = 0.0,
    epochs: Epochs = 3,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate (5e-4).")] = None,
    batch_size: BatchSize = 8,
    accumulate: Accumulate = 1,
    max_length: MaxLength = 2048,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    patience: Patience = 3,
    save_dtype: SaveDtype = "fp32",
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Learns what each turn of a trajectory is worth: a value source of the search (process reward model)."""
    tune("stepwise", dict(locals()))


def tune(method: str, options: dict[str, Any]) -> None:
    """Tunes under a progress bar, says how to go on after Ctrl-C, and writes what came of it.

    Args:
        method: `sft`, `dpo`, `ttrl` or `stepwise`.
        options: of the command, by their names.

    Raises:
        UsageError: the libraries for training are not installed.
        BadInputError: the set is of another version of a bundled pathway.
    """
    from evaluation.supervision.fine_tune_settings import TuneSettings
    from workflow.training import check_pathway, training_functions
    from workflow.training_progress import TrainingBar

    data, out, resume, as_json = (options.pop(name) for name in ("data", "out", "resume", "as_json"))
    settings = TuneSettings(method=method, **options)  # type: ignore[arg-type]
    check_pathway(data)
    say("loading the training libraries")
    train = training_functions()[method]
    try:
        with TrainingBar(err_console()) as bar:
            card = train(data, out, settings, resume=resume, watcher=bar)
    except KeyboardInterrupt:
        say("interrupted; checkpoints are kept: the same command with --resume goes on")
        raise
    if as_json:
        show_json(card)
        return
    figures = card["figures"]
    say(f"{figures['steps']} steps in {figures['seconds']:.0f} s, {card['data']['rows']} rows")
    if figures["tuning loss"] is not None and figures["tuning loss untuned"] is not None:
        say(f"loss of the tuning rows {figures['tuning loss untuned']:.3f} -> {figures['tuning loss']:.3f}")
    typer.echo(str(out))
