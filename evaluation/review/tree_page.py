"""A stored search tree as a page of its own, that works from a file: to look at, to read and to replay."""

from __future__ import annotations

import json

from markupsafe import Markup

from evaluation.record import RunRecord
from evaluation.review import page_data, tree_svg, tree_view, words
from evaluation.review.rendering import asset, assets, environment
from evaluation.review.tree_words import LEGEND, TEXT

MARK = '<meta name="generator" content="wardstar tree">'
_SPOKEN = ("play", "pause", "before", "rollout", "after", "then", "not_yet", "beyond", "fold", "unfold")


def render_tree(
    record: RunRecord, run_name: str, commit: int | None = None, *, case_page: str = "", mark: str = MARK
) -> str:
    """Returns the page of a record's tree as one HTML file that loads nothing and sends nothing.

    The address may name a turn and a rollout: `#n12.3` opens node 12 as it was after rollout 3. A record without the
    order of its rollouts gives a page without the replay, which says so.

    Args:
        record: a record that holds a tree.
        run_name: name of its run, for the heading.
        commit: the tree before that commit of a prospective search; None for the last tree.
        case_page: address of the page of the case-step, in a report; empty without one.
        mark: the tag by which a page is known as wardstar's own.

    Raises:
        ValueError: the record holds no tree.
        UsageError: no such commit.
    """
    which = tree_view.commit_words(record, commit)
    record = record if commit is None else tree_view.at_commit(record, commit)
    nodes = tree_view.nodes_of(record)
    if not nodes:
        raise ValueError("the record holds no tree")
    path = tree_svg.winning_path(nodes, record.winner)
    drawn = tree_svg.drawn_nodes(nodes, path)
    rollouts, reason = tree_view.rollouts_of(record)
    idle = sum(not n["visits"] for n in drawn)
    few_idle = idle <= tree_svg.MAX_IDLE
    low, high = tree_svg.value_range(drawn)
    _, status_words = page_data.status_text(record)
    return (
        environment()
        .get_template("tree.html")
        .render(
            t=TEXT,
            legend=LEGEND,
            mark=Markup(mark),
            case_page=case_page,
            case_id=words.short(record.case_id, 120),
            step=words.title_of(record.step) + (f" ({record.occurrence})" if record.occurrence != 1 else ""),
            run_name=words.short(run_name, 120),
            question=words.short(record.question, 300),
            vignette=page_data.vignette(record),
            answer=page_data.answer_text(record),
            leading=page_data.leading_text(record),
            share=page_data.share_text(record),
            share_words=TEXT["share_of_set"] if record.chosen else TEXT["share_of_votes"],
            status_words=status_words,
            svg=draw_tree(record, operable=True),
            details=tree_view.details(record, drawn, path),
            which=which,
            left_out=TEXT["left_out"].format(drawn=len(drawn), all=len(nodes)) if len(drawn) < len(nodes) else "",
            rollouts=",".join(str(i) for i in rollouts),
            no_replay=reason,
            c="" if tree_view.exploration(record) is None else repr(tree_view.exploration(record)),
            is_wide=tree_svg.is_wide(drawn, own_page=True),
            has_path=bool(path),
            low=repr(low),
            high=repr(high),
            idle=idle,
            few_idle=few_idle,
            spoken=json.dumps({name: TEXT[name] for name in _SPOKEN}),
            shades=range(tree_svg.SHADES),
            **assets(asset("tree.js"), "tree.css"),
        )
    )


def render_svg(record: RunRecord) -> str:
    """Returns the drawing of a record's tree as an SVG file of its own; the words lie in its tooltips."""
    return tree_svg.standalone(draw_tree(record), asset("tree_svg.css"))


def draw_tree(record: RunRecord, *, operable: bool = False, tried_only: bool = False) -> Markup:
    """Returns the drawing of a record's tree as an SVG element, as pages embed it; empty without a tree."""
    notes, items = tree_view.notes_of(record), page_data.item_words(record)
    return tree_svg.draw(record.tree, record.winner, items, notes, operable=operable, tried_only=tried_only)
