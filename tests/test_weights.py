"""Weights from files into networks, and what is said of files that hold something else."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine.results import FormatError
from engine.weights import load_weights, weights_file

URL = "https://weights.example/net-0123abcd.pth"


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 3))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_weights_come_back(tmp_path, suffix):
    stored, model, file = network(), network(), tmp_path / f"weights{suffix}"
    save: Callable = save_file if suffix == ".safetensors" else torch.save
    save(dict(stored.state_dict()), file)
    load_weights(model, file)
    for name, value in model.state_dict().items():
        assert torch.equal(value, stored.state_dict()[name])


def test_files_from_before_batch_norms_counted_are_taken(tmp_path):
    stored, model = network(), network()
    older = {k: v for k, v in stored.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(older, tmp_path / "older.safetensors")
    load_weights(model, tmp_path / "older.safetensors")
    assert torch.equal(model[0].weight, stored[0].weight)


def test_what_the_network_does_not_have_can_be_ignored(tmp_path):
    stored, model = network(), network()
    torch.save(stored.state_dict() | {"Aux.weight": torch.zeros(2)}, tmp_path / "more.pth")
    load_weights(model, tmp_path / "more.pth", ignored="Aux.")
    assert torch.equal(model[2].weight, stored[2].weight)
    with pytest.raises(FormatError, match=r", but 1 name is unexpected \(Aux\.weight\)\.$"):
        load_weights(model, tmp_path / "more.pth")


def test_names_that_have_changed_are_told(tmp_path):
    stored, model = network(), network()
    older = {f"old.{name}": value for name, value in stored.state_dict().items()}
    torch.save(older, tmp_path / "older.pth")
    load_weights(model, tmp_path / "older.pth", renamed=lambda name: name.removeprefix("old."))
    assert torch.equal(model[0].weight, stored[0].weight)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("wrong", ["missing", "cut", "text"])
def test_a_damaged_file_is_refused(tmp_path, wrong, suffix):
    file = tmp_path / f"weights{suffix}"
    save: Callable = save_file if suffix == ".safetensors" else torch.save
    save(dict(network().state_dict()), file)
    if wrong == "missing":
        file.unlink()
    elif wrong == "cut":
        file.write_bytes(file.read_bytes()[:-200])
    else:
        file.write_text("no weights")
    with pytest.raises(FormatError) as error:
        load_weights(network(), file)
    text = str(error.value)
    assert text.startswith(f"{file} must hold the weights of Sequential")
    assert "\n" not in text
    assert len(text) < 400


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"2.weight": None}, "1 name is missing (2.weight)"),
        (
            dict.fromkeys(("0.bias", "1.weight", "1.bias", "2.weight")) | {"x": (1,)},
            "4 names are missing (0.bias, 1.weight, 1.bias, …) and 1 name is unexpected (x)",
        ),
        ({"2.weight": (5, 2)}, "2.weight has shape [5, 2], not [3, 2]"),
    ],
)
def test_weights_of_another_network_are_told_by_name(tmp_path, changes, differs):
    weights = dict(network().state_dict())
    for name, shape in changes.items():
        if shape is None:
            del weights[name]
        else:
            weights[name] = torch.zeros(shape)
    save_file(weights, tmp_path / "other.safetensors")
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = f"{tmp_path / 'other.safetensors'} must hold the weights of Sequential, but {differs}."
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        load_weights(model, tmp_path / "other.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("content", ["network", "list", "nested"])
def test_only_tensors_are_loaded(tmp_path, content):
    file = tmp_path / "weights.pth"
    held = {"network": network(), "list": [1], "nested": {"state_dict": network().state_dict()}}
    torch.save(held[content], file)
    text = (
        f"{file} must hold the weights of Sequential and nothing else, for other objects could "
        "run code: save them as safetensors, or with torch.save(model.state_dict(), …)."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        load_weights(network(), file)


# --- where they are


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of weights, not made yet, with no network behind it."""
    monkeypatch.setenv("HAWQ_VIZ_DATA", str(tmp_path))

    def unreachable(*_: object) -> None:
        raise OSError("no\nroute to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    return tmp_path / "weights"


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "net.pt", "net-0123abcd.pth"])
def test_a_file_put_by_hand_is_taken(folder, name):
    folder.mkdir()
    (folder / name).touch()
    assert weights_file("net", "a net", URL) == folder / name


def test_published_weights_are_fetched_once_and_checked(folder, monkeypatch):
    asked = []

    def fetch(url: str, file: str, checksum: str) -> None:
        asked.append((url, checksum))
        Path(file).touch()

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        assert weights_file("net", "a net", URL) == folder / "net-0123abcd.pth"
    assert asked == [(URL, "0123abcd")]


def test_weights_out_of_reach_say_which_file_to_put_where(folder):
    text = (
        f"weights of net could not be fetched (no route to host): put {URL} into {folder}, or "
        "another state dict of a net as net.safetensors or net.pth."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        weights_file("net", "a net", URL)


def test_unpublished_weights_say_which_file_to_put_where(folder):
    text = (
        "weights of net must be put there by hand, for none are published: put a state dict of "
        f"a net into {folder} as net.safetensors or net.pth."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        weights_file("net", "a net")
