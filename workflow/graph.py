"""A pathway as a LangGraph graph: one node per step, edges with conditions, a checkpointer.

The state is plain JSON. Case, models and the run store reach a node through LangGraph's runtime context, which is
handed in again at every start. The run store alone decides what is done; checkpoints serve what happens within a case,
and a case's thread is deleted when the case ends.
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
from typing import Any, Protocol

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from sqlalchemy import URL

from clinical_data.case import Case
from clinical_data.errors import StorageError
from clinical_data.store.engine import storage_errors
from search.problem import Models
from search.value import Judge
from workflow import pathway as pathways
from workflow.pathway import Edge, Pathway
from workflow.state import CaseState, StepConclusion, new_state
from workflow.step import StepOutcome, StepPlan, clock_of, run_step

Graph = CompiledStateGraph[CaseState, "CaseContext", CaseState, CaseState]
BUSY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class CaseContext:
    """What the nodes of one case work with; never part of the state.

    Attributes:
        case: the case, without truth.
        plans: steps to take, by name; a step without a plan is passed through.
        strategy, seed, predecessors: choices of the run.
        recall: returns the stored conclusion of a step that is done, else None.
        keep: stores an outcome (record, score and calls, in one transaction).
        on_rollout: told the number of rollouts done in the step at work.
        judges: step name -> says how right a conclusion is, where the run is valued by recorded labels.
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


def compile_pathway(pathway: Pathway, checkpointer: BaseCheckpointSaver[str] | None = None) -> Graph:
    """Returns the graph of a pathway."""
    builder: StateGraph[CaseState, CaseContext, CaseState, CaseState] = StateGraph(CaseState, CaseContext)
    builder.add_edge(START, pathway.steps[0].name)
    for step in pathway.steps:
        builder.add_node(step.name, _node(step.name, pathway))
        edges = pathway.edges_from(step.name)
        targets = [END, *(END if e.to == pathways.END else e.to for e in edges)]
        builder.add_conditional_edges(step.name, _route(step.name, edges, pathway), list(dict.fromkeys(targets)))
    return builder.compile(checkpointer=checkpointer, name=pathway.name)


def run_case(graph: Graph, context: CaseContext, run_id: int) -> CaseState:
    """Takes one case through its pathway, from the beginning; steps that are done are recalled, not run.

    Raises:
        StorageError: run store or checkpoint file failed.
    """
    thread = f"{run_id}:{context.case.case_id}"
    saver = graph.checkpointer
    with storage_errors("checkpoint file"):
        if isinstance(saver, BaseCheckpointSaver):
            saver.delete_thread(thread)  # of a run that was killed in this case
        state = graph.invoke(
            new_state(context.case.case_id),
            {"configurable": {"thread_id": thread}},
            context=context,
            durability="sync" if saver else None,
        )
        if isinstance(saver, BaseCheckpointSaver):
            saver.delete_thread(thread)
    return {"case_id": state["case_id"], "conclusions": state["conclusions"]}


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


def _node(name: str, pathway: Pathway) -> _Node:
    def node(state: CaseState, *, runtime: Runtime[CaseContext]) -> dict[str, Any]:
        context = runtime.context
        plan = context.plans.get(name)
        if plan is None:
            return {"conclusions": {}}
        conclusion = context.recall(name, 1)
        if conclusion is None:
            outcome = run_step(
                context.case,
                plan,
                strategy=context.strategy,
                models=context.models,
                seed=context.seed,
                earlier=_earlier(state, pathway) if context.predecessors == "predicted" else (),
                on_rollout=context.on_rollout,
                judge=context.judges.get(name),
            )
            context.keep(outcome)
            conclusion = outcome.conclusion
        return {"conclusions": {name: conclusion}}

    return node


def _earlier(state: CaseState, pathway: Pathway) -> tuple[str, ...]:
    """Returns the answers of earlier steps in words, in the order of the pathway."""
    done = state["conclusions"]
    found = [(step.title, done[step.name]["display"]) for step in pathway.steps if step.name in done]
    return tuple(f"{title}: {display}" for title, display in found if display)


def _route(name: str, edges: tuple[Edge, ...], pathway: Pathway) -> Callable[[CaseState, Runtime[CaseContext]], str]:
    def route(state: CaseState, runtime: Runtime[CaseContext]) -> str:
        for edge in edges:
            predicate = edge.when or edge.unless
            if predicate is None or holds(predicate, name, edge, state, runtime.context.case, pathway) == bool(
                edge.when
            ):
                return END if edge.to == pathways.END else edge.to
        return END

    return route


def holds(predicate: str, name: str, edge: Edge, state: CaseState, case: Case, pathway: Pathway) -> bool:
    """Says whether the condition of an edge holds.

    has_ed_stay: the case has a part in the emergency department. abstained: the step just taken handed the case to a
    human. answer_settled: its answer was verified by the peer. clock_passed: the stay reached the clock of the step
    that the edge leads to.
    """
    conclusion = state["conclusions"].get(name)
    status = "" if conclusion is None else conclusion["status"]
    if predicate == "has_ed_stay":
        return any(e.kind == "emergency" for e in case.encounters)
    if predicate == "abstained":
        return status == "abstain"
    if predicate == "answer_settled":
        return status == "verified"
    if predicate == "clock_passed":
        clock = None if edge.to == pathways.END else clock_of(case, pathway.step(edge.to))
        end = case.anchors.get("end_of_stay")
        return clock is not None and (end is None or clock <= end)
    raise ValueError(f"condition {predicate} is not available")
