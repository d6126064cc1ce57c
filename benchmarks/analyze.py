"""Time and memory of `hawq-viz analyze` on the sample network and the shipped images.

python benchmarks/analyze.py
"""

import json
import resource
import subprocess
import sys
import tempfile
from time import perf_counter

from setting import print_setting, verdict

SECONDS, GIB = 30, 2  # goals


def main() -> None:
    """Run the command in a process of its own and print what it took."""
    print_setting("hawq-viz analyze resnet20-cifar10, on the shipped sample", "torch")
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "hawq_viz", "analyze", "resnet20-cifar10", "--json"]
        start = perf_counter()
        done = subprocess.run(
            [sys.executable, *command, "--out", f"{folder}/analysis.json"],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # KiB on Linux
    found = json.loads(done.stdout)
    print(f"{seconds:.1f} s (goal: under {SECONDS}, {verdict(seconds < SECONDS)}), ", end="")
    print(f"{peak:.2f} GiB at most (goal: under {GIB}, {verdict(peak < GIB)})")
    print(
        f"{found['images']} images, stopped by: {found['stopped_because']}; relative standard "
        f"error {found['median_relative_sem']:.1%} in the median layer, "
        f"{found['worst_relative_sem']:.1%} in the worst"
    )


if __name__ == "__main__":
    main()
