"""Start a run, once it is clear that it can be done; go on with one that was cut."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.jobs.ending import is_
from engine.jobs.events import EventWriter
from engine.jobs.folders import (
    CANCEL,
    EVENTS,
    PROCESS,
    Spec,
    changing,
    new_run,
    reserve_room,
    writing_in,
)
from engine.jobs.options import (
    ANALYZE_OPTIONS,
    FINETUNE_OPTIONS,
    OPTIONS,
    QUANTIZER_OPTIONS,
    check_options,
)
from engine.jobs.processes import start_worker
from engine.jobs.runs import RESUMABLE, state_of
from engine.jobs.turns import take_ticket
from engine.workloads import name_with

__all__ = [
    "ANALYZE_OPTIONS",
    "FINETUNE_OPTIONS",
    "OPTIONS",
    "QUANTIZER_OPTIONS",
    "launch",
    "resume",
]


def launch(
    kind: str,
    workload: str,
    options: Mapping[str, Any] | None = None,
    *,
    workload_file: str | None = None,
    weights: str | Path | None = None,
) -> str:
    """Start a run in a process of its own, which outlives this one.

    Args:
        kind: "check", "analyze", "quantize", "finetune" or "export".
        workload: A name that `load_workload` knows.
        options: Arguments of the work. For check: "data". For analyze: "data" and those of
            `engine.perturbation.analyze`. For quantize: "data", "plan" and, to compare with,
            "uniform" (fields of a `BitPlan` or None). For finetune: "data", "plan", "recipe" (what
            people call the settings) and the settings of `engine.finetuning.finetune`. For export:
            "data", "of" (a finished run, whose network it is) and "max_images" to test with.
        workload_file: FILE.py:FUNCTION that makes the workload, in place of a known name. The file
            is run: never take it from a page, an upload or a result. The workload has the name
            given here in all that the run writes.
        weights: File to take in place of a known network's own, see `load_workload`.

    Returns:
        The run's id.

    Raises:
        ValueError: If anything of that is unknown or cannot be.
        FormatError: If the folder of runs cannot be written.
    """
    options = dict(options or {})
    if kind not in OPTIONS:
        raise ValueError(f"kind must be one of {', '.join(OPTIONS)}, got {kind!r}.")
    if workload_file is None:
        workload = name_with(workload, weights)
    else:
        if weights is not None:
            raise ValueError(
                f"weights must come with a known workload, got {str(weights)!r} with a workload "
                "file: load them in its function."
            )
        path, _, function = workload_file.rpartition(":")
        workload_file = f"{Path(path).resolve()}:{function}"
    check_options(kind, workload, options, known=workload_file is None)
    given = None if weights is None else str(Path(weights).resolve())
    folder = new_run(kind, workload, options, workload_file, given)
    with writing_in(folder.parent):
        try:
            take_ticket(folder)
            start_worker(folder)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return folder.name


def resume(run_id: str) -> None:
    """Go on with a run in its folder, from its checkpoint where its kind keeps one.

    It joins the line at its end. Of several who ask for that at once, one gets it.

    Raises:
        ValueError: If there is no such run, or it is not failed, cancelled or crashed.
        FormatError: If its spec is damaged, or its folder cannot be written.
    """
    with changing(run_id) as folder:
        state = state_of(folder)
        if state not in RESUMABLE:
            raise ValueError(
                f"run must be failed, cancelled or crashed to be resumed, got {run_id}, "
                f"which {is_(state)}."
            )
        Spec.load(folder)
        reserve_room(folder)
        take_ticket(folder)
        (folder / PROCESS).unlink(missing_ok=True)  # so that it counts as starting from here on
        events = EventWriter(folder / EVENTS)
        events.write("resumed")
        events.close()
        (folder / CANCEL).unlink(missing_ok=True)
        start_worker(folder)
