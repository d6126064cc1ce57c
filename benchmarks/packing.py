"""Packing and unpacking a network of ResNet50's size, and what every byte of the file is.

Its weights are untrained and were rounded to 4 bits; beside it, what writing and reading the float
network's state dict takes with safetensors, round by round.

    python benchmarks/packing.py
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from full_size import resnet50_224
from safetensors.torch import load_file, save_file
from setting import print_setting, verdict

from engine import BitPlan, export_packed, load_packed, quantize
from engine.layers import find_layers
from engine.workloads import example_image

ROUNDS, BITS = 10, 4
SECONDS, SHARE = 2.0, 0.02  # goals: of packing and of unpacking; of the plan, that the file is more


def seconds(act: Callable[[], object]) -> float:
    """How long a call takes."""
    started = perf_counter()
    act()
    return perf_counter() - started


def main() -> None:
    """Print the times and the sizes."""
    print_setting("packed files of ResNet50", "torch", "safetensors")
    workload = resnet50_224()
    layers = find_layers(workload.model, example_image(workload.test))
    size = sum(layer.parameters for layer in layers) * BITS / 8
    model = quantize(workload, BitPlan(workload.name, {x.name: BITS for x in layers}, size, 0.0))
    state = workload.model.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        packed, plain = Path(folder) / "packed.safetensors", Path(folder) / "float.safetensors"
        acts: dict[str, Callable[[], object]] = {
            "packing": lambda: export_packed(model, packed),
            "unpacking": lambda: load_packed(packed, workload.model),
            "writing float": lambda: save_file(state, plain),
            "reading float": lambda: workload.model.load_state_dict(load_file(plain)),
        }
        taken: dict[str, list[float]] = {name: [] for name in acts}
        for _ in range(ROUNDS):
            for name, act in acts.items():
                taken[name].append(seconds(act))
        said = export_packed(model, packed)
        for name, times in taken.items():
            line = f"  {name:<14} {median(times):.2f} s (longest {max(times):.2f})"
            goal = name.endswith("packing")
            print(
                line + (f"; under {SECONDS:g} s: {verdict(max(times) < SECONDS)}" if goal else "")
            )
        print(f"  float file {plain.stat().st_size / 2**20:.2f} MiB, packed:")
    for kind, count in said.by_kind.items():
        print(f"    {kind:<15} {count:>12,} bytes")
    more = said.file_bytes / said.promised_bytes - 1
    print(
        f"  {said.file_bytes:,} bytes, {more:.2%} above the plan's {said.promised_bytes:,.0f}; ",
        end="",
    )
    print(f"within {SHARE:.0%}: {verdict(more <= SHARE)}")


if __name__ == "__main__":
    main()
