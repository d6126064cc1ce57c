"""The command line, `hawq-viz`: each command prints for people, or one JSON line with `--json`."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.analysis import Analysis
from engine.jobs.launching import ANALYZE_OPTIONS, FINETUNE_OPTIONS, QUANTIZER_OPTIONS
from engine.jobs.options import check_further
from engine.recipe import ACTIVATION_RANGES, BATCH_NORMS, OPTIMIZERS, STEP_SIZES, Recipe
from engine.results import BitPlan, Evaluation, FormatError
from engine.workloads import DATA, stored_analysis, workload_names
from hawq_viz import export_cli, frontier_cli, networks, runs_cli
from hawq_viz.terminal import (
    BAD_USAGE,
    DONE,
    FAILED,
    INTERRUPTED,
    Bar,
    check_out,
    measured,
    say,
    show,
)

if TYPE_CHECKING:
    from engine.workloads import Workload

ROUNDING_OPTIONS = ("rounding", "correction", "activation_range", "sums")  # of quantize
POST_TRAINING_ALONE = ("max_images", "analysis")  # options of quantize without --finetune
TRAINING_ALONE = tuple(name for name in FINETUNE_OPTIONS if name not in ("epochs", "seed"))
EXIT_CODES = """\
exit codes:
  0  done
  1  failed: a file cannot be read or written, or is not what it should be
  2  bad usage: an unknown option or workload, or a value that cannot be
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 failed, 2 bad usage."""
    arguments = _parser().parse_args(argv)
    arguments.command = shlex.join(["hawq-viz", *(sys.argv[1:] if argv is None else argv)])
    try:
        return int(arguments.run(arguments) or DONE)
    except FormatError as error:
        say(error)
        return FAILED
    except ValueError as error:
        say(error)
        return BAD_USAGE
    except OSError as error:
        say(error)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def app(arguments: argparse.Namespace) -> int:
    """Serve the dashboard until it is interrupted."""
    from streamlit.web.cli import main as streamlit

    if arguments.workload_file is not None:
        networks.serve_own(arguments.workload_file)
    command = ["run", str(Path(__file__).resolve().with_name("app.py"))]
    if arguments.port is not None:
        command += ["--server.port", str(arguments.port)]
    if arguments.headless:
        command += ["--server.headless", "true"]
    return int(streamlit(command, standalone_mode=False) or DONE)


def analyze(arguments: argparse.Namespace) -> None:
    """Measure how sensitive each layer is, and save that.

    With --further, go on from an analysis, with images of the same data that it has not seen.
    """
    check_out(arguments.out)
    options = _given(arguments, (*ANALYZE_OPTIONS, *QUANTIZER_OPTIONS))
    if "bit_widths" in options:
        options["bit_widths"] = tuple(options["bit_widths"])
    if arguments.further is not None:
        check_further(options)
        options |= {
            "known": Analysis.load(arguments.further),
            "source": str(arguments.further),
        }
    workload = _load(arguments)
    from engine.jobs.work import check_and_analyze, summary_of  # with torch, so only now

    with Bar() as bar:
        analysis = check_and_analyze(workload, **options, progress=bar)
    analysis.save(arguments.out)
    show(
        arguments,
        {"out": str(arguments.out), **summary_of(analysis)},
        f"{analysis.workload}: {len(analysis.layers)} layers, {analysis.parameters:,} weights, "
        f"{len(analysis.activations)} activations",
        f"{analysis.images:,} images seen ({analysis.provenance.data}) in {analysis.seconds:.1f} s",
        f"relative standard error {analysis.median_relative_sem:.1%} in the median layer, "
        f"{analysis.worst_relative_sem:.1%} in the worst; stopped by: {analysis.stopped_because}",
        f"saved {arguments.out}",
    )


def check(arguments: argparse.Namespace) -> int:
    """Say what to know of a network before it is analyzed; exit code 1 if anything is wrong."""
    workload = _load(arguments)
    from engine.checklist import check_workload  # with torch, so only now

    found = check_workload(workload)
    lines = [f"{one.severity}: {one.subject}\n  {one.sentence}" for one in found]
    show(
        arguments,
        {"workload": workload.name, "findings": [one.to_json() for one in found]},
        *(lines or [f"{workload.name}: nothing stands in the way of an analysis"]),
    )
    return FAILED if any(one.severity == "problem" for one in found) else DONE


def quantize(arguments: argparse.Namespace) -> int:
    """Quantize as planned, save the network, and measure what accuracy is left.

    With --finetune, train it in a run of its own and follow that; an interrupt ends only the
    watching.
    """
    plan = BitPlan.load(arguments.plan)
    training = arguments.finetune is not None
    names = (*QUANTIZER_OPTIONS, *ROUNDING_OPTIONS, *(() if training else ("seed",)))
    given = {name: str(value) for name, value in _given(arguments, names).items()}
    plan = replace(plan, quantizer=plan.quantizer | given)
    _check_one_workload(arguments)
    strange = POST_TRAINING_ALONE if training else (*TRAINING_ALONE, "detach")
    for name in _given(arguments, strange):
        place, got = ("without", "both") if training else ("with", "none")
        option = f"--{name.replace('_', '-')}"
        raise ValueError(f"{option} must come {place} --finetune, got {got}.")
    if training:
        return runs_cli.finetune(arguments, plan)
    from engine.jobs.work import measure_plan

    workload = _load(arguments)
    found: dict[str, Evaluation] = {}
    with Bar() as bar:
        for name, evaluation in measure_plan(
            workload,
            plan,
            folder=arguments.out,
            uniform=_rival(arguments, plan),
            max_images=arguments.max_images,
            progress=bar,
        ):
            found[name] = evaluation
    lines = [f"{name:8}{measured(evaluation)}" for name, evaluation in found.items()]
    results = {name: evaluation.to_json() for name, evaluation in found.items()}
    show(arguments, {"out": str(arguments.out), **results}, *lines, f"saved {arguments.out}")
    return DONE


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a network, float or quantized."""
    if arguments.out is not None:
        check_out(arguments.out)
    workload = _load(arguments)
    from engine.evaluation import evaluate as evaluate_model  # with torch, so only now
    from engine.quantized import load_quantized

    model = workload.model
    if arguments.quantized is not None:
        model = load_quantized(workload, arguments.quantized)
    with Bar() as bar:
        evaluation = evaluate_model(
            model,
            workload,
            max_images=arguments.max_images,
            progress=bar,
            command=arguments.command,
        )
    if arguments.out is not None:
        evaluation.save(arguments.out)
    show(arguments, evaluation.to_json(), measured(evaluation))


