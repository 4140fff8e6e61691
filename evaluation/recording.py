"""Turns the outcome of a step into its record. Takes no recorded label: truth is stored beside a record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from clinical_data.case import Case, Finding
from clinical_data.chart import Answer, AnswerState, done_later
from clinical_data.naming import short_name
from evaluation.formatting import range_text, value_text
from evaluation.record import (
    CandidateRecord,
    FindingRecord,
    RankedAnswer,
    RequestRecord,
    RunRecord,
    TurnRecord,
)
from search.actions import ActionKind
from search.desk import VALUE
from search.problem import Models, SearchProblem
from search.settings import SearchSettings
from search.strategies import settings_of
from search.trajectory import Candidate, SearchResult, Status, Trajectory, Turn
from search.wording import ENGLISH, template_hash, wording
from search.world_model import WORLD_MODEL

OPENING = "opening"
_NO_LIKELIHOOD = -1e9


def make_record(
    *,
    case: Case,
    problem: SearchProblem,
    result: SearchResult,
    strategy: str,
    settings: SearchSettings,
    seed: int,
    models: Models,
    hashes: Mapping[str, str],
    seconds: float,
    repeatable: bool = True,
) -> RunRecord:
    """Returns the record of a step that came to a conclusion.

    Args:
        case: the whole case, to say what was recorded after the clock and for its hash.
        problem: the question as the search saw it.
        result: what the search returned.
        strategy, settings, seed, models: how it was searched.
        hashes: sha256 of what the caller alone knows (pathway); those of prompts, catalogue, vocabulary and case are
            added.
        seconds: wall time of the step.
        repeatable: False when batches mixed case-steps. A budget of seconds makes any record unrepeatable.
    """
    winner = _winner(result)
    return RunRecord(
        **_of_case(case),
        step=problem.step,
        occurrence=problem.occurrence,
        status=result.status.value,
        reason=result.reason,
        strategy=strategy,
        **_of_problem(problem),
        ranked=tuple(
            RankedAnswer(system=h.system, code=h.code or h.key, display=h.display, probability=h.probability)
            for h in result.conclusion.ranked
        ),
        chosen=result.conclusion.chosen,
        draws=result.conclusion.draws,
        unparseable=result.conclusion.unparseable,
        requests=_requests(case, problem, result, winner),
        peer_agreement=result.peer_agreement,
        peer_is_generator=models.peer_is_generator,
        margin=result.margin,
        rollouts=result.rollouts,
        imagined_requests=result.imagined_requests,
        winner=result.winner,
        candidates=tuple(_candidate(c) for c in result.candidates),
        tree=result.tree,
        tokens=asdict(result.tokens),
        seconds=seconds,
        repeatable=repeatable and not settings.max_seconds,
        seed=seed,
        settings=_settings(settings, strategy, seed),
        models=_identities(models, settings),
        hashes=_hashes(case, problem, hashes),
    )


def not_applicable(
    *,
    case: Case,
    step: str,
    reason: str,
    clock: int | None = None,
    clock_text: str = "",
    occurrence: int = 1,
    question: str = "",
    strategy: str = "",
    settings: SearchSettings | None = None,
    seed: int = 0,
    models: Models | None = None,
    hashes: Mapping[str, str] | None = None,
    vocabulary: str = "",
) -> RunRecord:
    """Returns the record of a step that does not apply to a case.

    Args:
        reason: why, in words, without any value of the record.
        clock: minute of the step's clock, None when the case fixes none.
        vocabulary: name of the closed list of answers, if there is one for the source.
    """
    return RunRecord(
        **_of_case(case),
        step=step,
        occurrence=occurrence,
        status=Status.NOT_APPLICABLE.value,
        reason=reason,
        strategy=strategy,
        clock=clock,
        clock_text=clock_text,
        question=question,
        peer_is_generator=models is None or models.peer_is_generator,
        seed=seed,
        settings=_settings(settings, strategy, seed) if settings else {},
        models=_identities(models, settings) if models else {},
        hashes=_hashes(case, None, hashes or {}),
        vocabulary=vocabulary,
    )


def failed(
    *,
    case: Case,
    step: str,
    reason: str,
    problem: SearchProblem | None = None,
    occurrence: int = 1,
    clock: int | None = None,
    clock_text: str = "",
    question: str = "",
    strategy: str = "",
    settings: SearchSettings | None = None,
    seed: int = 0,
    models: Models | None = None,
    hashes: Mapping[str, str] | None = None,
    vocabulary: str = "",
    seconds: float = 0.0,
) -> RunRecord:
    """Returns the record of a step whose search broke.

    Args:
        reason: the error in words, without any value of the record.
        problem: the question, if it came that far; clock, clock_text, question and vocabulary are then taken from it.
        seconds: wall time until it broke.
    """
    own: dict[str, Any] = {
        "clock": clock,
        "clock_text": clock_text,
        "question": question,
        "vocabulary": vocabulary,
    }
    return RunRecord(
        **_of_case(case),
        step=step,
        occurrence=occurrence,
        status=Status.FAILED.value,
        reason=reason,
        strategy=strategy,
        **(own if problem is None else _of_problem(problem)),
        peer_is_generator=models is None or models.peer_is_generator,
        seconds=seconds,
        seed=seed,
        settings=_settings(settings, strategy, seed) if settings else {},
        models=_identities(models, settings) if models else {},
        hashes=_hashes(case, problem, hashes or {}),
    )


def _of_case(case: Case) -> dict[str, Any]:
    return {
        "case_id": case.case_id,
        "source": case.source,
        "source_id": case.source_id,
        "patient_id": case.patient.patient_id,
    }


def _of_problem(problem: SearchProblem) -> dict[str, Any]:
    return {
        "clock": problem.chart.clock,
        "clock_text": problem.clock_text,
        "question": problem.question,
        "vignette": wording(problem.language).vignette(problem.chart),
        "opening": tuple(_opened(problem.chart.request(item), item.display) for item in problem.opening),
        "vocabulary": problem.vocabulary.name,
    }


def _settings(settings: SearchSettings, strategy: str, seed: int) -> dict[str, Any]:
    return {**asdict(settings_of(strategy, settings)), "strategy": strategy, "seed": seed}


def _identities(models: Models, settings: SearchSettings | None) -> dict[str, dict[str, Any]]:
    found = {"generator": asdict(models.generator.identity), "peer": asdict(models.peer.identity)}
    if settings is not None and settings.chart_access == "prospective":
        found[WORLD_MODEL] = asdict(models.generator.identity)
    if models.value is not None:
        found[VALUE] = asdict(models.value.identity)
    return found


def _hashes(case: Case, problem: SearchProblem | None, given: Mapping[str, str]) -> dict[str, str]:
    found = {"case": case.content_hash, "prompts": template_hash(ENGLISH if problem is None else problem.language)}
    if problem is not None:
        found["catalogue"] = problem.chart.catalogue.sha256
        found["vocabulary"] = problem.vocabulary.sha256
    return {**found, **given}


def _opened(answer: Answer, display: str) -> TurnRecord:
    findings = tuple(finding_record(f) for f in answer.findings)
    return TurnRecord(kind=OPENING, text=display, item=answer.item_id, state=answer.state.value, findings=findings)


def finding_record(finding: Finding) -> FindingRecord:
    """Returns a finding as records keep it."""
    return FindingRecord(
        finding_id=finding.finding_id,
        name=short_name(finding.code),
        value=value_text(finding),
        unit=finding.unit,
        range=range_text(finding),
        flag=finding.flag,
        charted=finding.charted,
        available=finding.available,
        kind=finding.kind.value,
    )


def _turn(turn: Turn) -> TurnRecord:
    answer = turn.answer
    return TurnRecord(
        kind=turn.action.kind.value,
        text=turn.text,
        item=turn.action.item_id,
        state=answer.state.value if answer else "",
        findings=tuple(finding_record(f) for f in answer.findings) if answer else (),
        imagined=turn.imagined,
        # JSON has neither NaN nor infinity; after a numeric breakdown of the model the likelihood is as good as none.
        logprob=turn.logprob if math.isfinite(turn.logprob) else _NO_LIKELIHOOD,
    )


def _candidate(candidate: Candidate) -> CandidateRecord:
    conclusion = candidate.trajectory.conclusion
    return CandidateRecord(
        node=candidate.node,
        turns=tuple(_turn(t) for t in candidate.trajectory.turns),
        answer_key=conclusion.answer_key,
        answer=conclusion.words,
        probability=conclusion.share,
        multiplicity=candidate.multiplicity,
        value=candidate.value,
        agreement=candidate.verification.agreement,
        peer_answers=candidate.verification.answers,
        cuts=candidate.verification.cuts,
        chosen=conclusion.chosen,
        draws=conclusion.draws,
        unparseable=conclusion.unparseable,
    )


def _winner(result: SearchResult) -> Trajectory | None:
    """Returns the winning trajectory; where no tree was grown, the first that concludes as the search did."""
    for candidate in result.candidates:
        concluded = candidate.trajectory.conclusion.answer_key
        if candidate.node == result.winner or (result.winner is None and concluded == result.conclusion.answer_key):
            return candidate.trajectory
    return None


def _requests(
    case: Case, problem: SearchProblem, result: SearchResult, winner: Trajectory | None
) -> tuple[RequestRecord, ...]:
    """Returns every item opened in any branch once, in the order of its first opening.

    Source: search.md, "Chart access": what a world model imagined is no request.
    """
    on_path = {t.action.item_id for t in winner.turns if _asks(t)} if winner else set()
    costs: dict[str, float] = {}
    for candidate in result.candidates:
        for turn in candidate.trajectory.turns:
            if turn.answer is not None and _asks(turn):
                costs[turn.action.item_id] = turn.answer.cost_usd
    rows = []
    for item_id in dict.fromkeys(_opened_items(result)):
        item = problem.chart.catalogue.item(item_id)
        answer = problem.chart.request(item if item is not None else item_id)
        known = answer.state is AnswerState.RECORDED
        rows.append(
            RequestRecord(
                item=item_id,
                display=item.display if item else "",
                state=answer.state.value,
                cost=costs.get(item_id, answer.cost_usd),
                on_path=item_id in on_path,
                done_later=item is not None and not known and done_later(case, item, problem.chart.clock),
            )
        )
    return tuple(rows)


def _opened_items(result: SearchResult) -> Iterator[str]:
    for node in _nodes(result.tree):
        if node.get("kind") == ActionKind.REQUEST.value and not node.get("imagined"):
            yield node["item"]
    for candidate in result.candidates:
        yield from (t.action.item_id for t in candidate.trajectory.turns if _asks(t))


def _nodes(tree: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return tree["nodes"] if tree else []


def _asks(turn: Turn) -> bool:
    return turn.action.kind is ActionKind.REQUEST and not turn.imagined
