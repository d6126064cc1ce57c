"""Whether other images would have led to another plan: plans found again under redrawn traces.

Mini-batches are drawn anew from those of the analysis, with replacement and each as a whole, so
that the errors of all layers, which share their images, stay together (the bootstrap: Efron,
"Bootstrap methods: another look at the jackknife", 1979). One less than there are is drawn: the
spread of their mean is then the standard error of the analysis itself. An error common to all
layers changes no plan; what is left is what more images would settle.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self, Unpack

import numpy as np
from numpy.typing import NDArray

from engine.analysis import Analysis
from engine.budgets import within_budgets
from engine.choices import COSTS, OF_ACTIVATIONS, OF_WEIGHTS, Choices, Limits, listed
from engine.joint import consistent
from engine.latency import LatencyTable
from engine.results import CONFIDENCE, BitPlan, Progress, wilson_interval
from engine.within import TooMany, least_omegas

DRAWS = 200
CERTAIN = 0.95  # share of the draws that have to agree
SPREAD = (0.05, 0.95)  # of the draws, between which bits are told to lie


@dataclass(frozen=True, eq=False)
class Redrawn:
    """By what Ω changes if mini-batches are drawn anew: one factor for all bit widths."""

    weights: NDArray[np.float64]  # [draws, layers]
    inputs: NDArray[np.float64]  # [draws, activations]
    seed: int

    @classmethod
    def of(cls, analysis: Analysis, *, draws: int = DRAWS, seed: int = 0) -> Self:
        """Draw mini-batches, the same for all layers and activations, weighted by their size.

        A redrawn trace takes the place of the analysis' own, and like it is at least its standard
        error, which is not drawn anew. Where Ω was counted per output channel, the channels of a
        layer rise and fall together: only the layer's own trace is known of each mini-batch.

        Raises:
            ValueError: If there are fewer than two draws or mini-batches, or an activation's are
                missing.
        """
        sizes = analysis.batch_sizes
        if draws < 2:
            raise ValueError(f"draws must be at least 2, got {draws}: {DRAWS} are usual.")
        if len(sizes) < 2:
            raise ValueError(
                f"analysis must hold at least 2 mini-batches, got {len(sizes)}: "
                "analyze more images."
            )
        expected = len(sizes), len(analysis.activations)
        if analysis.activations and analysis.activation_batch_traces.shape != expected:
            raise ValueError(
                f"analysis must hold traces [batches, activations] {expected}, "
                f"got {analysis.activation_batch_traces.shape}: analyze again."
            )
        drawn = np.random.default_rng(seed).multinomial(
            len(sizes) - 1, np.full(len(sizes), 1 / len(sizes)), size=draws
        )  # how often each mini-batch, [draws, batches]
        shares = drawn * sizes / (drawn @ sizes)[:, None]
        usual = sizes / sizes.sum()
        layers = [layer.trace.sem for layer in analysis.layers]
        inputs = [x.trace.sem for x in analysis.activations]
        return cls(
            _factors(analysis.batch_traces, shares, usual, layers),
            _factors(analysis.activation_batch_traces, shares, usual, inputs),
            seed,
        )

    def __len__(self) -> int:
        return len(self.weights)


def _factors(
    traces: NDArray[np.float64],
    shares: NDArray[np.float64],
    usual: NDArray[np.float64],
    sems: Sequence[float],
) -> NDArray[np.float64]:
    """Redrawn mean over the usual one, both at least the standard error: [draws, columns]."""
    if not sems:
        return np.ones((len(shares), 0))
    above = traces - traces[0]  # so that mini-batches that are alike leave no rounding behind
    means, mean = traces[0] + shares @ above, traces[0] + usual @ above
    floor = np.where(np.isfinite(sems), sems, 0.0)
    means, mean = np.maximum(means, floor), np.maximum(mean, floor)
    return np.divide(means, mean, out=np.ones_like(means), where=mean > 0)


def omega_band(
    analysis: Analysis, plans: Iterable[BitPlan], *, draws: int = DRAWS, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95 % interval of each plan's Ω, [plans] twice: percentiles under redrawn traces.

    Each plan's by itself: all of a frontier lie within theirs at once less often. The error of how
    far rounding moves a weight is none, that of an activation is not in it.

    Args:
        analysis: Which the plans were made from.
        plans: Of its layers and activations.
        draws: At least 2.
        seed: Of the draws.

    Raises:
        ValueError: As for `Redrawn.of`.
    """
    redrawn = Redrawn.of(analysis, draws=draws, seed=seed)
    known, inputs = list(plans), analysis.activations
    weights = [
        [x.omega.get(p.weight_bits.get(x.name, 0), 0.0) for x in analysis.layers] for p in known
    ]
    read = [[x.omega.get(p.activation_bits.get(x.name, 0), 0.0) for x in inputs] for p in known]
    omegas = np.reshape(weights, (len(known), -1)) @ redrawn.weights.T
    if inputs:
        omegas += np.reshape(read, (len(known), -1)) @ redrawn.inputs.T
    low, high = np.quantile(omegas, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2], axis=1)
    return low, high


