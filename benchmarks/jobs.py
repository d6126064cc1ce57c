"""How soon a run stops that is cancelled, and how soon many runs are listed.

python benchmarks/jobs.py
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from setting import print_setting, verdict

from engine import jobs
from engine.jobs.events import EventWriter
from engine.jobs.folders import EVENTS, LOG, PROCESS, new_run
from engine.results import write_json

RUNS, STEPS, MEASUREMENTS = 200, 480, 20  # twice a step, so about 1 000 rows a run
LISTED_SECONDS, CANCELLED_SECONDS = 0.3, 3.0  # goals
REPEATS = 5

WORKLOAD = """
import time, torch
from torch.utils.data import TensorDataset
from engine.workloads import Workload

def loss(outputs, targets):
    time.sleep(0.05)
    return torch.nn.functional.cross_entropy(outputs, targets)

def make():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    data = TensorDataset(torch.randn(64, 1, 4, 4), torch.arange(64) % 3)
    return Workload("slow", model.eval(), calibration=data, train=data, test=data, loss=loss)

def sleep():
    print("asleep", flush=True)
    time.sleep(600)
"""
PLAN = {"workload": "slow", "weight_bits": {"1": 4}, "size_bytes": 24.0, "omega": 0.0}
LISTING = """
from time import perf_counter
from engine import jobs
start = perf_counter()
runs = jobs.list_runs()
print(perf_counter() - start, len(runs), sum(run.state == "finished" for run in runs))
"""


def write_runs() -> int:
    """Write the runs as workers would have; rows of each."""
    for number in range(RUNS):
        folder = new_run("finetune", "slow", {"plan": PLAN, "recipe": "full"}, None)
        write_json(folder / PROCESS, "process", {"pid": 2**22 + 1, "created": 0.0})
        (folder / LOG).touch()
        rows = 3
        events = EventWriter(folder / EVENTS)
        events.write("started")
        result = {"metric": "top-1", "value": 0.9, "interval": [0.89, 0.91], "samples": 10_000}
        events.write("result", name="float", result=result)
        measured = {"value": 0.9, "low": 0.89, "high": 0.91, "samples": 1000, "loss": 0.1}
        for step in range(1, STEPS + 1):
            fields = {"step": step, "steps": STEPS, "epoch": step / 160, "learning_rate": 0.01}
            events.end("step", **fields, loss=1 / step)
            events.end("progress", done=step, total=STEPS, note="training steps")
            rows += 2
            if step % (STEPS // MEASUREMENTS) == 0:
                shown = {"held_out": measured, "test": measured}
                events.write("measurement", step=step, **shown, best=True)
                rows += 1
        if number % 10:  # one in ten was cut
            events.write("finished")
        events.close()
    return rows


def report_listing() -> None:
    """Print how soon a process that has just begun has listed all runs."""
    rows = write_runs()
    inner, whole = [], []
    for _ in range(REPEATS):
        start = perf_counter()
        said = subprocess.check_output([sys.executable, "-c", LISTING], text=True)
        whole.append(perf_counter() - start)
        seconds, listed, finished = said.split()
        inner.append(float(seconds))
    print(f"{listed} runs of about {rows:,} rows, {finished} finished, the others cut")
    print(f"  listed in a new process          {1000 * median(inner):5.0f} ms ", end="")
    print(f"(goal: under {1000 * LISTED_SECONDS:.0f}, {verdict(median(inner) < LISTED_SECONDS)})")
    print(f"  that process as a whole          {1000 * median(whole):5.0f} ms\n", flush=True)


def until(run_id: str, met: Callable[[jobs.RunView], bool]) -> None:
    """Look at a run until something is so."""
    while not met(jobs.view(run_id)):
        time.sleep(0.01)


def seconds_to_cancel(run_id: str) -> tuple[float, float]:
    """How long the call takes, and how long it takes until the run is cancelled."""
    start = perf_counter()
    jobs.cancel(run_id)
    called = perf_counter() - start
    until(run_id, lambda seen: seen.state == "cancelled")
    return called, perf_counter() - start


def report_cancelling(spec: str) -> None:
    """Print how soon runs stop: in training, deaf, and queued."""
    options = {"plan": PLAN, "epochs": 1000, "evaluation_images": 4}
    times: dict[str, list[tuple[float, float]]] = {"training": [], "deaf": [], "queued": []}
    for _ in range(REPEATS):
        run_id = jobs.launch("finetune", "slow", options, workload_file=f"{spec}:make")
        until(run_id, lambda seen: any(row["event"] == "step" for row in seen.rows))
        waiting = jobs.launch("finetune", "slow", options, workload_file=f"{spec}:make")
        until(waiting, lambda seen: len(seen.rows) > 0)
        times["queued"].append(seconds_to_cancel(waiting))
        times["training"].append(seconds_to_cancel(run_id))
        run_id = jobs.launch("finetune", "slow", options, workload_file=f"{spec}:sleep")
        until(run_id, lambda seen: "asleep" in seen.log_tail)
        times["deaf"].append(seconds_to_cancel(run_id))
    print(f"from the call to “cancelled”, {REPEATS} runs each    median    worst    the call")
    for what, seconds in times.items():
        called, over = zip(*seconds, strict=True)
        print(
            f"  {what:<35}   {median(over):8.2f} s {max(over):6.2f} s {max(called):8.3f} s ", end=""
        )
        print(f"(goal: under {CANCELLED_SECONDS:.0f}, {verdict(max(over) < CANCELLED_SECONDS)})")


def main() -> None:
    """Measure in a folder of its own."""
    print_setting("Runs: listing and cancelling them", "torch", "psutil", "filelock")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HAWQ_VIZ_RUNS"] = str(Path(folder) / "many")
        report_listing()
        os.environ["HAWQ_VIZ_RUNS"] = str(Path(folder) / "few")
        (Path(folder) / "slow.py").write_text(WORKLOAD)
        report_cancelling(str(Path(folder) / "slow.py"))


if __name__ == "__main__":
    main()
