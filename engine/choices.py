"""What there is to choose: the bits of every weight and activation, and what each choice costs.

A layer's option is a pair, the bits w of its weight and the bits a of the activation it reads. Ω is
a sum over layers if an activation's Ω is given with its first reader, and so are all costs but the
peak of the activations' memory, which is the largest of such sums.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypedDict

from engine.latency import FLOAT_BITS, LatencyTable
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
