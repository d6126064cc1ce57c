"""What there is to choose: the bits of every weight and activation, and what each choice costs.

A layer's option is a pair, the bits w of its weight and the bits a of the activation it reads. Ω is
a sum over layers if an activation's Ω is given with its first reader, and so are all costs but the
peak of the activations' memory, which is the largest of such sums.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Self, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from engine.joint import consistent
from engine.latency import FLOAT_BITS, LatencyTable
from engine.results import check_bits
from engine.sensitivities import ActivationSensitivity, LayerSensitivity, Sensitivities

COSTS = {  # what a frontier may be drawn against, and its unit
    "size": "bytes",  # of the weights
    "activation_memory": "bytes",  # of all activations of one image
    "activation_peak": "bytes",  # of the activations of one image that are held at once
    "bops": "operations",  # of bits: Σ multiply-accumulates · w · a
    "latency": "ms",  # Σ over layers, from a table
}
OF_WEIGHTS = ("size", "bops", "latency")  # costs that choose the bits of weights
OF_ACTIVATIONS = ("activation_memory", "activation_peak", "bops", "latency")
INPUT_BITS = 8  # of the image, unless told otherwise; the most analyzed where 8 were not


class Limits(TypedDict, total=False):
    """What plans have to keep to."""

    locked: Mapping[str, int] | None  # layer → bits of its weight, any analyzed
    tied: Iterable[Iterable[str]]  # groups of layers whose weights share their bits
    bit_widths: Iterable[int] | None  # allowed for weights; all analyzed ones if not given
    weights: int | Mapping[str, int] | None  # bits of weights that are not to be chosen
    activations: int | Mapping[str, int] | None  # bits of activations that are not to be chosen
    locked_activations: Mapping[str, int] | None  # activation → bits, any analyzed
    activation_bit_widths: Iterable[int] | None  # allowed for activations
    same_bits: bool  # whether a layer's weight and input share their bits, as in HAWQ-V3


def listed(limits: Limits) -> Limits:
    """Limits that JSON can hold and that may be gone through again; none that say nothing.

    Raises:
        ValueError: If ties are no groups of names.
    """
    found: Any = {name: value for name, value in limits.items() if value is not None}
    if "tied" in found:
        found["tied"] = list(found["tied"])
        for i, group in enumerate(found["tied"]):
            if isinstance(group, str) or not isinstance(group, Iterable):
                raise ValueError(f"tied must be groups of layers' names, got {group!r}.")
            found["tied"][i] = list(group)
    for name in {"bit_widths", "activation_bit_widths"} & found.keys():
        found[name] = list(dict.fromkeys(found[name]))
    for name, value in found.items():
        if isinstance(value, Mapping):
            found[name] = dict(value)
    return cast(Limits, found)


def costs_of(
    known: Sensitivities,
    weight_bits: Mapping[str, int],
    activation_bits: Mapping[str, int],
    latency: LatencyTable | None = None,
) -> dict[str, float]:
    """Every cost of a plan that can be known; what has no bits is float."""
    reads = inputs(known)
    held = [x.elements * activation_bits.get(x.name, FLOAT_BITS) / 8 for x in known.activations]
    costs = {
        cost: float(
            sum(
                _cost(
                    cost,
                    layer,
                    reads.get(layer.name),
                    weight_bits.get(layer.name, FLOAT_BITS),
                    activation_bits.get(reads[layer.name].name, FLOAT_BITS)
                    if layer.name in reads
                    else FLOAT_BITS,
                    latency,
                )
                for layer in known.layers
            )
        )
        for cost in COSTS
        if cost != "activation_peak" and (cost != "latency" or latency is not None)
    }
    if not known.activations:
        del costs["activation_memory"]
    if known.alive:
        costs["activation_peak"] = max(sum(held[i] for i in together) for together in known.alive)
    return {cost: costs[cost] for cost in COSTS if cost in costs}


def inputs(known: Sensitivities) -> dict[str, ActivationSensitivity]:
    """The activation that each layer reads; layers whose input was not found are left out."""
    return {name: activation for activation in known.activations for name in activation.readers}


def check_weight_bits(known: Sensitivities, given: Any) -> dict[str, int]:
    """Bits of every layer, in forward order, of one number or of a mapping; none for float.

    Raises:
        ValueError: If a layer is missing or unknown, or a bit width was not analyzed.
    """
    names = [layer.name for layer in known.layers]
    if given is None or not isinstance(given, Mapping):
        given = {} if given is None else dict.fromkeys(names, given)
    for name in given:
        check_name(name, names, "layer")
    missing = [name for name in names if given and name not in given]
    if missing:
        raise ValueError(
            f"weight_bits must name every layer, but {missing[0]!r} is missing: give its bits."
        )
    for name, bits in given.items():
        check_analyzed(known, bits, f"weight_bits[{name!r}]")
    return {name: given[name] for name in names} if given else {}


def check_activation_bits(known: Sensitivities, given: Any) -> dict[str, int]:
    """Bits of every activation, in forward order, of one number or of a mapping; none for float.

    The network's input keeps `INPUT_BITS` unless a mapping names it.

    Raises:
        ValueError: If an activation is missing or unknown, or a bit width was not analyzed.
    """
    if given is None or given == {}:
        return {}
    if not known.activations:
        raise ValueError(
            f"activation_bits must be none in an analysis without activations, got {given!r}: "
            "analyze again with activations."
        )
    names = [activation.name for activation in known.activations]
    if not isinstance(given, Mapping):
        check_analyzed(known, given, "activation_bits")
        given = dict.fromkeys((x.name for x in known.activations if not x.image), given)
    for name in given:
        check_name(name, names, "activation")
    given = {x.name: input_bits(known) for x in known.activations if x.image} | dict(given)
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(
            f"activation_bits must name every activation, but {missing[0]!r} is missing: "
            "give its bits."
        )
    for name, bits in given.items():
        check_analyzed(known, bits, f"activation_bits[{name!r}]")
    return {name: given[name] for name in names}


def input_bits(known: Sensitivities) -> int:
    """Bits of the network's input unless told otherwise."""
    return INPUT_BITS if INPUT_BITS in known.bit_widths else max(known.bit_widths)


