"""How fast the dashboard answers, and what it costs: in a headless browser, as people use it.

ResNet50 has 54 layers, of 2 to 8 bits. Its traces are those of figure 2 of the HAWQ-V2 paper in
another order of layers, its rounding errors are made up: it has more than 40 000 plans on its
frontier then, where `frontier.py` has 14 070. They say nothing of the network.

    python benchmarks/dashboard.py
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Container, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import torch
from playwright.sync_api import Browser, Page, sync_playwright
from setting import print_setting, verdict
from torch import nn
from torchvision.models import resnet50

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "browser")]

from chromium import find_chromium  # noqa: E402
from made_up import made_up_activations, made_up_analysis  # noqa: E402
from made_up_runs import append, opening, training, tuning_run, write_run  # noqa: E402
from served import FLAGS, POINT, Dashboard, settled  # noqa: E402

from engine.analysis import Analysis  # noqa: E402
from engine.workloads import stored_analysis  # noqa: E402

REPEATS = 20
STARTS = 5  # of the server
SESSIONS = 10
STEPS = 20_000  # of the live run
STEPS_A_SECOND = 10
SECONDS_LIVE = 20.0
MEMORY = 300  # MiB, goal
PATIENCE = 60_000  # milliseconds
RESNET50 = "resnet50-imagenet"
FIGURE_2 = TESTS / "published" / "hawq_v2_fig2_traces.json"
PAGES = ("", "sensitivity", "frontier", "quantize", "runs", "export")

Visit = tuple[float, float]  # seconds until the first chart is seen, and until it answers
CHART = '.chart[aria-label^="Size against"]'

# Notes when the mouse went down, and when the frontier's plan was next on the screen as another:
# its bits and its size, two frames later.
WATCH = """() => {
  const bits = () => document.querySelector('.chart[aria-label^="Bits of each layer"]');
  const shown = () => [bits()?.data?.[0].x.join(),
    document.querySelector('[data-testid="stMetricValue"]')?.textContent];
  const before = shown();
  window.took = undefined;
  addEventListener('pointerdown', () => {
    const down = performance.now(), seen = () => { window.took = performance.now() - down; };
    const look = () => shown().every((half, i) => half !== before[i])
      ? requestAnimationFrame(() => requestAnimationFrame(seen)) : setTimeout(look, 4);
    look();
  }, { once: true, capture: true });
}"""

# The same from choosing the bits that a layer is held at, to another frontier on the screen.
LOCK = """([name, bits]) => {
  const line = () => document.querySelector('.chart[aria-label^="Size against"]').data
    .find(trace => trace.name === 'exact frontier').y.join();
  const before = line();
  const select = document.querySelector(`select[aria-label="lock the weights of ${name}"]`);
  const began = performance.now();
  select.value = bits;
  select.dispatchEvent(new Event('change', { bubbles: true }));
  return new Promise(seen => {
    const look = () => line() !== before
      ? requestAnimationFrame(() => requestAnimationFrame(() => seen(performance.now() - began)))
      : setTimeout(look, 4);
    look();
  });
}"""


# When a chart was first painted, with its line, plans, axes and names; and when one that answers to
# the mouse was. A page that is busy cannot be asked, so it looks by itself.
PAINTED = """window.painted = [0, 0];
new MutationObserver(() => ['.chart svg text', '.chart[data-drawn]'].forEach((chart, i) => {
  if (window.painted[i] !== 0 || !document.querySelector(chart)) return;
  window.painted[i] = undefined;
  requestAnimationFrame(() => setTimeout(() => { window.painted[i] = Date.now(); }));
})).observe(document, { subtree: true, childList: true, attributes: true });
"""


def resnet50_analysis() -> Analysis:
    """Of the traces of figure 2 of the HAWQ-V2 paper; rounding errors and activations made up."""
    with torch.device("meta"):
        model = resnet50()
    layers = {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    traces = np.random.default_rng(1).permutation(
        json.loads(FIGURE_2.read_text())["resnet50_54_layers"]
    )
    weights = [
        (name, shape, float(trace), 0.1 * float(trace), True)
        for (name, shape), trace in zip(layers.items(), traces, strict=True)
    ]
    inputs = [
        (name, (name, *_also_reads(name, layers)), (shape[1], 14, 14), trace / 1e4, sem / 1e4, True)
        for name, shape, trace, sem, _ in weights
        if "downsample" not in name
    ]
    return made_up_activations(made_up_analysis(RESNET50, tuple(weights)), tuple(inputs))


def _also_reads(name: str, layers: Container[str]) -> tuple[str, ...]:
    """The layer on the way around a block reads what the block's first layer reads."""
    around = name.replace("conv1", "downsample.0")
    return (around,) if around != name and around in layers else ()


def blank(browser: Browser) -> Page:
    """An empty page of a browser context that has seen nothing yet."""
    page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
    page.set_default_timeout(PATIENCE)
    return page


def opened(browser: Browser, address: str) -> Page:
    """The dashboard in such a page."""
    page = blank(browser)
    page.goto(address, wait_until="commit")
    return page


def seconds_to_chart(browser: Browser, address: str) -> Visit:
    """From the visit of a new browser context to its first chart."""
    page = blank(browser)
    page.add_init_script(PAINTED)
    began = time.time()
    page.goto(address, wait_until="commit")
    page.wait_for_function("() => window.painted?.every(Boolean)")
    seen, answers = (moment / 1000 - began for moment in page.evaluate("() => window.painted"))
    page.context.close()
    return seen, answers


