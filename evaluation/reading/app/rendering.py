"""Templates of the application, which escape every text, and the files that pages load."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from evaluation.review.language import say
from evaluation.review.rendering import asset

STATIC = {"htmx.min.js": "text/javascript", "review.js": "text/javascript", "review.css": "text/css"}
"""File -> kind; no other file is served."""


@cache
def environment() -> Environment:
    """Returns the templates, which know `say` for words shared with the report."""
    found = Environment(
        loader=PackageLoader("evaluation.reading.app", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["say"] = say
    return found


def page(template: str, status: int = 200, /, **content: Any) -> HTMLResponse:
    """Returns a page as a response."""
    return HTMLResponse(environment().get_template(template).render(**content), status)


@cache
def static(name: str) -> bytes:
    """Returns a file that pages load; the style is that of the report, and what the application adds."""
    own = (files("evaluation.reading.app") / "static" / name).read_bytes()
    return asset("style.css").encode() + own if name == "review.css" else own
