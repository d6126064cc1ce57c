"""What the stages hand on: frozen records that save to JSON and come back, with no torch."""

import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from scipy.special import ndtri, stdtrit

Progress = Callable[[int, int, str], None]  # told (done, in all, of what) as long work goes on

FORMAT_VERSION = 1
PLAN_FILE = "plan.json"  # of a plan in the folder of the network that was made by it
CONFIDENCE = 0.95  # of every interval
DEVIATIONS = float(ndtri(0.5 + CONFIDENCE / 2))  # either side of a normal mean
BIT_WIDTHS = range(1, 9)  # what a layer may be quantized to
BELOW_ERROR = "trace below its error: Ω uses the error instead"
METRIC_NAMES = {"mAP": "mAP@[.5:.95]"}  # in full, where they have such a name
PACKED_KINDS = (  # what the bytes of a packed file are
    "packed weights",
    "scales",
    "zero points",
    "biases",
    "other tensors",
    "plan",
    "layout",
    "container",
)
KERNELS = ("integer kernel", "dequantized float", "not supported")  # how ONNX Runtime runs a layer
PACKAGES = ("hawq-viz", "numpy", "torch", "torchvision")


class FormatError(ValueError):
    """A file is not what it should be; the message names the file and what was expected."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a path to write to; once it is written, that file takes the place of this one.

    A reader sees the old file or the new; folders on the way are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    yield part
    os.replace(part, path)


def write_json(path: str | Path, kind: str, fields: Mapping[str, Any]) -> None:
    """Write fields with their kind and format version; a reader sees the old file or the new."""
    document = {"kind": kind, "version": FORMAT_VERSION, **fields}
    with replacing(path) as part:
        part.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path, kind: str) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        FormatError: If the file is missing, cut, not JSON, of another kind or another version.
    """
    try:
        document = json.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} must be a saved {kind}, but cannot be read: {error}.") from error
    except (ValueError, RecursionError) as error:  # the latter of thousands of brackets
        raise FormatError(
            f"{path} must be a saved {kind}, but is not whole JSON ({error}): save it again."
        ) from error
    found = document.get("kind") if isinstance(document, dict) else None
    if found != kind:
        raise FormatError(f"{path} must be a saved {kind}, got {found or 'another file'}.")
    if document.get("version") != FORMAT_VERSION:
        raise FormatError(
            f"{path} must have format version {FORMAT_VERSION}, got {document.get('version')}: "
            f"make the {kind} again with this release."
        )
    return {key: value for key, value in document.items() if key not in ("kind", "version")}


@dataclass(frozen=True)
class Provenance:
    """How a result came about: enough to make it again."""

    seed: int
    data: str  # which images, in words
    fingerprint: str  # of those images and labels
    command: str  # that makes the result again
    versions: dict[str, str] = field(default_factory=lambda: _versions())
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@dataclass(frozen=True)
class TraceEstimate:
    """Average Hessian trace of one layer, Tr(H) / n, in loss per squared weight."""

    mean: float
    sem: float  # standard error of the mean over the mini-batches
    samples: int  # mini-batches
    exact: bool  # whether the expectation is the Hessian's trace, not only Gauss-Newton's

    @property
    def relative_sem(self) -> float:
        """The standard error as a share of the mean; infinite where the mean is zero."""
        return self.sem / abs(self.mean) if self.mean else math.inf

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean by Student's t."""
        if self.samples < 2:
            return -math.inf, math.inf
        half = float(stdtrit(self.samples - 1, 0.5 + CONFIDENCE / 2)) * self.sem
        return self.mean - half, self.mean + half

    @property
    def floored(self) -> bool:
        """Whether the mean lies below its standard error, so that Ω takes the error instead."""
        return self.mean < self.sem

    @property
    def for_omega(self) -> float:
        """What Ω is made of: max(mean, sem), so that noise cannot make a layer look free."""
        return max(self.mean, self.sem)


