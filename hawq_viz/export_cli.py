"""`hawq-viz export` and `hawq-viz report`: what can be taken away, as files."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import jobs
from engine.analysis import Analysis
from engine.jobs.folders import ONNX, PACKED
from engine.results import PLAN_FILE, BitPlan, OnnxCheck
from engine.workloads import DATA
from hawq_viz.terminal import Bar, measured, show
from hawq_viz.viewmodels import export as words

if TYPE_CHECKING:
    from torch import nn

    from engine.workloads import Workload

NAMES = {"packed": PACKED, "onnx": ONNX}  # of a format's file, if it is not told another


def export(arguments: argparse.Namespace) -> None:
    """Write a quantized network as one file, and its plan beside it.

    The network is what `quantize --out` wrote, or that of a run. A packed file is as small as its
    plan says and is loaded by engine.load_packed, or with PyTorch alone; an ONNX file is for ONNX
    Runtime, in containers of 4 and 8 bits.
    """
    suffix = Path(NAMES[arguments.format]).suffix
    if arguments.out is not None and arguments.out.suffix != suffix:
        raise ValueError(
            f"--out must be a file that ends in {suffix} for --format {arguments.format}, got "
            f"{str(arguments.out)!r}."
        )
    if arguments.max_images is not None and not (arguments.check and suffix == ".onnx"):
        raise ValueError("--max-images must come with --format onnx --check, got neither or one.")
    workload, model, folder = _network(arguments)
    out = arguments.out = arguments.out or folder / NAMES[arguments.format]
    out.parent.mkdir(parents=True, exist_ok=True)
    result, lines = (_packed if arguments.format == "packed" else _onnx)(arguments, workload, model)
    plan = out.with_name(f"{out.name.removesuffix(suffix)}.{PLAN_FILE}")
    assert isinstance(model.plan, BitPlan)
    model.plan.save(plan)
    result |= {"out": str(out), "plan": str(plan)}
    show(arguments, result, *lines, f"saved {out}, and its plan in {plan}")


def _network(arguments: argparse.Namespace) -> tuple["Workload", "nn.Module", Path]:
    """The workload, its quantized network and the folder of that, itself or of a run."""
    from engine.jobs.work import QUANTIZED, load
    from engine.quantized import load_quantized

    folder, file, weights = Path(arguments.source), arguments.workload_file, arguments.weights
    data = arguments.data
    if not folder.is_dir():
        run = jobs.view(arguments.source)
        folder = run.artefact(QUANTIZED)
        file, weights = file or run.workload_file, weights or run.weights
        data = data or run.options.get("data")
    plan = BitPlan.load(folder / PLAN_FILE)
    workload = load(plan.workload, file, data or DATA[0], weights)
    workload = replace(workload, name=plan.workload)
    return workload, load_quantized(workload, folder), folder


def _packed(
    arguments: argparse.Namespace, workload: "Workload", model: "nn.Module"
) -> tuple[dict[str, Any], list[str]]:
    from engine.jobs.work import compare_packed
    from engine.packed import export_packed

    file = export_packed(model, arguments.out)
    result: dict[str, Any] = {"packed": file.to_json()}
    rows = words.packed_table(file).itertuples(index=False)
    lines = [f"{row.what:15}{row.bytes:>13,} bytes  {row.why}" for row in rows]
    if arguments.check:
        images, same = compare_packed(arguments.out, model, workload)
        result |= {"images": images, "same": same}
        lines.append(words.loaded_again(images, same))
    return result, lines


def _onnx(
    arguments: argparse.Namespace, workload: "Workload", model: "nn.Module"
) -> tuple[dict[str, Any], list[str]]:
    from engine.onnx_check import check_onnx
    from engine.onnx_export import export_onnx
    from engine.workloads import example_image

    written = export_onnx(model, arguments.out, example_image(workload.test))
    result: dict[str, Any] = {"onnx": written.to_json()}
    check: OnnxCheck | None = None
    if arguments.check:
        with Bar() as bar:
            check = check_onnx(
                arguments.out,
                model,
                workload,
                written,
                max_images=arguments.max_images,
                progress=bar,
                command=arguments.command,
            )
        result["check"] = check.to_json()
    rows = words.onnx_table(written, check).itertuples(index=False)
    width = max(len(layer.name) for layer in written.layers)
    lines = [
        f"{row[0]:{width}}  {row[1]} bits in {row[2]}{f', {row[3]}' if check else ''}"
        for row in rows
    ]
    lines += words.onnx_notes(written, check)
    lines.append(f"opset {written.opset}, {written.file_bytes:,} bytes")
    if check is not None:
        lines += [f"PyTorch {measured(check.pytorch)}"]
        lines += [f"ONNX    {measured(check.onnx)}"] if check.onnx else []
        lines.append(words.onnx_says(check))
    return result, lines


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """What `export` may be told, beside how to print."""
    parser.add_argument(
        "source", metavar="FOLDER|RUN", help="what `quantize --out` wrote, or a run's id"
    )
    parser.add_argument("--format", choices=NAMES, required=True, help="packed, or onnx")
    parser.add_argument("--out", type=Path, metavar="FILE", help="beside the network if not given")
    parser.add_argument(
        "--check", action="store_true", help="try the file on the test images, in ONNX Runtime"
    )
    parser.add_argument("--max-images", type=int, metavar="N", help="check on N images")
    parser.add_argument("--data", help="sample (default) or full, of a known workload")
    parser.add_argument(
        "--workload-file", metavar="FILE.py:FUNCTION", help="your own network; the file is run"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="of the float network, if not its own"
    )


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
    if "plan" not in run.options:
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
