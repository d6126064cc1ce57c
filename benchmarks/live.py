"""Time from an event being written to its point being visible in a browser.

python benchmarks/live.py
"""

import os
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, sync_playwright
from setting import print_setting, verdict

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "browser")]

from chromium import find_chromium  # noqa: E402
from made_up_runs import append, measurement, opening, step, training, tuning_run  # noqa: E402
from served import FLAGS, Dashboard, settled  # noqa: E402

from engine.analysis import Analysis  # noqa: E402
from engine.workloads import stored_analysis  # noqa: E402

SECONDS = 1.5  # goal for 9 of 10
POINTS = 20
TICK = 1.0  # seconds; points are written anywhere within it
STEPS = 2000
BEFORE = 1000  # steps drawn before the first

# Waits until the point of a step is drawn, and on the screen: two frames later.
UNTIL_SEEN = """step => new Promise(seen => {
  const look = () => {
    const chart = document.querySelector('.chart[aria-label^="Accuracy against"]');
    const line = chart?.data?.findLast(trace => trace.name.includes('seed'));
    const drawn = chart?.querySelectorAll('.scatterlayer .points path').length ?? 0;
    if (line?.x.at(-1) === step && drawn >= line.x.length)
      requestAnimationFrame(() => requestAnimationFrame(() => seen(Date.now() / 1000)));
    else setTimeout(look, 5);
  };
  look();
})"""


def measure(page: Page, dashboard: Dashboard) -> list[float]:
    """Seconds from written to seen, for each point."""
    analysis = Analysis.load(stored_analysis("resnet20-cifar10"))
    plan = analysis.uniform(3)
    folder = tuning_run(plan, *opening(), *training(BEFORE, steps=STEPS), alive=True)
    page.goto(f"{dashboard.address}quantize?size={plan.size_bytes:.0f}&run={folder.name}")
    settled(page)
    seconds = []
    pause = random.Random(0)
    for number in range(BEFORE + 1, BEFORE + 1 + POINTS):
        time.sleep(TICK * pause.random())
        written = time.time()
        append(folder, step(number, STEPS), measurement(number, 0.9))
        seconds.append(page.evaluate(UNTIL_SEEN, number) - written)
    return seconds


def main() -> None:
    """Print the median and the slowest of nine in ten."""
    print_setting("An event of a run, from written to visible", "streamlit", "plotly", "playwright")
    with tempfile.TemporaryDirectory() as folder:
        dashboard = Dashboard(Path(folder))
        os.environ["HAWQ_VIZ_RUNS"] = str(dashboard.runs)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
                print(f"headless Chromium {browser.version}, 1280 × 720\n")
                page = browser.new_page(viewport={"width": 1280, "height": 720})
                seconds = sorted(measure(page, dashboard))
        finally:
            dashboard.kill()
    slow = seconds[-(-9 * len(seconds) // 10) - 1]
    print(
        f"{len(seconds)} points: median {median(seconds):.2f} s, 9 of 10 within {slow:.2f} s "
        f"(goal: {SECONDS}, {verdict(slow < SECONDS)}), slowest {seconds[-1]:.2f} s"
    )


if __name__ == "__main__":
    main()
