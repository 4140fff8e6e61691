"""What a model is tuned on: the rows of `train.jsonl` and `tuning.jsonl` in the folder of a training set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clinical_data.errors import BadInputError
from evaluation.supervision.cards import CARD, read_card
from evaluation.supervision.traces import ANSWER

Method = Literal["sft", "dpo", "ttrl", "stepwise"]
TRAIN, TUNING = "train.jsonl", "tuning.jsonl"
Text = Field(min_length=1)
Ids = tuple[int, ...]


class _Row(BaseModel):
    """What every row holds; other fields (case, step, weights of a search) are for people and other programs."""

    model_config = ConfigDict(extra="ignore", strict=True)
    prompt: str = Text
    prompt_ids: list[int] | None = None
    split: str | None = None
    patient_id: str | int | None = None


class _SftRow(_Row):
    """A prompt and what should have been written; the rest tells what contradicts what, and may be of any form."""

    completion: str = Text
    completion_ids: list[int] | None = None
    case_id: Any = None
    occurrence: Any = None
    turn: Any = None
    answer: Any = None


ABOUT = ("case_id", "occurrence", "turn", "answer")


class _PreferenceRow(_Row):
    chosen: str = Text
    rejected: str = Text
    chosen_ids: list[int] | None = None
    rejected_ids: list[int] | None = None


class _QuestionRow(_Row):
    """A prompt to answer; its completion counts only where a peer stood by it."""

    completion: str = ""
    label_source: str = ""
    turn: str = ""


class _StepwiseRow(_Row):
    """A trajectory turn by turn; which of the two targets it must have is the training's choice."""

    completions: list[Annotated[str, Text]] = Field(min_length=1)
    values: list[Annotated[float, Field(ge=0, le=1)]] | None = None
    labels: list[bool] | None = None


FORMS: dict[str, type[_Row]] = {
    "sft": _SftRow,
    "dpo": _PreferenceRow,
    "ttrl": _QuestionRow,
    "stepwise": _StepwiseRow,
}
KINDS = {"sft": ("sft",), "dpo": ("preference",), "ttrl": ("prompts", "sft"), "stepwise": ("stepwise",)}
"""Method -> the kinds of `wardstar export` that write its rows, the usual one first."""
TARGETS = {"value": "values", "label": "labels"}
"""What a value model learns -> the column of a stepwise set that holds it."""


@dataclass(frozen=True, slots=True)
class TuningRow:
    """One row.

    Attributes:
        file, line: where it stands.
        texts: `prompt`, and `completion` or `chosen` and `rejected`.
        ids: the tokens of those texts as the search had them, where the set carries them.
        turns: turns of a trajectory, each with its cue; only of a stepwise set.
        targets: what each turn is worth, in [0, 1].
        patient: id of the patient it is of; empty where the set does not say.
        about: of an sft row what it says of itself, of `ABOUT`.
    """

    file: Path
    line: int
    texts: Mapping[str, str]
    ids: Mapping[str, Ids] = field(default_factory=dict)
    turns: tuple[str, ...] = ()
    targets: tuple[float, ...] = ()
    patient: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def concludes(self) -> bool:
        """It holds an answer, not a turn on the way to one; a row that does not say is taken for one."""
        return self.about.get("turn") in (None, ANSWER)

    @property
    def said(self) -> str:
        """The answer: its code where the row holds it, for several entries of a vocabulary may be of one class."""
        answer = self.about.get("answer")
        return str(self.texts["completion"] if answer is None else answer)


@dataclass(frozen=True, slots=True)
class TuningSet:
    """A training set.

    Attributes:
        folder: where it is.
        train: rows to learn from.
        tuning: rows of other patients that say when to stop; may be empty.
        hashes: SHA-256 of each file.
        versions: what the rows depend on (pathway, prompts, vocabulary): name -> hash; empty without a card.
        card: the set's own card.
    """

    folder: Path
    train: Sequence[TuningRow]
    tuning: Sequence[TuningRow]
    hashes: Mapping[str, str]
    versions: Mapping[str, str]
    card: Mapping[str, Any]


