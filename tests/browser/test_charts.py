"""What every chart has in a real browser: downloads, and no drawing where nothing changed."""

import io
import re
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import plotly.io
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect
from served import POINT, settled

from hawq_viz.components.chart import STAND_INS

TRACES = '.chart[aria-label^="Average Hessian trace of 22 layers"]'
HISTOGRAM = '.chart[aria-label^="Histogram of the input of"]'

FRONTIER = '.chart[aria-label^="Size against"]'
BITS = '.chart[aria-label^="Bits of each layer"]'

# All that is drawn of a chart's data and axes, but the names that Plotly gives to parts of it.
LOOK = """chart => chart.querySelector('.cartesianlayer').innerHTML
  .replace(/(clip|trace)[0-9a-f]+[a-z]*/g, '').replace(/ id="[^"]*"/g, '').replace(/ style=""/g, '')
  .replace(/opacity: 1;|transform="translate\\(0,0\\)"/g, '').replace(/\\s+/g, ' ').split('<')"""

# The middles of a chart's markers, as sketched or as drawn.
MARKS = """chart => [
  ...chart.querySelectorAll(':scope > div > svg > :is(rect, circle), .points .point')]
  .map(mark => mark.getBoundingClientRect())
  .map(({ x, y, width, height }) => [x + width / 2, y + height / 2])"""

# Counts how often a chart is drawn from here on.
COUNT = "chart => { chart.drawings = 0; chart.on('plotly_afterplot', () => chart.drawings++); }"


def taken(page: Page, chart: Locator, what: str) -> tuple[str, bytes]:
    """Name and content of a download, asked for from the keyboard."""
    button = chart.locator("xpath=..").get_by_role("button", name=f"↓ {what}")
    with page.expect_download() as download:
        button.press("Enter")
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_charts_can_be_taken_away_and_are_drawn_only_when_they_change(page: Page, address: str):
    page.emulate_media(color_scheme="dark")
    page.goto(address + "sensitivity")
    settled(page)
    traces = page.locator(f"{TRACES}[data-drawn]")
    histogram = page.locator(f"{HISTOGRAM}[data-drawn]")
    expect(histogram).to_be_visible(timeout=60_000)
    ground = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    ground = tuple(map(int, re.findall(r"\d+", ground)))
    assert max(ground) < 60  # a dark page

    # The figure as Plotly reads it, in the page's colours.
    name, told = taken(page, traces, "JSON")
    assert name == "resnet20-cifar10-traces.json"
    figure = plotly.io.from_json(told.decode())
    drawn = traces.evaluate("chart => chart.data.map(trace => trace.y)")
    assert [list(trace.y) for trace in figure.data] == drawn
    assert tuple(bytes.fromhex(figure.layout.paper_bgcolor[1:])) == ground
    assert figure.layout.font.color == traces.evaluate("chart => chart.layout.font.color")
    assert not [colour for colour in STAND_INS if colour in told.decode()]

    # The picture, twice as fine as on the page.
    name, content = taken(page, traces, "PNG")
    assert name == "resnet20-cifar10-traces.png"
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    shown = traces.bounding_box()
    assert picture.size == (round(2 * shown["width"]), round(2 * shown["height"]))
    assert picture.getpixel((1, 1)) == ground

    # Other bits are drawn in the histogram, and the traces stay.
    for chart in (traces, histogram):
        chart.evaluate(COUNT)
    page.get_by_role("radio", name="3", exact=True).last.click()  # the first is of the weights
    expect(page.locator(f'{HISTOGRAM}[aria-label*="the 8 levels of 3 bits"]')).to_be_visible(
        timeout=60_000
    )
    page.wait_for_function("chart => chart.drawings > 0", arg=histogram.element_handle())
    settled(page)
    assert traces.evaluate("chart => chart.drawings") == 0


def test_links_lead_from_the_charts_of_all_layers_to_one_of_them(page: Page, address: str):
    page.goto(address + "sensitivity")
    settled(page)
    for link, name in (("from close by", "One layer"), ("below", "One input")):
        heading = page.get_by_role("heading", name=f"{name} from close by")
        expect(heading).not_to_be_in_viewport()
        page.get_by_role("link", name=link, exact=True).first.press("Enter")
        expect(heading).to_be_in_viewport()
        page.evaluate("document.querySelector('[data-testid=stMain]').scrollTo(0, 0)")
    assert "one-input" in page.url
    assert urlparse(page.url).path == "/sensitivity"


def test_a_click_takes_what_is_under_the_mouse_however_fast_it_came_there(page: Page, address: str):
    page.goto(address + "frontier")
    settled(page)
    chart = page.locator(FRONTIER)
    for share in (0.2, 0.8, 0.5):
        x, y, cost = chart.evaluate(POINT, share)
        page.mouse.move(x - 60, y + 5)  # over other points
        page.mouse.click(x, y)
        page.wait_for_url(
            lambda url, cost=cost: size_of(url) == pytest.approx(cost, rel=0.02), timeout=20_000
        )
        settled(page)


def size_of(url: str) -> float:
    return float(parse_qs(urlparse(url).query).get("size", ["nan"])[0])


def test_a_plan_that_is_drawn_over_another_looks_as_if_drawn_first(page: Page, address: str):
    page.goto(address + "frontier?size=68000")
    settled(page)
    charts = [page.locator(f"{name}[data-drawn]") for name in (FRONTIER, BITS)]
    expect(charts[1]).to_be_visible()
    before = [chart.evaluate(LOOK) for chart in charts]
    said = charts[1].get_attribute("aria-label")
    page.get_by_role("slider", name="Size at most").press("End")
    page.wait_for_url(re.compile(r"size=2\d{5}"))
    expect(page.locator(f"{BITS}:not([aria-label='{said}'])")).to_be_visible()
    page.wait_for_timeout(1000)  # animations end
    settled(page)
    moved = [chart.evaluate(LOOK) for chart in charts]
    assert before[0] != moved[0]
    assert before[1] != moved[1]
    page.reload()
    settled(page)
    expect(charts[1]).to_be_visible()
    for chart, was in zip(charts, moved, strict=True):
        assert chart.evaluate(LOOK) == was


def test_home_shows_a_sketch_where_its_chart_will_be(page: Page, address: str):
    held: list[Route] = []
    page.route("**/plotly-*.js.gz", lambda route: held.append(route))
    page.goto(address)
    chart = page.locator(".chart")
    expect(chart.get_by_text("uniform bits")).to_be_visible(timeout=60_000)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=60_000)
    box, sketched = chart.bounding_box(), chart.evaluate(MARKS)
    held.pop().continue_()
    settled(page)
    assert chart.bounding_box() == box
    drawn = chart.evaluate(MARKS)
    assert len(drawn) == 8  # seven uniform plans and the one that is marked
    assert np.abs(np.subtract(drawn, sketched)).max() <= 1
    expect(chart.get_by_text("uniform bits")).to_have_count(1)  # no more of the sketch
