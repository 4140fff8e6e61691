"""Several cases at once with the same models: what they ask goes out in common batches.

A search asks its models from deep within, so each case has a thread of its own. Only one of these threads runs at a
time, while `run_together` waits until it asks or ends; the models are called by `run_together` alone. The threads are
coroutines, in other words: nothing needs a lock, batches depend on no timing, and nobody waits for a case that ended.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from clinical_data.errors import ModelError
from search.generation_cache import Tokenising
from search.models.language_model import (
    ChoiceScores,
    GenerateRequest,
    Generation,
    LanguageModel,
    ModelIdentity,
    Prompt,
    ScoreRequest,
    Work,
)
from search.problem import Models

THREAD = "wardstar-case"
T = TypeVar("T")
Job = Callable[[Models], T]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one case wants of one model: `compute` is the model's `generate` or `score`."""

    front: SharedModel
    compute: Callable[[Sequence[Any]], list[Any]]
    requests: Sequence[Any]


class SharedModel:
    """A `LanguageModel` of one case, in front of one that several cases share. `run_together` makes them.

    Args:
        model: computes the batches.
        ask: hands over what is wanted and waits for the replies.
        users: fronts of the model that are in the middle of a case-step; common to all of them.
    """

    def __init__(self, model: LanguageModel, ask: Callable[[_Asked], list[Any]], users: set[SharedModel]) -> None:
        self._model, self._ask, self._users = model, ask, users
        self._work = Work()

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is."""
        return self._model.identity

    @property
    def work(self) -> Work:
        """The work of a batch counts for the first case in it, since no share of it is any case's own.

        Only the sum over all cases means something: it is the work of the model.
        """
        return self._work

    def generate(self, requests: Sequence[GenerateRequest]) -> list[Generation]:
        """Returns one sample per request, in order."""
        return self._reply(self._model.generate, requests)

    def score(self, requests: Sequence[ScoreRequest]) -> list[ChoiceScores]:
        """Returns the likelihoods of the choices of each request, in order."""
        return self._reply(self._model.score, requests)

    def release(self) -> None:
        """Lets the model forget keys and values, unless another case still needs some: then its bounded cache does."""
        self._users.discard(self)
        if not self._users:
            self._model.release()

    def count(self, before: Work) -> None:
        """Counts what the model has worked since `before`."""
        for f in fields(Work):
            done = getattr(self._model.work, f.name) - getattr(before, f.name)
            setattr(self._work, f.name, getattr(self._work, f.name) + done)

    def work_so_far(self) -> Work:
        """Returns a copy of the model's counters."""
        return replace(self._model.work)

    def _reply(self, compute: Callable[[Sequence[Any]], list[Any]], requests: Sequence[Any]) -> list[Any]:
        if not requests:
            return []
        self._users.add(self)
        return self._ask(_Asked(self, compute, requests))


