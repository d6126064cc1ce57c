"""What a worker says: one JSON object a line, one writer at a time."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS_BETWEEN_ROWS = 0.2  # of a kind that comes at every step
FINAL = ("finished", "failed", "cancelled", "crashed")  # the last is never said

Row = dict[str, Any]  # "event" (its name), "time" (seconds since 1970), and what belongs to it

_MEASURED = {"value": float, "low": float, "high": float, "samples": int, "loss": float}
FIELDS: dict[str, dict[str, Any]] = {
    "progress": {"done": int, "total": int, "note": str},
    "result": {"name": str, "result": dict},
    "failed": {"error": str},
    "step": {"step": int, "steps": int, "epoch": float, "loss": float, "learning_rate": float},
    "checkpoint": {"step": int},
    "reference": {"held_out": _MEASURED, "test": _MEASURED},
    "measurement": {"step": int, "held_out": _MEASURED, "test": _MEASURED, "best": bool},
}


class Cancelled(BaseException):
    """Someone asked the run to stop; no error, so nothing on the way takes it for one."""


class EventWriter:
    """Append events; others see each as soon as it is written.

    Args:
        path: File of the run's events. Where its last line was torn, a new one is begun.
        cancelled: Whether the run should stop; asked with every event.
    """

    def __init__(self, path: Path, cancelled: Callable[[], bool] = lambda: False) -> None:
        self._file = path.open("ab", buffering=0)
        self._torn = _is_torn(path)
        self._cancelled = cancelled
        self._held_back: dict[str, Row] = {}
        self._next: dict[str, float] = {}

    def write(self, event: str, **fields: Any) -> None:
        """Write one event, after those that were held back.

        Raises:
            Cancelled: If the run should stop; the event is written all the same.
        """
        self.end(event, **fields)
        self.check()

    def thinned(self, event: str, **fields: Any) -> None:
        """Write an event that comes often, five times a second at most; the latest is never lost.

        Raises:
            Cancelled: If the run should stop.
        """
        row = _row(event, fields)
        if row["time"] < self._next.get(event, 0.0):
            self._held_back[event] = row
        else:
            self._held_back.pop(event, None)
            self._next[event] = row["time"] + SECONDS_BETWEEN_ROWS
            self._append(row)
        self.check()

    def progress(self, done: int, total: int, note: str) -> None:
        """Write how far the work is; often, so thinned."""
        self.thinned("progress", done=done, total=total, note=note)

    def end(self, event: str, **fields: Any) -> None:
        """Write the last word, whether or not the run should stop."""
        row = _row(event, fields)
        held_back, self._held_back = self._held_back, {}
        for earlier in sorted(held_back.values(), key=lambda held: held["time"]):
            self._append(earlier)
        self._append(row)

    def check(self) -> None:
        """See whether to go on.

        Raises:
            Cancelled: If the run should stop.
        """
        if self._cancelled():
            raise Cancelled

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, row: Row) -> None:
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        if self._torn:
            line = b"\n" + line
        self._torn = True  # until all of it is there: the disk may be full
        while line:
            line = line[self._file.write(line) :]
        self._torn = False


def parsed(line: bytes) -> Row | None:
    """One event; None for a line that is none: cut, garbled, or with fields it should not have."""
    try:
        row = json.loads(line)
        fits = _fits(row, {"event": str, "time": float}) and _fits(
            row, FIELDS.get(row["event"], {})
        )
    except (ValueError, RecursionError, OverflowError):
        return None
    return row if fits else None


def _row(event: str, fields: dict[str, Any]) -> Row:
    return {"event": event, "time": time.time(), **fields}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of a type; for a dictionary of types, whether it has such fields."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            name in value and _fits(value[name], kind) for name, kind in wanted.items()
        )
    if wanted in (int, float):
        is_number = isinstance(value, int | wanted) and not isinstance(value, bool)
        return is_number and math.isfinite(value)
    return isinstance(value, wanted)


def _is_torn(path: Path) -> bool:
    """Whether a file's last line has no end."""
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            return False
        file.seek(-1, 2)
        return file.read(1) != b"\n"
