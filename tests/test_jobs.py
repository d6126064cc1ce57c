"""Runs, with real worker processes: what others see while they work, end, fail or die."""

import inspect
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import FAILS, SLEEPS, asleep, kill, tiny_plan, wait_for_end, wait_until, workload_file
from tiny import TINY

from engine.analysis import Analysis
from engine.jobs import cancel, delete, follow, launch, list_runs, resume, view
from engine.jobs.ending import REMOVED
from engine.jobs.events import Cancelled, EventWriter
from engine.jobs.folders import (
    CANCEL,
    EVENTS,
    ONNX,
    OUTCOMES,
    PACKED,
    PROCESS,
    RESERVE,
    SPEC,
    Spec,
    new_run,
)
from engine.jobs.launching import OPTIONS
from engine.jobs.options import FURTHER_OPTIONS, analysis_of
from engine.jobs.processes import SECONDS_TO_START, is_alive
from engine.jobs.reading import STEPS_FOR_ETA, EventReader, latest, seconds_at_work, seconds_left
from engine.jobs.runs import CRASHED
from engine.jobs.turns import SLOT, line, take_ticket, turn
from engine.jobs.work import training_seconds
from engine.jobs.worker import sentence
from engine.outcomes import Outcomes
from engine.results import (
    PLAN_FILE,
    BitPlan,
    Evaluation,
    FormatError,
    OnnxCheck,
    OnnxExport,
    PackedFile,
    write_json,
)
from engine.workloads import stored_analysis

pytestmark = pytest.mark.usefixtures("runs")

RESNET = {"workload": "resnet20-cifar10", "weight_bits": {"conv1": 8}, "size_bytes": 432.0} | {
    "omega": 0.0
}
GONE = {"pid": 2**22 + 1, "created": 0.0}  # a process that is not


# The events of a run


def test_events_come_back_in_order(tmp_path):
    writer, reader = EventWriter(tmp_path / EVENTS), EventReader(tmp_path / EVENTS)
    assert list(reader.rows()) == []
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


@given(
    st.lists(st.text(max_size=5), max_size=6),
    st.lists(st.text(max_size=5), max_size=3),
    st.data(),
)
def test_a_writer_heals_a_torn_line_and_loses_no_whole_one(tmp_path_factory, notes, more, data):
    lines = [json.dumps({"event": note, "time": 0}) for note in notes]
    written = "\n".join([*lines, ""]).encode()
    cut = data.draw(st.integers(0, len(written)))
    path = tmp_path_factory.mktemp("torn") / EVENTS
    path.write_bytes(written[:cut])
    writer = EventWriter(path)
    for note in more:
        writer.write(note)
    writer.close()
    found = [row["event"] for row in EventReader(path).rows()]
    whole = written[:cut].count(b"\n")
    torn = written[:cut].split(b"\n")[-1].decode()
    saved = [notes[whole]] if torn and torn == lines[whole] and more else []  # only its end lacked
    assert found == notes[:whole] + saved + more


@given(st.lists(st.binary(max_size=30), max_size=8), st.binary(max_size=10))
def test_garbage_is_passed_over(tmp_path_factory, lines, end):
    path = tmp_path_factory.mktemp("garbage") / EVENTS
    good = b'{"event": "started", "time": 1}'
    path.write_bytes(b"\n".join([*lines, good, *lines, good, end]))
    rows = EventReader(path).rows()
    assert [row["event"] for row in rows] == ["started", "started"]
    assert [row["event"] for row in reversed(rows)] == ["started", "started"]


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "progress", "time": 1, "done": 1, "note": "images"}',
        '{"event": "progress", "time": 1, "done": "1", "total": 2, "note": "images"}',
        '{"event": "progress", "time": 1, "done": true, "total": 2, "note": "images"}',
        '{"event": "progress", "time": 1, "done": 1, "total": 2, "note": "ima',
        '{"event": "result", "time": 1, "name": ["plan"], "result": {}}',
        '{"event": "result", "time": 1, "name": "plan", "result": 3}',
        '{"event": "failed", "time": 1, "error": null}',
        '{"event": ["failed"], "time": 1}',
        '{"event": "started", "time": "noon"}',
        '{"event": "started", "time": NaN}',
        f'{{"event": "started", "time": 1{"0" * 400}}}',
        '{"event": "step", "time": 1, "step": 1.5, "steps": 2, "epoch": 1, "loss": 0.1}',
        '{"event": "measurement", "time": 1, "step": 1, "held_out": {}, "test": {}, "best": true}',
        '{"event": "checkpoint", "time": 1}',
        "[" * 100_000,
        "\udcff\udcfe",
    ],
)
def test_an_event_with_fields_it_should_not_have_is_passed_over(line):
    folder = new_run("analyze", "a", {}, None)
    write_json(folder / PROCESS, "process", GONE)
    good = '{"event": "progress", "time": 1, "done": 1, "total": 2, "note": "images"}'
    (folder / EVENTS).write_text(f"{good}\n{line}\n", errors="surrogateescape")
    seen = view(folder.name)
    assert (seen.state, seen.done, seen.total, len(seen.rows)) == ("crashed", 1, 2, 1)
    assert [seen.id for seen in list_runs()] == [folder.name]