@dataclass(frozen=True)
class Vote:
    """What the draws say of one layer's bits, or one activation's."""

    name: str
    bits: int  # of the plan under the traces as they are; 32 where it stays float
    agreeing: int  # draws that give it these
    draws: int
    low: int  # of nine draws in ten, the fewest bits
    high: int  # the most
    free: bool  # whether limits left a choice

    @property
    def share(self) -> float:
        """Of the draws that agree."""
        return self.agreeing / self.draws

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of that share, as the draws are no more than a sample."""
        return wilson_interval(self.agreeing, self.draws)

    @property
    def certain(self) -> bool:
        """Whether so many agree that more images are not needed for it."""
        return self.share >= CERTAIN


@dataclass(frozen=True, eq=False)
class Certainty:
    """How far the best plan within budgets depends on which images the traces come from."""

    plan: BitPlan  # under the traces as they are
    budgets: dict[str, float]
    layers: tuple[Vote, ...]  # forward order; none where the costs choose no weights
    activations: tuple[Vote, ...]  # likewise
    regrets: NDArray[np.float64]  # [draws], Ω that a draw's plan loses, as a share of the best's
    seed: int

    @classmethod
    def of(
        cls,
        analysis: Analysis,
        budgets: Mapping[str, float],
        *,
        draws: int = DRAWS,
        seed: int = 0,
        latency: LatencyTable | None = None,
        progress: Progress | None = None,
        **limits: Unpack[Limits],
    ) -> Self:
        """Find the plan of least Ω again under each draw, within the same budgets and limits.

        Exact in every draw: one budget by `within.least_omegas`, several, or the peak of
        activations, by `budgets.within_budgets`, which takes a hundred times longer.

        Args:
            analysis: With its mini-batch traces.
            budgets: The most that each cost may be, by its name in `COSTS`.
            draws: At least 2.
            seed: Of the draws.
            latency: The times that make up that cost.
            progress: Told of the draws done.
            **limits: What plans have to keep to, see `choices.Limits`.

        Raises:
            ValueError: As for `Analysis.within` and `Redrawn.of`.
        """
        if not budgets:
            raise ValueError(f"budgets must name one of {', '.join(COSTS)} at least, got none.")
        limits = listed(limits)
        redrawn = Redrawn.of(analysis, draws=draws, seed=seed)
        choices = Choices.of(analysis, budgets, **limits)
        tables = np.concatenate([choices.omegas[None], _redrawn_tables(analysis, choices, redrawn)])
        found = _solved(choices, budgets, latency, tables, progress)
        usual = tables[0].reshape(len(found[0]), -1)
        omegas = usual[np.arange(len(usual)), found].sum(axis=1)
        made_by = {"budgets": dict(budgets), **limits, "analysis": analysis.provenance.command}
        of_weights, of_inputs = _votes(analysis, choices, found)
        chosen = {
            side: limits.get(side) is None and any(cost in own for cost in budgets)
            for side, own in (("weights", OF_WEIGHTS), ("activations", OF_ACTIVATIONS))
        }
        return cls(
            plan=analysis.plan_of(*choices.bits(found[0]), latency=latency, made_by=made_by),
            budgets=dict(budgets),
            layers=of_weights if chosen["weights"] else (),
            activations=of_inputs if chosen["activations"] else (),
            regrets=np.maximum(omegas[1:] / omegas[0] - 1, 0) if omegas[0] else omegas[1:],
            seed=seed,
        )

    @property
    def draws(self) -> int:
        """How often plans were found again."""
        return len(self.regrets)

    @property
    def votes(self) -> tuple[Vote, ...]:
        """Of all layers and activations."""
        return (*self.layers, *self.activations)

    @property
    def undecided(self) -> tuple[Vote, ...]:
        """Those that more images may give other bits."""
        return tuple(vote for vote in self.votes if not vote.certain)

    @property
    def median_regret(self) -> float:
        """Ω that half of the draws' plans lose at most, as a share."""
        return float(np.median(self.regrets))

    @property
    def high_regret(self) -> float:
        """Ω that 95 % of the draws' plans lose at most, as a share."""
        return float(np.quantile(self.regrets, CERTAIN))


