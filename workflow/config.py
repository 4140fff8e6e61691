"""What decides the results of a run, as one plain dictionary that is stored with it and from which it resumes."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clinical_data.catalogue import load_catalogue
from clinical_data.clocks import STEPS
from clinical_data.errors import BadInputError, UsageError
from clinical_data.splits import PATIENT_SCHEME, SCHEMES, SPLITS, TRAIN
from search.models.registry import check_options
from search.prompts import TEMPLATE_HASH
from search.settings import SearchSettings, preset
from search.strategies import STRATEGIES, check_strategy, settings_of
from search.value import GROUND_TRUTH, value_model
from workflow.pathway import LoadedPathway, Pathway, load_pathway, parse_pathway
from workflow.pathway_check import SCORERS
from workflow.step import StepPlan, plan_step

FORMAT = 2
AT_ONCE = 8  # cases whose requests share batches
BATCHED = "batch_across_cases"
PREDECESSORS = ("predicted", "recorded", "none")
REVIEWS = ("skip", "wait")
_LISTS = ("steps", "allowed_hosts")
_TYPES: dict[str, type] = {
    **dict.fromkeys(_LISTS, tuple),
    **dict.fromkeys(("limit", "seed", "cases_at_once"), int),
    BATCHED: bool,
}  # of options in a file; all others are words
_PACKAGES = ("wardstar", "torch", "transformers", "tokenizers", "langgraph", "fhir.resources", "sqlalchemy")


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Every option of `wardstar replay` that decides results.

    Attributes:
        pathway: name of a bundled pathway, or a YAML file.
        steps: steps to take; empty means all.
        split, limit: which cases; None means all.
        split_scheme: what the split was drawn by, `patient` or `hospital`.
        cases: file with a case id a line, to which the run is confined (`#` begins a remark); None means all.
        value, chart_access: search settings with an option of their own; None means as `settings` say.
        preset: search settings that a paper used; `settings` and the options above come on top.
        predecessors: conclusions of earlier steps that a step is shown: `none`, the `predicted` ones, or the `recorded`
            labels, an oracle.
        review: at a step that a clinician answers as well: `skip` goes on without, `wait` waits for `resume --answers`.
        generator, peer: model SPECs; peer None means the generator's weights under other seeds.
        allowed_hosts: hosts besides this machine that a served model may be on; only a configuration file names them.
        batch_across_cases: let cases share the batches of the models.
        cases_at_once: how many; None means AT_ONCE.
        settings: search settings that differ from the preset's.
        models: options of the back-ends (`search.models.registry.OPTIONS`) that differ from their defaults.
    """

    pathway: str = "inpatient"
    steps: tuple[str, ...] = ()
    split: str | None = None
    split_scheme: str = PATIENT_SCHEME
    limit: int | None = None
    cases: str | None = None
    strategy: str = "rstar"
    value: str | None = None
    chart_access: str | None = None
    preset: str = "default"
    predecessors: str = "none"
    review: str = "skip"
    seed: int = 0
    generator: str = "embedded"
    peer: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    batch_across_cases: bool = False
    cases_at_once: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    models: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run's configuration with everything in it looked up.

    Attributes:
        plans: steps to take, by name, in the order of the pathway.
        peer: model SPEC; None when the generator's weights serve.
        allowed_hosts, models: where models may be, and their options.
        batch_across_cases: how many cases share the batches of the models; 0: none does.
        cases: ids to which the run is confined; None: all of the split.
        waits: the run waits for clinicians where the pathway asks for them.
    """

    pathway: Pathway
    pathway_sha256: str
    plans: dict[str, StepPlan]
    split: str | None
    split_scheme: str
    limit: int | None
    strategy: str
    predecessors: str
    seed: int
    generator: str
    peer: str | None
    allowed_hosts: tuple[str, ...]
    models: dict[str, Any]
    batch_across_cases: int = 0
    cases: tuple[str, ...] | None = None
    waits: bool = False

    @property
    def value_model(self) -> str:
        """SPEC of the model that values trajectories; empty where none does."""
        return next((spec for plan in self.plans.values() if (spec := value_model(plan.settings.value))), "")


def make_config(options: ReplayOptions) -> dict[str, Any]:
    """Returns the configuration of a new run.

    Raises:
        UsageError: an option that cannot be, or is not available yet.
        BadInputError: a pathway file that is not valid.
    """
    _check(options)
    check_options(options.models)
    settings = search_settings(options)
    check_search(options, settings)
    loaded = load_pathway(options.pathway)
    sources = {settings.value}
    for step in loaded.pathway.steps:
        own = settings.with_options(**step.search)
        check_search(options, own)
        sources.add(own.value)
    if len(asked := sorted(name for name in sources if value_model(name))) > 1:
        raise UsageError(f"one run asks one value model, not {len(asked)}: {', '.join(asked)}")
    steps = [loaded.pathway.step(name).name for name in options.steps] or [s.name for s in loaded.pathway.steps]
    config: dict[str, Any] = {
        "format": FORMAT,
        "pathway": {
            "name": loaded.pathway.name,
            "version": loaded.pathway.version,
            "sha256": loaded.sha256,
            "text": loaded.text,
        },
        "steps": [s.name for s in loaded.pathway.steps if s.name in steps],
        "split": options.split,
        "split_scheme": options.split_scheme,
        "limit": options.limit,
        "strategy": options.strategy,
        "settings": asdict(settings),
        "chart_access": settings.chart_access,
        "predecessors": options.predecessors,
        "seed": options.seed,
        "generator": options.generator,
        "peer": options.peer,
        "allowed_hosts": list(options.allowed_hosts),
        "models": dict(sorted(options.models.items())),
    }
    if options.batch_across_cases:  # absent from any other run, which so keeps the configuration it always had
        config[BATCHED] = options.cases_at_once or AT_ONCE
    if options.review != "skip":
        config["review"] = options.review
    if options.cases is not None:
        config["cases"] = read_case_ids(Path(options.cases))
    return {**config, "hashes": _hashes(loaded.pathway)}


def search_settings(options: ReplayOptions) -> SearchSettings:
    """Returns the search settings of a run: those of the preset, under the options given, as its strategy takes them.

    Raises:
        UsageError: no such preset or setting, a value out of range, or another value source than the strategy's own.
    """
    named = {"value": options.value, "chart_access": options.chart_access}
    given = {**options.settings, **{name: word for name, word in named.items() if word is not None}}
    settings = SearchSettings().with_options(**{**preset(options.preset), **given})
    taken = settings_of(options.strategy, settings)
    if "value" in given and taken.value != settings.value:
        raise UsageError(f"--strategy {options.strategy} values by {taken.value}, not by {settings.value}")
    return taken


def check_search(options: ReplayOptions, settings: SearchSettings) -> None:
    """Raises UsageError for a strategy and settings that do not exist, exclude each other, or would leak labels."""
    check_strategy(options.strategy, settings)
    if settings_of(options.strategy, settings) != settings:
        raise UsageError(f"a step of this pathway values by {settings.value}; --strategy {options.strategy} does not")
    if settings.value == GROUND_TRUTH and options.split != TRAIN:
        raise UsageError(
            f"--value {GROUND_TRUTH} steers the search by recorded labels and needs --split {TRAIN}",
            hint="it is for making training data; judge a system with another value source",
        )


def prepare(config: Mapping[str, Any]) -> PreparedRun:
    """Returns a run's configuration with everything looked up.

    Raises:
        UsageError: the configuration was written by another version, or catalogue, vocabulary or prompts have changed
            since, so that the run could not go on as it began.
    """
    if config.get("format") != FORMAT:
        raise UsageError("this run was configured by another version of wardstar", hint="start a new run")
    loaded: LoadedPathway = parse_pathway(config["pathway"]["text"], file=config["pathway"]["name"])
    pathway = loaded.pathway
    now = _hashes(pathway)
    if changed := sorted(k for k in now | config["hashes"] if now.get(k) != config["hashes"].get(k)):
        raise UsageError(f"changed since this run began: {', '.join(changed)}", hint="start a new run with --run")
    check_names(pathway)
    settings = SearchSettings().with_options(**config["settings"])
    catalogue = load_catalogue(pathway.catalogue)
    return PreparedRun(
        pathway=pathway,
        pathway_sha256=loaded.sha256,
        plans={name: plan_step(pathway.step(name), catalogue, settings) for name in config["steps"]},
        split=config["split"],
        split_scheme=config["split_scheme"],
        limit=config["limit"],
        strategy=config["strategy"],
        predecessors=config["predecessors"],
        seed=config["seed"],
        generator=config["generator"],
        peer=config["peer"],
        allowed_hosts=tuple(config["allowed_hosts"]),
        models=config["models"],
        batch_across_cases=at_once_of(config),
        cases=tuple(config["cases"]) if "cases" in config else None,
        waits=config.get("review") == "wait",
    )


def read_case_ids(path: Path) -> list[str]:
    """Returns the case ids in a file, one a line, each once and in order; what follows `#` is a remark.

    Raises:
        BadInputError: missing, no text, or without an id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError("cannot be read as a list of case ids", file=path) from error
    ids = sorted({line.partition("#")[0].strip() for line in lines} - {""})
    if not ids:
        raise BadInputError("holds no case id", file=path)
    return ids


