"""One step of one case: opens the chart at the step's clock and runs the search. Never sees a recorded label."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from clinical_data.case import Case
from clinical_data.catalogue import Catalogue, CatalogueItem
from clinical_data.chart import open_chart
from clinical_data.errors import StorageError, WardstarError
from clinical_data.vocabulary import Vocabulary, load_vocabulary
from search.problem import Models, SearchProblem
from search.settings import SearchSettings
from search.strategies import run_search
from search.trajectory import SearchResult
from search.value import GROUND_TRUTH, Judge
from search.wording import ENGLISH
from workflow.pathway_model import Step
from workflow.state import StepConclusion, no_answer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A step made ready for a run: its catalogue items, vocabularies and settings looked up once.

    Attributes:
        opening: items answered in the prompt.
        items: items that may be requested; those of the opening are answered already and left out.
        vocabularies: source name -> closed list of answers.
        settings: the run's settings with the step's own on top; a free answer is voted on by free text.
        language: of the pathway, in which the model is asked.
    """

    step: Step
    catalogue: Catalogue
    opening: tuple[CatalogueItem, ...]
    items: tuple[CatalogueItem, ...]
    vocabularies: dict[str, Vocabulary]
    settings: SearchSettings
    language: str = ENGLISH


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How a step ended: a problem with its result, or the reason why there is none.

    Attributes:
        plan: what was to be done.
        problem: the question as the search saw it; None when the step is not applicable.
        result: what the search returned; None when not applicable or failed.
        reason: why there is no result; holds no value of the record.
        failed: the step was tried and broke.
        seconds: wall time.
        occurrence: how many times the case has come to this step, from 1.
    """

    plan: StepPlan
    problem: SearchProblem | None
    result: SearchResult | None
    reason: str = ""
    failed: bool = False
    seconds: float = 0.0
    occurrence: int = 1

    @property
    def conclusion(self) -> StepConclusion:
        """The outcome as the graph's state holds it."""
        if self.result is None:
            return no_answer("failed" if self.failed else "not_applicable")
        conclusion = self.result.conclusion
        if conclusion.answer_key is None:
            return no_answer(self.result.status.value)
        return {
            "status": self.result.status.value,
            "answer_key": conclusion.answer_key,
            "display": conclusion.words,
            "probability": conclusion.share,
        }


def plan_step(step: Step, catalogue: Catalogue, settings: SearchSettings, language: str = ENGLISH) -> StepPlan:
    """Returns the plan of a step, with everything that it names looked up.

    Raises:
        UsageError: a vocabulary that does not exist.
        BadInputError: a vocabulary file that is not valid.
    """
    opening = catalogue.named(step.opening)
    items = catalogue.offered(step.items, step.opening)
    vocabularies = {source: load_vocabulary(name) for source, name in step.answer.vocabulary.items()}
    vote = {"vote": "free"} if step.answer.form == "free" else {}
    own = settings.with_options(**{**step.search, **vote})
    return StepPlan(step, catalogue, opening, items, vocabularies, own, language)


def clock_of(case: Case, step: Step, occurrence: int = 1) -> int | None:
    """Returns the minute of a step's clock in a case; None when the source or the case does not fix one."""
    clock = step.clock.get(case.source)
    if clock is None or clock.anchor not in case.anchors:
        return None
    return case.anchors[clock.anchor] + step.minutes(case.source, occurrence)


def why_not(case: Case, plan: StepPlan, occurrence: int = 1) -> str:
    """Returns why a step is not applicable to a case, or an empty string. Depends on no recorded label.

    Source: clinical.md, "Clock": a step whose clock lies after the end of the stay is not applicable.
    """
    clock = clock_of(case, plan.step, occurrence)
    if clock is None:
        rule = plan.step.clock.get(case.source)
        return "no clock for this source" if rule is None else f"the record has no {rule.anchor.replace('_', ' ')}"
    end = case.anchors.get("end_of_stay")
    if end is not None and clock > end:
        return "the clock lies after the end of the stay"
    if case.source not in plan.vocabularies:
        return "no answer vocabulary for this source"
    return ""


def problem_of(
    case: Case, plan: StepPlan, clock: int, earlier: tuple[str, ...] = (), occurrence: int = 1
) -> SearchProblem:
    """Returns the question of an applicable step: the chart cut at minute `clock`, and nothing later."""
    return SearchProblem(
        case_id=case.case_id,
        step=plan.step.name,
        question=plan.step.question,
        answer_cue=plan.step.answer_cue,
        chart=open_chart(case, clock, plan.catalogue),
        opening=plan.opening,
        items=plan.items,
        vocabulary=plan.vocabularies[case.source],
        clock_text=plan.step.clock_text(case.source, occurrence),
        earlier=earlier,
        occurrence=occurrence,
        form="set" if plan.step.answer.form == "set" else "one",
        most=plan.step.answer.most or 1,
        language=plan.language,
    )


def run_step(
    case: Case,
    plan: StepPlan,
    *,
    strategy: str,
    models: Models,
    seed: int,
    occurrence: int = 1,
    earlier: tuple[str, ...] = (),
    on_rollout: Callable[[int], None] | None = None,
    judge: Judge | None = None,
) -> StepOutcome:
    """Runs one step of one case, the first time or as often as the pathway came back to it (`occurrence`).

    `judge` says how right a conclusion is, in a run that is valued by recorded labels; where such a run has none for
    the step, there is nothing to search by and the step is not applicable.

    A search that breaks gives a failed outcome, whose reason names the error, never a value of the record.

    Raises:
        StorageError: the database failed, which no later step could survive.
    """
    clock = clock_of(case, plan.step, occurrence)
    reason = why_not(case, plan, occurrence)
    if not reason and plan.settings.value == GROUND_TRUTH and judge is None:
        reason = "no recorded label to value answers by"
    if reason or clock is None:
        return StepOutcome(plan, None, None, reason, occurrence=occurrence)
    problem = problem_of(case, plan, clock, earlier, occurrence)
    started = time.perf_counter()
    try:
        result = run_search(strategy, problem, models, plan.settings, seed, on_rollout, judge)
    except StorageError:
        raise
    except Exception as error:
        reason = reason_of(error)
        logger.warning("%s %s failed: %s", case.case_id, plan.step.name, reason)
        return StepOutcome(plan, problem, None, reason, True, time.perf_counter() - started, occurrence)
    finally:
        for model in models.distinct:
            model.release()
    return StepOutcome(plan, problem, result, seconds=time.perf_counter() - started, occurrence=occurrence)


def reason_of(error: Exception) -> str:
    """Returns class and message of an own error; of a foreign one class and place, as its message may quote values."""
    if isinstance(error, WardstarError):
        return f"{type(error).__name__}: {error.message}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    return f"{type(error).__name__} at {PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
