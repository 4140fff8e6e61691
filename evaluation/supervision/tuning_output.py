"""What a tuning leaves beside the weights: the loss as CSV and PNG, and a card for people and programs."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinical_data.errors import StorageError
from evaluation.supervision.cards import CARD, VOCABULARIES
from evaluation.supervision.fine_tune_checkpoints import write_json
from evaluation.supervision.fine_tune_settings import used_by

COLUMNS = ("step", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm")
VOTED = ("reward", "majority_ratio", "vote_entropy")  # of TTRL, whose loss says little
COMPLETE = "complete"
UNITS = {"sft": "nats a token", "stepwise": "nats a turn"}  # of the loss; of others it has none
USES = {"stepwise": "`--value model:{folder}`"}
README = """\
# {title}

Tuned by `wardstar train {method}` on {rows} rows of {data}. For retrospective research, not for care.

Use it as {use}. {what}

| | |
|---|---|
{table}

![loss](loss.png)

The loss of every step is in `loss.csv`, everything else in `card.json`. The weights depend on the records they were
tuned on: whoever may not have those records should not have the weights, since a language model can repeat what it
read.
"""


def write_outputs(out: Path, card: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
    """Writes loss.csv, loss.png, README.md and, last of all, card.json.

    Args:
        out: the output folder.
        card: what to say of the tuning.
        history: one entry per step or look at the tuning rows, with any of `COLUMNS`.

    Raises:
        StorageError: a file cannot be written.
    """
    try:
        with (out / "loss.csv").open("w", encoding="utf-8", newline="") as file:
            voted = [name for name in VOTED if any(name in row for row in history)]
            writer = csv.DictWriter(file, [*COLUMNS, *voted], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(history)
        draw_loss(history, out / "loss.png", title=card["name"])
        (out / "README.md").write_text(readme(out, card), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror})") from error
    write_json(out / CARD, card)


def carried_files(folder: Path) -> list[Path]:
    """Returns the files of the vocabularies that a training set carries."""
    return sorted(path for path in (folder / VOCABULARIES).glob("*") if path.is_file())


def carry_files(data: Path, out: Path) -> None:
    """Copies the vocabularies of a training set into the folder of the model tuned on it, so that it keeps its answers.

    Raises:
        OSError: a file cannot be copied.
    """
    for path in carried_files(data):
        (out / VOCABULARIES).mkdir(exist_ok=True)
        shutil.copyfile(path, out / VOCABULARIES / path.name)


def draw_loss(history: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Draws the loss over the steps, of the rows trained on and of the tuning rows, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to load, and needs no display
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for column, label, style in (("loss", "rows trained on", "-"), ("eval_loss", "tuning rows", "o-")):
        points = [(row["step"], row[column]) for row in history if row.get(column) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1.2, markersize=4)
    unit = UNITS.get(title.split()[0], "")
    axes.set(xlabel="step", ylabel=f"loss ({unit})" if unit else "loss", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def readme(out: Path, card: Mapping[str, Any]) -> str:
    """Returns the card in words."""
    settings, base, figures = card["settings"], card["base"], card["figures"]
    whole = "It is a whole model." if settings["full"] else "It is a LoRA adapter, merged into its base when loaded."
    use = USES.get(settings["method"], "`--generator {folder}` or `--peer {folder}`")
    used = used_by(settings["method"]) - {"base", "full"}
    rows = {
        "state": card["status"],
        "base": f"`{base['spec']}` ({base['name']}), revision `{base['revision']}`",
        "weights tuned": f"{figures['trainable']:,} of {figures['parameters']:,}",
        "rows": f"{card['data']['rows']} to learn from, {card['data']['tuning_rows']} to tell when to stop",
        "settings": ", ".join(f"{name} {value}" for name, value in settings.items() if name in used),
        "figures": ", ".join(f"{name} {_number(value)}" for name, value in figures.items() if value is not None),
        "versions": ", ".join(f"{name} {value}" for name, value in card["software"].items()),
        "training set": ", ".join(f"{name} `{value}`" for name, value in card["data"]["sha256"].items()),
    }
    if card.get("remarks"):
        rows["remarks"] = "; ".join(card["remarks"])
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    data = Path(card["data"]["folder"]).name
    return README.format(
        title=card["name"],
        method=settings["method"],
        rows=card["data"]["rows"],
        data=f"`{data}`",
        use=use.format(folder=out.name),
        what=whole,
        table=table,
    )


def _number(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
