"""`hawq-viz runs` and `quantize --finetune`: start, list, watch, stop and remove runs.

All of it is in `engine.jobs`: the dashboard and Python start and read the same runs.
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from engine import jobs
from engine.jobs.launching import FINETUNE_OPTIONS
from engine.results import BitPlan, Evaluation, metric_text
from hawq_viz.terminal import DONE, FAILED, Bar, measured, say, show

NETWORKS = ("float", "plan", "uniform", "finetuned")  # that a run may have measured
FIELDS = (
    *("id", "kind", "workload", "state", "created", "title", "remark"),
    *("done", "total", "note", "place", "error"),
)
LOG_LINES = 20  # shown of a failed run


def list_runs(arguments: argparse.Namespace) -> None:
    """List all runs, the newest first."""
    runs = jobs.list_runs()
    width = max([len(run.id) for run in runs], default=0)
    lines = [
        f"{run.id:{width}}  {run.state:9}  {_titled(run)}{_how_far(run)}".rstrip() for run in runs
    ]
    result = {"folder": str(jobs.runs_folder()), "runs": [_fields(run) for run in runs]}
    show(arguments, result, *(lines or [f"no runs in {jobs.runs_folder()}"]))


def show_run(arguments: argparse.Namespace) -> None:
    """Say what a run is, how far it is and what it has found."""
    _show(arguments, jobs.view(arguments.run_id))


def watch_run(arguments: argparse.Namespace) -> int:
    """Follow a run to its end."""
    run = watch(arguments.run_id)
    _show(arguments, run)
    return DONE if run.state == "finished" else FAILED


def cancel_run(arguments: argparse.Namespace) -> None:
    """Stop a run that is queued or running; what it has done is kept."""
    jobs.cancel(arguments.run_id)
    *_, run = jobs.follow(arguments.run_id)  # so that it is seen to, should it not stop by itself
    show(arguments, _fields(run), f"{run.id} is {run.state}")


def resume_run(arguments: argparse.Namespace) -> None:
    """Go on with a run that failed, crashed or was cancelled, from its last checkpoint."""
    jobs.resume(arguments.run_id)
    run = jobs.view(arguments.run_id)
    show(arguments, _fields(run), f"{run.id} goes on; `hawq-viz runs watch {run.id}` shows it")


def delete_run(arguments: argparse.Namespace) -> int:
    """Remove a run that is over, with everything it made."""
    run_id = arguments.run_id
    jobs.view(run_id)  # unknown: say so before asking
    if not arguments.yes and not _sure(f"Delete {run_id} with everything it made?"):
        show(arguments, {"id": run_id, "deleted": False}, f"{run_id} is kept")
        return FAILED
    jobs.delete(run_id)
    show(arguments, {"id": run_id, "deleted": True}, f"{run_id} is deleted")
    return DONE


def describe_run(arguments: argparse.Namespace) -> None:
    """Give a run a title, a remark or both; an empty one takes it away."""
    if arguments.title is None and arguments.remark is None:
        raise ValueError("--title or --remark must be given, got neither.")
    jobs.describe(arguments.run_id, title=arguments.title, remark=arguments.remark)
    run = jobs.view(arguments.run_id)
    show(arguments, _fields(run), f"{run.id} is called {run.title or 'nothing'}", *_remark(run))


def finetune(arguments: argparse.Namespace, plan: BitPlan) -> int:
    """Fine-tune as planned in a run, follow it, and fetch the network it made."""
    settings = {name: getattr(arguments, name, None) for name in FINETUNE_OPTIONS}
    given = {name: value for name, value in settings.items() if value is not None}
    data = {} if arguments.data is None else {"data": arguments.data}
    options = {"plan": asdict(plan), "recipe": "custom", "epochs": arguments.finetune}
    workload = arguments.workload or plan.workload
    arguments.out.mkdir(parents=True, exist_ok=True)
    run_id = jobs.launch(
        "finetune",
        workload,
        options | data | given,
        workload_file=arguments.workload_file,
        weights=arguments.weights,
    )
    made = jobs.view(run_id).artefact("quantized")
    if arguments.detach:
        show(arguments, {"run": run_id, "quantized": str(made)}, run_id)
        return DONE
    say(f"{run_id} is started")
    run = watch(run_id)
    if run.state != "finished":
        return _ended(run)
    shutil.copytree(made, arguments.out, dirs_exist_ok=True)
    result = {"run": run_id, "out": str(arguments.out), **run.results}
    show(arguments, result, *_found(run), f"saved {arguments.out}")
    return DONE


def watch(run_id: str) -> jobs.RunView:
    """Follow a run on the terminal to its end; an interrupt ends only the watching."""
    try:
        with Bar() as bar:
            for run in jobs.follow(run_id):
                if run.place:
                    bar.waits(f"{run.place} ahead")
                elif run.total:
                    bar(run.done, run.total, run.note)
    except KeyboardInterrupt:
        say(
            f"the run goes on: `hawq-viz runs watch {run_id}` shows it again, "
            f"`hawq-viz runs cancel {run_id}` stops it."
        )
        raise
    return run


def add_runs(commands: Any, epilog: str) -> None:
    """Add `runs` and what can be done with one to the command line."""

    def command(
        under: Any, name: str, run: Callable[[argparse.Namespace], Any], purpose: str
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = under.add_parser(
            name,
            help=purpose,
            description=run.__doc__,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="print the result as one JSON line")
        return made

    listing = command(
        commands, "runs", list_runs, "list runs; show, watch, name, stop or remove one"
    )
    verbs = listing.add_subparsers(metavar="VERB")
    for name, run, purpose in (
        ("show", show_run, "what it is, how far, and what it has found"),
        ("watch", watch_run, "follow it to its end"),
        ("cancel", cancel_run, "stop it; what it has done is kept"),
        ("resume", resume_run, "go on with one that failed, crashed or was cancelled"),
        ("describe", describe_run, "give it a title or a remark"),
        ("delete", delete_run, "remove one that is over"),
    ):
        made = command(verbs, name, run, purpose)
        made.add_argument("run_id", metavar="RUN", help="its id, as `hawq-viz runs` lists it")
        if name == "delete":
            made.add_argument("--yes", action="store_true", help="do not ask")
        if name == "describe":
            made.add_argument("--title", help="what to call it, in a line; empty: nothing")
            made.add_argument("--remark", help="what to say of it; empty: nothing")


def _show(arguments: argparse.Namespace, run: jobs.RunView) -> None:
    found = {"folder": str(run.folder), "options": run.options, "results": run.results}
    how_far = _how_far(run, with_state=True)
    lines = [
        f"{_titled(run)}{run.kind} {run.workload}, made {run.created}: {how_far}",
        *_remark(run),
        *_found(run),
    ]
    if run.resumable:
        lines += [*_log(run), f"`hawq-viz runs resume {run.id}` goes on with it"]
    show(arguments, _fields(run) | found, *lines, f"in {run.folder}")


def _ended(run: jobs.RunView) -> int:
    """Say why a run did not finish."""
    say(run.error or f"the run is {run.state}.")
    say(f"`hawq-viz runs show {run.id}` shows its log, `hawq-viz runs resume {run.id}` goes on.")
    return FAILED


def _fields(run: jobs.RunView) -> dict[str, Any]:
    """A run in short, as plain JSON."""
    rates = {"eta_seconds": run.eta_seconds, "steps_per_second": run.steps_per_second}
    return {name: getattr(run, name) for name in FIELDS} | rates | {"resumable": run.resumable}


def _titled(run: jobs.RunView) -> str:
    """What people call it, before anything else that is said of it."""
    return f"“{run.title}”: " if run.title else ""


def _remark(run: jobs.RunView) -> list[str]:
    return [f"  {line}" for line in run.remark.splitlines()]


def _how_far(run: jobs.RunView, *, with_state: bool = False) -> str:
    """How far a run is, or how it ended, in a line."""
    parts = [run.state] if with_state else []
    if run.state == "queued":
        parts.append(f"{run.place} ahead")
    elif run.state == "finished" and not with_state:
        parts += [
            f"{name} {metric_text(found.get('metric', ''), found['value'], digits=2)}"
            for name in NETWORKS
            if _has(run, name) and (found := run.results[name])
        ]
    elif run.error:
        parts.append(run.error)
    elif run.total and run.state != "finished":
        parts.append(f"{run.done:,} of {run.total:,} {run.note}")
    if run.eta_seconds is not None:
        parts.append(f"about {run.eta_seconds:,.0f} s left")
    return ", ".join(parts)


def _has(run: jobs.RunView, name: str) -> bool:
    return "value" in run.results.get(name, {})


def _found(run: jobs.RunView) -> list[str]:
    """What a run has measured so far."""
    lines = [
        f"{name:10}{measured(Evaluation.from_json(run.results[name]))}"
        for name in NETWORKS
        if _has(run, name)
    ]
    if trained := run.results.get("training"):
        lines.append(
            f"{trained['steps']:,} steps in {trained['seconds']:,.0f} s, the best after "
            f"{trained['best_step']:,}; stopped by: {trained['stopped_because']}"
        )
    return lines


def _log(run: jobs.RunView) -> list[str]:
    lines = run.log_tail.splitlines()[-LOG_LINES:]
    return ["the end of its log:", *(f"  {line}" for line in lines)] if lines else []


def _sure(question: str) -> bool:
    """Ask on the terminal.

    Raises:
        ValueError: If nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise ValueError("--yes must be given where nobody can be asked, got none.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
