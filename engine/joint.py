"""The frontier over pairs: the bits of each layer's weight, and of the activation it reads.

Layers may share either: tied weights have their bits in common, and layers that read one tensor
its. Seen as a graph, shared bits are points and each layer is a line between two of them. Where the
bits of a point are fixed it joins nothing any more, so a connected part is solved for every value
of its most shared point, piece by piece, and pieces that share nothing are crossed as layers are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.crossing import cross, undominated
from engine.frontier import MAX_OPTIONS, Frontier, check_tolerance

MAX_CASES = 2**15  # values of shared bits that are worked out one by one


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which pairs of options each layer may have, and which layers share a part of theirs."""

    shape: tuple[int, int, int]  # layers, options of a weight, options of an activation
    allowed: NDArray[np.bool_]  # [L, W · A]
    points: NDArray[np.intp]  # [L, 2]: what each layer shares, by numbers; weights' come first

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        weight_groups: ArrayLike | None,
        activation_groups: ArrayLike | None,
        allowed: ArrayLike | None,
    ) -> Self:
        """Check the arguments, and leave out options that some layer of a group cannot have.

        Raises:
            ValueError: If an argument has another shape, or a layer is left without any option.
        """
        layers, weights, activations = shape
        given = np.ones(shape, bool) if allowed is None else np.array(allowed, bool)
        if given.shape != tuple(shape):
            raise ValueError(
                f"allowed must have the shape of costs {tuple(shape)}, got {given.shape}."
            )
        groups = []
        for name, group in (
            ("weight_groups", weight_groups),
            ("activation_groups", activation_groups),
        ):
            numbers = np.arange(layers) if group is None else np.asarray(group)
            if numbers.shape != (layers,):
                raise ValueError(
                    f"{name} must be one number for each of {layers} layers, "
                    f"got shape {numbers.shape}."
                )
            groups.append(np.unique(numbers, return_inverse=True)[1].astype(np.intp))
        points = np.stack([groups[0], groups[1] + layers], axis=1)
        left = consistent(given, points)
        lacking = np.flatnonzero(~left.any(axis=(1, 2)))
        if len(lacking):
            raise ValueError(
                f"allowed must leave every layer an option that its groups share, got none for "
                f"layer {lacking[0]}: allow more, or untie it."
            )
        return cls((layers, weights, activations), left.reshape(layers, -1), points)

    def pieces(self, layers: Sequence[int], fixed: frozenset[int]) -> list[tuple[int, ...]]:
        """Layers in sets that share nothing but what is fixed, each in forward order."""
        piece_of: dict[int, list[int]] = {}  # point to the layers joined through it
        pieces: list[list[int]] = []
        for layer in layers:
            own = [int(point) for point in self.points[layer] if point not in fixed]
            joined = [layer]
            for piece in {id(piece_of[x]): piece_of[x] for x in own if x in piece_of}.values():
                joined += piece
                pieces.remove(piece)
            pieces.append(joined)
            for x in {*own, *(int(p) for member in joined for p in self.points[member])} - fixed:
                piece_of[x] = joined
        return sorted(tuple(sorted(piece)) for piece in pieces)

    def most_shared(self, layers: Sequence[int], fixed: frozenset[int]) -> int:
        """The point, not fixed, that most of these layers share."""
        found, counts = np.unique(self.points[list(layers)], return_counts=True)
        free = ~np.isin(found, list(fixed))
        return int(found[free][counts[free].argmax()])

    def values(self, point: int) -> NDArray[np.bool_]:
        """Of each value a point can have, the options that keep to it, [values, W · A]."""
        layers, weights, activations = self.shape
        w, a = np.divmod(np.arange(weights * activations), activations)
        own = w if point < layers else a
        return np.asarray(own == np.arange(own.max() + 1)[:, None])


