"""What runs go through: killed workers, killed servers, full disks; with real processes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from live import SECONDS, kill, slow_file, slow_options, step_of, wait_for_end, wait_until
from tiny import TINY

from engine.jobs import follow, launch, resume, view
from engine.jobs.folders import EVENTS
from engine.quantized import WEIGHTS_FILE

pytestmark = pytest.mark.usefixtures("runs")

KILLS = 10
TORN = b'{"event": "step", "time": 17'  # what a writer leaves that dies over a line
ROOT = Path(__file__).parents[1]


def told(seen, event: str) -> list[dict]:
    """The rows of an event without their times."""
    return [{key: row[key] for key in row if key != "time"} for row in seen.latest(event)]


def test_killed_ten_times_it_ends_as_if_it_never_was(tmp_path):
    spec, chance = slow_file(tmp_path), random.Random(0)
    options = slow_options(epochs=8, checkpoint_every=20, evaluate_every=50, seed=1)
    whole = launch("finetune", "slow", options, workload_file=spec)
    wait_for_end(whole)
    run_id = launch("finetune", "slow", options, workload_file=spec)
    for target in sorted(chance.sample(range(1, 450), KILLS)):
        seen = wait_until(
            run_id, lambda seen, target=target: seen.state == "running" and step_of(seen) >= target
        )
        time.sleep(chance.uniform(0, 0.2))
        kill(run_id)
        assert wait_for_end(run_id).state == "crashed"
        events = seen.folder / EVENTS
        said = events.read_bytes()
        with events.open("ab") as file:
            file.write(TORN)
        resume(run_id)
        assert events.read_bytes().startswith(said)
    seen, truth = wait_for_end(run_id), view(whole)
    assert (truth.state, seen.state) == ("finished", "finished"), seen.log_tail
    lines = (seen.folder / EVENTS).read_bytes().splitlines()
    assert lines.count(TORN) == KILLS
    assert len(seen.rows) == len(lines) - KILLS
    assert told(seen, "measurement") == told(truth, "measurement")
    losses = {row["step"]: row for row in told(truth, "step")}
    steps = told(seen, "step")
    assert all(losses.get(row["step"], row) == row for row in steps)
    assert [row["step"] for row in steps] == sorted({row["step"] for row in steps})
    assert steps[-1]["step"] == steps[-1]["steps"] == truth.results["training"]["steps"]
    for name in ("float", "plan"):  # measured once, before the first cut
        assert sum(row.get("name") == name for row in seen.rows) == 1
    weights = [run.artefact("quantized") / WEIGHTS_FILE for run in (seen, truth)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    for run in (seen, truth):
        run.results["training"].pop("seconds")
        run.results["finetuned"].pop("provenance")
    assert seen.results["training"] == truth.results["training"]
    assert seen.results["finetuned"] == truth.results["finetuned"]


def test_a_run_goes_on_when_its_server_is_killed_and_all_tabs_see_the_same(tmp_path):
    (tmp_path / "tiny.py").write_text(TINY)
    plan = {"weight_bits": {"0": 4, "3": 4}, "size_bytes": 31.5, "omega": 0.0}
    options = {"plan": {"workload": "tiny", **plan}, "epochs": 1}
    code = (
        "import time; from engine.jobs import launch; "
        f"print(launch('finetune', 'tiny', {options!r}, "
        f"workload_file={str(tmp_path / 'tiny.py') + ':make'!r}), flush=True); time.sleep(600)"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    run_id = server.stdout.readline().strip()
    os.killpg(server.pid, signal.SIGKILL)
    server.communicate()
    ends = []
    tabs = [threading.Thread(target=lambda: ends.append([*follow(run_id)][-1])) for _ in range(2)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join(SECONDS)
    assert [seen.state for seen in ends] == ["finished", "finished"], ends[0].log_tail
    assert list(ends[0].rows) == list(ends[1].rows)
    code = f"import json; from engine.jobs import view; print(json.dumps([*view({run_id!r}).rows]))"
    other = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert json.loads(other) == list(ends[0].rows)


def full_disk(folder: Path, way: str) -> dict:
    """Run `full_disk.py`; as root of a namespace of its own where this process is not root."""
    command = [sys.executable, str(ROOT / "tests" / "full_disk.py"), str(folder), way]
    if way == "mount" and os.geteuid() != 0:
        command = ["unshare", "--user", "--map-root-user", "--mount", *command]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def can_mount() -> bool:
    """Whether a small disk can be had."""
    if os.geteuid() == 0:
        return shutil.which("mount") is not None
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs"]
    try:
        return subprocess.run([*command, "tmpfs", "/mnt"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("way", ["mount", "limit"])
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(tmp_path, way):
    seen = full_disk(tmp_path, way if way == "limit" or can_mount() else "limit")
    assert seen["failed"]
    for state, error, log in seen["failed"]:
        assert state == "failed", (error, log)
        assert error.startswith("the disk of "), error
        assert error.endswith(": free space, then resume."), error
    assert not any(seen["reserves"])
    if seen["refused"] is not None:
        assert "must be writable, but No space left on device: free space" in seen["refused"]
    assert seen["state"] == "finished", (seen["error"], seen["log"])
    assert seen["results"] == ["float", "plan", "training", "finetuned"]
    assert seen["floats"] == 1
    assert seen["steps"] == sorted(set(seen["steps"]))
    assert seen["steps"][-1] == seen["last"]
