"""The review application as a user starts it, in a process of its own that a test may kill; and a real browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WARDSTAR = (sys.executable, "-c", "from workflow.cli import main; main()")


class Server:
    """`wardstar review serve` on a free port of this machine, or on the port it had before."""

    def __init__(self, url: str, run: str = "one") -> None:
        self._command = [*WARDSTAR, "review", "serve", "--db", url, "--run", run]
        self._process: subprocess.Popen[str] | None = None
        self.base = ""

    def start(self) -> None:
        """Starts and waits until it listens."""
        port = self.base.rsplit(":", 1)[1] if self.base else "0"
        own: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self._process = subprocess.Popen(
            [*self._command, "--port", port], env=os.environ | {"OMP_NUM_THREADS": "1"}, **own
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line.startswith("http://127.0.0.1:"), line
        self.base = line.rstrip("/")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends the process, by default as an operator does."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.communicate(timeout=30)
            self._process = None


@contextmanager
def serving(url: str) -> Iterator[Server]:
    """A server that listens, ended at the end."""
    server = Server(url)
    try:
        server.start()
        yield server
    finally:
        server.end(signal.SIGKILL)


@contextmanager
def browsing() -> Iterator[Any]:
    """A new Chromium without a window; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1360,1000",
    ):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.set_page_load_timeout(60)
        yield browser
    finally:
        browser.quit()
