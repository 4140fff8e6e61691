"""The raw records of OSCE and DDXPlus for the leak tests: one consultation, of which all but the answer is known."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import leak_records  # noqa: F401  makes the importers' own records importable
from leak_records import LOUD, Part
from source_records import DDXPLUS_COLUMNS, EVIDENCES, condition, osce_scenario, patients_csv, write_release

from clinical_data.sources.osce import scenario_id

Json = dict[str, Any]
_OTHER_KEYS = ("Doctor_Notes", "Final_Assessment", "Discharge_Diagnosis")  # the data set has none of them


def osce_file(word: str = "plain") -> list[Json]:
    """Two scenarios; `word` stands wherever the answer or the task does."""
    task, answer = f"Assess the patient for {word}.", f"{word} disease"
    first = osce_scenario(Objective_for_Doctor=task, Correct_Diagnosis=answer)
    return [first, osce_scenario(Correct_Diagnosis=answer, Test_Results={"ESR": "38 mm/hr"})]


class OsceRecord:
    """Scenarios, one per line; see `leak_records.RawRecord`."""

    source = "osce"
    source_id = scenario_id(osce_scenario()["OSCE_Examination"])
    clocks: ClassVar = {"discharge_diagnosis": 0}

    def content(self) -> list[Json]:
        """A fresh copy of the scenarios."""
        return copy.deepcopy(osce_file())

    def write(self, content: list[Json], folder: Path) -> Path:
        """Writes the file; returns its path."""
        path = folder / "agentclinic_medqa.jsonl"
        path.write_text("\n".join(map(json.dumps, content)) + "\n", encoding="utf-8")
        return path

    def later(self, minute: int) -> list[Part]:
        """Nothing: a consultation has one moment."""
        return []

    def hidden(self) -> list[Part]:
        """Answer and task, keys that are not listed, and the other scenarios."""

        def root(change: Callable[[Json], object]) -> Callable[[list[Json]], None]:
            return lambda content: (change(content[0]["OSCE_Examination"]), None)[1]

        parts = [
            Part(key, {"alter": root(lambda e, k=key: e.update({k: LOUD})),  # type: ignore[misc]
                       "delete": root(lambda e, k=key: e.pop(k, None)),  # type: ignore[misc]
                       "add": root(lambda e, k=key: e.update({k: {"more": [LOUD]}}))})  # type: ignore[misc]
            for key in ("Correct_Diagnosis", "Objective_for_Doctor", *_OTHER_KEYS)
        ]  # fmt: skip
        others = {"delete": lambda content: content.pop(1), "alter": _other_scenario,
                  "add": lambda content: content.append(osce_scenario(Test_Results={LOUD: LOUD}))}  # fmt: skip
        return [Part("other scenarios", others), *parts]

    def early(self, content: list[Json]) -> None:
        """Puts LOUD into a test; the id of the scenario, which comes from what is seen, moves with it."""
        content[0]["OSCE_Examination"]["Test_Results"]["Urinalysis"]["Nitrites"] = LOUD

    def broken(self, content: list[Json], word: str) -> None:
        """Adds a scenario without its parts."""
        content.append({"OSCE_Examination": {"Patient_Actor": word, "Test_Results": {word: word}}})

    def plant(self, content: list[Json], word: Callable[[str, str], str]) -> None:
        """Puts a word of its own into every key that is not shown."""
        for scenario in content:
            scenario["Notes"] = word("line", "notes")
            examination = scenario["OSCE_Examination"]
            for key in ("Correct_Diagnosis", "Objective_for_Doctor", *_OTHER_KEYS):
                examination[key] = word("root", key)
            for part in ("Patient_Actor", "Test_Results", "Physical_Examination_Findings"):
                examination[part]["Correct_Diagnosis"] = word(part, "answer")
                examination[part]["Objective_for_Doctor"] = word(part, "task")
            examination["Patient_Actor"]["Secret"] = word("actor", "secret")


def _other_scenario(content: list[Json]) -> None:
    content[-1]["OSCE_Examination"]["Patient_Actor"]["History"] = f"{LOUD} {LOUD}"


class DdxplusRecord:
    """A release with one patient in each of two splits; see `leak_records.RawRecord`."""

    source = "ddxplus"
    source_id = "test-1"
    clocks: ClassVar = {"discharge_diagnosis": 0, "differential": 0}

    def content(self, word: str = "plain") -> Json:
        """A fresh copy: conditions, rows per split, evidences and the header."""
        names = [f"{word} one", f"{word} two"]
        given = repr([[names[1], 0.2], [names[0], 0.8]])
        told = repr(["E_53", "E_55_@_V_29", "E_55_@_V_89", "E_56_@_4", "E_79", "E_204_@_V_10", "E_91"])
        return {
            "conditions": {name: condition(name, code) for name, code in zip(names, ("j20", "j17"), strict=True)},
            "test": [[18, given, "M", names[0], told, "E_91"]],
            "train": [[44, given, "F", names[1], repr(["E_91"]), "E_91"]],
            "evidences": copy.deepcopy(EVIDENCES),
            "more": [],
        }

    def write(self, content: Json, folder: Path) -> Path:
        """Writes the release; returns its folder."""
        text = {split: patients_csv(*map(tuple, content[split])) for split in ("test", "train")}
        if content["more"]:
            header = ",".join(DDXPLUS_COLUMNS)
            for split, rows in text.items():
                lines = rows.splitlines()
                lines[0] = f"{header},EXPLANATION"
                lines[1:] = [f"{line},{content['more'][0]}" for line in lines[1:]]
                text[split] = "\n".join(lines) + "\n"
        write_release(folder, content["conditions"], **text)
        (folder / "release_evidences.json").write_text(json.dumps(content["evidences"]), encoding="utf-8")
        return folder

    def later(self, minute: int) -> list[Part]:
        """Nothing: a consultation has one moment."""
        return []

    def hidden(self) -> list[Part]:
        """Pathology and differential, the other patients, and what the release says of conditions."""

        def pathology(content: Json) -> None:
            content["test"][0][3] = content["train"][0][3]

        def differential(content: Json) -> None:
            content["test"][0][1] = repr([[content["test"][0][3], 1.0]])

        def severity(content: Json) -> None:
            for one in content["conditions"].values():
                one.update(severity=1, symptoms={LOUD: {}}, **{"cond-name-eng": LOUD, "icd10-id": "Z99"})

        def french(content: Json) -> None:
            for one in content["evidences"].values():
                one["question_fr"] = LOUD

        empty = {"delete": lambda content: content["test"][0].__setitem__(1, "[]")}
        return [
            Part("PATHOLOGY", {"alter": pathology, "delete": lambda content: content["test"][0].__setitem__(3, "")}),
            Part("DIFFERENTIAL_DIAGNOSIS", {"alter": differential, **empty}),
            Part("conditions", {"alter": severity}),
            Part("other questions", {"alter": french}),
            Part("another column", {"add": lambda content: content["more"].append(LOUD)}),
            Part("patients after", {"add": lambda content: content["test"].extend(content["train"][:1])}),
            Part("another split", {"delete": lambda content: content["train"].clear()}),
        ]

    def early(self, content: Json) -> None:
        """Puts LOUD into a question that the patient answered."""
        content["evidences"]["E_53"]["question_en"] = LOUD

    def broken(self, content: Json, word: str) -> None:
        """Adds patients with an unknown evidence, an unknown condition, and no list."""
        row = content["test"][0]
        content["test"] += [[*row[:4], repr([word]), word], [*row[:3], word, *row[4:]], [*row[:4], word, word]]

    def plant(self, content: Json, word: Callable[[str, str], str]) -> Json:
        """Returns the release with the words of its answers, and every field that is not read, replaced."""
        planted = self.content(word("condition", "name"))
        for one in planted["conditions"].values():
            one["symptoms"] = one["antecedents"] = {word("condition", "symptoms"): {}}
            one.update({"cond-name-fr": word("condition", "french"), "cond-name-eng": word("condition", "english")})
        for one in planted["evidences"].values():
            one["question_fr"] = word("evidence", "french")
            for meaning in one["value_meaning"].values():
                meaning["fr"] = word("evidence", "meaning")
        planted["more"] = [word("column", "explanation")]
        return planted
