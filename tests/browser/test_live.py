"""The live page in a real browser, fed by scripted runs: no worker, no training."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import made_up_runs
import pytest
from made_up_runs import append, training, tuning_run
from playwright.sync_api import BrowserContext, Page, expect
from served import SECONDS_TO_DRAW, Dashboard, settled

from engine.analysis import Analysis
from engine.jobs.folders import CANCEL
from engine.results import BitPlan
from engine.workloads import stored_analysis

PATIENCE = 1000 * SECONDS_TO_DRAW
ACCURACY = '.chart[aria-label^="Accuracy against"]'
CHART = f"document.querySelector('{ACCURACY}')"
LOSS = '.chart[aria-label^="Training loss"]'
MAIN = '[data-testid="stMain"]'

# The last step that the watched run's accuracy, or loss, is drawn for.
DRAWN_TO = """chart => {
  const line = chart.data?.findLast(trace => trace.name.includes('seed'));
  return line?.x.at(-1);
}"""
UNTIL_DRAWN = """([chart, step]) => {
  const line = document.querySelector(chart)?.data?.findLast(t => t.name.includes('seed'));
  return line?.x.at(-1) === step;
}"""
RANGE = "chart => chart._fullLayout.xaxis.range.map(end => Math.round(10 * end) / 10)"


@pytest.fixture(scope="module")
def plans() -> tuple[BitPlan, BitPlan]:
    """Of the same size: from the frontier, and uniform 3 bits."""
    analysis = Analysis.load(stored_analysis(made_up_runs.WORKLOAD))
    uniform = analysis.uniform(3)
    return analysis.frontier("size").within(uniform.size_bytes), uniform


@pytest.fixture(autouse=True)
def _runs(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write runs where the dashboard looks for them."""
    monkeypatch.setenv("HAWQ_VIZ_RUNS", str(dashboard.runs))


