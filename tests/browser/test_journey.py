"""The whole journey in a real browser: open, analyze, pick, launch, watch, compare, take away.

The sample network and real workers; no network is needed.
"""

import re
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from served import POINT, Dashboard, analyze_roughly, settled

from engine import load_packed
from engine.analysis import Analysis
from engine.jobs import view
from engine.workloads import stored_analysis

SECONDS_TO_WORK = 900  # that a worker may take, on a machine that may be busy

SIZE = '[data-testid="stMetricValue"] >> nth=0'

FRONTIER = '.chart[aria-label^="Size against"]'
ACCURACY = '.chart[aria-label^="Accuracy against"]'
ROW = 35  # pixels of a table
UNTIL_ANOTHER = "run => ![run, null].includes(new URLSearchParams(location.search).get('run'))"
UNTIL_ASKED = "([name, value]) => new URLSearchParams(location.search).get(name) === value"

# Steps and accuracies of the watched run; and whether they have risen well above the first.
COURSE = """chart => {
  const line = chart.data.findLast(trace => trace.name.includes('seed'));
  return [line.x, line.y];
}"""
CLIMBED = """() => {
  const line = document.querySelector('.chart[aria-label^="Accuracy against"]')
    ?.data?.findLast(trace => trace.name.includes('seed'));
  return line && line.y.at(-1) > line.y[0] + 0.03;
}"""

# Whether the frontier marks the plan of a cost.
MARKED = """cost => {
  const chart = document.querySelector('.chart[aria-label^="Size against"]');
  const marked = chart.data.find(trace => trace.name === 'this plan').customdata[0];
  return Math.abs(marked - cost) <= 1e-6 * cost;
}"""

# How far along the frontier its first plan of at least this many KiB is.
SHARE = """(chart, kib) => {
  const { x } = chart.data.find(trace => trace.name === 'exact frontier');
  return x.findIndex(size => size >= kib) / (x.length - 1);
}"""


def go_to(page: Page, name: str) -> None:
    """Another page, by the menu."""
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
    where = "/" if name == "Home" else f"/{name.lower()}"
    page.wait_for_url(lambda url: urlparse(url).path == where)


def asked(page: Page, name: str) -> str:
    """A part of the view, from the address."""
    return parse_qs(urlparse(page.url).query)[name][0]


def have_analyzed(page: Page) -> None:
    """Have the weights analyzed, and show that."""
    page.get_by_role("button", name="See it").first.click()
    expect(page.get_by_text("what rounding each layer costs")).to_be_visible(timeout=20_000)
    settled(page)
    analyze_roughly(page)
    page.get_by_role("button", name="Show it").click(timeout=1000 * SECONDS_TO_WORK)
    page.wait_for_url(re.compile("analysis="))
    settled(page)


def pick_by_a_click(page: Page, kib: float) -> str:
    """Pick the frontier's plan of a size by a real click on its point; its size as shown."""
    suggested = page.locator(SIZE).inner_text()
    chart = page.locator(FRONTIER)
    x, y, cost = chart.evaluate(POINT, chart.evaluate(SHARE, kib))
    page.mouse.click(x, y)
    page.wait_for_url(re.compile(r"size=\d+"))
    settled(page)
    expect(page.locator(SIZE)).not_to_have_text(suggested)
    clicked = float(asked(page, "size"))
    assert clicked == pytest.approx(cost, rel=0.02)  # neighbours may lie under the mouse
    expect(page.locator(SIZE)).to_have_text(f"{clicked / 1024:.1f} KiB")
    page.wait_for_function(MARKED, arg=clicked, timeout=20_000)
    return page.locator(SIZE).inner_text()


def pick_row(page: Page, row: int) -> None:
    """Tick a row of the table of runs."""
    box = page.get_by_test_id("stDataFrame").first.bounding_box()
    page.mouse.click(box["x"] + 16, box["y"] + (row + 1.5) * ROW)


