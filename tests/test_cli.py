"""The command line: what it prints, what it saves, and its exit codes."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import streamlit.web.cli
from tiny import TINY

from engine.analysis import Analysis, LayerSensitivity
from engine.results import BitPlan, Evaluation, Provenance, TraceEstimate
from hawq_viz import cli

BIT_WIDTHS = (2, 4, 8)


def layer(name: str, parameters: int, sensitivity: float) -> LayerSensitivity:
    omega = {bits: sensitivity * 4.0**-bits for bits in BIT_WIDTHS}
    trace = TraceEstimate(mean=sensitivity, sem=sensitivity / 10, samples=2, exact=True)
    shape = (1, parameters)
    return LayerSensitivity(
        name, "linear", shape, parameters, parameters, trace, omega, omega, (sensitivity,)
    )


@pytest.fixture
def analysis(tmp_path) -> Path:
    """A saved analysis of three layers, 1 000 weights in all."""
    layers = (layer("first", 100, 5.0), layer("middle", 600, 2.0), layer("last", 300, 1.0))
    Analysis(
        workload="made-up",
        layers=layers,
        bit_widths=BIT_WIDTHS,
        loss="cross_entropy",
        estimator="gauss_newton",
        granularity="layer",
        quantizer={"scheme": "symmetric", "weight_granularity": "channel", "weight_range": "mse"},
        relative_sem=0.1,
        images=64,
        stopped_because="images",
        seconds=1.0,
        batch_traces=np.ones((2, 3)),
        batch_sizes=np.array([32, 32]),
        provenance=Provenance(seed=0, data="made up", fingerprint="0", command="by hand"),
    ).save(tmp_path / "analysis.json")
    return tmp_path / "analysis.json"


@pytest.fixture
def tiny(tmp_path) -> str:
    (tmp_path / "tiny.py").write_text(TINY)
    return f"{tmp_path / 'tiny.py'}:make"


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def one_json_line(said: str) -> dict:
    assert said.count("\n") == 1
    return json.loads(said)


# frontier


def test_frontier_saves_the_plan_of_a_budget(capsys, analysis, tmp_path):
    path = tmp_path / "new" / "plan.json"
    code, said, _ = run(capsys, "frontier", analysis, "--budget", "4bits", "--out", path)
    assert code == 0
    assert "first: " in said
    plan = BitPlan.load(path)
    expected = Analysis.load(analysis).frontier().within(500)
    assert (plan.weight_bits, plan.size_bytes) == (expected.weight_bits, expected.size_bytes)
    assert plan.made_by["command"].startswith("hawq-viz frontier ")
    assert plan.made_by["budget"] == 500


def test_frontier_in_json_is_one_line(capsys, analysis):
    code, said, _ = run(capsys, "frontier", analysis, "--budget", "500", "--json")
    found = one_json_line(said)
    assert code == 0
    assert found["uniform"]["weight_bits"] == dict.fromkeys(("first", "middle", "last"), 4)
    assert found["plan"]["omega"] <= found["uniform"]["omega"]


def test_frontier_without_a_budget_shows_its_range(capsys, analysis):
    code, said, _ = run(capsys, "frontier", analysis)
    assert code == 0
    assert "250 to 1,000 bytes" in said
    found = one_json_line(run(capsys, "frontier", analysis, "--json")[1])
    assert found["points"] == len(Analysis.load(analysis).frontier())
    assert found["shown"][0]["size_bytes"] == 250
    assert found["shown"][-1]["size_bytes"] == 1000


def test_frontier_keeps_locks_ties_and_bit_widths(capsys, analysis):
    line = ("frontier", analysis, "--budget", "700", "--json")
    line += ("--lock", "first=8", "--tie", "middle,last", "--bit-widths", 2, 4, 8)
    bits = one_json_line(run(capsys, *line)[1])["plan"]["weight_bits"]
    assert bits["first"] == 8
    assert bits["middle"] == bits["last"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("123456", 123456),
        ("123456B", 123456),
        ("120KiB", 120 * 1024),
        ("0.12MiB", 0.12 * 2**20),
        (".5 GiB", 2**29),
        ("3bits", 375),
        ("1 bit", 125),
        ("3.5bits", 437.5),
    ],
)
def test_budgets(text, expected):
    assert cli.budget_bytes(text, 1000) == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("--budget", "1MB"), "budget must be a size such as 0.12MiB, .* got '1MB'"),
        (("--budget", "-5"), "budget must be a size such as .* got '-5'"),
        (("--budget", "200"), "budget must be at least 250"),
        (("--out", "x.json"), "--out must come with --budget, which chooses the plan, got none"),
        (("--budget", "500", "--out", "x.txt"), "--out must be a file that ends in .json, got 'x"),
        (("--lock", "first"), "--lock must be LAYER=BITS, got 'first'"),
        (("--lock", "frist=4"), "layer must be .*, got 'frist': the nearest is 'first'"),
        (("--lock", "first=9"), "must be one of the analyzed bit widths 2, 4, 8, got 9"),
        (("--bit-widths", "9"), "bit_widths must be .* 1…8, got 9"),
    ],
)
def test_a_value_that_cannot_be_is_bad_usage(capsys, analysis, line, said):
    code, out, err = run(capsys, "frontier", analysis, *line)
    assert (code, out) == (2, "")
    assert re.search(said, err), err
    assert "Traceback" not in err


def test_a_file_that_is_no_analysis_fails(capsys, analysis):
    analysis.write_text(analysis.read_text()[:100])
    code, out, err = run(capsys, "frontier", analysis)
    assert (code, out) == (1, "")
    assert err.startswith(f"hawq-viz: {analysis} must be a saved analysis, but is not whole JSON")
    assert err.count("\n") == 1


def test_a_file_that_is_not_there_fails(capsys, tmp_path):
    code, _, err = run(capsys, "frontier", tmp_path / "none.json")
    assert code == 1
    assert "cannot be read" in err


# analyze, quantize, evaluate


def test_from_a_network_of_the_users_own_to_its_accuracy(capsys, tiny, tmp_path):
    analysis, plan, folder = tmp_path / "a.json", tmp_path / "p.json", tmp_path / "quantized"
    mine = ("--workload-file", tiny)
    line = ("analyze", *mine, "--out", analysis, "--bit-widths", 2, 4, 8, "--batch-size", 16)
    line += ("--scheme", "asymmetric")
    code, said, err = run(capsys, *line, "--json")
    assert (code, err) == (0, "")
    found = one_json_line(said)
    assert (found["layers"], found["parameters"], found["images"]) == (2, 63, 64)
    assert Analysis.load(analysis).provenance.command.startswith("hawq-viz analyze --workload-file")

    assert run(capsys, "frontier", analysis, "--budget", "5bits", "--out", plan)[0] == 0

    line = ("quantize", *mine, "--plan", plan, "--out", folder, "--analysis", analysis, "--json")
    code, said, err = run(capsys, *line)
    assert (code, err) == (0, "")
    found = one_json_line(said)
    measured = {name: Evaluation.from_json(found[name]) for name in ("float", "plan", "uniform")}
    assert all(evaluation.samples == 64 for evaluation in measured.values())
    for name in ("plan", "uniform"):
        saved = BitPlan.load(folder / f"{name}.json")
        assert saved.quantizer["scheme"] == "asymmetric"  # as it was analyzed
    again = shlex.split(measured["uniform"].provenance.command)[1:]
    assert one_json_line(run(capsys, *again, "--json")[1])["plan"]["value"] == (
        measured["uniform"].value
    )

    code, said, _ = run(capsys, "evaluate", *mine, "--quantized", folder, "--json")
    assert (code, one_json_line(said)["value"]) == (0, measured["plan"].value)
    out = tmp_path / "e.json"
    code, said, _ = run(capsys, "evaluate", *mine, "--out", out)
    assert code == 0
    assert said.startswith(f"top-1 {measured['float'].value:.2%} (95 % interval")
    assert Evaluation.load(out).value == measured["float"].value


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("evaluate",), "one workload must be given, by name or by --workload-file, got neither"),
        (("evaluate", "a", "--workload-file", "b.py:c"), "one workload must be given, .* got both"),
        (("evaluate", "resnet20"), "workload must be one of resnet20-cifar10.*, got 'resnet20'"),
        (("evaluate", "--workload-file", "b.py:c", "--data", "full"), "--data must come with a kn"),
        (("evaluate", "--workload-file", "b.py"), "workload file must be given as FILE.py:FUNC"),
        (("analyze", "resnet20-cifar10", "--out", "a.txt"), "--out must be a file that ends in"),
    ],
)
def test_what_cannot_be_done_is_bad_usage(capsys, line, said):
    code, out, err = run(capsys, *line)
    assert (code, out) == (2, "")
    assert re.search(said, err), err
    assert err.count("\n") == 1


def test_a_workload_file_that_is_not_there_fails(capsys):
    code, _, err = run(capsys, "evaluate", "--workload-file", "none.py:make")
    assert code == 1
    assert "none.py must be a Python file with make()" in err


# the process


def test_the_command_says_what_it_can_do():
    line = [sys.executable, "-m", "hawq_viz", "--help"]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    for word in ("app", "analyze", "frontier", "quantize", "evaluate", "exit codes"):
        assert word in said


def test_app_serves_the_dashboards_script_wherever_it_is_started(monkeypatch):
    begun = []
    monkeypatch.setattr(streamlit.web.cli, "main", lambda words, **_: begun.extend(words))
    assert cli.main(["app", "--port", "8765", "--headless"]) == 0
    verb, script, *options = begun
    assert (verb, Path(script).name, Path(script).is_absolute()) == ("run", "app.py", True)
    assert options == ["--server.port", "8765", "--server.headless", "true"]
    with (Path(script).parent / ".streamlit" / "config.toml").open("rb") as file:
        assert tomllib.load(file)["server"]["address"] == "127.0.0.1"


def test_an_interrupt_ends_quietly(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(streamlit.web.cli, "main", interrupted)
    assert cli.main(["app"]) == 130
    assert capsys.readouterr().err == ""