def test_runs_of_one_second_never_share_a_folder(monkeypatch):
    drawn = iter(["aaaa", "aaaa", "bbbb", "cccc"])  # the third may fall into another second
    monkeypatch.setattr("engine.jobs.folders.secrets.token_hex", lambda _: next(drawn))
    first, second = (new_run("analyze", "a", {}, None) for _ in range(2))
    assert first != second
    assert all(len(list(folder.glob("spec.json"))) == 1 for folder in (first, second))


def test_a_file_that_became_shorter_is_read_anew(tmp_path):
    line = '{"event": "%s", "time": 0}\n'
    (tmp_path / EVENTS).write_text(line % "started" + line % "finished")
    reader = EventReader(tmp_path / EVENTS)
    before = reader.rows()
    (tmp_path / EVENTS).write_text(line % "queued")
    assert [row["event"] for row in reader.rows()] == ["queued"]
    assert [row["event"] for row in before] == ["started", "finished"]


def test_rows_are_those_of_the_moment_someone_looked(tmp_path):
    writer, reader = EventWriter(tmp_path / EVENTS), EventReader(tmp_path / EVENTS)
    writer.progress(1, 9, "images")
    writer.write("started")
    before = reader.rows()
    writer.progress(2, 9, "images")
    writer.write("finished")
    writer.close()
    after = reader.rows()
    assert [row["event"] for row in before] == ["progress", "started"]
    assert [row["event"] for row in after] == ["progress", "started", "progress", "finished"]
    assert list(reversed(after)) == list(after)[::-1]
    assert after[-1]["event"] == "finished"
    assert after[1:3] == tuple(after)[1:3]


def test_what_is_written_when_the_run_should_stop_is_not_lost(tmp_path):
    wish = []
    writer = EventWriter(tmp_path / EVENTS, lambda: bool(wish))
    writer.write("started")
    wish.append("stop")
    for write in (
        lambda: writer.write("result", name="plan", result={}),
        lambda: writer.progress(1, 2, "images"),
        lambda: writer.progress(2, 2, "images"),
        writer.check,
    ):
        with pytest.raises(Cancelled):
            write()
    writer.end("cancelled")
    writer.close()
    rows = EventReader(tmp_path / EVENTS).rows()
    said = [row["event"] for row in rows]
    assert said == ["started", "result", "progress", "progress", "cancelled"]
    assert [row["done"] for row in rows if row["event"] == "progress"] == [1, 2]


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


def test_a_pause_before_a_resume_is_no_slow_step():
    before = progress((0, 1, 10), (9, 2, 10), (18, 3, 10))
    said = [{"time": 5000, "event": event} for event in ("resumed", "queued", "started")]
    assert seconds_left([*before, *said]) is None
    after = progress((6000, 3, 10))
    assert seconds_left([*before, *said, *after]) is None
    after = progress((6000, 3, 10), (6002, 4, 10), (6004, 5, 10))
    assert seconds_left([*before, *said, *after]) == 10


def test_the_rate_is_that_of_the_last_steps_of_a_run_at_work():
    folder = new_run("analyze", "a", {}, None)
    writer = EventWriter(folder / EVENTS)
    writer.write("started")
    rows = progress((0, 0, 10), (1, 1, 10), (2, 3, 10), (3, 5, 10))
    for row in rows:
        writer._append({**row, "note": "images"})
    assert view(folder.name).steps_per_second == 2
    assert view(folder.name).eta_seconds == 2.5
    writer.write("finished")
    writer.close()
    assert view(folder.name).steps_per_second is None


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), max_size=6), st.data())
def test_a_step_repeated_after_a_resume_is_there_once(attempts, data):
    rows, truth, reached = [], {}, 0  # the slow way: a table of steps, cut where a run goes on
    for checkpoint, length in attempts:
        begin = min(checkpoint, reached)
        rows.append({"event": "resumed", "time": 0})
        said = [step for step in range(begin + 1, begin + 1 + length) if data.draw(st.booleans())]
        for step in said:
            truth = {old: value for old, value in truth.items() if old < step}
            truth[step] = len(rows)
            rows.append({"event": "step", "time": 0, "step": step, "value": len(rows)})
            rows.append({"event": "progress", "time": 0, "done": step})
        reached = max([reached, *said])
    found = [(row["step"], row["value"]) for row in latest(rows, "step")]
    assert found == sorted(truth.items())
    assert len(latest(rows, "resumed")) == len(attempts)


