"""Reads the files of a DDXPlus release: what evidences and conditions mean, and the patients row by row.

Source: "Dataset documentation" in the README of the publisher's repository, mila-iqia/ddxplus.
"""

from __future__ import annotations

import ast
import csv
import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from clinical_data.case import PRESENT, Coding, FindingKind
from clinical_data.errors import BadInputError
from clinical_data.sources import ImportLog, Quarantined
from clinical_data.sources.text_lines import Line, read_lines

SOURCE = "ddxplus"
EVIDENCE_SYSTEM = "wardstar:ddxplus/evidence"
INITIAL_SYSTEM = "wardstar:ddxplus/initial"
CONDITION_SYSTEM = "wardstar:ddxplus/condition"
ICD_10 = "http://hl7.org/fhir/sid/icd-10"

SPLITS = ("train", "validate", "test")
COLUMNS = ("AGE", "DIFFERENTIAL_DIAGNOSIS", "SEX", "PATHOLOGY", "EVIDENCES", "INITIAL_EVIDENCE")
_SUFFIXES = (".csv", ".csv.gz", ".zip")  # of two files for one split, the first of these counts
_LONGEST_LINE = 1 << 17  # bytes; a patient takes about 1,000. Also the csv module's own bound for a field
_LARGEST_JSON = 1 << 26  # bytes
_VALUE = "_@_"  # between an evidence and its value: E_55_@_V_29
_ICD = re.compile(r"[A-Z]\d[0-9A-Z](?:\.[0-9A-Z]{1,4})?")


class BadRow(Exception):
    """A row of patients that cannot be used; the text says why, without any value of it."""


class _Meaning(BaseModel):
    en: str


class _Evidence(BaseModel):
    """An entry of release_evidences.json; its other fields are not read."""

    model_config = ConfigDict(frozen=True)

    question_en: str
    is_antecedent: bool
    data_type: Literal["B", "C", "M"]
    default_value: int | str | None = None
    possible_values: tuple[int | str, ...] = Field((), alias="possible-values")
    value_meaning: dict[str, _Meaning] = Field(default_factory=dict)


class _Condition(BaseModel):
    """An entry of release_conditions.json; its other fields are not read."""

    model_config = ConfigDict(frozen=True)

    name_en: str = Field("", alias="cond-name-eng")
    icd_10: str | None = Field(None, alias="icd10-id")


_T = TypeVar("_T")
_EVIDENCES = TypeAdapter(dict[str, _Evidence])
_CONDITIONS = TypeAdapter(dict[str, _Condition])


@dataclass(frozen=True, slots=True)
class Told:
    """What one evidence of a patient says.

    Attributes:
        kind: history for an antecedent, else complaint.
        coding: the evidence, with its question as display.
        value: `yes`, the meaning of a value, or the number on a scale.
        unit: the end of the scale (`of 10`), else empty.
        default: it stands for "not given".
    """

    kind: FindingKind
    coding: Coding
    value: float | str
    unit: str = ""
    default: bool = False

    def as_complaint(self) -> Told:
        """Returns the same as the patient's chief complaint."""
        return replace(self, kind=FindingKind.COMPLAINT, coding=replace(self.coding, system=INITIAL_SYSTEM))


@dataclass(frozen=True, slots=True)
class Release:
    """What the evidences and conditions of a release mean."""

    evidences: dict[str, _Evidence]
    conditions: dict[str, _Condition]
    _told: dict[str, Told] = field(default_factory=dict, repr=False)  # about a thousand: all that can be told

    def told(self, token: str, column: str) -> Told:
        """Returns what `E_91` or `E_55_@_V_29` says.

        Raises:
            BadRow: the release knows no such evidence or value.
        """
        if token not in self._told:
            code, has_value, value = token.partition(_VALUE)
            evidence = self.evidences.get(code)
            if evidence is None:
                raise BadRow(f"{column}: an evidence is not in release_evidences.json")
            if has_value and evidence.data_type == "B":
                raise BadRow(f"{column}: a binary evidence has a value")
            # Evidence that should have a value, and has none, says no more than that it is there.
            bare: float | str = "yes" if evidence.data_type == "B" else PRESENT
            said, unit = _meaning(evidence, value, column) if has_value else (bare, "")
            kind = FindingKind.HISTORY if evidence.is_antecedent else FindingKind.COMPLAINT
            coding = Coding(EVIDENCE_SYSTEM, code, " ".join(evidence.question_en.split()))
            default = bool(has_value) and value == str(evidence.default_value)
            self._told[token] = Told(kind, coding, said, unit, default)
        return self._told[token]

    def condition(self, name: str, column: str) -> Coding:
        """Returns the coding of a condition: its ICD-10 code where the release gives exactly one, else its name.

        Raises:
            BadRow: the release knows no such condition.
        """
        condition = self.conditions.get(name)
        if condition is None:
            raise BadRow(f"{column}: a condition is not in release_conditions.json")
        display = condition.name_en.strip() or name
        code = (condition.icd_10 or "").strip().upper()  # a third of them is in lower case
        if _ICD.fullmatch(code):
            return Coding(ICD_10, code, display)
        return Coding(CONDITION_SYSTEM, name, display)


