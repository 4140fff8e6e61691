"""A pathway as a LangGraph graph: a node per step, edges with conditions, loops, interrupts, a checkpointer.

The state is plain JSON. Case, models and the run store reach a node through LangGraph's runtime context, which is
handed in again at every start. The run store alone decides what is done; checkpoints serve what happens within a case.

A step marked `review: required` has a second node, which interrupts the graph until a clinician's answer is at hand.
`run_case` asks the run store for it: answered, nobody was there (skipped), or not yet. In the last case the case is
left waiting. Its thread is deleted like that of a case that ended: to come back, the case goes through the recalled
steps to the same interrupt again. So neither a kill nor a lost checkpoint file loses an answer, and no checkpoint can
disagree with the run store.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt
from sqlalchemy import URL

from clinical_data.case import Case
from clinical_data.clocks import labels_hold
from clinical_data.errors import StorageError
from clinical_data.store.engine import storage_errors
from search.problem import Models
from search.trajectory import Status
from search.value import Judge
from search.wording import ABSTAINED
from workflow import pathway_model
from workflow.pathway_model import HUMAN, Pathway, Step
from workflow.route import Stand, enters, next_place
from workflow.state import WAITING, CaseState, StepConclusion, new_state
from workflow.step import StepOutcome, StepPlan, clock_of, run_step

Graph = CompiledStateGraph[CaseState, "CaseContext", CaseState, CaseState]
_Builder = StateGraph[CaseState, "CaseContext", CaseState, CaseState]
BUSY_SECONDS = 30
# After the name of a step: its node, and the one that asks a clinician. A bare name could be a key of the state too.
_STEP, _REVIEW = "__step", "__review"
_UNREVIEWED = ("not_applicable", "failed")


class Reviewed(TypedDict):
    """What became of a question to a clinician: the answer, or None where nobody was there."""

    answer: StepConclusion | None


def _nobody(step: str, occurrence: int) -> Reviewed:
    return {"answer": None}


@dataclass(frozen=True, slots=True)
class CaseContext:
    """What the nodes of one case work with; never part of the state.

    Attributes:
        case: the case, without truth.
        plans: steps to take, by name; a step without a plan is passed through.
        strategy, seed, predecessors: choices of the run.
        recall: returns the stored conclusion of an occurrence of a step that is done, else None.
        keep: stores an outcome (record, score and calls, in one transaction).
        on_rollout: told the number of rollouts done in the step at work.
        judges: step name -> says how right a conclusion is, where the run is valued by recorded labels.
        review: returns what a clinician answered at an occurrence of a step, None while that is awaited.
        recorded: step name -> recorded labels of earlier steps in words, where the run shows these (an oracle).
    """

    case: Case
    plans: dict[str, StepPlan]
    models: Models
    strategy: str
    seed: int
    predecessors: str
    recall: Callable[[str, int], StepConclusion | None]
    keep: Callable[[StepOutcome], None]
    on_rollout: Callable[[int], None] | None = None
    judges: Mapping[str, Judge] = field(default_factory=dict)
    review: Callable[[str, int], Reviewed | None] = _nobody
    recorded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def compile_pathway(pathway: Pathway, checkpointer: BaseCheckpointSaver[str] | None = None) -> Graph:
    """Returns the graph of a pathway."""
    builder: StateGraph[CaseState, CaseContext, CaseState, CaseState] = StateGraph(CaseState, CaseContext)
    _add_routes(builder, pathway, pathway_model.START, START)
    for step in pathway.steps:
        last = step.name + _STEP
        builder.add_node(last, _node(step, pathway))
        if step.review:
            last = step.name + _REVIEW
            builder.add_node(last, _review_node(step.name))
            builder.add_edge(step.name + _STEP, last)
        _add_routes(builder, pathway, step.name, last)
    builder.add_node(HUMAN, _to_human)
    builder.add_edge(HUMAN, END)
    # Each return to a step begins one more walk through all steps and their reviews at most.
    most = 10 + 2 * len(pathway.steps) * (1 + sum(s.most - 1 for s in pathway.steps))
    return builder.compile(checkpointer=checkpointer, name=pathway.name).with_config({"recursion_limit": most})


def run_case(graph: Graph, context: CaseContext, run_id: int) -> CaseState:
    """Takes one case through its pathway, from the beginning; steps that are done are recalled, not run.

    Returns:
        The state, whose `ended` says whether the case came to an end or waits for a clinician.

    Raises:
        StorageError: run store or checkpoint file failed.
    """
    thread = f"{run_id}:{context.case.case_id}"
    saver = graph.checkpointer

    def go(given: CaseState | Command[str]) -> dict[str, Any]:
        found: dict[str, Any] = graph.invoke(
            given,
            {"configurable": {"thread_id": thread}},
            context=context,
            durability="sync" if saver else None,
        )
        return found

    with storage_errors("checkpoint file"):
        if isinstance(saver, BaseCheckpointSaver):
            saver.delete_thread(thread)  # of a run that was killed in this case
        state = go(new_state(context.case.case_id))
        while asked := state.get("__interrupt__"):
            answered = context.review(asked[0].value["step"], asked[0].value["occurrence"])
            if answered is None:
                break
            state = go(Command(resume=answered))
        if isinstance(saver, BaseCheckpointSaver):
            saver.delete_thread(thread)
    ended = WAITING if state.get("__interrupt__") else state["ended"] or pathway_model.END
    return {
        "case_id": state["case_id"],
        "conclusions": state["conclusions"],
        "history": state["history"],
        "visits": state["visits"],
        "ended": ended,
    }


@contextmanager
def open_checkpoints(url: URL) -> Iterator[SqliteSaver]:
    """Opens the checkpoint file that belongs to a database: readable by its owner only, never the database itself.

    Raises:
        StorageError: the file cannot be made or opened.
    """
    path = checkpoint_path(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StorageError(f"{path}: cannot be created ({error.strerror})") from error
    with storage_errors("checkpoint file"):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
        connection.execute("PRAGMA synchronous=NORMAL")  # with WAL, as the saver sets it: no wait for the disk
    with closing(connection):
        yield SqliteSaver(connection)


def checkpoint_path(url: URL) -> Path:
    """Returns the checkpoint file of a database: beside an SQLite file, else in the user's own temporary folder."""
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        return Path(f"{url.database}.checkpoints")
    name = hashlib.sha256(url.render_as_string(hide_password=True).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"wardstar-{os.getuid()}" / f"{name}.checkpoints"


class _Node(Protocol):
    def __call__(self, state: CaseState, *, runtime: Runtime[CaseContext]) -> dict[str, Any]: ...


def _node(step: Step, pathway: Pathway) -> _Node:
    name = step.name

    def node(state: CaseState, *, runtime: Runtime[CaseContext]) -> dict[str, Any]:
        context = runtime.context
        if not enters(context.case, step, _stand(state)):
            return {"conclusions": {}}
        occurrence = state["visits"].get(name, 0) + 1
        plan = context.plans.get(name)
        if plan is None:
            return {"visits": {name: occurrence}}
        conclusion = context.recall(name, occurrence)
        if conclusion is None:
            outcome = run_step(
                context.case,
                plan,
                strategy=context.strategy,
                models=context.models,
                seed=context.seed,
                occurrence=occurrence,
                earlier=_earlier(step, occurrence, state, context, pathway),
                on_rollout=context.on_rollout,
                judge=context.judges.get(name) if labels_hold(step.truth, occurrence) else None,
            )
            context.keep(outcome)
            conclusion = outcome.conclusion
        history = [*state["history"].get(name, []), conclusion]
        return {"conclusions": {name: conclusion}, "history": {name: history}, "visits": {name: occurrence}}

    return node


def _review_node(name: str) -> _Node:
    """Returns the node that asks a clinician; what it is resumed with stands in the place of the step's conclusion."""

    def node(state: CaseState, *, runtime: Runtime[CaseContext]) -> dict[str, Any]:
        conclusion = state["conclusions"].get(name)
        if conclusion is None or conclusion["status"] in _UNREVIEWED:
            return {"conclusions": {}}
        reviewed: Reviewed = interrupt({"step": name, "occurrence": state["visits"][name]})
        answer = reviewed["answer"]
        if answer is None:
            return {"conclusions": {}}
        return {"conclusions": {name: answer}, "history": {name: [*state["history"][name][:-1], answer]}}

    return node


def _to_human(state: CaseState) -> dict[str, Any]:
    return {"ended": HUMAN}


def _earlier(step: Step, occurrence: int, state: CaseState, context: CaseContext, pathway: Pathway) -> tuple[str, ...]:
    """Returns the answers of earlier steps in words, in the order of the pathway: those that the run shows, if any.

    Of the predicted ones the latest of each step that was drawn by the clock at hand: what a later clock showed must
    not come back through a conclusion.
    """
    if context.predecessors == "recorded":
        return context.recorded.get(step.name, ())
    clock = clock_of(context.case, step, occurrence)
    if context.predecessors != "predicted" or clock is None:
        return ()
    found = []
    for other in pathway.steps:
        drawn = [
            conclusion
            for k, conclusion in enumerate(state["history"].get(other.name, []), start=1)
            if (minute := clock_of(context.case, other, k)) is not None and minute <= clock
        ]
        if drawn and (words := _told(drawn[-1], pathway.language)):
            found.append(f"{other.title}: {words}")
    return tuple(found)


def _told(conclusion: StepConclusion, language: str) -> str:
    """Returns what a later step is told of a conclusion: an answer that was not given is none, whichever led."""
    return ABSTAINED[language] if conclusion["status"] == Status.ABSTAIN else conclusion["display"]


def _node_of(place: str) -> str:
    return END if place == pathway_model.END else place if place == HUMAN else place + _STEP


def _stand(state: CaseState) -> Stand:
    return Stand(state["visits"], {name: c["status"] for name, c in state["conclusions"].items()})


def _add_routes(builder: _Builder, pathway: Pathway, name: str, node: str) -> None:
    """Adds the edges that leave a step, or the start, from a node."""

    def route(state: CaseState, runtime: Runtime[CaseContext]) -> str:
        return _node_of(next_place(pathway, name, runtime.context.case, _stand(state)))

    targets = [END, *(_node_of(e.to) for e in pathway.edges_from(name))]
    builder.add_conditional_edges(node, route, list(dict.fromkeys(targets)))
