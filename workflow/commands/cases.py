"""`wardstar cases`: lists imported cases, shows a chart as a step would see it, counts recorded labels."""

from __future__ import annotations

import re
from math import floor
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinical_data.errors import UsageError
from workflow.commands.common import (
    DEFAULT_DB,
    AsJson,
    Db,
    database,
    out_console,
    say,
    show_json,
    show_rows,
    show_table,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from clinical_data.case import Case, Finding
    from clinical_data.catalogue import Catalogue
    from clinical_data.chart import Chart
    from clinical_data.ground_truth import GroundTruth

ROW_KEYS = ("case_id", "source", "source_id", "patient_id", "split")  # of `cases --json`, before truth and absent
COLUMNS = ("what", "known at", "charted", "value", "unit", "range", "flag")
MOST_LABELLED = 100  # cases whose labels --truth lists one by one
MOST_HIDDEN = 40  # later facts that --truth lists
_STATES = {
    "pending": "ordered or collected, no result yet",
    "done_result_not_in_source": "done, but the source holds no result",
    "not_done_by_now": "not done or not recorded by then (not: negative)",
    "not_in_source": "never recorded in this source",
}

cases_app = typer.Typer(help="Lists and shows imported cases.", invoke_without_command=True)
Truth = Annotated[bool, typer.Option("--truth", help="Show the recorded labels as well.")]


@cases_app.callback()
def cases_root(context: typer.Context, db: Db = DEFAULT_DB, as_json: AsJson = False, truth: Truth = False) -> None:
    """Lists and shows imported cases; alone it lists them."""
    if context.invoked_subcommand is None:
        cases_list(db, as_json, truth)


@cases_app.command("list")
def cases_list(db: Db = DEFAULT_DB, as_json: AsJson = False, truth: Truth = False) -> None:
    """Lists the imported cases with their split; with --truth their labels, and how many cases of a source have one."""
    from clinical_data.store.case_store import CaseStore

    with database(db) as engine:
        store = CaseStore(engine)
        summaries = store.summaries()
        if not summaries and not as_json:
            raise UsageError("the database holds no cases", hint="`wardstar import fhir PATH` puts some in")
        if as_json:
            rows = []
            for one in summaries:
                own = {k: v for k, v in one.items() if k in ROW_KEYS}
                rows.append({**own, **truth_fields(store.truth(one["case_id"]))})
            show_json(rows)
            return
        if not truth:
            show_rows([dict(one) for one in summaries])
            return
        if len(summaries) <= MOST_LABELLED:
            labels = {one["case_id"]: _labels_text(store.truth(one["case_id"])) for one in summaries}
            show_rows([{**one, "recorded labels": labels[one["case_id"]]} for one in summaries])
        else:
            say(f"{len(summaries):,} cases: their labels one by one with --json")
        show_coverage(engine)


def show_coverage(engine: Engine) -> None:
    """Writes how many cases of each source have a recorded label, step by step, and why the others have none."""
    from clinical_data.store.coverage import coverage

    rows = []
    last = ""
    for one in coverage(engine):
        share = f"{one.labelled:,} of {one.cases:,}"
        strengths = ", ".join(name for name, _ in one.strengths.most_common())
        reasons = "; ".join(f"{n:,}: {why}" for why, n in one.absent.most_common(3))
        if len(one.absent) > 3:
            reasons += f"; and {len(one.absent) - 3} more reasons"
        name = "" if one.source == last else one.source
        rows.append((name, one.step.replace("_", " "), share, f"{one.patients:,}", strengths, reasons))
        last = one.source
    columns = ["source", "step", "cases with a label", "patients", "strength", "why the others have none"]
    show_table(columns, rows, title="recorded labels per source and step")


@cases_app.command("show")
def cases_show(
    case_id: Annotated[str, typer.Argument(help="Case id, as `wardstar cases` lists it.")],
    as_of: Annotated[
        str, typer.Option("--as-of", help="Show what was known at this time from the start: minutes, or 6h, 2d.")
    ],
    db: Db = DEFAULT_DB,
    truth: Annotated[
        bool, typer.Option("--truth", help="Show what is hidden as well: recorded labels, treatment, later facts.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Shows the chart of a case as a step at that time would see it, by what may be requested."""
    from clinical_data.catalogue import load_catalogue
    from clinical_data.chart import open_chart
    from clinical_data.store.case_store import CaseStore

    minute = minutes(as_of)
    with database(db) as engine:
        store = CaseStore(engine)
        case = store.get(case_id)
        labels = store.truth(case_id) if truth else {}
    catalogue = load_catalogue()
    chart = open_chart(case, minute, catalogue)
    if as_json:
        show_json(_case_fields(chart) | (truth_fields(labels) if truth else {}))
        return
    _show_chart(chart, catalogue)
    if truth:
        _show_hidden(case, minute, labels)


def _show_chart(chart: Chart, catalogue: Catalogue) -> None:
    console = out_console()
    age = "age unknown" if chart.age is None else "90 years or older" if chart.age >= 90 else f"{chart.age} years"
    console.print(f"{chart.case_id}: {chart.sex}, {age}; as known {when(chart.clock)} from the start", markup=False)
    for name, text in sorted(chart.context.items()):
        console.print(f"  {name.replace('_', ' ')}: {text}", markup=False)
    answers = [(item, chart.request(item)) for item in catalogue.items if not item.shows_treatment]
    rows: list[tuple[str, ...]] = []
    for item, answer in answers:
        if answer.findings:
            rows += [_heading(f"{item.group}: {item.display}"), *(_row(f, indent="  ") for f in answer.findings)]
    asked = {f.finding_id for _, answer in answers for f in answer.findings}
    others = [f for f in chart.known() if f.finding_id not in asked and f.kind != "treatment" and f.result_in_source]
    if others:
        rows += [_heading("other: known, but no request leads to it"), *(_row(f, indent="  ") for f in others)]
    show_table(list(COLUMNS), rows)
    for state, words in _STATES.items():
        named = [item.display for item, answer in answers if answer.state.value == state]
        if named:
            console.print(f"{words}: {', '.join(named)}", markup=False)


def _show_hidden(case: Case, minute: int, labels: dict[str, GroundTruth]) -> None:
    """Writes what a step at that minute must not see: labels, treatment and later facts."""
    console = out_console()
    rows: list[tuple[object, ...]] = []
    for step, found in in_order(labels):
        for label in found.labels:
            entered = "" if label.entered is None else when(label.entered)
            coding = label.coding
            name = coding.display if coding.display and coding.display != coding.code else ""
            rows.append((step.replace("_", " "), label.rank, coding.code, name, label.strength.value, entered))
        if not found.labels:
            rows.append((step.replace("_", " "), "", "", f"none: {found.absent_reason}", "", ""))
    columns = ["step", "rank", "code", "recorded label", "strength", "entered at"]
    show_table(columns, rows, title="hidden: recorded labels (never shown to a model)")
    treatment = [f for f in case.findings if f.available <= minute and f.kind == "treatment"]
    later = [f for f in case.findings if f.available > minute]
    for name, facts in (("in-hospital treatment and orders", treatment), ("facts that became known later", later)):
        if not facts:
            console.print(f"hidden: {name}: none", markup=False)
            continue
        show_table(list(COLUMNS), [_row(f) for f in facts[:MOST_HIDDEN]], title=f"hidden: {name} ({len(facts):,})")
        if len(facts) > MOST_HIDDEN:
            console.print(f"... and {len(facts) - MOST_HIDDEN:,} more (all with --json)", markup=False)


def _heading(text: str) -> tuple[str, ...]:
    return (text, *[""] * (len(COLUMNS) - 1))


def _row(finding: Finding, indent: str = "") -> tuple[str, ...]:
    from clinical_data.naming import short_name, unit_text

    return (
        indent + short_name(finding.code),
        when(finding.available),
        when(finding.charted),
        _value(finding),
        unit_text(finding.unit),
        _range(finding),
        finding.flag,
    )


def minutes(text: str) -> int:
    """Returns a time in whole minutes: `360`, `1.5h`, `2d`, `-30`.

    Raises:
        UsageError: another form.
    """
    found = re.fullmatch(r"([+-]?\d{1,7}(?:\.\d{1,3})?)\s*(m|min|h|d)?", text.strip())
    if found is None:
        raise UsageError(f"--as-of {text}: no time", hint="minutes from the start of the case, or 1.5h, 2d")
    return floor(float(found[1]) * {"h": 60, "d": 1440}.get(found[2] or "m", 1))


def when(minute: int) -> str:
    """Returns minutes from the start of the case as people read them: `+2:05`, `-0:30`, and beyond two days `+3 d`."""
    sign, size = "-" if minute < 0 else "+", abs(minute)
    return f"{sign}{size // 60}:{size % 60:02d}" if size < 2880 else f"{sign}{size // 1440:,} d"


def in_order(truths: dict[str, GroundTruth]) -> list[tuple[str, GroundTruth]]:
    """Returns steps and their labels in the order of the workflow; steps of other pathways last."""
    from clinical_data.clocks import STEPS

    known = {step: n for n, step in enumerate(STEPS)}
    return sorted(truths.items(), key=lambda item: (known.get(item[0], len(known)), item[0]))


def truth_fields(truths: dict[str, GroundTruth]) -> dict[str, Any]:
    """Returns recorded labels in the row format of `cases --json`: `truth` and `absent`."""
    from evaluation.matching import truth_rows

    return {
        "truth": {step: truth_rows(truth) for step, truth in truths.items() if truth.labels},
        "absent": {step: truth.absent_reason for step, truth in truths.items() if truth.absent_reason},
    }


def _case_fields(chart: Chart) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "case_id": chart.case_id,
        "as_of": chart.clock,
        "age": chart.age,
        "sex": chart.sex,
        "context": chart.context,
        "findings": [asdict(f) for f in chart.known() if f.kind != "treatment"],
    }


def _labels_text(truths: dict[str, GroundTruth]) -> str:
    """Returns the principal label of each step, a line each, with the number of the others."""
    lines = []
    for step, truth in in_order(truths):
        if truth.labels:
            first = truth.labels[0].coding
            name = first.display if first.display in ("", first.code) else f"{first.code} {first.display}"
            others = f" (and {len(truth.labels) - 1} more)" if len(truth.labels) > 1 else ""
            lines.append(f"{step}: {name or first.code}{others}")
    return "\n".join(lines)


def _value(finding: Finding) -> str:
    if finding.value is None:
        return "" if finding.result_in_source else "done, result not in source"
    return finding.value if isinstance(finding.value, str) else f"{finding.value:g}"


def _range(finding: Finding) -> str:
    if finding.low is None:
        return "" if finding.high is None else f"up to {finding.high:g}"
    return f"from {finding.low:g}" if finding.high is None else f"{finding.low:g}-{finding.high:g}"