def check_name(name: Any, names: Sequence[str], what: str) -> int:
    """Position of a layer or an activation.

    Raises:
        ValueError: If none has that name.
    """
    if name not in names:
        near = get_close_matches(str(name), names, n=1, cutoff=0) or names[:1]
        hint = f": the nearest is {near[0]!r}." if near else ", which has none."
        raise ValueError(f"{what} must be one of the network's, got {name!r}{hint}")
    return names.index(name)


def check_analyzed(known: Sensitivities, bits: Any, argument: str) -> int:
    """Take a bit width that was analyzed.

    Raises:
        ValueError: If it was not.
    """
    if type(bits) is not int or bits not in known.bit_widths:
        raise ValueError(
            f"{argument} must be one of the analyzed bit widths "
            f"{', '.join(map(str, known.bit_widths))}, got {bits!r}."
        )
    return bits


def _cost(
    cost: str,
    layer: LayerSensitivity,
    activation: ActivationSensitivity | None,
    w_bits: int,
    a_bits: int,
    latency: LatencyTable | None,
) -> float:
    """What a layer adds to a cost; an activation's memory comes with its first reader."""
    if cost == "size":
        return layer.parameters * w_bits / 8
    if cost == "bops":
        return layer.macs * w_bits * a_bits
    if cost == "latency":
        assert latency is not None
        return latency.ms(layer.name, w_bits, a_bits)
    first = activation is not None and activation.name == layer.name
    return activation.elements * a_bits / 8 if activation is not None and first else 0.0


