"""What the pages say, worked out from results as plain values: no Streamlit, no Plotly."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from engine.analysis import Analysis
from engine.frontier import (
    Frontier,
    Overlay,
    greedy_path,
    monotone_frontier,
    uniform_points,
)
from engine.results import BitPlan, Evaluation

if TYPE_CHECKING:
    from engine.jobs import RunView

FLOAT_BITS = 32
KIB, MIB = 2**10, 2**20
TABLE_ROWS = 41  # of a frontier that may hold ten thousands of plans
SLIDER_STEPS = 400  # about, from the smallest plan to the largest

ESTIMATORS = {
    "gauss_newton": "output-space probes (one backward pass a mini-batch for all layers)",
    "hutchinson": "Hutchinson's estimator, layer by layer",
    "hutchinson_shared": "Hutchinson's estimator, one product for all layers",
}
STOPPED = {
    "target": "every layer had reached the error asked for",
    "images": "every image had been used once",
    "time": "the time allowed was up",
}


@dataclass(frozen=True, eq=False)
class Study:
    """One analysis and what follows from it, worked out once for all pages."""

    analysis: Analysis
    frontier: Frontier
    overlays: tuple[Overlay, ...]

    @classmethod
    def of(cls, analysis: Analysis) -> "Study":
        """Find the frontier over size, and what other rules would choose."""
        _, costs, omegas = analysis.options("size")
        traces = [layer.trace.for_omega for layer in analysis.layers]
        overlays = (
            uniform_points(costs, omegas),
            monotone_frontier(costs, omegas, traces),
            greedy_path(costs, omegas),
        )
        return cls(analysis, analysis.frontier("size"), overlays)

    @cached_property
    def suggested(self) -> int:
        """Where to start looking: the best plan as small as uniform 4 bits, or near it."""
        bits = min(self.analysis.bit_widths, key=lambda width: abs(width - 4))
        return self.frontier.index_within(self.analysis.uniform(bits).size_bytes)

    def point(self, size: float | None) -> int:
        """The frontier point of a size in bytes: the best not larger, or the suggested one."""
        if size is None:
            return self.suggested
        return self.frontier.index_within(max(size, float(self.frontier.cost[0])))

    def plan(self, size: float | None, bits: str = "") -> BitPlan:
        """The plan with these bits, a digit a layer; without any, that of the size's point."""
        layers, widths = self.analysis.names, self.analysis.bit_widths
        chosen = tuple(map(int, bits))
        if len(chosen) == len(layers) and set(chosen) <= set(widths):
            weight_bits = dict(zip(layers, chosen, strict=True))
            return self.analysis.plan_of(weight_bits, made_by={"opened": True})
        return self.frontier.plan(self.point(size))

    def above_frontier(self, plan: BitPlan) -> float:
        """Ω of a plan over the least there is at its size; 1 on the frontier."""
        best = self.frontier.omega[self.point(plan.size_bytes)]
        return float(plan.omega / best) if best else 1.0


@dataclass(frozen=True)
class Slider:
    """Ends, step and value of the size slider, in its unit."""

    low: float
    high: float
    step: float
    value: float
    unit: str
    bytes_per_unit: int
    format: str  # of its value, as printf takes it


def size_slider(study: Study, size: float | None) -> Slider:
    """A slider of sizes in bytes with round steps, from the smallest plan to the largest.

    Its value is the size asked for, not the plan's, so that no step is lost between two plans.
    """
    cost = study.frontier.cost
    size = float(cost[study.suggested]) if size is None else min(max(size, cost[0]), cost[-1])
    unit, divisor = ("MiB", MIB) if cost[-1] >= 4 * MIB else ("KiB", KIB)
    span = (cost[-1] - cost[0]) / divisor
    step = 10.0 ** math.floor(math.log10(span / SLIDER_STEPS)) if span else 0.1
    step *= next(m for m in (1, 2, 5, 10) if step * m * SLIDER_STEPS >= span) if span else 1
    low, high = (math.ceil(end / divisor / step - 1e-9) * step for end in (cost[0], cost[-1]))
    value = math.ceil(size / divisor / step - 1e-9) * step
    digits = max(0, -math.floor(math.log10(step)))
    low, high, value = (round(x, digits) for x in (low, max(high, low + step), value))
    return Slider(low, high, round(step, digits), value, unit, divisor, f"%.{digits}f")


