"""Every word of the drawing and of the tree page, in one table, so that another language is another table."""

from __future__ import annotations

TEXT: dict[str, str] = {
    "title": "Search tree",
    "badge": "Retrospective research, not for care",
    "run": "run",
    "answer": "The model’s answer",
    "no_answer": "No answer",
    "leading": "leading:",
    "share_of_votes": "share of votes",
    "explain": "Each mark is one turn, read from the start at the left to an answer at the right; the heavy line is "
    "the way to the answer that was chosen. Visits say how often the search went through a turn; value says, from "
    "0 to 1, how promising the answers beyond it looked to the search, not whether they are right.",
    "keys": "Arrow keys move along the tree, Enter opens a turn, Space folds what lies beyond it, Escape leads back. "
    "Drag to move the drawing; pinch, or Ctrl and the wheel, to zoom.",
    "keys_title": "Keys and gestures",
    "legend": "Signs",
    "value_low": "low value",
    "value_high": "high value",
    "now": "the rollout shown",
    "size": "larger: more visits",
    "zoom_in": "Zoom in",
    "zoom_out": "Zoom out",
    "fit": "Whole tree",
    "untried": "Show turns that were proposed and never tried",
    "replay": "Replay of the search",
    "play": "Play",
    "pause": "Pause",
    "slider": "Rollout",
    "before": "Before the first of {n} rollouts",
    "rollout": "Rollout {k} of {n} ended at: {label}, value {value}",
    "after": "After all {n} rollouts",
    "then": "visited {n} times by then, mean value {q}",
    "not_yet": "not visited by then",
    "beyond": "{n} more",
    "details": "The turn",
    "hint": "Choose a turn in the drawing to read it here.",
    "fold": "Fold what lies beyond",
    "unfold": "Unfold",
    "last_commit": "The search settled on {n} turns one by one and grew a tree for each. This is the last tree, which "
    "begins with those turns; `wardstar tree --commit 1` to {n} gives the earlier ones.",
    "this_commit": "Tree {k} of {all}: the heavy line leads to the turn that was settled on next.",
    "left_out": "Only {drawn} of {all} turns are drawn: those that were visited.",
    "best": "On the way to the chosen answer.",
    "idle": "Proposed, never tried.",
    "said": "What the model wrote",
    "nothing": "(nothing written)",
    "record_said": "What the record answered",
    "more": "and {n} more, not shown here",
    "imagined": "imagined by the model, not read from the record",
    "checks": "Check by the second run",
    "checks_after": "Went on after",
    "checks_answer": "Its answer",
    "checks_same": "Same?",
    "same": "same",
    "different": "different",
    "not_checked": "not checked",
    "open": "Not tried from here",
    "no_readable": "no readable answer",
}
FACTS: dict[str, str] = {
    "visits": "Visits (N)",
    "sum": "Sum of values (W)",
    "mean": "Mean value (Q = W/N)",
    "uct": "UCT (mean value + bonus for few visits)",
    "depth": "Depth",
    "duplicates": "Equal proposals merged into it",
    "ended": "Rollouts that ended here",
    "share": "Share of votes",
    "agreement": "Agreement of the check",
    "state": "The record’s answer",
    "cost": "Price",
}
LABELS: dict[str, str] = {
    "root": "start",
    "think": "thought",
    "ask": "sub-question",
    "reask": "second answer",
    "rephrase": "restated",
}
LEGEND: dict[str, str] = {
    "request": "request to the record",
    "think": "thought",
    "ask": "question to itself",
    "reask": "second answer to it",
    "rephrase": "case restated",
    "finish": "answer",
}
STATES: dict[str, str] = {
    "recorded": "answered",
    "pending": "pending",
    "not_done_by_now": "not done by then",
    "done_result_not_in_source": "result missing",
    "not_in_source": "not in source",
    "unrecognised": "not understood",
}
NO_REPLAY: dict[str, str] = {
    "absent": "This record does not hold the order of its rollouts, so the search cannot be replayed.",
    "differs": "The stored order of rollouts does not add up to the stored visits, so the search cannot be replayed.",
}
