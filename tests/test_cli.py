"""The command line: what it prints, what it saves, and its exit codes."""

import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import streamlit.web.cli
from live import SLEEPS, asleep, tiny_plan, workload_file
from made_up import made_up_evaluation
from tiny import TINY

from engine import jobs
from engine.analysis import Analysis, LayerSensitivity
from engine.jobs.events import EventWriter
from engine.jobs.folders import EVENTS, LOG, PROCESS, new_run
from engine.results import BitPlan, Evaluation, Provenance, TraceEstimate, write_json
from hawq_viz import cli, networks
from hawq_viz.terminal import Bar

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
        (("evaluate", "--workload-file", "b.py:c", "--weights", "w"), "--weights must come with a"),
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


# check


def test_analyze_goes_on_from_an_analysis(capsys, tiny, tmp_path):
    mine, first, both = ("--workload-file", tiny), tmp_path / "a.json", tmp_path / "b.json"
    options = ("--bit-widths", 2, 4, "--batch-size", 1, "--relative-sem", "1e-9")
    assert run(capsys, "analyze", *mine, *options, "--max-images", 40, "--out", first)[0] == 0
    code, out, _ = run(capsys, "analyze", *mine, "--further", first, "--out", both, "--json")
    assert (code, one_json_line(out)["images"]) == (0, 64)
    made = Analysis.load(both).provenance.command
    assert made.endswith(f"--further {first} --relative-sem 1e-09")
    line = ("analyze", *mine, "--further", both, "--out", tmp_path / "c.json")
    code, _, err = run(capsys, *line)
    said = "analysis must leave images to go on with, got all 64 used: analyze more data anew.\n"
    assert (code, err) == (2, f"hawq-viz: {said}")
    code, _, err = run(capsys, *line, "--seed", 1)
    assert (code, "further must come with relative_sem, max_images" in err) == (2, True)


def test_check_says_nothing_of_a_clean_network(capsys, tiny):
    code, out, err = run(capsys, "check", "--workload-file", tiny)
    assert (code, err) == (0, "")
    assert out == "tiny: nothing stands in the way of an analysis\n"


def test_check_fails_where_something_is_wrong(capsys, tmp_path):
    text = TINY.replace("test=data)", "test=data, loss=total)") + (
        "def total(outputs, targets):\n"
        "    return torch.nn.functional.cross_entropy(outputs, targets, reduction='sum')\n"
    )
    spec = workload_file(tmp_path, text)
    code, out, _ = run(capsys, "check", "--workload-file", spec, "--json")
    assert code == 1
    (finding,) = one_json_line(out)["findings"]
    assert (finding["severity"], finding["subject"]) == ("problem", "loss")
    code, out, _ = run(capsys, "check", "--workload-file", spec)
    assert out == f"problem: loss\n  {finding['sentence']}\n"


# app


def test_the_app_is_told_of_the_users_own_network(monkeypatch, tiny):
    asked = []
    monkeypatch.setattr("streamlit.web.cli.main", lambda command, **_: asked.append(command) or 0)
    monkeypatch.setenv(networks.OWN_FILE, "")
    assert cli.main(["app", "--headless", "--workload-file", str(tiny)]) == 0
    assert networks.own_file() == str(tiny)
    assert networks.own_name() == "tiny.py:make"
    assert not any(str(tiny) in word for word in asked[0])


def test_an_app_without_the_file_is_not_started(monkeypatch, capsys):
    monkeypatch.setenv(networks.OWN_FILE, "")
    code, _, err = run(capsys, "app", "--workload-file", "none.py:make")
    assert code == 1
    assert "none.py must be a Python file with make(), but is none." in err


# quantize --finetune


@pytest.fixture
def plan(tmp_path) -> Path:
    """A saved plan of the tiny network."""
    BitPlan(**tiny_plan(2)).save(tmp_path / "plan.json")
    return tmp_path / "plan.json"


