"""What is done of a self-evolution: one small file in its folder, written whole after every stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clinical_data.errors import BadInputError, StorageError, UsageError
from evaluation.store.run_store import differing_keys
from evaluation.supervision.fine_tune_checkpoints import write_json

FILE = "evolve.json"
FORMAT = 1
_SHORT = 60  # characters of a value worth showing
_NONE = object()


class EvolveState:
    """The stages of all rounds that are done, each with what it gave.

    Args:
        out: folder of the evolution; made when it is not there.
        config: everything that decides results.

    Attributes:
        rounds: number of a round -> name of a stage -> what it gave, plain JSON.

    Raises:
        UsageError: the folder holds something else, or an evolution of another configuration; names what differs.
        BadInputError: the file cannot be read.
        StorageError: the folder cannot be made.
    """

    def __init__(self, out: Path, config: Mapping[str, Any]) -> None:
        self._path = out / FILE
        self._config = json.loads(json.dumps(config))
        self.rounds: dict[int, dict[str, dict[str, Any]]] = {}
        if self._path.is_file():
            self._read()
            return
        if out.exists() and (not out.is_dir() or any(path.name != f"{FILE}.part" for path in out.iterdir())):
            raise UsageError(f"{out} holds something else than an evolution", hint="name another folder with --out")
        try:
            out.mkdir(mode=0o700, parents=True, exist_ok=True)  # sets and weights repeat what charts said
        except OSError as error:
            raise StorageError(f"{out}: cannot be made ({error.strerror})") from error
        self._write()

    def stage(self, number: int, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns what a stage of a round gave; does it and notes it when that was not done before."""
        done = self.rounds.setdefault(number, {})
        if name not in done:
            done[name] = json.loads(json.dumps(work()))
            self._write()
        return done[name]

    def result(self, number: int, name: str) -> dict[str, Any] | None:
        """Returns what a stage of a round gave; None when it is not done."""
        return self.rounds.get(number, {}).get(name)

    def _read(self) -> None:
        try:
            there = json.loads(self._path.read_text(encoding="utf-8"))
            version, then = there["format"], there["config"]
            self.rounds = {int(number): dict(stages) for number, stages in there["rounds"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "take another --out; runs in the database are kept"
            raise BadInputError("is no readable state of an evolution", file=self._path, hint=hint) from error
        if version != FORMAT:
            raise UsageError(f"{self._path} is of another version of wardstar", hint="take another --out")
        if names := differing_keys(then, self._config):
            words = "; ".join(_change(name, _at(then, name), _at(self._config, name)) for name in names)
            raise UsageError(
                f"{self._path.parent} holds an evolution of another configuration: {words}",
                hint="give the same options, or another --run and --out",
            )

    def _write(self) -> None:
        rounds = {str(number): stages for number, stages in sorted(self.rounds.items())}
        write_json(self._path, {"format": FORMAT, "config": self._config, "rounds": rounds})


def _change(name: str, then: Any, now: Any) -> str:
    words = ["not there" if value is _NONE else str(value) for value in (then, now)]
    return name if max(map(len, words)) > _SHORT else f"{name} {words[0]}, now {words[1]}"


def _at(config: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        config = config.get(part, _NONE) if isinstance(config, Mapping) else _NONE
    return config
