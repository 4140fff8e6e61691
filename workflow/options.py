"""Every option that decides the results of a replay, with its default and meaning: the one place where they stand.

Command line, configuration file, `config init` and `config show` are all made from it.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from clinical_data.errors import BadInputError, UsageError, did_you_mean
from clinical_data.splits import PATIENT_SCHEME
from search.models.registry import OPTIONS as MODEL_TYPES
from search.models.registry import check_options
from search.settings import PRESETS, SearchSettings, preset
from search.strategies import settings_of

AT_ONCE = 8  # cases whose requests share batches
COMMAND_LINE, DEFAULT = "command line", "default"
TABLES = {"search": "settings", "models": "models"}
"""Tables of a configuration file, and of `--set`: name -> field of `ReplayOptions`."""
FILE_ONLY = ("allowed_hosts",)  # so that no command line that was pasted or mistyped sends a record elsewhere

# Default (None: the back-end decides) and meaning of `search.models.registry.OPTIONS`.
MODEL_OPTIONS: dict[str, tuple[Any, str]] = {
    "dtype": ("auto", "Of local weights: auto (bf16 where the device computes it faster), fp32, bf16 or fp16."),
    "device": ("auto", "Of local weights: auto (a GPU if there is one), cpu, cuda, ..."),
    "threads": (None, "Threads of local weights on a processor; those of torch when left out."),
    "max_batch": (64, "Most rows of local weights in one pass."),
    "cache_mb": (2048.0, "Memory for keys and values of prompts that are kept between requests, in MB."),
    "timeout": (600.0, "Of a served model: seconds for one request."),
    "retries": (4, "Of a served model: how often a request that failed is tried again."),
    "concurrency": (8, "Of a served model: requests in flight."),
}


def _option(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Every option of `wardstar replay` that decides results.

    `value` and `chart_access` are search settings with an option of their own; None means as `settings` say. `settings`
    are the search settings that differ from the preset's, `models` the options of the back-ends
    (`search.models.registry.OPTIONS`) that differ from their defaults.
    """

    pathway: str = _option("inpatient", "Name of a bundled pathway, or a YAML file.")
    steps: tuple[str, ...] = _option((), "Steps to take, with commas between; all when left out.")
    split: str | None = _option(None, "train, tuning or held-out; all cases when left out.")
    split_scheme: str = _option(PATIENT_SCHEME, "What the split was drawn by: patient (default) or hospital.")
    limit: int | None = _option(None, "First N cases, in order of case id.")
    cases: str | None = _option(None, "File with a case id a line: these alone, of the split if one is named.")
    strategy: str = _option(
        "rstar", "rstar (default), rap, greedy, self-consistency, best-of-n, full-information, part-information."
    )
    value: str | None = _option(
        None, "self_consistency (default), rap, model:FOLDER (see train stepwise); ground_truth with --split train."
    )
    chart_access: str | None = _option(None, "hindsight (default), or prospective: imagined until a turn is committed.")
    preset: str = _option("default", "default, paper or paper-8; other options come on top.")
    predecessors: str = _option(
        "none", "Earlier conclusions shown to a step: none (default), predicted, or recorded: an oracle."
    )
    review: str = _option(
        "skip", "Where a step asks a clinician as well: skip (default), or wait for resume --answers."
    )
    seed: int = _option(0, "Seed of the run (0).")
    generator: str = _option(
        "embedded", "Model: embedded (default), hf:ORG/NAME, a folder, scripted:FILE, random:SEED."
    )
    peer: str | None = _option(None, "Model that verifies; the generator under other seeds when left out.")
    allowed_hosts: tuple[str, ...] = _option((), "Hosts besides this machine that a served model may be on.")
    batch_across_cases: bool = _option(
        False, "Take several cases at once, in common batches; no record is then repeatable."
    )
    cases_at_once: int | None = _option(None, f"Cases that share batches, with --batch-across-cases ({AT_ONCE}).")
    settings: dict[str, Any] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """One option: its name as in a file, its kind (str, int, float, bool or tuple), default and meaning."""

    name: str
    kind: type
    default: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """Options, and where each that was given comes from: dotted name -> a file, or `COMMAND_LINE`."""

    options: ReplayOptions
    origins: Mapping[str, str]


@cache
def option_infos() -> tuple[OptionInfo, ...]:
    """Returns the options of a replay, without the tables."""
    hints = get_type_hints(ReplayOptions)
    found = []
    for one in fields(ReplayOptions):
        if one.name not in TABLES.values():
            kinds = [k for k in get_args(hints[one.name]) if k is not type(None)]
            kind = tuple if isinstance(one.default, tuple) else kinds[0] if kinds else hints[one.name]
            found.append(OptionInfo(one.name, kind, one.default, one.metadata["meaning"]))
    return tuple(found)


