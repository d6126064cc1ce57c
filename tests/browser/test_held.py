"""The frontier in a real browser: a layer is locked, a box is drawn, bits are changed by hand."""

import re

from playwright.sync_api import Page, expect
from served import settled

SIZES = '.chart[aria-label^="Size against"]'
FREE = f"""() => document.querySelector('{SIZES}')?.data
    .some(trace => trace.name === 'without locks and ties')"""
# Ends of the axis of sizes, from left to right on the page, and its middle height.
AXIS = """chart => {
  const box = chart.getBoundingClientRect(), { xaxis, _size } = chart._fullLayout;
  return [box.left + _size.l, box.left + _size.l + xaxis._length, box.top + box.height / 2];
}"""
DRAWN = f"() => Math.max(...document.querySelector('{SIZES}').data[0].x)"


def test_layers_are_held_a_part_is_drawn_and_bits_are_changed_by_hand(page: Page, address: str):
    page.goto(address + "frontier")
    settled(page)
    page.get_by_role("tab", name="Lock, tie, change").click()
    lock = page.get_by_label("lock the weights of conv1", exact=True)
    expect(lock).to_be_visible(timeout=20_000)

    # A lock is chosen with the keyboard; the frontier is drawn anew, and the focus stays.
    lock.focus()
    page.keyboard.press("2")
    page.wait_for_url(re.compile(r"locked=0%3A2"), timeout=20_000)
    page.wait_for_function(FREE, timeout=20_000)
    expect(page.get_by_text("Held: 1 lock.")).to_be_visible(timeout=20_000)
    expect(lock).to_be_focused()
    expect(page.get_by_label("bits of the weights of conv1", exact=True)).to_have_value("2")

    # A box in the chart draws a part of the sizes; a double click, all of them again.
    whole = page.evaluate(DRAWN)
    left, right, height = page.locator(SIZES).evaluate(AXIS)
    page.mouse.move(left + 0.2 * (right - left), height - 60)
    page.mouse.down()
    page.mouse.move(left + 0.5 * (right - left), height + 60, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile(r"low=.*high="), timeout=20_000)
    page.wait_for_function(f"most => ({DRAWN})() < 0.8 * most", arg=whole, timeout=20_000)
    settled(page)
    page.mouse.dblclick(left + 20, height + 100)
    page.wait_for_url(lambda url: "low=" not in url, timeout=20_000)
    page.wait_for_function(f"most => ({DRAWN})() === most", arg=whole, timeout=20_000)

    # Bits changed by hand are a plan of one's own.
    page.get_by_label("bits of the weights of fc", exact=True).select_option("2")
    page.wait_for_url(re.compile(r"bits=2\d{20}2"), timeout=20_000)
    expect(page.get_by_text("Your own plan: you pay")).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="Frontier's plan").click()
    page.wait_for_url(lambda url: "bits=" not in url, timeout=20_000)
