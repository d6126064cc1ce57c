"""What a packed file holds, checked to the last bit before anything is made of it. No torch.

The format is that of `docs/format.md`: a safetensors file whose metadata hold the plan, the layout
and checksums. Every tensor's checksum is in the layout, and the layout's in the metadata, so that
no bit can turn unseen.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from engine.packing import packed_bytes, unpack
from engine.results import BitPlan, FormatError, PackedFile, PackedItem, in_short, reading

FORMAT, VERSION = "hawq-viz packed network", 1
# Names that no tensor of a network can have.
SCALES, ZERO_POINTS = ".scales", ".zero_points"
ACTIVATION_SCALES, ACTIVATION_ZERO_POINTS = ".activation_scales", ".activation_zero_points"
OWN = {
    SCALES: "scales",
    ZERO_POINTS: "zero points",
    ACTIVATION_SCALES: "scales",
    ACTIVATION_ZERO_POINTS: "zero points",
}
TYPES = {  # of tensors, in a safetensors header
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}
SIDES = ("input", "output")
MOST_WEIGHTS = 2**40  # of a layer
METADATA = "__metadata__"
LENGTH = 8  # bytes that say how long the header is
DIGITS = 8  # of a checksum


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in the file."""

    dtype: str  # one of `TYPES`
    shape: tuple[int, ...]
    data: bytes

    def checksum(self, name: str) -> str:
        """Of its name, its type, its shape and its bytes."""
        described = f"{name} {self.dtype} {list(self.shape)}".encode()
        return f"{crc32(self.data, crc32(described)):0{DIGITS}x}"


@dataclass(frozen=True)
class Layout:
    """How the tensors of a file make a network."""

    weights: dict[str, tuple[int, ...]]  # packed parameter → its shape, in the order of `SCALES`
    axes: dict[str, tuple[int, int]]  # axis and groups of output channels, if not 0 and 1
    exact_norms: tuple[str, ...]  # batch norms whose ε is 0
    sites: tuple[tuple[tuple[str, str, int], ...], ...]  # module, side and call of each rounded
    # activation: those of the plan in its order, then other operands of additions
    groups: tuple[int | None, ...]  # activations of one group have one scale
    operands_in: str  # module that owns the quantizers of other operands

    def axis_of(self, name: str) -> tuple[int, int]:
        """Axis of a weight's output channels, and their groups (see `layers.Channels`)."""
        return self.axes.get(name, (0, 1))

    def channels_of(self, name: str) -> int:
        """How many output channels a weight has."""
        shape, (axis, groups) = self.weights[name], self.axis_of(name)
        return 1 if len(shape) == 1 else shape[axis] * groups


