"""Stop a run that is not wanted, and remove one that is over."""

import shutil
import threading
import time
from pathlib import Path

from engine.jobs.events import FINAL
from engine.jobs.folders import CANCEL, changing
from engine.jobs.processes import end, is_alive, process_of
from engine.jobs.runs import state_of

REMOVED = ".removed-"  # before the name of a run that is being removed
SECONDS_OF_GRACE = 2.0  # for a worker to stop by itself
SECONDS_BETWEEN_LOOKS = 0.1


def cancel(run_id: str) -> None:
    """Ask a run to stop, and end its process if it has not after a while; returns at once.

    The wish is a file in the run's folder: it stays if this process dies. Doing it twice is
    harmless.

    Raises:
        ValueError: If there is no such run, or it is over.
        FormatError: If its folder cannot be written.
    """
    with changing(run_id) as folder:
        state = state_of(folder)
        if state == "cancelled":
            return
        if state in FINAL:
            raise ValueError(
                f"run must be queued or running to be cancelled, got {run_id}, which {is_(state)}."
            )
        (folder / CANCEL).touch()
    threading.Thread(target=_insist, args=(folder,), daemon=True).start()


def delete(run_id: str) -> None:
    """Remove a run with everything it made.

    It is put out of sight first, so that no one meets half of it; what a removal left behind that
    was cut short goes with the next.

    Raises:
        ValueError: If there is no such run, or it is not over.
        FormatError: If its folder cannot be written.
    """
    with changing(run_id) as folder:
        state = state_of(folder)
        if state not in FINAL:
            raise ValueError(
                f"run must be over to be deleted, got {run_id}, which {is_(state)}: "
                "cancel it first."
            )
        folder.rename(folder.with_name(REMOVED + folder.name))
    for removed in folder.parent.glob(f"{REMOVED}*"):
        shutil.rmtree(removed, ignore_errors=True)


def is_(state: str) -> str:
    """What a run does that is in a state."""
    return {"crashed": "has crashed", "failed": "has failed"}.get(state, f"is {state}")


def _insist(folder: Path) -> None:
    """End the process of a run that was asked to stop, and only that one."""
    process = None
    deadline = time.monotonic() + SECONDS_OF_GRACE
    while time.monotonic() < deadline and is_alive(folder):
        process = process or process_of(folder)
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if process is not None and (folder / CANCEL).exists() and process.is_running():
        end(process)