def read_set(folder: Path, method: Method, target: str = "value") -> TuningSet:
    """Reads a training set.

    Args:
        folder: where it is.
        method: what its rows are for.
        target: what a value model learns, of `TARGETS`.

    Raises:
        BadInputError: no such folder, no rows, a row without a field or of another split, a patient in both files, or
            rows that contradict each other; names file, line and field.
    """
    if not (folder / TRAIN).is_file():
        hint = f"`wardstar export {KINDS[method][0]} --out DIR` writes one"
        raise BadInputError(f"{folder} is no training set: it has no {TRAIN}", hint=hint)
    card = read_card(folder / CARD)
    if (kind := card.get("kind", KINDS[method][0])) not in KINDS[method]:
        hint = f"`wardstar export {KINDS[method][0]} --out DIR` writes one for {method}"
        raise BadInputError(
            f"a set of kind {kind}, not {KINDS[method][0]}", file=folder / CARD, field="kind", hint=hint
        )
    hashes = _hashes(folder, card)
    train = tuple(_rows(folder / TRAIN, method, target))
    if not train:
        raise BadInputError("the training set is empty", file=folder / TRAIN)
    tuning = tuple(_rows(folder / TUNING, method, target)) if (folder / TUNING).is_file() else ()
    _check_patients(train, tuning)
    if method == "dpo":
        _check_preferences((*train, *tuning))
    if method == "sft":
        _check_answers((*train, *tuning))
    return TuningSet(folder, train, tuning, hashes, versions_of(card), card)


def patients_of(data: TuningSet) -> dict[str, Any]:
    """Returns what the card of a tuned model says of the patients: how they were split, and who they were, by hash.

    Returns:
        `split_scheme` (empty where the set has no card); `splits`, the files used; `train` and `tuning`, the sorted
        SHA-256 of the patient ids of each file (never an id); `unnamed`, rows that name no patient.
    """
    rows = {"train": data.train, "tuning": data.tuning}
    hashed = {
        name: sorted({hashlib.sha256(row.patient.encode()).hexdigest() for row in of_file if row.patient})
        for name, of_file in rows.items()
    }
    return {
        "split_scheme": data.card.get("split_scheme") or "",
        "splits": [name for name, of_file in rows.items() if of_file],
        **hashed,
        "unnamed": sum(not row.patient for of_file in rows.values() for row in of_file),
    }


