"""The view goes along in the link that the button copies."""

from playwright.sync_api import Browser, BrowserContext, Page, expect
from served import settled

SIZE = '[data-testid="stMetricValue"] >> nth=0'
REFUSE = "() => { navigator.clipboard.writeText = () => Promise.reject(new Error()); }"


def test_copy_link_opens_the_same_view_in_another_browser(
    context: BrowserContext, page: Page, address: str
):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{address}frontier?size=100000")
    settled(page)
    button = page.get_by_role("button", name="Copy link")
    button.press("Enter")
    expect(page.get_by_text("Copied.", exact=True)).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    assert "size=100000" in link
    shown = page.locator(SIZE).inner_text()

    browser = context.browser
    assert isinstance(browser, Browser)
    other = browser.new_context().new_page()
    other.goto(link)
    settled(other)
    expect(other.locator(SIZE)).to_have_text(shown)

    # Where the clipboard is refused, the address is there, selected.
    page.evaluate(REFUSE)
    button.press("Enter")
    field = page.get_by_label("Address of this view")
    expect(field).to_have_value(page.url)
    assert page.evaluate("getSelection().toString()") == page.url
