"""Find a Chromium that runs, for the browser test; install one if asked.

`python tests/chromium.py --install` prints its path.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

REMEDY = (
    "A Chromium must be found for the browser test: install one (apt install chromium, or "
    "playwright install chromium), or set CHROMIUM to its path."
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def candidates() -> Iterator[str]:
    """Where a Chromium may lie: $CHROMIUM, the PATH, Playwright's own."""
    if named := os.environ.get("CHROMIUM"):
        yield named
    yield from filter(None, map(shutil.which, NAMES))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.executable_path


def runs(path: str) -> bool:
    """Whether it starts: a package may be a stub, or libraries may be missing."""
    try:
        return not subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def find_chromium() -> str:
    """The first candidate that runs.

    Raises:
        FileNotFoundError: If none does; the message says what to do.
    """
    for path in candidates():
        if runs(path):
            return path
    raise FileNotFoundError(REMEDY)


def ways_to_install() -> Iterator[list[str]]:
    """Commands to try one after the other."""
    yield [sys.executable, "-m", "playwright", "install", "chromium"]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        yield ["apt-get", "update"]
        yield ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]


def main(arguments: list[str]) -> int:
    """Print the path; 1 and the remedy if there is none."""
    ways = ways_to_install() if "--install" in arguments else iter(())
    while True:
        try:
            print(find_chromium())
            return 0
        except FileNotFoundError as error:
            if (way := next(ways, None)) is None:
                print(error, file=sys.stderr)
                return 1
        print("Trying:", *way, file=sys.stderr)
        subprocess.run(way, stdout=sys.stderr, check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