@cache
def table_infos(table: str) -> tuple[OptionInfo, ...]:
    """Returns the options of the table `search` or `models`."""
    if table == "models":
        return tuple(OptionInfo(name, MODEL_TYPES[name], *MODEL_OPTIONS[name]) for name in MODEL_TYPES)
    meanings = _meanings(SearchSettings)
    return tuple(OptionInfo(n, type(v), v, meanings[n]) for n, v in asdict(SearchSettings()).items())


def choose(given: Mapping[str, Any], config: Path | None = None, sets: Sequence[str] = ()) -> Chosen:
    """Returns the options of a replay: those of the command line, over those of a file, over the defaults.

    Args:
        given: options of the command line by name, and `rollouts`; empty, None and False mean not given.
        config: a configuration file.
        sets: `TABLE.NAME=VALUE`, for the options of the tables.

    Raises:
        UsageError: an option of the command line that does not exist, has another type or is given twice.
        BadInputError: as `read_options`.
    """
    values: dict[str, Any] = {"settings": {}, "models": {}} if config is None else read_options(config)
    origins = {name: str(config) for name in dotted(values)}
    own: dict[str, Any] = {name: v for name, v in given.items() if v not in ("", None, ()) and v is not False}
    tables: dict[str, dict[str, Any]] = {"settings": {}, "models": {}}
    if "rollouts" in own:
        tables["settings"]["rollouts"] = own.pop("rollouts")
    for text in sets:
        table, name, value = parse_set(text)
        place = own if table == "settings" and name in _named() else tables[table]
        if name in place:
            raise UsageError(f"{name} is given twice on the command line")
        place[name] = value
    merged = {table: {**values[table], **inner} for table, inner in tables.items()}
    origins.update(dict.fromkeys(dotted({**own, **tables}), COMMAND_LINE))
    return Chosen(ReplayOptions(**{**values, **own, **merged}), origins)


def parse_set(text: str) -> tuple[str, str, Any]:
    """Returns (field of `ReplayOptions`, name, value) of `search.NAME=VALUE` or `models.NAME=VALUE`.

    Raises:
        UsageError: another form, no such option, or a value of another type.
    """
    place, equals, word = text.partition("=")
    table, dot, name = place.strip().partition(".")
    name = name.replace("-", "_")
    if not equals or not dot or table not in TABLES:
        hint = "--set search.rollouts=8, or --set models.dtype=fp32"
        raise UsageError(f"--set {place.strip() or text!r} is no search.NAME=VALUE or models.NAME=VALUE", hint=hint)
    infos = {info.name: info for info in table_infos(table)}
    if name not in infos:
        hint = f"known: {', '.join(sorted(infos))}"
        raise UsageError(f"--set: unknown option {table}.{name}{did_you_mean(name, infos)}", hint=hint)
    kind = infos[name].kind
    try:
        value = kind(word.strip())
    except ValueError:
        words = {int: "a whole number", float: "a number"}[kind]
        raise UsageError(f"--set {table}.{name} must be {words}") from None
    check: Callable[..., object] = SearchSettings().with_options if table == "search" else _check_models
    check(**{name: value})
    return TABLES[table], name, value


