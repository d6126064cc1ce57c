"""The work itself, as a worker process and the command line do it."""

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.analysis import Analysis, Finding
from engine.jobs.events import EventWriter, Row
from engine.jobs.folders import ANALYSIS, CHECKPOINT, EVENTS, ONNX, OUTCOMES, PACKED, Spec
from engine.jobs.options import analysis_of
from engine.jobs.reading import EventReader
from engine.jobs.runs import view
from engine.outcomes import Outcomes
from engine.recipe import Recipe
from engine.results import PLAN_FILE, BitPlan, Evaluation, Progress
from engine.workloads import DATA, load_workload, load_workload_file

if TYPE_CHECKING:
    from torch import nn

    from engine.finetuning import Event
    from engine.workloads import Workload

QUANTIZED = "quantized"  # folder of the network in the run's folder
COMPARED = 32  # test images that a packed file is tried on
TRAINING = ("reference", "measurement", "step", "checkpoint")


def measure_plan(
    workload: "Workload",
    plan: BitPlan,
    *,
    folder: Path,
    uniform: BitPlan | None = None,
    max_images: int | None = None,
    progress: Progress | None = None,
    outcomes: Path | None = None,
) -> Iterator[tuple[str, Evaluation]]:
    """Quantize a network as planned, save it, and measure it beside the float network.

    Args:
        workload: What is quantized; its test images measure it.
        plan: Bits of every layer.
        folder: Where the quantized network is saved.
        uniform: Another plan to measure, for comparison; only the plan itself is saved.
        max_images: Test images, all if not given.
        progress: Told the layers whose rounding is learned, then the images measured, over all
            networks.
        outcomes: Folder where what each network does on each image is kept, if anywhere.

    Yields:
        ("float", its evaluation), then the same for "plan" and "uniform".
    """
    from engine.evaluation import evaluate
    from engine.quantized import quantize, save_quantized

    rounded = quantize(workload, plan, progress=progress)
    save_quantized(rounded, folder)
    models = {"float": workload.model, "plan": rounded}
    given: dict[str, Any] = {} if max_images is None else {"max_images": max_images}
    again = partial(workload.command, "quantize", **given)
    commands = {
        "float": workload.command("evaluate", **given),
        "plan": again(plan=folder / PLAN_FILE, out=folder),
    }
    if uniform is not None:
        models["uniform"] = quantize(workload, uniform, progress=progress)
        uniform.save(folder / "uniform.json")
        commands["uniform"] = again(plan=folder / "uniform.json", out=folder / "uniform")
    for stage, (name, model) in enumerate(models.items()):
        told = _part_of(progress, stage, len(models)) if progress else None
        evaluation = evaluate(
            model,
            workload,
            max_images=max_images,
            progress=told,
            command=commands[name],
            each=partial(_keep, outcomes, name) if outcomes else None,
        )
        yield name, evaluation


def check_and_analyze(
    workload: "Workload",
    tell: Callable[[Sequence[Finding]], None] | None = None,
    *,
    known: Analysis | None = None,
    **options: Any,
) -> Analysis:
    """Analyze a workload, with what there is to know of its network kept in the analysis.

    Args:
        workload: Its model is not changed.
        tell: Told these findings first.
        known: To go on from.
        **options: See `perturbation.analyze`, or `further.analyze_further` to go on.
    """
    from engine.checklist import check_workload
    from engine.further import analyze_further
    from engine.perturbation import analyze

    findings = check_workload(workload)
    if tell:
        tell(findings)
    if known is None:
        analysis = analyze(workload, **options)
    else:
        analysis = analyze_further(known, workload, **options)
    return replace(analysis, findings=findings)