def test_seconds_of_training_leave_out_the_pauses():
    told = [
        (0, "started"), (10, "result"), (12, "reference"), (14, "step"), (20, "step"),
        (100, "resumed"), (900, "started"), (950, "progress"), (960, "step"), (965, "checkpoint"),
        (999, "result"),
    ]  # fmt: skip
    rows = [{"time": seconds, "event": event} for seconds, event in told]
    assert training_seconds(rows) == (20 - 12) + (965 - 960)


def test_seconds_at_work_leave_out_waiting_and_pauses(tmp_path):
    told = [
        (0, "queued"), (50, "started"), (60, "result"), (62, "progress"), (65, "cancelled"),
        (500, "resumed"), (510, "queued"), (600, "started"), (650, "result"), (660, "progress"),
    ]  # fmt: skip
    fields = {"progress": {"done": 1, "total": 2, "note": ""}, "result": {"name": "", "result": {}}}
    after = [0, 0, 10, 12, 15, 15, 15, 15, 65, 75]  # s, each row being the last
    for count in range(len(told) + 1):
        with (tmp_path / EVENTS).open("w") as file:
            for seconds, event in told[:count]:
                row = {"event": event, "time": seconds, **fields.get(event, {})}
                file.write(json.dumps(row) + "\n")
        rows = EventReader(tmp_path / EVENTS).rows()
        assert seconds_at_work(rows) == (after[count - 1] if count else 0)


# Runs with real processes


def test_a_worker_that_is_killed_is_seen_as_crashed(runs, tmp_path):
    run_id = launch("analyze", "mine", workload_file=workload_file(tmp_path, SLEEPS))
    seen = asleep(run_id)
    assert (seen.state, seen.error) == ("running", None)
    kill(run_id)
    seen = wait_for_end(run_id)
    assert (seen.state, seen.error) == ("crashed", CRASHED)
    assert seen.folder == runs / run_id


def test_errors_of_other_kinds_are_told_with_their_kind(tmp_path):
    assert sentence(RuntimeError("no\n  memory"), tmp_path) == "RuntimeError: no memory"
    assert sentence(ValueError("bits must\nbe 3."), tmp_path) == "bits must be 3."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ValueError('no images')", "but ValueError('no images')."),
        ("RuntimeError('no\\n  memory')", "but RuntimeError('no\\n memory')."),
        ("SystemExit('enough')", "but SystemExit('enough')."),
    ],
)
def test_a_worker_that_fails_says_why_in_one_sentence(tmp_path, error, said):
    spec = workload_file(tmp_path, FAILS.format(error=error))
    seen = wait_for_end(launch("analyze", "mine", workload_file=spec))
    assert seen.state == "failed"
    file = spec.removesuffix(":make")
    assert seen.error == f"make() of {file} must return an engine.Workload, {said}"
    assert "\n" not in seen.error
    assert "Traceback" in seen.log_tail
    assert all("Traceback" not in json.dumps(row) for row in seen.rows)


def test_who_came_first_goes_first(runs, tmp_path):
    spec = workload_file(tmp_path, SLEEPS)
    first, second, third = (launch("analyze", "mine", workload_file=spec) for _ in range(3))
    asleep(first)
    for place, run_id in enumerate((second, third), 1):
        seen = wait_until(run_id, lambda seen: len(seen.rows) == 1)
        assert (seen.state, seen.place, seen.rows[0]["event"]) == ("queued", place, "queued")
    assert [seen.place for seen in list_runs()] == [2, 1, 0]
    kill(first)
    wait_for_end(first)
    resume(first)  # joins the line anew, at its end
    assert (view(first).state, view(first).place) == ("queued", 2)
    asleep(second)
    cancel(third)
    assert wait_for_end(third).state == "cancelled"
    wait_until(first, lambda seen: seen.place == 1)
    cancel(second)
    assert wait_for_end(second).state == "cancelled"
    wait_until(first, lambda seen: seen.state == "running")
    assert [row["event"] for row in view(first).rows][:3] == ["started", "resumed", "queued"]
    kill(first)
    assert wait_for_end(first).state == "crashed"
    assert (runs / SLOT).exists()


def test_a_worker_that_waits_knows_no_torch():
    code = "import sys, engine.jobs.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_that_does_not_listen_is_ended_and_can_be_resumed(tmp_path):
    run_id = launch("analyze", "mine", workload_file=workload_file(tmp_path, SLEEPS))
    asleep(run_id)
    process = psutil.Process(json.loads((view(run_id).folder / PROCESS).read_text())["pid"])
    cancel(run_id)
    assert (view(run_id).state, view(run_id).cancelling) == (
        "running",
        True,
    )  # it is not waited for
    cancel(run_id)
    seen = wait_for_end(run_id)
    assert (seen.state, seen.error, seen.cancelling) == ("cancelled", None, False)
    process.wait(60)
    cancel(run_id)  # again, harmless
    assert [row["event"] for row in view(run_id).rows] == ["started"]
    resume(run_id)
    seen = wait_until(run_id, lambda seen: seen.log_tail.count("asleep") == 2)
    assert (seen.state, seen.cancelling) == ("running", False)
    kill(run_id)
    assert wait_for_end(run_id).state == "crashed"


