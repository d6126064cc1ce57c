"""What a run can be taken away as, and how to make it again, in words."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.results import BitPlan
from hawq_viz.figures.costs import NAMES, cost_of, cost_text
from hawq_viz.viewmodels.studies import budgets_text

# What a plan remembers that is no argument of the call that made it.
NO_ARGUMENTS = ("cost", "budget", "budgets", "latency", "analysis", "command")


def plan_again(plan: BitPlan) -> str:
    """Lines of Python that make a plan again, from the analysis that it was made from.

    They follow from what the plan remembers of its making; where it remembers nothing, the bits
    themselves are the lines.
    """
    if "separate" in plan.made_by:  # its second step names the weights that the first one chose
        plan = replace(plan, made_by=plan.made_by["separate"][1])
    made = plan.made_by
    if "budgets" in made:
        call = f"analysis.within({made['budgets']!r}{_arguments(made)})"
    elif _is_within(plan):
        cost = made["cost"]
        most = cost_of(plan, cost) * (1 + 1e-12)  # a sum may differ in its last digit
        budget = made.get("budget", most)
        call = f"analysis.frontier({cost!r}{_arguments(made)}).within({budget!r})"
    elif "uniform" in made and ("activation_bits" in made) == bool(plan.activation_bits):
        inputs = f", {made['activation_bits']}" if "activation_bits" in made else ""
        call = f"analysis.uniform({made['uniform']}{inputs})"
    else:
        call = f"analysis.plan_of({plan.weight_bits!r}, {plan.activation_bits!r})"
    lines = ["from engine import Analysis"]
    if "latency=" in call:
        lines.append("from engine.latency import LatencyTable")
    return "\n".join([*lines, "", 'analysis = Analysis.load("analysis.json")', f"plan = {call}"])


def _arguments(made: Mapping[str, Any]) -> str:
    """The limits of a plan as arguments; those that say nothing are left out."""
    given = {name: x for name, x in made.items() if name not in NO_ARGUMENTS and x not in ({}, [])}
    said = "".join(f", {name}={value!r}" for name, value in given.items())
    if "latency" in made:
        said += f", latency=LatencyTable.load({made['latency']!r})"
    return said


def chosen_because(plan: BitPlan) -> str:
    """By what rule the bits were chosen, in a sentence."""
    made = plan.made_by
    if "budgets" in made:
        return f"Its bits have the least Ω within all of {budgets_text(made['budgets'])}."
    if "separate" in made:
        return "Its bits were chosen for the weights by size first, then for their inputs."
    if _is_within(plan):
        cost = made["cost"]
        most = cost_text(cost, made.get("budget", cost_of(plan, cost)))
        return f"It has the least Ω of all plans of at most {most} ({NAMES[cost]})."
    if "uniform" in made:
        return "Its bits are the same everywhere."
    return "Its bits were given."


def _is_within(plan: BitPlan) -> bool:
    """Whether a plan is the best within a budget for one cost."""
    cost = plan.made_by.get("cost")
    return cost == "size" or cost in plan.costs