def summary_of(analysis: Analysis) -> dict[str, Any]:
    """What to tell of an analysis, as plain JSON; the whole is in its file."""
    errors = {"median": analysis.median_relative_sem, "worst": analysis.worst_relative_sem}
    return {
        "workload": analysis.workload,
        "layers": len(analysis.layers),
        "activations": len(analysis.activations),
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


def load(
    name: str | None, file: str | None, data: str, weights: str | Path | None = None
) -> "Workload":
    """Load a workload by name, or from FILE.py:FUNCTION where that is given.

    Raises:
        ValueError: If the name, the data or the form of the file are unknown.
        FormatError: If a file cannot be read.
    """
    if file is None:
        return load_workload(name or "", data, weights)
    workload = load_workload_file(file)
    return replace(workload, origin=workload.origin or f"--workload-file {shlex.quote(file)}")


def do(spec: Spec, folder: Path, events: EventWriter) -> None:
    """Do what a run was asked, with its results as events and files in its folder."""
    options = dict(spec.options)
    data = options.pop("data", DATA[0])
    workload = load(spec.workload, spec.workload_file, data, spec.weights)
    WORK[spec.work](replace(workload, name=spec.workload), options, folder, events)


def _check(
    workload: "Workload", _options: dict[str, Any], _folder: Path, events: EventWriter
) -> None:
    """Look at a network before anything is done with it."""
    from engine.checklist import check_workload

    _tell_findings(events, check_workload(workload))


def _tell_findings(events: EventWriter, found: Sequence[Finding]) -> None:
    findings = [finding.to_json() for finding in found]
    events.write("result", name="checklist", result={"findings": findings})


def _analyze(
    workload: "Workload", options: dict[str, Any], folder: Path, events: EventWriter
) -> None:
    if "bit_widths" in options:
        options["bit_widths"] = tuple(options["bit_widths"])
    if further := options.pop("further", None):
        path = analysis_of(workload.name, further)
        options |= {"known": Analysis.load(path), "source": str(path)}
    tell = partial(_tell_findings, events)
    analysis = check_and_analyze(workload, tell, **options, progress=events.progress)
    analysis.save(folder / ANALYSIS)
    events.write("result", name="analysis", result=summary_of(analysis))


def _quantize(
    workload: "Workload", options: dict[str, Any], folder: Path, events: EventWriter
) -> None:
    plan, uniform = BitPlan(**options.pop("plan")), options.pop("uniform", None)
    measured = measure_plan(
        workload,
        plan,
        folder=folder / QUANTIZED,
        uniform=BitPlan(**uniform) if uniform else None,
        progress=events.progress,
        outcomes=folder / OUTCOMES,
    )
    for name, evaluation in measured:
        events.write("result", name=name, result=evaluation.to_json())


def _finetune(
    workload: "Workload", options: dict[str, Any], folder: Path, events: EventWriter
) -> None:
    """Measure the float and the rounded network, train, and measure again.

    What an earlier start of the run has measured is not measured again; the training goes on from
    its checkpoint.
    """
    from engine.evaluation import evaluate
    from engine.finetuning import Finished, finetune
    from engine.quantized import quantize, save_quantized

    plan = BitPlan(**options.pop("plan"))
    options.pop("recipe", None)
    said = EventReader(folder / EVENTS).rows()
    done = {row["name"] for row in said if row["event"] == "result"}
    out, kept = folder / QUANTIZED, folder / OUTCOMES
    measure = partial(evaluate, workload=workload, progress=events.progress)
    again = partial(workload.command, "quantize", plan=out / PLAN_FILE, out=out)
    untrained: dict[str, tuple[Callable[[], Any], str]] = {
        "float": (lambda: workload.model, workload.command("evaluate")),
        "plan": (lambda: quantize(workload, plan, progress=events.progress), again()),
    }
    for name, (model, command) in untrained.items():
        if name not in done:
            measured = measure(model(), command=command, each=partial(_keep, kept, name))
            events.write("result", name=name, result=measured.to_json())
    for event in finetune(workload, plan, checkpoint=folder / CHECKPOINT, **options):
        _tell(event, events)
    assert isinstance(event, Finished)
    trained = {
        "steps": event.step,
        "best_step": event.best_step,
        "stopped_because": event.stopped_because,
        "seconds": training_seconds(EventReader(folder / EVENTS).rows()),
    }
    events.write("result", name="training", result=trained)
    save_quantized(event.model, out)
    command = again(**_as_typed(options))
    measured = measure(event.model, command=command, each=partial(_keep, kept, "finetuned"))
    events.write("result", name="finetuned", result=measured.to_json())


def _export(
    workload: "Workload", options: dict[str, Any], folder: Path, events: EventWriter
) -> None:
    """Write the network of a run as files to take away, and see what they are worth.

    ONNX is not for every network: why it is refused is a result, too.
    """
    from engine.onnx_check import check_onnx
    from engine.onnx_export import export_onnx
    from engine.packed import export_packed
    from engine.quantized import load_quantized, plan_of
    from engine.workloads import example_image

    model = load_quantized(workload, view(options["of"]).artefact(QUANTIZED))
    plan_of(model).save(folder / PLAN_FILE)
    packed = export_packed(model, folder / PACKED)
    images, same = compare_packed(folder / PACKED, model, workload)
    told = {"file": packed.to_json(), "images": images, "same": same}
    events.write("result", name="packed", result=told)
    try:
        export = export_onnx(model, folder / ONNX, example_image(workload.test))
    except ValueError as error:
        events.write("result", name="onnx", result={"refused": str(error)})
        return
    events.write("result", name="onnx", result=export.to_json())
    check = check_onnx(
        folder / ONNX,
        model,
        workload,
        export,
        max_images=options.get("max_images"),
        progress=events.progress,
        command=f"hawq-viz export {options['of']} --format onnx --check --out {ONNX}",
    )
    events.write("result", name="onnx_check", result=check.to_json())


def compare_packed(path: Path, model: "nn.Module", workload: "Workload") -> tuple[int, bool]:
    """Load a packed file, and see on how many test images its outputs are those of the network."""
    import torch
    from torch.utils._pytree import tree_leaves

    from engine.packed import load_packed

    loaded, count = load_packed(path, workload.model), min(COMPARED, len(workload.test))  # type: ignore[arg-type]
    images = torch.stack([workload.test[i][0] for i in range(count)])
    with torch.no_grad():
        pairs = zip(tree_leaves(loaded(images)), tree_leaves(model(images)), strict=True)
        return count, all(torch.equal(ours, theirs) for ours, theirs in pairs)


def _keep(folder: Path, name: str, outcomes: Outcomes) -> None:
    """Keep what a network does on each image, to be compared with others image by image."""
    outcomes.save(folder / f"{name}.safetensors")


def _tell(event: "Event", events: EventWriter) -> None:
    """Write what the training says."""
    from engine.finetuning import Checkpoint, Measurement, Reference, Step

    if isinstance(event, Step):
        if math.isfinite(event.loss):  # JSON has no other
            events.thinned("step", **asdict(event))
        events.progress(event.step, event.steps, "training steps")
    elif isinstance(event, Reference):
        events.write("reference", held_out=_in_short(event.held_out), test=_in_short(event.test))
    elif isinstance(event, Measurement):
        measured = {"held_out": _in_short(event.held_out), "test": _in_short(event.test)}
        events.write("measurement", step=event.step, **measured, best=event.best)
    elif isinstance(event, Checkpoint):
        events.write("checkpoint", step=event.step)


def _in_short(evaluation: Evaluation) -> dict[str, float]:
    """What a live chart shows of an evaluation."""
    low, high = evaluation.interval
    value, samples, loss = evaluation.value, evaluation.samples, evaluation.loss
    return {"value": value, "low": low, "high": high, "samples": samples, "loss": loss}


def _as_typed(options: dict[str, Any]) -> dict[str, Any]:
    """Settings of a training as options of the command line."""
    epochs = options.get("epochs", Recipe.epochs)
    others = {
        name: value
        for name, value in options.items()
        if value is not None and name not in ("epochs", "checkpoint_every")
    }
    return {"finetune": epochs, **others}


def training_seconds(rows: Sequence[Row]) -> float:
    """Seconds of training that rows tell of, over all starts of a run and without its pauses."""
    seconds, before = 0.0, None
    for row in rows:
        if row["event"] == "started":
            before = None
        elif row["event"] in TRAINING:
            seconds += row["time"] - (row["time"] if before is None else before)
            before = row["time"]
    return seconds


WORK: dict[str, Callable[["Workload", dict[str, Any], Path, EventWriter], None]] = {
    "check": _check,
    "analyze": _analyze,
    "quantize": _quantize,
    "finetune": _finetune,
    "export": _export,
}