def test_the_wish_to_stop_outlives_who_wished(tmp_path):
    first = launch("analyze", "mine", workload_file=workload_file(tmp_path, SLEEPS))
    second = launch("analyze", "mine", workload_file=workload_file(tmp_path, SLEEPS))
    code = f"from engine.jobs import cancel; import os; cancel({second!r}); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    seen = wait_for_end(second)
    assert (seen.state, seen.rows[-1]["event"]) == ("cancelled", "cancelled")
    asleep(first)
    kill(first)


def test_of_two_who_resume_at_once_one_gets_it(tmp_path):
    run_id = launch("analyze", "mine", workload_file=workload_file(tmp_path, SLEEPS))
    asleep(run_id)
    kill(run_id)
    wait_for_end(run_id)
    refused = []

    def press() -> None:
        try:
            resume(run_id)
        except ValueError as error:
            refused.append(str(error))

    tabs = [threading.Thread(target=press) for _ in range(4)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert len(refused) == 3
    assert all("to be resumed, got" in text and "which is queued." in text for text in refused)
    wait_until(run_id, lambda seen: seen.log_tail.count("asleep") == 2)
    assert [row["event"] for row in view(run_id).rows] == ["started", "resumed", "started"]
    workers = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(view(run_id).folder) in (process.info["cmdline"] or ())
    ]
    assert len(workers) == 1
    kill(run_id)


def test_follow_ends_with_the_end(tmp_path):
    spec = workload_file(tmp_path, FAILS.format(error="ValueError('no.')"))
    states = [seen.state for seen in follow(launch("analyze", "mine", workload_file=spec))]
    assert states[-1] == "failed"
    assert set(states[:-1]) <= {"queued", "running"}


def test_a_run_is_seen_the_same_from_another_process_and_outlives_its_launcher(tmp_path):
    spec = workload_file(tmp_path, SLEEPS)
    code = f"from engine.jobs import launch; print(launch('analyze', 'x', workload_file={spec!r}))"
    run_id = subprocess.check_output([sys.executable, "-c", code], text=True).strip()
    asleep(run_id)
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


def test_a_run_without_a_process_is_queued_for_a_while_and_crashed_after():
    folder = new_run("analyze", "a", {}, None)
    assert view(folder.name).state == "queued"
    long_ago = time.time() - SECONDS_TO_START - 1
    os.utime(folder / "spec.json", (long_ago, long_ago))
    assert view(folder.name).state == "crashed"


@pytest.mark.parametrize(
    ("said", "alive", "wished", "state"),
    [
        ("", True, False, "queued"),
        ("", False, False, "crashed"),
        ("", False, True, "cancelled"),
        ("queued", True, False, "queued"),
        ("queued", True, True, "queued"),
        ("queued", False, True, "cancelled"),
        ("queued started", True, False, "running"),
        ("started progress", True, True, "running"),
        ("started progress", False, False, "crashed"),
        ("started progress", False, True, "cancelled"),
        ("started finished", True, True, "finished"),
        ("started finished", False, True, "finished"),
        ("started failed", False, False, "failed"),
        ("started cancelled", False, True, "cancelled"),
        ("started failed resumed", True, False, "queued"),
        ("started failed resumed", False, False, "crashed"),
        ("started failed resumed started", True, False, "running"),
        ("started crashed", True, False, "running"),  # no worker says so
    ],
)
def test_the_state_follows_from_what_was_said_and_who_lives(said, alive, wished, state):
    folder = new_run("analyze", "a", {}, None)
    me = psutil.Process()
    mine = {"pid": me.pid, "created": me.create_time()}
    write_json(folder / PROCESS, "process", mine if alive else GONE)
    fields = {"progress": {"done": 1, "total": 2, "note": "x"}, "failed": {"error": "out of luck."}}
    writer = EventWriter(folder / EVENTS)
    for event in said.split():
        writer.end(event, **fields.get(event, {}))
    writer.close()
    if wished:
        (folder / CANCEL).touch()
    seen = view(folder.name)
    assert seen.state == state
    assert seen.resumable == (state in ("failed", "cancelled", "crashed"))
    assert seen.cancelling == (wished and state in ("queued", "running"))
    assert seen.error == {"failed": "out of luck.", "crashed": CRASHED}.get(state)


def test_the_line_holds_the_living_in_the_order_they_came(runs):
    me = psutil.Process()
    folders = [new_run("analyze", name, {}, None) for name in "abcd"]
    for folder in reversed(folders):
        write_json(folder / PROCESS, "process", {"pid": me.pid, "created": me.create_time()})
        take_ticket(folder)
    a, b, c, d = (folder.name for folder in folders)
    assert line(runs) == [d, c, b, a]
    write_json(folders[2] / PROCESS, "process", GONE)
    assert line(runs) == [d, b, a]
    assert view(b).place == 1
    take_ticket(folders[3])
    assert line(runs) == [b, a, d]
    (folders[1] / "ticket").write_text("soon")
    assert line(runs) == [a, d]
    assert line(runs / "nowhere") == []


