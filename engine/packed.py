"""Write a quantized network as small as its plan says, and make the same network of the file.

Weights are stored as dense codes, everything else as it is; see `docs/format.md`. What is loaded
rounds to the very same weights, as the value of a code is nearest to that code.
"""

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from engine.activations import Activation, Site, attached, sites_of
from engine.layers import Channels
from engine.packing import pack
from engine.placements import OPERAND_BITS, OPERANDS, Placement, attach_quantizers
from engine.quantized import plan_of, put_on_grid
from engine.quantizers import Grid, QuantizedActivation, QuantizedWeight
from engine.results import FormatError, PackedFile, replacing
from engine.unpacking import (
    ACTIVATION_SCALES,
    ACTIVATION_ZERO_POINTS,
    SCALES,
    TYPES,
    ZERO_POINTS,
    Layout,
    Packed,
    Stored,
    implied_zero_point,
    in_order,
    metadata_of,
    read_packed,
    sizes_of,
)
from engine.weights import differences
from engine.workloads import build_network

Weights = dict[str, tuple[QuantizedWeight, Tensor]]  # name → what rounds it, and what is behind it
SHORT_TYPES = {name: short for short, name in TYPES.items()}


def export_packed(model: nn.Module, path: str | Path) -> PackedFile:
    """Write a quantized network as a packed file.

    Args:
        model: What `quantize` gave; it comes back as it was.
        path: Of the file; a reader sees the old one or the new.

    Returns:
        What every byte of the file is: the packed weights are Σ ⌈n · b / 8⌉ of them.

    Raises:
        ValueError: If the network is not a quantized one, or a weight would not come back as it is.
    """
    plan, weights, rounded = plan_of(model), _quantized_weights(model), _rounded(model)
    tensors = {name: _packed(name, *weight) for name, weight in weights.items()}
    grids = {name: quantized.grid for name, (quantized, _) in weights.items()}
    if grids:
        tensors[SCALES] = _stored_floats([grid.scale for grid in grids.values()])
    if any(bool((x.zero_point != implied_zero_point(x.low, x.high)).any()) for x in grids.values()):
        tensors[ZERO_POINTS] = _stored_floats([grid.zero_point for grid in grids.values()])
    if rounded:
        tensors[ACTIVATION_SCALES] = _stored_floats([x.grid.scale for x in rounded])
        tensors[ACTIVATION_ZERO_POINTS] = _stored_floats([x.grid.zero_point for x in rounded])
    packed = Packed(plan, _layout(model, weights, rounded), tensors | _others(model, weights))
    values = {name: _tensor(stored) for name, stored in packed.tensors.items()}
    content = in_order(save(values, metadata_of(packed)))
    with replacing(path) as part:
        part.write_bytes(content)
    return sizes_of(packed, content)


