"""Runs, with real worker processes: what others see while they work, end, fail or die."""

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY

from engine.jobs import FINAL, launch, list_runs, runs_folder, view
from engine.jobs.events import STEPS_FOR_ETA, EventReader, EventWriter, seconds_left
from engine.jobs.folders import EVENTS, PROCESS, new_run
from engine.jobs.launching import OPTIONS
from engine.jobs.processes import SECONDS_TO_START, is_alive
from engine.jobs.runs import CRASHED
from engine.jobs.worker import SLOT, sentence
from engine.results import BitPlan, Evaluation, FormatError, write_json

pytestmark = pytest.mark.usefixtures("runs")

SLEEPS = "import time\ndef make():\n    print('asleep', flush=True)\n    time.sleep(60)\n"
FAILS = "def make():\n    raise {error}\n"


def workload_file(folder: Path, text: str) -> str:
    (folder / "mine.py").write_text(text)
    return f"{folder / 'mine.py'}:make"


def wait_until(run_id: str, met, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not met(seen := view(run_id)):
        assert time.monotonic() < deadline, (seen.state, seen.log_tail)
        time.sleep(0.05)
    return seen


def wait_for_end(run_id: str):
    return wait_until(run_id, lambda seen: seen.state in FINAL)


def kill(run_id: str) -> None:
    written = json.loads((runs_folder() / run_id / PROCESS).read_text())
    os.kill(written["pid"], signal.SIGKILL)


def tiny_plan(bits: int) -> dict:
    parameters = {"0": 27, "3": 36}
    size = sum(parameters.values()) * bits / 8
    fields = {"weight_bits": dict.fromkeys(parameters, bits), "size_bytes": size, "omega": 0.0}
    return {"workload": "tiny", **fields}


# The events of a run


def test_events_come_back_in_order(tmp_path):
    writer, reader = EventWriter(tmp_path / EVENTS), EventReader(tmp_path / EVENTS)
    assert reader.rows() == ()
    writer.write("started")
    assert [row["event"] for row in reader.rows()] == ["started"]
    writer.write("result", name="plan", result={"value": 0.5})
    assert [row["event"] for row in reader.rows()] == ["started", "result"]
    assert reader.rows()[1]["result"] == {"value": 0.5}
    writer.close()


@given(st.lists(st.text(max_size=5), max_size=6), st.data())
def test_a_reader_sees_whole_lines_whereever_a_write_was_torn(tmp_path_factory, notes, data):
    lines = [json.dumps({"time": 0, "event": note}) + "\n" for note in notes]
    written = "".join(lines).encode()
    cut = data.draw(st.integers(0, len(written)))
    path = tmp_path_factory.mktemp("torn") / EVENTS
    path.write_bytes(written[:cut])
    reader = EventReader(path)
    assert [row["event"] for row in reader.rows()] == notes[: written[:cut].count(b"\n")]
    with path.open("ab") as file:
        file.write(written[cut:])
    assert [row["event"] for row in reader.rows()] == notes


def test_a_line_that_is_no_event_is_passed_over(tmp_path):
    (tmp_path / EVENTS).write_text('{"time": 0, "ev\n[1]\n{"time": 1, "event": "started"}\n')
    assert [row["event"] for row in EventReader(tmp_path / EVENTS).rows()] == ["started"]


def test_progress_is_written_at_most_five_times_a_second_and_ends_with_the_latest(tmp_path):
    writer = EventWriter(tmp_path / EVENTS)
    begun = time.monotonic()
    while time.monotonic() - begun < 0.5:
        writer.progress(1, 9, "images")
    writer.progress(9, 9, "images")
    writer.write("finished")
    rows = EventReader(tmp_path / EVENTS).rows()
    writer.close()
    assert 3 <= len(rows) <= 5
    assert rows[-2]["done"] == 9
    assert rows[-1]["event"] == "finished"


def progress(*steps: tuple[float, int, int]) -> list[dict]:
    return [{"time": t, "event": "progress", "done": n, "total": of} for t, n, of in steps]


def test_seconds_left_is_the_median_step_times_what_remains():
    rows = progress((0, 0, 10), (1, 1, 10), (2, 2, 10), (12, 3, 10))  # steps of 1, 1 and 10 s
    assert seconds_left(rows) == 7


def test_seconds_left_counts_the_last_steps_only():
    slow = [(100.0 * n, n, 1000) for n in range(5)]
    quick = [(400 + 0.5 * n, 4 + n, 1000) for n in range(1, STEPS_FOR_ETA + 2)]
    assert seconds_left(progress(*slow, *quick)) == pytest.approx(0.5 * (1000 - quick[-1][1]))


@pytest.mark.parametrize("rows", [[], progress((0, 0, 5)), progress((0, 4, 5), (1, 0, 9))])
def test_seconds_left_is_unknown_before_two_steps_towards_the_same_end(rows):
    assert seconds_left(rows) is None


# Runs with real processes


def test_a_worker_that_is_killed_is_seen_as_crashed(runs, tmp_path):
    run_id = launch("analyze", "mine", workload_file=workload_file(tmp_path, SLEEPS))
    seen = wait_until(run_id, lambda seen: "asleep" in seen.log_tail)
    assert (seen.state, seen.error) == ("running", None)
    kill(run_id)
    seen = wait_for_end(run_id)
    assert (seen.state, seen.error) == ("crashed", CRASHED)
    assert seen.folder == runs / run_id


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ValueError('loss must be finite, got nan in batch 3.')", "loss must be finite, got nan"),
        ("RuntimeError('no\\n  memory')", "RuntimeError: no memory"),
    ],
)
def test_a_worker_that_fails_says_why_in_one_sentence(tmp_path, error, said):
    spec = workload_file(tmp_path, FAILS.format(error=error))
    seen = wait_for_end(launch("analyze", "mine", workload_file=spec))
    assert seen.state == "failed"
    assert seen.error.startswith(said)
    assert "\n" not in seen.error
    assert "Traceback" in seen.log_tail
    assert all("Traceback" not in json.dumps(row) for row in seen.rows)


