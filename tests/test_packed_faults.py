"""Damaged, foreign and hostile packed files: a sentence, and never anything worse."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mutated import damaged, reworded
from safetensors.torch import load, save, save_file
from test_packed import WORKLOAD, images, plan_of

from engine.packed import export_packed, load_packed
from engine.quantized import quantize
from engine.results import FormatError
from engine.unpacking import (
    DIGITS,
    METADATA,
    _checksum,
    _header,
    _tensors,
    packed_sizes,
    read_packed,
)

PLAN = plan_of({"first": 3, "second": 4, "up": 2}, {"second": 8, "fc": 4})
FILES = 2000


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("packed") / "net.safetensors"
    export_packed(quantize(WORKLOAD, PLAN, sums="integer"), path)
    return path.read_bytes()


def refused(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    for read in (read_packed, packed_sizes, lambda file: load_packed(file, WORKLOAD.model)):
        with pytest.raises(FormatError, match=says):
            read(path)


def header_of(content: bytes) -> tuple[int, dict[str, Any]]:
    start = 8 + int.from_bytes(content[:8], "little")
    return start, json.loads(content[8:start])


def told_again(content: bytes, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> bytes:
    """The file with its plan and layout changed, and a checksum that fits."""
    metadata = header_of(content)[1][METADATA]
    plan, layout = json.loads(metadata["plan"]), json.loads(metadata["layout"])
    change(plan, layout)
    metadata |= {"plan": json.dumps(plan), "layout": json.dumps(layout)}
    return save(load(content), metadata | {"checksum": _checksum(metadata)})


def with_tensor(content: bytes, name: str, tensor: torch.Tensor) -> bytes:
    """The file with another tensor in the place of one, and checksums that fit."""
    metadata, tensors = header_of(content)[1][METADATA], load(content)
    tensors[name] = tensor
    first = save(tensors, metadata)
    place, layout = DIGITS * sorted(tensors).index(name), json.loads(metadata["layout"])
    checksum = _tensors(_header(first), first)[name].checksum(name)
    before, after = layout["checksums"][:place], layout["checksums"][place + DIGITS :]
    metadata["layout"] = json.dumps(layout | {"checksums": before + checksum + after})
    return save(tensors, metadata | {"checksum": _checksum(metadata)})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    message = f"{path} must be a packed network, but cannot be read: No such file or directory."
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        load_packed(path)


def test_every_cut_is_noticed_and_the_tensor_named(packed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    start, header = header_of(packed)
    for name, told in header.items():
        if name != METADATA:
            first, end = told["data_offsets"]
            says = (
                f"^{path} must be a packed network, but is cut within '{re.escape(name)}': get it"
            )
            refused(path, packed[: start + (first + end) // 2], says)
    for length in (0, 7, 8, 20, start - 1):
        refused(path, packed[:length], f"^{path} must be a packed network, but is no whole file")


def test_a_turned_bit_is_noticed_and_the_tensor_named(packed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    start, header = header_of(packed)
    for name, told in header.items():
        if name != METADATA:
            changed = bytearray(packed)
            changed[start + told["data_offsets"][0]] ^= 4
            says = (
                f"^{path} must be as it was written, but its tensor '{re.escape(name)}' has "
                "changed: get it again.$"
            )
            refused(path, bytes(changed), says)


def test_a_changed_plan_is_noticed(packed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    says = f"^{path} must be as it was written, but its plan or its layout has changed: get it"
    refused(path, packed.replace(rb"first\":3", rb"first\":4"), says)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    says = (
        f"^{path} must be a packed network, got another safetensors file: export one with "
        "export_packed.$"
    )
    refused(path, path.read_bytes(), says)
    refused(path, b"PK\x03\x04 something else entirely", "but is no whole file")


def test_a_newer_version_is_refused(packed: bytes, tmp_path: Path) -> None:
    metadata = header_of(packed)[1][METADATA] | {"version": "2"}
    path = tmp_path / "net.safetensors"
    says = f"^{path} must have format version 1, got '2': read it with the release that wrote it"
    refused(path, save(load(packed), metadata), says)


def test_a_header_that_claims_terabytes_is_refused(packed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    says = f"^{path} must be a packed network, but is no whole file"
    refused(path, (2**42).to_bytes(8, "little") + packed[8:], says)
    start, header = header_of(packed)
    header["first.weight"] |= {"shape": [2**42], "data_offsets": [0, 2**42]}
    long = json.dumps(header).encode()
    says = f"^{path} must be a packed network, but is cut within 'first.weight'"
    refused(path, len(long).to_bytes(8, "little") + long + packed[start:], says)


def renamed(plan: dict[str, Any], _: dict[str, Any]) -> None:
    plan["weight_bits"]["third"] = plan["weight_bits"].pop("first")


def widened(plan: dict[str, Any], _: dict[str, Any]) -> None:
    plan["weight_bits"]["first"] = 4


def set_to(part: str, key: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(plan: dict[str, Any], layout: dict[str, Any]) -> None:
        {"plan": plan, "layout": layout, "quantizer": plan["quantizer"]}[part][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (renamed, "its plan is of other layers than its weights: ['first', 'third']"),
        (widened, "'first.weight' has 34 bytes of codes, not 45"),
        (
            set_to("plan", "weight_bits", {"first": 9}),
            "weight_bits['first'] must be a whole number",
        ),
        (set_to("plan", "more", 1), "unexpected keyword argument 'more'"),
        (set_to("quantizer", "scheme", "odd"), "its plan's scheme is 'odd'"),
        (
            set_to("quantizer", "weight_granularity", "tensor"),
            "'.scales' is F32 [15], not 3 floats",
        ),
        (set_to("layout", "weights", {"first.weight": []}), "[] is no shape of a weight"),
        (
            set_to("layout", "weights", {"first.weight": [2**30, 2**30]}),
            "a weight of shape [1073741824, 1073741824] is none that a network has",
        ),
        (set_to("layout", "axes", {"first.weight": [0.5, 1]}), "[0.5, 1] is no axis of channels"),
        (
            set_to("layout", "axes", {"first.weight": [7, 1]}),
            "a weight of shape [5, 2, 3, 3] has no channels at (7, 1)",
        ),
        (set_to("layout", "sites", [["relu:through:0"]]), "'relu:through:0' is no place of an"),
        (set_to("layout", "sites", []), "it says where 0 activations are, not 2"),
        (set_to("layout", "groups", ["x"] * 4), "are no groups of activations"),
        (set_to("layout", "more", 1), "its layout has an unknown part 'more'"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    change: Callable[[dict[str, Any], dict[str, Any]], None],
    reason: str,
    packed: bytes,
    tmp_path: Path,
) -> None:
    path = tmp_path / "net.safetensors"
    says = f"^{path} must hold every field of a saved packed network, but .*{re.escape(reason)}"
    refused(path, told_again(packed, change), says)


def test_a_tensor_too_many_is_noticed(packed: bytes, tmp_path: Path) -> None:
    path, tensors = tmp_path / "net.safetensors", load(packed)
    says = (
        f"^{path} must be as it was written, but has {len(tensors) + 1} tensors, not "
        f"{len(tensors)}: get it again.$"
    )
    metadata = header_of(packed)[1][METADATA]
    refused(path, save(tensors | {"more": torch.zeros(1)}, metadata), says)


def test_deep_nesting_is_refused(packed: bytes, tmp_path: Path) -> None:
    metadata = header_of(packed)[1][METADATA]
    metadata["layout"] = "[" * 100_000 + "]" * 100_000
    metadata["checksum"] = _checksum(metadata)
    says = "its layout is nested too deeply"
    refused(tmp_path / "net.safetensors", save(load(packed), metadata), says)


@pytest.mark.parametrize(
    ("name", "value"), [(".scales", 0.0), (".scales", torch.nan), (".activation_scales", torch.inf)]
)
def test_grids_of_impossible_numbers_are_refused(
    name: str, value: float, packed: bytes, tmp_path: Path
) -> None:
    changed = load(packed)[name]
    changed[0] = value
    path = tmp_path / "net.safetensors"
    refused(path, with_tensor(packed, name, changed), f"'{name}' holds a number that can be none")


@pytest.mark.parametrize(
    ("bias", "differs"),
    [
        (torch.zeros(4), "first.bias has shape [4], not [5]"),
        (torch.zeros(5).long(), "first.bias is of type int64, not torch.float32"),
    ],
)
def test_a_bias_that_its_layer_cannot_take_is_refused(
    bias: torch.Tensor, differs: str, packed: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(with_tensor(packed, "first.bias", bias))
    message = f"{path} must hold the weights of Net, but {differs}."
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        load_packed(path, WORKLOAD.model)


def test_a_tensor_of_an_unknown_type_is_refused(packed: bytes, tmp_path: Path) -> None:
    tensors, metadata = load(packed), header_of(packed)[1][METADATA]
    tensors["first.bias"] = tensors["first.bias"].to(torch.complex64)
    path = tmp_path / "net.safetensors"
    refused(path, save(tensors, metadata), "but is no whole file [(]first.bias is of type C64[)]")


@pytest.mark.parametrize("mutate", [damaged, reworded])
def test_no_file_does_harm(
    mutate: Callable[[bytes, random.Random], bytes], packed: bytes, tmp_path: Path
) -> None:
    chance, path = random.Random(0), tmp_path / "net.safetensors"
    path.write_bytes(packed)
    with torch.no_grad():
        expected = load_packed(path, WORKLOAD.model)(images())
    loaded = 0
    for _ in range(FILES // 2):
        path.write_bytes(mutate(packed, chance))
        try:
            model = load_packed(path, WORKLOAD.model)
        except FormatError:
            continue
        loaded += 1
        if mutate is damaged:  # where nothing that counts was hit
            with torch.no_grad():
                assert torch.equal(model(images()), expected)
    assert loaded < FILES // 4