@dataclass(frozen=True, eq=False)
class Choices:
    """The options of every layer: pairs of its weight's bits and those of what it reads."""

    known: Sensitivities
    weight_widths: tuple[int, ...]  # [W], ascending; 32 stands for float
    activation_widths: tuple[int, ...]  # [A]
    weight_groups: NDArray[np.intp]  # [L]; layers of one number share the weight's option
    activation_groups: NDArray[np.intp]  # [L]; layers of one number read one activation
    allowed: NDArray[np.bool_]  # [L, W, A]

    @classmethod
    def of(
        cls,
        known: Sensitivities,
        costs: Iterable[str],
        *,
        locked: Mapping[str, int] | None = None,
        tied: Iterable[Iterable[str]] = (),
        bit_widths: Iterable[int] | None = None,
        weights: int | Mapping[str, int] | None = None,
        activations: int | Mapping[str, int] | None = None,
        locked_activations: Mapping[str, int] | None = None,
        activation_bit_widths: Iterable[int] | None = None,
        same_bits: bool = False,
    ) -> Self:
        """What these costs leave to choose within the limits; see `Limits`.

        A cost of weights chooses their bits, one of activations theirs, unless they are given;
        what no cost chooses and nobody gives stays float. The network's input keeps `INPUT_BITS`
        unless it is locked or given otherwise.

        Raises:
            ValueError: If a name, bit width or cost is unknown, or limits contradict each other.
        """
        costs = [check_cost(known, cost) for cost in costs]
        layers = [layer.name for layer in known.layers]
        tensors = [activation.name for activation in known.activations]
        weight_widths = _side(
            known,
            layers,
            {},
            given=weights,
            fixed=check_weight_bits(known, weights),
            chosen=any(cost in OF_WEIGHTS for cost in costs),
            widths=check_widths(known, bit_widths, "bit_widths"),
            locked=locked or {},
            words=("layer", "weights", "locked"),
        )
        held = _side(
            known,
            tensors,
            {x.name: input_bits(known) for x in known.activations if x.image},
            given=activations,
            fixed=check_activation_bits(known, activations),
            chosen=any(cost in OF_ACTIVATIONS for cost in costs),
            widths=check_widths(known, activation_bit_widths, "activation_bit_widths"),
            locked=locked_activations or {},
            words=("activation", "activations", "locked_activations"),
        )
        read = [tensors.index(x.name) if x else -1 for x in map(inputs(known).get, layers)]
        activation_widths = [held[i] if i >= 0 else {FLOAT_BITS} for i in read]
        w = sorted(set().union(*weight_widths))
        a = sorted(set().union(*activation_widths))
        allowed = np.array(
            [
                [[x in own and y in its for y in a] for x in w]
                for own, its in zip(weight_widths, activation_widths, strict=True)
            ]
        )
        if same_bits:
            if FLOAT_BITS in w or set(a) == {FLOAT_BITS}:
                raise ValueError(
                    "same_bits must come with bits of both weights and activations, got float "
                    f"{'weights' if FLOAT_BITS in w else 'activations'}: choose bops or latency, "
                    "or give their bits."
                )
            reads = np.array(read) >= 0
            allowed[reads] &= np.array(w)[:, None] == np.array(a)
        groups = np.where(np.array(read) < 0, len(tensors) + np.arange(len(read)), read)
        choices = cls(known, tuple(w), tuple(a), _ties(layers, tied, locked or {}), groups, allowed)
        choices.see_possible()
        return choices

    def see_possible(self) -> None:
        """See that no layer is left without a choice.

        Raises:
            ValueError: If one is.
        """
        points = np.stack([self.weight_groups, self.activation_groups], axis=1)
        lacking = np.flatnonzero(~consistent(self.allowed, points).any(axis=(1, 2)))
        if len(lacking):
            raise ValueError(
                "limits must leave every layer some bits, got none for "
                f"{self.known.layers[lacking[0]].name!r}: what it is tied to, shares an activation "
                "with, or has to have the bits of contradicts it; loosen one of them."
            )

    @property
    def constraints(self) -> dict[str, NDArray[Any]]:
        """What every search has to keep to."""
        return {
            "weight_groups": self.weight_groups,
            "activation_groups": self.activation_groups,
            "allowed": self.allowed,
        }

    @property
    def omegas(self) -> NDArray[np.float64]:
        """Ω of every option, [L, W, A]; an activation's with its first reader, float's is zero."""
        of_weights, of_inputs = self.sides
        return of_weights[:, :, None] + of_inputs[:, None, :]

    @property
    def sides(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ω of the weights' options [L, W] and of those of what is read [L, A]."""
        reads = inputs(self.known)
        of_weights = np.zeros(self.allowed.shape[:2])
        of_inputs = np.zeros((len(self.allowed), self.allowed.shape[2]))
        for i, layer in enumerate(self.known.layers):
            activation = reads.get(layer.name)
            of_weights[i] = [layer.omega.get(bits, 0.0) for bits in self.weight_widths]
            if activation is not None and activation.name == layer.name:
                of_inputs[i] = [activation.omega.get(b, 0.0) for b in self.activation_widths]
        return of_weights, of_inputs

    def costs(self, cost: str, latency: LatencyTable | None = None) -> NDArray[np.float64]:
        """What every option adds to a cost, [L, W, A]; zero for those not allowed.

        For the activations' peak, what it adds to every set of `sets` that the layer is in.
        """
        if cost == "latency" and latency is None:
            raise ValueError(
                "latency must be a table of times where it is a cost, got none: "
                "give LatencyTable.load(path)."
            )
        reads = inputs(self.known)
        found = np.zeros(self.allowed.shape)
        for i, w, a in np.argwhere(self.allowed):
            layer = self.known.layers[i]
            bits = self.weight_widths[w], self.activation_widths[a]
            found[i, w, a] = _cost(cost, layer, reads.get(layer.name), *bits, latency)
        return found

    def sets(self) -> tuple[tuple[int, ...], ...]:
        """Layers whose activations are held at once, each counted with its first reader."""
        index = {layer.name: i for i, layer in enumerate(self.known.layers)}
        first = [index[activation.name] for activation in self.known.activations]
        return tuple(tuple(first[i] for i in together) for together in self.known.alive)

    def bits(self, choices: Iterable[int]) -> tuple[dict[str, int], dict[str, int]]:
        """Bits of weights and of activations that these options [L] are; none where float."""
        pairs = [divmod(int(option), len(self.activation_widths)) for option in choices]
        names = [layer.name for layer in self.known.layers]
        weight_bits = {n: self.weight_widths[w] for n, (w, _) in zip(names, pairs, strict=True)}
        first = {n: self.activation_widths[a] for n, (_, a) in zip(names, pairs, strict=True)}
        activation_bits = {x.name: first[x.name] for x in self.known.activations}
        return (
            {} if FLOAT_BITS in weight_bits.values() else weight_bits,
            {} if FLOAT_BITS in activation_bits.values() else activation_bits,
        )


def check_cost(known: Sensitivities, cost: Any) -> str:
    """Take a cost that plans of this network have.

    Raises:
        ValueError: If there is none of that name, or it needs activations and none were analyzed.
    """
    if cost not in COSTS:
        raise ValueError(f"cost must be one of {', '.join(COSTS)}, got {cost!r}.")
    if cost in OF_ACTIVATIONS and not known.activations:
        raise ValueError(
            f"cost must be size in an analysis without activations, got {cost!r}: "
            "analyze again with activations."
        )
    if cost == "activation_peak" and not known.alive:
        raise ValueError(
            "cost must not be 'activation_peak' in an analysis that does not know which "
            "activations are held at once: analyze again."
        )
    return str(cost)


def check_widths(
    known: Sensitivities, widths: Iterable[int] | None, argument: str
) -> tuple[int, ...]:
    """Take analyzed bit widths, ascending; all of them if none are given.

    Raises:
        ValueError: If one was not analyzed, or an empty list is given.
    """
    allowed = tuple(sorted(set(widths))) if widths is not None else known.bit_widths
    for bits in allowed:
        if check_bits(bits, argument) not in known.bit_widths:
            raise ValueError(
                f"{argument} must be among the analyzed ones "
                f"{', '.join(map(str, known.bit_widths))}, got {bits}: analyze again with it."
            )
    if not allowed:
        raise ValueError(f"{argument} must name at least one bit width, got none.")
    return allowed


def _side(
    known: Sensitivities,
    names: Sequence[str],
    usual: Mapping[str, int],
    *,
    given: int | Mapping[str, int] | None,
    fixed: Mapping[str, int],
    chosen: bool,
    widths: tuple[int, ...],
    locked: Mapping[str, int],
    words: tuple[str, str, str],
) -> list[set[int]]:
    """Bits that each weight may have, or each activation.

    Args:
        known: Which bit widths were analyzed.
        names: Of all.
        usual: Bits of some, where they are chosen and not locked.
        given: What the caller fixed, if anything.
        fixed: The same, of each.
        chosen: Whether there is a cost that chooses them, if they are not given.
        widths: To choose from.
        locked: Bits of some, which go before a number given for all.
        words: What one is called, what all are, and the argument that locks.
    """
    one, all_of_them, argument = words
    if chosen and given is None:
        found = [{usual[name]} if name in usual else set(widths) for name in names]
    else:
        found = [{fixed.get(name, FLOAT_BITS)} for name in names]
    for name, bits in locked.items():
        place = check_name(name, names, one)
        check_analyzed(known, bits, f"{argument}[{name!r}]")
        if not chosen and given is None:
            raise ValueError(
                f"{argument} must come with {all_of_them} that have bits, got float ones: "
                f"give {all_of_them}, or choose a cost of theirs."
            )
        if isinstance(given, Mapping) and given.get(name, bits) != bits:
            raise ValueError(
                f"{argument} must agree with {all_of_them}, got {bits} and {given[name]} bits for "
                f"{name!r}: leave one of them out."
            )
        found[place] = {bits}
    return found


def _ties(
    names: Sequence[str], tied: Iterable[Iterable[str]], locked: Mapping[str, int]
) -> NDArray[np.intp]:
    """A number for each layer, which those tied to it have too."""
    first = np.arange(len(names))
    for group in tied:
        members = [check_name(name, names, "layer") for name in group]
        bits = {locked[names[layer]]: names[layer] for layer in members if names[layer] in locked}
        if len(bits) > 1:
            (one, a), (other, b) = list(bits.items())[:2]
            raise ValueError(
                f"locked must give tied layers the same bits, got {one} for {a!r} and {other} for "
                f"{b!r}: untie them or lock alike."
            )
        if members:
            same = np.isin(first, first[members])
            first[same] = first[same].min()
    return first
