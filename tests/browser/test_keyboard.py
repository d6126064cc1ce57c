"""The whole journey without a mouse: Tab until a control has the focus, then keys.

Nothing here clicks or sets the focus, and what is reached shows that it is. Runs are made up; those
that are launched are cancelled at once.
"""

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import made_up_runs
import pytest
from made_up_runs import tuning_run
from playwright.sync_api import BrowserContext, Locator, Page, expect
from served import ROOT, SECONDS_TO_DRAW, Dashboard, settled
from test_export_page import export_run, told

from engine.analysis import Analysis
from engine.workloads import stored_analysis

PATIENCE = 1000 * SECONDS_TO_DRAW
TABS = 150  # that may lie between two controls

# Every chart that is picked from or zoomed with the mouse, and the control that does it from the
# keyboard: its page, role and name, and what of the view it changes.
TWINS = {
    ("traces", "on_pick"): ("sensitivity", "combobox", "Layer", "layer"),
    ("omegas", "on_pick"): ("sensitivity", "combobox", "Layer", "layer"),
    ("layer_omegas", "on_pick"): ("sensitivity", "radiogroup", "Bits", "at"),
    ("activation_traces", "on_pick"): ("sensitivity", "combobox", "Input of", "activation"),
    ("activation_omegas", "on_pick"): ("sensitivity", "combobox", "Input of", "activation"),
    ("input_omegas", "on_pick"): ("sensitivity", "radiogroup", "Bits", "at"),
    ("frontier", "on_pick"): ("frontier", "slider", "Size at most (KiB)", "size"),
    ("frontier", "on_zoom"): ("frontier", "slider", "Part that is drawn — end", "high"),
    ("predictions", "on_pick"): ("runs", "combobox", "Run", "run"),
}

# Whether an element shows that it has the focus, by a ring of the page's own or a glow.
RINGED = """element => {
  const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(element);
  return (!['none', 'auto'].includes(outlineStyle) && parseFloat(outlineWidth) >= 1)
    || (boxShadow !== 'none' && !boxShadow.startsWith('rgba(0, 0, 0, 0)'));
}"""


def clickable() -> set[tuple[str, str]]:
    """Every chart in the code that is picked from or zoomed, by its key."""
    found = set()
    for path in (*ROOT.glob("pages/*.py"), *ROOT.glob("hawq_viz/components/*.py")):
        tree = ast.parse(path.read_text())
        constants = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "chart":
                given = {keyword.arg: keyword.value for keyword in call.keywords}
                key = given["key"]
                key = constants[key.id] if isinstance(key, ast.Name) else key
                name = getattr(key, "value", ast.unparse(key))
                found |= {(name, way) for way in ("on_pick", "on_zoom") if way in given}
    return found


def test_every_chart_that_is_clicked_has_a_twin_on_the_keyboard():
    assert clickable() == set(TWINS)


def reach(page: Page, wanted: Locator, key: str = "Tab") -> None:
    """Press Tab until a control has the focus, and see that it shows."""
    here = wanted.and_(page.locator(":focus"))
    for _ in range(TABS):
        page.keyboard.press(key)
        if here.count():
            break
    else:
        met = page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        raise AssertionError(f"{TABS} × {key} do not lead to {wanted}, but to {met}")
    if here.evaluate("element => element.matches('button, a, .chart, .layers, .layers select')"):
        page.wait_for_function(RINGED, arg=here.element_handle())


def press(page: Page, name: str, *, key: str = "Tab", role: str = "button") -> None:
    """Reach a button or a link, and press it."""
    reach(page, page.get_by_role(role, name=name, exact=True).first, key)
    page.keyboard.press("Enter")


def asked(page: Page, name: str) -> str:
    """A part of the view, from the address; empty if it is not in it."""
    return parse_qs(urlparse(page.url).query).get(name, [""])[0]


def changes(page: Page, name: str, *keys: str) -> str:
    """Press keys, or type, so that a part of the view changes; what it is then."""
    before = asked(page, name)
    for key in keys:
        page.keyboard.type(key) if " " in key else page.keyboard.press(key)
    page.wait_for_function(
        "([name, value]) => (new URLSearchParams(location.search).get(name) ?? '') !== value",
        arg=[name, before],
        timeout=PATIENCE,
    )
    settled(page)
    return asked(page, name)


def twin(page: Page, chart: str, way: str = "on_pick", keys: Sequence[str] = ()) -> None:
    """Reach the keyboard's way to do what a click on a chart does, and do it."""
    path, role, name, part = TWINS[chart, way]
    assert urlparse(page.url).path == f"/{path}"
    wanted = page.get_by_role(role, name=name, exact=role != "slider")
    if role == "radiogroup":
        wanted = wanted.first.get_by_role("radio")
    reach(page, wanted)
    usual = {"combobox": ("ArrowDown", "Enter"), "radiogroup": ("ArrowRight", "Space")}
    assert changes(page, part, *(keys or usual.get(role, ("ArrowLeft",))))