@dataclass(frozen=True)
class Summary:
    """One plan in the words and numbers of its page."""

    plan: BitPlan
    rival: BitPlan  # uniform, the smallest that is not smaller
    rival_bits: int
    float_bytes: float

    @property
    def size(self) -> str:
        """Weight size for people."""
        return size_text(self.plan.size_bytes)

    @property
    def compression(self) -> str:
        """How many times smaller than float32."""
        return f"{self.float_bytes / self.plan.size_bytes:.2f}×"

    @property
    def average_bits(self) -> str:
        """Bits a weight."""
        return f"{FLOAT_BITS * self.plan.size_bytes / self.float_bytes:.2f} bits a weight"

    @property
    def omega(self) -> str:
        """Ω for people."""
        return short(self.plan.omega, 3)

    @property
    def loss_increase(self) -> str:
        """What ½Ω predicts."""
        return short(self.plan.omega / 2, 2)

    @property
    def omega_ratio(self) -> float:
        """Ω of uniform bits over this plan's; above 1 the plan is better."""
        return self.rival.omega / self.plan.omega if self.plan.omega else math.inf

    @property
    def ratio(self) -> str:
        """The same for people."""
        return f"{self.omega_ratio:.2f}×" if self.omega_ratio < 100 else f"{self.omega_ratio:,.0f}×"

    @property
    def rival_name(self) -> str:
        """The uniform plan, named by its bits."""
        return f"Uniform {self.rival_bits} bits"

    @property
    def rival_size(self) -> str:
        """The uniform plan's size."""
        same = abs(self.rival.size_bytes - self.plan.size_bytes) < 1
        return "same size" if same else size_text(self.rival.size_bytes)


def summarize(analysis: Analysis, plan: BitPlan) -> Summary:
    """Compare a plan with float32 and with the uniform plan of the nearest not smaller size."""
    widths = analysis.bit_widths
    uniform = [(bits, analysis.uniform(bits)) for bits in widths]
    bits, rival = next(
        (pair for pair in uniform if pair[1].size_bytes >= plan.size_bytes - 0.5), uniform[-1]
    )
    return Summary(plan, rival, bits, analysis.parameters * FLOAT_BITS / 8)


def short(value: float, digits: int) -> str:
    """A value with so many digits; a power of ten only where it is tiny or huge."""
    whole = 10**digits <= abs(value) < 1e6
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def size_text(size_bytes: float) -> str:
    """Bytes in KiB, or in MiB from one on."""
    return f"{size_bytes / MIB:,.2f} MiB" if size_bytes >= MIB else f"{size_bytes / KIB:,.1f} KiB"


def exactness(analysis: Analysis) -> str:
    """Whether the traces are the Hessian's own, in a sentence."""
    inexact = [layer.name for layer in analysis.layers if not layer.trace.exact]
    if not inexact:
        return (
            "Exact for this network: it is piecewise linear in each layer's weights, so what is "
            "estimated is the trace of the Hessian itself."
        )
    which = "every layer" if len(inexact) == len(analysis.layers) else f"{len(inexact)} layers"
    return (
        f"Not exact for {which} of this network (the first: `{inexact[0]}`): there the number is "
        "the trace of the Gauss-Newton matrix, not of the Hessian."
    )