def _load(arguments: argparse.Namespace) -> "Workload":
    """The workload named, or that of the user's own file."""
    from engine.jobs.work import load

    _check_one_workload(arguments)
    data = arguments.data or DATA[0]
    return load(arguments.workload, arguments.workload_file, data, arguments.weights)


def _check_one_workload(arguments: argparse.Namespace) -> None:
    if (arguments.workload is None) == (arguments.workload_file is None):
        raise ValueError(
            "one workload must be given, by name or by --workload-file, "
            f"got {'neither' if arguments.workload is None else 'both'}; "
            f"known names: {', '.join(workload_names())}."
        )
    if arguments.workload is None and arguments.data is not None:
        raise ValueError("--data must come with a known workload, got --workload-file.")
    if arguments.workload is None and arguments.weights is not None:
        raise ValueError("--weights must come with a known workload, got --workload-file.")


def _rival(arguments: argparse.Namespace, plan: BitPlan) -> BitPlan | None:
    """The uniform plan to compare with, where an analysis says how large each would be."""
    from hawq_viz.viewmodels import summarize

    path = arguments.analysis
    if path is None:
        if plan.workload not in workload_names() or not stored_analysis(plan.workload).exists():
            return None
        path = stored_analysis(plan.workload)
    rival = summarize(Analysis.load(path), plan).rival
    return replace(rival, quantizer=plan.quantizer)