@pytest.fixture
def seen(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two fine-tunings, and the files of the second."""
    monkeypatch.setenv("HAWQ_VIZ_RUNS", str(dashboard.runs))
    analysis = Analysis.load(stored_analysis(made_up_runs.WORKLOAD))
    worse = tuning_run(analysis.uniform(3), *made_up_runs.whole(0.85))
    better = tuning_run(analysis.uniform(4), *made_up_runs.whole())
    export_run(better.name, *told(), ("finished", {}))
    return worse, better


def test_the_journey_by_keyboard_alone(
    page: Page, context: BrowserContext, address: str, seen: tuple[Path, Path]
):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(address)
    settled(page)

    # Analyze: a form that opens below its button; the run is cancelled.
    press(page, "See it")
    expect(page.get_by_text("what rounding each layer costs")).to_be_visible(timeout=PATIENCE)
    settled(page)
    press(page, "New analysis")
    reach(page, page.get_by_role("slider", name="Standard error to reach in every layer (%)"))
    page.keyboard.press("End")
    press(page, "Analyse")
    page.wait_for_url(re.compile("run="), timeout=PATIENCE)
    press(page, "Cancel")
    expect(page.get_by_text(re.compile("^Cancelled"))).to_be_visible(timeout=PATIENCE)
    settled(page)

    # Charts: taken away; a layer, bits and an input are chosen below them.
    reach(page, page.get_by_role("figure").first)
    for what in ("PNG", "JSON"):
        with page.expect_download() as download:
            press(page, f"↓ {what}")
        assert download.value.suggested_filename == f"resnet20-cifar10-traces.{what.lower()}"
    twin(page, "traces")
    twin(page, "layer_omegas")
    twin(page, "activation_traces")

    # Pick: by the slider, in the table of layers, and a pin to compare with.
    press(page, "Frontier", key="Shift+Tab", role="link")
    page.wait_for_url(re.compile("/frontier"))
    settled(page)
    twin(page, "frontier")
    twin(page, "frontier", "on_zoom")
    press(page, "Whole range")
    page.wait_for_url(lambda url: "high=" not in url, timeout=PATIENCE)
    settled(page)
    reach(page, page.get_by_role("tab", name="Bits"))
    page.keyboard.press("ArrowRight")
    reach(page, page.get_by_role("region", name="Layers"))
    reach(page, page.get_by_label("lock the weights of conv1", exact=True))
    assert changes(page, "locked", "8") == "0:8"
    reach(page, page.get_by_role("button", name="Pin", exact=True), "Shift+Tab")
    changes(page, "pins", "Enter")
    press(page, "Quantize this plan", key="Shift+Tab")
    page.wait_for_url(re.compile("/quantize"))
    settled(page)

    # Launch: rounding alone, and cancelled.
    reach(page, page.get_by_role("combobox", name="Recipe"))
    page.keyboard.type("Post")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Quantize", exact=True)).to_be_visible(timeout=PATIENCE)
    reach(page, page.get_by_role("button", name="Quantize", exact=True))
    changes(page, "run", "Enter")
    press(page, "Cancel")
    expect(page.get_by_text(re.compile("^Cancelled"))).to_be_visible(timeout=PATIENCE)

    # Compare: one run and another, in lists that the keyboard can reach.
    press(page, "Runs", key="Shift+Tab", role="link")
    page.wait_for_url(re.compile("/runs"))
    settled(page)
    twin(page, "predictions", keys=("uniform 4", "Enter"))
    reach(page, page.get_by_role("combobox", name="Compare with"))
    changes(page, "compare", "uniform 3", "Enter")
    assert asked(page, "compare") == ",".join(run.name for run in reversed(seen))
    expect(page.get_by_text("B ends 6.4 ± 2.8 points below A")).to_be_visible(timeout=PATIENCE)

    # Take away: the files, and the link.
    press(page, "Export", key="Shift+Tab", role="link")
    page.wait_for_url(re.compile("/export"))
    settled(page)
    reach(page, page.get_by_role("button", name="Make them again"))
    with page.expect_download() as download:
        press(page, "Packed (2 KiB)")
    assert download.value.suggested_filename == "resnet20-cifar10.packed.safetensors"
    press(page, "Copy link", key="Shift+Tab")
    expect(page.get_by_text("Copied.", exact=True)).to_be_visible()
    other = context.new_page()
    other.goto(page.evaluate("navigator.clipboard.readText()"))
    settled(other)
    expect(other.get_by_role("combobox", name="Quantized network")).to_have_value(
        page.get_by_role("combobox", name="Quantized network").input_value()
    )
