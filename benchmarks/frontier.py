"""The whole frontier of ResNet50 with its plans, against one budget by a MILP solver.

54 layers with torchvision's sizes and seven bit widths. Ω is the average trace of figure 2 of the
HAWQ-V2 paper times the rounding error of torchvision's initial weights (seed 0; symmetric, one
scale per output channel from its largest weight).

    python benchmarks/frontier.py
"""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from setting import print_setting, verdict
from torchvision.models import resnet50

from engine.frontier import Frontier, greedy_path, monotone_frontier, pareto_frontier

BITS = np.arange(2, 9)
REPEATS = 9
BUDGETS = (2.5, 3, 4, 5, 6)  # average bits
FIGURE_2 = Path(__file__).parents[1] / "tests/published/hawq_v2_fig2_traces.json"


def problem() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Sizes in bytes [54, 7], Ω [54, 7] and traces [54]."""
    torch.manual_seed(0)
    modules = [m for m in resnet50().modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    weights = [module.weight.detach().flatten(1).double() for module in modules]
    traces = np.array(json.loads(FIGURE_2.read_text())["resnet50_54_layers"])
    sizes = np.outer([weight.numel() for weight in weights], BITS) / 8
    errors = [[rounding_error(weight, int(bits)) for bits in BITS] for weight in weights]
    return sizes, traces[:, None] * errors, traces


def rounding_error(weight: torch.Tensor, bits: int) -> float:
    """‖Q(W) − W‖², W [channels, n]."""
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True) / largest
    return float(((weight / scale).round() * scale - weight).square().sum())


def solve(costs: NDArray[Any], omegas: NDArray[Any], budget: float, gap: float) -> float:
    """Least Ω within the budget, by HiGHS: one 0/1 variable a layer and option."""
    layers, options = costs.shape
    one_each = LinearConstraint(np.kron(np.eye(layers), np.ones(options)), 1, 1)
    within = LinearConstraint(costs.reshape(1, -1) / budget, -np.inf, 1)
    result = milp(
        omegas.ravel() / omegas.max(),
        constraints=[one_each, within],
        integrality=np.ones(costs.size),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": gap},
    )
    return float(result.fun * omegas.max())


def seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median of several runs after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return median(times)


def main() -> None:
    """Print the table."""
    print_setting(
        f"Frontier of ResNet50, 54 layers, 2 to 8 bits; HiGHS in SciPy; medians of {REPEATS} runs",
        "numpy",
        "scipy",
    )
    costs, omegas, traces = problem()

    def whole() -> Frontier:
        frontier = pareto_frontier(costs, omegas)
        frontier.all_choices()
        return frontier

    frontier, whole_seconds = whole(), seconds(whole)
    print(f"whole frontier with its plans   {whole_seconds:7.3f} s   {len(frontier):,} points")
    for tolerance in (1e-3, 1e-2):
        thinned = pareto_frontier(costs, omegas, tolerance=tolerance)
        took = seconds(
            lambda tolerance=tolerance: pareto_frontier(costs, omegas, tolerance=tolerance)
        )
        print(f"  with tolerance {tolerance:<14g}   {took:7.3f} s   {len(thinned):,} points")
    monotone = monotone_frontier(costs, omegas, traces)
    took = seconds(lambda: monotone_frontier(costs, omegas, traces))
    print(f"the paper's monotone rule       {took:7.3f} s   {len(monotone):,} points")
    greedy = greedy_path(costs, omegas)
    took = seconds(lambda: greedy_path(costs, omegas))
    print(f"greedy path                     {took:7.3f} s   {len(greedy):,} points\n")

    print("one budget by HiGHS      exact     gap 1e-4   Ω / frontier's   monotone   greedy")
    solver_seconds = []
    for bits in BUDGETS:
        budget = costs[:, 0].sum() / BITS[0] * bits
        best = frontier.omega[frontier.index_within(budget)]
        exact = seconds(lambda budget=budget: solve(costs, omegas, budget, 0), 3)
        rough = seconds(lambda budget=budget: solve(costs, omegas, budget, 1e-4), 3)
        solver_seconds.append(exact)
        ratios = [solve(costs, omegas, budget, 0) / best]
        ratios += [x.omega[x.cost <= budget].min() / best for x in (monotone, greedy)]
        print(
            f"  average {bits:<3g} bits    {exact:7.3f} s  {rough:7.3f} s   "
            f"{ratios[0]:.9f}      {ratios[1]:8.4f} {ratios[2]:8.4f}"
        )
    solver = median(solver_seconds)
    print(f"  median              {solver:7.3f} s\n")
    ratio = whole_seconds / solver
    print(
        f"frontier / one exact solve: {ratio:.2f} (goal: at most 5, {verdict(ratio <= 5)}); ",
        end="",
    )
    print(f"under 1 s: {verdict(whole_seconds < 1)}")


if __name__ == "__main__":
    main()
