"""What all pages share: templates, style, and a policy under which a page can load nothing and send nothing."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evaluation.review import language


@cache
def environment() -> Environment:
    """Returns the templates, which escape every text and speak the language in use."""
    made = Environment(
        loader=PackageLoader("evaluation.review", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(say=language.say, look_up=language.look_up, count=language.count, language=language.language)
    return made


def asset(name: str) -> str:
    """Returns the text of a file beside the templates."""
    return (files("evaluation.review") / "templates" / name).read_text(encoding="utf-8")


def assets(script: str, *styles: str) -> dict[str, Markup]:
    """Returns style, script and a content policy that lets a page load nothing and run only that script.

    Args:
        script: JavaScript; empty for none.
        styles: names of style sheets after the common ones.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{digest}'; " if script else ""
    policy = f"default-src 'none'; {allowed}style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    style = "".join(asset(name) for name in ("style.css", "tree_svg.css", *styles))
    return {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}