def _given(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """The options that were typed; the engine knows the defaults of the others."""
    found = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _truth(text: str) -> bool:
    if text not in ("True", "False"):
        raise argparse.ArgumentTypeError(f"must be True or False, got {text!r}")
    return text == "True"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hawq-viz",
        description="How sensitive each layer of a network is, and how many bits it needs.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], Any], purpose: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            run.__name__,
            help=purpose,
            description=run.__doc__,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        return made

    serving = command(app, "open the dashboard")
    serving.add_argument("--port", type=int, help="8501 or the next free one if not given")
    serving.add_argument("--headless", action="store_true", help="open no browser")
    serving.add_argument(
        "--workload-file",
        metavar="FILE.py:FUNCTION",
        help="offer your own network: a function that returns an engine.Workload; the file is run "
        "as Python with your rights, and can be named here alone, not in the browser",
    )

    checking = command(check, "say what to know of a network, and what is wrong with it")
    _add_workload(checking)
    _add_json(checking)

    measuring = command(analyze, "measure how sensitive each layer is")
    _add_workload(measuring)
    measuring.add_argument("--out", type=Path, required=True, metavar="ANALYSIS.json")
    _add_bit_widths(measuring)
    measuring.add_argument(
        "--relative-sem",
        type=float,
        metavar="SHARE",
        help="stop when every layer's relative standard error is at most this (0.1)",
    )
    measuring.add_argument(
        "--further",
        type=Path,
        metavar="ANALYSIS.json",
        help="go on from this analysis, with its settings, to half its error if not told otherwise",
    )
    measuring.add_argument("--max-images", type=int, metavar="N", help="see at most N images")
    measuring.add_argument("--max-seconds", type=float, metavar="S", help="stop after S seconds")
    measuring.add_argument("--batch-size", type=int, metavar="N", help="images a mini-batch (32)")
    measuring.add_argument("--seed", type=int, help="of the probes and the order of images (0)")
    measuring.add_argument(
        "--estimator", help="gauss_newton (default), hutchinson or hutchinson_shared"
    )
    measuring.add_argument("--granularity", help="of Ω: layer (default) or channel")
    measuring.add_argument(
        "--activations", type=_truth, metavar="True|False", help="analyze them too (True)"
    )
    _add_quantizer(measuring, "the first if not given")
    _add_json(measuring)

    choosing = command(frontier_cli.frontier, "choose the bits of each layer within a budget")
    frontier_cli.add_options(choosing)
    _add_bit_widths(choosing)
    _add_json(choosing)

    rounding = command(quantize, "quantize as planned, and measure what is left")
    _add_workload(rounding)
    rounding.add_argument("--plan", type=Path, required=True, metavar="PLAN.json")
    rounding.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    rounding.add_argument(
        "--analysis",
        type=Path,
        metavar="ANALYSIS.json",
        help="to compare with uniform bits; the stored one of a known workload if not given",
    )
    rounding.add_argument("--max-images", type=int, metavar="N", help="measure on N images")
    _add_quantizer(rounding, "as in the plan's analysis if not given")
    rounding.add_argument("--rounding", help="nearest (default) or learned from some images")
    rounding.add_argument("--correction", help="none (default), bias or batch_norm, from images")
    rounding.add_argument(
        "--sums", help="float (default), or integer: what is added gets onto one scale"
    )
    rounding.add_argument("--seed", type=int, help="of the images drawn, or of the training (0)")
    _add_training(rounding)
    _add_json(rounding)

    scoring = command(evaluate, "measure a network, float or quantized")
    _add_workload(scoring)
    scoring.add_argument("--quantized", type=Path, metavar="FOLDER", help="made by quantize")
    scoring.add_argument("--out", type=Path, metavar="EVALUATION.json")
    scoring.add_argument("--max-images", type=int, metavar="N", help="measure on N images")
    _add_json(scoring)

    runs_cli.add_runs(commands, EXIT_CODES)

    taking = command(export_cli.export, "write a quantized network as one file")
    export_cli.add_export_options(taking)
    _add_json(taking)

    telling = command(export_cli.report, "write a run's report, one file for a browser")
    export_cli.add_report_options(telling)
    _add_json(telling)
    return parser


def _add_workload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workload",
        nargs="?",
        metavar="WORKLOAD",
        help=f"{', '.join(workload_names())}, or torchvision/NAME",
    )
    parser.add_argument(
        "--workload-file",
        metavar="FILE.py:FUNCTION",
        help="your own network: a function that returns an engine.Workload; the file is run",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="in place of the network's own: safetensors, or a state dict of tensors alone",
    )
    parser.add_argument(
        "--data",
        help="sample (default), the images that come along, or full: fetched once, or for ImageNet "
        "in the folder HAWQ_VIZ_IMAGENET",
    )


def _add_bit_widths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bit-widths", type=int, nargs="+", metavar="BITS", help="in 1…8")


def _add_quantizer(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--scheme", help=f"symmetric or asymmetric ({default})")
    parser.add_argument("--weight-granularity", help=f"channel or tensor ({default})")
    parser.add_argument("--weight-range", help=f"mse, min_max or percentile ({default})")
    parser.add_argument("--activation-range", help=f"likewise ({default})")


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fine-tuning, in a run of its own")
    group.add_argument(
        "--finetune", type=float, metavar="EPOCHS", help="train the quantized network so long"
    )
    group.add_argument("--detach", action="store_true", default=None, help="do not follow the run")
    for name, kind, words in (
        ("learning-rate", float, "at its peak; by default what suits the optimizer"),
        ("batch-size", int, "images a step"),
        ("optimizer", str, " or ".join(OPTIMIZERS)),
        ("weight-decay", float, "of the weights"),
        ("step-sizes", str, " or ".join(STEP_SIZES)),
        ("activation-ranges", str, " or ".join(ACTIVATION_RANGES)),
        ("batch-norm", str, " or ".join(BATCH_NORMS)),
        ("distillation", float, "share of the loss that compares with the float network, 0…1"),
        ("clip-norm", float, "longest gradient that is followed as it is"),
        ("evaluate-every", int, "steps between measurements; by default twenty in all"),
        ("evaluation-images", int, "that measurements on the way look at"),
        ("checkpoint-every", int, "steps between checkpoints"),
    ):
        usual = getattr(Recipe, name.replace("-", "_"), None)
        words = words if usual is None else f"{words} ({usual})"
        metavar = {float: "X", int: "N", str: "NAME"}[kind]
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=words)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as one JSON line")
