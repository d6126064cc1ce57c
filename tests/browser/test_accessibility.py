"""No page is harder to use, for those who hear it or cannot tell colours, than an empty app.

axe-core looks at every page in both themes; what Streamlit itself brings is in an empty app too.
"""

from collections import Counter
from collections.abc import Iterator
from importlib.resources import files

import made_up_runs
import pytest
from made_up_runs import result, tuning_run, write_run
from playwright.sync_api import Page, expect
from served import SECONDS_TO_DRAW, Dashboard

from engine.analysis import Analysis
from engine.workloads import stored_analysis
from hawq_viz.viewmodels import measured
from hawq_viz.viewmodels.plans import summarize
from hawq_viz.viewmodels.studies import Study

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
GRAVE = ("serious", "critical")
PAGES = ("", "sensitivity", "frontier", "quantize", "runs", "export")

# What axe finds, a line for each element: the rule, and the kind of element.
FOUND = """async ([grave, options]) => {
  const { violations } = await axe.run(document, options);
  return violations.filter(rule => grave.includes(rule.impact)).flatMap(rule =>
    rule.nodes.map(node => `${rule.id}: ${node.html.replace(/ (id|class|style)="[^"]*"/g, '')}`));
}"""

# Whether there are that many links, with their letters, which Streamlit loads a script for.
LABELLED = """least => {
  const links = [...document.querySelectorAll('.stPageLink a')];
  return links.length >= least && links.every(link => link.innerText.trim());
}"""
RUNS = 3  # that Home links to


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """An app with nothing in it."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "empty.py").write_text("")
    served = Dashboard(folder, folder / "empty.py")
    yield served
    served.kill()


def grave(page: Page) -> Counter[str]:
    """The serious and critical violations of a page; in the dark theme, of its colours alone."""
    found: Counter[str] = Counter()
    page.evaluate(AXE)
    for theme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        page.emulate_media(color_scheme=theme)
        page.wait_for_function(
            """dark => parseInt(getComputedStyle(document.querySelector('.stApp'))
                 .backgroundColor.match(/\\d+/)[0]) < 100 === dark""",
            arg=theme == "dark",
        )
        found.update(f"{theme}, {line}" for line in page.evaluate(FOUND, [GRAVE, options]))
    return found


def write_runs() -> None:
    """A run of each kind that pages show, one of them failed."""
    study = Study.of(Analysis.load(stored_analysis(made_up_runs.WORKLOAD)))
    summary = summarize(study.analysis, study.plan(None))
    rounded = measured.quantize_options(summary, "sample")
    told = (result("float", 0.92), result("plan", 0.83), result("uniform", 0.58))
    write_run("quantize", rounded, ("started", {}), *told, ("finished", {}))
    write_run("quantize", rounded, ("started", {}), ("failed", {"error": "out of luck."}))
    tuning_run(summary.plan, *made_up_runs.whole())


def test_no_page_has_grave_violations_of_its_own(
    page: Page, dashboard: Dashboard, empty: Dashboard, monkeypatch: pytest.MonkeyPatch
):
    page.goto(empty.address)
    expect(page.get_by_test_id("stMain")).to_be_visible(timeout=1000 * SECONDS_TO_DRAW)
    known = grave(page)

    monkeypatch.setenv("HAWQ_VIZ_RUNS", str(dashboard.runs))
    write_runs()
    own: dict[str, Counter[str]] = {}
    for path in PAGES:
        page.goto(dashboard.address + path)
        expect(page.locator("h3, h2").first).to_be_visible(timeout=1000 * SECONDS_TO_DRAW)
        expect(page.locator(".chart:not([data-drawn])")).to_have_count(0, timeout=60_000)
        expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=60_000)
        page.wait_for_function(LABELLED, arg=0 if path else RUNS)
        own[path] = grave(page) - known
    assert {path: found for path, found in own.items() if found} == {}
