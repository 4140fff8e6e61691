"""Reads and checks single FHIR R4 resources that are no patient data: definitions that come in or go out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clinical_data.errors import BadInputError
from clinical_data.sources.fhir_models import model_of

MOST_BYTES = 2_000_000
_WORDS = {
    "value_error": "has a value that FHIR does not allow",
    "extra_forbidden": "is no element of FHIR R4",
    "missing": "is required",
    "string_pattern_mismatch": "has characters that FHIR does not allow there",
    "string_too_short": "must not be empty",
}


def read_resource(path: Path, resource_type: str) -> dict[str, Any]:
    """Returns the resource in a JSON file, checked against the R4B model of its type.

    Raises:
        BadInputError: not there, too large, no JSON, another resource, or not valid; names file, line and element.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInputError(f"larger than a {resource_type} can be ({MOST_BYTES // 1_000_000} MB)", file=path)
        data = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_no_number)
    except OSError as error:
        raise BadInputError(f"cannot be read ({error.strerror})", file=path) from error
    except UnicodeDecodeError as error:
        raise BadInputError("not UTF-8 text", file=path) from error
    except json.JSONDecodeError as error:
        raise BadInputError(f"invalid JSON: {error.msg}", file=path, line=error.lineno) from error
    except RecursionError as error:
        raise BadInputError("invalid JSON: nested too deeply", file=path) from error
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise BadInputError("invalid JSON: a number that is none", file=path) from error
    check_resource(data, resource_type, file=str(path))
    checked: dict[str, Any] = data
    return checked


def check_resource(data: object, resource_type: str, *, file: str | None = None) -> None:
    """Raises BadInputError unless `data` is a valid FHIR R4 resource of a type; names the first wrong element."""
    if not isinstance(data, dict):
        raise BadInputError(f"no FHIR resource: a {resource_type} is a JSON object", file=file)
    found = data.get("resourceType")
    if found != resource_type:
        known = isinstance(found, str) and found.isalpha() and model_of(found) is not None
        message = f"a {resource_type} is needed" + (f", not a {found}" if known else "")
        raise BadInputError(message, file=file, field="resourceType")
    try:
        model_of(resource_type)(**data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        words = _WORDS.get(str(first["type"]), f"is not valid FHIR R4 ({first['type']})")
        raise BadInputError(words, file=file, field=place_of(first["loc"])) from error
    except RecursionError as error:
        raise BadInputError("nested too deeply", file=file) from error
    except Exception as error:  # the models let some errors of hostile input through as they are
        raise BadInputError(f"is not valid FHIR R4 ({type(error).__name__})", file=file) from error


def place_of(parts: tuple[str | int, ...]) -> str:
    """Returns the path of an element in words: `action[0].title`."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")


def _no_number(text: str) -> float:
    raise ValueError(text)
