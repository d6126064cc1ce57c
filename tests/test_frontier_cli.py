"""`hawq-viz frontier` with activations, several budgets and other costs than size."""

import json
import re

import pytest
from made_up import made_up_activations, made_up_analysis

from engine.analysis import Analysis
from engine.latency import LatencyTable
from engine.results import BitPlan
from hawq_viz import cli
from hawq_viz.frontier_cli import budget_of

ANALYSIS = made_up_activations(made_up_analysis())


@pytest.fixture
def analysis(tmp_path):
    ANALYSIS.save(tmp_path / "analysis.json")
    return tmp_path / "analysis.json"


def run(capsys, *arguments):
    code = cli.main(["frontier", *(str(word) for word in arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def plan_of(capsys, *arguments):
    code, said, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(said)


@pytest.mark.parametrize(
    ("text", "cost", "expected"),
    [
        ("123456", "size", 123456),
        ("123456B", "size", 123456),
        ("120KiB", "size", 120 * 1024),
        ("0.12MiB", "activation_peak", 0.12 * 2**20),
        (".5 GiB", "size", 2**29),
        ("3bits", "size", ANALYSIS.parameters * 3 / 8),
        ("1 bit", "size", ANALYSIS.parameters / 8),
        ("4bits", "activation_memory", sum(x.elements for x in ANALYSIS.activations) / 2),
        ("2.5G", "bops", 2.5e9),
        ("1e9", "bops", 1e9),
        ("800 M", "bops", 8e8),
        ("1.5ms", "latency", 1.5),
        ("800us", "latency", 0.8),
        ("2", "latency", 2),
    ],
)
def test_budgets(text, cost, expected):
    assert budget_of(text, cost, ANALYSIS) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "cost", "sentence"),
    [
        (
            "1MB",
            "size",
            "budget must be a size such as 0.12MiB, 120KiB or 123456B, or the bits of a weight "
            "such as 3bits, got '1MB'.",
        ),
        (
            "3bits",
            "activation_peak",
            "budget must be a size such as 0.12MiB, 120KiB or 123456B, got '3bits'.",
        ),
        ("1KiB", "bops", "budget must be operations such as 2.5G, 800M or 123456, got '1KiB'."),
        ("fast", "latency", "budget must be a time such as 1.5ms, 800us or 1.5, got 'fast'."),
    ],
)
def test_sentences_for_budgets(text, cost, sentence):
    with pytest.raises(ValueError, match=r".") as caught:
        budget_of(text, cost, ANALYSIS)
    assert str(caught.value) == sentence


def test_bit_operations_choose_weights_and_activations(capsys, analysis, tmp_path):
    out = tmp_path / "plan.json"
    most = ANALYSIS.uniform(4, 4).costs["bops"]
    code, said, _ = run(capsys, analysis, "--cost", "bops", "--budget", most, "--out", out)
    assert code == 0
    for word in ("W4A4", "W4A8", "W8A8", "bit operations", "conv<1>: weight ", ", input 8"):
        assert word in said
    plan = BitPlan.load(out)
    expected = ANALYSIS.frontier("bops").within(most)
    assert (plan.weight_bits, plan.activation_bits) == (
        expected.weight_bits,
        expected.activation_bits,
    )
    assert plan.costs["bops"] <= most
    assert plan.made_by["command"].startswith("hawq-viz frontier ")
    others = plan_of(capsys, analysis, "--cost", "bops", "--budget", most)["others"]
    assert others["W4A8"]["omega"] == pytest.approx(ANALYSIS.uniform(4, 8).omega)


def test_traces_below_their_errors_are_marked(capsys, analysis):
    said = run(capsys, analysis, "--budget", "4bits")[1]
    for name in ("layer2.0.conv2", "input of layer1.0.conv2"):
        assert f"{name}: trace below its error: Ω uses the error instead" in said.splitlines()
    names = plan_of(capsys, analysis, "--budget", "4bits")["below_error"]
    assert names == ["layer2.0.conv2", "input of layer1.0.conv2"]


def test_limits_reach_the_analysis(capsys, analysis):
    names = [x.name for x in ANALYSIS.activations]
    line = (analysis, "--cost", "bops", "--budget", "1T", "--same-bits", "--bit-widths", 4, 8)
    line += ("--activation-bit-widths", 4, 8, "--lock", "fc=4")
    line += ("--lock-activation", f"{names[1]}=4")
    plan = plan_of(capsys, *line)["plan"]
    assert plan["weight_bits"]["fc"] == 4
    assert plan["activation_bits"][names[1]] == 4
    assert set(plan["weight_bits"].values()) == {4, 8}
    plan = plan_of(capsys, analysis, "--budget", "4bits", "--activations", 6)["plan"]
    assert set(list(plan["activation_bits"].values())[1:]) == {6}
    line = (analysis, "--cost", "activation_memory", "--budget", "4bits", "--weights", 3)
    line += ("--lock-activation", f"{names[0]}=4")
    plan = plan_of(capsys, *line)["plan"]
    assert set(plan["weight_bits"].values()) == {3}


def test_several_budgets_at_once(capsys, analysis):
    costs = ANALYSIS.uniform(4, 4).costs
    budgets = {name: costs[name] for name in ("size", "bops", "activation_memory")}
    line = [f"{name}={value}" for name, value in budgets.items()]
    plan = plan_of(capsys, analysis, "--budgets", *line)["plan"]
    assert all(plan["costs"][name] <= most for name, most in budgets.items())
    assert plan["omega"] == pytest.approx(ANALYSIS.within(budgets).omega)
    del budgets["bops"], line[1]
    plan = plan_of(capsys, analysis, "--budgets", *line, "--separate", "--lock", "fc=8")["plan"]
    assert plan["omega"] == pytest.approx(ANALYSIS.separate(**budgets, locked={"fc": 8}).omega)


def test_nearest_budgets_can_be_given_back(capsys, analysis):
    code, _, err = run(capsys, analysis, "--budgets", "size=1", "bops=1M")
    assert code == 2
    nearest = re.search(r"nearest that can be met are (\S+) and (\S+)\.$", err.strip())
    assert nearest is not None, err
    assert run(capsys, analysis, "--budgets", *nearest.groups())[0] == 0


def test_latency_from_a_table(capsys, analysis, tmp_path):
    table = tmp_path / "times.csv"
    rows = [
        f"{layer.name},{w},{a},{0.1 + w * a / 100}"
        for layer in ANALYSIS.layers
        for w in ANALYSIS.bit_widths
        for a in (*ANALYSIS.bit_widths, 32)  # float where no activation was found
    ]
    table.write_text("\n".join(["layer,w_bits,a_bits,ms", *rows]))
    line = (analysis, "--cost", "latency", "--latency", table)
    code, said, _ = run(capsys, *line)
    assert code == 0
    assert " ms" in said
    found = plan_of(capsys, *line, "--budget", "1.9ms")
    assert found["plan"]["costs"]["latency"] <= 1.9
    times = LatencyTable.load(table)
    expected = ANALYSIS.uniform(4, 8, latency=times).costs
    assert found["others"]["W4A8"]["costs"] == expected
    for line_of in (("--budgets", "latency=1.9ms"), ("--cost", "bops", "--budget", "1T")):
        found = plan_of(capsys, analysis, "--latency", table, *line_of)
        assert found["others"]["W4A8"]["costs"] == expected
        assert "latency" in found["uniform"]["costs"]
    table.write_text(
        "\n".join(["layer,w_bits,a_bits,ms", *(row for row in rows if row != "conv<1>,2,8,0.26")])
    )
    code, _, err = run(capsys, *line)
    assert code == 2
    assert f"{table} lacks w_bits 2 and a_bits 8 of layer 'conv<1>'" in err
    few = [row for row in rows if ",4,8," not in row]
    table.write_text("\n".join(["layer,w_bits,a_bits,ms", *few]))
    limits = ("--bit-widths", 2, 8)
    others = plan_of(capsys, *line, "--budget", "9ms", *limits)["others"]
    assert "latency" not in others["W4A8"]["costs"]
    table.write_text("layer\n")
    assert run(capsys, *line)[0] == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--budgets", "size"), "budget must be a size such as .*, got ''"),
        (
            ("--budgets", "weight=3"),
            "--budgets must be NAME=COST with a name of .*, got .weight=3",
        ),
        (("--budgets", "size=1KiB", "--budget", "3"), "--budget must come without --budgets, got"),
        (("--budgets", "size=9MiB", "--tolerance", 0), "--tolerance must come without --budgets"),
        (("--budgets", "size=9MiB", "--cost", "bops"), "--cost must come without --budgets"),
        (
            ("--budgets", "size=9MiB", "size=1MiB"),
            "--budgets must name every cost once, got size twice",
        ),
        (("--weights", 0), "must be one of the analyzed bit widths .*, got 0"),
        (("--activations", 0), "must be one of the analyzed bit widths .*, got 0"),
        (("--separate",), "--separate must come with --budgets, got none"),
        (
            ("--budgets", "size=9MiB", "--separate"),
            "--separate must come with budgets of size and activation_memory, got size",
        ),
        (
            ("--budgets", "size=9MiB", "activation_memory=9MiB", "--separate", "--same-bits"),
            "--separate must come without --same-bits, got both",
        ),
        (("--lock-activation", "fc"), "--lock-activation must be ACTIVATION=BITS, got 'fc'"),
        (("--cost", "latency"), "latency must be a table of times where it is a cost, got none"),
        (("--cost", "bops", "--out", "x.json"), "--out must come with --budget"),
    ],
)
def test_a_value_that_cannot_be_is_bad_usage(capsys, analysis, line, said):
    code, out, err = run(capsys, analysis, *line)
    assert (code, out) == (2, "")
    assert re.search(said, err), err


def test_analyses_without_activations_still_work(capsys, tmp_path):
    from dataclasses import replace

    path = tmp_path / "analysis.json"
    replace(ANALYSIS, activations=(), alive=()).save(path)
    assert Analysis.load(path).activations == ()
    assert plan_of(capsys, path, "--budget", "4bits")["plan"]["activation_bits"] == {}
    code, _, err = run(capsys, path, "--cost", "bops")
    assert code == 2
    assert "analyze again with activations" in err
