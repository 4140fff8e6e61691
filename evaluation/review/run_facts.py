"""The run's own figures: models, work and time, configuration and hashes, and what its settings mean for a reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from evaluation.record import RunRecord
from evaluation.review import words
from evaluation.review.language import look_up, say
from evaluation.review.page_data import flatten
from evaluation.store.run_store import Run


def notes(records: Sequence[RunRecord]) -> list[str]:
    """Returns what the settings of the run mean for its reading."""
    found = []
    access = {str(r.settings.get("chart_access")) for r in records}
    found += [say(f"index.note.{name}") for name in ("hindsight", "prospective") if name in access]
    if any(r.settings.get("predecessors") == "recorded" for r in records):
        found.append(say("index.note.oracle"))
    if asked := [r.review.state for r in records if r.review is not None]:
        states = ", ".join(f"{n} {look_up('index.reviewed', state)}" for state, n in sorted(Counter(asked).items()))
        found.append(say("index.note.clinician", n=len(asked), states=states))
    if any(not r.repeatable for r in records):
        found.append(say("index.note.mixed"))
    return found


def figures(run: Run, records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """Returns models, seed, work and time of a run as names and values."""
    tokens: Counter[str] = Counter()
    for record in records:
        tokens.update(record.tokens)
    models = sorted(
        {
            f"{look_up('index.role', role, words.title_of(role))}{say('words.colon')}"
            f"{words.short(str(identity.get('name') or identity.get('spec') or '–'), 120)}"
            for r in records
            for role, identity in r.models.items()
        }
    )
    answered = [r for r in records if r.status not in ("not_applicable", "failed")]
    seconds = sum(r.seconds for r in records)
    time = words.seconds_text(seconds)
    if answered:
        time = say("index.fact.time_each", time=time, each=words.seconds_text(seconds / len(answered)))
    draws, unread = sum(r.draws for r in records), sum(r.unparseable for r in records)
    rows = [("models", say("words.list_gap").join(models) or "–")]
    rows.append(("strategy", ", ".join(sorted({words.short(r.strategy, 60) for r in records})) or "–"))
    if (seed := run.config.get("seed")) is not None:
        rows.append(("seed", words.short(str(seed), 60)))
    rows.append(("rollouts", f"{sum(r.rollouts for r in records):,}"))
    if draws:
        rows.append(("draws", say("index.fact.of_draws", read=f"{draws - unread:,}", draws=f"{draws:,}")))
    rows += [(f"tokens_{name}", f"{number:,}") for name, number in sorted(tokens.items())]
    rows.append(("time", time))
    rows.append(("begun", words.short(run.created, 60)))
    rows.append(("ended", words.short(run.finished or say("index.fact.not_yet"), 60)))
    rows.append(("state", words.short(run.status, 60)))
    return [(look_up("index.fact", name, words.title_of(name)), value) for name, value in rows]


def facts(run: Run, records: Sequence[RunRecord]) -> tuple[tuple[str, list[tuple[str, str]]], ...]:
    """Returns configuration, hashes, versions and work in blocks, as they are stored."""
    hashes: dict[str, set[str]] = {}
    for record in records:
        for name, value in record.hashes.items():
            hashes.setdefault(name, set()).add(value)
    several = {n: say("index.fact.several", n=len(v)) for n, v in hashes.items() if len(v) > 1}
    shared = {n: several.get(n) or next(iter(v)) for n, v in hashes.items()}
    blocks = (
        ("configuration", [("hash", words.short(run.config_hash, 80)), *flatten(run.config)]),
        ("hashes", flatten(shared)),
        ("versions", flatten(run.versions)),
        ("work", flatten(run.work or {})),
    )
    return tuple((say(f"index.block.{name}"), rows) for name, rows in blocks if rows)