def consistent(allowed: NDArray[np.bool_], points: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Of allowed options [L, W, A], those whose two halves the layers that share them have too.

    A layer without any is one whose groups contradict each other.
    """
    left = allowed.copy()
    while True:
        before = left.sum()
        for side, axis in ((0, 2), (1, 1)):
            has = left.any(axis=axis)  # [L, options of this side]
            shared = np.ones((points[:, side].max() + 1, has.shape[1]), bool)
            np.logical_and.at(shared, points[:, side], has)
            left &= np.expand_dims(shared[points[:, side]], axis)
        if left.sum() == before:
            return left


def joint_frontier(
    costs: ArrayLike,
    omegas: ArrayLike,
    *,
    weight_groups: ArrayLike | None = None,
    activation_groups: ArrayLike | None = None,
    allowed: ArrayLike | None = None,
    tolerance: float = 0.0,
) -> Frontier:
    """Find every choice of pairs that no other beats in both cost and Ω.

    Option w · A + a of a layer is option w of its weight with option a of the activation it reads.
    An activation's Ω and memory are given with one of its readers. With a tolerance, costs are
    rounded as `pareto_frontier` does, with the same guarantee.

    Args:
        costs: [L, W, A], at least 0; W · A at most 256.
        omegas: [L, W, A], at least 0.
        weight_groups: [L]; layers with one number have the same option of the weight.
        activation_groups: [L]; layers with one number have the same option of the activation.
        allowed: [L, W, A], the pairs that may be chosen; all if not given.
        tolerance: Share of the cost range by which plans may be passed over; 0 is exact.

    Raises:
        ValueError: If an argument is not as above, nothing keeps to the groups, or the frontier
            grows beyond memory.

    Example:
        >>> frontier = joint_frontier([[[1, 2], [2, 4]]], [[[9, 5], [4, 1]]])
        >>> frontier.cost, frontier.omega, frontier.all_choices().tolist()
        (array([1., 2., 4.]), array([9., 4., 1.]), [[0], [2], [3]])
    """
    check_tolerance(tolerance)
    cost, omega = pair_table(costs, "costs"), pair_table(omegas, "omegas")
    if omega.shape != cost.shape:
        raise ValueError(f"omegas must have the shape of costs {cost.shape}, got {omega.shape}.")
    pairs = Pairs.of(cost.shape, weight_groups, activation_groups, allowed)
    cost, omega = cost.reshape(len(cost), -1), omega.reshape(len(omega), -1)
    grid = cost
    if tolerance:
        cheapest = np.where(pairs.allowed, cost, np.inf).min(axis=1, keepdims=True)
        above = cost - cheapest
        nothing = np.zeros_like(cost)
        ends = [_Search(pairs, x, nothing, 0).solve() for x in (cost, cost.max() - cost)]
        spread = float(_sum(cost, ends[1])[0] - _sum(cost, ends[0])[0])
        step = tolerance * spread / len(cost)
        if step * 2**50 > spread:  # else too fine to round by, or nothing to choose
            grid = np.ceil(above / step)
    choices = _Search(pairs, grid, omega, tolerance).solve()
    if tolerance:  # rounded, the cheapest plan may look no cheaper than another
        choices = np.concatenate([ends[0], choices])
    total, total_omega = _sum(cost, choices), _sum(omega, choices)
    kept = undominated(total, total_omega)
    arrays = total[kept], total_omega[kept], choices[kept]
    for array in arrays:
        array.flags.writeable = False
    return Frontier(*arrays)


def pair_table(values: ArrayLike, argument: str) -> NDArray[np.float64]:
    """Numbers [layers, options of a weight, options of an activation], finite, at least 0.

    Raises:
        ValueError: If they are not.
    """
    try:
        found = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{argument} must be numbers [layers, weights, activations]: {error}."
        ) from error
    if found.ndim != 3 or 0 in found.shape or found[0].size > MAX_OPTIONS:
        raise ValueError(
            f"{argument} must be numbers [layers, weights, activations] with at least one layer "
            f"and 1 to {MAX_OPTIONS} pairs, got shape {found.shape}."
        )
    bad = np.argwhere(~(np.isfinite(found) & (found >= 0)))
    if len(bad):
        layer, w, a = bad[0]
        raise ValueError(
            f"{argument} must be finite and at least 0, got {found[layer, w, a]:g} "
            f"for pair {w}, {a} of layer {layer}."
        )
    return found


def _sum(values: NDArray[np.float64], choices: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Σ over layers of what they chose: values [L, O], choices [P, L]."""
    total = np.zeros(len(choices))
    for own, option in zip(values, choices.T, strict=True):
        total += own[option]
    return total


@dataclass(frozen=True, eq=False)
class _Found:
    """Choices of some layers that none beats."""

    cost: NDArray[np.float64]  # [P]
    omega: NDArray[np.float64]  # [P]
    choices: NDArray[np.uint8]  # [P, layers in forward order]


@dataclass(eq=False)
class _Search:
    """One pass over all layers, piece by piece."""

    pairs: Pairs
    costs: NDArray[np.float64]  # [L, W · A]
    omegas: NDArray[np.float64]  # [L, W · A]
    tolerance: float  # by which costs were rounded
    cases: int = 0  # worked out so far

    def solve(self) -> NDArray[np.uint8]:
        """Options [P, L] of all layers."""
        found = self.best(range(len(self.costs)), self.pairs.allowed, frozenset())
        if not len(found.cost):
            raise ValueError(
                "allowed must leave every layer an option that its groups share, got none for all "
                "layers at once: allow more, or untie some."
            )
        return found.choices

    def best(
        self, layers: Sequence[int], allowed: NDArray[np.bool_], fixed: frozenset[int]
    ) -> _Found:
        """What none beats of these layers; none at all where their options contradict."""
        pieces = self.pairs.pieces(layers, fixed)
        if len(pieces) > 1:
            return self.crossed(pieces, [self.best(piece, allowed, fixed) for piece in pieces])
        if len(layers) == 1:
            return self.of(layers[0], allowed[layers[0]])
        self.cases += 1
        if self.cases > MAX_CASES:
            raise ValueError(
                "weight_groups and activation_groups must leave layers that are chosen in turn, "
                f"got layers joined in more than {MAX_CASES:,} ways: untie some, or allow fewer "
                "bits."
            )
        point = self.pairs.most_shared(layers, fixed)
        sharing = (self.pairs.points == point).any(axis=1)[:, None]
        cases = [
            self.best(layers, narrowed, fixed | {point})
            for value in self.pairs.values(point)
            if (narrowed := allowed & (value | ~sharing))[list(layers)].any(axis=1).all()
        ]
        cost = np.concatenate([np.zeros(0), *(case.cost for case in cases)])
        omega = np.concatenate([np.zeros(0), *(case.omega for case in cases)])
        choices = [np.zeros((0, len(layers)), np.uint8), *(case.choices for case in cases)]
        kept = undominated(cost, omega)
        return _Found(cost[kept], omega[kept], np.concatenate(choices)[kept])

    def of(self, layer: int, allowed: NDArray[np.bool_]) -> _Found:
        """One layer's own frontier."""
        own = np.flatnonzero(allowed)
        own = own[undominated(self.costs[layer, own], self.omegas[layer, own])]
        return _Found(
            self.costs[layer, own], self.omegas[layer, own], own[:, None].astype(np.uint8)
        )

    def crossed(self, pieces: Sequence[tuple[int, ...]], parts: Sequence[_Found]) -> _Found:
        """What none beats of pieces that share nothing."""
        layers = sorted(chain(*pieces))
        if not all(len(part.cost) for part in parts):
            return _Found(np.zeros(0), np.zeros(0), np.zeros((0, len(layers)), np.uint8))
        places = cross([x.cost for x in parts], [x.omega for x in parts], self.tolerance)
        choices = np.empty((len(places[0]), len(layers)), np.uint8)
        cost, omega = np.zeros(len(choices)), np.zeros(len(choices))
        for piece, part, at in zip(pieces, parts, places, strict=True):
            choices[:, np.searchsorted(layers, piece)] = part.choices[at]
            cost += part.cost[at]
            omega += part.omega[at]
        return _Found(cost, omega, choices)
