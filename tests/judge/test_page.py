"""The live page in a real browser, on a screen and on a phone."""

import shutil
from collections.abc import Iterator

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from moe_serve.judge import page
from tests.judge.serving import Memory, Served

PROGRAMS = [shutil.which(name) for name in ("chromium", "chromedriver")]
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        None in PROGRAMS, reason="no browser: apt-get install chromium chromium-driver"
    ),
]
PHONE, SCREEN = (390, 844), (1280, 900)
Browser = webdriver.Chrome


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location, driver = map(str, PROGRAMS)
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as browser:
        yield browser


@pytest.fixture(params=[PHONE, SCREEN], ids=["phone", "screen"])
def browser(chromium: Browser, request: pytest.FixtureRequest) -> Browser:
    width, height = request.param
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    return chromium


def opened(browser: Browser, client: httpx.Client) -> str:
    """The page's text, once it is drawn without a complaint and within the screen's width."""
    browser.get_log("browser")
    browser.get(str(client.base_url))
    complaints = [line for line in browser.get_log("browser") if "favicon" not in line["message"]]
    assert not complaints
    overhang = "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
    assert browser.execute_script(overhang) == 0
    return str(browser.find_element("tag name", "body").text)


def test_verdict_reason_and_numbers_are_there_while_data_flows(
    browser: Browser, served: Served
) -> None:
    watch, client = served(Memory())
    watch.judge()

    text = opened(browser, client)

    assert text.splitlines()[0] == "✓ PROMOTE"
    assert browser.title.startswith("✓ PROMOTE")
    drawing = browser.find_element("css selector", "svg polyline")
    assert drawing.size["width"] > 200
    heading, chart = (browser.find_element("tag name", name) for name in ("h1", "svg"))
    assert heading.location["y"] < chart.location["y"]
    assert "policy zero aligned" in text


def test_a_page_without_data_says_so(browser: Browser, served: Served) -> None:
    _, client = served(Memory())

    text = opened(browser, client)

    assert "KEEP GOING" in text.splitlines()[0]
    assert "not judged yet" in text
    assert not browser.find_elements("tag name", "svg")


def test_a_source_that_is_down_is_told_beside_the_last_numbers(
    browser: Browser, served: Served
) -> None:
    source = Memory()
    watch, client = served(source)
    watch.judge()
    source.fault = "prometheus: connection <b>refused</b>"
    watch.judge()

    text = opened(browser, client)

    alert = browser.find_element("css selector", "[role=alert]")
    assert alert.is_displayed()
    assert "connection <b>refused</b>" in alert.text
    assert "PROMOTE" in text


def test_it_refreshes_itself(
    browser: Browser, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "REFRESH_SECONDS", 1)
    watch, client = served(Memory())
    assert "not judged yet" in opened(browser, client)

    watch.judge()

    WebDriverWait(browser, 30).until(lambda seen: seen.title.startswith("✓ PROMOTE"))
