"""Where runs lie, how they are named, and what was asked of each."""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from platformdirs import user_data_path

from engine.results import read_json, reading, write_json

EVENTS = "events.jsonl"
LOG = "log.txt"
PROCESS = "proc.json"
SPEC = "spec.json"

RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{4}")
LONGEST_WORKLOAD = 40  # characters of its name in a run's id


@dataclass(frozen=True)
class Spec:
    """What was asked of a run."""

    work: str  # analyze or quantize
    workload: str
    options: dict[str, Any]
    created: str  # UTC, ISO 8601
    workload_file: str | None = None  # FILE.py:FUNCTION that makes the workload, if not by name

    def save(self, folder: Path) -> None:
        """Write `spec.json`."""
        write_json(folder / SPEC, "run", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `spec.json`; FormatError where it is damaged."""
        fields = read_json(folder / SPEC, "run")
        with reading(folder / SPEC, "run"):
            return cls(**fields)


def runs_folder() -> Path:
    """Where runs lie: the environment's `HAWQ_VIZ_RUNS`, else the user's data folder."""
    chosen = os.environ.get("HAWQ_VIZ_RUNS")
    return Path(chosen).resolve() if chosen else user_data_path("hawq-viz") / "runs"


def new_run(
    work: str, workload: str, options: Mapping[str, Any], workload_file: str | None
) -> Path:
    """Make the folder of a new run with its spec; ids sort by the time they were made."""
    now = datetime.now(UTC)
    name = re.sub("[^a-z0-9]+", "-", workload.lower())[:LONGEST_WORKLOAD].strip("-") or "workload"
    folder = runs_folder() / f"{now:%Y%m%d-%H%M%S}-{work}-{name}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    created = now.isoformat(timespec="milliseconds")
    Spec(work, workload, dict(options), created, workload_file).save(folder)
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