@dataclass(frozen=True)
class Evaluation:
    """A network's measured quality with its 95 % interval."""

    metric: str
    value: float  # 0…1
    interval: tuple[float, float]
    samples: int
    loss: float  # mean over the samples
    loss_sem: float
    provenance: Provenance

    @property
    def metric_name(self) -> str:
        """The metric in full: COCO's mAP says over which overlaps."""
        return METRIC_NAMES.get(self.metric, self.metric)

    @property
    def sem(self) -> float:
        """The standard error of the value, as its interval tells it."""
        low, high = self.interval
        return (high - low) / (2 * DEVIATIONS)

    def to_json(self) -> dict[str, Any]:
        """Plain fields for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Take back what `to_json` gave."""
        return cls(
            **{
                **fields,
                "interval": tuple(fields["interval"]),
                "provenance": Provenance(**fields["provenance"]),
            }
        )

    def save(self, path: str | Path) -> None:
        """Write JSON."""
        write_json(path, "evaluation", self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; FormatError where it is something else."""
        fields = read_json(path, "evaluation")
        with reading(path, "evaluation"):
            return cls.from_json(fields)


def metric_text(metric: str, value: float, digits: int = 1) -> str:
    """A metric's value in percent; what it is too, where it is no share of right images."""
    number = f"{value:.{digits}%}"
    return f"{METRIC_NAMES[metric]} {number}" if metric in METRIC_NAMES else number


def wilson_interval(successes: int, samples: int) -> tuple[float, float]:
    """The 95 % interval of a share: Wilson, "Probable Inference", JASA 1927.

    Args:
        successes: 0…samples.
        samples: At least 1.
    """
    z2 = DEVIATIONS**2
    share = successes / samples
    centre = (share + z2 / (2 * samples)) / (1 + z2 / samples)
    spread = math.sqrt(z2 * share * (1 - share) / samples + (z2 / (2 * samples)) ** 2)
    half = spread / (1 + z2 / samples)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return min(share, low), max(share, high)  # they hold the share, whatever the last digit says


def jackknife_interval(value: float, without: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a value, by leaving out one group of images after the other.

    Kott, "The Delete-a-Group Jackknife", Journal of Official Statistics, 2001: with θ_g the value
    without group g of G, σ² = (G − 1) / G · Σ (θ_g − mean)², and Student's t with G − 1 degrees of
    freedom.

    Args:
        value: From all groups.
        without: What it would be without each group; an infinite interval for fewer than two.
    """
    count = len(without)
    if count < 2:
        return -math.inf, math.inf
    mean = sum(without) / count
    sem = math.sqrt((count - 1) / count * sum((x - mean) ** 2 for x in without))
    half = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * sem
    return value - half, value + half


@dataclass(frozen=True)
class BitPlan:
    """Bits of every quantized layer, and what they cost."""

    workload: str
    weight_bits: dict[str, int]
    size_bytes: float  # Σ n · b / 8 over the quantized weights
    omega: float  # Σ Ω over the layers; ½ of it predicts the loss increase
    made_by: dict[str, Any] = field(default_factory=dict)  # cost, budget, locks …: makes it again
    activation_bits: dict[str, int] = field(default_factory=dict)  # none: activations stay float
    quantizer: dict[str, str] = field(
        default_factory=dict
    )  # arguments of `quantize`, if not its own
    costs: dict[str, float] = field(default_factory=dict)  # those known, by the names of
    # `analysis.COSTS`; none in files of before there were others than size

    def __post_init__(self) -> None:
        for layer, bits in self.weight_bits.items():
            check_bits(bits, f"weight_bits[{layer!r}]")
        for tensor, bits in self.activation_bits.items():
            check_bits(bits, f"activation_bits[{tensor!r}]")

    @property
    def summary(self) -> str:
        """The bits in forward order, run-length coded for people: `8 4×3 2`."""
        runs: list[list[int]] = []
        for bits in self.weight_bits.values():
            if runs and runs[-1][0] == bits:
                runs[-1][1] += 1
            else:
                runs.append([bits, 1])
        return " ".join(f"{bits}×{n}" if n > 1 else str(bits) for bits, n in runs)

    def save(self, path: str | Path) -> None:
        """Write JSON."""
        write_json(path, "plan", asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; FormatError where it is something else."""
        fields = read_json(path, "plan")
        with reading(path, "plan"):
            return cls(**fields)


@dataclass(frozen=True)
class PackedItem:
    """A part of a packed file."""

    kind: str  # one of `PACKED_KINDS`
    name: str  # of the tensor or the part
    bytes: int


@dataclass(frozen=True)
class PackedFile:
    """What a packed file holds: every byte of it, once."""

    promised_bytes: float  # Σ n · b / 8, as the plan counts
    items: tuple[PackedItem, ...]

    @property
    def file_bytes(self) -> int:
        """The size of the file."""
        return sum(item.bytes for item in self.items)

    @property
    def weight_bytes(self) -> int:
        """Of the packed weights: Σ ⌈n · b / 8⌉."""
        return self.by_kind["packed weights"]

    @property
    def by_kind(self) -> dict[str, int]:
        """Bytes of each of `PACKED_KINDS`."""
        return {
            kind: sum(item.bytes for item in self.items if item.kind == kind)
            for kind in PACKED_KINDS
        }

    def to_json(self) -> dict[str, Any]:
        """Plain fields for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Take back what `to_json` gave."""
        return cls(fields["promised_bytes"], tuple(PackedItem(**x) for x in fields["items"]))


@dataclass(frozen=True)
class OnnxLayer:
    """How a quantized weight is stored in an ONNX file."""

    name: str
    bits: int  # of the plan
    container: str  # INT4, UINT4, INT8 or UINT8
    tensor: str  # name of its codes in the file

    @property
    def padded(self) -> bool:
        """Whether the container has more bits than the weight."""
        return self.bits < int(self.container[-1])


@dataclass(frozen=True)
class OnnxExport:
    """What an ONNX file holds."""

    opset: int
    file_bytes: int
    layers: tuple[OnnxLayer, ...]  # in the order of the network's modules

    def to_json(self) -> dict[str, Any]:
        """Plain fields for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Take back what `to_json` gave."""
        return cls(**{**fields, "layers": tuple(OnnxLayer(**x) for x in fields["layers"])})


@dataclass(frozen=True)
class OnnxCheck:
    """An ONNX file as ONNX Runtime runs it, beside the network it was made from."""

    runtime: str  # version of ONNX Runtime
    onnx: Evaluation | None  # None where ONNX Runtime refuses the file
    pytorch: Evaluation
    largest_difference: float | None  # of an output, over all test images
    runs_as: dict[str, str]  # of each quantized layer, one of `KERNELS`
    refused: str  # why, in ONNX Runtime's words; empty where it runs
    exact_sums: bool = True  # whether sums of codes cannot saturate, on any processor

    @property
    def integer_layers(self) -> int:
        """How many quantized layers run as integer kernels."""
        return list(self.runs_as.values()).count(KERNELS[0])

    @property
    def integer_share(self) -> float:
        """The share of quantized layers that do."""
        return self.integer_layers / max(1, len(self.runs_as))

    def to_json(self) -> dict[str, Any]:
        """Plain fields for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Take back what `to_json` gave."""
        onnx = fields["onnx"] and Evaluation.from_json(fields["onnx"])
        pytorch = Evaluation.from_json(fields["pytorch"])
        return cls(**{**fields, "onnx": onnx, "pytorch": pytorch})


def check_bits(bits: Any, argument: str) -> int:
    """Take a bit width in 1…8.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or bits not in BIT_WIDTHS:
        raise ValueError(f"{argument} must be a whole number of bits in 1…8, got {bits!r}.")
    return bits


def in_short(error: BaseException) -> str:
    """What another library says went wrong, on one line of 200 letters at most."""
    return " ".join(str(error).split())[:200]


class reading:  # noqa: N801 — reads as a statement: `with reading(path, "plan"):`
    """Turn what a wrong field raises into a FormatError that names the file."""

    def __init__(self, path: str | Path, kind: str) -> None:
        self.path, self.kind = path, kind

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError):
            raise FormatError(
                f"{self.path} must hold every field of a saved {self.kind}, but {error!s}: "
                "save it again."
            ) from error
