"""A stored search tree to look at, to read and to replay: on the page of its case, or as a page of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass

from markupsafe import Markup

from evaluation.record import RunRecord
from evaluation.review import page_data, tree_svg, tree_view, words
from evaluation.review.language import say
from evaluation.review.rendering import asset, assets, environment

MARK = '<meta name="generator" content="wardstar tree">'
SIGNS = ("request", "think", "ask", "reask", "rephrase", "finish")
_SPOKEN = ("play", "pause", "before", "rollout", "after", "then", "not_yet", "beyond", "fold", "unfold")


@dataclass(frozen=True, slots=True)
class Bench:
    """The drawing of a tree with its tools, its replay and the words of every turn.

    Attributes:
        prefix: goes before every id, so that a page can hold several.
        details: what is said of each turn drawn.
        which: which tree of a prospective search it is; `left_out`: how many turns are not drawn.
        rollouts: terminal nodes of the rollouts in order, with commas between; empty: no replay, `no_replay` says why.
        c: constant of UCT; `low`, `high`: the values between which shades run.
        idle: turns proposed and never tried; `few_idle`: they are shown at the first look.
        spoken: words for the page's script, as JSON.
        has_rejected: the strongest branch rejected is drawn as such.
    """

    prefix: str
    svg: Markup
    details: tuple[tree_view.TurnDetail, ...]
    which: str
    left_out: str
    rollouts: str
    no_replay: str
    c: str
    low: float
    high: float
    idle: int
    few_idle: bool
    has_path: bool
    has_rejected: bool
    spoken: str

    @property
    def rounds(self) -> int:
        """Number of rollouts that can be replayed."""
        return self.rollouts.count(",") + 1 if self.rollouts else 0


def bench(record: RunRecord, which: str = "") -> Bench | None:
    """Returns what the template of a tree on a page of its own needs; None for a record without one.

    Args:
        record: the record, as it stood at the commit that is shown.
        which: which tree of a prospective search that is, in words.
    """
    return _bench(record, which, prefix="", rejected=None, tried_only=False)


def bench_of_step(record: RunRecord, prefix: str, rejected: int | None) -> Bench | None:
    """Returns what the template of a tree on the page of its case needs: many untried turns are left out there.

    Args:
        record: the record.
        prefix: goes before every id.
        rejected: node at the end of the strongest branch that was not chosen.
    """
    idle = sum(not n["visits"] for n in tree_view.nodes_of(record))
    which = tree_view.commit_words(record, None)
    return _bench(record, which, prefix=prefix, rejected=rejected, tried_only=idle > tree_svg.MAX_IDLE)


def _bench(record: RunRecord, which: str, *, prefix: str, rejected: int | None, tried_only: bool) -> Bench | None:
    nodes = tree_view.nodes_of(record)
    if not nodes:
        return None
    path = tree_svg.winning_path(nodes, record.winner)
    drawn = tree_svg.drawn_nodes(nodes, path, tried_only=tried_only)
    rollouts, reason = tree_view.rollouts_of(record)
    idle = sum(not n["visits"] for n in drawn)
    low, high = tree_svg.value_range(drawn)
    c = tree_view.exploration(record)
    return Bench(
        prefix=prefix,
        svg=draw_tree(record, operable=True, tried_only=tried_only, prefix=prefix, rejected=rejected),
        details=tuple(tree_view.details(record, drawn, path)),
        which=which,
        left_out=say("tree.left_out", drawn=len(drawn), all=len(nodes)) if len(drawn) < len(nodes) else "",
        rollouts=",".join(str(i) for i in rollouts),
        no_replay=reason,
        c="" if c is None else repr(c),
        low=low,
        high=high,
        idle=idle,
        few_idle=idle <= tree_svg.MAX_IDLE,
        has_path=bool(path),
        has_rejected=rejected is not None,
        spoken=json.dumps({name: say(f"tree.{name}") for name in _SPOKEN}, ensure_ascii=False),
    )


def render_tree(record: RunRecord, run_name: str, commit: int | None = None) -> str:
    """Returns the page of a record's tree as one HTML file that loads nothing and sends nothing.

    The address may name a turn and a rollout: `#n12.3` opens node 12 as it was after rollout 3. A record without the
    order of its rollouts gives a page without the replay, which says so.

    Args:
        record: a record that holds a tree.
        run_name: name of its run, for the heading.
        commit: the tree before that commit of a prospective search; None for the last tree.

    Raises:
        ValueError: the record holds no tree.
        UsageError: no such commit.
    """
    which = tree_view.commit_words(record, commit)
    record = record if commit is None else tree_view.at_commit(record, commit)
    made = bench(record, which)
    if made is None:
        raise ValueError("the record holds no tree")
    nodes = tree_view.nodes_of(record)
    drawn = tree_svg.drawn_nodes(nodes, tree_svg.winning_path(nodes, record.winner))
    _, status_words = page_data.status_text(record)
    return (
        environment()
        .get_template("tree.html")
        .render(
            mark=Markup(MARK),
            case_id=words.short(record.case_id, 120),
            step=words.step_text(record.step, record.occurrence),
            run_name=words.short(run_name, 120),
            question=words.short(record.question, 300),
            vignette=page_data.vignette(record),
            answer=page_data.answer_text(record),
            leading=page_data.leading_text(record),
            share=page_data.share_text(record),
            share_words=say(f"tree.share_of_{'set' if record.chosen else 'votes'}"),
            status_words=status_words,
            is_wide=tree_svg.is_wide(drawn),
            bench=made,
            signs=SIGNS,
            shades=range(tree_svg.SHADES),
            **assets(asset("tree.js"), "tree.css"),
        )
    )


def render_svg(record: RunRecord) -> str:
    """Returns the drawing of a record's tree as an SVG file of its own; the words lie in its tooltips."""
    return tree_svg.standalone(draw_tree(record), asset("tree_svg.css"))


def draw_tree(
    record: RunRecord,
    *,
    operable: bool = False,
    tried_only: bool = False,
    prefix: str = "",
    rejected: int | None = None,
) -> Markup:
    """Returns the drawing of a record's tree as an SVG element, as pages embed it; empty without a tree."""
    notes, items = tree_view.notes_of(record), page_data.item_words(record)
    return tree_svg.draw(
        record.tree,
        record.winner,
        items,
        notes,
        operable=operable,
        tried_only=tried_only,
        prefix=prefix,
        rejected=rejected,
    )
