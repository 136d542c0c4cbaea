"""The page in a real browser: no error, search, the histogram of a layer, and large networks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qcompiler.page.comparison_page import ModelFacts, comparison_page
from qcompiler.page.histograms import BINS, Histogram
from qcompiler.page.layering import positions
from qcompiler.page.network import CodeCounts, GridView, NetworkView, NodeView
from qcompiler.page.provenance import Origin
from qcompiler.page.render import page
from qcompiler.records import OutputFigure, Report
from tests.helpers.diff_pages import long_comparison

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium, which drives the browser, is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="neither chromium nor chromedriver is on the PATH")

MOST_SECONDS = 3.0
"""Of one core's time: what else the machine does is no matter."""
ORIGIN = Origin("m.onnx", "qcompile m.onnx", "a CPU", "Linux", "today", {}, {})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


def network(count: int) -> NetworkView:
    """A chain with a way around every fourth node."""
    edges = [(i, i + 1) for i in range(count - 1)] + [(i, i + 3) for i in range(0, count - 3, 4)]
    nodes = [
        NodeView(
            f"layer_{i}", "Conv", f"t{i}", "1 x 8", x, y, 10.0 + i % 40, 8, "int8", 8, 100, 50,
            grid=GridView("uint8", 0.1, 128, 0, 255), codes=CodeCounts([-1, 0, 5], [3, 4, 5]),
            histogram=Histogram(-14.0, 12.5, [i + 1 for i in range(BINS)]), why=["Its grid was chosen by a-pass."],
        )
        for i, (x, y) in enumerate(positions(count, edges))
    ]  # fmt: skip
    return NetworkView(nodes, edges)


def opened(browser: Any, folder: Path, count: int) -> None:
    report = Report(outputs=[OutputFigure("y", "", 30.0, 29.0, 31.0, 4)])
    (folder / "r.html").write_text(page(report, network(count), ORIGIN), encoding="utf-8")
    browser.get((folder / "r.html").as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"


def text_of(browser: Any, name: str) -> str:
    return str(browser.find_element("id", name).text)


def colours_of(browser: Any, selector: str) -> list[int]:
    """How many colours each canvas has."""
    found: list[int] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(c => {"
        " const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " const seen = new Set(); for (let i = 0; i < p.length; i += 4) seen.add(p.slice(i, i + 3).join());"
        " return seen.size })", selector
    )  # fmt: skip
    return found


def test_search_and_click_show_a_layer(browser, tmp_path):
    opened(browser, tmp_path, 30)
    browser.find_element("id", "search").send_keys("LAYER_17\n")
    assert text_of(browser, "found") == "1 of 1"
    assert "layer_17" in text_of(browser, "detail")
    browser.find_element("css selector", 'tr[data-node="10"]').click()
    detail = text_of(browser, "detail")
    assert "layer_10" in detail
    assert "Its grid was chosen by a-pass." in detail
    assert "-14 to 12.5" in detail
    assert "-12.8 to 12.7, in steps of 0.1" in detail
    drawn = colours_of(browser, "#detail canvas")
    assert len(drawn) == 2
    assert min(drawn) > 2
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("key", ["weight_bits", "bits", "weight_bytes", "macs", "sqnr_db"])
def test_every_colour_paints(browser, tmp_path, key):
    opened(browser, tmp_path, 12)
    browser.execute_script("const s = document.getElementById('colour'); s.value = arguments[0];"
                           "s.dispatchEvent(new Event('change'))", key)  # fmt: skip
    assert "grey" in text_of(browser, "legend")
    assert browser.get_log("browser") == []


def test_two_thousand_nodes_open_at_once(browser, tmp_path):
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    opened(browser, tmp_path, 2000)
    spent = {each["name"]: each["value"] for each in browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    assert 0 < spent["TaskDuration"] < MOST_SECONDS
    assert browser.get_log("browser") == []


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (400, "dark")])
def test_two_models_side_by_side(browser, tmp_path, width, scheme):
    text = comparison_page(long_comparison(50), ModelFacts("a.onnx", {}), ModelFacts("b.onnx", {}), ORIGIN)
    (tmp_path / "d.html").write_text(text, encoding="utf-8")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((tmp_path / "d.html").as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert "t25: 12.0 dB on the worst feed, 15.0 dB on the first." in text_of(browser, "here")
    assert browser.get_log("browser") == []
    assert len(colours_of(browser, "#line canvas")) == 1
    assert min(colours_of(browser, "#line canvas, .wave canvas")) > 2
    assert len(colours_of(browser, ".wave canvas")) == 8
    sizes = browser.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth])")
    assert sizes == [[True, 160]] * 16
    browser.get_log("browser")  # what it says of reading canvases