def settings(analysis: Analysis) -> dict[str, str]:
    """How the analysis was made: what, in words."""
    made = analysis.provenance
    return {
        "Estimator": ESTIMATORS.get(analysis.estimator, analysis.estimator),
        "Images seen": f"{analysis.images:,}, each once",
        "Mini-batches": f"{len(analysis.batch_sizes):,}",
        "Error reached": (
            f"{analysis.median_relative_sem:.0%} in the median layer, "
            f"{analysis.worst_relative_sem:.0%} in the worst; asked for {analysis.relative_sem:.0%}"
        ),
        "Stopped because": STOPPED.get(analysis.stopped_because, analysis.stopped_because),
        "Data": made.data,
        "Seed": str(made.seed),
        "Quantizer": ", ".join(f"{key} {value}" for key, value in analysis.quantizer.items()),
        "Ω counted": f"per {analysis.granularity}",
        "Time taken": duration(analysis.seconds),
        "Made": made.created.replace("T", " "),
        "Command": made.command,
    }


def trace_table(analysis: Analysis) -> pd.DataFrame:
    """One row a layer: what it is, its trace and 95 % interval."""
    return pd.DataFrame(
        {
            "layer": layer.name,
            "kind": layer.kind,
            "shape": "×".join(map(str, layer.shape)),
            "weights": layer.parameters,
            "trace": layer.trace.mean,
            "95 % from": layer.trace.interval[0],
            "95 % to": layer.trace.interval[1],
            "standard error": layer.trace.relative_sem,
            "mini-batches": layer.trace.samples,
            "exact": layer.trace.exact,
            "below its error": layer.trace.floored,
        }
        for layer in analysis.layers
    )


def omega_table(analysis: Analysis) -> pd.DataFrame:
    """One row a layer: Ω at each bit width."""
    return pd.DataFrame(
        {
            "layer": layer.name,
            **{f"{bits} bits": layer.omega[bits] for bits in analysis.bit_widths},
        }
        for layer in analysis.layers
    )


def frontier_table(study: Study) -> pd.DataFrame:
    """One row for each of some plans, evenly along the frontier, with both ends."""
    last = len(study.frontier) - 1
    rows = min(last + 1, TABLE_ROWS)
    points = sorted({round(i * last / max(1, rows - 1)) for i in range(rows)})
    plans = [study.frontier.plan(point) for point in points]
    return pd.DataFrame(
        {
            "size (KiB)": plan.size_bytes / KIB,
            "Ω": plan.omega,
            "predicted loss increase": plan.omega / 2,
            "bits in forward order": plan.summary,
        }
        for plan in plans
    )


def plan_table(analysis: Analysis, plan: BitPlan) -> pd.DataFrame:
    """One row a layer: its bits, and its share of the plan's size and Ω."""
    return pd.DataFrame(
        {
            "layer": layer.name,
            "bits": plan.weight_bits[layer.name],
            "weights": layer.parameters,
            "size (KiB)": layer.parameters * plan.weight_bits[layer.name] / 8 / KIB,
            "Ω": layer.omega[plan.weight_bits[layer.name]],
        }
        for layer in analysis.layers
    )


def opened_plan(name: str, content: bytes, analysis: Analysis) -> BitPlan:
    """Read a plan that was saved elsewhere, and see that it is for this network.

    Raises:
        ValueError: If the file is none, or the plan is of another network or other bit widths.
    """
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(content)
        try:
            plan = BitPlan.load(path)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{folder}/", "")) from error
    if plan.workload != analysis.workload:
        raise ValueError(
            f"{name} must be a plan for {analysis.workload}, got one for {plan.workload}: "
            "choose that network in the sidebar first."
        )
    return analysis.plan_of(plan.weight_bits)


def opened_says(study: Study, plan: BitPlan) -> str:
    """What an opened plan gives away against the frontier."""
    ratio = study.above_frontier(plan)
    if ratio < 1.0005:
        return "Opened plan: it lies on this analysis' frontier."
    return f"Opened plan: {ratio:.2f}× the Ω of the best plan that is not larger."


