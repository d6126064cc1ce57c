"""The dashboard as the browser tests, and the benchmark of the live page, serve it."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import Page, expect

ROOT = Path(__file__).parents[2]
SECONDS_TO_START = 120
SECONDS_TO_DRAW = 120
FLAGS = ["--no-sandbox", "--disable-background-networking"]

# Where on the page a plan of the frontier is drawn, by its share of the way along it; its cost.
POINT = """(chart, share) => {
  const line = chart.data.find(trace => trace.name === 'exact frontier');
  const i = Math.round(share * (line.x.length - 1));
  const box = chart.getBoundingClientRect(), { xaxis, yaxis, _size } = chart._fullLayout;
  return [box.left + _size.l + xaxis.l2p(line.x[i]),
          box.top + _size.t + yaxis.l2p(Math.log10(line.y[i])), line.customdata[i]];
}"""


class Dashboard:
    """A server of its own, which can be killed and come back at the same address."""

    def __init__(self, folder: Path, script: Path = ROOT / "hawq_viz" / "app.py") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"
        self.script = script
        self.runs = folder / "runs"
        self.log = folder / "log.txt"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "streamlit", "run", str(self.script)]
        command += ["--server.port", str(self.port), "--server.headless", "true"]
        command += ["--server.fileWatcherType", "none", "--browser.gatherUsageStats", "false"]
        paths = [str(ROOT), os.environ.get("PYTHONPATH")]
        environment = {
            **os.environ,
            "HAWQ_VIZ_RUNS": str(self.runs),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        with self.log.open("ab") as log:
            self.server = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < deadline and self.server.poll() is None:
            try:
                with urlopen(f"{self.address}_stcore/health", timeout=2):
                    return
            except (URLError, OSError):
                time.sleep(0.3)
        raise TimeoutError(f"The dashboard did not start: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        self.server.kill()
        self.server.wait(30)


def settled(page: Page) -> None:
    """Wait until charts are drawn and the script has come to rest."""
    expect(page.locator(".chart[data-drawn]").first).to_be_visible(timeout=1000 * SECONDS_TO_DRAW)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=1000 * SECONDS_TO_DRAW)


def analyze_roughly(page: Page) -> None:
    """Start the quickest analysis: of weights alone, to an error of half of what is measured."""
    page.get_by_test_id("stPopoverButton").get_by_text("New analysis").click()
    page.get_by_role("slider", name="Standard error to reach in every layer (%)").focus()
    page.keyboard.press("End")
    page.get_by_text("Inputs of layers too").click()
    page.get_by_role("button", name="Analyse", exact=True).last.click()
    page.wait_for_url(re.compile("run="))
