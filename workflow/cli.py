"""The command line `wardstar`: commands, exit codes and errors.

Exit codes: 0 done, 1 internal error, 2 usage, 3 bad input, 4 model or back-end, 5 storage, 130 interrupted.
JSON goes to stdout alone; progress, remarks and errors go to stderr. Nothing leaves the machine: telemetry of every
library is switched off before it loads.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from clinical_data.errors import WardstarError
from workflow import logs
from workflow.commands import (
    cases,
    comparing,
    configuration,
    datasets,
    evolve,
    exports,
    imports,
    machine,
    managing,
    pathways,
    planning,
    review,
    review_results,
    runs,
    train,
    trees,
)
from workflow.commands.common import be_quiet, complain, long_command
from workflow.guard import quiet_libraries

app = typer.Typer(
    name="wardstar",
    help="Replays recorded hospital cases offline: small language models search the chart, a peer verifies, the record "
    "scores. For retrospective research, not for care.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_debug: list[bool] = [False]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"wardstar {version('wardstar')}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Log more, and show where an error came from.")] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Logs, remarks and progress as JSON lines with ids and counts.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Sets up logging; every command runs it first."""
    _debug[0] = debug
    be_quiet(False)
    logs.set_up(debug=debug, as_json=log_json)


app.command("demo")(long_command(machine.demo_command))
app.add_typer(datasets.data_app, name="data")
app.command("import")(long_command(imports.import_command))
app.add_typer(cases.cases_app, name="cases")
app.add_typer(pathways.pathway_app, name="pathway")
app.command("plan")(long_command(planning.plan_command))
app.command("replay")(long_command(runs.replay_command))
app.command("resume")(long_command(runs.resume_command))
app.add_typer(managing.runs_app, name="runs")
app.command("score")(long_command(comparing.score_command))
app.command("compare")(comparing.compare_command)
app.command("prompts")(runs.prompts_command)
app.command("records")(runs.records_command)
app.command("export")(long_command(exports.export_command))
app.command("report")(long_command(runs.report_command))
app.command("tree")(trees.tree_command)
review.review_app.command("agreement")(review_results.agreement_command)
review.review_app.command("export")(review_results.export_readings_command)
app.add_typer(review.review_app, name="review")
app.add_typer(train.train_app, name="train")
app.command("evolve")(long_command(evolve.evolve_command))
app.add_typer(machine.models_app, name="models")
app.add_typer(configuration.config_app, name="config")
app.command("doctor")(machine.doctor_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and leaves with its exit code.

    Args:
        arguments: without the program's name; None takes those of the process.
    """
    quiet_libraries()
    try:
        app(args=arguments, prog_name="wardstar")
    except WardstarError as error:
        complain(f"error: {error.message}")
        if error.hint:
            complain(f"hint: {error.hint}")
        _trace()
        sys.exit(error.exit_code)
    except Exception as error:  # its message may quote a record, so only its class is shown
        complain(f"internal error: {type(error).__name__}")
        if not _debug[0]:
            complain("hint: `wardstar --debug ...` shows where; the trace may quote the record")
        _trace()
        sys.exit(1)
    sys.exit(0)


def _trace() -> None:
    if _debug[0]:
        traceback.print_exc()
