"""What plans have to keep to: locked layers, ties and allowed bit widths, as a view holds them.

A link holds positions, not names: `locked` as POSITION:BITS parted by commas, `tied` as groups of
positions like 1-3-5 parted by commas, `widths` as digits. What the network does not have is passed
over: a link may come from another one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Self

from engine.analysis import Analysis
from engine.choices import OF_ACTIVATIONS, OF_WEIGHTS, Limits
from engine.results import BitPlan

GROUPS = len(ascii_uppercase)  # of tied layers, each named by a letter


@dataclass(frozen=True)
class Held:
    """Limits by names; they can be the key of a cache."""

    locked: tuple[tuple[str, int], ...] = ()  # layer, bits of its weight
    inputs: tuple[tuple[str, int], ...] = ()  # activation, its bits
    tied: tuple[tuple[str, ...], ...] = ()  # layers whose weights share their bits
    widths: tuple[int, ...] = ()  # allowed; none: all that were analyzed

    @classmethod
    def of(cls, analysis: Analysis, locked: str, alocked: str, tied: str, widths: str) -> Self:
        """Read what a view holds.

        Args:
            analysis: Positions are those of its layers and activations.
            locked: Bits of layers.
            alocked: Bits of activations.
            tied: Groups of layers.
            widths: Allowed bit widths.
        """
        tensors = [x.name for x in analysis.activations]
        names, known = analysis.names, analysis.bit_widths
        groups = [tuple(names[i] for i in group if i < len(names)) for group in places(tied)]
        allowed = tuple(bits for bits in known if str(bits) in widths)
        return cls(
            tuple((names[i], bits) for i, bits in _kept(locked, len(names), known)),
            tuple((tensors[i], bits) for i, bits in _kept(alocked, len(tensors), known)),
            tuple(group for group in groups if len(group) > 1),
            () if allowed == known else allowed,
        )

    def __bool__(self) -> bool:
        """Whether there is anything to keep to."""
        return self != NOTHING

    def on(self, costs: Iterable[str]) -> Self:
        """What of them concerns the bits that these costs choose."""
        costs = tuple(costs)
        weights = any(cost in OF_WEIGHTS for cost in costs)
        inputs = any(cost in OF_ACTIVATIONS for cost in costs)
        return replace(
            self,
            locked=self.locked if weights else (),
            tied=self.tied if weights else (),
            inputs=self.inputs if inputs else (),
        )

    def limits(self, costs: Iterable[str]) -> Limits:
        """As the engine takes them, where these costs choose."""
        costs = tuple(costs)
        own = self.on(costs)
        found: Limits = {}
        if own.locked:
            found["locked"] = dict(own.locked)
        if own.inputs:
            found["locked_activations"] = dict(own.inputs)
        if own.tied:
            found["tied"] = own.tied
        if own.widths and any(cost in OF_WEIGHTS for cost in costs):
            found["bit_widths"] = own.widths
        if own.widths and any(cost in OF_ACTIVATIONS for cost in costs):
            found["activation_bit_widths"] = own.widths
        return found

    def kept_by(self, plan: BitPlan) -> bool:
        """Whether a plan keeps to them, the bits of the network's input aside."""
        weights, inputs = plan.weight_bits, plan.activation_bits
        free = [bits for name, bits in weights.items() if name not in dict(self.locked)]
        free += [bits for name, bits in list(inputs.items())[1:] if name not in dict(self.inputs)]
        return (
            all(weights.get(name, bits) == bits for name, bits in self.locked)
            and all(inputs.get(name, bits) == bits for name, bits in self.inputs)
            and all(len({weights.get(name) for name in group}) == 1 for group in self.tied)
            and (not self.widths or set(free) <= set(self.widths))
        )

    @property
    def summary(self) -> str:
        """How many of each, in words."""
        locks = len(self.locked) + len(self.inputs)
        parts = [
            f"{locks} lock{'s' if locks > 1 else ''}" if locks else "",
            f"{len(self.tied)} tie{'s' if len(self.tied) > 1 else ''}" if self.tied else "",
            f"{', '.join(map(str, self.widths))} bits only" if self.widths else "",
        ]
        return ", ".join(filter(None, parts))


NOTHING = Held()  # to keep to


def places(tied: str) -> list[list[int]]:
    """Positions of the layers of each group, as a view holds them."""
    return [list(map(int, group.split("-"))) for group in tied.split(",") if group]


def locks(text: str) -> dict[int, int]:
    """Bits by position, as a view holds them."""
    pairs = (pair.partition(":") for pair in text.split(",") if pair)
    return {int(place): int(bits) for place, _, bits in pairs}


def lock(text: str, place: int, bits: int | None) -> str:
    """The same with one position locked to these bits, or free."""
    found = locks(text)
    found.pop(place, None)
    if bits is not None:
        found[place] = bits
    return ",".join(f"{i}:{own}" for i, own in sorted(found.items()))


def group_of(tied: str) -> dict[int, int]:
    """The number of the group of each position that has one, the first where there are several."""
    found: dict[int, int] = {}
    for number, group in enumerate(places(tied)):
        for place in group:
            found.setdefault(place, number)
    return found


def tie(tied: str, place: int, number: int | None) -> str:
    """The same groups with one position moved to a group, a new one after the last, or to none."""
    groups = [[i for i in group if i != place] for group in places(tied)]
    if number is not None:
        groups += [[] for _ in range(number + 1 - len(groups))]
        groups[number] = sorted([*groups[number], place])
    return ",".join("-".join(map(str, group)) for group in groups if group)


def _kept(text: str, count: int, known: Sequence[int]) -> list[tuple[int, int]]:
    return [(i, bits) for i, bits in sorted(locks(text).items()) if i < count and bits in known]


def letter(number: int) -> str:
    """The name of a group of tied layers."""
    return ascii_uppercase[number] if number < GROUPS else str(number + 1)


def digits(bits: Mapping[str, int]) -> str:
    """Bits in forward order as a view holds them."""
    return "".join(map(str, bits.values()))
