"""Training sets from stored runs: `sft`, `preference`, `stepwise` and `prompts`, each a folder with its card.

    DIR/train.jsonl            rows of cases of the train split
    DIR/tuning.jsonl           rows of the tuning split, only where asked for: for stopping early, never for teaching
    DIR/vocabularies/          the answer vocabularies of the runs, as files
    DIR/README.md, card.json   what is in it and where it comes from

Rows come from the train split alone; what else a run holds is counted in the card and left out. Held-out cases are
refused. The folder appears whole or not at all, and holds the same bytes whenever it is made from the same runs.
Fields and rules: docs/training-sets.md.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from clinical_data.errors import BadInputError, StorageError, UsageError
from clinical_data.splits import TRAIN, TUNING
from evaluation.reading.store import reviews_of
from evaluation.step_rules import step_rules
from evaluation.store.run_store import RunStore
from evaluation.supervision.cards import CARD, read_card
from evaluation.supervision.lessons import Lesson, Lessons
from evaluation.supervision.preference import preference_rows, sure_enough
from evaluation.supervision.readings import NONE, READINGS, ReviewsOf
from evaluation.supervision.set_card import README, carry_vocabularies, make_card, readme
from evaluation.supervision.set_limits import LEAST_MARGIN, LEAST_VISITS, MOST_CHARACTERS
from evaluation.supervision.sft import RECORD, REVIEWER, ROLES, of_role, prompt_rows, sft_rows, without_disputed
from evaluation.supervision.shaping import (
    KINDS,
    PREFERENCE,
    PROMPTS,
    SFT,
    STEPWISE,
    Row,
    balanced,
    contradictions,
    counted,
    in_order,
    is_unicode,
    line_of,
    short_enough,
    without_repetition,
    without_reversed,
)
from evaluation.supervision.stepwise import check_label_source, stepwise_rows
from evaluation.watching import Watch, unwatched
from search.value import GROUND_TRUTH

HALVES = {0: "first-half", 1: "second-half"}
"""Half of the patients -> its name."""


@dataclass(frozen=True, slots=True)
class SetOptions:
    """How a training set is made.

    Attributes:
        splits: files to write; `train` is always among them.
        steps: steps to take; none means all.
        answers_only: answers and pairs of answers alone, without the turns that lead there.
        answers_from: of these runs, beside those that are named, answers alone: a set can so teach questions from one
            run, and answers from many.
        balance: no class with more cases than the class of median size.
        most_characters: characters of prompt and completion that a row may take; 0: any.
        label_source: of stepwise labels: `record`, `peer`, `vote` or `reviewer`.
        readings: of sft and preference sets, whose word answers are: `none`: the record's; `with`: a reader's where one
            stands above it; `only`: case-steps with such a reader's word alone.
        half: train.jsonl of one half of the patients alone, 0 or 1 (`clinical_data.splits.half_of`); None: of all.
            tuning.jsonl is of other patients than either half and stays whole.
        role: of sft sets the rows for one model: `generator`, or `peer` (see `sft.of_role`); None: all.
        least_margin, least_visits: of pairs of branches: less is taken for chance, and left out.
    """

    splits: tuple[str, ...] = (TRAIN,)
    steps: tuple[str, ...] = ()
    answers_only: bool = False
    answers_from: tuple[str, ...] = ()
    balance: bool = False
    most_characters: int = MOST_CHARACTERS
    label_source: str = RECORD
    readings: str = NONE
    half: int | None = None
    role: str | None = None
    least_margin: float = LEAST_MARGIN
    least_visits: int = LEAST_VISITS


def export_set(
    engine: Engine,
    kind: str,
    runs: Sequence[str],
    out: Path,
    options: SetOptions | None = None,
    watch: Watch = unwatched,
    reviews: ReviewsOf = reviews_of,
) -> dict[str, Any]:
    """Writes a training set and returns its card.

    Args:
        engine: the database of cases and runs.
        kind: `sft`, `preference`, `stepwise`, or `prompts` (of cases with or without a recorded answer).
        runs: names of the runs; with those of `options.answers_from` they must share pathway, prompts, catalogue,
            vocabularies and scheme of splits.
        out: folder to make; one that holds an earlier set is replaced.
        options: how; None: as `SetOptions` has it.
        watch: told how far it is: what, done, of how many (case-steps that teach, of all that are stored).
        reviews: the finished readings of a run.

    Raises:
        UsageError: an option that cannot be, runs that do not go together, or a folder that holds something else.
        BadInputError: no row is left, or a record that is not what it should be; names run, case and field.
        StorageError: a record cannot be read, or the folder not be written.
    """
    options = options or SetOptions()
    _check(kind, options, out)
    if twice := sorted({*runs} & {*options.answers_from}):
        raise UsageError(f"run {twice[0]} is named by --run and by --answers-from", hint="name it once")
    splits = tuple(split for split in (TRAIN, TUNING) if split == TRAIN or split in options.splits)
    unlabelled = kind == PROMPTS or (kind == STEPWISE and options.label_source != RECORD)
    lessons = Lessons(
        engine,
        (*runs, *options.answers_from),
        splits,
        options.steps,
        options.half,
        unlabelled,
        readings=options.readings,
        rated=options.label_source == REVIEWER,
        reviews=reviews,
    )
    steps = tuple(step_rules(lessons.runs[0].config))
    store = RunStore(engine)
    total = sum(len(store.done(run.run_id)) for run in lessons.runs)
    made = in_order(_rows(lessons, kind, options, watch, total), steps)
    files: dict[str, list[Row]] = {}
    notes: dict[str, dict[str, Any]] = {}
    dropped = lessons.dropped
    for split in splits:
        files[split] = _shaped([row for row in made if row["split"] == split], kind, options, dropped)
        if kind == PREFERENCE and split != TRAIN:
            apart = partial(without_reversed, against=files[TRAIN])
            files[split] = counted(
                files[split], apart, f"pair of {split} that {TRAIN} has the other way round", dropped
            )
        notes[split] = contradictions(files[split], kind)
        if not files[split]:
            raise _nothing(lessons, split, any(row["split"] == split for row in made))
    card = make_card(kind, lessons, files, options=_as_json(options, kind), contradictions=notes)
    _write(out, files, card, lessons)
    return card


def _nothing(lessons: Lessons, split: str, some: bool) -> BadInputError:
    """Returns the error to raise where a file would be empty; `some`: there were rows, and all were left out."""
    reasons = ", ".join(f"{n} x {reason}" for reason, n in sorted(lessons.dropped.items()))
    hint = f"left out: {reasons}" if reasons else "the runs hold no record"
    held = {run.name: run.config.get("split") for run in lessons.runs}
    if not some and all(has not in (None, split) for has in held.values()):
        words = ", ".join(f"run {name} is of split {has} alone" for name, has in held.items())
        hint = f"{words}: replay one of split {split}, and name both with --run"
    return BadInputError(f"no row for {split}.jsonl from run {', '.join(held)}", hint=hint)


def _check(kind: str, options: SetOptions, out: Path) -> None:
    if kind not in KINDS:
        raise UsageError(f"no training set named {kind}", hint=f"known: {', '.join(KINDS)}")
    if unknown := [split for split in options.splits if split not in (TRAIN, TUNING)]:
        raise UsageError(f"--split {unknown[0]}: cases of that split are never taught", hint="known: train, tuning")
    if options.most_characters < 0:
        raise UsageError("--max-characters must not be negative")
    if not 0 <= options.least_margin <= 1 or options.least_visits < 1:
        raise UsageError("--least-margin must be between 0 and 1, --least-visits at least 1")
    _check_kind(kind, options)
    if options.half not in (None, *HALVES):
        raise UsageError(f"no half {options.half} of the patients", hint="known: 0 and 1")
    if options.role not in (None, *ROLES):
        raise UsageError(f"--role {options.role} is unknown", hint=f"known: {', '.join(ROLES)}")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not _is_set(out))):
        raise UsageError(f"{out} holds something else than a training set", hint="name another folder with --out")


def _is_set(folder: Path) -> bool:
    """Says whether a folder holds a training set; a tuned model has a card as well, and is none."""
    try:
        kind = read_card(folder / CARD).get("kind")
    except BadInputError:
        return False
    return kind in KINDS and (folder / f"{TRAIN}.jsonl").is_file()


def _check_kind(kind: str, options: SetOptions) -> None:
    """Raises UsageError for an option that the kind of set does not know."""
    check_label_source(options.label_source)
    if kind == PROMPTS and options.label_source != RECORD:
        raise UsageError(f"--label-source {options.label_source} is for stepwise sets; {kind} have no label")
    if kind != STEPWISE and options.label_source != RECORD:
        raise UsageError(f"--label-source {options.label_source} is for stepwise sets; {kind} takes the record's word")
    if options.readings not in READINGS:
        raise UsageError(f"--readings {options.readings} is unknown", hint=f"known: {', '.join(READINGS)}")
    if options.readings != NONE and kind not in (SFT, PREFERENCE):
        hint = "stepwise sets take --label-source reviewer" if kind == STEPWISE else "prompts have no label"
        raise UsageError("--readings is for sft and preference sets", hint=hint)
    for given, name in ((options.answers_only, "--answers-only"), (options.answers_from, "--answers-from")):
        if kind in (STEPWISE, PROMPTS) and given:
            raise UsageError(f"{name} is for sft and preference sets")
    if kind == PROMPTS and options.balance:
        raise UsageError("--balance goes by the recorded class, which prompts do not have")
    if options.role is not None and kind != SFT:
        raise UsageError(f"--role is for sft sets; {kind} sets are the generator's")
    if options.balance and kind == STEPWISE and options.label_source != RECORD:
        raise UsageError("--balance goes by the recorded class, which this set does not use")


def _rows(lessons: Lessons, kind: str, options: SetOptions, watch: Watch, total: int) -> Iterator[Row]:
    for done, lesson in enumerate(lessons, 1):
        watch(f"reading for {kind}", done, total)
        number = 0
        for row in _rows_of(lesson, kind, options):
            number += 1
            disliked = row.pop("disliked", False)
            if row.pop("cut", False):
                lessons.dropped["turn empty, or cut by the limit of tokens"] += 1
            elif disliked:
                lessons.dropped["turn that readers rated below acceptable"] += 1
            elif not is_unicode(row):
                lessons.dropped["row whose text is no Unicode"] += 1
            else:
                yield row
        if not number:
            lessons.dropped[f"case-step that gives no {kind} row"] += 1


def _rows_of(lesson: Lesson, kind: str, options: SetOptions) -> Iterator[Row]:
    answers_only = options.answers_only or lesson.run in options.answers_from
    if kind == SFT:
        return of_role(sft_rows(lesson, answers_only=answers_only), options.role)
    if kind == PREFERENCE:
        return preference_rows(lesson, answers_only=answers_only)
    if kind == PROMPTS:  # where recorded labels valued the search, the best trajectory would tell of them
        return iter(()) if lesson.record.settings.get("value") == GROUND_TRUTH else prompt_rows(lesson)
    return stepwise_rows(lesson, options.label_source)


def _shaped(rows: list[Row], kind: str, options: SetOptions, dropped: Counter[str]) -> list[Row]:
    most = options.most_characters
    if kind == PROMPTS:
        rows = without_disputed(rows, dropped)
    rows = counted(rows, partial(without_repetition, kind=kind), "row that repeats another of its case", dropped)
    shorter = partial(short_enough, kind=kind, characters=most)
    rows = counted(rows, shorter, f"row of more than {most} characters", dropped)
    if kind == PREFERENCE:
        sure = partial(sure_enough, margin=options.least_margin, visits=options.least_visits)
        what = (
            f"pair of branches by less than {options.least_margin:g}, or over fewer than {options.least_visits} visits"
        )
        rows = counted(rows, sure, what, dropped)
        rows = counted(rows, without_reversed, "pair that stands there the other way round", dropped)
    if options.balance:
        rows = counted(rows, balanced, "row of a larger class (balance)", dropped)
    return rows


def _as_json(options: SetOptions, kind: str) -> dict[str, Any]:
    of_pairs = {"least_margin": options.least_margin, "least_visits": options.least_visits}
    return {
        "steps": list(options.steps),
        "answers_only": options.answers_only,
        "answers_from": sorted(set(options.answers_from)),
        "balance": options.balance,
        "most_characters": options.most_characters,
        "label_source": options.label_source if kind != PROMPTS else "none",
        "readings": options.readings,
        "patients": "all" if options.half is None else HALVES[options.half],
        "role": options.role or "all",
        **(of_pairs if kind == PREFERENCE else {}),
    }


def _write(out: Path, files: dict[str, list[Row]], card: dict[str, Any], lessons: Lessons) -> None:
    """Writes the folder beside its place and moves it there when it is whole."""
    part: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        for split, rows in files.items():
            _put(part / f"{split}.jsonl", "".join(line_of(row) for row in rows))
        carry_vocabularies(lessons.vocabularies, part, _put)
        _put(part / CARD, json.dumps(card, ensure_ascii=False, indent=2, sort_keys=True) + "\n")
        _put(part / README, readme(card))
        _swap(part, out)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror})") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _swap(new: Path, place: Path) -> None:
    """Moves a folder to its place; what stood there goes when that has worked, and else comes back."""
    if not place.exists():
        new.replace(place)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    place.replace(aside / place.name)
    try:
        new.replace(place)
    except OSError:
        (aside / place.name).replace(place)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _put(path: Path, text: str) -> None:
    """Writes a file that only its owner can read: rows hold what a patient's chart said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="\n", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
        file.write(text)