def read_options(path: Path) -> dict[str, Any]:
    """Returns the options in a TOML file: keys as the options of `replay` (`-` or `_`), search settings under [search],
    options of the models under [models].

    Raises:
        BadInputError: missing, not TOML, or an unknown key.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(f"cannot be read ({error.strerror})", file=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"invalid TOML: {error}", file=path) from error
    settings = _table(data, "search", path, lambda options: SearchSettings().with_options(**options))
    models = _table(data, "models", path, check_options)
    values = {key.replace("-", "_"): value for key, value in data.items()}
    infos = {info.name: info for info in option_infos()}
    if unknown := sorted(set(values) - set(infos)):
        near = did_you_mean(unknown[0], infos) or _elsewhere(unknown[0])
        hint = f"known: {', '.join(sorted(infos))}"
        raise BadInputError(f"unknown option{near}", file=path, field=unknown[0], hint=hint)
    for name, value in values.items():
        kind = infos[name].kind
        if kind is tuple and isinstance(value, list | str):
            values[name] = value = tuple(value.split(",") if isinstance(value, str) else value)
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            words = {int: "a whole number", tuple: "a list of words", str: "a word", bool: "true or false"}[kind]
            raise BadInputError(f"must be {words}", file=path, field=name)
        if isinstance(value, tuple) and not all(isinstance(v, str) for v in value):
            raise BadInputError("must be a list of words", file=path, field=name)
    return {**values, "settings": settings, "models": models}


def search_settings(options: ReplayOptions) -> SearchSettings:
    """Returns the search settings of a run: those of the preset, under the options given, as its strategy takes them.

    Raises:
        UsageError: no such preset or setting, a value out of range, or another value source than the strategy's own.
    """
    named = {name: getattr(options, name) for name in _named()}
    given = {**options.settings, **{name: word for name, word in named.items() if word is not None}}
    settings = SearchSettings().with_options(**{**preset(options.preset), **given})
    taken = settings_of(options.strategy, settings)
    if "value" in given and taken.value != settings.value:
        raise UsageError(f"--strategy {options.strategy} values by {taken.value}, not by {settings.value}")
    return taken


def effective(chosen: Chosen) -> list[dict[str, Any]]:
    """Returns every option as it takes effect: rows `{option, value, from}`, dotted names for those of the tables."""
    options, origins = chosen.options, chosen.origins
    settings, of_preset = search_settings(options), PRESETS[options.preset]
    rows = []
    for info in option_infos():
        if info.name not in _named():
            value = getattr(options, info.name)
            shown = list(value) if isinstance(value, tuple) else value
            rows.append({"option": info.name, "value": shown, "from": origins.get(info.name, DEFAULT)})
    for info in table_infos("search"):
        value = getattr(settings, info.name)
        origin = origins.get(info.name) if info.name in _named() else None
        origin = origin or origins.get(f"search.{info.name}")
        if origin is None and info.name in of_preset:
            origin = f"preset {options.preset}"
        if origin is None and value != info.default:
            origin = f"strategy {options.strategy}"
        rows.append({"option": f"search.{info.name}", "value": value, "from": origin or DEFAULT})
    for info in table_infos("models"):
        value = options.models.get(info.name, info.default)
        rows.append(
            {"option": f"models.{info.name}", "value": value, "from": origins.get(f"models.{info.name}", DEFAULT)}
        )
    return rows


def template() -> str:
    """Returns a configuration file in which every option stands, commented out, with its default and meaning."""
    lines = [
        "# Options of `wardstar replay --config FILE`, each with its default. Remove the `#` before one to change it.",
        "# What the command line says wins over this file, and this file over a preset.",
    ]
    for info in option_infos():
        lines += ["", *_entry(info)]
    for table in TABLES:
        lines += ["", f"[{table}]"]
        for info in table_infos(table):
            lines += ["", *_entry(info)]
    return "\n".join(lines) + "\n"


def dotted(values: Mapping[str, Any]) -> list[str]:
    """Returns the names of options, those of the tables as `search.NAME` and `models.NAME`."""
    names = [name for name in values if name not in TABLES.values()]
    return names + [f"{table}.{name}" for table, key in TABLES.items() for name in values.get(key, ())]


def _entry(info: OptionInfo) -> list[str]:
    words = inspect.cleandoc(info.meaning)
    meaning = [f"# {line}" for line in _folded(words, 116)]
    value = info.default
    if value is None:
        kinds = {int: "a whole number", float: "a number", str: "a word"}
        return [*meaning, f"# (none; {kinds[info.kind]})", f"#{info.name} ="]
    if isinstance(value, tuple):
        return [*meaning, f"#{info.name} = []"]
    text = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else repr(value)
    return [*meaning, f"#{info.name} = {text}"]


def _folded(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width)


def _named() -> tuple[str, ...]:
    """Returns the search settings that have an option of their own."""
    return ("value", "chart_access")


def _meanings(kind: type) -> dict[str, str]:
    """Returns what the `Attributes:` of a docstring say of each name."""
    text = inspect.getdoc(kind) or ""
    found: dict[str, str] = {}
    for block in re.split(r"\n    (?=\S)", text.partition("Attributes:")[2]):
        names, colon, meaning = block.strip().partition(": ")
        words = " ".join(meaning.split())
        if colon:
            found |= {name.strip(): words[:1].upper() + words[1:] for name in names.split(",")}
    return found


def _elsewhere(name: str) -> str:
    """Returns the table in which an option stands, for one that was written outside of it."""
    places = [f"{table}.{name}" for table in TABLES if name in {info.name for info in table_infos(table)}]
    return f"; did you mean {places[0]}, under [{places[0].partition('.')[0]}]?" if places else ""


def _check_models(**options: Any) -> None:
    check_options(options)


def _table(data: dict[str, Any], name: str, path: Path, check: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Takes a table out of a configuration file and checks it."""
    table = data.pop(name, {})
    if not isinstance(table, dict):
        raise BadInputError("must be a table", file=path, field=name)
    try:
        check(table)
    except UsageError as error:
        raise BadInputError(error.message, file=path, field=name, hint=error.hint) from error
    return table