def with_base(patients: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Returns whom a model was tuned on, those included that its base was tuned on, as the card of the base tells."""
    before = base.get("patients") or {}
    together = {name: sorted({*patients[name], *(before.get(name) or ())}) for name in ("train", "tuning")}
    scheme = patients["split_scheme"] or before.get("split_scheme") or ""
    unnamed = patients["unnamed"] + int(before.get("unnamed") or 0)
    return {**patients, **together, "split_scheme": scheme, "unnamed": unnamed}


def check_scheme(base: Mapping[str, Any], data: TuningSet, *, name: str) -> None:
    """Raises BadInputError where a base was tuned under another scheme of splits than a set.

    What one scheme holds out the other may have taught, so that no case would be left to judge the model by.
    """
    then = (base.get("patients") or {}).get("split_scheme")
    now = data.card.get("split_scheme")
    if then and now and then != now:
        message = f"splits of scheme {now}, but the base {name} was tuned on splits of scheme {then}"
        hint = "export runs of that scheme, or take another --base"
        raise BadInputError(message, file=data.folder / CARD, field="split_scheme", hint=hint)


def versions_of(card: Mapping[str, Any]) -> dict[str, str]:
    """Returns what a training set, or a model tuned on one, depends on, as its card tells it.

    Returns:
        `prompts`, `pathway NAME`, `catalogue NAME` and `vocabulary NAME` -> SHA-256.
    """
    found = dict(card.get("versions") or card.get("hashes") or {})
    pathway = card.get("pathway") or {}
    if "sha256" in pathway:
        found[f"pathway {pathway.get('name', '')}".strip()] = pathway["sha256"]
    return {str(name): str(value) for name, value in sorted(found.items())}


def check_versions(wanted: Mapping[str, str], found: Mapping[str, str], *, what: str, file: Path) -> None:
    """Compares what two things that are used together depend on; a name that only one of them knows does not count.

    Raises:
        BadInputError: they differ.
    """
    for name in sorted(wanted.keys() & found.keys()):
        if wanted[name] != found[name]:
            message = f"another version of {name} than {what}: {found[name][:12]}, not {wanted[name][:12]}"
            raise BadInputError(message, file=file, hint="replay and export again under one version")


def _hashes(folder: Path, card: Mapping[str, Any]) -> dict[str, str]:
    """Returns the SHA-256 of each file of a set.

    Raises:
        BadInputError: a file is not the one that the set's card describes.
    """
    hashes = {}
    for path in (folder / TRAIN, folder / TUNING):
        if path.is_file():
            hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            told = (card.get("splits") or {}).get(path.stem, {}).get("sha256")
            if told and told != hashes[path.name]:
                hint = "export the set again, or take its card.json away if the rows were changed on purpose"
                raise BadInputError("is not the file that its card describes: cut off or changed", file=path, hint=hint)
    return hashes


def _rows(path: Path, method: Method, target: str) -> Iterator[TuningRow]:
    form = FORMS[method]
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _row(line, path, number, form, TARGETS[target])
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"cannot be read ({type(error).__name__})", file=path) from error


def _row(line: str, path: Path, number: int, form: type[_Row], column: str) -> TuningRow:
    try:
        values = form.model_validate_json(line).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or None
        raise BadInputError(first["msg"].lower(), file=path, line=number, field=name) from None
    split, patient = values.pop("split", path.stem), str(values.pop("patient_id", ""))
    if split != path.stem:
        message = f"a row of split {split}; {path.name} holds rows of split {path.stem} alone"
        raise BadInputError(message, file=path, line=number, field="split", hint="`wardstar export` keeps splits apart")
    about = {name: values.pop(name) for name in ABOUT if form is _SftRow and name in values}
    texts = {name: value for name, value in values.items() if isinstance(value, str)}
    ids = {name.removesuffix("_ids"): tuple(value) for name, value in values.items() if name.endswith("_ids")}
    if form is not _StepwiseRow:
        return TuningRow(path, number, texts, ids, patient=patient, about=about)
    turns, targets = values["completions"], values.get(column)
    if targets is None:
        other = next((target for target, name in TARGETS.items() if name != column and name in values), None)
        hint = f"the rows have {TARGETS[other]}: take --target {other}" if other else ""
        raise BadInputError("field required", file=path, line=number, field=column, hint=hint)
    if len(targets) != len(turns):
        message = f"{len(targets)} {column} for {len(turns)} completions"
        raise BadInputError(message, file=path, line=number, field=column)
    return TuningRow(path, number, texts, {}, tuple(turns), tuple(map(float, targets)), patient)


def _check_patients(train: Sequence[TuningRow], tuning: Sequence[TuningRow]) -> None:
    """Raises BadInputError where a patient is taught and also says when to stop."""
    taught = {row.patient: row for row in reversed(train) if row.patient}
    for row in tuning:
        if (other := taught.get(row.patient)) is not None:
            message = f"a row of the patient of {TRAIN}:{other.line}; who is taught cannot say when to stop"
            raise BadInputError(message, file=row.file, line=row.line, field="patient_id")


def _check_preferences(rows: Sequence[TuningRow]) -> None:
    """Raises BadInputError where a text is preferred to itself, or to one that is elsewhere preferred to it."""
    seen: dict[tuple[str, str, str], str] = {}
    for row in rows:
        prompt, chosen, rejected = row.texts["prompt"], row.texts["chosen"], row.texts["rejected"]
        if chosen == rejected:
            raise BadInputError("chosen and rejected are the same text", file=row.file, line=row.line)
        if (other := seen.get((prompt, rejected, chosen))) is not None:
            raise BadInputError(f"the preference contradicts {other}", file=row.file, line=row.line)
        seen[prompt, chosen, rejected] = f"{row.file.name}:{row.line}"


def _check_answers(rows: Sequence[TuningRow]) -> None:
    """Raises BadInputError where one case is taught two answers to one prompt.

    Two cases whose charts read alike are two observations, even of one patient (see `disputed`).
    """
    seen: dict[tuple[str, ...], tuple[str, str]] = {}
    for row in rows:
        if not row.patient or not row.concludes:
            continue
        case = (str(row.about.get(name)) for name in ("case_id", "occurrence"))
        said, place = seen.setdefault(
            (row.texts["prompt"], row.patient, *case), (row.said, f"{row.file.name}:{row.line}")
        )
        if said != row.said:
            message = f"another answer than that of {place} to the same prompt of the same case"
            hint = "one of the two is wrong: export again, or take its row away"
            raise BadInputError(message, file=row.file, line=row.line, field="completion", hint=hint)


def disputed(rows: Sequence[TuningRow]) -> int:
    """Returns how many prompts have several answers, of cases that read alike."""
    answers: dict[str, set[str]] = {}
    for row in rows:
        if row.concludes:
            answers.setdefault(row.texts["prompt"], set()).add(row.said)
    return sum(len(said) > 1 for said in answers.values())