def _redrawn_tables(analysis: Analysis, choices: Choices, redrawn: Redrawn) -> NDArray[np.float64]:
    """Ω of every option under every draw, [draws, L, W, A]."""
    of_weights, of_inputs = choices.sides
    first = {x.name: i for i, x in enumerate(analysis.activations)}
    factors = np.ones_like(redrawn.weights)  # of the activation that a layer is the first to read
    for i, name in enumerate(analysis.names):
        if name in first:
            factors[:, i] = redrawn.inputs[:, first[name]]
    return (redrawn.weights[..., None] * of_weights)[..., None] + (factors[..., None] * of_inputs)[
        :, :, None
    ]


def _solved(
    choices: Choices,
    budgets: Mapping[str, float],
    latency: LatencyTable | None,
    tables: NDArray[np.float64],
    progress: Progress | None,
) -> NDArray[np.intp]:
    """The best options of every table, [tables, L]."""
    costs = {cost: choices.costs(cost, latency) for cost in budgets}
    if len(costs) == 1 and "activation_peak" not in costs:
        [(cost, budget)] = budgets.items()
        with suppress(TooMany):  # then by the way that takes any
            return least_omegas(costs[cost], tables, budget, **choices.constraints)
    found = []
    for table in tables:
        found.append(
            within_budgets(
                costs,
                table,
                budgets,
                sets={"activation_peak": choices.sets()},
                **choices.constraints,
            )
        )
        if progress:
            progress(len(found), len(tables), "draws of the mini-batches")
    return np.array(found)


def _votes(
    analysis: Analysis, choices: Choices, found: NDArray[np.intp]
) -> tuple[tuple[Vote, ...], tuple[Vote, ...]]:
    """What tables say of weights and of activations; the first is that of the analysis itself."""
    w, a = np.divmod(found, len(choices.activation_widths))
    points = np.stack([choices.weight_groups, choices.activation_groups], axis=1)
    left = consistent(choices.allowed, points)
    place = {name: i for i, name in enumerate(analysis.names)}
    layers = [
        _vote(name, np.array(choices.weight_widths)[w[:, i]], left[i].any(axis=1))
        for name, i in place.items()
    ]
    read = [
        _vote(
            x.name,
            np.array(choices.activation_widths)[a[:, place[x.name]]],
            left[place[x.name]].any(axis=0),
        )
        for x in analysis.activations
    ]
    return tuple(layers), tuple(read)


def _vote(name: str, bits: NDArray[np.int64], options: NDArray[np.bool_]) -> Vote:
    low, high = np.quantile(bits[1:], SPREAD, method="inverted_cdf")
    return Vote(
        name=name,
        bits=int(bits[0]),
        agreeing=int((bits[1:] == bits[0]).sum()),
        draws=len(bits) - 1,
        low=int(low),
        high=int(high),
        free=bool(options.sum() > 1),
    )
