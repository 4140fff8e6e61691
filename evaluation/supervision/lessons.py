"""Reads stored runs for teaching: each case-step of the splits asked for, with its branches and its recorded answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sqlalchemy import Engine

from clinical_data.clocks import labels_hold
from clinical_data.errors import StorageError, UsageError
from clinical_data.ground_truth import GroundTruth
from clinical_data.splits import PATIENT_SCHEME, SPLITS, TRAIN, half_of
from clinical_data.store.case_reader import CaseReader
from clinical_data.store.truth_store import TruthStore
from clinical_data.vocabulary import Vocabulary, load_vocabulary
from evaluation.reading.form import Key, Review
from evaluation.reading.read_steps import answer_of
from evaluation.reading.store import reviews_of
from evaluation.record import RunRecord
from evaluation.review.page_data import path_of
from evaluation.step_rules import SET, StepRule, step_rules
from evaluation.store.run_store import Run, RunStore
from evaluation.supervision.branches import Leaf
from evaluation.supervision.lesson_checks import bad_record, check_alike, check_clock, check_hashes
from evaluation.supervision.readings import GOOD, NONE, ONLY, ReviewsOf, RunReadings, read_answer, read_ratings
from evaluation.supervision.targets import NO_LABEL, Target, keys_of, target_of, target_of_codes, vote_after
from evaluation.supervision.traces import CallBook, opening_of, trace
from search.desk import GENERATOR
from search.trajectory import Status


@dataclass(frozen=True, slots=True)
class Lesson:
    """One case-step of a run, ready to teach.

    Attributes:
        run, split: where it comes from.
        record: what happened.
        target: the recorded answer, or a reader's in its place; None without one that can be taught.
        vocabulary: the closed list of answers.
        answer_cue: word before the answer in prompts.
        book: its calls to models.
        leaves: its concluded trajectories; never empty.
        by_reader: the target is a reader's word.
        overridden: the model's answer, which a reader overrode with the target; None where no reader did.
        ratings: turn of the winning trajectory -> a reader's rating, 1 to 5.
    """

    run: str
    split: str
    record: RunRecord
    target: Target | None
    vocabulary: Vocabulary
    answer_cue: str
    book: CallBook
    leaves: list[Leaf]
    by_reader: bool = False
    overridden: Target | None = None
    ratings: dict[int, float] = field(default_factory=dict)

    @property
    def winning(self) -> Leaf | None:
        """The trajectory that readers were shown; None where it cannot be taught."""
        shown = path_of(self.record)
        return next((leaf for leaf in self.leaves if shown is not None and leaf.candidate.node == shown.node), None)

    @property
    def disliked(self) -> frozenset[str]:
        """The prompts after the turns that readers rated below acceptable."""
        turns = self.winning.trace.turns if self.winning else ()
        return frozenset(turn.after for at, turn in enumerate(turns) if self.ratings.get(at, GOOD) < GOOD)


@dataclass(frozen=True, slots=True)
class _Aim:
    """What a case-step is to be taught: see `Lesson`."""

    target: Target | None
    by_reader: bool = False
    overridden: Target | None = None
    ratings: dict[int, float] = field(default_factory=dict)
    overrides: bool = False  # the target is a reader's word against the model's


@dataclass(slots=True)
class Lessons:
    """The case-steps of some runs that may teach.

    Args:
        engine: the database of cases and runs.
        names: the runs.
        splits: splits that are asked for.
        steps: steps that are asked for; none means all.
        half: of the patients of the train split only these, 0 or 1 (`clinical_data.splits.half_of`); None: all.

    Attributes:
        runs: the runs, by name.
        vocabularies: name under which a pathway knows it -> vocabulary, of those used.
        dropped: why case-steps and trajectories were left out, and how often.
        unlabelled: take also case-steps without a recorded answer that can be taught.
        readings: `none`, `with` or `only` (`readings.READINGS`): whose word the answers are.
        rated: take only case-steps with turns that readers rated, and look at nothing else of the readings.
        reviews: the readings of a run.

    Raises:
        UsageError: no such run, runs that do not go together, or a run of another version of prompts or vocabularies.
    """

    engine: Engine
    names: Sequence[str]
    splits: Sequence[str]
    steps: Sequence[str] = ()
    half: int | None = None
    unlabelled: bool = False
    readings: str = NONE
    rated: bool = False
    reviews: ReviewsOf = reviews_of
    runs: list[Run] = field(default_factory=list)
    vocabularies: dict[str, Vocabulary] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    _truths: dict[str, dict[str, GroundTruth]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        store = RunStore(self.engine)
        self.runs = [store.get(name) for name in sorted(set(self.names))]
        check_alike(self.runs)
        known = list(step_rules(self.runs[0].config))
        if unknown := [step for step in self.steps if step not in known]:
            raise UsageError(f"no step named {unknown[0]}", hint=f"known: {', '.join(known)}")

    def __iter__(self) -> Iterator[Lesson]:
        """Yields the case-steps run by run, in stored order.

        Raises:
            StorageError: a record or its calls cannot be read.
            BadInputError: a record and its calls do not belong together, or it shows what was not known at its clock.
        """
        asked = self.rated or self.readings != NONE
        reviews = {run.name: self.reviews(self.engine, run.run_id) if asked else () for run in self.runs}
        overridden = self._overridden(reviews) if self.readings != NONE and len(self.runs) > 1 else {}
        for run in self.runs:
            splits = split_of_cases(self.engine, run)
            rules = step_rules(run.config)
            readings = RunReadings(run, reviews[run.name])
            with _naming(run):
                for stored in RunStore(self.engine).records(run.run_id):
                    split = splits.get(stored.record.case_id, "")
                    read = readings.take(stored.record, self.dropped)
                    if reason := _set_aside(overridden.get(_key_of(stored.record), {}), run.name):
                        self.dropped[reason] += 1
                        continue
                    lesson = self._lesson(run, rules, stored.record, split, read)
                    if lesson is not None:
                        yield lesson
            readings.count_rest(self.dropped)

    def _overridden(self, reviews: Mapping[str, Sequence[Review]]) -> dict[Key, dict[str, tuple[str, ...]]]:
        """Returns case-step -> run -> classes of the answer by which its readers overrode the model's; counts nothing.

        Args:
            reviews: run -> its readings.
        """
        found: dict[Key, dict[str, tuple[str, ...]]] = {}
        for run in self.runs:
            splits, rules, unseen = split_of_cases(self.engine, run), step_rules(run.config), Counter[str]()
            readings, done = RunReadings(run, reviews[run.name]), RunStore(self.engine).done(run.run_id)
            with _naming(run):
                for key in sorted({review.key for review in reviews[run.name]} & done.keys()):
                    record = RunStore(self.engine).record(run.run_id, *key).record
                    read = readings.take(record, unseen)
                    if self._why_not(record, splits.get(record.case_id, ""), rules):
                        continue
                    vocabulary, most, target, reason = self._recorded(rules[record.step], record)
                    aim = self._reader_aim(target, reason, record, vocabulary, most, read, unseen)
                    if aim is not None and aim.overrides and aim.target is not None:
                        found.setdefault(key, {})[run.name] = tuple(sorted(aim.target.classes))
        return found

    def _lesson(
        self, run: Run, rules: dict[str, StepRule], record: RunRecord, split: str, read: Sequence[Review]
    ) -> Lesson | None:
        reason = self._why_not(record, split, rules)
        if reason:
            if reason != _OTHER_STEP:
                self.dropped[reason] += 1
                if read:
                    self.dropped[f"reading left out with its case-step ({reason})"] += len(read)
            return None
        rule = rules[record.step]
        vocabulary, most, target, reason = self._recorded(rule, record)
        check_hashes(run, record, vocabulary)
        aim = self._aim(target, reason, record, vocabulary, most, read)
        if aim is None:
            return None
        target = aim.target
        calls = RunStore(self.engine).calls_of(run.run_id, (record.case_id, record.step, record.occurrence))
        book = CallBook(
            calls, int(record.settings.get("turn_tokens", 0)) or _NO_LIMIT, record.settings.get("likelihood", "mean")
        )
        leaves = self._leaves(run, record, rule, target, vocabulary, book)
        if not leaves:
            self.dropped["no trajectory that can be taught"] += 1
            return None
        lesson = Lesson(run.name, split, record, target, vocabulary, rule.answer_cue, book, leaves)
        return replace(lesson, by_reader=aim.by_reader, overridden=aim.overridden, ratings=aim.ratings)

    def _recorded(self, rule: StepRule, record: RunRecord) -> tuple[Vocabulary, int | None, Target | None, str]:
        """Returns the closed list of answers, the most that are asked for, and the recorded answer or why none is."""
        vocabulary = self._vocabulary(rule.vocabularies[record.source])
        holds = labels_hold(rule.truth, record.occurrence)
        truth = self._truth(rule.truth).get(record.case_id) if holds else None
        most = rule.most if rule.form == SET else None
        return vocabulary, most, *target_of(truth, vocabulary, most)

    def _aim(
        self,
        target: Target | None,
        reason: str,
        record: RunRecord,
        vocabulary: Vocabulary,
        most: int | None,
        read: Sequence[Review],
    ) -> _Aim | None:
        """Returns what is to be taught; None where that is nothing, with the reason counted.

        Args:
            target, reason: the recorded answer, or why there is none.
            record, vocabulary, most: of the case-step.
            read: its readings.
        """
        if self.rated:
            ratings = read_ratings(read, self.dropped)
            if not ratings:
                self.dropped["case-step without rated turns that may teach"] += 1
            return _Aim(target, ratings=ratings) if ratings else None
        aim = None
        if self.readings != NONE:
            aim = self._reader_aim(target, reason, record, vocabulary, most, read, self.dropped)
            if aim is None and self.readings == ONLY:
                self.dropped["case-step without a reader's answer that may teach"] += 1
                return None
        if aim is None:
            aim = _Aim(target)
        if aim.target is None and not self.unlabelled:
            self.dropped[reason] += 1
            return None
        return replace(aim, ratings=read_ratings(read, Counter()))

    def _reader_aim(
        self,
        target: Target | None,
        reason: str,
        record: RunRecord,
        vocabulary: Vocabulary,
        most: int | None,
        read: Sequence[Review],
        dropped: Counter[str],
    ) -> _Aim | None:
        """Returns a reader's word as what is to be taught; None where there is none that stands above the record's.

        An override with another answer does. An accepted answer confirms the record's, and stands where none is
        recorded; where the record says something else its word stays.
        """
        word = read_answer(read, record, vocabulary, dropped) if read else None
        if word is None:
            return None
        if not word.codes:
            accepted = "reading that accepts that no answer was given"
            dropped["reading that overrides without another answer" if word.overridden else accepted] += 1
            return None
        said, model = (target_of_codes(codes, vocabulary, most) for codes in (word.codes, answer_of(record)))
        if said is None:
            dropped["reading whose answer is outside the vocabulary"] += 1
            return None
        if word.overridden:
            return _Aim(said, by_reader=True, overridden=model, overrides=True)
        if target is not None and set(target.classes) == set(said.classes):
            return _Aim(target, by_reader=True)
        if target is None and reason == NO_LABEL:
            return _Aim(said, by_reader=True)
        dropped["reading that accepts another answer than the recorded one"] += 1
        return None

    def _why_not(self, record: RunRecord, split: str, rules: dict[str, StepRule]) -> str:
        """Returns why a case-step is left out unread; empty where it is not."""
        if self.steps and record.step not in self.steps:
            return _OTHER_STEP
        if split not in self.splits:
            return f"case of split {split}" if split else "case without a split"
        if self.half is not None and split == TRAIN and half_of(record.patient_id) != self.half:
            return "case of the other half of the patients"
        if record.status in (Status.FAILED, Status.NOT_APPLICABLE):
            return f"step {record.status.replace('_', ' ')}"
        if record.step not in rules or record.source not in rules[record.step].vocabularies:
            return "no answer vocabulary for this source"
        return "" if record.candidates else "no trajectory"

    def _leaves(
        self,
        run: Run,
        record: RunRecord,
        rule: StepRule,
        target: Target | None,
        vocabulary: Vocabulary,
        book: CallBook,
    ) -> list[Leaf]:
        """Returns the concluded trajectories that can be taught, and counts the others."""
        opening = opening_of(record, book)
        if opening is None:
            raise bad_record(run, record, "calls", "the stored calls are not those of this record")
        check_clock(run, record)
        leaves = []
        for candidate in record.candidates:
            if any(turn.imagined for turn in candidate.turns):
                self.dropped["trajectory with imagined results"] += 1
                continue
            traced = trace(candidate, opening, rule.answer_cue, book)
            if traced is None:
                self.dropped["trajectory whose prompts are not stored"] += 1
                continue
            likelihood, right = 0.0, False
            if target is not None:
                keys = keys_of(candidate)
                right = target.agrees(keys)
                likelihood = target.rightness(keys)
                if not target.several:
                    vote = vote_after(book, GENERATOR, traced.turns[-1].pieces[0].prompt, vocabulary)
                    likelihood = target.likelihood(vote) if vote is not None else 0.0
            leaves.append(Leaf(candidate, traced, likelihood, right))
        return leaves

    def _truth(self, selector: str) -> dict[str, GroundTruth]:
        if selector not in self._truths:
            self._truths[selector] = TruthStore(self.engine).truth_of_step(selector)
        return self._truths[selector]

    def _vocabulary(self, name: str) -> Vocabulary:
        if name not in self.vocabularies:
            self.vocabularies[name] = load_vocabulary(name)
        return self.vocabularies[name]


@contextmanager
def _naming(run: Run) -> Iterator[None]:
    """Names the run of a record that cannot be read."""
    try:
        yield
    except StorageError as error:
        raise StorageError(f"run {run.name}, {error.message}", hint=error.hint) from error


def _key_of(record: RunRecord) -> Key:
    return record.case_id, record.step, record.occurrence


def _set_aside(overridden: Mapping[str, tuple[str, ...]], run: str) -> str:
    """Returns why a case-step of a run is not taught beside the same one of other runs; empty where it is.

    Args:
        overridden: run -> by which answer its readers overrode the model's, of this case-step.
        run: the run.
    """
    if len(set(overridden.values())) > 1:
        return "case-step that readers of several runs overrode with different answers"
    return "case-step that a reader overrode in another run" if overridden and run not in overridden else ""


_NO_LIMIT = 1 << 30
_OTHER_STEP = "another step"


def split_of_cases(engine: Engine, run: Run) -> dict[str, str]:
    """Returns case id -> split, by the scheme of a run."""
    scheme = run.config.get("split_scheme", PATIENT_SCHEME)
    reader = CaseReader(engine)
    return {case_id: split for split in SPLITS for case_id in reader.case_ids(split=split, scheme=scheme)}
