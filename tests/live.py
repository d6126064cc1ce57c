"""Real runs for tests: workload files that work, wait or fail, and what becomes of processes."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from engine.jobs import FINAL, RunView, runs_folder, view
from engine.jobs.folders import PROCESS

SLEEPS = "import time\ndef make():\n    print('asleep', flush=True)\n    time.sleep(600)\n"
FAILS = "def make():\n    raise {error}\n"

# So few images that a step takes one and an epoch 60 steps; the loss takes its time.
SLOW = """
import time, torch
from torch.utils.data import TensorDataset
from engine.workloads import Workload

def loss(outputs, targets):
    time.sleep({seconds})
    return torch.nn.functional.cross_entropy(outputs, targets)

def make():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(12, {width}), torch.nn.ReLU(), torch.nn.Linear({width}, 3),
    )
    data = TensorDataset(torch.randn(64, 1, 4, 4), torch.arange(64) % 3)
    return Workload("slow", model.eval(), calibration=data, train=data, test=data, loss=loss)
"""
SECONDS = 600  # that anything may take: far more than it does, even on a busy machine


def workload_file(folder: Path, text: str, name: str = "mine") -> str:
    """Write a workload file; how to name it to `launch`."""
    (folder / f"{name}.py").write_text(text)
    return f"{folder / name}.py:make"


def slow_file(folder: Path, *, seconds: float = 0.01, width: int = 8) -> str:
    """A network whose fine-tuning takes its time."""
    return workload_file(folder, SLOW.format(seconds=seconds, width=width), "slow")


def slow_options(*, bits: int = 3, **settings: object) -> dict:
    """What to ask for to fine-tune it."""
    plan = {"weight_bits": {"0": bits, "3": bits, "5": bits}, "size_bytes": 0.0, "omega": 0.0}
    return {"plan": {"workload": "slow", **plan}, "evaluation_images": 4, **settings}


def tiny_plan(bits: int) -> dict:
    """Fields of a plan for the network of `tiny.py`."""
    parameters = {"0": 27, "3": 36}
    size = sum(parameters.values()) * bits / 8
    fields = {"weight_bits": dict.fromkeys(parameters, bits), "size_bytes": size, "omega": 0.0}
    return {"workload": "tiny", **fields}


def wait_until(run_id: str, met: Callable[[RunView], bool]) -> RunView:
    """Look at a run until something is so."""
    deadline = time.monotonic() + SECONDS
    while not met(seen := view(run_id)):
        assert time.monotonic() < deadline, (seen.state, seen.error, seen.log_tail)
        time.sleep(0.02)
    return seen


def wait_for_end(run_id: str) -> RunView:
    """Look at a run until it is over."""
    return wait_until(run_id, lambda seen: seen.state in FINAL)


def asleep(run_id: str) -> RunView:
    """Wait until a run of `SLEEPS` is at work."""
    return wait_until(run_id, lambda seen: "asleep" in seen.log_tail)


def step_of(seen: RunView) -> int:
    """The last training step that a run has told of."""
    return max((row["step"] for row in seen.rows if row["event"] == "step"), default=0)


def pid_of(run_id: str) -> int:
    """The process of a run."""
    return json.loads((runs_folder() / run_id / PROCESS).read_text())["pid"]


def kill(run_id: str) -> None:
    """Kill a run's process, as a machine that runs out of memory would."""
    os.kill(pid_of(run_id), signal.SIGKILL)
