"""The operator's own network in a real browser, from its file to a fine-tuned plan."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from served import Dashboard, analyze_roughly, settled
from tiny import TINY

from hawq_viz.networks import OWN_FILE

PATIENCE = 400_000  # milliseconds that a worker may take


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard that was started with a workload file."""
    folder = tmp_path_factory.mktemp("own")
    file = folder / "mine.py"
    file.write_text(TINY)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(OWN_FILE, f"{file}:make")
        served = Dashboard(folder)
    yield served
    served.kill()


def test_an_own_network_is_analyzed_and_fine_tuned(page: Page, dashboard: Dashboard):
    page.goto(dashboard.address)
    expect(page.get_by_text("mine.py:make").first).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Analyse it").click()
    analyze_roughly(page)
    expect(page.locator(".chart[data-drawn]").first).to_be_visible(timeout=PATIENCE)

    page.goto(f"{dashboard.address}frontier?workload=mine.py:make")
    settled(page)
    page.get_by_role("button", name="Quantize this plan").click()
    page.get_by_role("button", name="Quantize and fine-tune").click()
    page.wait_for_url(re.compile("run="))
    expect(page.get_by_text("Fine-tuned, the plan reaches")).to_be_visible(timeout=PATIENCE)
    settled(page)
    page.get_by_role("link", name="Take it away").click()
    expect(page.get_by_role("button", name="Make the files")).to_be_visible(timeout=60_000)