def test_a_free_slot_is_left_to_who_came_first(runs):
    me = psutil.Process()
    first, second = (new_run("analyze", name, {}, None) for name in "ab")
    for folder in (first, second):
        write_json(folder / PROCESS, "process", {"pid": me.pid, "created": me.create_time()})
        take_ticket(folder)
    looks = []

    def looks_twice() -> None:
        looks.append(line(runs))
        if len(looks) == 2:
            raise Cancelled

    with pytest.raises(Cancelled), turn(second, looks_twice):
        looks.append("its turn")
    assert looks == [[first.name, second.name]] * 2
    assert line(runs) == [first.name]  # who leaves gives back the ticket
    write_json(first / PROCESS, "process", GONE)
    with turn(second, looks_twice):  # that of a dead worker counts for nothing
        assert line(runs) == [second.name]
    assert line(runs) == []


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
    write_json(folder / PROCESS, "process", GONE)
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


def test_a_sentence_for_an_error_without_one(tmp_path):
    assert sentence(ValueError(), tmp_path) == "ValueError: "
    assert sentence(FormatError("a.json must be whole."), tmp_path) == "a.json must be whole."


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        OSError(27, "File too large"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "…" })'),
    ],
)
def test_a_full_disk_is_told_from_other_errors(tmp_path, error):
    wrapped = FormatError("it cannot be saved.")
    wrapped.__cause__ = error
    for seen in (error, wrapped):
        said = sentence(seen, tmp_path)
        assert said.startswith(f"the disk of {tmp_path} must have room for what the run writes, ")
        assert said.endswith(": free space, then resume.")
    assert sentence(OSError(13, "Permission denied"), tmp_path).startswith(
        "PermissionError: [Errno 13]"
    )


# What cannot be


def run_that_said(*events: str):
    folder = new_run("analyze", "a", {}, None)
    me = psutil.Process()
    mine = {"pid": me.pid, "created": me.create_time()}
    write_json(folder / PROCESS, "process", mine if events[-1] != "gone" else GONE)
    writer = EventWriter(folder / EVENTS)
    for event in events:
        writer.write(event, **({"error": "no."} if event == "failed" else {}))
    writer.close()
    return folder


@pytest.mark.parametrize(
    ("do", "said", "refused"),
    [
        (
            cancel,
            "finished",
            "must be queued or running to be cancelled, got .*, which is finished.",
        ),
        (cancel, "failed", "must be queued or running to be cancelled, got .*, which has failed."),
        (cancel, "gone", "must be queued or running to be cancelled, got .*, which has crashed."),
        (resume, "finished", "must be failed, cancelled or crashed to be resumed, .* is finished."),
        (resume, "started", "must be failed, cancelled or crashed to be resumed, .* is running."),
        (resume, "queued", "must be failed, cancelled or crashed to be resumed, .* is queued."),
        (delete, "started", "must be over to be deleted, got .* is running: cancel it first."),
        (delete, "queued", "must be over to be deleted, got .* is queued: cancel it first."),
    ],
)
def test_what_a_run_in_its_state_cannot_is_refused(do, said, refused):
    folder = run_that_said("started", said)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(ValueError, match=f"^run {refused}$"):
        do(folder.name)
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("do", [cancel, resume, delete])
def test_an_unknown_run_is_refused(do):
    with pytest.raises(ValueError, match=r"^run must be the id of one in .*, got '20260101-00"):
        do("20260101-000000-analyze-a-0000")


def test_a_run_that_was_damaged_cannot_go_on_but_go():
    folder = run_that_said("started", "failed")
    (folder / SPEC).write_text('{"kind": "run", "version": 1, "work": "analyze"}')
    with pytest.raises(FormatError, match=r"spec.json must hold every field of a saved run, but"):
        resume(folder.name)
    fields = {"work": "analyze", "workload": "a", "options": [], "created": "2026"}
    write_json(folder / SPEC, "run", fields)
    with pytest.raises(FormatError, match=r"every field of a saved run, but options is \[\]"):
        view(folder.name)
    assert list_runs() == []
    delete(folder.name)
    assert not folder.exists()


def test_a_deleted_run_is_gone_with_what_others_left_behind(runs):
    kept, gone = run_that_said("finished"), run_that_said("finished")
    (runs / f"{REMOVED}20260101-000000-analyze-a-0000").mkdir()
    view(gone.name)
    delete(gone.name)
    assert [seen.id for seen in list_runs()] == [kept.name]
    assert not list(runs.glob(f"{REMOVED}*"))
    with pytest.raises(ValueError, match="run must be the id of one in"):
        delete(gone.name)


