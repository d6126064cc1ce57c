"""The whole frontier of ResNet50 with its plans, against one budget by a MILP solver.

54 layers with torchvision's sizes and seven bit widths. Ω is the average trace of figure 2 of the
HAWQ-V2 paper times the rounding error of torchvision's initial weights (seed 0; symmetric, one
scale per output channel from its largest weight).

The joint choice of weights and activations has 49 pairs a layer, measured by bit operations. No
figure of activations' traces is published, so their Ω is made up: of the size of the weights', in
another order of layers. It says nothing of the network, but costs as much time.

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

from engine.budgets import within_budgets
from engine.frontier import Frontier, greedy_path, monotone_frontier, pareto_frontier
from engine.joint import joint_frontier

BITS = np.arange(2, 9)
REPEATS = 9
TOLERANCE = 1e-3  # of the joint frontier
SIDE = 224  # of images
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


def joint_problem() -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]]:
    """Costs [54, 7, 7] by name, Ω [54, 7, 7], and a number for each layer's input [54]."""
    model, macs, elements, inputs = resnet50().eval(), [], [], []
    reads: dict[int, int] = {}  # place of a tensor in memory → its number

    def see(module: torch.nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        read = args[0]
        inputs.append(reads.setdefault(id(read), len(reads)))
        held.append(read)
        elements.append(read[0].numel())
        weight = module.weight
        macs.append(output[0].numel() * weight[0].numel())

    held: list[torch.Tensor] = []  # so that no place is taken twice
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(see) for layer in layers]
    for module in model.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
    with torch.no_grad():
        model(torch.zeros(1, 3, SIDE, SIDE))
    for hook in hooks:
        hook.remove()
    sizes, omegas, _ = problem()
    number = np.array(inputs)
    first = np.array([i == inputs.index(n) for i, n in enumerate(inputs)])
    pair = np.ones((len(macs), len(BITS), len(BITS)))
    costs = {
        "size": sizes[:, :, None] * pair,
        "bops": np.array(macs, float)[:, None, None] * BITS[:, None] * BITS,
        "activation_memory": (first * elements)[:, None, None] * BITS / 8 * pair,
    }
    shuffled = np.random.default_rng(0).permutation(omegas)[:, None, :] * first[:, None, None]
    return costs, omegas[:, :, None] + shuffled, number


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
    print(f"under 1 s: {verdict(whole_seconds < 1)}\n")
    joint()


def joint() -> None:
    """Print the lines of the joint choice."""
    costs, omegas, inputs = joint_problem()
    layers, pairs = len(omegas), omegas[0].size
    print(f"weights and activations, {layers} layers of {pairs} pairs, {len(set(inputs))} inputs")

    def whole() -> Frontier:
        return joint_frontier(costs["bops"], omegas, activation_groups=inputs, tolerance=TOLERANCE)

    frontier, took = whole(), seconds(whole)
    print(
        f"  frontier by bit operations, tolerance {TOLERANCE:g}, with its plans   {took:7.3f} s   ",
        end="",
    )
    print(f"{len(frontier):,} points (goal: under 2 s, {verdict(took < 2)})")
    for names in (("bops",), ("size", "bops"), ("size", "bops", "activation_memory")):
        budgets = {name: float(costs[name][:, 2, 2].sum()) for name in names}  # of W4A4
        tables = {name: costs[name] for name in names}

        def solved(tables: Any = tables, budgets: Any = budgets) -> NDArray[Any]:
            return within_budgets(tables, omegas, budgets, activation_groups=inputs)

        took = seconds(solved, 3)
        omega = omegas.reshape(layers, -1)[np.arange(layers), solved()].sum()
        best = frontier.omega[frontier.index_within(budgets["bops"])]
        what = f"{' and '.join(names):<35} by HiGHS"
        print(f"  {what}   {took:7.3f} s   Ω / frontier's {omega / best:.6f}")


if __name__ == "__main__":
    main()
