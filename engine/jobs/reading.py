"""What others read of a run while it is written: each line once, and parsed only when needed."""

import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import overload

from engine.jobs.events import FIELDS, Row, parsed

STEPS_FOR_ETA = 30
OFTEN = tuple(
    f'{{"event": "{event}", '.encode()
    for event in ("step", "progress", "measurement", "checkpoint")
)

Entry = bytes | Row | None  # a line not yet parsed, an event, or what turned out to be none


class Rows(Sequence[Row]):
    """The events up to the moment someone looked; those that come often are parsed when asked for.

    Args:
        entries: Grows as the run goes on; parsed in place.
        count: How many of them there were.
        rare: Those among them that do not come often, and the state and the results with them.
    """

    def __init__(self, entries: list[Entry], count: int, rare: tuple[Row, ...]) -> None:
        self._entries, self._count, self.rare = entries, count, rare

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        return self._rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __reversed__(self) -> Iterator[Row]:
        """From the newest back, parsing no more than is taken."""
        return (row for i in range(self._count - 1, -1, -1) if (row := self._row(i)) is not None)

    @cached_property
    def _rows(self) -> tuple[Row, ...]:
        return tuple(row for i in range(self._count) if (row := self._row(i)) is not None)

    def _row(self, index: int) -> Row | None:
        entry = self._entries[index]
        if isinstance(entry, bytes):  # in two threads at once: twice the same
            entry = self._entries[index] = parsed(entry)
        return entry


class EventReader:
    """Read events as they come; safe between threads.

    The last line counts only once it is whole: the writer may be at it, or have died over it. A
    file that became shorter is read anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._forget()

    def rows(self) -> Rows:
        """All events so far."""
        with self._lock:
            lines = self._new_lines()
            self._entries.extend(lines)
            for index, line in enumerate(lines, len(self._entries) - len(lines)):
                if not line.startswith(OFTEN):
                    self._entries[index] = row = parsed(line)
                    self._rare.extend([row] if row else [])
            return Rows(self._entries, len(self._entries), tuple(self._rare))

    def _new_lines(self) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._forget()
                file.seek(self._offset)
                new = file.read()
        except OSError:  # the worker has not begun, or the file is gone
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.split(b"\n")[:-1]

    def _forget(self) -> None:
        self._offset = 0
        self._entries: list[Entry] = []
        self._rare: list[Row] = []


def latest(rows: Sequence[Row], event: str) -> tuple[Row, ...]:
    """The rows of an event in order; what was repeated after a resume counts as it came last.

    A run that goes on from step s says what follows s again; what it had said of later steps
    before is dropped as soon as it reaches them.
    """
    kept: list[Row] = []
    for row in rows:
        if row["event"] == event:
            while kept and "step" in FIELDS.get(event, ()) and kept[-1]["step"] >= row["step"]:
                kept.pop()
            kept.append(row)
    return tuple(kept)


def seconds_a_step(rows: Sequence[Row]) -> float | None:
    """The median of the last steps of what is being done now; None if there are fewer than two.

    Only rows since the run was last started count, so that no pause does.
    """
    steps: list[Row] = []  # the newest first
    for row in reversed(rows):
        if row["event"] in ("queued", "started", "resumed") or len(steps) > STEPS_FOR_ETA:
            break
        if row["event"] == "progress":
            if steps and _what(row) != _what(steps[0]):
                break
            steps.append(row)
    seconds = [
        (after["time"] - before["time"]) / (after["done"] - before["done"])
        for after, before in pairwise(steps)
        if after["done"] > before["done"]
    ]
    return median(seconds) if seconds else None


def seconds_at_work(rows: Rows) -> float:
    """How long the work has taken so far, over all starts: neither pauses nor waiting count.

    Of a start that crashed and was followed by another, what came after its last result is lost.
    """
    seconds, began, last = 0.0, None, 0.0
    for row in rows.rare:
        if row["event"] in ("resumed", "queued", "started"):
            seconds += last - began if began is not None else 0.0
            began = row["time"] if row["event"] == "started" else None
        last = row["time"]
    if began is None:
        return seconds
    return seconds + max(last, next(reversed(rows))["time"]) - began


def _what(progress: Row) -> tuple[int, str]:
    """What a row of progress is the progress of."""
    return progress["total"], progress.get("note", "")


def seconds_left(rows: Sequence[Row]) -> float | None:
    """Guess how long the work goes on: the median seconds a step × the steps that remain."""
    each = seconds_a_step(rows)
    if each is None:
        return None
    last = next(row for row in reversed(rows) if row["event"] == "progress")
    return each * max(0, last["total"] - last["done"])
