"""Activations and costs in a real browser: what is clicked, and what is pointed at together."""

import re

from playwright.sync_api import Page, expect
from served import settled

TRACES = '.chart[aria-label^="Average Hessian trace of 22 layers"]'
INPUTS = '.chart[aria-label^="Average Hessian trace of 20 activations"]'
OMEGAS = '.chart[aria-label^="Heatmap of Ω, activations"]'
BOPS = '.chart[aria-label^="Bit operations against"]'

# Where on the page a point (x, y) of a chart is drawn; y in its axis' own numbers.
PLACE = """(chart, [x, y]) => {
  const box = chart.getBoundingClientRect(), { xaxis, yaxis, _size } = chart._fullLayout;
  return [box.left + _size.l + xaxis.l2p(x), box.top + _size.t + yaxis.l2p(y)];
}"""
FIRST = "chart => [chart.data[0].x[3], Math.log10(chart.data[0].y[3])]"
MIDDLE = """chart => {
  const line = chart.data.find(trace => trace.name === 'frontier');
  const i = line.x.length >> 1;
  return [line.x[i], Math.log10(line.y[i])];
}"""


def point_at(page: Page, chart: str, at: list[float]) -> None:
    page.locator(chart).scroll_into_view_if_needed()
    x, y = page.locator(chart).evaluate(PLACE, at)
    page.mouse.move(x - 3, y - 3)
    page.mouse.move(x, y)


def click(page: Page, chart: str, at: list[float]) -> None:
    page.locator(chart).scroll_into_view_if_needed()
    page.mouse.click(*page.locator(chart).evaluate(PLACE, at))


def test_weights_and_inputs_are_pointed_at_together_and_a_click_looks_closer(
    page: Page, address: str
):
    page.goto(address + "sensitivity")
    settled(page)
    for chart in (TRACES, INPUTS, OMEGAS):
        expect(page.locator(f"{chart}[data-drawn]")).to_be_visible()

    # Pointing at a layer's weights marks its column among the inputs.
    at = page.locator(TRACES).evaluate(FIRST)
    point_at(page, TRACES, at)
    marked = "([chart, x]) => document.querySelector(chart).layout.shapes?.[0]?.x0 === x - 0.5"
    page.wait_for_function(marked, arg=[INPUTS, at[0]], timeout=20_000)

    # A click on an input's trace, and one on a cell of the heatmap, are in the page and the URL.
    click(page, INPUTS, page.locator(INPUTS).evaluate(FIRST))
    page.wait_for_url(re.compile(r"activation=layer1\.1\.conv1"), timeout=20_000)
    settled(page)
    click(page, OMEGAS, [21, 1])  # the last layer's input at 3 bits
    page.wait_for_url(re.compile(r"activation=fc&at=3"), timeout=20_000)
    histogram = page.locator('.chart[aria-label^="Histogram of the input of fc"]')
    expect(histogram).to_be_visible(timeout=20_000)
    levels = '[aria-label*="with the 8 levels of 3 bits"]'
    expect(
        page.locator(f'.chart[aria-label^="Histogram of the input of fc"]{levels}')
    ).to_be_visible()

    # So is a click on a layer's weights; the bits stay.
    click(page, TRACES, page.locator(TRACES).evaluate(FIRST))
    page.wait_for_url(re.compile(r"layer=layer1\.1\.conv1&at=3"), timeout=20_000)
    weights = page.locator(f'.chart[aria-label*="weights of layer1.1.conv1 in steps"]{levels}')
    expect(weights).to_be_visible(timeout=20_000)


def test_a_click_on_the_frontier_over_bops_picks_both_bit_widths(page: Page, address: str):
    page.goto(address + "frontier?cost=bops")
    settled(page)
    before = page.get_by_test_id("stMetricValue").all_inner_texts()
    click(page, BOPS, page.locator(BOPS).evaluate(MIDDLE))
    page.wait_for_url(re.compile(r"cost=bops&bops=\d+"), timeout=20_000)
    settled(page)
    expect(page.get_by_test_id("stMetricValue").nth(3)).not_to_have_text(before[3])
    picked = page.get_by_test_id("stMetricValue").all_inner_texts()
    page.reload()
    settled(page)
    expect(page.get_by_test_id("stMetricValue").nth(3)).to_have_text(picked[3])
    assert page.get_by_test_id("stMetricValue").all_inner_texts() == picked


def test_a_latency_table_is_loaded_and_drawn(page: Page, address: str, tmp_path):
    from engine.analysis import Analysis
    from engine.workloads import stored_analysis
    from hawq_viz.viewmodels.costs import empty_table

    head, *rows = empty_table(Analysis.load(stored_analysis("resnet20-cifar10"))).splitlines()
    filled = [f"{row}{sum(map(int, row.split(',')[1:3])) / 100}" for row in rows]
    (tmp_path / "mine.csv").write_text("\n".join([head, *filled]))
    (tmp_path / "short.csv").write_text("layer,w_bits,ms\n")
    page.goto(address + "frontier?cost=latency")
    expect(page.get_by_text("Latency is counted by your own measurements")).to_be_visible(
        timeout=60_000
    )
    page.get_by_role("button", name="Table of times").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "short.csv")
    expect(page.get_by_text("but lacks a_bits")).to_be_visible(timeout=20_000)
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.csv")
    page.wait_for_url(re.compile(r"table=[0-9a-f]{12}"), timeout=20_000)
    settled(page)
    expect(page.locator('.chart[aria-label^="Latency against"]')).to_be_visible(timeout=20_000)
