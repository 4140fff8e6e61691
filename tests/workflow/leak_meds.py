"""The raw record of MEDS for the leak tests: events before, across and after every clock, each with its one time."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import leak_records  # noqa: F401  makes the importers' own records importable
import records_meds as meds
from leak_mimic import CLOCKS, ORIGIN, TESTS, at
from leak_records import LOUD, Change, Part
from leak_tables import CULTURE

Event = dict[str, Any]
Shards = dict[str, list[Event]]
Tells = Callable[[Event], bool]

# Beginning of a code -> minutes until an event is known, and whether it was known to be under way before.
_LAGS = (
    ("LAB//RESULT", 0, False), ("LAB//SPECIMEN_COLLECTED", CULTURE, True), ("LAB//22", 146, False),
    ("LAB", 240, True), ("MICROBIOLOGY", CULTURE, True), ("PROCEDURE//START", 240, False),
    ("INFUSION_START", 146, False), ("SUBJECT_WEIGHT", 146, False), ("MEDICATION", 0, False),
    ("TRANSFER_TO", 0, False), ("ICU_ADMISSION", 0, False),
)  # fmt: skip
# Beginnings of codes that no step is shown, at any time.
_HIDDEN = ("DRG", "HCPCS", "INSURANCE", "MEDS_DEATH", "ICU_DISCHARGE", "INFUSION_END", "MEDICATION//STOP",
           "PROCEDURE//ICD", "LAB//226543", LOUD, "plain")  # fmt: skip


def events(word: str = "plain") -> Shards:
    """The importer's own small record, and around each clock of the stay an event of every kind that has a lag."""
    shards = meds.shards(word)
    shards["held_out/0"] = [event for event in shards["held_out/0"] if meds.PLANTED not in event.values()]
    main, new = {"hadm_id": meds.MAIN}, shards["train/0"]
    new.append(meds.event(1, "2150-09-01 08:00:00", f"HOSPITAL_ADMISSION//{word}//CLINIC REFERRAL", hadm_id=25))
    new.append(meds.event(1, "2150-09-01 09:00:00", "LAB//RESULT//50912//mg/dL", 9.5, hadm_id=25))
    new.append(meds.event(1, "2150-09-03 08:00:00", "HOSPITAL_DISCHARGE//HOME", hadm_id=25))
    new.append(meds.event(1, "2150-09-03 08:00:00", "DIAGNOSIS//ICD//10//C349", hadm_id=25))
    for number, clock in enumerate(sorted(set(CLOCKS.values()))):
        for place, minute in enumerate((-300, -235, -120, -10, 5)):
            test, when, n = TESTS[(number + place) % 6], at(clock + minute), float(10 * number + place)
            new += [
                meds.event(1, when, f"LAB//RESULT//{test}//mg/dL", n, **main),
                meds.event(1, when, f"LAB//{test}//mg/dL", n + 0.5, **main),
                meds.event(1, when, f"LAB//SPECIMEN_COLLECTED//{test}//STAT", **main),
                meds.event(1, when, "LAB//220045//bpm", n + 60, **main),
                meds.event(1, when, f"MICROBIOLOGY//{('URINE', 'SPUTUM')[place % 2]}", "proteus", **main),
                meds.event(1, when, "INFUSION_START//221906", n, **main),
                meds.event(1, when, "PROCEDURE//START//225402", **main),
                meds.event(1, when, f"MEDICATION//START//Drug{place}", **main),
            ]
    return shards