@pytest.mark.usefixtures("runs")
def test_finetune_follows_its_run_and_fetches_the_network(capsys, tiny, plan, tmp_path):
    line = ("quantize", "--workload-file", tiny, "--plan", plan, "--out", tmp_path / "out")
    line += ("--finetune", 1, "--learning-rate", 0.02, "--seed", 3, "--json")
    code, said, err = run(capsys, *line)
    assert code == 0, err
    found = one_json_line(said)
    made = jobs.view(found["run"])
    assert found["out"] == str(tmp_path / "out")
    assert made.options["recipe"] == "custom"
    given = {name: made.options[name] for name in ("epochs", "learning_rate", "seed")}
    assert given == {"epochs": 1, "learning_rate": 0.02, "seed": 3}
    assert made.results == {
        name: found[name] for name in ("float", "plan", "training", "finetuned")
    }
    for file in made.artefact("quantized").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()

    line = ("evaluate", "--workload-file", tiny, "--quantized", tmp_path / "out", "--json")
    assert one_json_line(run(capsys, *line)[1])["value"] == found["finetuned"]["value"]
    code, said, _ = run(capsys, "runs", "show", made.id)
    assert code == 0
    assert said.startswith(f"finetune tiny, made {made.created}: finished\nfloat     top-1 ")
    assert "steps in " in said
    assert "stopped by: steps" in said
    assert re.search(rf"{made.id}  finished   float .*%, finetuned", run(capsys, "runs")[1])


def test_activations_are_rounded_as_asked(capsys, tiny, plan, tmp_path):
    saved = BitPlan.load(plan)
    replace(saved, activation_bits={"0": 8, "3": 4}).save(plan)
    line = ("quantize", "--workload-file", tiny, "--plan", plan, "--out", tmp_path / "out")
    given = ("--activation-range", "percentile", "--sums", "integer", "--max-images", 9, "--json")
    code, said, err = run(capsys, *line, *given)
    assert code == 0, err
    done = BitPlan.load(tmp_path / "out" / "plan.json")
    assert done.activation_bits == {"0": 8, "3": 4}
    assert done.quantizer["activation_range"] == "percentile"
    assert done.quantizer["sums"] == "integer"
    again = (
        "evaluate",
        "--workload-file",
        tiny,
        "--quantized",
        tmp_path / "out",
        "--max-images",
        9,
    )
    measured = one_json_line(run(capsys, *again, "--json")[1])
    assert measured["loss"] == one_json_line(said)["plan"]["loss"]


@pytest.mark.usefixtures("runs")
def test_how_activations_are_trained_is_told_to_the_run(capsys, monkeypatch, tiny, plan, tmp_path):
    monkeypatch.setattr("engine.jobs.launching.start_worker", lambda _: None)
    line = ("quantize", "--workload-file", tiny, "--plan", plan, "--out", tmp_path / "out")
    line += ("--finetune", 1, "--detach", "--activation-ranges", "running", "--sums", "integer")
    code, said, err = run(capsys, *line)
    assert code == 0, err
    made = jobs.view(said.strip())
    assert made.options["activation_ranges"] == "running"
    assert made.options["plan"]["quantizer"] == {"sums": "integer"}


def test_activations_need_not_be_analyzed(capsys, tiny, tmp_path):
    line = ("analyze", "--workload-file", tiny, "--out", tmp_path / "a.json", "--bit-widths", 4)
    assert run(capsys, *line, "--activations", "False")[0] == 0
    assert Analysis.load(tmp_path / "a.json").activations == ()
    assert run(capsys, *line, "--activation-range", "min_max")[0] == 0
    found = Analysis.load(tmp_path / "a.json")
    assert [one.name for one in found.activations] == ["0", "3"]
    assert found.quantizer["activation_range"] == "min_max"
    with pytest.raises(SystemExit, match="2"):
        run(capsys, *line, "--activations", "no")
    assert "argument --activations: must be True or False, got 'no'" in capsys.readouterr().err


@pytest.mark.usefixtures("runs")
def test_detached_it_prints_the_run(capsys, monkeypatch, tiny, plan, tmp_path):
    monkeypatch.setattr("engine.jobs.launching.start_worker", lambda _: None)
    line = ("quantize", "--workload-file", tiny, "--plan", plan, "--out", tmp_path / "out")
    line += ("--finetune", 0.5, "--detach", "--rounding", "learned", "--scheme", "asymmetric")
    code, said, _ = run(capsys, *line)
    made = jobs.view(said.strip())
    assert (code, made.state, made.options["epochs"]) == (0, "queued", 0.5)
    assert made.options["plan"]["quantizer"] == {"scheme": "asymmetric", "rounding": "learned"}
    found = one_json_line(run(capsys, *line, "--json")[1])
    assert found["quantized"] == str(jobs.view(found["run"]).folder / "quantized")


