"""A run as one HTML file: what it holds, that nothing in it can run or be fetched."""

import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import LAYERS, made_up_analysis
from made_up_runs import WORKLOAD, result, tuning_run, whole, write_run
from playwright.sync_api import sync_playwright
from reported import ANALYSIS, PLAN
from reported import stored as stored  # a fixture

import hawq_viz.report
from engine import jobs
from engine.analysis import Analysis
from engine.latency import LatencyTable
from engine.results import BitPlan
from hawq_viz import document
from hawq_viz.figures import quantize
from hawq_viz.figures.costs import cost_text
from hawq_viz.report import analysis_of, report
from hawq_viz.viewmodels import export, measured, plans
from hawq_viz.viewmodels.plans import summarize

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&"


class Read(HTMLParser):
    """What a browser would find: tags with their attributes, text by the tag it stands in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.said: dict[str, list[str]] = {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # well nested

    def handle_data(self, text):
        if self.open and text.strip():
            self.said.setdefault(self.open[-1], []).append(text)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def rounded(plan: BitPlan = PLAN) -> jobs.RunView:
    options = measured.quantize_options(summarize(ANALYSIS, plan), "sample")
    found = (result("float", 0.92), result("plan", 0.83), result("uniform", 0.58))
    folder = write_run("quantize", options, ("started", {}), *found, ("finished", {}))
    return jobs.view(folder.name)


def tuned() -> jobs.RunView:
    return jobs.view(tuning_run(PLAN, *whole()).name)


@pytest.mark.usefixtures("runs", "stored")
class TestReport:
    def test_what_people_call_the_run_is_text(self):
        run = rounded()
        assert "It is called" not in report(run, None)
        jobs.describe(run.id, title="Best <b>one</b>", remark=EVIL)
        read = Read(report(jobs.view(run.id), None))
        said = " ".join(read.said["p"])
        assert "It is called “Best <b>one</b>”." in said
        assert EVIL in said

    def test_a_rounded_network(self):
        run = rounded()
        made = report(run, analysis_of(run))
        read = Read(made)
        assert read.said["h2"] == [
            "What was measured",
            "Bits",
            "The plans there are",
            "How sensitive the weights are",
            "How sensitive their inputs are",
            "How to make it again",
        ]
        assert read.said["title"] == read.said["h1"]
        assert run.id in read.said["p"][0]
        verdict = measured.verdict(run)
        assert verdict in read.said["p"][1]
        assert "uniform bits, rounded" in read.said["th"]
        figures = [json.loads(x) for x in read.said["script"] if x.startswith('{"data"')]
        assert len(figures) == read.count("figure") == 7
        names = measured.network_names(run.options)
        drawn = quantize.accuracies(measured.evaluations(run), names)
        assert figures[0] == json.loads(drawn.to_json())

    def test_a_fine_tuned_network(self):
        run = tuned()
        read = Read(report(run, analysis_of(run)))
        assert "How the training went" in read.said["h2"]
        assert "Then it was trained for 390 steps." in read.said["p"][1]
        rows = read.said["th"]
        assert [name for name in hawq_viz.report.NETWORKS.values() if name in rows] == [
            "float32",
            "the plan, rounded",
            "the plan, fine-tuned",
        ]

    def test_an_analysis(self):
        folder = write_run("analyze", {}, ("started", {}), ("finished", {}))
        ANALYSIS.save(folder / "analysis.json")
        run = jobs.view(folder.name)
        found = analysis_of(run)
        read = Read(report(run, found))
        assert read.said["h1"] == [f"Sensitivities of {WORKLOAD}"]
        assert "What was measured" not in read.said["h2"]
        assert read.count("figure") == 5

    def test_it_holds_what_makes_it_again(self):
        run = rounded()
        read = Read(report(run, analysis_of(run)))
        codes = read.said["code"]
        assert f"# the analysis\n{ANALYSIS.provenance.command}" in codes[0]
        assert "# the plan, rounded\n" in codes[0]
        assert codes[1] == export.plan_again(PLAN)
        assert codes[2] == plans.plan_file(PLAN).decode()
        assert "their fingerprint" in read.said["th"]
        assert json.loads(codes[3]) == {"data": "sample"}

    def test_without_its_analysis_it_says_so(self, stored):
        stored.unlink()
        run = rounded()
        assert analysis_of(run) is None
        read = Read(report(run, None))
        assert any("is not here any more" in text for text in read.said["p"])
        assert "input of conv<1>" in read.said["th"]
        assert read.count("figure") == 1

    def test_names_are_text(self, stored):
        layers = ((EVIL, *LAYERS[0][1:]), *LAYERS[1:])
        analysis = made_up_analysis(layers=layers)
        analysis = replace(analysis, provenance=replace(analysis.provenance, command=EVIL))
        analysis.save(stored)
        plan = analysis.frontier().within(analysis.uniform(4).size_bytes)
        run = rounded(replace(plan, made_by={**plan.made_by, "command": EVIL}))
        made = report(run, analysis_of(run))
        read = Read(made)
        assert read.count("img") == 0
        assert read.count("script") == 2 + read.count("figure")
        assert "alert(1)" not in "".join(x for x in read.said["script"] if not x.startswith("{"))
        assert EVIL in read.said["th"]

    def test_what_has_not_finished_is_refused(self):
        run = jobs.view(tuning_run(PLAN, ("cancelled", {})).name)
        said = f"run must have finished to be reported, got {run.id}, which is cancelled: wait for"
        with pytest.raises(ValueError, match=re.escape(said)):
            report(run)

    def test_what_measures_nothing_is_refused(self):
        run = jobs.view(write_run("export", {}, ("finished", {})).name)
        said = "run must be an analysis, a quantization or a fine-tuning to be reported, got "
        with pytest.raises(ValueError, match=re.escape(said)):
            report(run)


@pytest.mark.usefixtures("runs", "stored")
class TestAnalysis:
    def test_it_is_the_one_that_gives_the_plan_its_omega(self):
        other = replace(ANALYSIS, layers=tuple(_doubled(x) for x in ANALYSIS.layers))
        folders = [write_run("analyze", {}, ("finished", {})) for _ in range(2)]
        other.save(folders[0] / "analysis.json")
        (folders[1] / "analysis.json").write_text("{")  # damaged: passed over
        assert analysis_of(rounded(other.frontier().plan(3))).layers == other.layers
        assert analysis_of(rounded()).layers == ANALYSIS.layers

    def test_one_of_other_layers_is_none(self, stored):
        made_up_analysis(layers=LAYERS[:3]).save(stored)
        assert analysis_of(rounded()) is None


def _doubled(layer):
    return replace(layer, omega={bits: 2 * x for bits, x in layer.omega.items()})


@pytest.mark.usefixtures("runs", "stored")
def test_it_opens_offline_in_a_browser(chromium, tmp_path):
    run = rounded()
    (tmp_path / "report.html").write_text(report(run, analysis_of(run)))
    said, asked = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(offline=True, color_scheme="dark")
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "report.html").as_uri())
        drawn = "[...document.querySelectorAll('.chart')].every(x => x.dataset.drawn)"
        page.wait_for_function(drawn, timeout=120_000)
        assert page.locator(".chart .main-svg").count() >= 7
        dark = page.locator(".chart .xtitle").first.evaluate("x => x.style.fill")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        printed = page.locator(".chart .xtitle").first.evaluate("x => x.style.fill")
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert (dark, printed) == ("rgb(232, 234, 240)", "rgb(31, 36, 49)")


# what a plan remembers makes it again


FOUR = ANALYSIS.uniform(4, 4).costs


def made_again(plan: BitPlan) -> BitPlan:
    """Run the lines, with the analysis in place of its file."""
    load = 'Analysis.load("analysis.json")'
    assert export.plan_again(plan).count(load) == 1
    found: dict = {"kept": ANALYSIS}
    exec(export.plan_again(plan).replace(load, "kept"), found)
    return found["plan"]


def table_of(analysis: Analysis, path: Path) -> LatencyTable:
    rows = ["layer,w_bits,a_bits,ms"]
    read = {name for x in analysis.activations for name in x.readers}
    for i, layer in enumerate(analysis.layers):
        for bits in analysis.bit_widths:
            inputs = analysis.bit_widths if layer.name in read else (32,)
            rows += [f"{layer.name},{bits},{a},{(i + 1) * bits * a / 100}" for a in inputs]
    path.write_text("\n".join(rows) + "\n")
    return LatencyTable.load(path)


WAYS = {
    "size": lambda a, _: a.frontier().within(FOUR["size"]),
    "a point of the frontier": lambda a, _: a.frontier("bops").plan(7),
    "with limits": lambda a, _: a.frontier(
        "bops",
        locked={"fc": 8},
        tied=[("layer1.0.conv1", "layer1.0.conv2")],
        bit_widths=(2, 4, 8),
        locked_activations={"fc": 8},
        tolerance=0.0,
    ).within(2 * FOUR["bops"]),
    "float weights": lambda a, _: a.frontier("activation_memory").within(FOUR["activation_memory"]),
    "given inputs": lambda a, _: a.frontier(activations=8).within(FOUR["size"]),
    "several": lambda a, _: a.within({x: FOUR[x] for x in ("size", "bops")}, same_bits=False),
    "separate": lambda a, _: a.separate(
        FOUR["size"], FOUR["activation_memory"], locked={"conv<1>": 4}
    ),
    "latency": lambda a, table: a.frontier("latency", latency=table).within(9.0),
    "uniform": lambda a, _: a.uniform(4),
    "uniform of both": lambda a, _: a.uniform(4, 8),
    "by hand": lambda a, _: a.plan_of(a.uniform(3).weight_bits, made_by={"opened": True}),
    "uniform by hand": lambda a, _: a.plan_of(
        a.uniform(4).weight_bits, a.uniform(None, 3).activation_bits, made_by={"uniform": 4}
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_plan_is_made_again_from_what_it_remembers(tmp_path, way):
    table = table_of(ANALYSIS, tmp_path / "table.csv")
    plan = WAYS[way](ANALYSIS, table)
    plan.save(tmp_path / "plan.json")
    again = made_again(BitPlan.load(tmp_path / "plan.json"))
    bits = "weight_bits", "activation_bits", "omega", "costs", "quantizer"
    assert {x: asdict(again)[x] for x in bits} == {x: asdict(plan)[x] for x in bits}
    assert export.chosen_because(plan).endswith(".")


@given(st.integers(0, len(ANALYSIS.frontier()) - 1))
def test_every_point_of_a_frontier_is_made_again(point):
    plan = ANALYSIS.frontier().plan(point)
    again = made_again(plan)
    assert replace(again, made_by=plan.made_by) == plan


def test_the_lines_read_the_analysis_from_its_file(tmp_path, monkeypatch):
    ANALYSIS.save(tmp_path / "analysis.json")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(export.plan_again(PLAN), found)
    assert found["plan"] == PLAN


def test_why_a_plan_has_its_bits():
    said = {
        way: export.chosen_because(WAYS[way](ANALYSIS, None)) for way in WAYS if way != "latency"
    }
    size, bops = (cost_text(cost, FOUR[cost]) for cost in ("size", "bops"))
    most = f"It has the least Ω of all plans of at most {size} (size of the weights)."
    assert said["size"] == most
    assert said["several"] == f"Its bits have the least Ω within all of Size {size}; BOPS {bops}."
    assert said["separate"].startswith("Its bits were chosen for the weights by size first")
    assert said["uniform of both"] == "Its bits are the same everywhere."
    assert said["by hand"] == "Its bits were given."


# the file itself


def test_a_table_says_what_its_numbers_are():
    frame = pd.DataFrame(
        {"a<b": ["x&y"], "whole": [12345], "float": [0.000123456], "none": [float("nan")]}
    )
    read = Read(document.table(frame.assign(right=[True]), "cap<tion"))
    assert read.said == {
        "caption": ["cap<tion"],
        "th": ["a<b", "whole", "float", "none", "right", "x&y"],
        "td": ["12,345", "0.0001235", "yes"],
    }
    scopes = [attributes.get("scope") for tag, attributes in read.tags if tag == "th"]
    assert scopes == ["col"] * 5 + ["row"]