@pytest.mark.parametrize("start", [launch, new_run])
def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path, start):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HAWQ_VIZ_RUNS", str(tmp_path / "file"))
    options = {} if start is launch else {"options": {}, "workload_file": None}
    said = rf"^the folder of runs, {tmp_path}/file, must be writable, but .*: free space or rights "
    with pytest.raises(
        FormatError, match=said + r"there, or choose another .* in HAWQ_VIZ_RUNS\.$"
    ):
        start("analyze", "resnet20-cifar10", **options)


@pytest.mark.parametrize("step", ["reserve_room", "start_worker"])
def test_what_could_not_be_started_leaves_nothing(monkeypatch, runs, step):
    def full(_) -> None:
        raise OSError(28, "No space left on device")

    module = "folders" if step == "reserve_room" else "launching"
    monkeypatch.setattr(f"engine.jobs.{module}.{step}", full)
    with pytest.raises(FormatError, match="must be writable, but No space left on device: free"):
        launch("analyze", "resnet20-cifar10")
    assert list(runs.iterdir()) == []


def test_a_resume_without_room_is_refused_and_changes_nothing(monkeypatch):
    def full(_) -> None:
        raise OSError(28, "No space left on device")

    folder = run_that_said("started", "failed")
    before = (folder / EVENTS).read_bytes()
    monkeypatch.setattr("engine.jobs.launching.reserve_room", full)
    with pytest.raises(FormatError, match="must be writable, but No space left on device: free"):
        resume(folder.name)
    assert (view(folder.name).state, (folder / EVENTS).read_bytes()) == ("failed", before)


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
        (
            "fine",
            "resnet20-cifar10",
            {},
            "kind must be one of check, analyze, quantize, finetune, export, got 'f",
        ),
        ("analyze", "resnet20", {}, "workload must be one of resnet20-cifar10.*, got 'resnet20'"),
        (
            "analyze",
            "resnet20-cifar10",
            {"bitwidths": [2]},
            "options of analyze must be among data, .*, got 'bitwidths': the nearest is 'bit_wid",
        ),
        (
            "analyze",
            "resnet20-cifar10",
            {"further": "stored", "seed": 1},
            "further must come with relative_sem, max_images, max_seconds alone, got seed: what is",
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
            "plan must be for 'resnet20-cifar10', got one for 'tiny'; the first layer that differs "
            "is '0'",
        ),
        (
            "finetune",
            "resnet20-cifar10",
            {"plan": RESNET | {"weight_bits": {"conv1": 8, "layer9.0": 2, "layer9.1": 2}}},
            "plan must be for 'resnet20-cifar10', got one of another network; the first layer that "
            r"differs is 'layer9.0': the layers are conv1, .*, fc\.",
        ),
        (
            "quantize",
            "resnet20-cifar10",
            {"plan": RESNET | {"activation_bits": {"conv1": 8, "layer2.0.shortcut.0": 4}}},
            "plan must be for 'resnet20-cifar10', got one of another network; the first activation "
            r"that differs is 'layer2.0.shortcut.0': the activations are conv1, .*, fc\.",
        ),
        (
            "finetune",
            "resnet20-cifar10",
            {"plan": RESNET | {"activation_bits": {"conv1": 0}}},
            r"activation_bits\['conv1'\] must be a whole number of bits in 1…8, got 0",
        ),
        ("finetune", "resnet20-cifar10", {}, "options of finetune must hold a plan, got none"),
        (
            "finetune",
            "resnet20-cifar10",
            {"plan": RESNET | {"weight_bits": {"conv1": 9}}},
            r"weight_bits\['conv1'\] must be a whole number of bits in 1…8, got 9",
        ),
        (
            "finetune",
            "resnet20-cifar10",
            {"plan": RESNET | {"weight_bits": [8]}},
            "plan must hold the fields of a BitPlan, but",
        ),
        *(
            ("finetune", "resnet20-cifar10", {"plan": RESNET} | options, said)
            for options, said in [
                ({"learning_rate": 0}, "learning_rate must be above 0, got 0"),
                ({"learning_rate": -0.1}, "learning_rate must be above 0, got -0.1"),
                ({"learning_rate": "fast"}, "options of finetune must be numbers and names, but"),
                ({"epochs": 0}, "epochs must be above 0, got 0"),
                ({"epoch": 1}, "options of finetune must be among .*: the nearest is 'epochs'"),
                ({"optimizer": "adam"}, "optimizer must be one of .*adamw.*, got 'adam'"),
                ({"activation_ranges": "live"}, "activation_ranges must be one of .*, got 'live'"),
                ({"seed": -1}, "seed must be a whole number from 0 on, got -1"),
                ({"seed": 0.5}, "seed must be a whole number from 0 on, got 0.5"),
                ({"checkpoint_every": 0}, "checkpoint_every must be a whole number from 1 on, got"),
                ({"weight_decay": float("nan")}, "options of finetune must be plain JSON, but"),
                ({"batch_size": {1}}, "options of finetune must be plain JSON, but"),
            ]
        ),
    ],
)
def test_what_cannot_be_done_is_not_begun(kind, workload, options, said):
    with pytest.raises(ValueError, match=said):
        launch(kind, workload, options)
    assert list_runs() == []


