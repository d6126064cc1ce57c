"""The work itself, as a worker process and the command line do it."""

import math
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.analysis import Analysis
from engine.jobs.events import EventWriter
from engine.jobs.folders import Spec
from engine.results import BitPlan, Evaluation, Progress
from engine.workloads import DATA, load_workload, load_workload_file

if TYPE_CHECKING:
    from engine.workloads import Workload


def measure_plan(
    workload: "Workload",
    plan: BitPlan,
    *,
    folder: Path,
    uniform: BitPlan | None = None,
    max_images: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[str, Evaluation]]:
    """Quantize a network as planned, save it, and measure it beside the float network.

    Args:
        workload: What is quantized; its test images measure it.
        plan: Bits of every layer.
        folder: Where the quantized network is saved.
        uniform: Another plan to measure, for comparison; only the plan itself is saved.
        max_images: Test images, all if not given.
        progress: Told the images measured, over all networks.

    Yields:
        ("float", its evaluation), then the same for "plan" and "uniform".
    """
    from engine.evaluation import evaluate
    from engine.quantized import quantize, save_quantized

    rounded = quantize(workload, plan)
    save_quantized(rounded, folder)
    models = {"float": workload.model, "plan": rounded}
    given: dict[str, Any] = {} if max_images is None else {"max_images": max_images}
    again = partial(workload.command, "quantize", **given)
    commands = {
        "float": workload.command("evaluate", **given),
        "plan": again(plan=folder / "plan.json", out=folder),
    }
    if uniform is not None:
        models["uniform"] = quantize(workload, uniform)
        uniform.save(folder / "uniform.json")
        commands["uniform"] = again(plan=folder / "uniform.json", out=folder / "uniform")
    for stage, (name, model) in enumerate(models.items()):
        told = _part_of(progress, stage, len(models)) if progress else None
        evaluation = evaluate(
            model, workload, max_images=max_images, progress=told, command=commands[name]
        )
        yield name, evaluation


def summary_of(analysis: Analysis) -> dict[str, Any]:
    """What to tell of an analysis, as plain JSON; the whole is in its file."""
    errors = {"median": analysis.median_relative_sem, "worst": analysis.worst_relative_sem}
    return {
        "workload": analysis.workload,
        "layers": len(analysis.layers),
        "parameters": analysis.parameters,
        "bit_widths": list(analysis.bit_widths),
        "images": analysis.images,
        "data": analysis.provenance.data,
        **{f"{k}_relative_sem": x if math.isfinite(x) else None for k, x in errors.items()},
        "stopped_because": analysis.stopped_because,
        "exact": analysis.exact,
        "seconds": analysis.seconds,
    }


def _part_of(progress: Progress, stage: int, stages: int) -> Progress:
    """Progress of one of several equal stages, told as progress of all."""
    return lambda done, total, note: progress(stage * total + done, stages * total, note)


def load(name: str | None, file: str | None, data: str) -> "Workload":
    """Load a workload by name, or from FILE.py:FUNCTION where that is given.

    Raises:
        ValueError: If the name, the data or the form of the file are unknown.
        FormatError: If a file cannot be read.
    """
    if file is None:
        return load_workload(name or "", data)
    workload = load_workload_file(file)
    return replace(workload, origin=workload.origin or f"--workload-file {shlex.quote(file)}")


def do(spec: Spec, folder: Path, events: EventWriter) -> None:
    """Do what a run was asked, with its results as events and files in its folder."""
    options = dict(spec.options)
    workload = load(spec.workload, spec.workload_file, options.pop("data", DATA[0]))
    WORK[spec.work](workload, options, folder, events)


def _analyze(
    workload: "Workload", options: dict[str, Any], folder: Path, events: EventWriter
) -> None:
    from engine.perturbation import analyze

    if "bit_widths" in options:
        options["bit_widths"] = tuple(options["bit_widths"])
    analysis = analyze(workload, **options, progress=events.progress)
    analysis.save(folder / "analysis.json")
    events.write("result", name="analysis", result=summary_of(analysis))


def _quantize(
    workload: "Workload", options: dict[str, Any], folder: Path, events: EventWriter
) -> None:
    plan, uniform = BitPlan(**options.pop("plan")), options.pop("uniform", None)
    measured = measure_plan(
        workload,
        plan,
        folder=folder / "quantized",
        uniform=BitPlan(**uniform) if uniform else None,
        progress=events.progress,
    )
    for name, evaluation in measured:
        events.write("result", name=name, result=evaluation.to_json())


WORK: dict[str, Callable[["Workload", dict[str, Any], Path, EventWriter], None]] = {
    "analyze": _analyze,
    "quantize": _quantize,
}
