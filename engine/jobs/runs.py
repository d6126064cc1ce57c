"""What can be seen of a run, at any time and from any process."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.jobs.events import EventReader, Row, seconds_left
from engine.jobs.folders import EVENTS, LOG, RUN_ID, Spec, run_folder, runs_folder
from engine.jobs.processes import is_alive

FINAL = ("finished", "failed", "crashed")
LOG_TAIL = 8_000  # bytes
READERS = 256  # runs whose events are kept in memory
CRASHED = (
    "The worker ended without a word: it was stopped from outside, or memory ran out. "
    "Start the run again."
)


@dataclass(frozen=True)
class RunView:
    """A run as it was when it was looked at."""

    id: str
    folder: Path
    kind: str  # analyze or quantize
    workload: str
    options: dict[str, Any]
    created: str  # UTC, ISO 8601
    state: str  # queued, running, finished, failed or crashed
    done: int  # steps
    total: int  # steps; 0 before the first is known
    note: str  # what is being done
    eta_seconds: float | None
    rows: tuple[Row, ...]  # every event
    results: dict[str, dict[str, Any]]  # name → JSON of the result
    error: str | None  # one sentence, where it failed or crashed

    def artefact(self, name: str) -> Path:
        """Path of a file or folder that the run wrote, or would have.

        Raises:
            ValueError: If the name leads out of the run's folder.
        """
        if name != Path(name).name or name in ("", ".."):
            raise ValueError(f"artefact must be the name of a file in the run, got {name!r}.")
        return self.folder / name

    @property
    def log_tail(self) -> str:
        """The end of the worker's output."""
        try:
            with (self.folder / LOG).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL))
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


def view(run_id: str) -> RunView:
    """Look at a run.

    Raises:
        ValueError: If there is no run of that id.
        FormatError: If its spec is damaged.
    """
    folder = run_folder(run_id)
    spec = Spec.load(folder)
    alive = is_alive(folder)  # asked first: a worker that ends in between has said its last word
    rows = _reader(folder / EVENTS).rows()
    state = _state(rows, alive)
    progress = next((row for row in reversed(rows) if row["event"] == "progress"), {})
    failed = next((row for row in reversed(rows) if row["event"] == "failed"), {})
    return RunView(
        id=run_id,
        folder=folder,
        kind=spec.work,
        workload=spec.workload,
        options=spec.options,
        created=spec.created,
        state=state,
        done=progress.get("done", 0),
        total=progress.get("total", 0),
        note=progress.get("note", ""),
        eta_seconds=seconds_left(rows) if state == "running" else None,
        rows=rows,
        results={row["name"]: row["result"] for row in rows if row["event"] == "result"},
        error=CRASHED if state == "crashed" else failed.get("error"),
    )


def list_runs() -> list[RunView]:
    """All runs, newest first; folders that hold no readable run are passed over."""
    views = []
    for folder in runs_folder().iterdir() if runs_folder().is_dir() else ():
        if RUN_ID.fullmatch(folder.name):
            with suppress(ValueError):
                views.append(view(folder.name))
    return sorted(views, key=lambda seen: seen.created, reverse=True)


@lru_cache(maxsize=READERS)
def _reader(path: Path) -> EventReader:
    return EventReader(path)


def _state(rows: Sequence[Row], alive: bool) -> str:
    said = [row["event"] for row in rows if row["event"] in ("queued", "started", *FINAL)]
    last = said[-1] if said else "started"
    if last in FINAL:
        return last
    if not alive:
        return "crashed"
    return "queued" if last == "queued" else "running"
