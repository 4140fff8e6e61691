"""Fails when a page links to a file that is not there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def main() -> int:
    """Writes one line per broken link to stderr; returns 1 when there is any."""
    pages = [*sorted(Path().glob("*.md")), *sorted(Path("docs").rglob("*.md"))]
    wrong = [
        f"{page}: no such file: {target}"
        for page in pages
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists()
    ]
    sys.stderr.writelines(f"{line}\n" for line in wrong)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