class _SharedTokeniser(SharedModel):
    """A front of a model that can say token ids without a pass."""

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Returns the ids of a prompt."""
        assert isinstance(self._model, Tokenising)
        return self._model.prompt_ids(prompt)

    def choice_ids(self, choice: str) -> tuple[int, ...]:
        """Returns the ids of a choice."""
        assert isinstance(self._model, Tokenising)
        return self._model.choice_ids(choice)


def run_together(models: Models, jobs: Iterable[Job[T]], at_once: int) -> Iterator[T]:
    """Runs jobs side by side, each with models of its own, and yields what they return, in the order they end.

    Whenever all jobs at work have asked, one batch is computed: that of the model and kind (generate or score) for
    which jobs have waited most. Jobs so fall into step; one batch of every kind took a third more forward passes. When
    a batch breaks, every job in it is asked for alone, so that a job meets only its own errors. A job that ended makes
    room for the next. When the iterator is closed or broken off, the jobs at work are stopped where they next ask.

    Args:
        models: what the jobs share.
        jobs: functions of the models that they are to use; taken when there is room.
        at_once: most jobs at work.

    Raises:
        BaseException: what a job raised; the others are stopped.
    """
    users: defaultdict[int, set[SharedModel]] = defaultdict(set)
    upcoming = iter(jobs)
    strands: list[_Strand[T]] = []
    try:
        while True:
            strands += [_Strand(job, models, users) for job in islice(upcoming, at_once - len(strands))]
            if not strands:
                return
            for strand in [s for s in strands if s.asked is None] or _answer(strands):
                strand.go_on()
                if strand.done:
                    strands.remove(strand)
                    yield strand.result
    finally:
        for strand in strands:
            strand.stop()
        for strand in strands:
            strand.join()


class _Stopped(BaseException):
    """Ends a job; no error, so that no step is recorded as failed."""


class _Strand(Generic[T]):
    """A job in a thread that runs only while it is told to go on.

    Attributes:
        asked: what the job waits for; None before its first question, and when it has ended.
        answer: replies to it, or the error to raise.
        waited: batches computed since it asked, its own included.
        done: it has ended.
    """

    def __init__(self, job: Job[T], models: Models, users: defaultdict[int, set[SharedModel]]) -> None:
        self._job = job
        generator = self._front(models.generator, users)
        peer = generator if models.peer_is_generator else self._front(models.peer, users)
        self._models = Models(generator, peer, None if models.value is None else self._front(models.value, users))
        self._questions: SimpleQueue[_Asked | None] = SimpleQueue()
        self._answers: SimpleQueue[list[Any] | BaseException] = SimpleQueue()
        # a daemon, so that a second Ctrl-C need not wait for it
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)
        self._stopped = False
        self._error: BaseException | None = None
        self._result: list[T] = []
        self.asked: _Asked | None = None
        self.answer: list[Any] | BaseException = []
        self.waited = 0
        self.done = False

    def go_on(self) -> None:
        """Lets the job run, with the answer to what it asked, until it asks again or ends."""
        if self.asked is None:
            self._thread.start()
        else:
            self._answers.put(self.answer)
        self.asked = self._questions.get()
        self.done = self.asked is None

    @property
    def result(self) -> T:
        """What the job returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result[0]

    def stop(self) -> None:
        """Ends the job where it waits, or where it will ask next."""
        self._stopped = True
        self._answers.put(_Stopped())

    def join(self) -> None:
        """Waits until a stopped job has ended."""
        if self._thread.ident is not None:
            self._thread.join()

    def _front(self, model: LanguageModel, users: defaultdict[int, set[SharedModel]]) -> SharedModel:
        kind = _SharedTokeniser if isinstance(model, Tokenising) else SharedModel
        return kind(model, self._ask, users[id(model)])

    def _ask(self, asked: _Asked) -> list[Any]:
        if self._stopped:
            raise _Stopped
        self._questions.put(asked)
        answer = self._answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _run(self) -> None:
        try:
            self._result.append(self._job(self._models))
        except BaseException as error:
            self._error = error
        finally:
            self._questions.put(None)


def _answer(strands: Sequence[_Strand[Any]]) -> list[_Strand[Any]]:
    """Computes one batch, its requests in the order of the jobs, and returns those who have their answer."""
    batches: defaultdict[Callable[..., list[Any]], list[_Strand[Any]]] = defaultdict(list)
    for strand in strands:
        strand.waited += 1
        if strand.asked is not None:
            batches[strand.asked.compute].append(strand)
    batch = max(batches.values(), key=lambda batch: sum(s.waited for s in batch))
    for strand in batch:
        strand.waited = 0
    try:
        _compute(batch)
    except Exception as error:
        if len(batch) == 1:
            batch[0].answer = error
            return batch
        for strand in batch:
            try:
                _compute([strand])
            except Exception as own:
                strand.answer = own
    return batch


def _compute(batch: Sequence[_Strand[Any]]) -> None:
    asked = [strand.asked for strand in batch if strand.asked is not None]
    first, requests = asked[0], [request for a in asked for request in a.requests]
    before = first.front.work_so_far()
    try:
        replies = first.compute(requests)
    finally:
        first.front.count(before)
    if len(replies) != len(requests):
        raise ModelError(f"{first.front.identity.name}: {len(replies)} replies to {len(requests)} requests")
    rest = iter(replies)
    for strand, a in zip(batch, asked, strict=True):
        strand.answer = list(islice(rest, len(a.requests)))