def first_charts(browser: Browser, dashboard: Dashboard) -> tuple[list[Visit], list[Visit]]:
    """Seconds to the first chart of Home: of a server just started, and in visits after that."""
    cold, warm = [], []
    for _ in range(STARTS):
        dashboard.kill()
        dashboard.start()
        cold.append(seconds_to_chart(browser, dashboard.address))
        for _ in range(REPEATS // STARTS):
            warm.append(seconds_to_chart(browser, dashboard.address))
    return cold, warm


def clicks(page: Page) -> list[float]:
    """Seconds from the mouse going down on the frontier to the new plan on the screen."""
    found = []
    for number in range(REPEATS + 2):
        share = 0.15 + 0.7 * ((number * 7) % 20) / 20  # far apart, each elsewhere
        x, y, _ = page.locator(CHART).evaluate(POINT, share)
        page.mouse.move(x, y)
        page.evaluate(WATCH)
        page.mouse.click(x, y)
        page.wait_for_function("() => window.took")
        found.append(page.evaluate("() => window.took") / 1000)
        settled(page)
    return found[2:]  # after two to warm up


def locks(page: Page, names: Sequence[str]) -> list[float]:
    """Seconds from holding a layer, each time another, to the new frontier on the screen."""
    page.get_by_role("tab", name="Lock, tie, change").click()
    page.locator("select[aria-label^='lock the weights']").first.wait_for()
    found = []
    for name in names[: REPEATS + 1]:
        found.append(page.evaluate(LOCK, [name, "8"]) / 1000)
        settled(page)
    return found[1:]


def sessions(browser: Browser, dashboard: Dashboard, run: str) -> float:
    """MiB that the server has with ten sessions open, each on one page after the other."""
    pages = [opened(browser, dashboard.address) for _ in range(SESSIONS)]
    for number, page in enumerate(pages):
        for turn in range(len(PAGES)):
            name = PAGES[(number + turn) % len(PAGES)]
            page.goto(f"{dashboard.address}{name}?workload={RESNET50}&analysis={run}")
            at_rest(page)
    held = psutil.Process(dashboard.server.pid).memory_info().rss / 2**20
    for page in pages:
        page.context.close()
    return held


def at_rest(page: Page) -> None:
    """Wait until a page's script has come to rest, whether it draws charts or not."""
    page.locator("h3").first.wait_for()
    page.get_by_test_id("stStatusWidget").wait_for(state="detached")


def cores_of_live_run(browser: Browser, dashboard: Dashboard) -> float:
    """Processor time of the server over time, with ten sessions on one run at work."""
    plan = Analysis.load(stored_analysis("resnet20-cifar10")).uniform(3)
    folder = tuning_run(plan, *opening(), *training(STEPS // 2, steps=STEPS), alive=True)
    link = f"{dashboard.address}quantize?size={plan.size_bytes:.0f}&run={folder.name}"
    pages = [opened(browser, link) for _ in range(SESSIONS)]
    for page in pages:
        settled(page)
    server = psutil.Process(dashboard.server.pid)
    began, before = time.perf_counter(), sum(server.cpu_times()[:2])
    number = STEPS // 2
    while (passed := time.perf_counter() - began) < SECONDS_LIVE:
        until = STEPS // 2 + round(passed * STEPS_A_SECOND)
        append(folder, *training(until, after=number, steps=STEPS))
        number = until
        time.sleep(0.2)
    used = sum(server.cpu_times()[:2]) - before
    for page in pages:
        page.context.close()
    return used / passed


def report(name: str, seconds: list[float], goals: tuple[float | None, float | None]) -> None:
    """One line: the median and what nine of ten stay within, with their goals in seconds."""
    ordered = sorted(seconds)
    values = median(ordered), ordered[-(-9 * len(ordered) // 10) - 1]
    told = [
        f"{value:.2f} s" + (f" (goal: {goal}, {verdict(value < goal)})" if goal else "")
        for value, goal in zip(values, goals, strict=True)
    ]
    print(f"{name:<46} median {told[0]}, 9 of 10 within {told[1]}", flush=True)


def main() -> None:
    """Print each figure with its goal."""
    print_setting("The dashboard in a browser", "streamlit", "plotly", "playwright")
    analysis = resnet50_analysis()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.environ["HAWQ_VIZ_RUNS"] = str(Path(folder) / "runs")
        run = write_run("analyze", {}, ("started", {}), ("finished", {}), workload=RESNET50)
        analysis.save(run / "analysis.json")
        dashboard = Dashboard(Path(folder))
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        try:
            print(f"headless Chromium {browser.version}, 1280 × 720, {REPEATS} times each")
            print(f"ResNet50: {len(analysis.frontier()):,} plans on the frontier by size\n")
            page = opened(browser, f"{dashboard.address}frontier?workload={RESNET50}")
            settled(page)
            report("click on the frontier → plan on the screen", clicks(page), (0.25, 0.4))
            report("lock a layer → frontier on the screen", locks(page, analysis.names), (1, None))
            page.context.close()
            cold, warm = first_charts(browser, dashboard)
            for visits, goal, when in (
                (cold, 5, f"{STARTS} servers just started"),
                (warm, 2.5, "later visits"),
            ):
                seen, answers = (list(seconds) for seconds in zip(*visits, strict=True))
                report(f"first chart of Home, {when}", seen, (goal, None))
                report("  until it answers to the mouse", answers, (None, None))
            held = sessions(browser, dashboard, run.name)
            print(f"{SESSIONS} sessions: {held:.0f} MiB (goal: {MEMORY}, {verdict(held < MEMORY)})")
            cores = cores_of_live_run(browser, dashboard)
            print(f"{SESSIONS} sessions on a live run: {cores:.2f} cores ({verdict(cores < 1)})")
        finally:
            dashboard.kill()


if __name__ == "__main__":
    main()
