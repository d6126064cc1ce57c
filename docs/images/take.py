"""Take the README's pictures of the running dashboard, light, as a projector shows it.

python docs/images/take.py [ADDRESS [QUANTIZE]], where QUANTIZE is the end of a link to a run that
is under way or finished, such as "quantize?size=101591&run=…&overlay=…".
"""

import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
PATIENCE = 300_000  # milliseconds


def main(address: str = "http://127.0.0.1:8501/", quantize: str = "") -> None:
    """Write frontier.png, the page as it opens; or quantize.png, if a run is given."""
    name = "quantize.png" if quantize else "frontier.png"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM"),
            args=["--no-sandbox", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 720}, color_scheme="light")
        page.goto(address + (quantize or "frontier"), timeout=PATIENCE)
        page.locator(".chart[data-drawn]").nth(1).wait_for(timeout=PATIENCE)
        page.get_by_test_id("stStatusWidget").wait_for(state="detached", timeout=PATIENCE)
        page.wait_for_timeout(1000)
        page.screenshot(path=HERE / name)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
