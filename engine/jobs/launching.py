"""Start a run, once it is clear that it can be done."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from engine.jobs.folders import new_run
from engine.jobs.processes import start_worker
from engine.results import BitPlan, check_bits
from engine.workloads import DATA, check_workload_name

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
OPTIONS = {
    "analyze": ("data", *ANALYZE_OPTIONS, *QUANTIZER_OPTIONS),
    "quantize": ("data", "plan", "uniform"),
}


def launch(
    kind: str,
    workload: str,
    options: Mapping[str, Any] | None = None,
    *,
    workload_file: str | None = None,
) -> str:
    """Start a run in a process of its own, which outlives this one.

    Args:
        kind: "analyze" or "quantize".
        workload: A name that `load_workload` knows.
        options: Arguments of the work. For analyze: "data" and those of
            `engine.perturbation.analyze`. For quantize: "data", "plan" and, to compare with,
            "uniform" (fields of a `BitPlan` or None).
        workload_file: FILE.py:FUNCTION that makes the workload, in place of a known name. The file
            is run: never take it from a page, an upload or a result.

    Returns:
        The run's id.

    Raises:
        ValueError: If anything of that is unknown or cannot be.
    """
    options = dict(options or {})
    if kind not in OPTIONS:
        raise ValueError(f"kind must be one of {', '.join(OPTIONS)}, got {kind!r}.")
    if workload_file is None:
        check_workload_name(workload)
    else:
        path, _, function = workload_file.rpartition(":")
        workload_file = f"{Path(path).resolve()}:{function}"
    _check_options(kind, workload, options)
    folder = new_run(kind, workload, options, workload_file)
    start_worker(folder)
    return folder.name


def _check_options(kind: str, workload: str, options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in OPTIONS[kind]:
            near = get_close_matches(name, OPTIONS[kind], n=1, cutoff=0)[0]
            raise ValueError(
                f"options of {kind} must be among {', '.join(OPTIONS[kind])}, got {name!r}: "
                f"the nearest is {near!r}."
            )
    if options.get("data", DATA[0]) not in DATA:
        raise ValueError(f"data must be one of {', '.join(DATA)}, got {options['data']!r}.")
    for bits in options.get("bit_widths") or ():
        check_bits(bits, "bit_widths")
    if kind == "quantize":
        if options.get("plan") is None:
            raise ValueError("options of quantize must hold a plan, got none.")
        for name in ("plan", "uniform"):
            if options.get(name) is not None:
                _check_plan(name, workload, options[name])


def _check_plan(name: str, workload: str, fields: Mapping[str, Any]) -> None:
    try:
        plan = BitPlan(**fields)
    except TypeError as error:
        raise ValueError(f"{name} must hold the fields of a BitPlan, but {error}.") from error
    if plan.workload != workload:
        raise ValueError(f"{name} must be for {workload!r}, got one for {plan.workload!r}.")