def plan_file(plan: BitPlan) -> bytes:
    """The bytes `BitPlan.save` would write, for a download."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        plan.save(path)
        return path.read_bytes()


def quantize_options(summary: Summary, data: str) -> dict[str, Any]:
    """What a quantize run is told: the plan, its uniform rival and the images."""
    return {
        "plan": asdict(summary.plan),
        "uniform": asdict(summary.rival),
        "data": data,
    }


def evaluations(run: "RunView") -> dict[str, Evaluation]:
    """The networks a quantize run has measured so far: float, plan, uniform."""
    return {
        name: Evaluation.from_json(run.results[name])
        for name in ("float", "plan", "uniform")
        if name in run.results
    }


def is_analysis(run: "RunView", workload: str) -> bool:
    """Whether a run has finished an analysis of this workload."""
    return run.kind == "analyze" and run.workload == workload and run.state == "finished"


def analysis_name(run: "RunView") -> str:
    """An analyze run in a list: when, on what, to what error."""
    options = run.options
    return (
        f"{when(run)}, {options.get('data', 'sample')} data, "
        f"{options.get('relative_sem', 0.1):.0%}, seed {options.get('seed', 0)}"
    )


def watched(runs: Iterable["RunView"], kind: str, workload: str, run_id: str) -> "RunView | None":
    """The run to show: the one in the URL, else the newest that is not over."""
    own = runs_of(runs, kind, workload)
    named = [run for run in own if run.id == run_id]
    alive = [run for run in own if run.state in ("queued", "running")]
    return next(iter(named + alive), None)


def analyze_options(
    data: str, bit_widths: Iterable[int], error_percent: float, seed: int
) -> dict[str, Any]:
    """What an analyze run is told.

    Raises:
        ValueError: If no bit width is chosen.
    """
    if not (widths := sorted(bit_widths)):
        raise ValueError("bit_widths must name at least one bit width, got none: choose some.")
    return {
        "data": data,
        "bit_widths": widths,
        "relative_sem": error_percent / 100,
        "seed": int(seed),
    }


def quantize_name(run: "RunView", plan: BitPlan) -> str:
    """A quantize run in a list: when, how large, what came out; marked if it is of this plan."""
    found = evaluations(run)
    outcome = f"{found['plan'].value:.1%}" if "plan" in found else run.state
    size = size_text(run.options["plan"]["size_bytes"])
    picked = run.options["plan"]["weight_bits"] == plan.weight_bits
    mark = " · the picked plan" if picked else ""
    return f"{when(run)}, {size}, {run.options.get('data', 'sample')} data: {outcome}{mark}"


def when(run: "RunView") -> str:
    """When a run was made, on the clock of this machine."""
    return datetime.fromisoformat(run.created).astimezone().strftime("%-d %b %H:%M:%S")


def runs_of(
    runs: Iterable["RunView"], kind: str, workload: str, plan: BitPlan | None = None
) -> list["RunView"]:
    """Those of a kind and workload, and of a plan's bits if one is given, in their order."""
    return [
        run
        for run in runs
        if (run.kind, run.workload) == (kind, workload)
        and (plan is None or run.options["plan"]["weight_bits"] == plan.weight_bits)
    ]


def share_done(run: "RunView") -> float:
    """How much of a run is done, 0…1."""
    return min(1.0, run.done / run.total) if run.total else 0.0


def progress_text(run: "RunView") -> str:
    """How far a run is, in a line."""
    if run.state == "queued":
        return "Waiting for another run to end …"
    if not run.total:
        return "Starting a worker …"
    left = f", about {duration(run.eta_seconds)} left" if run.eta_seconds is not None else ""
    return f"{run.note}: {run.done:,} of {run.total:,}{left}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def measured_plan(run: "RunView") -> BitPlan:
    """The plan that a quantize run was given."""
    return BitPlan(**run.options["plan"])


def network_names(options: Mapping[str, Any]) -> dict[str, str]:
    """What to call the networks of a quantize run in a chart."""
    plan, uniform = options["plan"], options.get("uniform")
    names = {"float": "float32", "plan": f"HAWQ-V2, {size_text(plan['size_bytes'])}"}
    if uniform:
        bits = next(iter(uniform["weight_bits"].values()))
        names["uniform"] = f"uniform {bits} bits, {size_text(uniform['size_bytes'])}"
    return names


