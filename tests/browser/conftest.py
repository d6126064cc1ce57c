"""What the browser tests share: the dashboard, and a page of a browser that looks at it."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright
from served import FLAGS, Dashboard

PATIENCE = 120_000  # milliseconds: others may use the cores
expect.set_options(timeout=30_000)
OURS = re.compile(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:")


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """The dashboard, served for the tests of one file."""
    served = Dashboard(tmp_path_factory.mktemp("served"))
    yield served
    served.kill()


@pytest.fixture
def address(dashboard: Dashboard) -> str:
    """Where it is served."""
    return dashboard.address


@pytest.fixture
def said() -> list[str]:
    """What pages complained of."""
    return []


@pytest.fixture
def context(chromium: str, said: list[str]) -> Iterator[BrowserContext]:
    """A fresh browser whose pages may reach nothing but this machine, and must not complain."""
    abroad: list[str] = []

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "console",
            lambda message: (
                said.append(message.text + str(message.location))
                if message.type == "error"
                else None
            ),
        )
        page.on("request", lambda request: OURS.match(request.url) or abroad.append(request.url))

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        context.set_default_timeout(PATIENCE)
        context.on("page", watch)
        yield context
        browser.close()
    # Streamlit looks for its server below a page's own path first, and is told it is not there.
    assert [line for line in said if "/_stcore/" not in line] == []
    assert abroad == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page of that browser."""
    return context.new_page()
