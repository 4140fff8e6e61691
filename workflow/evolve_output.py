"""What an evolution shows of its rounds: a table, a CSV file and a plot."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clinical_data.errors import StorageError
from evaluation.formatting import metric_text

CSV, PLOT = "rounds.csv", "rounds.png"
_METRICS = ("primary", "top_5", "verified", "peer_agreement", "majority")


def round_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns an evolution as flat rows, one for each round and step; metrics as NAME, NAME_low, NAME_high, NAME_n.

    Args:
        result: as `workflow.evolve.evolve` returns it.
    """
    rows = []
    for done in result["rounds"]:
        sets = {role: done.get(f"{role}_set", {}) for role in ("generator", "peer")}
        for step, figures in done["tuning"]["steps"].items():
            row: dict[str, Any] = {"round": done["round"], "step": step, "figure": figures["figure"]}
            row["run"], row["kept"] = done["tuning"]["run"], int(done["decision"]["kept"])
            for role, figure in ((r, f) for r in sets for f in ("rows", "patients", "cold_start_share")):
                row[f"{role}_{figure}"] = sets[role].get(figure)
            for name in _METRICS:
                row |= _flat(name, figures[name])
            alone = done.get("tuning_peer", {}).get("steps", {}).get(step)
            row |= _flat("peer_in_its_place", alone["primary"] if alone else None)
            row |= _flat("gain", done["decision"].get("gain", {}).get(step))
            rows.append(row)
    return rows


def round_table(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns an evolution in words, one row for each round and step."""
    rows = round_rows(result)
    several = len({row["step"] for row in rows}) > 1
    return [_words(row, several) for row in rows]


def _words(row: Mapping[str, Any], several: bool) -> dict[str, str]:
    def metric(name: str) -> str:
        return metric_text({key: row[f"{name}{end}"] for key, end in _ENDS.items()}, 3)

    def share(role: str) -> str:
        rows, cold = row[f"{role}_rows"], row[f"{role}_cold_start_share"]
        return "-" if rows is None else f"{rows} ({'-' if cold is None else f'{cold:.0%}'})"

    name = row["figure"].replace("_", " ")
    words = {"round": str(row["round"])} | ({"step": row["step"].replace("_", " ")} if several else {})
    words |= {f"{role}: rows (cold starts)": share(role) for role in ("generator", "peer")}
    words |= {name if not several else "first answer": metric("primary"), "n": str(row["primary_n"])}
    words |= {"top 5": metric("top_5"), "peer in its place": metric("peer_in_its_place")}
    start = "start" if row["round"] == 0 else ""
    return words | {"against the best": metric("gain"), "kept": start or ("yes" if row["kept"] else "no")}


_ENDS = {"value": "", "low": "_low", "high": "_high", "n": "_n"}


def _flat(name: str, metric: Mapping[str, Any] | None) -> dict[str, Any]:
    return {f"{name}{end}": None if metric is None else metric[key] for key, end in _ENDS.items()}


def write_evolution(result: Mapping[str, Any], out: Path) -> None:
    """Writes `rounds.csv` and `rounds.png`, each whole or not at all.

    Raises:
        StorageError: a file cannot be written.
    """
    rows = round_rows(result)
    try:
        part = out / f"{CSV}.part"
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        part.replace(out / CSV)
        part = out / f"{PLOT}.part"
        draw_rounds(rows, part, title=result["run"])
        part.replace(out / PLOT)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror})") from error


def draw_rounds(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Draws first answers and share of cold starts over the rounds, a column for each step, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to load, and needs no display
    from matplotlib.figure import Figure

    steps = list(dict.fromkeys(row["step"] for row in rows))
    figure = Figure(figsize=(1.5 + 5.5 * len(steps), 6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.subplots(2, len(steps), squeeze=False, sharex="col", height_ratios=(2, 1))
    for column, step in enumerate(steps):
        own = [row for row in rows if row["step"] == step]
        _draw_figures(grid[0][column], own)
        for role, colour in (("generator", "C0"), ("peer", "C1")):
            _draw(grid[1][column], own, f"{role}_cold_start_share", f"{role}'s set", colour)
        grid[1][column].set(xlabel="round", ylabel="share of cold starts", ylim=(0, 1.05))
        grid[1][column].set_xticks([row["round"] for row in own])
        for axes in (grid[0][column], grid[1][column]):
            axes.grid(alpha=0.3)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize="small")
    figure.savefig(path, dpi=120, format="png", metadata={"Software": None})


def _draw_figures(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    _draw(axes, rows, "primary", "generator, searching with its peer", "C0")
    _draw(axes, rows, "peer_in_its_place", "peer in its place", "C1")
    _draw(axes, rows, "top_5", "generator, top 5", "C2")
    _draw(axes, rows, "majority", "majority class of the train split", "0.5", line=":")
    kept = [(row["round"], row["primary"]) for row in rows if row["kept"] and row["primary"] is not None]
    if kept:
        axes.plot(*zip(*kept, strict=True), "o", color="C0", markersize=11, fillstyle="none", label="kept")
    axes.set(title=rows[0]["step"].replace("_", " "), ylabel=rows[0]["figure"].replace("_", " "), ylim=(0, 1.05))


def _draw(axes: Any, rows: Sequence[Mapping[str, Any]], name: str, label: str, colour: str, *, line: str = "-") -> None:
    """Draws one figure over the rounds, with its interval where it has one."""
    there = [row for row in rows if row[name] is not None]
    if not there:
        return
    rounds, values = [row["round"] for row in there], [row[name] for row in there]
    axes.plot(rounds, values, line, marker="." if line == "-" else "", color=colour, label=label, linewidth=1.2)
    if line == "-" and f"{name}_low" in rows[0]:
        within = [row for row in there if row[f"{name}_low"] is not None]
        bars = [[row[name] - row[f"{name}_low"] for row in within], [row[f"{name}_high"] - row[name] for row in within]]
        places = [row["round"] for row in within], [row[name] for row in within]
        axes.errorbar(*places, yerr=bars, fmt="none", ecolor=colour, elinewidth=0.8, capsize=2, alpha=0.6)