def accuracy_table(
    analysis: Analysis, options: Mapping[str, Any], found: Mapping[str, Evaluation]
) -> pd.DataFrame:
    """One row a network: its size, what was measured, and how the loss rose against ½Ω."""
    names = network_names(options)
    rows = []
    for name, evaluation in found.items():
        plan = options.get(name) or {
            "size_bytes": analysis.parameters * FLOAT_BITS / 8,
            "omega": 0.0,
        }
        low, high = evaluation.interval
        rise = evaluation.loss - found["float"].loss if "float" in found else math.nan
        rows.append(
            {
                "network": names[name].partition(",")[0],
                "size (KiB)": plan["size_bytes"] / KIB,
                f"{evaluation.metric} (%)": 100 * evaluation.value,
                "95 % from": 100 * low,
                "to": 100 * high,
                "loss": evaluation.loss,
                "loss rise": rise,
                "½Ω": plan["omega"] / 2,
            }
        )
    return pd.DataFrame(rows)


def verdict(found: Mapping[str, Evaluation], options: Mapping[str, Any]) -> str:
    """What a finished quantize run has shown, in a sentence or two."""
    names = network_names(options)
    plan = found["plan"]
    lost = 100 * (found["float"].value - plan.value)
    says = f"The plan keeps {plan.value:.1%}, {abs(lost):.1f} points {_than(lost)} float32"
    if "uniform" in found:
        ahead = 100 * (plan.value - found["uniform"].value)
        rival = names["uniform"].partition(",")[0]
        says += f" and {abs(ahead):.1f} points {'above' if ahead >= 0 else 'below'} {rival}"
        if _overlap(plan.interval, found["uniform"].interval):
            says += " (their 95 % intervals overlap: more test images would tell)"
    return says + "."


def _than(lost: float) -> str:
    return "below" if lost >= 0 else "above"


def _overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def images_sentence(found: Mapping[str, Evaluation]) -> str:
    """Which test images, and how many."""
    evaluation = next(iter(found.values()))
    return f"Measured on {evaluation.samples:,} images: {evaluation.provenance.data}."


def traces_alt(analysis: Analysis) -> str:
    """The trace chart in words."""
    ranked = sorted(analysis.layers, key=lambda layer: layer.trace.mean)
    return (
        f"Average Hessian trace of {len(ranked)} layers in forward order with 95 % intervals, log "
        f"axis: from {ranked[0].trace.mean:.2g} ({ranked[0].name}) "
        f"to {ranked[-1].trace.mean:.2g} ({ranked[-1].name})."
    )


def omegas_alt(analysis: Analysis) -> str:
    """The heatmap in words."""
    low, high = analysis.bit_widths[0], analysis.bit_widths[-1]
    worst = max(analysis.layers, key=lambda layer: layer.omega[low])
    return (
        f"Heatmap of Ω, layers against bit widths {low} to {high}, log colours. Ω falls with every "
        f"bit; the largest is {worst.name} at {low} bits with {worst.omega[low]:.2g}."
    )


def frontier_alt(study: Study, plan: BitPlan) -> str:
    """The frontier chart in words."""
    cost, omega = study.frontier.cost, study.frontier.omega
    return (
        f"Size against Ω, log axis: {len(study.frontier):,} plans from {size_text(cost[0])} with "
        f"Ω {omega[0]:.2g} to {size_text(cost[-1])} with Ω {omega[-1]:.2g}; picked: "
        f"{size_text(plan.size_bytes)} with Ω {plan.omega:.2g}. Uniform bits, the paper's rule and "
        "greedy lie on or above it. The slider below picks plans from the keyboard."
    )


def plan_alt(plan: BitPlan) -> str:
    """The bits of a plan in words."""
    return f"Bits of each layer from input to output: {plan.summary}."


def accuracies_alt(found: Mapping[str, Evaluation], options: Mapping[str, Any]) -> str:
    """The accuracies in words."""
    names = network_names(options)
    return "Measured: " + "; ".join(
        f"{names[name]}: {x.value:.2%} ({x.interval[0]:.2%} to {x.interval[1]:.2%})"
        for name, x in found.items()
    )