def test_the_whole_journey(
    page: Page, context: BrowserContext, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HAWQ_VIZ_RUNS", str(dashboard.runs))
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(dashboard.address)
    settled(page)

    # Analyze: what is then shown, here and on every page, is the new analysis.
    have_analyzed(page)
    analysis = asked(page, "analysis")
    images = view(analysis).results["analysis"]["images"]
    expect(page.get_by_role("cell", name=f"{images:,}, each once")).to_be_visible()

    # Pick the plan that is as small as three bits everywhere, which costs a lot.
    go_to(page, "Home")
    settled(page)
    page.get_by_role("button", name="Pick a plan").click()
    page.wait_for_url(re.compile(f"/frontier.*analysis={analysis}"))
    settled(page)
    uniform = Analysis.load(stored_analysis("resnet20-cifar10")).uniform(3).size_bytes
    picked = pick_by_a_click(page, uniform / 1024)
    picked_url = page.url

    # A reload, and the browser's way back, know it.
    page.reload()
    settled(page)
    expect(page.locator(SIZE)).to_have_text(picked)
    assert page.url == picked_url
    page.get_by_role("slider", name="Size at most").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda url: url != picked_url)
    settled(page)
    expect(page.locator(SIZE)).not_to_have_text(picked, timeout=20_000)
    page.wait_for_timeout(1500)  # a change of the URL right after our own is taken for an echo
    page.go_back()
    expect(page.locator(SIZE)).to_have_text(picked, timeout=20_000)

    # The plan goes along to its own page, is quantized by a worker, and measured.
    page.get_by_role("button", name="Quantize this plan").click()
    page.wait_for_url(re.compile("/quantize"))
    expect(page.locator(SIZE)).to_have_text(picked)
    page.get_by_role("combobox", name="Recipe").click()
    page.get_by_role("option", name="Post-training only").click()
    page.get_by_role("button", name="Quantize", exact=True).click()
    page.wait_for_function(UNTIL_ANOTHER, arg=analysis)
    rounded = asked(page, "run")
    expect(page.get_by_test_id("stProgress")).to_be_visible(timeout=20_000)
    verdict = page.get_by_text("The plan keeps")
    expect(verdict).to_be_visible(timeout=1000 * SECONDS_TO_WORK)
    settled(page)
    assert re.search(
        r"keeps \d+\.\d%, \d+\.\d ± \d+\.\d points below float32", verdict.inner_text()
    )
    accuracies = page.locator('.chart[aria-label^="Measured"]')
    assert accuracies.evaluate("chart => chart.data.length") == 3

    # It is fine-tuned, and looked at often: the points come while one looks.
    page.get_by_role("combobox", name="Recipe").click()
    page.get_by_role("option", name="Custom").click()
    page.get_by_label("Steps between tests").fill("8")
    page.get_by_label("Steps between tests").press("Enter")
    page.get_by_role("button", name="Quantize and fine-tune").click()
    page.wait_for_function(UNTIL_ANOTHER, arg=rounded)
    tuned, link = asked(page, "run"), page.url
    page.wait_for_function(CLIMBED, timeout=1000 * SECONDS_TO_WORK)
    expect(page.get_by_text(re.compile(r"training steps: \d+ of \d+"))).to_be_visible()
    page.close()

    # Nobody looks; the worker goes on, and the link leads to where it has got to.
    page = context.new_page()
    page.goto(link)
    settled(page)
    verdict = page.get_by_text("Fine-tuned, the plan reaches")
    expect(verdict).to_be_visible(timeout=1000 * SECONDS_TO_WORK)
    reached = verdict.inner_text()
    assert float(re.search(r"([\d.]+) ± [\d.]+ points above rounding alone", reached)[1]) > 3
    steps, accuracy = page.locator(ACCURACY).evaluate(COURSE)
    assert steps[0] == 0
    assert steps == sorted(set(steps))
    assert accuracy[-1] > accuracy[0] + 0.03
    expect(page.get_by_text("Stopped because")).to_be_visible()

    # Compare what training has brought, by ticking both in the table of all runs.
    go_to(page, "Runs")
    expect(page.get_by_test_id("stDataFrame").locator("canvas").first).to_be_visible()
    pick_row(page, 1)
    page.wait_for_function(UNTIL_ASKED, arg=["compare", f"{tuned},{rounded}"], timeout=20_000)
    worse = page.get_by_text(
        re.compile(r"Both are of one size. B ends [\d.]+ ± [\d.]+ points below A")
    )
    expect(worse).to_be_visible(timeout=20_000)

    # Take the fine-tuned one away, in a file that is as small as promised and can be loaded.
    go_to(page, "Export")
    page.get_by_role("button", name="Make the files").click()
    packed = page.get_by_role("button", name=re.compile(r"Packed \(\d+ KiB\)"))
    expect(page.get_by_text("What the bytes are")).to_be_visible(timeout=1000 * SECONDS_TO_WORK)
    with page.expect_download() as download:
        packed.click()
    plan = load_packed(Path(download.value.path())).plan
    assert plan.weight_bits == view(tuned).options["plan"]["weight_bits"]
    assert f"{plan.size_bytes / 1024:.1f} KiB" == picked

    # The link opens the same in another browser, on this page and where it was trained.
    settled(page)
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_text("Copied.", exact=True)).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    other = context.browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
    other.goto(copied)
    settled(other)
    says = page.get_by_test_id("stAlert").first.inner_text()
    expect(other.get_by_test_id("stAlert").first).to_have_text(says)
    go_to(other, "Quantize")
    expect(other.get_by_text(reached)).to_be_visible(timeout=20_000)
    expect(other.locator(SIZE)).to_have_text(picked)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_take_the_colours_of_the_page(page: Page, address: str, theme: str):
    page.emulate_media(color_scheme=theme)
    for path in ("frontier", "sensitivity", "quantize"):
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
    page.goto(address + "frontier")
    settled(page)
    page.get_by_test_id("stPopoverButton").locator("visible=true").last.click()
    page.locator("input[type=file]").set_input_files(tmp_path / "cut.json")
    expect(page.get_by_text("cut.json must be a saved plan, but is not whole JSON")).to_be_visible()
    page.locator("input[type=file]").set_input_files(tmp_path / "plan.json")
    page.wait_for_url(re.compile(f"bits=8{'3' * 21}"))
    settled(page)
    expect(page.locator(SIZE)).to_have_text(f"{plan.size_bytes / 1024:.1f} KiB")
    expect(page.get_by_text("Your own plan: you pay")).to_be_visible()
