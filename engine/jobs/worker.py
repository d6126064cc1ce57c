"""The process of one run: `python -m engine.jobs.worker RUN_FOLDER`.

Waits for its turn before it imports torch, so that two runs do not fight for the same cores.
"""

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from engine.jobs.events import Cancelled, EventWriter
from engine.jobs.folders import CANCEL, EVENTS, RESERVE, Spec
from engine.jobs.processes import write_down
from engine.jobs.turns import turn

NICENESS = 5  # at least; the dashboard stays quick while a worker computes
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ROOM_IN_WORDS = re.compile(  # of libraries that keep the number to themselves
    "|".join([*map(os.strerror, NO_ROOM), *(rf"\bos error {n}\b" for n in NO_ROOM), "StorageFull"])
)


def main(folder: Path) -> int:
    """Do the run in a folder; 0 if it finished, 1 if it did not."""
    if hasattr(os, "nice"):
        os.nice(max(0, NICENESS - os.nice(0)))
    events = EventWriter(folder / EVENTS, (folder / CANCEL).exists)
    try:
        write_down(folder, psutil.Process())
        with turn(folder, _waiting(events)):
            events.write("started")
            from engine.jobs.work import do

            do(Spec.load(folder), folder, events)
        last: dict[str, str] = {"event": "finished"}
    except Cancelled:
        last = {"event": "cancelled"}
    except (Exception, SystemExit) as error:
        make_room(folder)
        with suppress(OSError):  # the log may be on the full disk too
            traceback.print_exc()
        last = {"event": "failed", "error": sentence(error, folder)}
    make_room(folder)
    events.end(**last)
    return 0 if last["event"] == "finished" else 1


def sentence(error: BaseException, folder: Path) -> str:
    """What to tell people: the engine's own words, else the kind of error with its message."""
    for cause in _chain(error):
        if _lacks_room(cause):
            reason = cause.strerror if isinstance(cause, OSError) else _in_one_line(cause)
            return (
                f"the disk of {folder} must have room for what the run writes, but got "
                f"{reason!r}: free space, then resume."
            )
    message = _in_one_line(error)
    own = isinstance(error, ValueError) and message
    return message if own else f"{type(error).__name__}: {message}"


def make_room(folder: Path) -> None:
    """Give back what was reserved for the last words."""
    with suppress(OSError):
        (folder / RESERVE).unlink(missing_ok=True)


def _waiting(events: EventWriter) -> Callable[[], None]:
    """Say once that the run waits, and see each time whether it still should."""
    said = False

    def wait() -> None:
        nonlocal said
        if not said:
            events.write("queued")
        said = True
        events.check()

    return wait


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _lacks_room(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    return bool(NO_ROOM_IN_WORDS.search(str(error)))


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