@pytest.mark.usefixtures("runs")
def test_what_fails_in_the_run_is_said_here(capsys, plan, tmp_path):
    spec = workload_file(tmp_path, "def make():\n    raise ValueError('images must be there.')")
    line = ("quantize", "--workload-file", spec, "--plan", plan, "--out", tmp_path / "out")
    code, out, err = run(capsys, *line, "--finetune", 1)
    assert (code, out) == (1, "")
    said = "must return an engine.Workload, but ValueError('images must be there.').\n"
    assert said in err
    (made,) = jobs.list_runs()
    assert f"`hawq-viz runs resume {made.id}` goes on" in err


def interrupted(_run_id):
    yield next(iter(jobs.list_runs()))
    raise KeyboardInterrupt


@pytest.mark.usefixtures("runs")
def test_an_interrupt_ends_only_the_watching(capsys, monkeypatch):
    made = written_run("queued")
    monkeypatch.setattr(jobs, "follow", interrupted)
    code, _, err = run(capsys, "runs", "watch", made)
    assert code == 130
    assert f"the run goes on: `hawq-viz runs watch {made}` shows it again" in err
    assert f"`hawq-viz runs cancel {made}` stops it." in err


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--learning-rate", "0.1"), "--learning-rate must come with --finetune, got none"),
        (("--detach",), "--detach must come with --finetune, got none"),
        (
            ("--finetune", "1", "--max-images", "9"),
            "--max-images must come without --finetune, got",
        ),
        (("--finetune", "0"), "epochs must be above 0, got 0"),
        (("--finetune", "1", "--learning-rate", "-1"), "learning_rate must be above 0, got -1"),
        (
            ("--finetune", "1", "--optimizer", "adam"),
            "optimizer must be one of .*adamw.*, got 'adam'",
        ),
    ],
)
def test_what_cannot_be_trained_is_bad_usage(capsys, plan, tmp_path, options, said):
    line = ("quantize", "--workload-file", "a.py:make", "--plan", plan, "--out", tmp_path / "out")
    code, out, err = run(capsys, *line, *options)
    assert (code, out) == (2, "")
    assert re.search(said, err), err
    assert jobs.list_runs() == []


# runs


def written_run(*events: str, kind: str = "quantize", log: str = "") -> str:
    folder = new_run(kind, "tiny", {"plan": tiny_plan(2)}, None)
    write_json(folder / PROCESS, "process", {"pid": 2**22 + 1, "created": 0.0})
    fields = {
        "progress": {"done": 1200, "total": 4000, "note": "test images"},
        "result": {"name": "plan", "result": made_up_evaluation(0.83).to_json()},
        "failed": {"error": "MemoryError: no memory"},
    }
    writer = EventWriter(folder / EVENTS)
    for event in events:
        writer.write(event, **fields.get(event, {}))
    writer.close()
    (folder / LOG).write_text(log)
    return folder.name


@pytest.mark.usefixtures("runs")
def test_runs_lists_all_in_words_and_in_json(capsys):
    assert run(capsys, "runs")[1] == f"no runs in {jobs.runs_folder()}\n"
    finished = written_run("started", "progress", "result", "finished")
    failed = written_run("started", "progress", "failed")
    cancelled = written_run("started", "progress", "cancelled")
    code, said, _ = run(capsys, "runs")
    lines = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert (code, len(lines)) == (0, 3)
    assert re.sub(" +", " ", lines[finished]) == "finished plan 83.00%"
    assert lines[failed].split(maxsplit=1) == ["failed", "MemoryError: no memory"]
    assert lines[cancelled].split(maxsplit=1) == ["cancelled", "1,200 of 4,000 test images"]
    found = one_json_line(run(capsys, "runs", "--json")[1])
    assert {made["id"]: made["resumable"] for made in found["runs"]} == {
        finished: False,
        failed: True,
        cancelled: True,
    }


@pytest.mark.usefixtures("runs")
def test_show_says_why_a_run_failed_and_what_next(capsys):
    failed = written_run("started", "result", "failed", log="Traceback\n  deep inside\n")
    code, said, _ = run(capsys, "runs", "show", failed)
    assert code == 0
    assert "failed, MemoryError: no memory" in said
    assert "plan      top-1 83.00%" in said
    assert "  Traceback\n    deep inside\n" in said
    assert f"`hawq-viz runs resume {failed}` goes on with it" in said
    found = one_json_line(run(capsys, "runs", "show", failed, "--json")[1])
    assert found["results"]["plan"]["value"] == 0.83
    assert found["options"]["plan"] == tiny_plan(2)


