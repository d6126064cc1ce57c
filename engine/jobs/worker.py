"""The process of one run: `python -m engine.jobs.worker RUN_FOLDER`.

Waits for its turn before it imports torch, so that two runs do not fight for the same cores.
"""

import os
import sys
import traceback
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from engine.jobs.events import EventWriter
from engine.jobs.folders import EVENTS, Spec

NICENESS = 5  # the dashboard stays quick while a worker computes
SLOT = "slot0.lock"  # beside the runs; the system frees it when its holder dies
SECONDS_BETWEEN_TRIES = 0.2


def main(folder: Path) -> int:
    """Do the run in a folder; 0 if it finished, 1 if it failed."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    events = EventWriter(folder / EVENTS)
    with _turn(FileLock(folder.parent / SLOT), events):
        events.write("started")
        try:
            from engine.jobs.work import do

            do(Spec.load(folder), folder, events)
        except Exception as error:
            traceback.print_exc()
            events.write("failed", error=sentence(error))
            return 1
        events.write("finished")
        return 0


def sentence(error: Exception) -> str:
    """What to tell people: the engine's own words, else the kind of error with its message."""
    message = " ".join(str(error).split())
    own = isinstance(error, ValueError) and message
    return message if own else f"{type(error).__name__}: {message}"


def _turn(slot: FileLock, events: EventWriter) -> AbstractContextManager[object]:
    """Hold the slot, and say so if it has to be waited for."""
    try:
        return slot.acquire(blocking=False)
    except Timeout:
        events.write("queued")
        return slot.acquire(poll_interval=SECONDS_BETWEEN_TRIES)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