class MedsRecord:
    """The record as Parquet shards; see `leak_records.RawRecord`."""

    source = "meds"
    source_id = str(meds.MAIN)
    clocks = CLOCKS

    def content(self) -> Shards:
        """A fresh copy of all events."""
        return copy.deepcopy(events())

    def write(self, content: Shards, folder: Path) -> Path:
        """Writes the shards; returns the folder to import."""
        meds.write(folder)  # codes and metadata
        return meds.write_data(folder, content)

    def later(self, minute: int) -> list[Part]:
        """The events and results that become known after a minute."""
        parts = []
        for shard, listed in events().items():
            for index, event in enumerate(listed):
                first, last = known(event)
                name = f"{shard} {index} {event['code'].split('//')[0]}"
                if last is None or first is None or last <= minute:
                    continue
                if event["code"].startswith("HOSPITAL") and event.get("hadm_id") == meds.MAIN:
                    if event["code"].startswith("HOSPITAL_DISCHARGE"):
                        parts.append(Part(name, {"shift": _edit(event, _later)}))
                    elif minute < 0:
                        parts.append(Part(name, {"alter": _edit(event, _other_place)}))
                elif first > minute:
                    deeds = {"delete": _drop(event), "shift": _edit(event, _later)}
                    if not event["code"].startswith(("HOSPITAL", "ED_")):
                        deeds |= {"alter": _edit(event, _spoil), "add": _add(shard, event)}
                    parts.append(Part(name, deeds))
                elif event.get("numeric_value") is not None or event.get("text_value"):
                    deeds = {"alter": _edit(event, _spoil), "delete": _edit(event, _empty)}
                    parts.append(Part(f"{name}, its result", deeds))
        return parts

    def hidden(self) -> list[Part]:
        """The events that no step sees, and the words in codes that tell an outcome."""
        parts = []
        for shard, listed in events().items():
            for event in filter(is_hidden, listed):
                deeds = {"delete": _drop(event), "alter": _edit(event, _spoil), "add": _add(shard, event)}
                parts.append(Part(f"{shard} {event['code']}", deeds))
        return parts

    def early(self, content: Shards) -> None:
        """Puts LOUD into a result that every step sees."""
        content["train/0"].append(
            meds.event(1, "2150-03-10 08:00:00", "LAB//RESULT//50912//mg/dL", f"{LOUD} {LOUD}", hadm_id=meds.MAIN)
        )

    def broken(self, content: Shards, word: str) -> None:
        """Adds events without a patient, with an impossible time, and without a code."""
        content["train/0"] += [
            meds.event(None, "2150-03-10 08:00:00", f"LAB//RESULT//50912//{word}", word, route=word, frequency=word),
            meds.event(1, "0001-01-01 08:00:00", f"LAB//RESULT//50912//{word}", word, hadm_id=meds.MAIN),
            meds.event(1, "2150-03-10 08:00:00", "", word, hadm_id=meds.MAIN),
        ]

    def plant(self, content: Shards, word: Callable[[str, str], str]) -> None:
        """Puts a word of its own into every event that is hidden, into columns of the publisher that are not read."""
        for event in (one for listed in content.values() for one in listed):
            if is_hidden(event):
                event["text_value"] = word(event["code"], "value")


def is_hidden(event: Event) -> bool:
    """Says whether an event is never shown: coded after the stay, an end, or of a code that nobody knows."""
    if event["code"].startswith("DIAGNOSIS"):
        return event.get("hadm_id") != meds.BEFORE
    return event["code"].startswith(_HIDDEN)


def known(event: Event) -> tuple[int | None, int | None]:
    """When something of an event is known, and when all of it is; None for one that is no fact of its own."""
    if event["time"] is None or is_hidden(event) or event["code"].startswith(("MEDS_", "Weight", "ED_")):
        return None, None
    moment = datetime.fromisoformat(event["time"])
    if event["code"].startswith("MEDICATION//START") and moment.time() == datetime.min.time():
        moment += timedelta(days=1)  # no more than a day is known
    seen = math.ceil((moment - ORIGIN).total_seconds() / 60)
    for start, lag, pending in _LAGS:
        if event["code"].startswith(start):
            return (seen if pending else seen + lag), seen + lag
    return seen, seen


def _edit(event: Event, deed: Callable[[Event], None]) -> Change:
    """A deed on the event that reads like this one, where it is still there."""
    wanted = dict(event)

    def change(shards: Shards) -> None:
        for listed in shards.values():
            for one in [e for e in listed if e == wanted]:
                deed(one)

    return change


def _drop(event: Event) -> Change:
    wanted = dict(event)

    def change(shards: Shards) -> None:
        for listed in shards.values():
            listed[:] = [e for e in listed if e != wanted]

    return change


def _add(shard: str, event: Event) -> Change:
    extra = dict(event)
    _spoil(extra)

    def change(shards: Shards) -> None:
        shards[shard].append(dict(extra))

    return change


def _spoil(event: Event) -> None:
    if event.get("numeric_value") is not None:
        event["numeric_value"] = 31337.0
    if event.get("text_value"):
        event["text_value"] = f"{LOUD} {LOUD}"


def _empty(event: Event) -> None:
    event.update(numeric_value=None, text_value=None)


def _later(event: Event) -> None:
    moment = datetime.fromisoformat(event["time"])
    hours = 24 if moment.time() == datetime.min.time() else 5  # midnight may stand for a whole day
    event["time"] = (moment + timedelta(hours=hours)).isoformat(sep=" ")


def _other_place(event: Event) -> None:
    event["code"] = f"HOSPITAL_ADMISSION//{LOUD}//{LOUD}"
