"""What decides the results of a run, as one plain dictionary that is stored with it and from which it resumes."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from clinical_data.catalogue import load_catalogue
from clinical_data.clocks import STEPS
from clinical_data.errors import BadInputError, UsageError
from clinical_data.splits import SCHEMES, SPLITS, TRAIN
from search.models.registry import check_options
from search.settings import SearchSettings
from search.strategies import STRATEGIES, check_strategy, settings_of
from search.value import GROUND_TRUTH, value_model
from search.wording import template_hash
from workflow.options import AT_ONCE, search_settings
from workflow.options import ReplayOptions as ReplayOptions
from workflow.options import read_options as read_options
from workflow.pathway import LoadedPathway, Pathway, load_pathway, parse_pathway
from workflow.pathway_check import SCORERS
from workflow.step import StepPlan, plan_step

FORMAT = 2
BATCHED = "batch_across_cases"
PREDECESSORS = ("predicted", "recorded", "none")
REVIEWS = ("skip", "wait")
_PACKAGES = ("wardstar", "torch", "transformers", "tokenizers", "langgraph", "fhir.resources", "sqlalchemy")


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
    return {**config, "hashes": hashes_of(loaded.pathway)}


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
    now = hashes_of(pathway)
    if changed := sorted(k for k in now | config["hashes"] if now.get(k) != config["hashes"].get(k)):
        raise UsageError(f"changed since this run began: {', '.join(changed)}", hint="start a new run with --run")
    check_names(pathway)
    settings = SearchSettings().with_options(**config["settings"])
    catalogue = load_catalogue(pathway.catalogue)
    return PreparedRun(
        pathway=pathway,
        pathway_sha256=loaded.sha256,
        plans={name: plan_step(pathway.step(name), catalogue, settings, pathway.language) for name in config["steps"]},
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


def hashes_of(pathway: Pathway) -> dict[str, str]:
    """Returns `prompts`, `catalogue NAME` and `vocabulary NAME` of a pathway -> SHA-256 of what the program has."""
    catalogue = load_catalogue(pathway.catalogue)
    found = {"prompts": template_hash(pathway.language), f"catalogue {catalogue.name}": catalogue.sha256}
    for step in pathway.steps:
        for vocabulary in plan_step(step, catalogue, SearchSettings()).vocabularies.values():
            found[f"vocabulary {vocabulary.name}"] = vocabulary.sha256
    return found
