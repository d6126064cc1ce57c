"""What can be seen of a run, at any time and from any process."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.jobs.descriptions import Description
from engine.jobs.events import FINAL, Row
from engine.jobs.folders import CANCEL, EVENTS, LOG, RUN_ID, Spec, run_folder, runs_folder
from engine.jobs.processes import is_alive
from engine.jobs.reading import (
    EventReader,
    Rows,
    latest,
    seconds_a_step,
    seconds_at_work,
    seconds_left,
)
from engine.jobs.turns import line

RESUMABLE = ("failed", "cancelled", "crashed")
STATES = {"resumed": "queued", "queued": "queued", "started": "running"} | {
    state: state for state in FINAL[:3]
}  # event → what it says of the run
LOG_TAIL = 8_000  # bytes
READERS = 256  # runs whose events are kept in memory
SECONDS_BETWEEN_LOOKS = 0.2
CRASHED = (
    "The worker ended without a word: it was stopped from outside, or memory ran out. "
    "Resume the run."
)


@dataclass(frozen=True)
class RunView:
    """A run as it was when it was looked at."""

    id: str
    folder: Path
    kind: str  # check, analyze, quantize, finetune or export
    workload: str
    options: dict[str, Any]
    created: str  # UTC, ISO 8601
    state: str  # queued, running, finished, failed, cancelled or crashed
    done: int  # steps
    total: int  # steps; 0 before the first is known
    note: str  # what is being done
    eta_seconds: float | None
    rows: Rows  # every event
    results: dict[str, dict[str, Any]]  # name → JSON of the result
    error: str | None  # one sentence, where it failed or crashed
    place: int = 0  # runs ahead of it, the one at work among them; 0 if it is not queued
    cancelling: bool = False  # whether it was asked to stop and has not yet
    workload_file: str | None = None  # FILE.py:FUNCTION that makes the workload, if not by name
    weights: str | None = None  # file of the network's weights, if not the published ones
    title: str = ""  # what people call it: any text, to be escaped where it is shown
    remark: str = ""  # what they say of it; likewise, over lines

    @property
    def resumable(self) -> bool:
        """Whether it can go on."""
        return self.state in RESUMABLE

    @property
    def steps_per_second(self) -> float | None:
        """The rate of the last steps; None where it is unknown or nothing is going on."""
        each = seconds_a_step(self.rows) if self.state == "running" else None
        return 1 / each if each else None

    @property
    def seconds(self) -> float:
        """How long it has worked so far, without pauses and waiting."""
        return seconds_at_work(self.rows)

    def latest(self, event: str) -> tuple[Row, ...]:
        """The rows of an event in order, each step once however often the run was resumed."""
        return latest(self.rows, event)

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
        except OSError:
            return ""


def view(run_id: str) -> RunView:
    """Look at a run.

    Raises:
        ValueError: If there is no run of that id.
        FormatError: If its spec is damaged.
    """
    return _view(run_folder(run_id), None)


def list_runs() -> list[RunView]:
    """All runs, newest first; folders that hold no readable run are passed over."""
    root = runs_folder()
    waiting = line(root)
    views = []
    for folder in root.iterdir() if root.is_dir() else ():
        if RUN_ID.fullmatch(folder.name):
            with suppress(ValueError):
                views.append(_view(folder, waiting))
    return sorted(views, key=lambda seen: seen.created, reverse=True)


def follow(run_id: str) -> Iterator[RunView]:
    """Look at a run again and again, up to and with the moment it is over.

    Raises:
        ValueError: If there is no run of that id, or no longer.
    """
    while (seen := view(run_id)).state not in FINAL:
        yield seen
        time.sleep(SECONDS_BETWEEN_LOOKS)
    yield seen


def state_of(folder: Path) -> str:
    """The state of a run."""
    return _look(folder)[0]


def _view(folder: Path, waiting: list[str] | None) -> RunView:
    spec, described = Spec.load(folder), Description.load(folder)
    state, rows = _look(folder)
    if state == "queued" and waiting is None:
        waiting = line(folder.parent)
    ahead = waiting.index(folder.name) if waiting and folder.name in waiting else 0
    progress = next((row for row in reversed(rows) if row["event"] == "progress"), {})
    failed = next((row for row in reversed(rows.rare) if row["event"] == "failed"), {})
    live = state not in FINAL
    return RunView(
        id=folder.name,
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
        results={row["name"]: row["result"] for row in rows.rare if row["event"] == "result"},
        error={"crashed": CRASHED, "failed": failed.get("error")}.get(state),
        place=ahead if state == "queued" else 0,
        cancelling=live and (folder / CANCEL).exists(),
        workload_file=spec.workload_file,
        weights=spec.weights,
        title=described.title,
        remark=described.remark,
    )


def _look(folder: Path) -> tuple[str, Rows]:
    """State and events of a run.

    A process is asked for only where the last word is none, and before that word is read again: a
    worker that ends in between has said it.
    """
    reader = _reader(folder / EVENTS)
    rows = reader.rows()
    if (state := _said(rows)) in FINAL:
        return state, rows
    alive = is_alive(folder)
    rows = reader.rows()
    if (state := _said(rows)) in FINAL or alive:
        return state, rows
    return "cancelled" if (folder / CANCEL).exists() else "crashed", rows


@lru_cache(maxsize=READERS)
def _reader(path: Path) -> EventReader:
    return EventReader(path)


def _said(rows: Rows) -> str:
    """What the last word that says anything of the state says; nothing is said while it waits."""
    last = (STATES[row["event"]] for row in reversed(rows.rare) if row["event"] in STATES)
    return next(last, "queued")
