"""What a page says of the search behind it, last: models, settings, hashes, and what each step took."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.record import ReviewRecord, RunRecord
from evaluation.review import page_data as data
from evaluation.review import tree_view, words
from evaluation.review.language import say

HASH_SHOWN = 8
"""Characters of a sha256 in the head of a step; the whole of it stands at the end."""

Rows = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class About:
    """Facts that all steps of a case share, and those of each step: (title, [(name, value)])."""

    shared: tuple[tuple[str, Rows], ...]
    steps: tuple[tuple[str, Rows], ...]


def versions(record: RunRecord, pathway: str) -> tuple[tuple[str, str], ...]:
    """Returns what a step was made with, each with the beginning of its hash: model, prompt, pathway, data."""
    models = [m for _, m in sorted(record.models.items())]
    named = [f"{m.get('name') or m.get('spec') or ''} {m.get('revision') or ''}".strip() for m in models]
    shown = say("words.list_gap").join(words.short(name, 80) for name in dict.fromkeys(filter(None, named)))

    def short_hash(name: str) -> str:
        return words.short(record.hashes.get(name, ""), 80)[:HASH_SHOWN] or "–"

    return (
        (say("case.version.model"), shown or "–"),
        (say("case.version.prompt"), short_hash("prompts")),
        (say("case.version.pathway"), f"{words.short(pathway, 60)} {short_hash('pathway')}".strip()),
        (say("case.version.data"), short_hash("case")),
    )


def about(records: Sequence[RunRecord], run_name: str, titles: Mapping[str, str]) -> About:
    """Returns what it takes to do the steps of a case again; what is equal in all of them is said once."""
    first = records[0]
    case = [
        (say("case.about.case"), words.short(first.case_id, 120)),
        (say("case.about.source"), f"{words.short(first.source, 80)}, {words.short(first.source_id, 120)}"),
        (say("case.about.patient"), words.short(first.patient_id, 120)),
        (say("case.about.run"), words.short(run_name, 120)),
    ]
    blocks = [_blocks(r) for r in records]
    asked = [b for r, b in zip(records, blocks, strict=True) if r.models or r.settings] or blocks
    equal = {
        title: [row for row in rows if all(row in b.get(title, ()) for b in asked)] for title, rows in asked[0].items()
    }
    steps = []
    for record, block in zip(records, blocks, strict=True):
        own = [row for title, rows in block.items() for row in rows if row not in equal.get(title, ())]
        name = words.step_text(record.step, record.occurrence, titles.get(record.step, ""))
        steps.append((name, [*_step(record, run_name), *own]))
    return About(
        ((say("case.about.case_title"), case), *((t, rows) for t, rows in equal.items() if rows)), tuple(steps)
    )


def _blocks(record: RunRecord) -> dict[str, Rows]:
    models: dict[str, Rows] = {}
    for role, identity in sorted(record.models.items()):
        same = say("case.about.same_weights") if role == "peer" and record.peer_is_generator else ""
        models[words.title_of(role) + same] = data.flatten(identity)
    return {
        **models,
        say("case.about.settings"): data.flatten(record.settings),
        say("case.about.hashes"): data.flatten(record.hashes),
    }


def _step(record: RunRecord, run_name: str) -> Rows:
    """What one step took."""
    clock = "–" if record.clock is None else say("case.about.minute", n=f"{record.clock:,}")
    rows = [
        (say("case.about.step"), f"{words.short(record.step, 80)}, {record.occurrence}"),
        (say("case.about.clock"), clock),
        (say("case.about.status"), words.short(record.status, 40)),
        *([(say("case.about.clinician"), _review(record.review))] if record.review else []),
        (say("case.about.strategy"), words.short(record.strategy, 80)),
        (say("case.about.seed"), str(record.seed)),
        (say("case.about.rollouts"), f"{record.rollouts:,}"),
        (say("case.about.margin"), "–" if record.margin is None else f"{record.margin:.3f}"),
        *((say("case.about.tokens", what=words.short(k, 40)), f"{v:,}") for k, v in sorted(record.tokens.items())),
        (say("case.about.draws"), words.draws_text(record.draws, record.unparseable) or say("case.about.no_draws")),
        (say("case.about.time"), words.seconds_text(record.seconds)),
        (say("case.about.repeats"), say("case.yes" if record.repeatable else "case.no")),
        (say("case.about.answers"), words.short(record.vocabulary, 120) or "–"),
        (say("case.about.version"), str(record.version)),
    ]
    if tree_view.nodes_of(record):
        rows.append((say("case.about.command"), _command(record, run_name)))
    return rows


def _command(record: RunRecord, run_name: str) -> str:
    """The command that writes the tree in other forms."""
    words_of = ["wardstar", "tree", "--run", run_name, "--case", words.short(record.case_id, 120), "--step"]
    command = shlex.join([*words_of, words.short(record.step, 80)])
    more = f" --occurrence {record.occurrence}" if record.occurrence != 1 else ""
    return f"{command}{more} --format svg|mermaid|json"


def _review(review: ReviewRecord) -> str:
    """What became of the question to a clinician."""
    if review.state in ("skipped", "waiting"):
        return say(f"case.about.review_{review.state}")
    return words.short(review.display, 300)
