"""Reads the cards of training sets and of tuned models, which other programs and people may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from clinical_data.errors import BadInputError
from search.models.adapters import CARD

__all__ = ["CARD", "VOCABULARIES", "read_card"]

VOCABULARIES = "vocabularies"  # folder of a set, and of a model tuned on it


class _File(BaseModel):
    """What a card says of one file of a set."""

    model_config = ConfigDict(strict=True)
    sha256: str | None = None


class _Pathway(BaseModel):
    model_config = ConfigDict(strict=True)
    name: str = ""
    sha256: str | None = None


class _Patients(BaseModel):
    model_config = ConfigDict(strict=True)
    split_scheme: str = ""
    train: list[str] = []
    tuning: list[str] = []
    unnamed: int = 0


class _Card(BaseModel):
    """The parts of a card that programs go by; each may be missing, none may be of another form."""

    model_config = ConfigDict(strict=True)
    kind: str = ""
    status: str = ""
    split_scheme: str | None = None
    pathway: _Pathway | None = None
    versions: dict[str, str] | None = None
    hashes: dict[str, str] | None = None
    splits: dict[str, _File] | None = None
    settings: dict[str, Any] | None = None
    base: dict[str, Any] | None = None
    patients: _Patients | None = None
    data: dict[str, Any] | None = None
    eval_loss: float | None = None


def read_card(path: Path) -> dict[str, Any]:
    """Returns the card of a training set or of a tuned model; empty where there is none.

    Raises:
        BadInputError: it is no JSON object, or a part of it is not of the form it must have; names the field.
    """
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError("is not readable JSON", file=path) from error
    if not isinstance(card, dict):
        raise BadInputError("is not a JSON object", file=path)
    try:
        _Card.model_validate(card)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise BadInputError(first["msg"].lower(), file=path, field=name) from None
    return card
