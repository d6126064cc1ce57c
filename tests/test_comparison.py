"""Two runs side by side, from made-up numbers."""

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made_up import made_up_activations, made_up_analysis, made_up_evaluation

from engine.outcomes import Outcomes, paired_difference
from hawq_viz.figures import comparison as figures
from hawq_viz.viewmodels import comparison

ANALYSIS = made_up_analysis()
BOTH = made_up_activations(ANALYSIS)
PLAN, RIVAL = ANALYSIS.frontier().plan(20), ANALYSIS.uniform(4)
ROUNDED, LATER = BOTH.uniform(4, 8), BOTH.uniform(4, 4)


def run(of=PLAN, kind="finetune", folder=Path("none"), title="", **found) -> SimpleNamespace:
    """What is read of a run, without one on disk."""
    values = {"float": 0.92, "plan": 0.6, "finetuned": 0.9} | found
    results = {
        name: x if isinstance(x, dict) else made_up_evaluation(x).to_json()
        for name, x in values.items()
        if x is not None
    }
    return SimpleNamespace(
        id="20260101-000000-finetune-made-up-0000",
        folder=folder,
        kind=kind,
        workload=ANALYSIS.workload,
        workload_file=None,
        weights=None,
        title=title,
        created="2026-01-01T00:00:00+00:00",
        options={"plan": asdict(of), "data": "sample", "recipe": "quick", "epochs": 1},
        results=results,
    )


def test_the_difference_is_told_image_by_image_where_both_kept_them(tmp_path):
    rng = np.random.default_rng(0)
    easy = rng.random(1000)
    right = {"a": easy < 0.9, "b": easy < 0.85}
    runs = []
    for name, seen in right.items():
        Outcomes(seen, None).save(tmp_path / name / "outcomes" / "finetuned.safetensors")
        runs.append(run(folder=tmp_path / name, finetuned=float(seen.mean())))
    mean, (low, high) = paired_difference(right["b"], right["a"])
    says = comparison.verdict(*runs)
    assert says == (
        f"Both are of one size. B ends {-100 * mean:.1f} ± {50 * (high - low):.1f} points below A "
        "(95 % intervals, image by image)."
    )
    table = comparison.measured_table(*runs).set_index(["network", "of"])
    assert table.loc[("as it ended", "top-1"), "interval"] == "image by image"
    assert table.loc[("as it ended", "loss"), "interval"].endswith("too wide")


def test_without_them_the_interval_is_that_of_two_independent_ones():
    a, b = run(finetuned=0.9), run(finetuned=0.88)
    says = comparison.verdict(a, b)
    assert "B ends 2.0 ± 2.7 points below A (95 % intervals, as of independent images" in says
    assert says.endswith("is not certain: more test images would tell.")


def test_what_cannot_be_compared_is_said():
    a, b = run(), run(finetuned=made_up_evaluation(0.9, samples=500).to_json())
    assert "measured on different images" in comparison.verdict(a, b)
    table = comparison.measured_table(a, b).set_index(["network", "of"])
    assert table.loc[("as it ended", "top-1"), "B − A"] == "–"
    assert table.loc[("float32", "top-1"), "interval"].endswith("too wide")
    b = run(finetuned={**made_up_evaluation(0.5).to_json(), "metric": "mAP"})
    assert "A was measured in top-1, B in mAP@[.5:.95]." in comparison.verdict(a, b)
    b = run(kind="analyze", float=None, plan=None, finetuned=None)
    assert "B measured no quantized network." in comparison.verdict(a, b)
    other = run()
    other.workload = "another"
    says = comparison.verdict(a, other)
    assert says.startswith(
        f"They are of different networks, {ANALYSIS.workload} and another. B ends"
    )
    assert comparison.plans_of(a, other) is None
    assert "not of the same layers" in comparison.no_bits(a, other)
    b.options = {}
    assert comparison.plans_of(a, b) is None
    assert comparison.no_bits(a, b).endswith("B has no plan.")
    assert comparison.measured_table(b, b).empty
    assert comparison.costs_table(b, b).empty
    assert comparison.drawn_alone(a, b) == "Only one of them was trained."
    assert comparison.drawn_alone(a, a) == ""
    b = run(float={**made_up_evaluation(0.5).to_json(), "metric": "mAP"})
    assert "only A is drawn" in comparison.drawn_alone(a, b)


