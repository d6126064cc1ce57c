"""`hawq-viz frontier`: the plan of a budget, or of several, by any cost; or the plans there are."""

import argparse
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine.analysis import COSTS, Analysis
from engine.frontier import Frontier
from engine.latency import LatencyTable
from engine.results import BELOW_ERROR, BitPlan
from hawq_viz.figures.costs import NAMES, cost_of, cost_text, plan_text, uniform_text
from hawq_viz.terminal import check_out, show

BYTES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
UNITS = {
    "bytes": BYTES,
    "operations": {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
    "ms": {"": 1, "ms": 1, "us": 1e-3, "µs": 1e-3, "s": 1e3},
}
EXAMPLES = {
    "bytes": "a size such as 0.12MiB, 120KiB or 123456B",
    "operations": "operations such as 2.5G, 800M or 123456",
    "ms": "a time such as 1.5ms, 800us or 1.5",
}
NUMBER = re.compile(r"(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)\s*([^\W\d]*)")
POINTS_SHOWN = 10  # of a frontier without a budget
UNIFORM = ((4, 4), (4, 8), (8, 8))  # bits of weights and activations, beside plans of both


def frontier(arguments: argparse.Namespace) -> None:
    """Choose the plan of a budget, or of several, or show the range of plans there are."""
    analysis = Analysis.load(arguments.analysis)
    if arguments.out is not None:
        check_out(arguments.out)
    table = LatencyTable.load(arguments.latency) if arguments.latency is not None else None
    limits: dict[str, Any] = {
        "locked": _locks(arguments.lock, "--lock", "LAYER"),
        "tied": [group.split(",") for group in arguments.tie],
        "bit_widths": arguments.bit_widths,
        "weights": arguments.weights,
        "activations": arguments.activations,
        "locked_activations": _locks(arguments.lock_activation, "--lock-activation", "ACTIVATION"),
        "activation_bit_widths": arguments.activation_bit_widths,
        "same_bits": arguments.same_bits,
    }
    # 0 bits are to be refused, not to be passed over.
    limits = {name: value for name, value in limits.items() if value or type(value) is int}
    if arguments.budgets:
        plan, cost = _within(arguments, analysis, table, limits), None
    else:
        if arguments.separate:
            raise ValueError("--separate must come with --budgets, got none.")
        cost = arguments.cost or "size"
        found = analysis.frontier(cost, tolerance=arguments.tolerance, latency=table, **limits)
        if arguments.budget is None:
            _show_range(arguments, found, cost)
            return
        plan = found.within(budget_of(arguments.budget, cost, analysis))
    plan = replace(plan, made_by={**plan.made_by, "command": arguments.command})
    if arguments.out is not None:
        plan.save(arguments.out)
    _show_plan(arguments, analysis, table, plan, cost)


def budget_of(text: str, cost: str, analysis: Analysis) -> float:
    """Read a budget: a number with or without a unit, or average bits of what is stored.

    Args:
        text: Such as 0.12MiB, 3bits, 2.5G or 1.5ms.
        cost: One of `engine.analysis.COSTS`.
        analysis: Of the network, for a budget in bits of a weight or of an activation's element.

    Raises:
        ValueError: If it is no such text.
    """
    kind = COSTS[cost]
    counts = {
        "size": analysis.parameters,
        "activation_memory": sum(activation.elements for activation in analysis.activations),
    }
    match = NUMBER.fullmatch(text.strip())
    unit = match[2] if match else ""
    if match and unit in ("bit", "bits") and cost in counts:
        return float(match[1]) * counts[cost] / 8
    if match is None or unit not in UNITS[kind]:
        of = {"size": "a weight", "activation_memory": "an activation's element"}.get(cost)
        bits = f", or the bits of {of} such as 3bits" if of else ""
        raise ValueError(f"budget must be {EXAMPLES[kind]}{bits}, got {text!r}.")
    return float(match[1]) * UNITS[kind][unit]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What `frontier` may be told, beside bit widths and how to print."""
    parser.add_argument("analysis", type=Path, metavar="ANALYSIS.json")
    parser.add_argument("--cost", choices=tuple(COSTS), help="what plans are measured by (size)")
    parser.add_argument(
        "--budget", metavar="COST", help="0.12MiB, 120KiB, 3bits (a weight), 2.5G (bops), 1.5ms"
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=COST",
        help="several at once: size=0.12MiB bops=1.2G …, in place of --cost and --budget",
    )
    parser.add_argument(
        "--separate",
        action="store_true",
        help="weights by size first, then activations by activation_memory, as in the paper",
    )
    parser.add_argument("--out", type=Path, metavar="PLAN.json")
    parser.add_argument(
        "--lock", nargs="+", action="extend", default=[], metavar="LAYER=BITS", help="keep these"
    )
    parser.add_argument(
        "--lock-activation",
        nargs="+",
        action="extend",
        default=[],
        metavar="ACTIVATION=BITS",
        help="keep these; the network's input has 8 bits if not named",
    )
    parser.add_argument(
        "--tie",
        nargs="+",
        action="extend",
        default=[],
        metavar="LAYER,LAYER…",
        help="the same bits in all of these",
    )
    parser.add_argument(
        "--weights", type=int, metavar="BITS", help="of all weights, which are not chosen then"
    )
    parser.add_argument(
        "--activations", type=int, metavar="BITS", help="of all activations, likewise"
    )
    parser.add_argument(
        "--activation-bit-widths", type=int, nargs="+", metavar="BITS", help="to choose among"
    )
    parser.add_argument(
        "--same-bits", action="store_true", help="as many for a layer's input as for its weight"
    )
    parser.add_argument(
        "--latency", type=Path, metavar="TABLE.csv", help="with columns layer,w_bits,a_bits,ms"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="SHARE",
        help="of costs; 0 is exact, and usual but for bops and latency (0.001), peaks (0.01)",
    )


def _within(
    arguments: argparse.Namespace,
    analysis: Analysis,
    table: LatencyTable | None,
    limits: dict[str, Any],
) -> BitPlan:
    """The plan that keeps to all of --budgets."""
    for name in ("cost", "budget", "tolerance"):
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name} must come without --budgets, got both.")
    budgets = {}
    for text in arguments.budgets:
        name, _, value = text.partition("=")
        if name not in COSTS:
            raise ValueError(
                f"--budgets must be NAME=COST with a name of {', '.join(COSTS)}, got {text!r}."
            )
        if name in budgets:
            raise ValueError(f"--budgets must name every cost once, got {name} twice.")
        budgets[name] = budget_of(value, name, analysis)
    if not arguments.separate:
        return analysis.within(budgets, latency=table, **limits)
    if budgets.keys() != {"size", "activation_memory"}:
        raise ValueError(
            "--separate must come with budgets of size and activation_memory, got "
            f"{' and '.join(budgets)}."
        )
    strange = limits.keys() & {"weights", "activations", "same_bits"}
    if strange:
        option = min(strange).replace("_", "-")
        raise ValueError(f"--separate must come without --{option}, got both.")
    return analysis.separate(**budgets, **limits)


def _show_range(arguments: argparse.Namespace, found: Frontier, cost: str) -> None:
    """Some plans of a frontier, from end to end."""
    if arguments.out is not None:
        raise ValueError("--out must come with --budget, which chooses the plan, got none.")
    count = min(POINTS_SHOWN, len(found))
    indices = [round(i * (len(found) - 1) / max(1, count - 1)) for i in range(count)]
    plans = {f"{i:,}": found.plan(i) for i in indices}
    low, high = (f"{end:,.0f}" for end in found.cost[[0, -1]])
    what = f"{low} to {high} bytes of weights"
    if cost != "size":
        low, high = (cost_text(cost, float(end)) for end in found.cost[[0, -1]])
        what = f"{NAMES[cost]} {low} to {high}"
    show(
        arguments,
        {"points": len(found), "shown": [asdict(plan) for plan in plans.values()]},
        f"{len(found):,} plans that no other beats, {what}; {len(plans)} of them:",
        *_plan_lines(plans),
        "choose one with --budget",
    )


def _show_plan(
    arguments: argparse.Namespace,
    analysis: Analysis,
    table: LatencyTable | None,
    plan: BitPlan,
    cost: str | None,
) -> None:
    """A plan beside uniform ones."""
    from hawq_viz.viewmodels import summarize

    rival = summarize(analysis, plan, cost, table).rival
    others = {uniform_text(rival): rival}
    if plan.weight_bits and plan.activation_bits:
        others |= {
            f"W{w}A{a}": analysis.uniform(w, a)
            for w, a in UNIFORM
            if {w, a} <= set(analysis.bit_widths)
        }
    if table is not None:
        others = {name: _timed(analysis, other, table) for name, other in others.items()}
    show(
        arguments,
        {
            "plan": asdict(plan),
            "uniform": asdict(others[uniform_text(rival)]),
            "others": {name: asdict(other) for name, other in others.items()},
            "below_error": list(analysis.below_error),
            "out": str(arguments.out) if arguments.out else None,
        },
        *_plan_lines({"plan": plan, **others}),
        *_bit_lines(analysis, plan),
        *(f"{name}: {BELOW_ERROR}" for name in analysis.below_error),
        *([f"saved {arguments.out}"] if arguments.out is not None else []),
    )


def _timed(analysis: Analysis, plan: BitPlan, table: LatencyTable) -> BitPlan:
    """The plan with its time; as it was where the table lacks a pair of its bits."""
    bits = plan.weight_bits, plan.activation_bits
    try:
        return analysis.plan_of(*bits, latency=table, made_by=plan.made_by)
    except ValueError:
        return plan


def _plan_lines(plans: Mapping[str, BitPlan]) -> list[str]:
    """Plans under each other, each with a name; further costs where activations have bits."""
    lines = []
    for name, plan in plans.items():
        lines.append(
            f"{name:>8} {plan.size_bytes:>12,.0f} B   Ω {plan.omega:<9.4g} predicted loss increase "
            f"{plan.omega / 2:<9.3g} {plan_text(plan)}"
        )
        if plan.activation_bits:
            further = [cost for cost in COSTS if cost != "size" and cost in plan.costs]
            texts = [f"{NAMES[cost]} {cost_text(cost, cost_of(plan, cost))}" for cost in further]
            lines.append(f"{'':8} {', '.join(texts)}")
    return lines


def _bit_lines(analysis: Analysis, plan: BitPlan) -> list[str]:
    """Bits of each layer's weight, and of what it reads."""
    if not plan.activation_bits:
        return [f"  {name}: {bits}" for name, bits in plan.weight_bits.items()]
    reads = {name: x.name for x in analysis.activations for name in x.readers}
    return [
        f"  {name}: weight {plan.weight_bits.get(name, 'float')}, "
        f"input {plan.activation_bits.get(reads.get(name, ''), 'float')}"
        for name in analysis.names
    ]


def _locks(texts: Iterable[str], option: str, what: str) -> dict[str, int]:
    locked = {}
    for text in texts:
        name, _, bits = text.rpartition("=")
        if not name or not bits.isdecimal():
            raise ValueError(f"{option} must be {what}=BITS, got {text!r}.")
        locked[name] = int(bits)
    return locked
