"""Every page in every state of the runs, in a real browser; and deep links as the first request."""

import shutil
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from made_up_runs import opening, training, tuning_run, whole, write_run
from playwright.sync_api import Page, expect, sync_playwright
from served import FLAGS, SECONDS_TO_DRAW, Dashboard

from engine.analysis import Analysis
from engine.workloads import stored_analysis

PATIENCE = 1000 * SECONDS_TO_DRAW
SAMPLE = "resnet20-cifar10"
PAGES = {
    "": "Home",
    "sensitivity": "Sensitivity",
    "frontier": "Frontier",
    "quantize": "Quantize",
    "runs": "Runs",
    "export": "Export",
}
DRAWN = {"sensitivity", "frontier"}  # have charts as soon as there is an analysis
ENDS = {
    "running": (),
    "crashed": (),
    "failed": (("failed", {"error": "OSError: no space left on device"}),),
    "finished": (("finished", {}),),
}
NEXT = {"running": "Cancel", "crashed": "Resume", "failed": "Resume"}  # button, where runs show
RUNS_SHOWN = {"", "sensitivity", "quantize", "runs"}
SAYS = '[data-testid="stMain"] :is(h3, [data-testid="stAlert"])'
PRIMARY = '[data-testid="stMain"] [data-testid="stBaseButton-primary"]:visible'
ACTIONS = (
    '[data-testid="stMain"] :is([data-testid="stButton"], [data-testid="stFormSubmitButton"], '
    '[data-testid="stDownloadButton"], [data-testid="stPopover"]) button:enabled:visible, '
    '[data-testid="stMain"] [data-testid="stPageLink"] a:visible'
)


@pytest.fixture(scope="module")
def looked(dashboard: Dashboard, chromium: str) -> Iterator[Page]:
    """One page for all tests of this file: they only go from link to link."""
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "console", lambda x: said.append(f"{x.text} {x.location}") if x.type == "error" else 0
        )
        yield page
        browser.close()
    # Streamlit looks for its server below a page's own path first, and is told it is not there.
    assert [line for line in said if "/_stcore/" not in line] == []
    assert dashboard.server.poll() is None
    assert "Traceback" not in dashboard.log.read_text()


def look(page: Page, dashboard: Dashboard, name: str, **parameters: str) -> None:
    """Open a page by its link; it is that page, beside the app's own navigation, and at rest."""
    page.goto(f"{dashboard.address}{name}?{urlencode(parameters)}", wait_until="commit")
    current = page.locator('[data-testid="stSidebarNavLink"][aria-current="page"]')
    expect(current).to_contain_text(PAGES[name], timeout=PATIENCE)
    expect(page.locator(SAYS).first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=PATIENCE)
    links = page.get_by_test_id("stSidebarNavLink").all_inner_texts()
    assert [link.split("\n")[-1] for link in links] == list(PAGES.values())


@pytest.mark.parametrize("name", list(PAGES)[1:])
def test_a_deep_link_may_be_the_first_request(looked: Page, dashboard: Dashboard, name: str):
    looked.goto("about:blank")
    dashboard.kill()
    dashboard.start()
    look(looked, dashboard, name, workload=SAMPLE, size="100000")
    assert "size=100000" in looked.url
    assert looked.url.startswith(f"{dashboard.address}{name}?")


@pytest.fixture(params=["empty", *ENDS])
def state(request, dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The folder of runs in one state; parameters of a link that watches its runs."""
    monkeypatch.setenv("HAWQ_VIZ_RUNS", str(dashboard.runs))
    shutil.rmtree(dashboard.runs, ignore_errors=True)
    if request.param == "empty":
        return {"state": "empty"}
    end, alive = ENDS[request.param], request.param == "running"
    analysis = Analysis.load(stored_analysis(SAMPLE))
    done = whole() if request.param == "finished" else [*opening(), *training(120), *end]
    tuned = tuning_run(analysis.uniform(3), *done, alive=alive, log="the last words")
    at = ("progress", {"done": 2, "total": 32, "note": "mini-batches"})
    analyzed = write_run(
        "analyze", {}, ("started", {}), at, *end, alive=alive, log="the last words"
    )
    if request.param == "finished":
        analysis.save(analyzed / "analysis.json")
    return {"state": request.param, "sensitivity": analyzed.name, "": tuned.name}


@pytest.mark.parametrize("name", PAGES)
def test_every_page_shows_what_there_is_and_leads_on(
    looked: Page, dashboard: Dashboard, state: dict[str, str], name: str
):
    now = state["state"]
    watched = state.get(name, state.get("", ""))
    workload = "resnet50-imagenet" if now == "empty" else SAMPLE  # that one is not analyzed
    look(looked, dashboard, name, workload=workload, **({"run": watched} if watched else {}))
    if now != "empty" and name in DRAWN:
        expect(looked.locator(".chart[data-drawn]").first).to_be_visible(timeout=PATIENCE)
    expect(looked.locator(ACTIONS).first).to_be_visible(timeout=PATIENCE)
    if now in NEXT and name in RUNS_SHOWN:
        asked = looked.get_by_test_id("stMain").get_by_role("button", name=NEXT[now], exact=True)
        expect(asked.first).to_be_visible(timeout=PATIENCE)
    assert looked.locator(PRIMARY).count() <= 1
    text = looked.get_by_test_id("stMain").inner_text()
    assert "Traceback" not in text
    assert "The page failed" not in text
    assert looked.get_by_test_id("stException").count() == 0
