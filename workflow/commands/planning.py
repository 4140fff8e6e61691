"""`wardstar plan`: what a replay would take, before it runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinical_data.errors import UsageError
from workflow.commands.common import (
    DEFAULT_DB,
    AsJson,
    Db,
    RunName,
    database,
    err_console,
    out_console,
    say,
    show_json,
    show_table,
)
from workflow.commands.replay_arguments import takes_replay_options
from workflow.options import Chosen

if TYPE_CHECKING:
    from workflow.planning import Counted, StepCount


MOST_DAMAGED = 10  # cases that cannot be read which are named
AS_IN_REPLAY = "As in `replay`; changes no estimate."


@takes_replay_options
def plan_command(
    chosen: Chosen,
    db: Db = DEFAULT_DB,
    run: RunName = "",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes to spread the cases over.")] = 1,
    executor: Annotated[str, typer.Option("--executor", help=AS_IN_REPLAY)] = "local",
    ray_address: Annotated[str, typer.Option("--ray-address", help=AS_IN_REPLAY)] = "",
    gpus_per_worker: Annotated[float, typer.Option("--gpus-per-worker", help=AS_IN_REPLAY, min=0.0)] = 0.0,
    no_cache: Annotated[bool, typer.Option("--no-cache", help=AS_IN_REPLAY)] = False,
    speed: Annotated[
        float | None, typer.Option("--speed", help="Tokens a second of a machine that you know, all workers together.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimates what a replay with the same options would take: case-steps, tokens, requests, time, memory."""
    from evaluation.store.run_store import config_hash
    from workflow.bars import CountBar
    from workflow.config import make_config
    from workflow.estimate import FEW_PATIENTS, basis_of, memory_of, project
    from workflow.planning import count_run

    if speed is not None and not 0 < speed < math.inf:
        raise UsageError("--speed must be a number above 0")
    config = make_config(chosen.options)
    with database(db) as engine:
        with CountBar(err_console(), "cases") as bar:
            counted = count_run(engine, chosen.options, run, bar)
        basis = basis_of(engine, counted.prepared, config)
    totals = project(counted, basis, speed)
    few = 0 < basis.patients < FEW_PATIENTS
    memory, parts = memory_of(counted.prepared, workers)
    result = {
        "cases": counted.cases,
        "steps": {name: _step_json(count) for name, count in counted.steps.items()},
        "case_steps": {"fewest": _fewest(counted), "most": _most(counted)},
        "estimate": totals,
        "basis": {
            "kind": basis.kind,
            "text": basis.text,
            "patients": basis.patients,
            "interval": "95 %, bootstrap over patients" + ("; few, so too narrow" if few else ""),
        },
        "speed": speed,
        "workers": workers,
        "memory_gib": round(memory, 2),
        "memory_parts": parts,
        "loops": counted.again,
        "damaged": counted.damaged,
        "configuration": config_hash(config),
    }
    if as_json:
        show_json(result)
    else:
        _show(result, counted)


def _fewest(counted: Counted) -> int:
    return sum(c.applicable + c.perhaps - c.again + sum(c.not_applicable.values()) for c in counted.steps.values())


def _most(counted: Counted) -> int:
    return _fewest(counted) + sum(c.again for c in counted.steps.values())


def _step_json(count: StepCount) -> dict[str, Any]:
    return {
        "applicable": count.applicable,
        "perhaps": count.perhaps,
        "again": count.again,
        "not_applicable": dict(count.not_applicable.most_common()),
        "done": count.done,
    }


def _show(result: dict[str, Any], counted: Counted) -> None:
    rows = []
    for name, count in counted.steps.items():
        reasons = "; ".join(f"{n:,}: {why}" for why, n in count.not_applicable.most_common())
        perhaps = f"{count.perhaps:,}" if count.perhaps else ""
        rows.append((name.replace("_", " "), f"{count.applicable:,}", perhaps, f"{count.done:,}", reasons))
    title = f"{counted.cases:,} cases, pathway {counted.prepared.pathway.name}"
    show_table(["step", "searches", "perhaps", "done", "recorded without a search"], rows, title=title)
    totals = result["estimate"]
    words = {
        "prefilled": "tokens of prompts",
        "sampled": "tokens sampled",
        "requests": "requests to models",
        "tokens": "tokens in all",
        "seconds": "time",
    }
    lines = []
    for name, what in words.items():
        if name in totals:
            text = _time if name == "seconds" else _number
            low, high = totals[name]["low"], totals[name]["high"]
            between = "no interval: one patient" if low is None else f"{text(low)} to {text(high)}"
            lines.append((what, text(totals[name]["value"]), between))
    speed = result["speed"]
    if totals and "seconds" not in totals:
        lines.append(("time", "unknown", "name the machine's speed with --speed"))
    lines.append(("memory", f"{result['memory_gib']:.1f} GiB at most", ""))
    show_table(["", "expected", "95 % interval"], lines, title="what is left to do")
    out_console().print(f"basis: {result['basis']['text']}", markup=False, soft_wrap=True)
    out_console().print(f"memory: {result['memory_parts']}", markup=False, soft_wrap=True)
    if totals:
        interval = f"intervals: {result['basis']['interval']} ({result['basis']['patients']})"
        out_console().print(interval, markup=False, soft_wrap=True)
    if speed is not None:
        out_console().print(f"time: tokens in all / {speed:g} tokens a second", markup=False, soft_wrap=True)
    elif "seconds" in totals:
        out_console().print("time: that of one worker, on the machine where it was measured", soft_wrap=True)
    for case_id, reason in list(counted.damaged.items())[:MOST_DAMAGED]:
        say(f"{case_id}: cannot be read ({reason}); a replay records it as failed and goes on")
    if (more := len(counted.damaged) - MOST_DAMAGED) > 0:
        say(f"and {more:,} more that cannot be read; --json names all")
    if counted.again:
        say("note: the pathway has a loop; steps that it may take again are counted as `perhaps`")
    if any(c.perhaps for c in counted.steps.values()):
        say("note: `perhaps` hangs on conclusions; the interval reaches from none to all of them")


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _time(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s" if seconds < 10 else f"{seconds:,.0f} s"
