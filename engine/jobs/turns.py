"""Whose turn it is: one run works at a time, and who came first goes first. No daemon keeps this.

A run takes a ticket when it is launched or resumed and gives it back at its end. The tickets of
dead processes count for nothing, so a crash never holds up the line.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from engine.jobs.folders import RUN_ID, TICKET
from engine.jobs.processes import is_alive

SLOT = "slot0.lock"  # beside the runs; the system frees it when its holder dies
SECONDS_BETWEEN_TRIES = 0.2


def take_ticket(folder: Path) -> None:
    """Join the line at its end."""
    (folder / TICKET).write_text(str(time.time_ns()))


def line(root: Path) -> list[str]:
    """Ids of the living runs that work or wait, who came first at the front."""
    tickets = []
    for folder in root.iterdir() if root.is_dir() else ():
        if RUN_ID.fullmatch(folder.name) and (taken := _taken(folder)) and is_alive(folder):
            tickets.append((taken, folder.name))
    return [run_id for _, run_id in sorted(tickets)]


@contextmanager
def turn(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the slot, once everyone who came before is through.

    Args:
        folder: Of the run; it joins the line if it holds no ticket.
        waiting: Called again and again while the run waits; raises to leave the line.
    """
    if not _taken(folder):
        take_ticket(folder)
    slot = FileLock(folder.parent / SLOT)
    try:
        while not (_is_first(folder) and _acquired(slot)):
            waiting()
            time.sleep(SECONDS_BETWEEN_TRIES)
        yield
    finally:
        with suppress(OSError):
            (folder / TICKET).unlink(missing_ok=True)
        slot.release()


def _taken(folder: Path) -> int:
    """When a run took its ticket, in nanoseconds; 0 if it holds none."""
    try:
        return int((folder / TICKET).read_bytes())
    except (OSError, ValueError):
        return 0


def _is_first(folder: Path) -> bool:
    """Whether no living run came before; the line is empty for one whose folder is gone."""
    return line(folder.parent)[:1] in ([folder.name], [])


def _acquired(slot: FileLock) -> bool:
    try:
        slot.acquire(blocking=False)
    except Timeout:
        return False
    return True
