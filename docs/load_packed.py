"""Load a packed network with PyTorch alone; `docs/format.md` says how such a file is laid out.

    from load_packed import load_packed
    model = load_packed("network.packed.safetensors", resnet20())

Needs this file and the network's own code, and nothing of hawq-viz. Values that were quantized are
rounded as in the network that was exported, so that on one machine the outputs are the same bit for
bit. Nothing in the file is run.
"""

import copy
import json
import math
import zlib

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


def load_packed(path, model):
    """Make the quantized network of a file.

    Args:
        path: Of the file.
        model: The float network, with any weights; it is not changed.

    Raises:
        ValueError: If the file is none, of another version, changed or of another network.
    """
    plan, layout, tensors = read(path)
    network = copy.deepcopy(model).eval()
    with torch.no_grad():
        fold(network, layout, tensors)
        for name, weight in dequantized(plan, layout, tensors).items():
            network.get_parameter(name).copy_(weight)
    round_activations(network, plan, layout, tensors)
    return network


def read(path):
    """The plan, the layout and the tensors of a file, by their names."""
    with open(path, "rb") as file:
        content = file.read()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    told = header.pop("__metadata__")
    if (told["format"], told["version"]) != ("hawq-viz packed network", "1"):
        raise ValueError(f"{path} must be a packed network of version 1, got {told['version']}.")
    said = "\0".join(told[key] for key in ("format", "version", "plan", "layout"))
    if f"{zlib.crc32(said.encode()):08x}" != told["checksum"]:
        raise ValueError(f"{path} must be as it was written, but its plan or layout has changed.")
    plan, layout = json.loads(told["plan"]), json.loads(told["layout"])
    tensors = {}
    for i, name in enumerate(sorted(header)):
        dtype, shape = header[name]["dtype"], header[name]["shape"]
        first, end = header[name]["data_offsets"]
        data = content[start + first : start + end]
        checksum = zlib.crc32(data, zlib.crc32(f"{name} {dtype} {shape}".encode()))
        if f"{checksum:08x}" != layout["checksums"][8 * i : 8 * i + 8]:
            raise ValueError(f"{path} must be as it was written, but {name} has changed.")
        values = torch.frombuffer(bytearray(data or bytes(8)), dtype=TYPES[dtype])
        tensors[name] = values[: math.prod(shape)].reshape(shape)
    return plan, layout, tensors


def fold(network, layout, tensors):
    """Make batch norms and biases those of the file, and fill in what is stored as it is."""
    for name, module in list(network.named_modules()):
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            if not any(f"{name}.{own}" in tensors for own in module.state_dict()):
                network.set_submodule(name, nn.Identity())
            elif name in layout.get("exact_norms", []):
                module.eps = 0.0
    for name, tensor in tensors.items():
        owner, _, attribute = name.rpartition(".")
        if name in layout["weights"] or (not owner and name.startswith(".")):
            continue
        if attribute == "bias" and network.get_submodule(owner).bias is None:
            network.get_submodule(owner).bias = nn.Parameter(tensor)
        else:
            getattr(network.get_submodule(owner), attribute).copy_(tensor)


def dequantized(plan, layout, tensors):
    """Weights by their names: (code − zero point) · scale."""
    found, done = {}, 0
    by_channel = plan["quantizer"]["weight_granularity"] == "channel"
    symmetric = plan["quantizer"]["scheme"] == "symmetric"
    for name, shape in layout["weights"].items():
        bits = plan["weight_bits"][name.removesuffix(".weight")]
        axis, groups = layout.get("axes", {}).get(name, (0, 1))
        codes = unpacked(tensors[name], bits, math.prod(shape)).reshape(shape).float()
        if symmetric:
            codes -= 2 ** (bits - 1)
        channels = 1 if len(shape) == 1 else shape[axis] * groups
        part = slice(done, done + (channels if by_channel else 1))
        done = part.stop
        scale = tensors[".scales"][part]
        zero_point = torch.full_like(scale, -0.5 if symmetric and bits == 1 else 0)
        if ".zero_points" in tensors:
            zero_point = tensors[".zero_points"][part]
        if by_channel:
            scale, zero_point = (spread(x, shape, axis, groups) for x in (scale, zero_point))
        found[name] = (codes - zero_point) * scale
    return found


def unpacked(packed, bits, count):
    """Codes of a weight: eight of b bits are one number of b bytes, the lowest first."""
    packed = torch.cat([packed, packed.new_zeros(-len(packed) % bits)])
    stream = packed.reshape(-1, bits, 1) >> torch.arange(8, dtype=torch.uint8) & 1  # its bits
    places = 2 ** torch.arange(bits, dtype=torch.int16)
    return (stream.reshape(-1, bits) * places).sum(1)[:count]


def spread(values, shape, axis, groups):
    """One value a channel, [channels], so that it multiplies a weight of a shape."""
    if len(shape) == 1:
        return values
    if groups > 1:  # a transposed convolution keeps its channels in groups
        values = values.reshape(groups, shape[1]).repeat_interleave(shape[0] // groups, 0)
        return values.reshape(*shape[:2], *[1] * (len(shape) - 2))
    return values.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def round_activations(network, plan, layout, tensors):
    """Hang a hook on each place where a tensor is rounded."""
    planned, places, calls = list(plan["activation_bits"].values()), {}, {}
    for i, sites in enumerate(layout.get("sites", [])):
        low, high = (0, 2 ** planned[i] - 1) if i < len(planned) else (-128, 127)
        scale, zero = tensors[".activation_scales"][i], tensors[".activation_zero_points"][i]
        for site in sites:
            module, side, call = site.rsplit(":", 2)
            places.setdefault((module, side), {})[int(call)] = (scale, zero, low, high)

    def rounded(tensor, place):
        calls[place] = calls.get(place, -1) + 1
        if calls[place] not in places[place]:
            return tensor
        scale, zero, low, high = places[place][calls[place]]
        return ((tensor / scale + zero).round().clamp(low, high) - zero) * scale

    network.register_forward_pre_hook(lambda *_: calls.clear())
    for place in places:
        module, side = network.get_submodule(place[0]), place[1]
        if side == "input":
            module.register_forward_pre_hook(
                lambda _, given, place=place: (rounded(given[0], place), *given[1:])
            )
        else:
            module.register_forward_hook(lambda _, __, output, place=place: rounded(output, place))
