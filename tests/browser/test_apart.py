"""A choice on the frontier's page in a real browser draws that page and not what is around it."""

from playwright.sync_api import Page, WebSocket, expect
from served import settled

NETWORK = b"A trained network with its data"  # the help of the sidebar's first choice
TITLE = b"Frontier: best plans"  # what the page's title begins with
SIZE = b"Size of the weights"  # the name of the page's first number


def test_a_choice_on_the_page_leaves_the_sidebar_and_the_title_alone(page: Page, address: str):
    frames: list[bytes] = []

    def listen(socket: WebSocket) -> None:
        socket.on("framereceived", lambda frame: frames.append(bytes(frame)))

    page.on("websocket", listen)
    page.goto(address + "frontier")
    settled(page)
    for part in (NETWORK, TITLE):
        assert any(part in frame for frame in frames)
    frames.clear()
    size = page.get_by_test_id("stMetricValue").first
    before = size.inner_text()
    page.get_by_role("slider", name="Size at most").press("ArrowRight")
    expect(size).not_to_have_text(before, timeout=20_000)
    settled(page)
    assert any(SIZE in frame for frame in frames)
    for part in (NETWORK, TITLE):
        assert not any(part in frame for frame in frames)


def test_what_changes_the_sidebar_draws_it_too(page: Page, address: str):
    page.goto(address + "frontier?workload=lenet-mnist")
    page.get_by_role("button", name="Back to resnet20-cifar10").click(timeout=60_000)
    settled(page)
    network = page.get_by_test_id("stSidebar").get_by_role("combobox").first
    expect(network).to_have_value("resnet20-cifar10", timeout=20_000)


def test_what_changes_the_title_draws_it_too(page: Page, address: str):
    page.goto(address + "frontier?cost=bops")
    settled(page)
    cost = page.get_by_role("combobox", name="Cost")
    expect(cost).to_have_value("Cost: BOPS")
    cost.click()
    page.get_by_role("option", name="Cost: size of the weights").click()
    expect(page.get_by_role("heading", name="Frontier: best plans by size")).to_be_visible()
    page.get_by_role("button", name="Undo").click()  # at once: the page is still being drawn
    expect(page.get_by_role("heading", name="Frontier: best plans by BOPS")).to_be_visible(
        timeout=20_000
    )
    expect(cost).to_have_value("Cost: BOPS")
