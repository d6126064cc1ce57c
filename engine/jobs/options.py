"""What can be asked of each kind of run, and what can be seen to be wrong before it starts."""

import json
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from engine.analysis import Analysis
from engine.jobs.folders import ANALYSIS
from engine.jobs.runs import RunView, view
from engine.recipe import Recipe
from engine.results import BitPlan, FormatError, check_bits
from engine.workloads import DATA, stored_analysis

ANALYZE_OPTIONS = (
    "bit_widths",
    "relative_sem",
    "seed",
    "batch_size",
    "max_images",
    "max_seconds",
    "estimator",
    "granularity",
    "activations",
    "activation_range",
)
QUANTIZER_OPTIONS = ("scheme", "weight_granularity", "weight_range")
FURTHER_OPTIONS = ("relative_sem", "max_images", "max_seconds")  # the rest is the analysis' own
STORED = "stored"  # in place of a run: the analysis that comes with the workload
QUANTIZING = ("quantize", "finetune")  # kinds of run that make the network of a plan
RECIPE_OPTIONS = tuple(field.name for field in fields(Recipe))
FINETUNE_OPTIONS = (*RECIPE_OPTIONS, "seed", "checkpoint_every")
OPTIONS = {
    "check": ("data",),
    "analyze": ("data", "further", *ANALYZE_OPTIONS, *QUANTIZER_OPTIONS),
    "quantize": ("data", "plan", "uniform"),
    "finetune": ("data", "plan", "recipe", *FINETUNE_OPTIONS),
    "export": ("data", "of", "max_images"),
}


def check_options(kind: str, workload: str, options: Mapping[str, Any], *, known: bool) -> None:
    """See whether a run can be asked for that.

    Args:
        kind: One of `OPTIONS`.
        workload: Its name.
        options: What `launch` was given.
        known: Whether `load_workload` knows the workload, so that its layers may be known too.

    Raises:
        ValueError: If an option is unknown or cannot be.
    """
    for name in options:
        if name not in OPTIONS[kind]:
            near = get_close_matches(name, OPTIONS[kind], n=1, cutoff=0)[0]
            raise ValueError(
                f"options of {kind} must be among {', '.join(OPTIONS[kind])}, got {name!r}: "
                f"the nearest is {near!r}."
            )
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"options of {kind} must be plain JSON, but {error}.") from error
    if options.get("data", DATA[0]) not in DATA:
        raise ValueError(f"data must be one of {', '.join(DATA)}, got {options['data']!r}.")
    for bits in options.get("bit_widths") or ():
        check_bits(bits, "bit_widths")
    if kind == "analyze" and options.get("further") is not None:
        check_further(options)
        analysis_of(workload, options["further"])
    if kind in ("check", "analyze"):
        return
    if kind == "export":
        _check_exported(workload, view(str(options.get("of", ""))))
        return
    if options.get("plan") is None:
        raise ValueError(f"options of {kind} must hold a plan, got none.")
    names = _names(workload) if known else {}
    for name in ("plan", "uniform"):
        if options.get(name) is not None:
            _check_plan(name, workload, options[name], names)
    if kind == "finetune":
        _check_recipe(options)


def check_further(options: Mapping[str, Any]) -> None:
    """See that an analysis that is gone on from is not asked for other settings.

    Raises:
        ValueError: If it is.
    """
    for name in options:
        if name not in ("data", "further", *FURTHER_OPTIONS):
            raise ValueError(
                f"further must come with {', '.join(FURTHER_OPTIONS)} alone, got {name}: "
                "what is gone on with keeps its own."
            )


def analysis_of(workload: str, source: Any) -> Path:
    """The file of an analysis to go on from.

    Args:
        workload: Its name.
        source: A run that analyzed it, or `STORED`.

    Raises:
        ValueError: If there is no such run, or it is of another kind or workload, or not finished.
    """
    if source == STORED:
        return stored_analysis(workload)
    run = view(str(source))
    if (run.kind, run.state, run.workload) != ("analyze", "finished", workload):
        raise ValueError(
            f"further must be a finished run that analyzed {workload!r}, got {run.id}: "
            f"{run.kind} of {run.workload!r}, {run.state}."
        )
    return run.artefact(ANALYSIS)


def _check_exported(workload: str, run: RunView) -> None:
    quantized = run.kind in QUANTIZING and run.state == "finished"
    if not quantized or run.workload != workload:
        raise ValueError(
            f"of must be a finished run that quantized {workload!r}, got {run.id}: "
            f"{run.kind} of {run.workload!r}, {run.state}."
        )


def _check_plan(
    name: str, workload: str, fields: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]
) -> None:
    try:
        plan = BitPlan(**fields)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{name} must hold the fields of a BitPlan, but {error}.") from error
    differs = remedy = ""
    for kind, bits in (("layer", plan.weight_bits), ("activation", plan.activation_bits)):
        known = names.get(kind, ())
        strange = [one for one in bits if one not in known] if known else []
        if strange and not differs:
            differs = f"; the first {kind} that differs is {strange[0]!r}"
            remedy = f"the {kind}s are {', '.join(known)}"
    if plan.workload != workload:
        raise ValueError(
            f"{name} must be for {workload!r}, got one for {plan.workload!r}{differs}."
        )
    if differs:
        raise ValueError(
            f"{name} must be for {workload!r}, got one of another network{differs}: {remedy}."
        )


def _names(workload: str) -> dict[str, tuple[str, ...]]:
    """Layers and activations of a known workload; none where no analysis has been stored."""
    try:
        analysis = Analysis.load(stored_analysis(workload))
    except FormatError:
        return {}
    return {
        "layer": tuple(layer.name for layer in analysis.layers),
        "activation": tuple(activation.name for activation in analysis.activations),
    }


def _check_recipe(options: Mapping[str, Any]) -> None:
    try:
        Recipe(**{name: options[name] for name in RECIPE_OPTIONS if name in options})
    except TypeError as error:
        raise ValueError(f"options of finetune must be numbers and names, but {error}.") from error
    for name, least in (("seed", 0), ("checkpoint_every", 1)):
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}.")