def load_packed(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Make the network of a packed file, with the outputs of the one that was exported bit for bit.

    Args:
        path: What `export_packed` wrote.
        model: A float network of the same architecture, with any weights; it is not changed. It
            may be left out for workloads that `load_workload` knows.

    Returns:
        A new network in eval mode; its attribute `plan` says what was done.

    Raises:
        FormatError: If the file is damaged, of a newer version or of another architecture.
    """
    packed = read_packed(path)
    network = _built(path, packed) if model is None else _shaped(copy.deepcopy(model), packed)
    _check_fits(path, packed, network)
    with torch.no_grad():
        _fill(network, packed)
    network.plan = packed.plan  # type: ignore[assignment]
    return network.eval()


# Writing


def _quantized_weights(model: nn.Module) -> Weights:
    """The weights that are rounded; a shared one once."""
    found: Weights = {}
    for owner, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for attribute, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
            known = any(chain.original is weight for _, weight in found.values())
            if isinstance(chain[0], QuantizedWeight) and not known:
                found[f"{owner}.{attribute}".lstrip(".")] = chain[0], chain.original
    return found


def _rounded(model: nn.Module) -> list[QuantizedActivation]:
    """Modules that round activations: those of the plan in its order, then other operands."""
    planned: Any = attached(model)
    return [*(planned[name] for name in plan_of(model).activation_bits), *_operands(model)[1]]


def _operands(model: nn.Module) -> tuple[str, list[QuantizedActivation]]:
    """The quantizers of what only additions read, and the name of the module that owns them."""
    for name, module in model.named_modules():
        owner, _, child = name.rpartition(".")
        if child == OPERANDS and isinstance(module, nn.ModuleList):
            return owner, list(module)  # type: ignore[arg-type]
    return "", []


def _packed(name: str, quantized: QuantizedWeight, weight: Tensor) -> Stored:
    """The codes of a weight, packed.

    Raises:
        ValueError: If they would be read back as others.
    """
    grid, channels = quantized.grid, quantized.channels
    codes = grid.codes(channels.rows(weight.detach()))
    if not torch.equal(grid.codes((codes - grid.zero_point) * grid.scale), codes):
        raise ValueError(
            f"model must hold its codes apart, got a weight {name!r} of type {weight.dtype} whose "
            f"values of {quantized.bits} bits lie too close: take a wider type or fewer bits."
        )
    above = channels.weight(codes - grid.low, weight.shape).to(torch.uint8)
    data = pack(above.flatten().numpy(), quantized.bits)
    return Stored("U8", (len(data),), data)


def _stored_floats(tensors: list[Tensor]) -> Stored:
    """Numbers one after the other, in float32 at least, so that NumPy knows them."""
    values = torch.cat([tensor.detach().flatten() for tensor in tensors])
    return _stored(values.to(torch.promote_types(values.dtype, torch.float32)))


def _stored(tensor: Tensor) -> Stored:
    data = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return Stored(SHORT_TYPES[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape), data)


def _others(model: nn.Module, weights: Weights) -> dict[str, Stored]:
    """Parameters and buffers that no quantizer owns."""
    owned = {
        id(tensor)
        for module in model.modules()
        if isinstance(module, QuantizedActivation | QuantizedWeight)
        for tensor in module.buffers()
    } | {id(weight) for _, weight in weights.values()}
    return {name: _stored(x) for name, x in _saved(model).items() if id(x) not in owned}


def _saved(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that a state dict holds, shared ones once."""
    state = model.state_dict().keys()
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor for name, tensor in found.items() if name in state}


def _layout(model: nn.Module, weights: Weights, rounded: list[QuantizedActivation]) -> Layout:
    sites: Any = sites_of(model)
    groups = tuple(module.group for module in rounded)
    return Layout(
        weights={name: tuple(weight.shape) for name, (_, weight) in weights.items()},
        axes={
            name: (quantized.channels.axis, quantized.channels.groups)
            for name, (quantized, _) in weights.items()
            if quantized.channels != Channels()
        },
        exact_norms=tuple(
            name
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.eps == 0
        ),
        sites=tuple(
            tuple((site.module, site.side, site.call) for site in sites[module])
            for module in rounded
        ),
        groups=() if set(groups) <= {None} else groups,
        operands_in=_operands(model)[0],
    )


# Reading


def _built(path: str | Path, packed: Packed) -> nn.Module:
    """The network of the plan's workload, once it is known that the file fits."""
    name = packed.plan.workload
    try:
        with suppress(NotImplementedError), torch.device("meta"):  # it takes no memory; a few
            # architectures set weights by their values and cannot be built so
            _check_fits(path, packed, _shaped(build_network(name), packed))
        return _shaped(build_network(name), packed)
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(
            f"{path} must be loaded with its float network as model, for {name!r} is no network "
            "that comes along."
        ) from error


def _shaped(network: nn.Module, packed: Packed) -> nn.Module:
    """Give a float network, in place, the parts of the exported one.

    Batch norms of which the file has nothing are part of the layers before them, which may have got
    a bias by that, or by a correction.
    """
    for name, module in list(network.named_modules()):
        prefix = f"{name}." if name else ""
        weight, bias = f"{prefix}weight", f"{prefix}bias"
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            if not any(f"{prefix}{own}" in packed.tensors for own in module.state_dict()):
                network.set_submodule(name, nn.Identity())
        elif bias in packed.others and getattr(module, "bias", module) is None:
            known = weight in packed.layout.weights
            shape = (packed.layout.channels_of(weight),) if known else packed.others[bias].shape
            if isinstance(own := getattr(module, "weight", None), Tensor):
                module.bias = nn.Parameter(torch.empty(shape, dtype=own.dtype))
    return network