def test_runs_of_one_name_are_told_apart_by_their_time():
    assert comparison.names(run(title="one"), run(title="two")) == ("A: one", "B: two")
    a, b = comparison.names(run(title="one"), run(title="one"))
    assert a.startswith("A: one (1 Jan")
    assert b.startswith("B: one (1 Jan")


def test_bits_are_side_by_side_and_differences_marked():
    table = comparison.bits_table(PLAN, RIVAL)
    assert list(table["layer"]) == list(ANALYSIS.names)
    for row in table.itertuples():
        ours, theirs = PLAN.weight_bits[row.layer], RIVAL.weight_bits[row.layer]
        assert (str(ours), str(theirs)) == (row.A, row.B)
        assert row[5] == (f"{theirs - ours:+d}" if ours != theirs else "")
    changed = sum(PLAN.weight_bits[x] != RIVAL.weight_bits[x] for x in ANALYSIS.names)
    assert comparison.bits_differ(PLAN, RIVAL) == f"The bits differ in {changed} of 6 layers."
    assert "inputs of layers" in comparison.bits_differ(ROUNDED, LATER)
    float_inputs = comparison.bits_table(PLAN, LATER)
    assert set(float_inputs[float_inputs["of"] == "input"]["A"]) == {"float"}


def test_the_figure_joins_what_differs_and_escapes_names():
    figure = figures.bits(PLAN, RIVAL, ["A: <b>", "B: x"])
    lines = next(trace for trace in figure.data if trace.mode == "lines")
    changed = [i for i, x in enumerate(ANALYSIS.names) if PLAN.weight_bits[x] != 4]
    assert [x for x in lines.x if x is not None] == [i for i in changed for _ in (0, 1)]
    named = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.name for trace in named] == ["A: &lt;b&gt;", "B: x"]
    assert list(named[0].y) == list(PLAN.weight_bits.values())
    assert "conv&lt;1&gt;" in named[0].hovertext[0]
    assert "conv<1>" not in figure.to_json()
    both = figures.bits(PLAN, ROUNDED, ["A", "B"])
    assert both.layout.yaxis2.title.text == "bits of inputs"
    assert (
        max(y for trace in both.data if trace.yaxis == "y2" for y in trace.y if y) == figures.FLOAT
    )
    assert both.layout.yaxis2.ticktext[-1] == "float"
    assert both.layout.yaxis2.domain[0] >= 0


def test_costs_are_beside_each_other():
    a, b = run(ROUNDED), run(LATER)
    table = comparison.costs_table(a, b).set_index("cost")
    assert table.loc["Size of the weights", "B / A"] == "1.00×"
    bops = LATER.costs["bops"] / ROUNDED.costs["bops"]
    assert table.loc["Bit operations", "B / A"] == f"{bops:.2f}×"
    assert table.loc["Ω", "A"] == f"{ROUNDED.omega:.3g}"
    assert comparison.costs_table(run(), a).set_index("cost").loc["Bit operations", "A"] != ""


def test_only_settings_that_differ_are_listed_with_seeds_versions_and_data():
    a, b = run(), run()
    assert comparison.settings_that_differ(a, b).empty
    b.options |= {"seed": 0, "optimizer": None}  # what the engine takes anyway
    assert comparison.settings_that_differ(a, b).empty
    b.options |= {"seed": 4, "learning_rate": 0.02, "data": "full"}
    made = made_up_evaluation(0.9)
    other = replace(made.provenance, fingerprint="abc", versions={"torch": "2.0"})
    b.results["finetuned"] = replace(made, provenance=other).to_json()
    differ = comparison.settings_that_differ(a, b).set_index("setting")
    assert set(differ.index) == {
        "seed", "learning rate", "data", "fingerprint of these", "version of torch",
    }  # fmt: skip
    assert tuple(differ.loc["seed"]) == ("0", "4")
    assert differ.loc["learning rate", "B"] == "0.02"
    differ = comparison.settings_that_differ(a, run(RIVAL, finetuned=None, plan=None))
    assert "bits" in set(differ["setting"])
    assert "metric" not in set(differ["setting"])  # only one has measured


@pytest.mark.parametrize("title", ["<img src=x>", "$x$ **y**"])
def test_words_for_a_chart_are_plain(title):
    called = comparison.names(run(title=title), run())
    assert title in comparison.bits_alt(PLAN, RIVAL, called)
