"""`wardstar review`: clinicians read the case-steps of a run in a browser; who reads, how far they are, and the log."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinical_data.errors import BadInputError, UsageError
from workflow.commands.common import DEFAULT_DB, AsJson, Db, RunName, database, say, show_json, show_rows

if TYPE_CHECKING:
    from evaluation.reading.app.guard import App

review_app = typer.Typer(help="Clinicians read what a run concluded.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the reader.")]
PORT = 8765


@review_app.command("serve")
def serve(
    run: RunName,
    db: Db = DEFAULT_DB,
    host: Annotated[str, typer.Option("--host", help="Address to listen at; others than this machine need TLS.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any that is free.")] = PORT,
    overlap: Annotated[
        str | None,
        typer.Option("--overlap", help="Case-steps that two readers read: 20%, 30, or all; kept for the next time."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A name by which browsers call this machine; repeatable.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate, to serve by https.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key.")] = None,
) -> None:
    """Serves the readings of a run to browsers until it is stopped. Without --host it serves this machine alone."""
    import uvicorn

    from evaluation.reading.app.application import create_app
    from evaluation.reading.app.guard import Place
    from evaluation.reading.desk import Desk
    from evaluation.reading.work_list import overlap_of
    from evaluation.store.run_store import RunStore

    hosts = _hosts(host, allow_host or [])
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together")
    tls = tls_cert is not None
    place = Place(hosts, secure=tls or _is_open(host))
    with database(db) as engine:
        desk = Desk(engine, RunStore(engine).get(run))
        if overlap is not None:
            overlap_of(overlap, 0)
            desk.store.set_plan(overlap)
        if not desk.readers.all():
            say("no reader yet: `wardstar review add-reviewer NAME ...` makes one, also while this serves")
        app: App = create_app(engine, desk.run, place)
        listening = _listen(host, port)
        if _is_open(host):
            say(f"warning: {host} can be reached from other machines; the readings show patients' records")
            if not tls:
                say("warning: without --tls-cert the log-in works only behind a server that adds https")
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"{'https' if tls else 'http'}://{shown}:{listening.getsockname()[1]}/")
        uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_graceful_shutdown=5,
                ssl_certfile=str(tls_cert) if tls_cert else None,
                ssl_keyfile=str(tls_key) if tls_key else None,
            )
        ).run(sockets=[listening])


@review_app.command("add-reviewer")
def add_reviewer(
    name: Name,
    db: Db = DEFAULT_DB,
    role: Annotated[str, typer.Option("--role", help="resident, attending, ...")] = "",
    specialty: Annotated[str, typer.Option("--specialty", help="internal medicine, ...")] = "",
    years: Annotated[int, typer.Option("--years", min=0, max=80, help="Years in practice.")] = 0,
    adjudicator: Annotated[bool, typer.Option("--adjudicator", help="Settles readings that differ.")] = False,
    new_token: Annotated[bool, typer.Option("--new-token", help="Another token for a reader there is.")] = False,
) -> None:
    """Adds a reader and shows the token, once; it is stored hashed."""
    from evaluation.reading.readers import Readers

    with database(db) as engine:
        readers = Readers(engine)
        about = (name, role, specialty, years)
        token = readers.renew(name) if new_token else readers.add(*about, adjudicator=adjudicator)
    typer.echo(token)
    say("shown once: give it to the reader by a way that nobody else reads")


@review_app.command("disable-reviewer")
def disable_reviewer(name: Name, db: Db = DEFAULT_DB) -> None:
    """Shuts a reader out and ends their sessions; what they read stays. `--new-token` lets them in again."""
    from evaluation.reading.readers import Readers

    with database(db) as engine:
        Readers(engine).disable(name)
    say(f"{name} is shut out")


@review_app.command("progress")
def progress(run: RunName, db: Db = DEFAULT_DB, as_json: AsJson = False) -> None:
    """Shows how far each reader is with a run."""
    from evaluation.reading.desk import Desk
    from evaluation.store.run_store import RunStore

    with database(db) as engine:
        rows, disputed = Desk(engine, RunStore(engine).get(run)).progress()
    shown = [
        {
            "reader": p.reader.name,
            "role": p.reader.role,
            "adjudicator": "yes" if p.reader.adjudicator else "",
            "shut out": "yes" if p.reader.disabled else "",
            "case-steps": p.case_steps,
            "begun": p.begun,
            "own answer": p.committed,
            "finished": p.finished,
            "minutes": p.minutes,
        }
        for p in rows
    ]
    if as_json:
        show_json({"run": run, "readers": shown, "differing": disputed})
        return
    show_rows(shown)
    say(f"{disputed} case-steps with readings that differ and are not settled")


@review_app.command("verify")
def verify(
    db: Db = DEFAULT_DB,
    head: Annotated[str, typer.Option("--head", help="A head noted earlier: is it still part of the chain?")] = "",
    as_json: AsJson = False,
) -> None:
    """Checks the chain of the log of readings; exit code 3 where an entry was altered, removed or put in."""
    from dataclasses import asdict

    from evaluation.reading.audit import verify as walk

    with database(db) as engine:
        found = walk(engine, head)
    if as_json:
        show_json(asdict(found))
    else:
        typer.echo(f"{found.entries} entries in order, head {found.head}")
    if found.broken is not None:
        raise BadInputError(
            f"log of readings, entry {found.broken}: {found.why}", hint="restore the database from a copy before it"
        )
    if found.has_head is False:
        raise BadInputError(
            "log of readings: the noted head is not in the chain",
            hint="entries were cut off, or it is another database",
        )


def _is_open(host: str) -> bool:
    from evaluation.reading.app.guard import is_loopback

    return not is_loopback(host)


def _hosts(host: str, allowed: list[str]) -> frozenset[str]:
    from evaluation.reading.app.guard import LOOPBACK

    any_address = host in ("0.0.0.0", "::")
    if any_address and not allowed:
        raise UsageError(
            f"--host {host} needs --allow-host", hint="the name or address by which browsers call this machine"
        )
    own = [] if any_address else [host]
    return frozenset(name.lower() for name in (*own, *allowed, *LOOPBACK))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(256)  # before the address is told: who calls at once waits, and is not refused
    except OSError as error:
        listening.close()
        raise UsageError(
            f"{host}:{port}: cannot listen there ({error.strerror})", hint="another --port or --host"
        ) from error
    return listening