def test_a_network_whose_layers_are_not_known_is_left_to_the_worker(monkeypatch, tmp_path):
    monkeypatch.setattr("engine.jobs.options.stored_analysis", lambda _: tmp_path / "none.json")
    monkeypatch.setattr("engine.jobs.launching.start_worker", lambda _: None)
    options = {"plan": RESNET | {"weight_bits": {"layer9.0": 2}}}
    assert view(launch("finetune", "resnet20-cifar10", options)).options == options


# The work


def test_options_are_the_arguments_of_analyze():
    from engine.perturbation import analyze

    arguments = inspect.signature(analyze).parameters
    asked = {*arguments, "data", "further"} - {"workload", "progress", "command"}
    assert set(OPTIONS["analyze"]) == asked


def test_options_of_going_on_are_arguments_of_analyze_further():
    from engine.further import analyze_further

    assert set(FURTHER_OPTIONS) <= set(inspect.signature(analyze_further).parameters)


def test_an_analysis_goes_on_from_a_finished_one_of_the_same_network():
    folder = new_run("analyze", "a", {}, None)
    sentence = "further must be a finished run that analyzed 'b', got .*: analyze of 'a', queued"
    with pytest.raises(ValueError, match=sentence):
        analysis_of("b", folder.name)
    assert analysis_of("resnet20-cifar10", "stored") == stored_analysis("resnet20-cifar10")


def test_a_run_goes_on_from_a_run(monkeypatch, tmp_path):
    from engine.jobs.work import do

    file = workload_file(tmp_path, TINY, "tiny")
    monkeypatch.setattr("engine.jobs.work.analysis_of", lambda _, source: Path(source))
    first, both = tmp_path / "first" / "analysis.json", tmp_path / "both" / "analysis.json"
    options = {"bit_widths": [2, 4], "batch_size": 1, "relative_sem": 1e-9, "max_images": 40}
    for path, told in ((first, options), (both, {"further": str(first)})):
        path.parent.mkdir()
        events = EventWriter(path.parent / EVENTS)
        do(Spec("analyze", "tiny", told, "2026-01-01", file), path.parent, events)
        events.close()
    one, longer = Analysis.load(first), Analysis.load(both)
    assert (one.images, longer.images, longer.exhausted) == (40, 64, True)
    assert (longer.batch_traces[:40] == one.batch_traces).all()
    assert f"--further {first} " in longer.provenance.command


def test_options_are_the_arguments_of_finetune():
    from engine.finetuning import finetune
    from engine.recipe import Recipe

    arguments = {*inspect.signature(finetune).parameters, *inspect.signature(Recipe).parameters}
    given = arguments - {"workload", "checkpoint", "settings"}
    assert set(OPTIONS["finetune"]) == {*given, "data"}


def test_analyze_then_quantize_a_network_of_the_users_own(tmp_path):
    from engine.analysis import Analysis

    spec = workload_file(tmp_path, TINY)
    options = {"bit_widths": [2, 4, 8], "batch_size": 16}
    seen = wait_for_end(launch("check", "tiny", workload_file=spec))
    assert (seen.state, list(seen.results)) == ("finished", ["checklist"]), seen.log_tail
    seen = wait_for_end(launch("analyze", "tiny", options, workload_file=spec))
    assert seen.state == "finished", seen.log_tail
    analysis = Analysis.load(seen.artefact("analysis.json"))
    assert analysis.bit_widths == (2, 4, 8)
    assert seen.results["analysis"]["images"] == analysis.images == 64
    assert seen.results["checklist"] == {"findings": []}
    assert analysis.findings == ()
    assert (seen.workload_file, seen.weights) == (spec, None)
    assert seen.done == seen.total > 0

    plans = {"plan": tiny_plan(4), "uniform": tiny_plan(8)}
    seen = wait_for_end(launch("quantize", "tiny", plans, workload_file=spec))
    assert seen.state == "finished", seen.log_tail
    assert list(seen.results) == ["float", "plan", "uniform"]
    for name, result in seen.results.items():
        assert Evaluation.from_json(result).samples == 64
        each = Outcomes.load(seen.artefact(OUTCOMES) / f"{name}.safetensors")
        assert (len(each.losses), each.right.mean()) == (64, result["value"])
    saved = BitPlan.load(seen.artefact("quantized") / "plan.json")
    assert saved.weight_bits == {"0": 4, "3": 4}
    assert (seen.done, seen.total) == (3 * 64, 3 * 64)
    assert not seen.artefact(RESERVE).exists()

    seen = wait_for_end(launch("export", "tiny", {"of": seen.id}, workload_file=spec))
    assert seen.state == "finished", seen.log_tail
    assert list(seen.results) == ["packed", "onnx", "onnx_check"]
    file = PackedFile.from_json(seen.results["packed"]["file"])
    assert file.file_bytes == seen.artefact(PACKED).stat().st_size
    assert file.weight_bytes == 14 + 18
    assert (seen.results["packed"]["images"], seen.results["packed"]["same"]) == (32, True)
    assert OnnxExport.from_json(seen.results["onnx"]).file_bytes == (
        seen.artefact(ONNX).stat().st_size
    )
    check = OnnxCheck.from_json(seen.results["onnx_check"])
    assert check.onnx is not None
    assert check.onnx.value == check.pytorch.value
    assert BitPlan.load(seen.artefact(PLAN_FILE)) == saved


