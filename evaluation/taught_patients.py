"""Says of how many case-steps of a run the models knew the patient: who is taught is no test.

A record names its models by SPEC and revision; the folder of a tuned model tells in its card, by hash, whose records it
was tuned on. A folder that is gone, or holds another model by now, tells nothing, and that is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clinical_data.errors import ModelError
from evaluation.record import RunRecord
from evaluation.supervision.cards import CARD, read_card
from search.desk import GENERATOR, PEER, VALUE

ELSEWHERE = ("random:", "scripted:", "hf:", "openai:")  # SPECs of models that `wardstar train` did not write
FILES = ("train", "tuning")
ROLES = (GENERATOR, PEER, VALUE)


@dataclass(slots=True)
class TaughtPatients:
    """Whom the models of one run were tuned on.

    Args:
        run: name of the run.

    Attributes:
        unknown: SPEC -> why it cannot be told of it.
    """

    run: str
    unknown: dict[str, str] = field(default_factory=dict)
    _known: dict[tuple[str, str], dict[str, frozenset[str]]] = field(default_factory=dict)

    def count(self, records: Iterable[RunRecord]) -> dict[str, int | None]:
        """Returns how many case-steps are of patients that a model of the run was tuned on, or stopped early by.

        Returns:
            `train` and `tuning` -> number; None where it cannot be told of a model (see `unknown`).

        Raises:
            BadInputError: a card of another form.
        """
        found = dict.fromkeys(FILES, 0)
        blind = False
        for record in records:
            hashed = hashlib.sha256(record.patient_id.encode()).hexdigest()
            models = {role: record.models[role] for role in ROLES if role in record.models}
            known = [self._of(model, judges=role == VALUE) for role, model in models.items()]
            for name in FILES:
                found[name] += any(hashed in of_model.get(name, ()) for of_model in known)
            blind = blind or any(model.get("spec") in self.unknown for model in models.values())
        return {name: None if blind else number for name, number in found.items()}

    def notes(self, counts: Iterable[Mapping[str, int | None]]) -> list[str]:
        """Returns what a reader must know: the counts of all steps summed, and of which model nothing can be told."""
        counts = list(counts)
        taught, looked_at = (sum(count[name] or 0 for count in counts) for name in FILES)
        notes = []
        if taught or looked_at:
            notes.append(
                f"{taught} case-steps of {self.run} are of patients that a model of it was tuned on, "
                f"{looked_at} of patients that told it when to stop: figures over them say little of new cases"
            )
        notes += [f"cannot tell whom {spec} of {self.run} was tuned on: {why}" for spec, why in self.unknown.items()]
        return notes

    def _of(self, identity: Mapping[str, Any], *, judges: bool) -> dict[str, frozenset[str]]:
        spec, revision = str(identity.get("spec", "")), str(identity.get("revision", ""))
        if not spec or spec == "embedded" or spec.startswith(ELSEWHERE):
            return {}
        if (spec, revision) not in self._known:
            self._known[spec, revision] = self._read(spec, revision, judges=judges)
        return self._known[spec, revision]

    def _read(self, spec: str, revision: str, *, judges: bool) -> dict[str, frozenset[str]]:
        from search.models.adapters import folder_of, is_adapter
        from search.models.weight_files import find_value_weights, find_weights  # only where a model was tuned

        folder = folder_of(spec)
        if not folder.is_dir():
            self.unknown[spec] = "the folder is not here"
            return {}
        card = read_card(folder / CARD)
        if not card and not is_adapter(folder):
            return {}  # a model as it came
        try:
            now = (find_value_weights if judges else find_weights)(spec).revision
        except ModelError as error:
            now, self.unknown[spec] = "", error.message
        if now and now != revision:
            self.unknown[spec] = "the folder holds another model now"
        patients = card.get("patients")
        if patients is None:
            self.unknown.setdefault(spec, "its card does not name patients")
        elif patients.get("unnamed"):
            self.unknown.setdefault(spec, f"{patients['unnamed']} rows of its training set name no patient")
        if spec in self.unknown:
            return {}
        return {name: frozenset(patients[name]) for name in FILES if patients is not None}
