"""Logs as JSON lines (`wardstar --log-json`): one object a line on stderr, with ids and counts, never a patient value.

`{"time", "level", "logger", "message"}` and what an event adds: `{"event": "case", "case_id": ..., "statuses": ...}`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

EVENTS = logging.getLogger("wardstar")
_FIELDS = "wardstar_fields"
_json: list[bool] = [False]


class JsonLines(logging.Formatter):
    """One JSON object a line. Of an exception only its class is written: its message may quote a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a log record."""
        row: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            row["error"] = record.exc_info[0].__name__
        return json.dumps(row, ensure_ascii=False, default=str)


def set_up(*, debug: bool = False, as_json: bool = False) -> None:
    """Sends the logs of this process to stderr."""
    _json[0] = as_json
    handler = logging.StreamHandler(sys.stderr)
    words = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if as_json else words)
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler], force=True)
    EVENTS.setLevel(logging.INFO if as_json else logging.NOTSET)


def as_json() -> bool:
    """Says whether logs are JSON lines; remarks and progress then are, too."""
    return _json[0]


def event(name: str, message: str, **fields: Any) -> None:
    """Logs an event where logs are JSON lines; does nothing elsewhere.

    Args:
        name: what happened.
        message: the same in words.
        fields: ids and counts.
    """
    if _json[0]:
        EVENTS.info(message, extra={_FIELDS: {"event": name, **fields}})
