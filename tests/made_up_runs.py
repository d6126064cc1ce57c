"""Runs as a worker would have written them, from made-up numbers: no worker is started."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from made_up import made_up_evaluation

from engine.jobs.events import EventWriter
from engine.jobs.folders import EVENTS, LOG, PROCESS, new_run
from engine.results import BitPlan, wilson_interval, write_json
from hawq_viz.viewmodels.training import finetune_options

WORKLOAD = "resnet20-cifar10"
STEPS = 390
STEPS_A_MEASUREMENT = 39
FLOAT, ROUNDED, TUNED = 0.921, 0.586, 0.914

Event = tuple[str, dict[str, Any]]


def write_run(
    kind: str,
    options: dict[str, Any],
    *events: Event,
    log: str = "",
    alive: bool = False,
    worker: int | None = None,
    workload: str = WORKLOAD,
) -> Path:
    """The folder of a run with these events.

    Its worker has gone; or is this process, if alive; or another, which must be one to spare if the
    run is ever cancelled.
    """
    folder = new_run(kind, workload, options, None)
    process = psutil.Process(worker)
    created = process.create_time() if alive or worker else 0.0
    write_json(folder / PROCESS, "process", {"pid": process.pid, "created": created})
    append(folder, *events)
    (folder / LOG).write_text(log)
    return folder


def append(folder: Path, *events: Event) -> None:
    """Write further events of a run."""
    writer = EventWriter(folder / EVENTS)
    for event, fields in events:
        writer.write(event, **fields)
    writer.close()


def tuning_run(
    plan: BitPlan,
    *events: Event,
    recipe: str = "quick",
    seed: int | None = None,
    **more: Any,
) -> Path:
    """A run of kind "finetune"."""
    options = finetune_options(plan, recipe, "sample")
    if seed is not None:
        options["seed"] = seed
    return write_run("finetune", options, ("started", {}), *events, **more)


def seen(value: float, samples: int = 1000) -> dict[str, Any]:
    """An evaluation as measurements hold it."""
    low, high = wilson_interval(round(value * samples), samples)
    return {"value": value, "low": low, "high": high, "samples": samples, "loss": 1.2 - value}


def result(name: str, value: float, samples: int = 1000) -> Event:
    return "result", {"name": name, "result": made_up_evaluation(value, samples).to_json()}


def reference() -> Event:
    return "reference", {"held_out": seen(0.99), "test": seen(FLOAT)}


def measurement(step: int, value: float, best: bool = True) -> Event:
    held_out = min(1.0, value + 0.05)
    return "measurement", {
        "step": step,
        "held_out": seen(held_out),
        "test": seen(value),
        "best": best,
    }


def step(number: int, steps: int = STEPS) -> Event:
    wave = 0.1 * math.sin(12.9898 * number)
    return "step", {
        "step": number,
        "steps": steps,
        "epoch": number / steps,
        "loss": 0.2 + 1.5 * math.exp(-4 * number / steps) + wave,
        "learning_rate": 0.01,
    }


def progress(number: int, steps: int = STEPS) -> Event:
    return "progress", {"done": number, "total": steps, "note": "training steps"}


def opening() -> list[Event]:
    """Before the first step."""
    first = [result("float", FLOAT), result("plan", ROUNDED)]
    return [*first, reference(), measurement(0, ROUNDED)]


def training(until: int, after: int = 0, steps: int = STEPS) -> Iterator[Event]:
    """The steps after one until another, a measurement every so often; accuracy climbs."""
    for number in range(after + 1, until + 1):
        yield step(number, steps)
        if number % 4 == 0 or number == until:
            yield progress(number, steps)
        if number % STEPS_A_MEASUREMENT == 0:
            climbed = 1 - math.exp(-5 * number / steps)
            yield measurement(number, round(ROUNDED + (TUNED - ROUNDED) * climbed, 3))


def ending(tuned: float = TUNED, steps: int = STEPS, why: str = "steps") -> list[Event]:
    told = {"steps": steps, "best_step": steps, "stopped_because": why, "seconds": 65.0}
    return [
        result("finetuned", tuned),
        ("result", {"name": "training", "result": told}),
        ("finished", {}),
    ]


def whole(tuned: float = TUNED) -> list[Event]:
    """Everything a finished run says."""
    return [*opening(), *training(STEPS), *ending(tuned)]
