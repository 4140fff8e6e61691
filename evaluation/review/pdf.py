"""Pages as PDF, by WeasyPrint: A4, with bookmarks, and without a single request to a network or a disk."""

from __future__ import annotations

import logging
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clinical_data.errors import UsageError

_OUTWARD = re.compile(r' href="(?!#)[^"]*"')
"""Links to other pages of a report: on paper they lead nowhere."""


MARK = b"\n% wardstar report\n"
"""A comment behind the end of the file, by which a PDF is known as wardstar's own."""


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
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "HarfBuzz-Subset", DeprecationWarning)  # fontTools does it
            from weasyprint import HTML
    except OSError as error:  # Pango or one of its like
        raise UsageError(
            "PDF takes Pango, which WeasyPrint cannot load", hint="install it by the system's package manager"
        ) from error
    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # it warns of every rule of style that is for screens
    document = HTML(string=_OUTWARD.sub("", html), url_fetcher=Refuser()).render()
    path.write_bytes(document.write_pdf(pdf_tags=True) + MARK)
    return len(document.pages)


class Refuser:
    """A fetcher that fetches nothing: what a page needs is inside it."""

    _fail_on_errors = False  # WeasyPrint asks its fetcher: goes on without the thing

    def __call__(self, url: str, *_: Any, **__: Any) -> Any:
        """Raises ValueError, always."""
        raise ValueError("a report fetches nothing")


def is_ours(path: Path) -> bool:
    """Says whether a PDF was written by this program."""
    return path.read_bytes().endswith(MARK)