@pytest.fixture
def worker() -> Iterator[int]:
    """A process that passes for a run's worker, and may be ended as one."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"])
    yield process.pid
    process.kill()
    process.wait(30)


def look_at(page: Page, dashboard: Dashboard, folder: Path, plan: BitPlan, **more: str) -> None:
    query = {"size": f"{plan.size_bytes:.0f}", "run": folder.name, **more}
    page.goto(f"{dashboard.address}quantize?" + "&".join(f"{k}={v}" for k, v in query.items()))
    settled(page)


def wait_until_drawn(page: Page, step: int, chart: str = ACCURACY) -> None:
    page.wait_for_function(UNTIL_DRAWN, arg=[chart, step], timeout=PATIENCE)


def test_points_appear_in_place_and_zoom_and_scroll_stay(
    page: Page, context: BrowserContext, dashboard: Dashboard, plans, worker: int
):
    folder = tuning_run(plans[0], *made_up_runs.opening(), *training(39), worker=worker)
    look_at(page, dashboard, folder, plans[0])
    wait_until_drawn(page, 39)
    expect(page.get_by_text("training steps: 39 of 390")).to_be_visible()

    # Mark what is on the page, zoom with the mouse, scroll.
    for chart in (ACCURACY, LOSS):
        page.locator(chart).evaluate("chart => chart.querySelector('.main-svg').marked = 'yes'")
    box = page.locator(f"{ACCURACY} .nsewdrag.drag").first.bounding_box()
    whole = page.locator(ACCURACY).evaluate(RANGE)
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 30, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, middle, steps=5)
    page.mouse.up()
    page.wait_for_function(
        "([chart, whole]) => document.querySelector(chart)._fullLayout.xaxis.range[0] > whole + 1",
        arg=[ACCURACY, whole[0]],
    )
    zoomed = page.locator(ACCURACY).evaluate(RANGE)
    assert zoomed[1] < whole[1]
    page.locator(MAIN).evaluate("main => main.scrollTo(0, 150)")
    scrolled = page.locator(MAIN).evaluate("main => main.scrollTop")
    assert scrolled > 100

    for step in (78, 117, 120):
        append(folder, *training(step, after=step - (39 if step < 120 else 3)))
        wait_until_drawn(page, step, LOSS)
    wait_until_drawn(page, 117)
    expect(page.get_by_text("training steps: 120 of 390")).to_be_visible()
    assert page.locator(ACCURACY).evaluate(RANGE) == zoomed
    assert page.locator(MAIN).evaluate("main => main.scrollTop") == scrolled

    # Another tab, and a refresh, show the same.
    other = context.new_page()
    other.goto(page.url)
    settled(other)
    wait_until_drawn(other, 120, LOSS)
    other.reload()
    settled(other)
    wait_until_drawn(other, 120, LOSS)
    assert other.url == page.url
    other.close()

    # The end comes to the page by itself, and the charts are still those of the beginning.
    append(folder, *training(390, after=120), *made_up_runs.ending())
    expect(page.get_by_text("Fine-tuned, the plan reaches 91.4%")).to_be_visible(timeout=PATIENCE)
    wait_until_drawn(page, 390)
    expect(page.get_by_test_id("stProgress")).to_have_count(0)
    for chart in (ACCURACY, LOSS):
        mark = page.locator(chart).evaluate("chart => chart.querySelector('.main-svg').marked")
        assert mark == "yes", chart
    assert page.locator(ACCURACY).evaluate(RANGE) == zoomed


def test_the_server_may_die_and_come_back(
    page: Page, dashboard: Dashboard, plans, worker: int, said: list[str]
):
    folder = tuning_run(plans[0], *made_up_runs.opening(), *training(39), worker=worker)
    look_at(page, dashboard, folder, plans[0])
    wait_until_drawn(page, 39)
    stop = threading.Event()

    def go_on() -> None:
        for step in range(40, 391):
            append(folder, *training(step, after=step - 1))
            if stop.wait(0.02):
                return

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        dashboard.kill()
        page.wait_for_timeout(2000)
        dashboard.start()
        writer.join(120)
        wait_until_drawn(page, 390)
    finally:
        stop.set()
        writer.join(30)
    assert f"run={folder.name}" in page.url
    expect(page.get_by_text("training steps: 390 of 390")).to_be_visible()
    said.clear()  # that the server was not there for a while


def test_the_cancel_button_stops_the_worker(page: Page, dashboard: Dashboard, plans, worker: int):
    folder = tuning_run(plans[0], *made_up_runs.opening(), *training(80), worker=worker)
    look_at(page, dashboard, folder, plans[0])
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_text("Cancelled after 80 of 390 training steps.")).to_be_visible(
        timeout=PATIENCE
    )
    assert (folder / CANCEL).exists()
    expect(page.get_by_role("button", name="Resume")).to_be_enabled()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)


def test_a_failed_run_shows_its_sentence_and_its_log_and_can_be_deleted(
    page: Page, dashboard: Dashboard, plans
):
    failed = ("failed", {"error": "OSError: [Errno 28] No space left on device"})
    folder = tuning_run(
        plans[0], *made_up_runs.opening(), *training(80), failed, log="the last words"
    )
    look_at(page, dashboard, folder, plans[0])
    expect(page.get_by_text("OSError: [Errno 28] No space left on device")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    page.get_by_text("The end of its log").click()
    expect(page.get_by_text("the last words")).to_be_visible()
    assert page.locator(ACCURACY).evaluate(DRAWN_TO) == 78

    page.get_by_test_id("stPopoverButton").locator("visible=true").last.click()
    page.get_by_role("button", name="Delete for good").click()
    page.wait_for_function("id => !location.href.includes(id)", arg=folder.name, timeout=PATIENCE)
    assert not folder.exists()


def test_two_runs_lie_over_each_other_and_the_link_holds_both(
    page: Page, context: BrowserContext, dashboard: Dashboard, plans
):
    rival = tuning_run(plans[1], *made_up_runs.whole(0.85))
    folder = tuning_run(plans[0], *made_up_runs.whole())
    look_at(page, dashboard, folder, plans[0])
    names = "chart => chart.data.map(t => t.name).filter(name => name.includes('seed'))"
    assert len(page.locator(ACCURACY).evaluate(names)) == 1
    page.get_by_role("combobox", name="Draw over it").click()
    page.get_by_role("option", name=re.compile("uniform 3 bits.*85.0%")).first.click()
    page.wait_for_url(re.compile(f"overlay={rival.name}"), timeout=PATIENCE)
    expect(page.get_by_text("6.4 ± 2.8 points above")).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(f"() => ({names})({CHART}).length === 2", timeout=PATIENCE)
    drawn = page.locator(ACCURACY).evaluate(names)
    assert "uniform 3 bits" in drawn[1]

    other = context.new_page()
    other.goto(page.url)
    settled(other)
    expect(other.get_by_text("6.4 ± 2.8 points above")).to_be_visible(timeout=PATIENCE)
    other.wait_for_function(f"() => ({names})({CHART}).length === 2", timeout=PATIENCE)
    assert other.locator(ACCURACY).evaluate(names) == drawn
