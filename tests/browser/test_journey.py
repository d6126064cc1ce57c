"""The whole journey in a real browser: open, click a point, quantize it, reload.

The sample network, its stored analysis and a real worker; no network is needed.
"""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from engine.analysis import Analysis
from engine.workloads import stored_analysis

ROOT = Path(__file__).parents[2]
SECONDS_TO_START = 120
SECONDS_TO_DRAW = 120
SECONDS_TO_MEASURE = 400  # three times a thousand images, on a machine that may be busy
FLAGS = ["--no-sandbox", "--disable-background-networking"]

FRONTIER = '.chart[aria-label^="Size against"]'
SIZE = '[data-testid="stMetricValue"] >> nth=0'

# Where on the page the frontier's point of at least this many KiB is drawn, and its cost in bytes.
POINT = """kib => {
  const chart = document.querySelector('.chart[aria-label^="Size against"]');
  const line = chart.data.find(trace => trace.name === 'exact frontier');
  const i = line.x.findIndex(x => x >= kib);
  const box = chart.getBoundingClientRect(), { xaxis, yaxis, _size } = chart._fullLayout;
  return { x: box.left + _size.l + xaxis.l2p(line.x[i]),
           y: box.top + _size.t + yaxis.l2p(Math.log10(line.y[i])), cost: line.customdata[i] };
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard, served for these tests alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "hawq_viz" / "app.py")]
    command += ["--server.port", str(port), "--server.headless", "true"]
    command += ["--server.fileWatcherType", "none"]
    environment = {
        **os.environ,
        "HAWQ_VIZ_RUNS": str(folder / "runs"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/_stcore/health", server, folder / "log.txt")
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()
            server.wait(30)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(address, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"The dashboard did not start: {log.read_text()[-2000:]}")


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """A page of a fresh browser that may reach nothing but this machine, and must not complain."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        page = context.new_page()
        said: list[str] = []
        abroad: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "console",
            lambda message: (
                said.append(message.text + str(message.location))
                if message.type == "error"
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                abroad.append(request.url)
                if not re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", request.url)
                else None
            ),
        )
        yield page
        browser.close()
    # Streamlit looks for its server below a page's own path first, and is told it is not there.
    assert [line for line in said if "/_stcore/" not in line] == []
    assert abroad == []


def settled(page: Page) -> None:
    """Wait until charts are drawn and the script has come to rest."""
    expect(page.locator(".chart[data-drawn]").first).to_be_visible(timeout=1000 * SECONDS_TO_DRAW)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=1000 * SECONDS_TO_DRAW)


def test_from_the_frontier_to_a_measured_plan(page: Page, address: str):
    page.goto(address)
    settled(page)
    suggested = page.locator(SIZE).inner_text()

    # A real click on a point of the line picks that plan, in the page and in the URL.
    point = page.evaluate(POINT, 100)
    page.mouse.move(point["x"], point["y"])
    page.mouse.click(point["x"], point["y"])
    page.wait_for_url(re.compile(r"size=\d+"))
    settled(page)
    size = page.locator(SIZE)
    expect(size).not_to_have_text(suggested)
    clicked = float(re.search(r"size=([\d.]+)", page.url)[1])
    assert clicked == pytest.approx(point["cost"], rel=0.02)  # neighbours may lie under the mouse
    expect(size).to_have_text(f"{clicked / 1024:.1f} KiB")
    picked = size.inner_text()
    picked_url = page.url
    assert page.locator(FRONTIER).evaluate(
        "chart => chart.data.find(trace => trace.name === 'this plan').customdata[0]"
    ) == pytest.approx(clicked)

    # A reload, and the browser's way back, know it.
    page.reload()
    settled(page)
    expect(page.locator(SIZE)).to_have_text(picked)
    assert page.url == picked_url
    slider = page.get_by_test_id("stSlider").locator("input")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda url: url != picked_url)
    settled(page)
    page.wait_for_timeout(1500)  # a change of the URL right after our own is taken for an echo
    page.go_back()
    expect(page.locator(SIZE)).to_have_text(picked, timeout=20_000)

    # The plan goes along to its own page, is quantized by a worker, and measured.
    page.get_by_role("button", name="Quantize this plan").click()
    page.wait_for_url(re.compile("/quantize"))
    expect(page.locator(SIZE)).to_have_text(picked)
    page.get_by_role("button", name="Quantize and measure").click()
    page.wait_for_url(re.compile("run="))
    expect(page.get_by_test_id("stProgress")).to_be_visible(timeout=20_000)
    verdict = page.get_by_text("The plan keeps")
    expect(verdict).to_be_visible(timeout=1000 * SECONDS_TO_MEASURE)
    settled(page)
    found = verdict.inner_text()
    assert re.search(r"keeps \d+\.\d%, \d+\.\d points (below|above) float32", found)
    accuracies = page.locator('.chart[aria-label^="Measured"]')
    assert accuracies.evaluate("chart => chart.data.length") == 3

    # A refresh in the same place, or in another browser, shows the same.
    page.reload()
    settled(page)
    expect(page.get_by_text(found)).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_take_the_colours_of_the_page(page: Page, address: str, theme: str):
    page.emulate_media(color_scheme=theme)
    for path in ("", "sensitivity", "quantize"):
        page.goto(address + path)
        settled(page)
        ink = page.locator(".chart").first.evaluate("chart => chart.layout.font.color")
        shade = int(ink.lstrip("#")[:2], 16)
        assert shade < 100 if theme == "light" else shade > 200, ink


def test_a_saved_plan_opens_with_its_own_bits(page: Page, address: str, tmp_path: Path):
    analysis = Analysis.load(stored_analysis("resnet20-cifar10"))
    bits = dict.fromkeys(analysis.names, 3) | {"conv1": 8}
    plan = analysis.plan_of(bits)
    plan.save(tmp_path / "plan.json")
    (tmp_path / "cut.json").write_text((tmp_path / "plan.json").read_text()[:-20])
    page.goto(address)
    settled(page)
    page.get_by_test_id("stPopoverButton").locator("visible=true").last.click()
    page.locator("input[type=file]").set_input_files(tmp_path / "cut.json")
    expect(page.get_by_text("cut.json must be a saved plan, but is not whole JSON")).to_be_visible()
    page.locator("input[type=file]").set_input_files(tmp_path / "plan.json")
    page.wait_for_url(re.compile(f"bits=8{'3' * 21}"))
    settled(page)
    expect(page.locator(SIZE)).to_have_text(f"{plan.size_bytes / 1024:.1f} KiB")
    expect(page.get_by_text("the Ω of the best plan that is not larger")).to_be_visible()
