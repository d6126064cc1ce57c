"""Exported files in ONNX Runtime: accuracy beside PyTorch, kernels, and speed against float.

All test images of CIFAR-10 for ResNet20's accuracy. For speed, float and quantized files take
turns, round by round, and ratios are taken within a round, so that a machine that slows down slows
both sides. torchvision's ResNet50 is untrained: its time does not depend on what it has learned.

    python benchmarks/onnx.py
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

from full_size import resnet50_224
from setting import print_setting, verdict

sys.path.remove(str(Path(__file__).parent))  # where `import onnx` would find this file

import onnx
import onnxruntime
import torch

from engine import (
    Analysis,
    BitPlan,
    Workload,
    check_onnx,
    export_onnx,
    load_workload,
    quantize,
)
from engine.activations import find_activations
from engine.layers import find_layers, fold_batch_norm
from engine.onnx_check import PROVIDERS, session_options
from engine.onnx_export import traced
from engine.workloads import example_image, stored_analysis

NAME = "resnet20-cifar10"
POINTS, SHARE = 0.002, 0.9  # goals: top-1 beside PyTorch's, convolutions as integer kernels
ROUNDS, WARM_UP = 30, 3
BATCHES = (1, 32)
ACTIVATIONS = 8  # bits


def accuracy(folder: Path, data: str) -> None:
    """Print what ONNX Runtime makes of ResNet20's plans on the test images."""
    workload = load_workload(NAME, data)
    analysis = Analysis.load(stored_analysis(NAME))
    eight = {x.name: ACTIVATIONS for x in analysis.activations}
    four = analysis.uniform(4)
    mixed = analysis.frontier().within(four.size_bytes)
    weights = {"W8": analysis.uniform(8), "W4": four, f"W{mixed.summary.replace(' ', ',')}": mixed}
    print(f"{NAME}, {len(workload.test):,} test images, top-1")  # type: ignore[arg-type]
    print(f"  {'ONNX':>7} {'PyTorch':>8} {'apart':>7} {'largest':>8} {'integer':>8} {'KiB':>6}")
    met, example = True, example_image(workload.test)
    layers = find_layers(workload.model, example)
    convolutions = [layer.name for layer in layers if layer.kind == "conv2d"]
    for name, plan in weights.items():
        for label, bits, sums in (
            ("weights only", {}, "float"),
            (f"A{ACTIVATIONS}", eight, "float"),
            (f"A{ACTIVATIONS}, sums integer", eight, "integer"),
        ):
            model = quantize(workload, replace(plan, activation_bits=bits), sums=sums)
            file = folder / "net.onnx"
            export = export_onnx(model, file, example)
            check = check_onnx(file, model, workload, export)
            assert check.onnx is not None, check.refused
            apart = check.onnx.value - check.pytorch.value
            integer = [check.runs_as[x] == "integer kernel" for x in convolutions]
            print(
                f"  {check.onnx.value:7.2%} {check.pytorch.value:8.2%} {apart:+7.2%} "
                f"{check.largest_difference:8.3f} {sum(integer):>5}/{len(integer)} "
                f"{export.file_bytes / 2**10:6.0f}  {name}, {label}",
                flush=True,
            )
            met &= abs(apart) <= POINTS
            if name == "W8" and sums == "integer":
                enough = sum(integer) / len(integer)
    print(f"  top-1 within {POINTS:.1%} of PyTorch's for each: {verdict(met)}")
    print(f"  convolutions as integer kernels, W8A8: {enough:.0%} (goal: {SHARE:.0%}, ", end="")
    print(f"{verdict(enough >= SHARE)})\n", flush=True)


def files_of(workload: Workload, folder: Path) -> dict[str, Path]:
    """The float network and quantized ones as files."""
    example = example_image(workload.test)
    folded = fold_batch_norm(workload.model, example).eval()
    names = [layer.name for layer in find_layers(folded, example)]
    activations = {x.name: ACTIVATIONS for x in find_activations(folded, example).found}
    files = {"float": folder / "float.onnx"}
    onnx.save(traced(folded, example), files["float"])
    for label, bits, sums in (
        ("W8A8", 8, "float"),
        ("W8A8, sums integer", 8, "integer"),
        ("W4A8, sums integer", 4, "integer"),
    ):
        weight_bits = dict.fromkeys(names, bits)
        plan = BitPlan(workload.name, weight_bits, 0.0, 0.0, activation_bits=activations)
        model = quantize(workload, plan, sums=sums)
        files[label] = folder / f"{len(files)}.onnx"
        export_onnx(model, files[label], example)
    return files


def speed(title: str, files: Mapping[str, Path], example: torch.Tensor, rounds: int) -> None:
    """Print the time of each file, and how many times faster than float it is."""
    options = session_options()
    options.log_severity_level = 3
    sessions = {
        name: onnxruntime.InferenceSession(path, options, providers=PROVIDERS)
        for name, path in files.items()
    }
    print(f"{title}: ONNX Runtime {onnxruntime.__version__} on the processor, {rounds} rounds")
    for batch in BATCHES:
        images = torch.cat([example] * batch).numpy()
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for i in range(WARM_UP + rounds):
            for name, session in sessions.items():
                start = perf_counter()
                session.run(None, {"images": images})
                if i >= WARM_UP:
                    times[name].append(perf_counter() - start)
        for name, own in times.items():
            ratios = [x / y for x, y in zip(times["float"], own, strict=True)]
            low, _, high = quantiles(ratios, n=4)
            print(
                f"  batch {batch:>2}  {1000 * median(own) / batch:8.2f} ms an image  "
                f"{median(ratios):5.2f}× as fast as float ({low:.2f} to {high:.2f})  {name}, "
                f"{files[name].stat().st_size / 2**20:.2f} MiB",
                flush=True,
            )
    print()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=("full", "sample"), default="full")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--part", choices=("accuracy", "speed"), help="both by default")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print_setting(
        "ONNX: exported files in ONNX Runtime", "torch", "onnx", "onnxscript", "onnxruntime"
    )
    with tempfile.TemporaryDirectory() as folder:
        if arguments.part != "speed":
            accuracy(Path(folder), arguments.data)
        if arguments.part != "accuracy":
            for workload in (load_workload(NAME), resnet50_224()):
                files = files_of(workload, Path(folder))
                speed(workload.name, files, example_image(workload.test), arguments.rounds)


if __name__ == "__main__":
    main()
