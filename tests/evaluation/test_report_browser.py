"""The page of a case in a real browser: silent, within a phone's width, and its tree worked by keyboard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_records as made

from evaluation.review.report import render

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no browser on this machine"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    (out / "cases").mkdir()
    for path, html in render(made.RUN, made.stored(), made.score()).items():
        (out / path).write_text(html, encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="no Selenium here")
    options = webdriver.ChromeOptions()
    for given in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1280,900"):
        options.add_argument(given)
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.chrome.service.Service(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def width(browser: Any, pixels: int) -> None:
    given = {"width": pixels, "height": 844, "deviceScaleFactor": 1, "mobile": pixels < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", given)


def test_a_page_says_nothing_to_console_or_network(browser, report: Path):
    width(browser, 1280)
    browser.get_log("performance")
    address = (report / "cases" / "fhir-demo-07.html").as_uri()
    browser.get(address)
    assert browser.get_log("browser") == []
    sent = [row["message"] for row in browser.get_log("performance") if '"Network.requestWillBeSent"' in row["message"]]
    assert len(sent) <= 1  # the file itself
    assert all(address in message for message in sent)
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("page", ["cases/fhir-demo-07.html", "cases/fhir-demo-11.html"])
def test_a_phone_shows_the_page_without_scrolling_sideways(browser, report: Path, page: str):
    width(browser, 390)
    browser.get((report / page).as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_the_tree_is_worked_by_keyboard_and_each_step_has_its_own(browser, report: Path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    width(browser, 1280)
    browser.get((report / "cases" / "fhir-demo-07.html").as_uri())
    root = browser.find_element(By.ID, "discharge_diagnosis-turn-0")
    browser.execute_script("arguments[0].focus()", root)
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER):
        browser.switch_to.active_element.send_keys(key)
    active = browser.switch_to.active_element
    assert active.get_attribute("id") == "discharge_diagnosis-panel"
    shown = [a for a in active.find_elements(By.TAG_NAME, "article") if a.is_displayed()]
    assert [a.get_attribute("id") for a in shown] == ["discharge_diagnosis-d2"]
    other = browser.find_element(By.ID, "admission_diagnosis-panel")
    assert not [a for a in other.find_elements(By.TAG_NAME, "article") if a.is_displayed()]
    active.send_keys(Keys.ESCAPE)
    assert browser.switch_to.active_element.get_attribute("id") == "discharge_diagnosis-turn-2"


def test_a_link_to_the_rejected_branch_opens_it_in_the_tree(browser, report: Path):
    from selenium.webdriver.common.by import By

    node = made.pneumonia().candidates[1].node
    width(browser, 1280)
    browser.get((report / "cases" / "fhir-demo-07.html").as_uri())
    browser.find_element(By.CSS_SELECTOR, f'a[href="#admission_diagnosis-d{node}"]').click()
    assert browser.find_element(By.ID, f"admission_diagnosis-d{node}").is_displayed()


def test_without_a_script_the_words_of_every_turn_can_be_read(browser, report: Path):
    width(browser, 1280)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get((report / "cases" / "fhir-demo-07.html").as_uri())
        root = browser.execute_cdp_cmd("DOM.getDocument", {})["root"]["nodeId"]
        given = {"nodeId": root, "selector": "#admission_diagnosis-d1"}
        turn = browser.execute_cdp_cmd("DOM.querySelector", given)["nodeId"]
        assert browser.execute_cdp_cmd("DOM.getBoxModel", {"nodeId": turn})["model"]["height"] > 20
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def visible_rows(browser: Any) -> list[str]:
    script = "return [...document.querySelectorAll('#cases tbody tr')].filter(r => !r.hidden).map(r => r.dataset.state)"
    return browser.execute_script(script)


def test_the_list_of_the_first_page_is_filtered_by_keyboard(browser, report: Path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    width(browser, 1280)
    browser.get((report / "index.html").as_uri())
    assert browser.get_log("browser") == []
    assert visible_rows(browser) == ["agreed", "disagreed", "none", "not_applicable"]
    search = browser.find_element(By.ID, "filter-text")
    search.send_keys("DEMO-11")
    assert visible_rows(browser) == ["none", "not_applicable"]
    search.send_keys(Keys.TAB, Keys.NULL)
    browser.switch_to.active_element.send_keys("Discharge")  # the list of steps
    assert visible_rows(browser) == ["not_applicable"]
    assert browser.find_element(By.ID, "shown").text == "Shown: 1 of 1"
    search.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE)
    browser.find_element(By.ID, "filter-step").send_keys("All")
    browser.find_element(By.ID, "filter-right").send_keys("right")
    assert visible_rows(browser) == ["agreed"]


def test_recorded_answers_of_the_list_show_on_demand_and_are_not_searched_before(browser, report: Path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get((report / "index.html").as_uri())
    cells = browser.find_elements(By.CSS_SELECTOR, "td.truth")
    assert cells
    assert not any(cell.is_displayed() for cell in cells)
    browser.find_element(By.ID, "filter-text").send_keys("lobar")
    assert visible_rows(browser) == []
    browser.find_element(By.ID, "filter-text").send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE)
    browser.find_element(By.ID, "show-recorded").send_keys(Keys.SPACE)
    assert all(cell.is_displayed() for cell in browser.find_elements(By.CSS_SELECTOR, "td.truth"))


def test_the_first_page_stays_within_a_phone(browser, report: Path):
    width(browser, 390)
    browser.get((report / "index.html").as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
