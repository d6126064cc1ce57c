"""Which tensors of a network get a quantizer, on which grid, and which of them share a scale.

An integer kernel adds codes as they are, so what enters an addition must be on one scale (Jacob et
al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018, appendix A.2), and so must what is put side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.activations import Activation, Activations, Site, Sum, attach, attach_at
from engine.calibration import Range
from engine.quantizers import Grid, QuantizedActivation

SUMS = ("float", "integer")
OPERAND_BITS = 8  # of what only an addition reads
OPERANDS = "sum_quantizers"  # child that holds the quantizers of these


@dataclass(frozen=True)
class Placement:
    """A quantizer that is to stand in a network."""

    activation: Activation  # planned, or made up for another operand of an addition
    bits: int
    planned: bool
    group: int | None  # those of one group have one scale

    @property
    def codes(self) -> tuple[int, int]:
        """Least and greatest code: from 0 on, or signed for other operands."""
        half = 0 if self.planned else 2 ** (self.bits - 1)
        return -half, 2**self.bits - 1 - half

    def needed_scale(self, fitted: Grid) -> Tensor:
        """The scale at which its codes hold what a grid holds that was fitted to it alone, []."""
        if self.planned:
            return fitted.scale.reshape(())
        ends = fitted.scale.new_tensor([fitted.low, fitted.high]) - fitted.zero_point
        return (ends * fitted.scale / fitted.scale.new_tensor(self.codes)).max()

    def rescaled(self, fitted: Grid, scale: Tensor) -> Grid:
        """Its grid of a larger scale; the least value stays about where it was fitted to be."""
        zero_point = torch.zeros_like(scale)
        if self.planned:
            zero_point = (fitted.zero_point * fitted.scale / scale).round().reshape(())
        return Grid(scale, zero_point, *self.codes)


def place(found: Activations, bits: Mapping[str, int], sums: str) -> tuple[Placement, ...]:
    """Choose where quantizers stand.

    Args:
        found: The network's activations.
        bits: Of those to quantize.
        sums: "float": nothing but these; "integer": the operands of each addition get one scale.
            An activation among them keeps its bits; any other operand gets signed codes of
            `OPERAND_BITS`. Of the operands of a concatenation those that are quantized get one
            scale. Operands that no module hands on stay float.
    """
    activations = {activation.name: activation for activation in found.found}
    joined = _joined(found.sums, bits) if sums == "integer" else []
    group = {operand: i for i, operands in enumerate(joined) for operand in operands}
    placed = [
        Placement(activation, bits[name], planned=True, group=group.get(name))
        for name, activation in activations.items()
        if name in bits
    ]
    for operand, i in group.items():
        if operand not in bits:
            other = activations[operand] if isinstance(operand, str) else _alone(operand)
            placed.append(Placement(other, OPERAND_BITS, planned=False, group=i))
    return tuple(placed)


def _joined(sums: Sequence[Sum], bits: Mapping[str, int]) -> list[dict[str | Site, None]]:
    """Operands that need one scale, in the order they are met."""
    groups: list[dict[str | Site, None]] = []
    for one in sums:
        operands = dict.fromkeys(x for x in one.operands if one.kind == "add" or x in bits)
        apart = []
        for group in groups:
            if group.keys() & operands.keys():
                operands = group | operands
            else:
                apart.append(group)
        groups = [*apart, operands] if operands else apart
    return groups


def _alone(site: Site) -> Activation:
    """An operand as an activation that no layer reads."""
    name = f"{site.module}.{site.side}" + (f" of call {site.call}" if site.call else "")
    return Activation(name, (), (site,), (), 0, image=False)


def fitted(placed: Sequence[Placement], ranges: Mapping[str, Range]) -> list[Grid]:
    """The grid of each placement.

    A group has the largest scale that one of its members needs, so that none is clipped more than
    it would be alone.

    Args:
        placed: What `place` gave.
        ranges: By the activation's name.
    """
    alone = [ranges[one.activation.name].grid(one.bits) for one in placed]
    scales = [one.needed_scale(grid) for one, grid in zip(placed, alone, strict=True)]
    largest: dict[int | None, Tensor] = {}
    for one, scale in zip(placed, scales, strict=True):
        largest[one.group] = torch.maximum(scale, largest.get(one.group, scale))
    return [
        one.rescaled(grid, scale if one.group is None else largest[one.group])
        for one, grid, scale in zip(placed, alone, scales, strict=True)
    ]


def unfitted(placed: Sequence[Placement]) -> list[Grid]:
    """Grids to be filled from a file."""
    one = torch.ones(())
    return [Grid(one, torch.zeros(()), *placement.codes) for placement in placed]


def attach_quantizers(
    model: nn.Module, home: nn.Module, placed: Sequence[Placement], grids: Sequence[Grid]
) -> None:
    """Let a network round its activations, for good.

    Args:
        model: The network.
        home: The module in it that is to own the quantizers of other operands.
        placed: What `place` gave.
        grids: Of each.
    """
    made = [
        QuantizedActivation(grid, one.bits, one.group)
        for one, grid in zip(placed, grids, strict=True)
    ]
    own = {one.activation.name: module for one, module in zip(placed, made, strict=True)}
    planned = [one.activation for one in placed if one.planned]
    attach(model, {a.name: own[a.name] for a in planned}, planned)
    others = [one.activation for one in placed if not one.planned]
    if others:
        home.add_module(OPERANDS, nn.ModuleList(own[a.name] for a in others))
        attach_at(model, {a.sites: own[a.name] for a in others})
