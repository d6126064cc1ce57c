"""What can be asked of each kind of run, and what can be seen to be wrong before it starts."""

import json
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from engine.analysis import Analysis
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
)
QUANTIZER_OPTIONS = ("scheme", "weight_granularity", "weight_range")
RECIPE_OPTIONS = tuple(field.name for field in fields(Recipe))
FINETUNE_OPTIONS = (*RECIPE_OPTIONS, "seed", "checkpoint_every")
OPTIONS = {
    "analyze": ("data", *ANALYZE_OPTIONS, *QUANTIZER_OPTIONS),
    "quantize": ("data", "plan", "uniform"),
    "finetune": ("data", "plan", "recipe", *FINETUNE_OPTIONS),
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
    if kind == "analyze":
        return
    if options.get("plan") is None:
        raise ValueError(f"options of {kind} must hold a plan, got none.")
    layers = _layers(workload) if known else ()
    for name in ("plan", "uniform"):
        if options.get(name) is not None:
            _check_plan(name, workload, options[name], layers)
    if kind == "finetune":
        _check_recipe(options)


def _check_plan(
    name: str, workload: str, fields: Mapping[str, Any], layers: tuple[str, ...]
) -> None:
    try:
        plan = BitPlan(**fields)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{name} must hold the fields of a BitPlan, but {error}.") from error
    strange = [layer for layer in plan.weight_bits if layer not in layers] if layers else []
    differs = f"; the first layer that differs is {strange[0]!r}" if strange else ""
    if plan.workload != workload:
        raise ValueError(
            f"{name} must be for {workload!r}, got one for {plan.workload!r}{differs}."
        )
    if strange:
        raise ValueError(
            f"{name} must be for {workload!r}, got one of another network{differs}: "
            f"the layers are {', '.join(layers)}."
        )


def _layers(workload: str) -> tuple[str, ...]:
    """Names of a known workload's layers; none where no analysis has been stored."""
    try:
        return tuple(layer.name for layer in Analysis.load(stored_analysis(workload)).layers)
    except FormatError:
        return ()


def _check_recipe(options: Mapping[str, Any]) -> None:
    try:
        Recipe(**{name: options[name] for name in RECIPE_OPTIONS if name in options})
    except TypeError as error:
        raise ValueError(f"options of finetune must be numbers and names, but {error}.") from error
    for name, least in (("seed", 0), ("checkpoint_every", 1)):
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}.")