def test_a_second_run_waits_for_the_first(runs, tmp_path):
    spec = workload_file(tmp_path, SLEEPS)
    first = launch("analyze", "mine", workload_file=spec)
    wait_until(first, lambda seen: "asleep" in seen.log_tail)
    second = launch("analyze", "mine", workload_file=spec)
    wait_until(second, lambda seen: seen.state == "queued")
    kill(first)
    wait_until(second, lambda seen: seen.state == "running" and "asleep" in seen.log_tail)
    kill(second)
    assert wait_for_end(second).state == "crashed"
    assert (runs / SLOT).exists()


def test_a_run_is_seen_the_same_from_another_process_and_outlives_its_launcher(tmp_path):
    spec = workload_file(tmp_path, SLEEPS)
    code = f"from engine.jobs import launch; print(launch('analyze', 'x', workload_file={spec!r}))"
    run_id = subprocess.check_output([sys.executable, "-c", code], text=True).strip()
    wait_until(run_id, lambda seen: "asleep" in seen.log_tail)
    code = f"from engine.jobs import view; print(view({run_id!r}).state)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "running"
    kill(run_id)
    assert wait_for_end(run_id).state == "crashed"


def test_list_runs_gives_the_newest_first_and_passes_over_what_is_no_run(runs):
    assert list_runs() == []
    made = []
    for workload in ("a", "ResNet 20!", "b"):
        made.append(new_run("analyze", workload, {}, None).name)
        time.sleep(0.002)
    (runs / "20200101-000000-analyze-cut-0000").mkdir()
    (runs / "20200101-000000-analyze-cut-0000" / "spec.json").write_text("{")
    (runs / "notes.txt").write_text("")
    assert [seen.id for seen in list_runs()] == made[::-1]
    assert "-analyze-resnet-20-" in made[1]


# State without a worker


def test_a_run_without_a_process_is_running_for_a_while_and_crashed_after():
    folder = new_run("analyze", "a", {}, None)
    assert view(folder.name).state == "running"
    long_ago = time.time() - SECONDS_TO_START - 1
    os.utime(folder / "spec.json", (long_ago, long_ago))
    assert view(folder.name).state == "crashed"


def test_a_process_that_took_the_number_of_another_is_not_alive():
    folder = new_run("analyze", "a", {}, None)
    me = psutil.Process()
    write_json(folder / PROCESS, "process", {"pid": me.pid, "created": me.create_time()})
    assert is_alive(folder)
    write_json(folder / PROCESS, "process", {"pid": me.pid, "created": me.create_time() - 60})
    assert not is_alive(folder)
    (folder / PROCESS).write_text("{")
    assert not is_alive(folder)


def test_a_zombie_is_not_alive():
    folder = new_run("analyze", "a", {}, None)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:  # not waited for inside
        created = psutil.Process(process.pid).create_time()
        write_json(folder / PROCESS, "process", {"pid": process.pid, "created": created})
        deadline = time.monotonic() + 10
        while is_alive(folder):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE


