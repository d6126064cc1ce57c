"""`hawq-viz report`: a run as one HTML file."""

import argparse
from pathlib import Path

from engine import jobs
from engine.analysis import Analysis
from engine.results import BitPlan
from hawq_viz.terminal import show


def report(arguments: argparse.Namespace) -> None:
    """Write what a run did, what came out and how to make it again, as one file for a browser."""
    from hawq_viz.report import analysis_of
    from hawq_viz.report import report as report_of

    out = arguments.out
    if out.suffix not in (".html", ".htm"):
        raise ValueError(f"--out must be a file that ends in .html, got {str(out)!r}.")
    run = jobs.view(arguments.run_id)
    given = arguments.analysis
    analysis = analysis_of(run) if given is None else _checked(Analysis.load(given), run)
    text = report_of(run, analysis)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    size = out.stat().st_size
    lacks = [] if analysis is not None else ["without the plan's analysis, which is not here"]
    lines = [f"saved {out} ({size / 2**20:.1f} MiB), which needs nothing else", *lacks]
    show(arguments, {"out": str(out), "bytes": size, "with_analysis": analysis is not None}, *lines)


def _checked(analysis: Analysis, run: jobs.RunView) -> Analysis:
    """See that an analysis is of the plan's layers and bits.

    Raises:
        ValueError: If it is not.
    """
    if run.kind == "analyze":
        raise ValueError(f"--analysis must come with the run of a plan, got {run.id} with it.")
    plan = BitPlan(**run.options["plan"])
    try:
        analysis.plan_of(plan.weight_bits, plan.activation_bits)
    except ValueError as error:
        raise ValueError(
            f"--analysis must be of the plan's network, got one of {analysis.workload}: {error}"
        ) from error
    return analysis


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """What `report` may be told, beside how to print."""
    parser.add_argument("run_id", metavar="RUN", help="its id, as `hawq-viz runs` lists it")
    parser.add_argument("--out", type=Path, required=True, metavar="REPORT.html")
    parser.add_argument(
        "--analysis",
        type=Path,
        metavar="ANALYSIS.json",
        help="that the plan was made from; found by itself among those that are here",
    )
