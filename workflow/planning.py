"""What a replay would have to do, counted without a model: cases, and case-steps by the rules of the replay itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Engine

from clinical_data.case import Case
from clinical_data.clocks import labels_hold
from clinical_data.errors import StorageError
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.truth_store import TruthStore
from evaluation.judging import judge_of
from evaluation.store.run_store import Run, RunStore, differing_keys
from evaluation.watching import Watch, unwatched
from search.trajectory import Status
from search.value import GROUND_TRUTH
from workflow.config import PreparedRun, make_config, prepare
from workflow.options import ReplayOptions
from workflow.pathway_model import HUMAN, Pathway
from workflow.reviewing import reviews_of, status_in
from workflow.route import PASSED_BY, passed_by, reached
from workflow.runner import cases_of
from workflow.step import StepPlan, reason_of, why_not
from workflow.ways import Passage, Ways, ways_of

NO_LABEL = "no recorded label to value answers by"
DAMAGED = "the case cannot be read: failed"


@dataclass(slots=True)
class StepCount:
    """The case-steps of one step.

    Attributes:
        applicable: searched for certain.
        perhaps: searched if the conclusion of an earlier step, or of this one, leads there; else the step is recorded
            as passed by.
        again: of these, those that come again; where they do not come, nothing is recorded.
        not_applicable: reason -> case-steps that are recorded without a search.
        done: of the applicable ones, stored already.
    """

    applicable: int = 0
    perhaps: int = 0
    again: int = 0
    not_applicable: Counter[str] = field(default_factory=Counter)
    done: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """A replay, counted.

    Attributes:
        run: the stored run that it would go on with; None for a new one.
        cases: cases of the run.
        again: a loop of the pathway may take steps again.
        damaged: case id -> why it cannot be read, without a value of the record; a replay records its steps as failed.
    """

    prepared: PreparedRun
    run: Run | None
    cases: int
    steps: dict[str, StepCount]
    again: bool
    damaged: dict[str, str]


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
    store = RunStore(engine)
    run = next((r for r in store.runs() if r.name == run_name and not differing_keys(r.config, config)), None)
    ids = cases_of(engine, prepared, run, options.cases)
    done = {} if run is None else store.done(run.run_id)
    reviews = {} if run is None else reviews_of(store, run, prepared)
    stored: dict[str, dict[tuple[str, int], str]] = {}
    for case_id, step, occurrence in done:
        status = status_in((case_id, step, occurrence), done, reviews) or ""
        stored.setdefault(case_id, {})[step, occurrence] = status
    truth = TruthStore(engine)
    steps = {name: StepCount() for name in prepared.plans}
    walker = _Walker(prepared.pathway, prepared.plans)
    loops = False
    damaged: dict[str, str] = {}

    def note_damage(case_id: str, error: Exception) -> None:
        damaged[case_id] = reason_of(error)

    for number, case in enumerate(CaseReader(engine).without_findings(ids, note_damage), 1):
        known = stored.get(case.case_id, {})
        try:
            reasons = _reasons(case, prepared.plans)
            reasons |= _without_label(case, truth, prepared.plans, reasons)
            ways = walker.ways(case, reasons, known)
        except StorageError:
            raise
        except Exception as error:  # as `replay`: one bad case stops nothing
            note_damage(case.case_id, error)
            continue
        loops = loops or any(occurrence > 1 for _, occurrence in ways.some)
        for name, count in steps.items():
            _count(count, name, ways, reasons, known, prepared.pathway)
        watch("counting", number, len(ids))
    if damaged:
        for count in steps.values():
            count.not_applicable[DAMAGED] = len(damaged)
    return Counted(prepared, run, len(ids), steps, loops, damaged)


def _count(
    count: StepCount,
    name: str,
    ways: Ways,
    reasons: Mapping[Passage, str],
    known: Mapping[Passage, str],
    pathway: Pathway,
) -> None:
    """Adds what one case makes of one step."""
    passages = sorted(p for p in ways.some if p[0] == name)
    if not passages:
        sent = {step: 1 for step, _ in ways.sure}
        why = passed_by(pathway, HUMAN, sent) if ways.ends == {HUMAN} else PASSED_BY
        count.not_applicable[why] += 1
    for passage in passages:
        certain, again = passage in ways.sure or passage in known, passage[1] > 1
        if reasons[passage]:
            count.not_applicable[reasons[passage]] += certain or not again
        elif certain:
            count.applicable += 1
            count.done += passage in known
        else:
            count.perhaps += 1
            count.again += again


class _Walker:
    """Finds the ways of cases, once for all cases that are alike in everything that ways depend on."""

    def __init__(self, pathway: Pathway, plans: Mapping[str, StepPlan]) -> None:
        self._pathway, self._plans = pathway, plans
        self._found: dict[Hashable, Ways] = {}

    def ways(self, case: Case, reasons: Mapping[Passage, str], known: Mapping[Passage, str]) -> Ways:
        """Returns the ways of a case.

        Args:
            case: the case; its findings are not needed.
            reasons: passage -> why it is not applicable, or an empty text; of the steps that the run takes.
            known: passage -> status, of what is stored.
        """
        alike = (
            any(e.kind == "emergency" for e in case.encounters),
            tuple(reached(case, step, k) for step in self._pathway.steps for k in range(1, step.most + 1)),
            tuple(bool(reason) for reason in reasons.values()),
            tuple(sorted(known.items())),
        )
        if alike not in self._found:

            def status_of(step: str, occurrence: int) -> str | None:
                if step not in self._plans:
                    return ""
                passage = (step, occurrence)
                return known.get(passage) or (Status.NOT_APPLICABLE.value if reasons[passage] else None)

            self._found[alike] = ways_of(self._pathway, case, status_of)
        return self._found[alike]


def _reasons(case: Case, plans: Mapping[str, StepPlan]) -> dict[Passage, str]:
    """Returns passage -> why it is not applicable, or an empty text."""
    return {(name, k): why_not(case, plan, k) for name, plan in plans.items() for k in range(1, plan.step.most + 1)}


def _without_label(
    case: Case, truth: TruthStore, plans: Mapping[str, StepPlan], reasons: Mapping[Passage, str]
) -> dict[Passage, str]:
    """Returns the passages that have no recorded label, where a run is valued by them."""
    valued = [p for p, reason in reasons.items() if plans[p[0]].settings.value == GROUND_TRUTH and not reason]
    if not valued:
        return {}
    labels = truth.truth(case.case_id)
    found = {}
    for name, occurrence in valued:
        plan = plans[name]
        holds = labels_hold(plan.step.truth, occurrence)
        if not holds or judge_of(labels.get(plan.step.truth), plan.vocabularies[case.source]) is None:
            found[name, occurrence] = NO_LABEL
    return found