def test_what_a_worker_said_last_counts_though_its_process_is_gone():
    folder = new_run("quantize", "a", {"data": "full"}, None)
    write_json(folder / PROCESS, "process", {"pid": 2**22 + 1, "created": 0.0})
    writer = EventWriter(folder / EVENTS)
    writer.write("started")
    writer.progress(3, 10, "test images")
    writer.write("result", name="plan", result={"value": 0.5})
    writer.write("finished")
    writer.close()
    seen = view(folder.name)
    assert (seen.state, seen.done, seen.total, seen.note) == ("finished", 3, 10, "test images")
    assert seen.results == {"plan": {"value": 0.5}}
    assert (seen.options, seen.error, seen.eta_seconds) == ({"data": "full"}, None, None)
    assert seen.log_tail == ""


def test_a_sentence_for_an_error_without_one():
    assert sentence(ValueError()) == "ValueError: "
    assert sentence(FormatError("a.json must be whole.")) == "a.json must be whole."


# What cannot be


@pytest.mark.parametrize("run_id", ["", "..", "../..", "/etc", "20261123-121530-analyze-x-ab12/.."])
def test_an_id_never_leads_out_of_the_runs(run_id):
    with pytest.raises(ValueError, match=r"run must be the id of one in .*, got"):
        view(run_id)


def test_an_artefact_lies_in_its_run(runs):
    seen = view(new_run("analyze", "a", {}, None).name)
    assert seen.artefact("analysis.json") == seen.folder / "analysis.json"
    for name in ("../spec.json", "", "..", "a/b", str(runs)):
        with pytest.raises(ValueError, match="artefact must be the name of a file in the run, got"):
            seen.artefact(name)


@pytest.mark.parametrize(
    ("kind", "workload", "options", "said"),
    [
        ("finetun", "resnet20-cifar10", {}, "kind must be one of analyze, quantize, got 'finetun'"),
        ("analyze", "resnet20", {}, "workload must be one of resnet20-cifar10.*, got 'resnet20'"),
        (
            "analyze",
            "resnet20-cifar10",
            {"bitwidths": [2]},
            "options of analyze must be among data, .*, got 'bitwidths': the nearest is 'bit_wid",
        ),
        ("analyze", "resnet20-cifar10", {"data": "half"}, "data must be one of sample, full, got"),
        ("analyze", "resnet20-cifar10", {"bit_widths": (0,)}, r"bit_widths must be .* 1…8, got 0"),
        ("quantize", "resnet20-cifar10", {}, "options of quantize must hold a plan, got none"),
        (
            "quantize",
            "resnet20-cifar10",
            {"plan": {"workload": "resnet20-cifar10"}},
            "plan must hold the fields of a BitPlan, but",
        ),
        (
            "quantize",
            "resnet20-cifar10",
            {"plan": tiny_plan(3)},
            "plan must be for 'resnet20-cifar10', got one for 'tiny'",
        ),
    ],
)
def test_what_cannot_be_done_is_not_begun(kind, workload, options, said):
    with pytest.raises(ValueError, match=said):
        launch(kind, workload, options)
    assert list_runs() == []


# The work


def test_options_are_the_arguments_of_analyze():
    from engine.perturbation import analyze

    arguments = inspect.signature(analyze).parameters
    assert set(OPTIONS["analyze"]) == {*arguments, "data"} - {"workload", "progress", "command"}


def test_analyze_then_quantize_a_network_of_the_users_own(tmp_path):
    from engine.analysis import Analysis

    spec = workload_file(tmp_path, TINY)
    options = {"bit_widths": [2, 4, 8], "batch_size": 16}
    seen = wait_for_end(launch("analyze", "tiny", options, workload_file=spec))
    assert seen.state == "finished", seen.log_tail
    analysis = Analysis.load(seen.artefact("analysis.json"))
    assert analysis.bit_widths == (2, 4, 8)
    assert seen.results["analysis"]["images"] == analysis.images == 64
    assert seen.done == seen.total > 0

    plans = {"plan": tiny_plan(4), "uniform": tiny_plan(8)}
    seen = wait_for_end(launch("quantize", "tiny", plans, workload_file=spec))
    assert seen.state == "finished", seen.log_tail
    assert list(seen.results) == ["float", "plan", "uniform"]
    for result in seen.results.values():
        assert Evaluation.from_json(result).samples == 64
    saved = BitPlan.load(seen.artefact("quantized") / "plan.json")
    assert saved.weight_bits == {"0": 4, "3": 4}
    assert (seen.done, seen.total) == (3 * 64, 3 * 64)