def _meaning(evidence: _Evidence, value: str, column: str) -> tuple[float | str, str]:
    """Returns the meaning of a value and its unit."""
    if value in evidence.value_meaning:
        return " ".join(evidence.value_meaning[value].en.split()), ""
    if value not in map(str, evidence.possible_values):
        raise BadRow(f"{column}: a value is not in release_evidences.json")
    scale = [v for v in evidence.possible_values if isinstance(v, int)]
    if len(scale) == len(evidence.possible_values):
        return float(value), f"of {max(scale)}"
    return value, ""


@dataclass(frozen=True, slots=True)
class PatientRow:
    """One row of a patients file.

    Attributes:
        line: of the file, counted from 1.
        number: of the row, counted from 1 after the header.
        fields: column -> text; empty when `trouble` says why.
    """

    line: int
    number: int
    fields: dict[str, str]
    trouble: str = ""

    def __getitem__(self, column: str) -> str:
        return self.fields[column]

    def evidences(self) -> list[str]:
        """Returns the evidences as they stand in the row.

        Raises:
            BadRow: no list of texts.
        """
        found = self._list("EVIDENCES")
        if not all(isinstance(one, str) for one in found):
            raise BadRow("EVIDENCES is no list of evidences")
        return found

    def differential(self) -> list[str]:
        """Returns the conditions of the differential, the most probable first.

        Raises:
            BadRow: no list of pairs of condition and probability.
        """
        found = self._list("DIFFERENTIAL_DIAGNOSIS")
        for one in found:
            pair = isinstance(one, list | tuple) and len(one) == 2
            if not pair or not isinstance(one[0], str) or type(one[1]) not in (int, float):
                raise BadRow("DIFFERENTIAL_DIAGNOSIS is no list of conditions and probabilities")
        return [name for name, _ in sorted(found, key=lambda pair: -pair[1])]  # stable: equals stay as given

    def _list(self, column: str) -> list[Any]:
        text = self.fields[column].strip()
        try:
            found = ast.literal_eval(text) if text else []
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise BadRow(f"{column} is no list") from error
        if not isinstance(found, list):
            raise BadRow(f"{column} is no list")
        return found


def read_release(folder: Path) -> Release:
    """Returns the evidences and conditions of a release.

    Raises:
        BadInputError: the folder or one of the two files is missing, or not what it should be.
    """
    if not folder.is_dir():
        hint = "name the folder that holds release_evidences.json"
        raise BadInputError("no such folder", file=folder, hint=hint)
    return Release(
        _read_json(folder, "release_evidences.json", _EVIDENCES),
        _read_json(folder, "release_conditions.json", _CONDITIONS),
    )


def _read_json(folder: Path, name: str, form: TypeAdapter[_T]) -> _T:
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise BadInputError(f"no {name}", file=folder, hint="a DDXPlus release holds it beside the patients")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            text = file.read(_LARGEST_JSON)
        return form.validate_json(text.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInputError(str(first["msg"]), file=path, field=place or None) from None  # it quotes the file
    except (OSError, EOFError) as error:
        raise BadInputError(f"cannot be read ({type(error).__name__})", file=path) from error


def find_patients(folder: Path, log: ImportLog) -> dict[str, Path]:
    """Returns split -> file of its patients; a file that cannot be read goes to the log.

    Raises:
        BadInputError: no split has a file that can be read, or a file lacks a column.
    """
    found: dict[str, Path] = {}
    there = {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_file()}
    for split in SPLITS:
        name = f"release_{split}_patients"
        files = [there[name + suffix] for suffix in _SUFFIXES if name + suffix in there]
        if not files:
            log.unused[f"no {name}"] += 1
            continue
        for extra in files[1:]:
            log.quarantined(Quarantined(extra.name, None, f"{files[0].name} is used instead"))
        first = next(read_lines(files[0], longest=_LONGEST_LINE), None)
        if first is None or first.text is None:
            log.quarantined(Quarantined(files[0].name, 1, first.trouble if first else "the file is empty"))
            continue
        header = _header(first)
        if missing := [column for column in COLUMNS if column not in header]:
            raise BadInputError("the column is missing", file=files[0], line=first.number, field=missing[0])
        found[split] = files[0]
    if not found:
        hint = (
            "expected release_train_patients, release_validate_patients or release_test_patients (.csv, .csv.gz, .zip)"
        )
        raise BadInputError("no patients that can be read", file=folder, hint=hint)
    return found


def patient_rows(path: Path, progress: Callable[[int], None]) -> Iterator[PatientRow]:
    """Yields the rows of a patients file; the release writes each on one line, so damage stays within a line."""
    header: list[str] | None = None
    places: dict[str, int] = {}
    number = 0
    for line in read_lines(path, progress, _LONGEST_LINE):
        if header is None:
            header = _header(line)
            places = {column: header.index(column) for column in COLUMNS}
            continue
        number += 1
        if line.text is None:
            yield PatientRow(line.number, number, {}, line.trouble)
            continue
        try:
            (values,) = csv.reader([line.text], strict=True)
        except csv.Error:
            yield PatientRow(line.number, number, {}, "a quotation mark is missing, or a field is too long")
            continue
        if len(values) != len(header):
            few = "few" if len(values) < len(header) else "many"
            yield PatientRow(line.number, number, {}, f"the row has too {few} fields")
            continue
        yield PatientRow(line.number, number, {column: values[place] for column, place in places.items()})


def _header(line: Line) -> list[str]:
    return [name.strip().upper() for name in next(csv.reader([line.text or ""]), [])]
