"""Weights from a file into a network, exactly; and files of published weights."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.datasets.cifar10 import data_folder
from engine.results import FormatError, in_short

SUFFIXES = (".safetensors", ".pth", ".pt")
NAMED = 3  # names that an error lists, of each kind
COUNTER = "num_batches_tracked"  # of a batch norm: no evaluation reads it, and older files lack it


def load_weights(
    model: nn.Module,
    path: Path,
    *,
    ignored: str = "",
    renamed: Callable[[str], str] | None = None,
) -> None:
    """Load a file into a network, exactly.

    Args:
        model: Changed only if the whole file fits.
        path: Safetensors, or a state dict of tensors as `torch.save` writes it.
        ignored: How names begin that the file may have though the network does not.
        renamed: Name in the file → name in the network, where some have changed.

    Raises:
        FormatError: If the file is missing, damaged, of another network or not of tensors alone.
    """
    expected = f"{path} must hold the weights of {type(model).__name__}"
    try:
        found = _read(path)
    except UnpicklingError as error:
        raise FormatError(
            f"{expected} and nothing else, for other objects could run code: save them as "
            "safetensors, or with torch.save(model.state_dict(), …)."
        ) from error
    except Exception as error:  # whatever a foreign reader raises
        reason = in_short(error)
        raise FormatError(f"{expected}, but {reason}.") from error
    if ignored:
        found = {name: value for name, value in found.items() if not name.startswith(ignored)}
    if renamed is not None:
        found = {renamed(name): value for name, value in found.items()}
    if differs := differences(model.state_dict(), found):
        raise FormatError(f"{expected}, but {differs}.")
    model.load_state_dict(found, strict=False)


def weights_file(name: str, fits: str, url: str = "") -> Path:
    """Find the file of a network's weights: the user's own, else the published one, fetched once.

    Args:
        name: Of the workload: a file of that name in `data_folder()/weights` comes first.
        fits: Whose state dict fits, for the error.
        url: Of published weights, with their checksum in the name as torchvision has it.

    Raises:
        FormatError: If there is no file and none could be fetched.
    """
    folder = data_folder() / "weights"
    published = folder / url.rpartition("/")[2]
    for path in [folder / f"{name}{suffix}" for suffix in SUFFIXES] + [published]:
        if path.is_file():
            return path
    own = f"{name}.safetensors or {name}.pth"
    if not url:
        raise FormatError(
            f"weights of {name} must be put there by hand, for none are published: put a state "
            f"dict of {fits} into {folder} as {own}."
        )
    checksum = re.search(r"-([0-9a-f]{8,})\.", published.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(published), checksum and checksum[1])
    except Exception as error:  # whatever a network raises
        reason = in_short(error)
        raise FormatError(
            f"weights of {name} could not be fetched ({reason}): put {url} into {folder}, "
            f"or another state dict of {fits} as {own}."
        ) from error
    return published


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    found: Any = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or not all(isinstance(x, Tensor) for x in found.values()):
        raise UnpicklingError("not tensors by their names")
    return found


def differences(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """What keeps a file from fitting, in words; nothing if it fits."""
    missing = [name for name in own if name not in found and not name.endswith(COUNTER)]
    unexpected = [name for name in found if name not in own]
    parts = [
        f"{len(names)} {'name is' if len(names) == 1 else 'names are'} {kind} "
        f"({', '.join(names[:NAMED])}"
        f"{', …' if len(names) > NAMED else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    for name, value in found.items():
        if name in own and value.shape != own[name].shape:
            parts.append(f"{name} has shape {list(value.shape)}, not {list(own[name].shape)}")
            break
    return " and ".join(parts)
