"""Time and memory of `hawq-viz analyze`: the sample network, and the paper's at full size.

    python benchmarks/analyze.py [resnet20-cifar10] [resnet50] [inception_v3] [retinanet]

Each runs as a command of its own, from start to end: what it took includes making the network and
its 64 images, and for those of full size ten forward passes, see `full_size.py`.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from setting import print_setting, verdict

FULL_SIZE = Path(__file__).with_name("full_size.py")


@dataclass(frozen=True)
class Case:
    """What is analyzed, and the goals."""

    arguments: tuple[str, ...]
    words: str
    seconds: float
    gib: float


def full_size(function: str, words: str, minutes: float) -> Case:
    """A network that is made here."""
    arguments = ("--workload-file", f"{FULL_SIZE}:{function}")
    return Case(arguments, f"{words}, untrained, 64 images", 60 * minutes, 6)


CASES = {
    "resnet20-cifar10": Case(("resnet20-cifar10",), "resnet20-cifar10, shipped sample", 30, 2),
    "resnet50": full_size("resnet50_224", "ResNet50 at 224²", 3),
    "inception_v3": full_size("inception_v3_299", "Inception-V3 at 299²", 5),
    "retinanet": full_size("retinanet_320", "RetinaNet-ResNet50 at 320², 91 classes", 8),
}


def measured(command: list[str]) -> tuple[str, float, float]:
    """Run a command: what it prints, seconds, and most memory in GiB."""
    start = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)  # of this process alone
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return printed, perf_counter() - start, usage.ru_maxrss / 2**20  # KiB on Linux


def report(case: Case) -> None:
    """Analyze in a process of its own, and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hawq_viz", "analyze", *case.arguments]
        printed, seconds, peak = measured([*command, "--json", "--out", f"{folder}/analysis.json"])
    found = json.loads(printed)
    print(case.words)
    print(f"{seconds:.1f} s (goal: under {case.seconds:.0f}, ", end="")
    print(f"{verdict(seconds < case.seconds)}), {peak:.2f} GiB at most ", end="")
    print(f"(goal: under {case.gib:.0f}, {verdict(peak < case.gib)})")
    print(
        f"{found['images']} images, stopped by: {found['stopped_because']}; relative standard "
        f"error {found['median_relative_sem']:.1%} in the median layer, "
        f"{found['worst_relative_sem']:.1%} in the worst\n",
        flush=True,
    )


def main() -> None:
    """Time each network asked for, all by default."""
    print_setting("hawq-viz analyze", "torch", "torchvision")
    for name in sys.argv[1:] or CASES:
        report(CASES[name])


if __name__ == "__main__":
    main()
