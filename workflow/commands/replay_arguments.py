"""The options of `replay`, for every command that takes them, made from `workflow.options`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from workflow.commands.common import with_parameters
from workflow.options import FILE_ONLY, Chosen, choose, option_infos

_CHOSEN = "chosen"
_EXTRA: dict[str, tuple[Any, Any]] = {
    "rollouts": (Annotated[int | None, typer.Option("--rollouts", help="Rollouts of one search (16).")], None),
    "sets": (
        Annotated[
            list[str],
            typer.Option(
                "--set",
                metavar="TABLE.NAME=VALUE",
                help="A setting of the search (search.NAME=VALUE) or of a model's back-end (models.NAME=VALUE); may be "
                "given several times. `wardstar config init` lists all.",
            ),
        ],
        [],
    ),
    "config": (Annotated[Path | None, typer.Option("--config", help="TOML file with any of these options.")], None),
}
Sets = _EXTRA["sets"][0]


def takes_replay_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `replay`, in the place of its parameter `chosen`, which takes what was chosen."""
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == _CHOSEN:
            parameters += [_parameter(name, kind, default) for name, kind, default in _options()]
        else:
            parameters.append(_parameter(parameter.name, hints[parameter.name], parameter.default))
    names = [name for name, _, _ in _options()]

    @functools.wraps(command)
    def taken(**given: Any) -> None:
        own = {name: given.pop(name) for name in names}
        sets, config = own.pop("sets"), own.pop("config")
        own["steps"] = tuple(s.strip() for s in own["steps"].split(",") if s.strip())
        own["chart_access"] = own["chart_access"].lower()
        chosen: Chosen = choose(own, config, sets)
        command(chosen=chosen, **given)

    return with_parameters(taken, parameters)


def _options() -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for info in option_infos():
        if info.name in FILE_ONLY:
            continue
        option = typer.Option("--" + info.name.replace("_", "-"), help=info.meaning)
        if info.kind is bool:
            found.append((info.name, Annotated[bool, option], False))
        elif info.kind is int:
            found.append((info.name, Annotated[int | None, option], None))
        else:
            found.append((info.name, Annotated[str, option], ""))
    return [*found, *((name, kind, default) for name, (kind, default) in _EXTRA.items())]


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
