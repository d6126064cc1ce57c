"""The work itself, as a worker process and the command line do it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.jobs.events import EventWriter
from engine.jobs.folders import Spec
from engine.results import BitPlan, Evaluation, Progress

if TYPE_CHECKING:
    from engine.workloads import Workload


def measure_plan(
    workload: "Workload",
    plan: BitPlan,
    *,
    folder: Path,
    uniform: BitPlan | None = None,
    quantizer: Mapping[str, str] | None = None,
    max_images: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[str, Evaluation]]:
    """Quantize a network as planned, save it, and measure it beside the float network.

    Args:
        workload: What is quantized; its test images measure it.
        plan: Bits of every layer.
        folder: Where the quantized network is saved.
        uniform: Another plan to measure, for comparison; it is not saved.
        quantizer: scheme, weight_granularity and weight_range, where not the default ones.
        max_images: Test images, all if not given.
        progress: Told the images measured, over all networks.

    Yields:
        ("float", its evaluation), then the same for "plan" and "uniform".
    """
    from engine.evaluation import evaluate
    from engine.quantized import quantize, save_quantized

    plans = {"float": None, "plan": plan, "uniform": uniform}
    plans = {name: it for name, it in plans.items() if it is not None or name == "float"}
    for stage, (name, chosen) in enumerate(plans.items()):
        model = workload.model
        if chosen is not None:
            model = quantize(workload, chosen, **(quantizer or {}))
        if name == "plan":
            save_quantized(model, folder)
        told = _part_of(progress, stage, len(plans)) if progress else None
        yield name, evaluate(model, workload, max_images=max_images, progress=told)


def _part_of(progress: Progress, stage: int, stages: int) -> Progress:
    """Progress of one of several equal stages, told as progress of all."""
    return lambda done, total, note: progress(stage * total + done, stages * total, note)


def do(spec: Spec, folder: Path, events: EventWriter) -> None:
    """Do what a run was asked, with its results as events and files in its folder."""
    options = dict(spec.options)
    data = options.pop("data", "sample")
    WORK[spec.work](_load(spec, data), options, folder, events)


def _load(spec: Spec, data: str) -> "Workload":
    from engine.workloads import load_workload, load_workload_file

    if spec.workload_file is not None:
        return load_workload_file(spec.workload_file)
    return load_workload(spec.workload, data)


def _analyze(
    workload: "Workload", options: dict[str, Any], folder: Path, events: EventWriter
) -> None:
    from engine.perturbation import analyze

    if "bit_widths" in options:
        options["bit_widths"] = tuple(options["bit_widths"])
    analysis = analyze(workload, **options, progress=events.progress)
    analysis.save(folder / "analysis.json")
    summary = {
        "layers": len(analysis.layers),
        "exact": analysis.exact,
        "images": analysis.images,
        "median_relative_sem": analysis.median_relative_sem,
        "stopped_because": analysis.stopped_because,
        "seconds": analysis.seconds,
    }
    events.write("result", name="analysis", result=summary)


def _quantize(
    workload: "Workload", options: dict[str, Any], folder: Path, events: EventWriter
) -> None:
    plan, uniform = BitPlan(**options.pop("plan")), options.pop("uniform", None)
    measured = measure_plan(
        workload,
        plan,
        folder=folder / "quantized",
        uniform=BitPlan(**uniform) if uniform else None,
        quantizer=options,
        progress=events.progress,
    )
    for name, evaluation in measured:
        events.write("result", name=name, result=evaluation.to_json())


WORK: dict[str, Callable[["Workload", dict[str, Any], Path, EventWriter], None]] = {
    "analyze": _analyze,
    "quantize": _quantize,
}
