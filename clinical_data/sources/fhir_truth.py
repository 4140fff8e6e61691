"""The recorded labels of a FHIR case, step by step, each with its reason where there is none.

| step | read from |
|---|---|
| triage | the acuity observation of the ED; without one Encounter.priority (proxy) |
| admission_diagnosis | Encounter.diagnosis use AD; MIMIC: the first of the ED's billed codes (proxy) |
| differential | Conditions of the stay that are differential or refuted; MIMIC: ED code and principal (proxy) |
| workup | ServiceRequests authored in the day after the clock; input without any: tests first done in that day |
| treatment | drug classes and levels of care first started in the day after the clock; no order that never began |
| disposition | hospitalization.dischargeDisposition |
| discharge_diagnosis | Encounter.diagnosis use DD, then CM; MIMIC: the hospital's codes in their order |

MIMIC's Conditions carry no rank; it comes from a file (`read_ranks`). Both ways to label the work-up have the strength
recorded-later; which one holds is decided for the whole input, so that no cohort mixes them.

Source: clinical.md, "Recorded label per step".
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from clinical_data.case import Case, Coding, make_finding_id
from clinical_data.catalogue import ITEM_SYSTEM, Catalogue
from clinical_data.clocks import LOOK_BACK, clock_minute
from clinical_data.errors import BadInputError
from clinical_data.ground_truth import GroundTruth, Label, Strength
from clinical_data.sources.fhir_codes import NO_DESTINATION
from clinical_data.sources.fhir_reduce import StagedFact
from clinical_data.sources.fhir_stage import Stage
from clinical_data.sources.fhir_stay import Stay
from clinical_data.sources.fhir_times import parse_moment
from clinical_data.sources.step_truth import (
    acuity_label,
    disposition_label,
    every_step,
    treatment_labels,
    window_after,
    workup_labels,
)

NO_RANK = "Conditions carry no rank; give --condition-rank"
_RANK_COLUMNS = ("module", "condition_id", "seq_num")
_RANK_NAMES = ("condition_rank.csv", "condition_rank.csv.gz")
_LAST = 10**6  # place of what has no rank

Labels = tuple[Label, ...] | str


def truth_of(
    case: Case, stay: Stay, facts: list[StagedFact], stage: Stage, catalogue: Catalogue
) -> dict[str, GroundTruth]:
    """Returns the truth of all eight steps.

    Args:
        case: the finished case.
        stay: what it was made from.
        facts: the facts of its own encounters.
        stage: where Conditions and their ranks lie.
        catalogue: what counts as a test.
    """
    ranked = _Ranked(stay, facts, stage)
    admission = _by_use(case, stay, stage, ("AD",))
    discharge = _by_use(case, stay, stage, ("DD", "CM"))
    return every_step(
        case,
        {
            "triage": _triage(stay, facts),
            "admission_diagnosis": ranked.admission(admission),
            "differential": _differential(case, stay, facts) or ranked.differential(),
            "workup": _workup(case, stay, facts, stage, catalogue),
            "treatment": _treatment(case, facts),
            "disposition": _disposition(stay),
            "discharge_diagnosis": ranked.discharge(discharge),
        },
    )


def find_ranks(path: Path, given: Path | None) -> Path | None:
    """Returns the file of Condition ranks: the one given, or that in or beside a folder of FHIR files, or None.

    Raises:
        BadInputError: the given file is missing.
    """
    if given is not None:
        if not given.is_file():
            raise BadInputError("no such file", file=given, hint="name the file with the ranks of Conditions")
        return given
    places = (path, path.parent) if path.is_dir() else (path.parent,)
    return next((p / name for p in places for name in _RANK_NAMES if (p / name).is_file()), None)


def read_ranks(file: Path | None) -> Iterator[tuple[str, str, int]]:
    """Yields key of the Condition, module and rank from a CSV file with a header, plain or gzip.

    Raises:
        BadInputError: not readable, a column is missing, or a rank is no number.
    """
    if file is None:
        return
    line = 1
    try:
        with (gzip.open if file.name.endswith(".gz") else open)(file, "rt", encoding="utf-8-sig", newline="") as text:
            rows = csv.DictReader(text)
            missing = [c for c in _RANK_COLUMNS if c not in (rows.fieldnames or ())]
            if missing:
                raise BadInputError("the column is missing", file=file, line=1, field=missing[0])
            for row in rows:
                line = rows.line_num
                yield f"Condition/{row['condition_id']}", row["module"].strip().lower(), int(row["seq_num"])
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"cannot be read ({type(error).__name__})", file=file, line=line) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInputError("not a rank", file=file, line=line, field="seq_num") from error


class _Ranked:
    """The Conditions of a stay that have a rank in the hospital's or the ED's list of codes (MIMIC)."""

    def __init__(self, stay: Stay, facts: list[StagedFact], stage: Stage) -> None:
        self._stay = stay
        coded = [f for f in facts if f.rule == "diagnosis"]
        ranked = [(rank[1], rank[0], f) for f in coded if (rank := stage.rank(f.key))]
        ranked.sort(key=lambda r: (r[0], r[2].key))
        self._hospital = [f for _, module, f in ranked if module == "hosp"]
        first = {stage.resolve(f.encounter): f for place, module, f in ranked if module == "ed" and place == 1}
        # Of several ED stays the last one led to the admission.
        self._emergency = next((first[p.key] for p in reversed(stay.parts) if p.key in first), None)
        self._why = ""
        if coded and not stage.has_ranks and not stay.own.diagnoses:
            self._why = NO_RANK
        elif stay.visit_alone and first:
            self._why = "a visit to the emergency department without admission"

    def admission(self, used: Labels) -> Labels:
        """Returns the labels by use, or else the first code of the ED, billed after the stay."""
        if not isinstance(used, str):
            return used
        if self._emergency is None:
            return self._why or used
        return (_coded(self._emergency, Strength.PROXY, 1),)

    def differential(self) -> Labels:
        """Returns the first code of the ED and the principal one of the hospital."""
        if self._emergency is None:
            return self._why or "no Condition of the stay is differential or refuted"
        both = [self._emergency, *self._hospital[:1]]
        unique = list({tuple(f.code[:2]): f for f in reversed(both)}.values())[::-1]
        return tuple(_coded(f, Strength.PROXY, rank) for rank, f in enumerate(unique, start=1))

    def discharge(self, used: Labels) -> Labels:
        """Returns the labels by use, or else the codes of the hospital in their order."""
        if not isinstance(used, str):
            return used
        if not self._hospital:
            return self._why or used
        return tuple(_coded(f, Strength.RECORDED_LATER, rank) for rank, f in enumerate(self._hospital, start=1))


def _coded(fact: StagedFact, strength: Strength, rank: int, entered: int | None = None) -> Label:
    return Label(Coding(*fact.code), strength, rank, entered, fact.key)


def _by_use(case: Case, stay: Stay, stage: Stage, uses: tuple[str, ...]) -> Labels:
    """Returns the labels of these uses of Encounter.diagnosis in order of use and rank, or why there are none.

    The first use must be there: comorbidities alone name no discharge diagnosis. An admission diagnosis entered after
    the clock of its step is recorded later.
    """
    wanted = [
        (uses.index(use), rank if rank is not None else _LAST, place, reference)
        for place, (use, rank, reference) in enumerate(stay.own.diagnoses)
        if use in uses
    ]
    clock = clock_minute(case, "admission_diagnosis")
    labels: list[Label] = []
    trouble = ""
    for order, _, _, reference in sorted(wanted):
        found = stage.condition(reference)
        if found is None or found.code is None:
            what = "is not in the import" if found is None else "has no code"
            trouble = trouble or f"{reference or 'a diagnosis without reference'} {what}"
            continue
        if order and not labels:
            break
        entered = stay.clock.known_by(parse_moment(found.recorded).latest) if found.recorded else None
        late = uses != ("AD",) or (entered is not None and clock is not None and entered > clock)
        strength = Strength.RECORDED_LATER if late else Strength.RECORDED_AT_TIME
        labels.append(Label(Coding(*found.code), strength, len(labels) + 1, entered, stage.resolve(reference)))
    return tuple(labels) or trouble or f"Encounter.diagnosis has no use {uses[0]}"


def _minute(stay: Stay, text: str) -> int | None:
    return stay.clock.known_by(parse_moment(text).latest) if text else None


def _triage(stay: Stay, facts: list[StagedFact]) -> Labels:
    found = sorted(
        (minute if (minute := _minute(stay, f.charted)) is not None else _LAST, f.key, f)
        for f in facts
        if f.rule == "acuity"
    )
    if found:
        minute, key, fact = found[0]
        return acuity_label(int(float(fact.value or 0)), key, None if minute == _LAST else minute)
    if stay.own.priority:
        return (Label(Coding(*stay.own.priority), Strength.PROXY, 1, None, f"{stay.own.key} priority"),)
    return "no triage acuity is recorded"


def _differential(case: Case, stay: Stay, facts: list[StagedFact]) -> Labels:
    """Returns the Conditions that were considered or ruled out, in order of entry; an empty string for none."""
    clock = clock_minute(case, "differential")
    entered = {f.key: _minute(stay, f.known) for f in facts if f.rule == "differential"}
    considered = [f for f in facts if f.key in entered and not f.code[0].startswith("wardstar:fhir/text")]
    considered.sort(key=lambda f: (_LAST if entered[f.key] is None else entered[f.key], f.key))
    labels = []
    for rank, fact in enumerate(considered, start=1):
        minute = entered[fact.key]
        in_time = minute is not None and clock is not None and minute <= clock
        strength = Strength.RECORDED_AT_TIME if in_time else Strength.RECORDED_LATER
        labels.append(_coded(fact, strength, rank, minute))
    return tuple(labels) or ""


def _workup(case: Case, stay: Stay, facts: list[StagedFact], stage: Stage, catalogue: Catalogue) -> Labels:
    if not stage.count("ServiceRequest"):
        # A test of an earlier visit is done anew in this stay; one of the day before it may be of an ED that the
        # record does not link.
        of_stay = tuple(f for f in case.findings if f.charted >= stay.first - LOOK_BACK)
        return workup_labels(replace(case, findings=of_stay), catalogue)
    window = window_after(case, "workup")
    if isinstance(window, str):
        return window
    ordered = sorted(
        (minute, f.key, f) for f in facts if f.rule == "test" and (minute := _minute(stay, f.known)) is not None
    )
    first: dict[tuple[str, str], Label] = {}
    for minute, key, fact in ordered:
        if window[0] < minute <= window[1]:
            coding = _item_of(Coding(*fact.code), catalogue)
            label = Label(coding, Strength.RECORDED_LATER, len(first) + 1, minute, key)
            first.setdefault((coding.system, coding.code), label)
    return tuple(first.values()) or "no ServiceRequest was authored in the day after the clock"


def _treatment(case: Case, facts: list[StagedFact]) -> Labels:
    not_begun = {make_finding_id(case.source, f.key) for f in facts if f.rule == "not begun"}
    begun = tuple(f for f in case.findings if f.finding_id not in not_begun)
    return treatment_labels(replace(case, findings=begun))


def _item_of(ordered: Coding, catalogue: Catalogue) -> Coding:
    """Returns the catalogue item that an ordered code asks for, or the code itself."""
    for item in catalogue.items:
        for matcher in item.matches.get("fhir", ()):
            listed = ordered.code in matcher.codes or bool(
                matcher.prefixes and ordered.code.startswith(matcher.prefixes)
            )
            if matcher.system == ordered.system and (listed or not (matcher.codes or matcher.prefixes)):
                return Coding(ITEM_SYSTEM, item.item_id, item.display, catalogue.version)
    return ordered


def _disposition(stay: Stay) -> Labels:
    said = stay.own.destination
    if not said:
        return "hospitalization.dischargeDisposition is missing"
    if said in NO_DESTINATION:
        return NO_DESTINATION[said]
    return disposition_label(said, f"{stay.own.key} hospitalization.dischargeDisposition", stay.end)
