"""The Runs page in a real browser, fed by scripted runs: no worker, no training."""

import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import parse_qs, urlparse

import made_up_runs
import pytest
from made_up_runs import append, training, tuning_run
from playwright.sync_api import Page, expect
from served import SECONDS_TO_DRAW, Dashboard, settled

from engine.analysis import Analysis
from engine.workloads import stored_analysis

PATIENCE = 1000 * SECONDS_TO_DRAW
MAIN = '[data-testid="stMain"]'
ROW = 35  # pixels
UNTIL_ASKED = "([name, value]) => new URLSearchParams(location.search).get(name) === value"


@pytest.fixture
def worker() -> Iterator[int]:
    """A process that passes for a run's worker."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"])
    yield process.pid
    process.kill()
    process.wait(30)


def test_rows_are_picked_by_a_click_and_stay_while_a_run_goes_on(
    page: Page, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch, worker: int
):
    monkeypatch.setenv("HAWQ_VIZ_RUNS", str(dashboard.runs))
    analysis = Analysis.load(stored_analysis(made_up_runs.WORKLOAD))
    done = tuning_run(analysis.uniform(3), *made_up_runs.whole(0.85), seed=77)
    live = tuning_run(
        analysis.uniform(4), *made_up_runs.opening(), *training(100), seed=77, worker=worker
    )
    page.goto(f"{dashboard.address}runs?find=seed+77")
    settled(page)
    table = page.get_by_test_id("stDataFrame").first
    expect(page.get_by_role("textbox", name="Search")).to_have_value("seed 77")
    canvas = table.locator("canvas").first
    expect(canvas).to_be_visible(timeout=PATIENCE)
    canvas.evaluate("canvas => { canvas.marked = 'yes' }")

    # The newest comes first; one box shows a run, the second one compares.
    box = table.bounding_box()
    page.mouse.click(box["x"] + 16, box["y"] + 1.5 * ROW)
    page.wait_for_function(UNTIL_ASKED, arg=["run", live.name], timeout=PATIENCE)
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_enabled(timeout=PATIENCE)
    expect(page.get_by_text("training steps: 100 of 390")).to_be_visible(timeout=PATIENCE)
    page.locator(MAIN).evaluate("main => main.scrollTo(0, 100)")
    append(live, *training(120, after=100))
    expect(page.get_by_text("training steps: 120 of 390")).to_be_visible(timeout=PATIENCE)
    append(live, *training(390, after=120), *made_up_runs.ending())
    expect(page.get_by_text("Fine-tuned, the plan reaches 91.4%")).to_be_visible(timeout=PATIENCE)
    assert page.locator(MAIN).evaluate("main => main.scrollTop") == 100
    settled(page)
    assert canvas.evaluate("canvas => canvas.marked") == "yes"

    page.locator(MAIN).evaluate("main => main.scrollTo(0, 0)")
    page.mouse.click(box["x"] + 16, box["y"] + 2.5 * ROW)
    both = f"{live.name},{done.name}"
    page.wait_for_function(UNTIL_ASKED, arg=["compare", both], timeout=PATIENCE)
    expect(page.get_by_text("B ends 6.4 ± 2.8 points below A")).to_be_visible(timeout=PATIENCE)

    # The link opens the same elsewhere; the keyboard's lists say the same.
    page.reload()
    settled(page)
    expect(page.get_by_text("B ends 6.4 ± 2.8 points below A")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("combobox", name="Compare with")).to_be_enabled()
    assert parse_qs(urlparse(page.url).query)["compare"] == [both]
    page.get_by_role("button", name="Swap").click()
    expect(page.get_by_text("B ends 6.4 ± 2.8 points above A")).to_be_visible(timeout=PATIENCE)