@pytest.mark.usefixtures("runs")
def test_watch_ends_as_the_run_does(capsys):
    assert run(capsys, "runs", "watch", written_run("started", "result", "finished"))[0] == 0
    code, said, _ = run(capsys, "runs", "watch", written_run("started", "failed"), "--json")
    assert (code, one_json_line(said)["error"]) == (1, "MemoryError: no memory")


@pytest.mark.usefixtures("runs")
def test_a_run_is_cancelled_resumed_and_deleted(capsys, tmp_path, monkeypatch):
    spec = workload_file(tmp_path, SLEEPS)
    run_id = jobs.launch("analyze", "mine", workload_file=spec)
    asleep(run_id)
    code, said, _ = run(capsys, "runs", "cancel", run_id)
    assert (code, said) == (0, f"{run_id} is cancelled\n")
    code, said, _ = run(capsys, "runs", "resume", run_id)
    assert (code, f"`hawq-viz runs watch {run_id}` shows it" in said) == (0, True)
    code, _, err = run(capsys, "runs", "delete", run_id, "--yes")
    assert code == 2
    assert "run must be over to be deleted" in err
    asleep(run_id)
    assert one_json_line(run(capsys, "runs", "cancel", run_id, "--json")[1])["state"] == "cancelled"

    code, _, err = run(capsys, "runs", "delete", run_id)
    assert (code, err) == (
        2,
        "hawq-viz: --yes must be given where nobody can be asked, got none.\n",
    )
    for answer, code, left in (("n\n", 1, [run_id]), ("", 1, [run_id]), ("y\n", 0, [])):
        answers = io.StringIO(answer)
        answers.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", answers)
        assert run(capsys, "runs", "delete", run_id)[0] == code
        assert [seen.id for seen in jobs.list_runs()] == left


@pytest.mark.usefixtures("runs")
def test_a_run_gets_a_title_and_a_remark(capsys):
    run_id = written_run("started", "result", "finished")
    code, said, _ = run(capsys, "runs", "describe", run_id, "--title", "Best", "--remark", "a\nb")
    assert (code, said) == (0, f"{run_id} is called Best\n  a\n  b\n")
    assert "  finished   “Best”: plan 83.00%" in run(capsys, "runs")[1]
    said = run(capsys, "runs", "show", run_id)[1]
    assert said.startswith("“Best”: quantize tiny, made ")
    assert "\n  a\n  b\nplan " in said
    code, said, _ = run(capsys, "runs", "describe", run_id, "--title", "", "--json")
    found = one_json_line(said)
    assert (code, found["title"], found["remark"]) == (0, "", "a\nb")
    assert run(capsys, "runs", "describe", run_id) == (
        2,
        "",
        "hawq-viz: --title or --remark must be given, got neither.\n",
    )
    assert run(capsys, "runs", "describe", run_id, "--title", "x" * 81)[0] == 2


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("verb", ["show", "watch", "cancel", "resume", "delete"])
def test_an_unknown_run_is_bad_usage(capsys, verb):
    code, out, err = run(capsys, "runs", verb, "20260101-000000-analyze-a-0000")
    assert (code, out) == (2, "")
    assert re.search(r"run must be the id of one in .*, got '20260101", err)
    code, _, err = run(capsys, "runs", verb, "../../etc")
    assert code == 2


def test_the_bar_follows_from_where_it_begins(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with Bar() as bar:
        bar.waits("2 ahead")
        for done, total, note in ((500, 1000, "images"), (600, 1000, "images"), (3, 9, "steps")):
            bar(done, total, note)
        assert (bar._bar.n, bar._bar.total, bar._bar.initial) == (3, 9, 3)
    assert "2 ahead" in terminal.getvalue()
    assert "steps" in terminal.getvalue()


# the process


def test_the_command_says_what_it_can_do():
    line = [sys.executable, "-m", "hawq_viz", "--help"]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    for word in ("app", "analyze", "frontier", "quantize", "evaluate", "runs", "exit codes"):
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
