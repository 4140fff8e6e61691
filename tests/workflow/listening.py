"""The command line, with every connection and every look-up of a host noted: a script, not a test.

    python listening.py FILE loud|quiet ARGUMENTS ...

`loud` leaves out the guard, which shows that this script would hear what the guard prevents.
"""

from __future__ import annotations

import atexit
import json
import sys
from pathlib import Path
from typing import Any

heard: list[tuple[str, str]] = []


def hear(event: str, values: tuple[Any, ...]) -> None:
    """Notes where to."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(values[1], tuple):
        heard.append((event, str(values[1][0])))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        heard.append((event, str(values[0])))


sys.addaudithook(hear)
atexit.register(lambda: Path(sys.argv[1]).write_text(json.dumps(heard)))

if __name__ == "__main__":
    from workflow import cli, runner

    if sys.argv[2] == "loud":
        cli.quiet_libraries = runner.quiet_libraries = lambda: None
    cli.main(sys.argv[3:])