# A network whose path depends on its values: ONNX has no such thing.
BRANCHES = """
import torch
from torch.utils.data import TensorDataset
from engine.workloads import Workload

class Branching(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 3)

    def forward(self, x):
        y = self.fc(x)
        return y if y.detach().sum() > 0 else -y

def make():
    data = TensorDataset(torch.randn(64, 4), torch.arange(64) % 3)
    return Workload("branching", Branching().eval(), calibration=data, train=data, test=data)
"""


def test_a_network_that_onnx_cannot_hold_is_exported_without(tmp_path):
    spec = workload_file(tmp_path, BRANCHES)
    plan = {"workload": "branching", "weight_bits": {"fc": 4}, "size_bytes": 6.0, "omega": 0.0}
    made = wait_for_end(launch("quantize", "branching", {"plan": plan}, workload_file=spec))
    seen = wait_for_end(launch("export", "branching", {"of": made.id}, workload_file=spec))
    assert seen.state == "finished", seen.log_tail
    assert list(seen.results) == ["packed", "onnx"]
    assert seen.results["onnx"]["refused"].startswith(
        "model must be one that torch.onnx can export, got Branching: "
    )
    assert seen.artefact(PACKED).exists()
    assert not seen.artefact(ONNX).exists()


def test_only_what_a_finished_run_quantized_is_exported():
    running = new_run("quantize", "tiny", {}, None)
    others = new_run("analyze", "resnet20-cifar10", {}, None)
    for folder in (running, others):
        message = (
            f"of must be a finished run that quantized 'resnet20-cifar10', got {folder.name}: "
        )
        with pytest.raises(ValueError, match=message):
            launch("export", "resnet20-cifar10", {"of": folder.name})
    with pytest.raises(ValueError, match=r"run must be the id of one in .*, got ''"):
        launch("export", "resnet20-cifar10", {})


def test_finetune_a_network_of_the_users_own(tmp_path):
    from engine import finetune, load_quantized
    from engine.evaluation import evaluate
    from engine.finetuning import Finished
    from engine.workloads import load_workload_file

    spec = workload_file(tmp_path, TINY)
    settings = {"epochs": 1, "evaluate_every": 20, "seed": 3, "learning_rate": 0.02}
    options = {"plan": tiny_plan(2), "recipe": "quick", **settings}
    seen = wait_for_end(launch("finetune", "tiny", options, workload_file=spec))
    assert seen.state == "finished", seen.log_tail
    assert list(seen.results) == ["float", "plan", "training", "finetuned"]
    trained = seen.results["training"]
    steps = trained["steps"]
    assert trained["stopped_because"] == "steps"
    assert 0 < trained["seconds"] < 600
    events = [row["event"] for row in seen.rows]
    assert events.index("reference") > max(
        i for i, row in enumerate(seen.rows) if row.get("name") == "plan"
    )
    assert seen.latest("step")[-1]["step"] == seen.latest("step")[-1]["steps"] == steps
    assert [row["step"] for row in seen.latest("measurement")] == [0, 20, 40, steps]
    assert seen.latest("checkpoint")[-1]["step"] == steps
    assert seen.artefact("checkpoint.pt").is_file()
    shown = seen.latest("measurement")[-1]["test"]
    assert shown["low"] <= shown["value"] <= shown["high"]
    assert ("training steps", steps) in {
        (row["note"], row["total"]) for row in seen.rows if row["event"] == "progress"
    }

    workload = load_workload_file(spec)
    plan = BitPlan(**tiny_plan(2))
    *_, last = finetune(workload, plan, **settings)
    assert isinstance(last, Finished)
    saved = load_quantized(workload, seen.artefact("quantized")).state_dict()
    assert all((saved[name] == value).all() for name, value in last.model.state_dict().items())
    measured = Evaluation.from_json(seen.results["finetuned"])
    assert measured.value == evaluate(last.model, workload).value
    for name in ("float", "plan", "finetuned"):
        each = Outcomes.load(seen.artefact(OUTCOMES) / f"{name}.safetensors")
        assert each.right.mean() == seen.results[name]["value"]
    command = measured.provenance.command
    for word in ("--finetune 1", "--learning-rate 0.02", "--seed 3", "--evaluate-every 20"):
        assert word in command
    assert "--finetune" not in Evaluation.from_json(seen.results["plan"]).provenance.command
