"""Readings in a real browser: by keyboard alone, blinded, two at once, through reloads and a killed server."""

from __future__ import annotations

import base64
import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from reading_runs import FIRST, LATER, MODEL, OF_MODEL, OF_RECORD, SECOND, TRUTH, add_reader, make_run, path_of
from review_server import browsing, serving

from evaluation.reading.audit import verify
from evaluation.reading.form import Verdict
from evaluation.reading.store import reviews_of

pytestmark = pytest.mark.timeout(300)
ONE = path_of(1)


@pytest.fixture
def stored(tmp_path):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    engine, run = make_run(url, tmp_path, steps=(FIRST,))
    yield url, engine, run
    engine.dispose()


def until(holds: Callable[[], Any], seconds: float = 30) -> Any:
    """Waits until something is true and returns it."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    end = time.monotonic() + seconds
    while True:
        try:
            if found := holds():
                return found
        except (NoSuchElementException, StaleElementReferenceException):
            pass
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def press(browser, *keys):
    """Types into whatever has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def tab_to(browser, css: str) -> None:
    """Presses the tab key until an element has the focus."""
    from selenium.webdriver.common.keys import Keys

    for _ in range(80):
        if browser.execute_script("return document.activeElement.matches(arguments[0])", css):
            return
        press(browser, Keys.TAB)
    pytest.fail(f"the tab key does not lead to {css}")


def field(browser, name):
    return browser.find_element("name", name)


def log_in(browser, base, name, token):
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{base}/login")
    field(browser, "name").send_keys(name)
    field(browser, "token").send_keys(token, Keys.ENTER)
    until(lambda: browser.find_element("id", "progress"))


def saved(browser):
    return until(lambda: browser.find_element("id", "saved").text.startswith("Saved"))


def test_a_whole_reading_by_keyboard_alone_and_nothing_shown_too_early(stored):
    from selenium.webdriver.common.keys import Keys

    url, engine, run = stored
    token = add_reader(engine, "Ann")
    with serving(url) as server, browsing() as browser:
        bodies = Bodies(browser)
        browser.get(f"{server.base}/")
        until(lambda: browser.current_url.endswith("/login"))
        press(browser, "Ann", Keys.TAB, token, Keys.ENTER)
        until(lambda: browser.find_element("id", "progress"))
        tab_to(browser, "a.button")
        press(browser, Keys.ENTER)
        first = until(lambda: "/read/" in browser.current_url and browser.current_url)
        tab_to(browser, "input[name=answer]")
        press(browser, "pneumonia")
        tab_to(browser, "input[name=confidence]")
        press(browser, "70")
        assert saved(browser)
        before = bodies.seen()
        assert any("cough and fever" in body for body in before)
        assert not [c for c in (*OF_MODEL, *OF_RECORD) for body in before if c in body]
        press(browser, Keys.ENTER)
        until(lambda: MODEL in browser.page_source)
        assert not [c for c in OF_RECORD for body in bodies.seen() if c in body]
        tab_to(browser, "input[name=confidence]")
        press(browser, Keys.ENTER)
        until(lambda: TRUTH in browser.page_source)
        assert LATER in browser.page_source
        tab_to(browser, "input[name=verdict]")
        press(browser, Keys.SPACE, Keys.ARROW_DOWN)
        tab_to(browser, "select[name=reason]")
        press(browser, "missed f")
        tab_to(browser, "input[name=corrected]")
        press(browser, "pneumonia")
        tab_to(browser, "input[name=rating-0]")
        press(browser, Keys.SPACE, Keys.ARROW_RIGHT)
        tab_to(browser, "input[name=may_train]")
        press(browser, Keys.SPACE)
        tab_to(browser, "#form button")
        press(browser, Keys.ENTER)
        until(lambda: "1 of 2 finished" in browser.page_source)
        errors = [e["message"] for e in browser.get_log("browser") if "favicon" not in e["message"]]
        assert errors == []
    (review,) = reviews_of(engine, run.run_id)
    assert first.endswith((ONE, path_of(2)))
    assert (review.first.codes, review.first.confidence, review.after.codes) == (("J18.9",), 70, ("J18.9",))
    assert (review.verdict, review.corrected, review.ratings) == (Verdict.OVERRIDDEN, ("J18.9",), {0: 2})
    assert review.may_train
    assert verify(engine).broken is None


