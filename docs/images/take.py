"""Take the README's picture of the running dashboard: `python docs/images/take.py [ADDRESS]`."""

import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
PATIENCE = 300_000  # milliseconds


def main(address: str = "http://127.0.0.1:8501/") -> None:
    """Write frontier.png: the page as it opens, light, as a projector shows it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM"),
            args=["--no-sandbox", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 720}, color_scheme="light")
        page.goto(address, timeout=PATIENCE)
        page.locator(".chart[data-drawn]").nth(1).wait_for(timeout=PATIENCE)
        page.get_by_test_id("stStatusWidget").wait_for(state="detached", timeout=PATIENCE)
        page.wait_for_timeout(1000)
        page.screenshot(path=HERE / "frontier.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
