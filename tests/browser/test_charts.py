"""What every chart has in a real browser: downloads, and no drawing where nothing changed."""

import io
import re
from pathlib import Path

import plotly.io
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from served import settled

from hawq_viz.components.chart import STAND_INS

TRACES = '.chart[aria-label^="Average Hessian trace of 22 layers"]'
HISTOGRAM = '.chart[aria-label^="Histogram of the input of"]'

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