def at_once_of(config: Mapping[str, Any]) -> int:
    """Returns how many cases of a run share the batches of the models; 0: none does."""
    return int(config.get(BATCHED, 0))


def versions() -> dict[str, str]:
    """Returns the versions of what computes a run; imports none of it."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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
    known = {f.name for f in fields(ReplayOptions)} - {"settings", "models"}
    if unknown := sorted(set(values) - known):
        raise BadInputError("unknown option", file=path, field=unknown[0], hint=f"known: {', '.join(sorted(known))}")
    for name in _LISTS:
        if isinstance(listed := values.get(name), list | str):
            values[name] = tuple(listed.split(",") if isinstance(listed, str) else listed)
    for name, value in values.items():
        wanted: type = _TYPES.get(name, str)
        if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
            words = {int: "a whole number", tuple: "a list of words", str: "a word", bool: "true or false"}[wanted]
            raise BadInputError(f"must be {words}", file=path, field=name)
        if isinstance(value, tuple) and not all(isinstance(v, str) for v in value):
            raise BadInputError("must be a list of words", file=path, field=name)
    return {**values, "settings": settings, "models": models}


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


def _check(options: ReplayOptions) -> None:
    known = {
        "strategy": STRATEGIES,
        "predecessors": PREDECESSORS,
        "review": REVIEWS,
        "split": (None, *SPLITS),
        "split_scheme": SCHEMES,
    }
    for name, values in known.items():
        if getattr(options, name) not in values:
            hint = f"known: {', '.join(v for v in values if v)}"
            raise UsageError(f"--{name.replace('_', '-')} {getattr(options, name)} is unknown", hint=hint)
    if options.limit is not None and options.limit < 1:
        raise UsageError("--limit must be at least 1")
    if options.cases_at_once is not None:
        if options.cases_at_once < 1:
            raise UsageError("--cases-at-once must be at least 1")
        if not options.batch_across_cases:
            raise UsageError("--cases-at-once is for --batch-across-cases alone")


def check_names(pathway: Pathway) -> None:
    """Raises UsageError where a pathway names recorded labels or a scorer that do not exist."""
    for step in pathway.steps:
        if step.truth and step.truth not in STEPS:
            hint = f"known: {', '.join(STEPS)}"
            raise UsageError(f"step {step.name}: no recorded labels named {step.truth}", hint=hint)
        if unknown := [s for s in step.scorers if s not in SCORERS]:
            raise UsageError(f"step {step.name}: no scorer named {unknown[0]}", hint=f"known: {', '.join(SCORERS)}")


def _hashes(pathway: Pathway) -> dict[str, str]:
    catalogue = load_catalogue(pathway.catalogue)
    found = {"prompts": TEMPLATE_HASH, f"catalogue {catalogue.name}": catalogue.sha256}
    for step in pathway.steps:
        for vocabulary in plan_step(step, catalogue, SearchSettings()).vocabularies.values():
            found[f"vocabulary {vocabulary.name}"] = vocabulary.sha256
    return found