@dataclass(frozen=True)
class Packed:
    """A packed file whose checksums, sizes and names all fit together."""

    plan: BitPlan
    layout: Layout
    tensors: dict[str, Stored]

    @property
    def others(self) -> dict[str, Stored]:
        """Tensors that are stored as they are."""
        own = OWN.keys() | self.layout.weights.keys()
        return {name: stored for name, stored in self.tensors.items() if name not in own}

    def bits_of(self, name: str) -> int:
        """Bits of a packed parameter."""
        return self.plan.weight_bits[name.removesuffix(".weight")]

    def low_of(self, name: str) -> int:
        """Least code of a packed parameter."""
        symmetric = self.plan.quantizer["scheme"] == "symmetric"
        return -(2 ** (self.bits_of(name) - 1)) if symmetric else 0

    def codes(self, name: str) -> NDArray[np.uint8]:
        """Codes of a packed parameter above the least, in the order of its elements."""
        count = prod(self.layout.weights[name])
        return unpack(self.tensors[name].data, self.bits_of(name), count)

    def grids(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Scales and zero points of every packed parameter, each [channels or 1]."""
        found, done = {}, 0
        scales, zero_points = self.values(SCALES), self.values(ZERO_POINTS)
        for name in self.layout.weights:
            count = self.layout.channels_of(name) if _by_channel(self.plan) else 1
            part = slice(done, done + count)
            low = self.low_of(name)
            implied = np.full(count, implied_zero_point(low, low + 2 ** self.bits_of(name) - 1))
            zeros = zero_points[part] if len(zero_points) else implied.astype(scales.dtype)
            found[name] = scales[part], zeros
            done += count
        return found

    def values(self, name: str) -> NDArray[Any]:
        """A tensor of floats by its name, [n]; an empty one where the file has none."""
        stored = self.tensors.get(name, Stored("F32", (0,), b""))
        return np.frombuffer(stored.data, TYPES[stored.dtype])


def implied_zero_point(low: int, high: int) -> float:
    """The zero point that a file need not say: −½ for one symmetric bit, else 0."""
    return -0.5 if (low, high) == (-1, 0) else 0.0


def metadata_of(packed: Packed) -> dict[str, str]:
    """What the file says of itself, as safetensors metadata."""
    layout = asdict(packed.layout) | {
        "sites": [[":".join(map(str, site)) for site in sites] for sites in packed.layout.sites],
        "checksums": "".join(packed.tensors[x].checksum(x) for x in sorted(packed.tensors)),
    }
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "plan": _compact(asdict(packed.plan)),
        "layout": _compact({key: value for key, value in layout.items() if value}),
    }
    return metadata | {"checksum": _checksum(metadata)}


def in_order(content: bytes) -> bytes:
    """A safetensors file with its header in one order, so that equal networks are equal files."""
    header, start = _header(content), _start(content)
    metadata = header.pop(METADATA)
    tensors = sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0]))
    said = _compact({METADATA: dict(sorted(metadata.items())), **dict(tensors)}).encode()
    said += b" " * (-len(said) % LENGTH)
    return len(said).to_bytes(LENGTH, "little") + said + content[start:]


def read_packed(path: str | Path) -> Packed:
    """Read a packed file.

    Raises:
        FormatError: If it is missing, cut, changed, of another kind or of a newer version.
    """
    return _read(path)[0]


def packed_sizes(path: str | Path) -> PackedFile:
    """What every byte of a packed file is.

    Raises:
        FormatError: If it is none that `read_packed` would read.
    """
    return sizes_of(*_read(path))


def _read(path: str | Path) -> tuple[Packed, bytes]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise FormatError(
            f"{path} must be a packed network, but cannot be read: {error.strerror}."
        ) from error
    try:
        with safe_open(path, "np"):  # it checks the header: sizes, places, no gap
            header = _header(content)
        tensors = _tensors(header, content)
    except Exception as error:  # whatever the reader of safetensors raises
        cut = _first_cut(content)
        reason = f"is cut within {cut!r}" if cut else f"is no whole file ({in_short(error)})"
        raise FormatError(
            f"{path} must be a packed network, but {reason}: get it again."
        ) from error
    metadata = header.get(METADATA, {})
    _check_kind(path, metadata)
    if metadata.get("checksum") != _checksum(metadata):
        raise FormatError(
            f"{path} must be as it was written, but its plan or its layout has changed: get it "
            "again."
        )
    with reading(path, "packed network"):
        plan, layout, checksums = _described(metadata)
    _check_tensors(path, tensors, checksums)
    packed = Packed(plan, layout, tensors)
    with reading(path, "packed network"):
        _check_weights(packed)
        _check_activations(packed)
    return packed, content


def _start(content: bytes) -> int:
    """Where a safetensors file's tensors begin, as its head says."""
    return LENGTH + int.from_bytes(content[:LENGTH], "little")


def _header(content: bytes) -> dict[str, Any]:
    """The JSON at the head of a safetensors file.

    Raises:
        ValueError: If there is none.
    """
    start = _start(content)
    if start > len(content):
        raise ValueError(
            f"its header claims {start - LENGTH} bytes, and the file has {len(content)}"
        )
    header = json.loads(content[LENGTH:start])
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header


def _tensors(header: Mapping[str, Any], content: bytes) -> dict[str, Stored]:
    start = _start(content)
    found = {}
    for name, told in header.items():
        if name != METADATA:
            first, end = told["data_offsets"]
            data = content[start + first : start + end]
            found[name] = Stored(told["dtype"], tuple(told["shape"]), data)
            if told["dtype"] not in TYPES:
                raise ValueError(f"{name} is of type {told['dtype']}")
    return found


def _first_cut(content: bytes) -> str:
    """The first tensor that a file ends within; none where the header says of none."""
    try:
        header = _header(content)
        start = _start(content)
        ends = {x["data_offsets"][1]: name for name, x in header.items() if "data_offsets" in x}
        return next((ends[end] for end in sorted(ends) if start + end > len(content)), "")
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return ""


def _check_kind(path: str | Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise FormatError(
            f"{path} must be a packed network, got another safetensors file: export one with "
            "export_packed."
        )
    version = metadata.get("version", "")
    if version != str(VERSION):
        raise FormatError(
            f"{path} must have format version {VERSION}, got {version[:20]!r}: read it with the "
            "release that wrote it, or a newer one."
        )


def _checksum(metadata: Mapping[str, str]) -> str:
    """Of all that metadata say."""
    said = [metadata.get(key, "") for key in ("format", "version", "plan", "layout")]
    return f"{crc32(chr(0).join(said).encode()):0{DIGITS}x}"


def _compact(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def _described(metadata: Mapping[str, str]) -> tuple[BitPlan, Layout, str]:
    """The plan, the layout and the checksums of tensors, as metadata tell them.

    Raises:
        ValueError: If they are not such.
    """
    try:
        plan, told = json.loads(metadata["plan"]), json.loads(metadata["layout"])
    except RecursionError as error:
        raise ValueError("its layout is nested too deeply") from error
    checksums = str(told.pop("checksums"))
    layout = Layout(
        weights={str(name): _whole(shape) for name, shape in told.pop("weights", {}).items()},
        axes={name: _pair(axis) for name, axis in told.pop("axes", {}).items()},
        exact_norms=tuple(map(str, told.pop("exact_norms", ()))),
        sites=tuple(tuple(map(_site, sites)) for sites in told.pop("sites", ())),
        groups=tuple(told.pop("groups", ())),
        operands_in=str(told.pop("operands_in", "")),
    )
    if told:
        raise ValueError(f"its layout has an unknown part {next(iter(told))!r}")
    return BitPlan(**plan), layout, checksums


def _whole(shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape)
    if not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(f"{shape!r} is no shape of a weight")
    if prod(sizes) > MOST_WEIGHTS:
        raise ValueError(f"a weight of shape {list(sizes)} is none that a network has")
    return sizes


def _pair(axis: Any) -> tuple[int, int]:
    first, groups = axis
    if type(first) is not int or type(groups) is not int or first < 0 or groups < 1:
        raise ValueError(f"{axis!r} is no axis of channels")
    return first, groups


def _site(text: Any) -> tuple[str, str, int]:
    module, side, call = str(text).rsplit(":", 2)
    if side not in SIDES or not call.isdecimal():
        raise ValueError(f"{text!r} is no place of an activation")
    return module, side, int(call)


def _check_tensors(path: str | Path, tensors: Mapping[str, Stored], checksums: str) -> None:
    """See that every tensor is there and as it was written."""
    names = sorted(tensors)
    if len(checksums) != DIGITS * len(names):
        raise FormatError(
            f"{path} must be as it was written, but has {len(names)} tensors, not "
            f"{len(checksums) // DIGITS}: get it again."
        )
    for i, name in enumerate(names):
        if tensors[name].checksum(name) != checksums[DIGITS * i : DIGITS * (i + 1)]:
            raise FormatError(
                f"{path} must be as it was written, but its tensor {name!r} has changed: get it "
                "again."
            )


def _check_weights(packed: Packed) -> None:
    """See that the packed weights are those of the plan, each with its scales."""
    plan, layout = packed.plan, packed.layout
    layers = [name.removesuffix(".weight") for name in layout.weights]
    if sorted(layers) != sorted(plan.weight_bits):
        strange = sorted(set(layers) ^ set(plan.weight_bits))
        raise ValueError(f"its plan is of other layers than its weights: {strange[:3]}")
    known = {"scheme": ("symmetric", "asymmetric"), "weight_granularity": ("channel", "tensor")}
    for setting, values in known.items():
        if plan.quantizer[setting] not in values:
            raise ValueError(f"its plan's {setting} is {plan.quantizer[setting]!r}")
    for name, (axis, groups) in layout.axes.items():
        shape = layout.weights[name]
        if axis >= len(shape) or (groups > 1 and (axis != 1 or shape[0] % groups)):
            raise ValueError(f"a weight of shape {list(shape)} has no channels at {axis, groups}")
    for name, shape in layout.weights.items():
        needed = packed_bytes(prod(shape), packed.bits_of(name))
        stored = packed.tensors[name]
        if stored.dtype != "U8" or len(stored.data) != needed:
            raise ValueError(f"{name!r} has {len(stored.data)} bytes of codes, not {needed}")
    by_channel = _by_channel(plan)
    count = sum(layout.channels_of(name) if by_channel else 1 for name in layout.weights)
    _check_floats(packed, SCALES, count, scales=True)
    if ZERO_POINTS in packed.tensors:
        _check_floats(packed, ZERO_POINTS, count)


def _by_channel(plan: BitPlan) -> bool:
    return plan.quantizer["weight_granularity"] == "channel"


def _check_activations(packed: Packed) -> None:
    layout, planned = packed.layout, len(packed.plan.activation_bits)
    if len(layout.sites) < planned:
        raise ValueError(f"it says where {len(layout.sites)} activations are, not {planned}")
    whole = all(group is None or type(group) is int for group in layout.groups)
    if not whole or len(layout.groups) not in (0, len(layout.sites)):
        raise ValueError(f"{layout.groups!r} are no groups of activations")
    _check_floats(packed, ACTIVATION_SCALES, len(layout.sites), scales=True)
    _check_floats(packed, ACTIVATION_ZERO_POINTS, len(layout.sites))


def _check_floats(packed: Packed, name: str, count: int, *, scales: bool = False) -> None:
    stored = packed.tensors.get(name, Stored("F32", (0,), b""))
    if stored.dtype not in ("F32", "F64") or stored.shape != (count,):
        raise ValueError(f"{name!r} is {stored.dtype} {list(stored.shape)}, not {count} floats")
    values = packed.values(name)
    if not np.isfinite(values).all() or (scales and not (values > 0).all()):
        raise ValueError(f"{name!r} holds a number that can be none")


def sizes_of(packed: Packed, content: bytes) -> PackedFile:
    """What every byte of a file is, from what it holds and from its bytes."""
    start = _start(content)
    said = len(content[LENGTH:start].rstrip(b" "))
    plan = len(_compact({"plan": _header(content)[METADATA]["plan"]}).encode()) - 2
    biases = {f"{name.removesuffix('weight')}bias" for name in packed.layout.weights}
    places = {name: (i, name) for i, name in enumerate(packed.layout.weights)}
    items = [
        PackedItem(_kind(name, packed, biases), name, len(stored.data))
        for name, stored in sorted(
            packed.tensors.items(), key=lambda item: places.get(item[0], (len(places), item[0]))
        )
    ]
    weights = packed.layout.weights
    return PackedFile(
        promised_bytes=sum(prod(weights[name]) * packed.bits_of(name) for name in weights) / 8,
        items=(
            *items,
            PackedItem("plan", "plan", plan),
            PackedItem("layout", "names, shapes, places and checksums", said - plan),
            PackedItem("container", "length and padding of the header", start - said),
        ),
    )


def _kind(name: str, packed: Packed, biases: set[str]) -> str:
    if name in packed.layout.weights:
        return "packed weights"
    return OWN.get(name) or ("biases" if name in biases else "other tensors")
