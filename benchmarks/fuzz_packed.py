"""Packed files with something wrong, by the hundred thousand: none may do harm.

Half of them are damaged by accident: each must be refused with a FormatError, or give the very
network. The other half say something else on purpose, with checksums that are right: each must be
refused, or make some network. Time and memory are watched.

    python benchmarks/fuzz_packed.py --files 100000
"""

import argparse
import random
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
from mutated import damaged, reworded
from setting import print_setting
from test_packed import WORKLOAD, images, plan_of

from engine import FormatError, export_packed, load_packed, quantize

PLAN = plan_of({"first": 3, "second": 4, "up": 2}, {"second": 8, "fc": 4})


def main() -> None:
    """Make the files one by one, and count what becomes of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print_setting("packed files with something wrong", "torch", "safetensors")
    chance, seen, slowest = random.Random(arguments.seed), Counter[str](), 0.0
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "net.safetensors"
        export_packed(quantize(WORKLOAD, PLAN, sums="integer"), path)
        content = path.read_bytes()
        expected = load_packed(path, WORKLOAD.model)(images())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(arguments.files):
            mutate = (damaged, reworded)[i % 2]
            path.write_bytes(mutate(content, chance))
            started = perf_counter()
            try:
                model = load_packed(path, WORKLOAD.model)
            except FormatError:
                outcome = "refused"
            else:
                same = mutate is damaged and torch.equal(model(images()), expected)
                outcome = "the network" if same else "another network"
            slowest = max(slowest, perf_counter() - started)
            seen[f"{mutate.__name__}: {outcome}"] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{arguments.files:,} files of {len(content):,} bytes, seed {arguments.seed}")
    for outcome, count in sorted(seen.items()):
        print(f"  {outcome:<28} {count:>7,}")
    print(f"  slowest {slowest * 1000:.0f} ms; memory grew by {grown / 1024:.0f} MiB")
    if seen["damaged: another network"]:
        sys.exit("a damaged file was taken for a whole one")


if __name__ == "__main__":
    main()
