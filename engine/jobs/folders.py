"""Where runs lie, how they are named, and what was asked of each."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from filelock import FileLock
from platformdirs import user_data_path

from engine.results import FormatError, read_json, reading, write_json

CANCEL = "CANCEL"  # is there once someone has asked the run to stop
ANALYSIS = "analysis.json"
CHECKPOINT = "checkpoint.pt"
OUTCOMES = "outcomes"  # folder of what each network did on each test image
PACKED, ONNX = "network.packed.safetensors", "network.onnx"  # of an export
EVENTS = "events.jsonl"
LOG = "log.txt"
PROCESS = "proc.json"
RESERVE = "reserve"  # room for the last words on a disk that is full
SPEC = "spec.json"
TICKET = "ticket"  # when the run took its place in the line

CHANGES = "changes.lock"  # beside the runs
RESERVED = 2**16  # bytes
RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{4}")
LONGEST_WORKLOAD = 40  # characters of its name in a run's id


@dataclass(frozen=True)
class Spec:
    """What was asked of a run."""

    work: str  # analyze, quantize, finetune or export
    workload: str
    options: dict[str, Any]
    created: str  # UTC, ISO 8601
    workload_file: str | None = None  # FILE.py:FUNCTION that makes the workload, if not by name
    weights: str | None = None  # file of the network's weights, if not the published ones

    def __post_init__(self) -> None:
        for field in fields(self):
            kind = dict if field.name == "options" else str
            value = getattr(self, field.name)
            optional = field.name in ("workload_file", "weights")
            if not isinstance(value, kind) and not (optional and value is None):
                raise TypeError(f"{field.name} is {value!r}")

    def save(self, folder: Path) -> None:
        """Write `spec.json`."""
        write_json(folder / SPEC, "run", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `spec.json`; FormatError where it is damaged."""
        written = read_json(folder / SPEC, "run")
        with reading(folder / SPEC, "run"):
            return cls(**written)


def runs_folder() -> Path:
    """Where runs lie: the environment's `HAWQ_VIZ_RUNS`, else the user's data folder."""
    chosen = os.environ.get("HAWQ_VIZ_RUNS")
    return Path(chosen).resolve() if chosen else user_data_path("hawq-viz") / "runs"


def new_run(
    work: str,
    workload: str,
    options: Mapping[str, Any],
    workload_file: str | None,
    weights: str | None = None,
) -> Path:
    """Make the folder of a new run with its spec; ids sort by the time they were made.

    Raises:
        FormatError: If it cannot be written.
    """
    now = datetime.now(UTC)
    root = runs_folder()
    name = re.sub("[^a-z0-9]+", "-", workload.lower())[:LONGEST_WORKLOAD].strip("-") or "workload"
    stem = f"{now:%Y%m%d-%H%M%S}-{work}-{name}"
    created = now.isoformat(timespec="milliseconds")
    with writing_in(root):
        root.mkdir(parents=True, exist_ok=True)
        folder = _new_folder(root, stem)
        try:
            reserve_room(folder)
            Spec(work, workload, dict(options), created, workload_file, weights).save(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return folder


def _new_folder(root: Path, stem: str) -> Path:
    """Make a folder of a name that none has."""
    while True:
        with suppress(FileExistsError):
            folder = root / f"{stem}-{secrets.token_hex(2)}"
            folder.mkdir()
            return folder


def run_folder(run_id: str) -> Path:
    """The folder of a run.

    Raises:
        ValueError: If there is none of that id, or it is no id: it may come from a URL, and must
            not lead out of the runs.
    """
    folder = runs_folder() / run_id if RUN_ID.fullmatch(run_id) else None
    if folder is None or not (folder / SPEC).is_file():
        raise ValueError(f"run must be the id of one in {runs_folder()}, got {run_id!r}.")
    return folder


@contextmanager
def changing(run_id: str) -> Iterator[Path]:
    """Hold off others who would cancel, resume or delete a run; its folder.

    Raises:
        ValueError: If there is no such run, or no longer.
        FormatError: If something cannot be written.
    """
    folder = run_folder(run_id)
    with writing_in(folder.parent), FileLock(folder.parent / CHANGES):
        yield run_folder(run_id)


def reserve_room(folder: Path) -> None:
    """Take a little of the disk, to be given back where the last words would not fit."""
    (folder / RESERVE).write_bytes(os.urandom(RESERVED))  # no file system can pack it


class writing_in:  # noqa: N801 — reads as a statement: `with writing_in(folder):`
    """Turn what a folder refuses into a FormatError that names it and the way out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise FormatError(
                f"the folder of runs, {self.folder}, must be writable, but {error.strerror}: "
                "free space or rights there, or choose another folder in HAWQ_VIZ_RUNS."
            ) from error
