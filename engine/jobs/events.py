"""What a worker says and others read: one JSON object a line, one writer."""

import json
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

SECONDS_BETWEEN_PROGRESS = 0.2
STEPS_FOR_ETA = 30

Row = dict[str, Any]  # "time" (seconds since 1970), "event" (its name), and what belongs to it


class EventWriter:
    """Append events; others see each as soon as it is written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._held_back: Row | None = None
        self._next_progress = 0.0

    def write(self, event: str, **fields: Any) -> None:
        """Write one event, after any progress that was held back."""
        if self._held_back is not None:
            held_back, self._held_back = self._held_back, None
            self._append(held_back)
        self._append({"time": time.time(), "event": event, **fields})

    def progress(self, done: int, total: int, note: str) -> None:
        """Write how far the work is, at most five times a second; the latest is never lost."""
        now = time.time()
        row = {"time": now, "event": "progress", "done": done, "total": total, "note": note}
        if now < self._next_progress:
            self._held_back = row
            return
        self._held_back = None
        self._next_progress = now + SECONDS_BETWEEN_PROGRESS
        self._append(row)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, row: Row) -> None:
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()


class EventReader:
    """Read events as they come, each line once; safe between threads.

    The last line counts only once it is whole: the writer may be at it, or have died over it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rows: list[Row] = []
        self._lock = threading.Lock()

    def rows(self) -> tuple[Row, ...]:
        """All events so far."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    file.seek(self._offset)
                    new = file.read()
            except FileNotFoundError:  # the worker has not begun
                return ()
            whole = new[: new.rfind(b"\n") + 1]
            self._offset += len(whole)
            self._rows.extend(filter(None, map(_parsed, whole.splitlines())))
            return tuple(self._rows)


def _parsed(line: bytes) -> Row | None:
    """One event; None for a line that is none."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "event" in row and "time" in row else None


def seconds_left(rows: Sequence[Row]) -> float | None:
    """Guess how long the work goes on: the median seconds a step × the steps that remain.

    Only the last steps towards the same total count. None if there are fewer than two.
    """
    progress = [row for row in rows if row["event"] == "progress"][-STEPS_FOR_ETA - 1 :]
    if len(progress) < 2:
        return None
    last = progress[-1]
    seconds_a_step = [
        (after["time"] - before["time"]) / (after["done"] - before["done"])
        for before, after in pairwise(progress)
        if before["total"] == last["total"] and after["done"] > before["done"]
    ]
    remaining = last["total"] - last["done"]
    return median(seconds_a_step) * remaining if seconds_a_step and remaining >= 0 else None