class Bodies:
    """Every response body that a browser receives, as its network stack saw it."""

    def __init__(self, browser) -> None:
        self._browser, self._found = browser, []
        browser.execute_cdp_cmd("Network.enable", {})

    def seen(self) -> list[str]:
        from selenium.common.exceptions import WebDriverException

        for line in self._browser.get_log("performance"):
            event = json.loads(line["message"])["message"]
            if event["method"] != "Network.loadingFinished":
                continue
            try:
                body = self._browser.execute_cdp_cmd(
                    "Network.getResponseBody", {"requestId": event["params"]["requestId"]}
                )
            except WebDriverException:  # of a redirection there is none
                continue
            text = body["body"]
            self._found.append(base64.b64decode(text).decode("utf-8", "replace") if body["base64Encoded"] else text)
        self._found.append(self._browser.page_source)
        return self._found


def test_two_readers_at_once(stored):
    url, engine, run = stored
    tokens = {name: add_reader(engine, name) for name in ("Ann", "Ben")}
    with serving(url) as server, browsing() as ann, browsing() as ben:
        both = {"Ann": (ann, "pneumonia"), "Ben": (ben, "heart failure")}
        for name, (browser, answer) in both.items():
            log_in(browser, server.base, name, tokens[name])
            browser.get(f"{server.base}{ONE}")
            field(browser, "answer").send_keys(answer)
        for browser, _ in both.values():
            assert saved(browser)
        for browser, answer in both.values():
            browser.refresh()
            assert field(browser, "answer").get_attribute("value") == answer
            field(browser, "confidence").send_keys("50")
        for browser, _ in both.values():
            browser.find_element("css selector", "#form button").click()
        for browser, _ in both.values():
            until(lambda one=browser: MODEL in one.page_source)
            browser.find_element("css selector", "#form button").click()
        for browser, _ in both.values():
            until(lambda one=browser: TRUTH in one.page_source)
            browser.find_element("css selector", "input[name=verdict][value=accepted]").click()
            browser.find_element("css selector", "#form button").click()
        for browser, _ in both.values():
            until(lambda one=browser: "1 of 2 finished" in one.page_source)
    found = {r.reviewer: r.first.codes for r in reviews_of(engine, run.run_id)}
    assert found == {"Ann": ("J18.9",), "Ben": ("I50.9",)}
    assert verify(engine).broken is None


def test_neither_a_reload_nor_a_killed_server_loses_what_was_typed(stored):
    url, engine, _ = stored
    token = add_reader(engine, "Ann")
    with serving(url) as server, browsing() as browser:
        log_in(browser, server.base, "Ann", token)
        browser.get(f"{server.base}{ONE}")
        field(browser, "words").send_keys("typed and reloaded at once")
        browser.refresh()  # before the pause after which it is saved
        until(lambda: field(browser, "words"))
        browser.refresh()  # what the page sent as it went has arrived by now
        assert field(browser, "words").get_attribute("value") == "typed and reloaded at once"
        server.end(signal.SIGKILL)
        field(browser, "words").send_keys(", then more")
        until(lambda: "Trying again" in browser.find_element("id", "saved").text)
        server.start()
        assert saved(browser)
        server.end(signal.SIGKILL)
        server.start()
        browser.get(f"{server.base}{ONE}")  # the session lives on too
        assert field(browser, "words").get_attribute("value") == "typed and reloaded at once, then more"
    assert verify(engine).broken is None


def test_hostile_text_does_nothing_in_a_browser(tmp_path):
    hostile = (
        "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
        '"><svg onload=alert(1)> \u202egnirts\u2066 {{ 7*7 }} ' + "long " * 200_000
    )
    url = f"sqlite:///{tmp_path / 'a.db'}"
    engine, _ = make_run(url, tmp_path, complaint=hostile)
    token = add_reader(engine, "Ann")
    with serving(url) as server, browsing() as browser:
        log_in(browser, server.base, "Ann", token)
        browser.get(f"{server.base}{ONE}")
        shown = browser.find_element("css selector", ".chart summary")
        assert shown.text.startswith("<script>document.title='taken'</script><img")
        shown.click()
        text = browser.find_element("css selector", ".chart bdi.text").text
        assert "[U+202E]gnirts" in text
        assert "{{ 7*7 }}" in text
        assert "cut here for display" in text
        assert "taken" not in browser.title
        assert browser.find_elements("css selector", "main img, main svg, main script") == []
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        assert SECOND not in browser.current_url
    engine.dispose()
