"""What a replay would have to do, counted without a model: cases, and case-steps by the rules of the replay itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Engine

from clinical_data.case import Case
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.truth_store import TruthStore
from evaluation.judging import judge_of
from evaluation.store.run_store import Run, RunStore, differing_keys
from evaluation.watching import Watch, unwatched
from search.value import GROUND_TRUTH
from workflow.case_worker import done_steps
from workflow.config import PreparedRun, make_config, prepare
from workflow.options import ReplayOptions
from workflow.pathway import Pathway
from workflow.pathway_model import END, START
from workflow.route import Stand, holds
from workflow.runner import case_ids_of
from workflow.step import StepPlan, why_not

_OF_ANSWERS = ("abstained", "answer_settled", "budget_left")  # conditions that only a conclusion decides
NO_LABEL = "no recorded label to value answers by"


@dataclass(slots=True)
class StepCount:
    """The case-steps of one step.

    Attributes:
        applicable: searched for certain.
        perhaps: searched if the conclusion of an earlier step leads there.
        not_applicable: reason -> case-steps that are recorded without a search.
        done: of the applicable ones, stored already.
    """

    applicable: int = 0
    perhaps: int = 0
    not_applicable: Counter[str] = field(default_factory=Counter)
    done: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """A replay, counted.

    Attributes:
        run: the stored run that it would go on with; None for a new one.
        cases: cases of the run.
        again: a loop of the pathway may take steps again, which is not counted.
    """

    prepared: PreparedRun
    run: Run | None
    cases: int
    steps: dict[str, StepCount]
    again: bool


def count_run(engine: Engine, options: ReplayOptions, run_name: str = "", watch: Watch = unwatched) -> Counted:
    """Counts what `replay` would do with the same options.

    Args:
        engine: the database.
        options: those of the replay.
        run_name: its name; an existing run of identical configuration is gone on with, as `replay` does.
        watch: told how far it is.

    Raises:
        UsageError: as `replay`: bad options, no case, or a name that belongs to a run of another configuration.
        BadInputError: a pathway file that is not valid.
        StorageError: the database failed.
    """
    config = make_config(options)
    prepared = prepare(config)
    ids = case_ids_of(engine, prepared.split, prepared.split_scheme, prepared.cases, prepared.limit, options.cases)
    store = RunStore(engine)
    run = next((r for r in store.runs() if r.name == run_name and not differing_keys(r.config, config)), None)
    done = done_steps(store, run, False) if run is not None else {}
    truth = TruthStore(engine)
    steps = {name: StepCount() for name in prepared.plans}
    loops = False
    for number, case in enumerate(CaseReader(engine).without_findings(ids), 1):
        reasons = {name: why_not(case, plan) for name, plan in prepared.plans.items()}
        reasons |= _without_label(case, truth, prepared.plans, reasons)
        paths, again = possible_paths(case, prepared.pathway, reasons)
        loops = loops or again
        for name, count in steps.items():
            ways = [name in path for path in paths]
            if not any(ways):
                continue
            stored = (case.case_id, name, 1) in done
            if reasons[name]:
                count.not_applicable[reasons[name]] += 1
            elif all(ways) or stored:
                count.applicable += 1
                count.done += stored
            else:
                count.perhaps += 1
        watch("counting", number, len(ids))
    return Counted(prepared, run, len(ids), steps, loops)


def possible_paths(case: Case, pathway: Pathway, reasons: Mapping[str, str]) -> tuple[list[list[str]], bool]:
    """Returns the paths that a case may take, loops left out, and whether there are any.

    Args:
        case: the case; its findings are not needed.
        pathway: the pathway.
        reasons: step -> why it is not applicable, or an empty text; steps that are not taken are absent.
    """
    again = False

    def follow(path: list[str]) -> list[list[str]]:
        nonlocal again
        found: list[list[str]] = []
        for target, certain in _next(case, pathway, path[-1], reasons):
            if target in path:  # once its bound is reached, the case leaves by the other edges
                again = True
                continue
            found += [path] if target == END else follow([*path, target])
            if certain:
                return found
        return [*found, path]

    return [path[1:] for path in follow([START])], again


def _next(case: Case, pathway: Pathway, name: str, reasons: Mapping[str, str]) -> list[tuple[str, bool]]:
    """Returns (target, whether it is certain) of the edges that may be taken, in their order."""
    found = []
    known = {step.name for step in pathway.steps}
    for edge in pathway.edges_from(name):
        predicate = edge.condition
        target = edge.to if edge.to in known else END
        if predicate is None:
            found.append((target, True))
        elif predicate in _OF_ANSWERS and reasons.get(name) == "":  # a step that is searched; else nothing is concluded
            found.append((target, False))
        elif holds(edge, name, pathway, case, Stand()) == bool(edge.when):
            found.append((target, True))
    return found


def _without_label(
    case: Case, truth: TruthStore, plans: Mapping[str, StepPlan], reasons: Mapping[str, str]
) -> dict[str, str]:
    """Returns the steps that have no recorded label, where a run is valued by them."""
    valued = [name for name, plan in plans.items() if plan.settings.value == GROUND_TRUTH and not reasons[name]]
    if not valued:
        return {}
    labels = truth.truth(case.case_id)
    found = {}
    for name in valued:
        step = plans[name].step
        if judge_of(labels.get(step.truth), plans[name].vocabularies[case.source]) is None:
            found[name] = NO_LABEL
    return found
