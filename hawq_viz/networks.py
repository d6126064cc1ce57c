"""The networks that the dashboard offers: the operator's own, the known ones, and uploaded weights.

The operator's own is named when the dashboard is started, in the environment's
`HAWQ_VIZ_WORKLOAD_FILE`, and nowhere else: its file is run as Python by the workers, so no page, no
link and no upload may choose it.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine import jobs
from engine.models import torchvision_names
from engine.results import FormatError
from engine.workloads import (
    OWN_WEIGHTS,
    check_workload_name,
    name_with,
    split_workload_file,
    workload_names,
)

OWN_FILE = "HAWQ_VIZ_WORKLOAD_FILE"  # environment variable: FILE.py:FUNCTION
SUFFIXES = ("safetensors", "pth", "pt")  # of weights
WEIGHTS = "weights"  # folder of uploads, beside the runs


def serve_own(spec: str) -> None:
    """Let the dashboard that is started from here offer a network of the operator's own.

    Raises:
        ValueError: If it is not of the form FILE.py:FUNCTION.
        FormatError: If there is no such file.
    """
    file, function = split_workload_file(spec)
    os.environ[OWN_FILE] = f"{file.resolve()}:{function}"


def own_file() -> str | None:
    """The operator's own network as FILE.py:FUNCTION; None if there is none."""
    return os.environ.get(OWN_FILE) or None


def own_name() -> str | None:
    """What it is called here and in its results: its file without the folder, and the function."""
    file = own_file()
    return f"{Path(file.rpartition(':')[0]).name}:{file.rpartition(':')[2]}" if file else None


def is_own(name: str) -> bool:
    """Whether a network is the operator's own."""
    return name == own_name()


def network_names() -> tuple[str, ...]:
    """What the list of networks holds: the operator's own first, then known ones, then uploads."""
    own = own_name()
    return (*([own] if own else []), *workload_names(), *_uploaded())


def architectures() -> tuple[str, ...]:
    """Networks that weights may be uploaded for."""
    return (*workload_names(), *torchvision_names.WORKLOADS)


def runs_here(runs: Iterable[jobs.RunView]) -> list[jobs.RunView]:
    """Those of known networks and of the operator's own, not of another file of that name."""
    return [run for run in runs if run.workload_file in (None, own_file())]


def launch(kind: str, network: str, options: Mapping[str, Any]) -> str:
    """Start a run of one of these networks; its id.

    Raises:
        ValueError: If the network is unknown, or an option is.
        FormatError: If its weights are not here, or the folder of runs cannot be written.
    """
    if is_own(network):
        told = {name: value for name, value in options.items() if name != "data"}
        return jobs.launch(kind, network, told, workload_file=own_file())
    if OWN_WEIGHTS in network:
        return jobs.launch(kind, network, options, weights=weights_of(network))
    return jobs.launch(kind, network, options)


def weights_of(network: str) -> Path:
    """The file of uploaded weights, by the network's name with their fingerprint.

    Raises:
        ValueError: If the name is none of a known network.
        FormatError: If the file is not here.
    """
    stem = weights_folder() / check_workload_name(network)  # so that it leads nowhere else
    for suffix in SUFFIXES:
        if (file := stem.with_name(f"{stem.name}.{suffix}")).is_file():
            return file
    raise FormatError(
        f"the weights of {network} must be in {weights_folder()}, but are not: upload them again "
        "under “Your own weights”."
    )


def keep_weights(architecture: str, file_name: str, content: bytes) -> str:
    """Store uploaded weights by their fingerprint; the name of the network with them.

    They are read by a worker alone, as tensors and nothing else, when a run needs them.

    Raises:
        ValueError: If the architecture is unknown, or the file is of no known kind.
        FormatError: If it cannot be stored.
    """
    suffix = Path(file_name).suffix.removeprefix(".")
    if suffix not in SUFFIXES:
        raise ValueError(
            f"weights must be a file that ends in {', '.join(f'.{x}' for x in SUFFIXES)}, "
            f"got {file_name!r}: save a state dict as safetensors."
        )
    network = check_workload_name(architecture).partition(OWN_WEIGHTS)[0]
    name = f"{network}{OWN_WEIGHTS}{hashlib.sha256(content).hexdigest()[:12]}"
    file = weights_folder() / f"{name}.{suffix}"
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(file)
    except OSError as error:
        with suppress(OSError):  # it may never have been made
            part.unlink()
        raise FormatError(
            f"the folder of weights, {weights_folder()}, must be writable, but {error.strerror}: "
            "free space or rights there, or choose another folder in HAWQ_VIZ_RUNS."
        ) from error
    return name_with(name, file)


def delete_weights(network: str) -> None:
    """Delete uploaded weights; runs made with them stay, but cannot go on.

    Raises:
        ValueError: If a run is at work with them, or the name is none of a known network.
        FormatError: If they are not here, or cannot be deleted.
    """
    file = weights_of(network)
    busy = [x.id for x in jobs.list_runs() if x.workload == network and x.state not in jobs.FINAL]
    if busy:
        raise ValueError(
            f"the weights of {network} must not be in use to be deleted, but {busy[0]} is at work "
            "with them: cancel it first."
        )
    try:
        file.unlink(missing_ok=True)  # another tab may have been faster
    except OSError as error:
        raise FormatError(
            f"{file} must be deletable, but {error.strerror}: give rights to its folder."
        ) from error


def weights_folder() -> Path:
    """Where uploaded weights lie: in the folder of runs."""
    return jobs.runs_folder() / WEIGHTS


def _uploaded() -> list[str]:
    """Names of the networks with uploaded weights."""
    root, names = weights_folder(), set()
    for suffix in SUFFIXES:
        for file in root.rglob(f"*{OWN_WEIGHTS}*.{suffix}"):
            name = file.relative_to(root).as_posix().removesuffix(f".{suffix}")
            try:
                names.add(check_workload_name(name))
            except ValueError:  # something else that was put there
                continue
    return sorted(names)
