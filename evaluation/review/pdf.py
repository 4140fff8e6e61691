"""Pages as PDF, by WeasyPrint: A4, with bookmarks, and without a single request to a network or a disk."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clinical_data.errors import UsageError

_OUTWARD = re.compile(r' href="(?!#)[^"]*"')
"""Links to other pages of a report: on paper they lead nowhere."""


def require() -> None:
    """Raises an error with a hint when the library is missing.

    Raises:
        UsageError: WeasyPrint is not installed.
    """
    if find_spec("weasyprint") is None:
        raise UsageError("PDF takes WeasyPrint, which is not installed", hint='pip install "wardstar[pdf]"')


def write_pdf(html: str, path: Path) -> int:
    """Writes a page as PDF and returns its number of sheets.

    Args:
        html: a page of a report, made for paper.
        path: the file.

    Raises:
        UsageError: WeasyPrint is not installed, or one of the system libraries that it draws with is missing.
        OSError: the file cannot be written.
    """
    require()
    try:
        from weasyprint import HTML
    except OSError as error:  # Pango or one of its like
        raise UsageError(
            "PDF takes Pango, which WeasyPrint cannot load", hint="install it by the system's package manager"
        ) from error
    document = HTML(string=_OUTWARD.sub("", html), url_fetcher=refuse).render()
    document.write_pdf(path, pdf_tags=True)
    return len(document.pages)


def refuse(url: str, *_: Any, **__: Any) -> Any:
    """Fetches nothing: what a page needs is inside it.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"a report fetches nothing, and so not {url[:80]}")
