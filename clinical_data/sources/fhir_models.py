"""Validates FHIR resources with the R4B models of fhir.resources, equal elements once.

Most elements of a record come again and again: the same subject, the same category, the same code. An element is
validated when it is first met, and the finished object stands in for every equal one. What fails is validated again as
a whole, so that the error names its place.
"""

from __future__ import annotations

import typing
from functools import lru_cache
from typing import Any

import orjson
from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError

_ELEMENTS = 1 << 12  # objects kept, some 5 kB each


@lru_cache(maxsize=512)
def model_of(resource_type: str) -> Any:
    """Returns the fhir.resources R4B model of a resource type, or None when there is no such type."""
    try:
        model = get_fhir_model_class(resource_type)
    except (ValueError, ImportError, AttributeError, KeyError):
        return None
    return model if model.has_resource_base() else None


def validate(model: Any, data: dict[str, Any]) -> None:
    """Validates a resource.

    Raises:
        ValidationError: it is not valid.
    """
    elements = _elements_of(model)
    ready = dict(data)
    try:
        for name, value in data.items():
            element, many = elements.get(name, (None, False))
            if element is None:
                continue
            if many and type(value) is list:
                ready[name] = [_validated(element, orjson.dumps(one)) for one in value]
            elif not many and type(value) is dict:
                ready[name] = _validated(element, orjson.dumps(value))
    except (ValidationError, TypeError):
        ready = data
    model(**ready)


@lru_cache(maxsize=_ELEMENTS)
def _validated(element: Any, text: bytes) -> Any:
    return element(**orjson.loads(text))


@lru_cache(maxsize=64)
def _elements_of(model: Any) -> dict[str, tuple[Any, bool]]:
    """Returns the models of a model's complex elements, and whether there may be many, by their names in JSON."""
    found = {}
    for name, field in model.model_fields.items():
        kind, many = _inner(field.annotation)
        if hasattr(kind, "get_model_klass") and name != "contained":  # a resource, whose model its content decides
            found[field.alias or name] = kind.get_model_klass(), many
    return found


def _inner(annotation: Any) -> tuple[Any, bool]:
    """Returns the type inside Optional and List, and whether there is a list."""
    many = False
    while arguments := [a for a in typing.get_args(annotation) if a is not type(None)]:
        many = many or typing.get_origin(annotation) is list
        annotation = arguments[0]
    return annotation, many
