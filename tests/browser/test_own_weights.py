"""Weights of one's own in a real browser: uploaded, refused or analyzed, and found again."""

import re
from pathlib import Path

import torch
from playwright.sync_api import Page, expect
from safetensors.torch import save_file
from served import analyze_roughly, settled

from engine import load_workload

SECONDS_TO_ANALYZE = 400


def upload(page: Page, file: Path) -> str:
    """Give the first network of the list the weights of a file; the checksum they are named by."""
    before = page.url
    page.get_by_role("link", name="Home").click()
    expect(page.get_by_text("How few bits can each layer bear?")).to_be_visible(timeout=60_000)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=60_000)
    page.get_by_role("button", name="Choose another").click()
    page.get_by_role("tab", name="Your own weights").click()
    page.locator("input[type=file]").set_input_files(file)
    expect(page.get_by_text(file.name)).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Use them").click()
    page.wait_for_url(lambda url: named_in(url) not in (None, named_in(before)))
    named = named_in(page.url)
    expect(page.get_by_text(f"with your weights {named}").first).to_be_visible(timeout=60_000)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=60_000)
    page.get_by_role("button", name="Analyse it").click()
    expect(page.get_by_text("has not been analyzed yet")).to_be_visible(timeout=60_000)
    return named


def named_in(url: str) -> str | None:
    """The checksum of the weights that a page's address names, if it names any."""
    found = re.search("workload=resnet20-cifar10(?:@|%40)([0-9a-f]{12})", url)
    return found[1] if found else None


def test_uploaded_weights_are_analyzed_as_they_are(page: Page, address: str, tmp_path: Path):
    weights = load_workload("resnet20-cifar10").model.state_dict()
    weights["fc.weight"] = weights["fc.weight"] * 1.25
    save_file(weights, tmp_path / "mine.safetensors")
    del weights["conv1.weight"]
    torch.save(weights, tmp_path / "cut.pth")
    page.goto(f"{address}sensitivity")
    settled(page)

    # What does not fit is refused in words, by the worker that reads it.
    upload(page, tmp_path / "cut.pth")
    analyze_roughly(page)
    refused = page.get_by_text("must hold the weights of CifarResNet, but 1 name is missing (conv1")
    expect(refused).to_be_visible(timeout=1000 * SECONDS_TO_ANALYZE)

    named = upload(page, tmp_path / "mine.safetensors")
    analyze_roughly(page)
    chart = page.locator(".chart[data-drawn]").first
    expect(chart).to_be_visible(timeout=1000 * SECONDS_TO_ANALYZE)

    # The next visitor finds them in the list.
    page.goto(f"{address}frontier")
    settled(page)
    page.get_by_role("combobox", name="Network").first.click()
    expect(page.get_by_role("option", name=f"resnet20-cifar10@{named}")).to_be_visible()
