"""The whole journey in a real browser: open, click a point, quantize it, fine-tune it, come back.

The sample network, its stored analysis and real workers; no network is needed.
"""

import re
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from served import settled

from engine.analysis import Analysis
from engine.workloads import stored_analysis

SECONDS_TO_MEASURE = 400  # three times a thousand images, on a machine that may be busy
SECONDS_TO_TRAIN = 900  # an epoch of the sample, and the same

SIZE = '[data-testid="stMetricValue"] >> nth=0'

ACCURACY = '.chart[aria-label^="Accuracy against"]'

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

# Where on the page the frontier's point of at least this many KiB is drawn, and its cost in bytes.
POINT = """kib => {
  const chart = document.querySelector('.chart[aria-label^="Size against"]');
  const line = chart.data.find(trace => trace.name === 'exact frontier');
  const i = line.x.findIndex(x => x >= kib);
  const box = chart.getBoundingClientRect(), { xaxis, yaxis, _size } = chart._fullLayout;
  return { x: box.left + _size.l + xaxis.l2p(line.x[i]),
           y: box.top + _size.t + yaxis.l2p(Math.log10(line.y[i])), cost: line.customdata[i] };
}"""


def test_from_the_frontier_to_a_measured_plan(page: Page, address: str):
    page.goto(address + "frontier")
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
    page.wait_for_function(MARKED, arg=clicked, timeout=20_000)

    # A reload, and the browser's way back, know it.
    page.reload()
    settled(page)
    expect(page.locator(SIZE)).to_have_text(picked)
    assert page.url == picked_url
    slider = page.get_by_role("slider", name="Size at most")
    slider.focus()
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


def test_three_bits_worth_of_size_climbs_back_and_is_finished_on_return(
    page: Page, context: BrowserContext, address: str
):
    uniform = Analysis.load(stored_analysis("resnet20-cifar10")).uniform(3).size_bytes
    page.goto(address + "frontier")
    settled(page)
    point = page.evaluate(POINT, uniform / 1024)
    page.mouse.move(point["x"], point["y"])
    page.mouse.click(point["x"], point["y"])
    page.wait_for_url(re.compile(r"size=\d+"))
    settled(page)
    page.get_by_role("button", name="Quantize this plan").click()
    page.wait_for_url(re.compile("/quantize"))

    # One button; the quick recipe on the sample images is what the form says.
    page.get_by_role("button", name="Quantize and fine-tune").click()
    page.wait_for_url(re.compile("run="))
    link = page.url
    page.wait_for_function(CLIMBED, timeout=1000 * SECONDS_TO_TRAIN)
    expect(page.get_by_text(re.compile(r"training steps: \d+ of \d+"))).to_be_visible()
    page.close()

    # Nobody looks; the worker goes on, and the link leads to where it has got to.
    again = context.new_page()
    again.goto(link)
    settled(again)
    verdict = again.get_by_text("Fine-tuned, the plan reaches")
    expect(verdict).to_be_visible(timeout=1000 * SECONDS_TO_TRAIN)
    points = re.search(r"([\d.]+) above rounding alone", verdict.inner_text())
    assert float(points[1]) > 3
    steps, accuracy = again.locator(ACCURACY).evaluate(COURSE)
    assert steps[0] == 0
    assert steps == sorted(set(steps))
    assert accuracy[-1] > accuracy[0] + 0.03
    expect(again.get_by_text("Stopped because")).to_be_visible()


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