def _check_fits(path: str | Path, packed: Packed, network: nn.Module) -> None:
    """See that a file has all that a network of its parts needs, and nothing else.

    Raises:
        FormatError: If not.
    """
    own, others = _saved(network), packed.others
    shapes = packed.layout.weights | {name: stored.shape for name, stored in others.items()}
    differs = differences(own, {x: torch.empty(shapes[x], device="meta") for x in shapes})
    for name, stored in others.items():
        if not differs and str(own[name].dtype) != f"torch.{TYPES[stored.dtype]}":
            differs = f"{name} is of type {TYPES[stored.dtype]}, not {own[name].dtype}"
    modules = dict(network.named_modules())
    places = {site[0] for sites in packed.layout.sites for site in sites}
    places |= {packed.layout.operands_in, *packed.layout.exact_norms}
    for place in sorted(places):
        if not differs and place not in modules:
            differs = f"there is no module {place!r}"
    for name in packed.layout.exact_norms:
        if not differs and not isinstance(modules[name], _BatchNorm):
            differs = f"{name} is no batch norm"
    if differs:
        raise FormatError(
            f"{path} must hold the weights of {type(network).__name__}, but {differs}."
        )


def _fill(network: nn.Module, packed: Packed) -> None:
    """Make a network of the right parts the one that was exported, in place."""
    for name in packed.layout.exact_norms:
        network.get_submodule(name).eps = 0.0  # type: ignore[assignment]
    saved = _saved(network)
    for name, stored in packed.others.items():
        saved[name].copy_(_tensor(stored))
    grids = packed.grids()
    for name in packed.layout.weights:
        weight, bits = network.get_parameter(name), packed.bits_of(name)
        channels = Channels(*packed.layout.axis_of(name))
        scale, zero_point = (torch.tensor(x, dtype=weight.dtype)[:, None] for x in grids[name])
        low = packed.low_of(name)
        grid = Grid(scale, zero_point, low, low + 2**bits - 1)
        codes = torch.from_numpy(packed.codes(name)).to(weight.dtype).reshape(weight.shape) + low
        rows = (channels.rows(codes) - zero_point) * scale
        weight.copy_(channels.weight(rows, weight.shape))
        put_on_grid(network, weight, grid, bits, channels)
    _attach(network, packed)


def _attach(network: nn.Module, packed: Packed) -> None:
    """Round activations where the exported network did."""
    layout, planned = packed.layout, packed.plan.activation_bits
    names = [*planned, *(f"operand {i}" for i in range(len(layout.sites) - len(planned)))]
    placed = [
        Placement(
            Activation(name, (), tuple(Site(*x) for x in sites), (), 0, image=False),
            planned.get(name, OPERAND_BITS) if i < len(planned) else OPERAND_BITS,
            planned=i < len(planned),
            group=layout.groups[i] if layout.groups else None,
        )
        for i, (name, sites) in enumerate(zip(names, layout.sites, strict=True))
    ]
    scales, zero_points = (
        torch.tensor(packed.values(name)) for name in (ACTIVATION_SCALES, ACTIVATION_ZERO_POINTS)
    )
    grids = [
        Grid(scale, zero_point, *one.codes)
        for one, scale, zero_point in zip(placed, scales, zero_points, strict=True)
    ]
    attach_quantizers(network, network.get_submodule(layout.operands_in), placed, grids)


def _tensor(stored: Stored) -> Tensor:
    kind = getattr(torch, TYPES[stored.dtype])
    if not stored.data:
        return torch.empty(stored.shape, dtype=kind)
    return torch.frombuffer(bytearray(stored.data), dtype=kind).reshape(stored.shape)
