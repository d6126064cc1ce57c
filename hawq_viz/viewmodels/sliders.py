"""Sliders over the costs of plans: the budget of the shown one, and the part that is drawn."""

import math
from dataclasses import dataclass

from hawq_viz.figures.costs import unit
from hawq_viz.viewmodels.studies import Study

SLIDER_STEPS = 400  # about, from the cheapest plan to the dearest


@dataclass(frozen=True)
class Slider:
    """Ends, step and value of the budget slider, in its unit."""

    low: float
    high: float
    step: float
    value: float
    unit: str
    per_unit: float  # worth of its unit in the cost's own
    format: str  # of its value, as printf takes it


def budget_slider(study: Study, budget: float | None) -> Slider:
    """A slider of budgets with round steps, from the cheapest plan to the dearest.

    Its value is the budget asked for, not the plan's cost, so that no step is lost between two
    plans.
    """
    cost = study.frontier.cost
    asked = float(cost[study.suggested]) if budget is None else min(max(budget, cost[0]), cost[-1])
    chosen = unit(study.cost, float(cost[-1]))
    step, digits = _step((cost[-1] - cost[0]) / chosen.divisor)
    low, high = (
        math.ceil(end / chosen.divisor / step - 1e-9) * step for end in (cost[0], cost[-1])
    )
    value = math.ceil(asked / chosen.divisor / step - 1e-9) * step
    low, high, value = (round(x, digits) for x in (low, max(high, low + step), value))
    return Slider(
        low, high, round(step, digits), value, chosen.name, chosen.divisor, f"%.{digits}f"
    )


def part_of(study: Study, low: float | None, high: float | None) -> tuple[float, float] | None:
    """The part of the costs that is looked at, of what a view asks for; none for all of them."""
    least, most = _span(study)
    ends = max(low or least, least), min(high or most, most)
    return ends if ends[0] < ends[1] and ends != (least, most) else None


def _span(study: Study) -> tuple[float, float]:
    """Cost of the cheapest plan and of the dearest that are drawn."""
    lines = [line for line in (study.free, study.frontier) if line is not None]
    return min(float(x.cost[0]) for x in lines), max(float(x.cost[-1]) for x in lines)


@dataclass(frozen=True)
class PartSlider:
    """Ends, step and both values of the slider of what is looked at, in its unit."""

    low: float
    high: float
    step: float
    values: tuple[float, float]
    per_unit: float  # worth of its unit in the cost's own
    format: str

    def asked(self, values: tuple[float, float]) -> tuple[float | None, float | None]:
        """What a view asks for when these are chosen: nothing at an end."""
        low, high = (value * self.per_unit for value in values)
        return (
            None if values[0] <= self.low else low,
            None if values[1] >= self.high else high,
        )


def part_slider(study: Study, part: tuple[float, float] | None) -> PartSlider:
    """A slider with round steps over all costs that are drawn."""
    least, most = _span(study)
    per_unit = unit(study.cost, float(study.frontier.cost[-1])).divisor
    step, digits = _step((most - least) / per_unit)
    low = round(math.floor(least / per_unit / step) * step, digits)
    high = round(max(math.ceil(most / per_unit / step) * step, low + step), digits)
    values = (low, high)
    if part is not None:
        chosen = (round(round(end / per_unit / step) * step, digits) for end in part)
        first, last = (min(max(value, low), high) for value in chosen)
        values = (first, last)
    return PartSlider(low, high, round(step, digits), values, per_unit, f"%.{digits}f")


def zoomed_part(
    study: Study, ends: tuple[float, float] | None
) -> tuple[float | None, float | None]:
    """What a view asks for when a part of the axis is chosen in the chart, in its unit."""
    if ends is None:
        return None, None
    per_unit = unit(study.cost, float(study.frontier.cost[-1])).divisor
    least, most = _span(study)
    low, high = (end * per_unit for end in ends)
    if high <= least or low >= most:
        return None, None
    return (low if low > least else None), (high if high < most else None)


def _step(span: float) -> tuple[float, int]:
    """A round step that parts a span in about `SLIDER_STEPS`, and its decimals."""
    if not span:
        return 0.1, 1
    step = 10.0 ** math.floor(math.log10(span / SLIDER_STEPS))
    step *= next(m for m in (1, 2, 5, 10) if step * m * SLIDER_STEPS >= span)
    return step, max(0, -math.floor(math.log10(step)))
