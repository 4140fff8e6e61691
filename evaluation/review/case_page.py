"""The page of one case-step, put together in the order in which it is read."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from markupsafe import Markup

from evaluation.record import CandidateRecord, ReviewRecord, RunRecord
from evaluation.review import page_data as data
from evaluation.review import set_compare, tree_page, tree_svg, tree_view, words
from evaluation.store.run_store import StoredRecord


@dataclass(frozen=True, slots=True)
class TreeRow:
    """One visited node in the list form of the tree."""

    level: int
    text: str
    best: bool


@dataclass(frozen=True, slots=True)
class CasePage:
    """Everything the template needs; texts are cleaned but not yet escaped.

    Attributes:
        size: number of items of the set that was asked for; 0 where one answer was.
        tree_is_wide: printed, it takes a sheet laid sideways.
        tree_idle: how many turns, proposed and never tried, the drawing leaves out.
        tree_page: address of the tree's own page, from this page; empty without one.
        tree_nodes: ids of the turns that the tree's page shows.
        truth: None in a blind report.
        compared: the set beside the recorded one; None in a blind report, and where one answer was asked for.
    """

    case_id: str
    step: str
    question: str
    clock: str
    vignette: str
    size: int
    answer: str
    share: str
    leading: str
    status: str
    status_words: str
    bars: tuple[data.Bar, ...]
    rest: str
    draws: str
    opening: tuple[data.RequestView, ...]
    requests: tuple[data.RequestView, ...]
    cost: str
    evidence: tuple[data.FindingView, ...]
    evidence_more: int
    unanswered: tuple[data.RequestView, ...]
    has_path: bool
    turns: tuple[data.TurnView, ...]
    rejected: data.Branch | None
    checks: tuple[data.Check, ...]
    check_words: str
    tree: Markup
    tree_is_wide: bool
    tree_idle: int
    tree_rows: tuple[TreeRow, ...]
    tree_page: str
    tree_nodes: frozenset[int]
    elsewhere: tuple[tuple[str, str, str], ...]
    truth: data.Truth | None
    compared: set_compare.Comparison | None
    summary: str
    facts: tuple[tuple[str, list[tuple[str, str]]], ...]


def build(stored: StoredRecord, run_name: str, vocabularies: set_compare.Lookup, *, blind: bool) -> CasePage:
    """Returns the page of a case-step.

    Args:
        stored: the record, its labels and its match marks.
        run_name: name of its run.
        vocabularies: gives the possible answers, by which a set is compared with the recorded one.
        blind: leave out labels, marks and what was done after the clock.
    """
    record, trail, path = stored.record, data.Trail(), data.path_of(stored.record)
    turns = path.turns if path else ()
    opening = data.requests_on(record, record.opening, trail, opening=True)
    requests = data.requests_on(record, turns, trail, opening=False)
    findings = [f for r in (*opening, *requests) for f in r.findings]
    evidence = sorted(findings, key=lambda f: not f.flag)
    status, status_words = data.status_text(record)
    bars, rest = data.bars(record)
    checks, nodes = data.checks(record, path), tree_view.nodes_of(record)
    idle = sum(not n["visits"] for n in nodes)
    return CasePage(
        case_id=words.short(record.case_id, 120),
        step=words.title_of(record.step) + (f" ({record.occurrence})" if record.occurrence != 1 else ""),
        question=words.short(record.question, 300),
        clock=words.short(record.clock_text, 200) or _clock(record),
        vignette=data.vignette(record),
        size=len(record.chosen),
        answer=data.answer_text(record),
        share=data.share_text(record),
        leading=data.leading_text(record),
        status=status,
        status_words=status_words,
        bars=bars,
        rest=rest,
        draws=data.draws_words(record, path),
        opening=tuple(opening),
        requests=tuple(requests),
        cost=words.money(sum(r.cost for r in record.requests if r.on_path)),
        evidence=tuple(evidence[: data.EVIDENCE_SHOWN]),
        evidence_more=max(0, len(evidence) - data.EVIDENCE_SHOWN),
        unanswered=tuple(r for r in (*opening, *requests) if not r.answered and not r.imagined),
        has_path=path is not None,
        turns=tuple(data.turn_views(record, turns, trail, linked=True)),
        rejected=data.rejected(record, path, trail),
        checks=checks,
        check_words=_check_words(record, path, checks),
        tree=tree_page.draw_tree(record, tried_only=idle > tree_svg.MAX_IDLE),
        tree_is_wide=tree_svg.is_wide([n for n in nodes if n["visits"] or idle <= tree_svg.MAX_IDLE]),
        tree_idle=idle if idle > tree_svg.MAX_IDLE else 0,
        tree_rows=_tree_rows(record),
        tree_page=f"../{data.tree_address(record)}" if nodes else "",
        tree_nodes=frozenset(int(n["id"]) for n in nodes if n["visits"]),
        elsewhere=_elsewhere(record),
        truth=None if blind else data.truth_of(stored),
        compared=None if blind or not record.chosen else _compared(stored, vocabularies),
        summary=_summary(record),
        facts=_facts(record, run_name),
    )


def _clock(record: RunRecord) -> str:
    return "not stated" if record.clock is None else words.relative_time(record.clock)


def _compared(stored: StoredRecord, vocabularies: set_compare.Lookup) -> set_compare.Comparison:
    return set_compare.compare(stored.record, stored.truth, vocabularies(stored.record))


def _check_words(record: RunRecord, path: CandidateRecord | None, checks: tuple[data.Check, ...]) -> str:
    who = (
        "the same model under other seeds (a weak check: it shares the model's blind spots)"
        if record.peer_is_generator
        else "a second model"
    )
    if path is None or path.agreement is None:
        return "The winning path was not checked by a second run."
    if not checks:
        return f"Checked by {who}; agreement {words.percent(path.agreement)}."
    agreed = f"{sum(c.same for c in checks)} of {words.count(len(checks), 'run')}"
    handed = f"The beginning of this path was handed to {who}, without the answer, to finish on its own. "
    if not path.chosen:
        return f"{handed}It reached the same answer in {agreed}."
    return (
        f"{handed}It chose the same set in {agreed}. Agreement: {words.percent(path.agreement)} (items in both sets, "
        "of those in either; on average)."
    )


def _tree_rows(record: RunRecord) -> tuple[TreeRow, ...]:
    """Visited nodes, each parent directly before its subtree: the drawing for those who cannot see it."""
    nodes = {int(n["id"]): n for n in (record.tree or {}).get("nodes") or ()}
    best = set(tree_svg.winning_path(list(nodes.values()), record.winner))
    children: dict[int | None, list[int]] = {}
    for node_id, node in nodes.items():
        children.setdefault(node["parent"], []).append(node_id)
    items, notes, rows = data.item_words(record), tree_view.notes_of(record), []
    stack = [(i, 0) for i in reversed(children.get(None, []))]
    while stack:
        node_id, level = stack.pop()
        node = nodes[node_id]
        if node["visits"]:
            rows.append(
                TreeRow(level, tree_svg.tooltip(node, items, node_id in best, notes.get(node_id, "")), node_id in best)
            )
            stack.extend((i, level + 1) for i in reversed(children.get(node_id, [])))
    return tuple(rows)


def _command(record: RunRecord, run_name: str) -> str:
    """The command that writes the tree in other forms."""
    words_of = ["wardstar", "tree", "--run", run_name, "--case", words.short(record.case_id, 120), "--step"]
    command = shlex.join([*words_of, words.short(record.step, 80)])
    more = f" --occurrence {record.occurrence}" if record.occurrence != 1 else ""
    return f"{command}{more} --format svg|mermaid|json"


def _elsewhere(record: RunRecord) -> tuple[tuple[str, str, str], ...]:
    """Items that only other branches opened: asked, answer, cost."""
    items = data.item_words(record)
    return tuple(
        (data.asked_words(r.item, items), words.STATES.get(r.state, r.state), words.money(r.cost))
        for r in record.requests
        if not r.on_path
    )


def _review(review: ReviewRecord) -> str:
    """What became of the question to a clinician."""
    said = {"skipped": "asked for, nobody was there (offline replay)", "waiting": "asked for, not yet given"}
    return said.get(review.state, words.short(review.display, 300))


def _summary(record: RunRecord) -> str:
    """The run of this case-step in one line."""
    models = [str(m.get("name") or m.get("spec") or role) for role, m in sorted(record.models.items())]
    parts = [
        words.short(" and ".join(dict.fromkeys(models)), 160) or "no model named",
        f"strategy {words.short(record.strategy, 60) or 'not named'}",
        f"seed {record.seed}",
        words.count(record.rollouts, "rollout"),
        words.count(record.tokens.get("prefilled", 0) + record.tokens.get("sampled", 0), "token"),
        words.seconds_text(record.seconds),
    ]
    return ", ".join(parts)


def _facts(record: RunRecord, run_name: str) -> tuple[tuple[str, list[tuple[str, str]]], ...]:
    """What it takes to do this case-step again."""
    case = [
        ("case", words.short(record.case_id, 120)),
        ("source", f"{words.short(record.source, 80)}, {words.short(record.source_id, 120)}"),
        ("patient", words.short(record.patient_id, 120)),
        ("step", f"{words.short(record.step, 80)}, occurrence {record.occurrence}"),
        ("clock", "–" if record.clock is None else f"minute {record.clock:,} from the start of the case"),
        ("status", words.short(record.status, 40)),
        *([("clinician's answer", _review(record.review))] if record.review else []),
        ("record version", str(record.version)),
    ]
    work = [
        ("strategy", words.short(record.strategy, 80)),
        ("seed", str(record.seed)),
        ("rollouts", f"{record.rollouts:,}"),
        ("margin over the next answer", "–" if record.margin is None else f"{record.margin:.3f}"),
        *((f"tokens {words.short(k, 40)}", f"{v:,}") for k, v in sorted(record.tokens.items())),
        ("draws of votes", words.draws_text(record.draws, record.unparseable) or "none: no vote was drawn"),
        ("time", words.seconds_text(record.seconds)),
        ("repeats byte for byte", "yes" if record.repeatable else "no"),
        ("answer list", words.short(record.vocabulary, 120) or "–"),
    ]
    if tree_view.nodes_of(record):
        work.append(("tree in other forms", _command(record, run_name)))
    models = []
    for role, identity in sorted(record.models.items()):
        same = " (same weights as the generator)" if role == "peer" and record.peer_is_generator else ""
        models.append((words.title_of(role) + same, data.flatten(identity)))
    return (
        ("Case", case),
        ("Run", work),
        *models,
        ("Settings", data.flatten(record.settings)),
        ("Hashes (sha256)", data.flatten(record.hashes)),
    )
